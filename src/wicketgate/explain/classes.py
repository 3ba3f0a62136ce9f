"""Network interfaces that no security group rule tells apart, and what passes between two of them.

Two interfaces with the same groups, whose addresses lie between the same ends of all ranges that rules name, are judged
alike in every respect. So questions about all pairs are asked once for each pair of classes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from typing import NamedTuple

from wicketgate.explain import allowed
from wicketgate.explain.region import EVERY_SOURCE, IPV4_END, NOTHING, Box, Region, span_of
from wicketgate.explain.sent import Sends, sends, sent, widened
from wicketgate.model import NetworkInterface, World


class Class(NamedTuple):
    """What makes interfaces alike."""

    groups: tuple[str, ...]
    places: tuple[int, ...]
    """For each address, between which ends of ranges it lies."""
    sends: Sends
    owner: str
    """An endpoint's id; empty for others. An endpoint is like no other interface: tunnels alone come out of it."""
    vpc_id: str
    returns: bool
    """Whether its replies to clients' addresses come back."""


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
        sends=sends(world, eni),
        owner="" if endpoint is None else endpoint.id,
        vpc_id=world.vpc_of_subnet(eni.subnet_id).id,
        returns=world.replies_return(eni),
    )


def passing(world: World, sender: NetworkInterface, receiver: NetworkInterface) -> Region:
    """The packets that pass from one interface to another, to whichever address of it.

    The sources are exact for an endpoint that preserves clients' addresses and for an interface without source check;
    for others every source of a family stands for the interface's own addresses, so that alike interfaces have the
    same answer.
    """
    found = NOTHING
    for destination in receiver.addresses:
        found |= sent(world, sender, receiver, destination)
    return widened(world, sender, found)


def tunnels_only(region: Region) -> Region:
    """What of it an endpoint can make: TCP alone comes out of tunnels."""
    return region & Region((Box(EVERY_SOURCE, (6, 6)),))
