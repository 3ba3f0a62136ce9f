"""Which instances reach an address with what, tunnels apart: of its own VPC and of the peered ones.

A region here is over source address, protocol and port. The same reading as `paths.judge_flow`;
`tests/unit/test_reach_traffic.py` holds both against each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from wicketgate.explain import allowed
from wicketgate.explain.classes import ends_of_ranges
from wicketgate.explain.reach_network import Target, place_of, targets_of
from wicketgate.explain.region import EVERY_IPV4, EVERY_IPV6, EVERY_SOURCE, NOTHING, Box, Region, span_of
from wicketgate.explain.sent import NEVER_FORWARDED
from wicketgate.model import NetworkInterface, World
from wicketgate.paths.routes import hop


class Arrival(NamedTuple):
    """All these senders reach the target alike."""

    senders: tuple[Target, ...]
    """Interfaces and the address that each sends from; empty = from addresses that are not its own."""
    target: Target
    region: Region
    """What arrives. For senders with an address every source stands for that one."""
    peering: str
    """What the packets cross; empty within the VPC."""
    answered: bool
    """Whether there is a way back: without one no connection comes about."""


def arriving(world: World, target: Target) -> tuple[Arrival, ...]:
    """Who reaches an address with what. Endpoints are not asked about: nothing but tunnels comes out of them."""
    receiver = world.interface(target.interface)
    assert receiver is not None, "targets are made from interfaces"
    if world.endpoint_of_interface(receiver.id) is not None or not _running(world, receiver):
        return ()
    alike: dict[Any, tuple[NetworkInterface, list[Target]]] = {}
    places = _places(world, receiver)
    for sender in _senders(world, receiver):
        for one in (*targets_of(world, sender), *_forged(sender)):
            if one.address and (":" in one.address) is not (":" in target.address):
                continue
            place = place_of(one.address, places) if one.address else -1
            key = tuple(sorted(set(sender.group_ids))), place, sender.subnet_id
            alike.setdefault(key, (sender, []))[1].append(one)
    found = (_arrival(world, sender, some, receiver, target) for sender, some in alike.values())
    return tuple(_merged(one for one in found if one.region))


def _senders(world: World, receiver: NetworkInterface) -> Iterator[NetworkInterface]:
    home = world.vpc_of_subnet(receiver.subnet_id).id
    for vpc_id in (home, *(one.other(home) for one in world.active_peerings(home))):
        for sender in world.interfaces_of_vpc(vpc_id):
            of_service = world.endpoint_of_interface(sender.id) is not None
            if sender.id != receiver.id and not of_service and _running(world, sender):
                yield sender


def _running(world: World, eni: NetworkInterface) -> bool:
    instance = world.instance_of_interface(eni.id)
    return instance is None or instance.may_answer


def _forged(sender: NetworkInterface) -> tuple[Target, ...]:
    """The sender once more, for addresses that are not its own."""
    return () if sender.source_dest_check else (Target(sender.id, "", ""),)


def _places(world: World, receiver: NetworkInterface) -> list[int]:
    """The ends of everything that tells senders' addresses apart: ranges of rules, and of routes back."""
    home = world.vpc_of_subnet(receiver.subnet_id).id
    found = set(ends_of_ranges((world,), (home, *(one.other(home) for one in world.active_peerings(home)))))
    for table in world.route_tables:
        if table.vpc_id == home:
            for first, last in (span_of(route.destination) for route in table.routes):
                found |= {first, last + 1}
    return sorted(found)


def _arrival(
    world: World, sender: NetworkInterface, some: list[Target], receiver: NetworkInterface, target: Target
) -> Arrival:
    way = hop(world, sender, receiver, target.address)
    nothing = Arrival(tuple(some), target, NOTHING, "", False)
    if not way.arrives:
        return nothing
    out = allowed.outbound(world, sender, receiver, target.address)
    both = out & allowed.inbound(world, receiver, sender) if out else NOTHING
    address = some[0].address
    if address:
        place = span_of(address)[0]
        region = Region(box._replace(sources=EVERY_SOURCE) for box in both.boxes if box[0][0] <= place <= box[0][1])
        answered = way.peering is None or hop(world, receiver, sender, address).arrives
    elif way.peering is None:
        region, answered = both & _forgeable(":" in target.address), False
    else:  # the peered VPC takes its neighbour's addresses alone, and each of them from its holder alone
        return nothing
    return Arrival(tuple(some), target, region, "" if way.peering is None else way.peering.id, answered)


@lru_cache(maxsize=2)
def _forgeable(six: bool) -> Region:
    family = Region((Box(EVERY_IPV6 if six else EVERY_IPV4),))
    return family - Region(Box(span_of(one)) for one in NEVER_FORWARDED)


def _merged(found: Iterable[Arrival]) -> Iterator[Arrival]:
    """What is the same of several classes of senders as one."""
    same: dict[Any, tuple[Arrival, list[Target]]] = {}
    for one in found:
        key = one.region.merged(), one.peering, one.answered, bool(one.senders[0].address)
        same.setdefault(key, (one, []))[1].extend(one.senders)
    for one, senders in same.values():
        yield one._replace(senders=tuple(senders))
