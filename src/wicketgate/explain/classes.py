"""Network interfaces that no security group rule tells apart, and what passes between two of them.

Two interfaces with the same groups, whose addresses lie between the same ends of all ranges that rules name, are judged
alike in every respect. So questions about all pairs are asked once for each pair of classes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from typing import Literal, NamedTuple

from wicketgate.explain import allowed
from wicketgate.explain.region import EVERY_IPV4, EVERY_IPV6, EVERY_SOURCE, IPV4_END, NOTHING, Box, Region, span_of
from wicketgate.model import Endpoint, NetworkInterface, World

Sends = Literal["own", "clients", "any"]
"""From which addresses an interface sends: its own, those of clients (an endpoint that preserves them) or any."""


class Class(NamedTuple):
    """What makes interfaces alike."""

    groups: tuple[str, ...]
    places: tuple[int, ...]
    """For each address, between which ends of ranges it lies."""
    sends: Sends
    owner: str
    """An endpoint's id; empty for others. An endpoint is like no other interface: tunnels alone come out of it."""
    vpc_id: str


def ends_of_ranges(worlds: Iterable[World], vpc_ids: Iterable[str]) -> list[int]:
    """Where on the source axis some rule of these VPCs starts or stops to hold, in order."""
    vpc_ids = frozenset(vpc_ids)
    ends = {0, IPV4_END}
    for world in worlds:
        for group in world.groups:
            if group.vpc_id not in vpc_ids:
                continue
            for rule in group.rules:
                if rule.referenced_group_id is None:
                    for first, last in allowed.peers_of(world, group, rule, ()):
                        ends |= {first, last + 1}
    return sorted(ends)


def class_of(world: World, eni: NetworkInterface, ends: list[int]) -> Class:
    """The class of an interface, relative to the ends of all ranges that matter."""
    endpoint = world.endpoint_of_interface(eni.id)
    return Class(
        groups=tuple(sorted(set(eni.group_ids))),
        places=tuple(bisect_right(ends, span_of(one)[0]) for one in eni.addresses),
        sends=_sends(eni, endpoint),
        owner="" if endpoint is None else endpoint.id,
        vpc_id=world.vpc_of_subnet(eni.subnet_id).id,
    )


def _sends(eni: NetworkInterface, endpoint: Endpoint | None) -> Sends:
    if endpoint is not None:
        return "clients" if endpoint.preserve_client_ip else "own"
    return "own" if eni.source_dest_check else "any"


def passing(world: World, sender: NetworkInterface, receiver: NetworkInterface) -> Region:
    """The packets that security groups pass from one interface of a VPC to another of the same VPC.

    The sources are exact for an endpoint that preserves clients' addresses and for an interface without source check;
    for others every source of a family stands for the interface's own addresses, so that alike interfaces have the
    same answer.
    """
    if sender.id == receiver.id or world.endpoint_of_interface(receiver.id) is not None:
        return NOTHING
    inbound = allowed.inbound(world, receiver, sender)
    found = NOTHING
    for destination in receiver.addresses:
        family = EVERY_IPV4 if ":" not in destination else EVERY_IPV6
        both = allowed.outbound(world, sender, receiver, destination) & inbound & Region((Box(family),))
        found |= _from(world, sender, both)
    return found


def _from(world: World, sender: NetworkInterface, region: Region) -> Region:
    """The part that the sender can send."""
    endpoint = world.endpoint_of_interface(sender.id)
    kind = _sends(sender, endpoint)
    if kind == "any":
        return region
    found = NOTHING
    for address in sender.addresses:
        six = ":" in address
        if kind == "clients" and (not six or world.settings.preserve_client_ipv6):
            found |= region & (Region((Box(EVERY_IPV6 if six else EVERY_IPV4),)) - _own_ranges(world, sender))
        else:
            span = span_of(address)
            whole = EVERY_IPV6 if six else EVERY_IPV4
            found |= Region(box._replace(sources=whole) for box in (region & Region((Box(span),))).boxes)
    return found


def _own_ranges(world: World, sender: NetworkInterface) -> Region:
    """Addresses of the VPC, which no client has (`tunnel.targets.client_refusal`)."""
    vpc = world.vpc_of_subnet(sender.subnet_id)
    return Region(Box(span_of(one)) for one in (vpc.cidr_block, *vpc.ipv6_cidr_blocks))


def tunnels_only(region: Region) -> Region:
    """What of it an endpoint can make: TCP alone comes out of tunnels."""
    return region & Region((Box(EVERY_SOURCE, (6, 6)),))
