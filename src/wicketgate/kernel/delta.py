"""What of a World the kernel has to be told about, after another World that is in force.

Found by comparing look-ups: a walk over each kind that changed, and nothing for the kinds that did not. That neither
the kernel nor a whole VPC is read again is what keeps a change of one interface among thousands fast.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from wicketgate.model import World

ENDING = frozenset({"stopping", "shutting-down"})
"""States of an instance in which its processes end, and say so to whom they are connected with."""
OVER = frozenset({"stopped", "terminated"})
"""States of an instance that has no process any more."""


@dataclass
class Delta:
    """What may differ: perhaps a little more than does, never less."""

    gone: set[str] = field(default_factory=set)
    """VPCs that are no more. The others below are there."""
    whole: set[str] = field(default_factory=set)
    """VPCs that are new, or whose ranges or subnets changed."""
    rules: set[str] = field(default_factory=set)
    """VPCs whose ruleset may differ."""
    interfaces: dict[str, set[str]] = field(default_factory=dict)
    """VPC -> ids of network interfaces that came, changed or went."""
    returns: set[str] = field(default_factory=set)
    """VPCs in which endpoints came, changed or went."""
    stopped: dict[str, set[str]] = field(default_factory=dict)
    """VPC -> addresses of instances that stopped."""
    routing: bool = False
    """Whether peering connections or routes may."""

    @property
    def touched(self) -> set[str]:
        """All VPCs in which something may differ but for peering and routes."""
        return self.whole | self.rules | self.interfaces.keys() | self.returns | self.stopped.keys()


def delta(before: World, world: World) -> Delta:
    """What the kernel has to be told when `before` is in force and `world` shall be."""
    found = Delta()
    there = world.by_id("vpcs").keys()
    for old, new in _changed(before, world, "vpcs"):
        if new is None:
            found.gone.add(old.id)
        elif old is None or old.networks != new.networks:
            found.whole.add(new.id)
    for old, new in _changed(before, world, "subnets"):
        # Of the networks that subnets are bound to the kernel is told by netd's own file, not by the World.
        if old is None or new is None or old != msgspec.structs.replace(new, attached=old.attached):
            found.whole |= {one.vpc_id for one in (old, new) if one is not None} & there
    found.rules |= _rules(before, world)
    for eni_id in _interfaces(before, world):
        for place in (before, world):
            if (eni := place.interface(eni_id)) is not None:
                found.interfaces.setdefault(place.vpc_of_subnet(eni.subnet_id).id, set()).add(eni_id)
    found.returns |= {
        place.vpc_of_subnet(one.subnet_id).id
        for place in (before, world)
        for one in _either(before, world, "endpoints")
        if place.subnet(one.subnet_id) is not None
    }
    found.stopped = _stopped(before, world)
    # Members and groups count in the VPCs that refer to them across a peering connection too.
    moved = found.gone | found.whole | found.interfaces.keys()
    found.rules |= moved | found.returns
    found.rules |= {
        one.other(vpc_id) for place in (before, world) for vpc_id in moved for one in _active(place, vpc_id)
    }
    found.routing = bool(found.gone or found.whole or _differ(before, world, "peerings", "route_tables"))
    for vpc_id in found.interfaces.keys() - there:
        del found.interfaces[vpc_id]
    found.rules &= there
    found.returns &= there
    return found


def _differ(before: World, world: World, *kinds: str) -> bool:
    return any(getattr(before, kind) is not getattr(world, kind) for kind in kinds)


def _changed(before: World, world: World, kind: str) -> list[tuple[Any, Any]]:
    """(old, new) of every resource that came (old is None), is another, or went (new is None)."""
    if not _differ(before, world, kind):
        return []
    old, new = before.by_id(kind), world.by_id(kind)
    pairs = [(there, one) for key, one in new.items() if (there := old.get(key)) is not one and there != one]
    return pairs + [(one, None) for key, one in old.items() if key not in new]


def _either(before: World, world: World, kind: str) -> Iterator[Any]:
    """Old and new resources of a kind that differ."""
    return (one for pair in _changed(before, world, kind) for one in pair if one is not None)


def _active(world: World, vpc_id: str) -> tuple[Any, ...]:
    return world.active_peerings(vpc_id) if world.peerings else ()


def _rules(before: World, world: World) -> set[str]:
    """VPCs with groups that changed, that name a prefix list that did, or that refer to a group across a peering
    connection that did."""
    found = set()
    for old, new in _changed(before, world, "groups"):
        vpc_id = (new or old).vpc_id
        found.add(vpc_id)
        if old is None or new is None:
            found |= {one.other(vpc_id) for place in (before, world) for one in _active(place, vpc_id)}
    lists = {one.id for one in _either(before, world, "prefix_lists")}
    found |= {one.vpc_id for list_id in lists for one in world.groups_naming(list_id)}
    for one in _either(before, world, "peerings"):
        found |= {one.requester_vpc_id, one.accepter_vpc_id}
    return found


def _interfaces(before: World, world: World) -> set[str]:
    """Network interfaces that changed, or that have another owner."""
    found = {one.id for one in _either(before, world, "interfaces")}
    for kind in ("instances", "endpoints"):
        for old, new in _changed(before, world, kind):
            ends = {one.interface_id for one in (old, new) if one is not None}
            if old is None or new is None or len(ends) > 1:
                found |= ends
    return found


def _stopped(before: World, world: World) -> dict[str, set[str]]:
    """VPC -> addresses of the instances that have come to their end."""
    found: dict[str, set[str]] = {}
    for old, new in _changed(before, world, "instances"):
        if old is not None and new is not None and old.state in ENDING and new.state in OVER:
            for eni in world.interfaces_of_instance(new):
                found.setdefault(world.vpc_of_subnet(eni.subnet_id).id, set()).update(eni.addresses)
    return found
