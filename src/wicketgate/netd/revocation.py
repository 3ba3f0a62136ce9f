"""Immediate revocation (`World.revocation`, beyond AWS): after each change the tracked connections that the present
rules would not let begin are forgotten by the kernel, and their next packet is nobody's.

Before the change is acknowledged, so that what is acknowledged is enforced. An endpoint's connections come a moment
later: the gateways, which follow the same World, close their tunnels in order, and the reset for the target must still
find its way. What they leave is cut then, and whatever was on its way through the rules while they changed.

netd does nothing else meanwhile. With 10,000 connections in a VPC that is 20 ms for a change that concerns few of them,
50 ms if it concerns all and they are alike but for their source ports, 0.4 s if no two are, and 40 us more for each one
that is cut (two shared cores).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from wicketgate.kernel import conntrack
from wicketgate.kernel.outlines import outlines
from wicketgate.model import FabricError, World
from wicketgate.netd.flows import Reading
from wicketgate.paths import Flow
from wicketgate.paths.standing import standing

_logger = logging.getLogger("wicketgate.netd")

SECOND_LOOK_SECONDS: Final = 1.0
"""How much later the second look is: the gateways have acknowledged by then, or are being killed."""

FEW: Final = 50
"""Interfaces whose addresses are looked for in every connection, rather than every connection be read."""

_WHOLE: Final = ("settings", "vpcs", "subnets", "peerings", "route_tables")
"""Fields of the World of which any change has every connection looked at."""


@dataclass(frozen=True)
class Touched:
    """Which connections a change may concern: those of some network interfaces, or all."""

    interfaces: frozenset[str] = frozenset()
    everything: bool = False

    def __or__(self, other: Touched) -> Touched:
        return Touched(self.interfaces | other.interfaces, self.everything or other.everything)

    def addresses(self, world: World) -> list[str] | None:
        """Addresses of which one occurs in every such connection; None when there are none such, or too many.

        An endpoint's connections may bear a client's address in place of its own.
        """
        if self.everything or len(self.interfaces) > FEW:
            return None
        if any(world.endpoint_of_interface(one) is not None for one in self.interfaces):
            return None
        found = [world.interface(one) for one in self.interfaces]
        return [address for eni in found if eni is not None for address in eni.addresses]

    def concerns(self, flow: Flow) -> bool:
        """Whether a flow has to be judged anew."""
        return self.everything or flow.sender.id in self.interfaces or flow.receiver.id in self.interfaces


def touched(before: World, world: World) -> Touched:
    """What a change touches. A flow depends on its two ends, their groups, and the lists that those name."""
    if any(getattr(before, field) is not getattr(world, field) for field in _WHOLE):
        return Touched(everything=True)
    interfaces = _changed(before.by_id("interfaces"), world.by_id("interfaces"))
    groups = _changed(before.by_id("groups"), world.by_id("groups"))
    lists = _changed(before.by_id("prefix_lists"), world.by_id("prefix_lists"))
    if lists:
        groups |= {one.id for list_id in lists for one in world.groups_naming(list_id)}
    members = {eni.id for group_id in groups for eni in world.members(group_id)}
    return Touched(frozenset(interfaces | members))


def _changed(before: dict[str, object], now: dict[str, object]) -> set[str]:
    if before is now:
        return set()
    return {key for key, one in now.items() if before.get(key) is not one} | (before.keys() - now.keys())


def concerned(world: World, what: Touched) -> list[str]:
    """The VPCs with immediate revocation in whose namespaces such connections may be."""
    immediate = [vpc.id for vpc in world.vpcs if world.revocation(vpc.id) == "immediate"]
    if what.everything or not immediate:
        return immediate
    found = [world.interface(one) for one in what.interfaces]
    there = {world.vpc_of_subnet(eni.subnet_id).id for eni in found if eni is not None}
    return [one for one in immediate if one in there or not there.isdisjoint(_peers(world, one))]


def _peers(world: World, vpc_id: str) -> Iterable[str]:
    return [one.other(vpc_id) for one in world.active_peerings(vpc_id)]


class Revocation:
    """Cuts what changes no longer allow, now and at a second look."""

    def __init__(self) -> None:
        self._owed = Touched()
        self._due: float | None = None
        self.cut = 0
        """Connections forgotten so far."""
        self.unknown = 0
        """Connections left alone so far because the World does not know an end of theirs."""

    def after(self, before: World, world: World, now: float) -> None:
        """Look at once; `now` is of the monotonic clock, in seconds. Raises FabricError."""
        if all(world.revocation(vpc.id) == "aws" for vpc in world.vpcs):
            return
        what = touched(before, world)
        vpc_ids = concerned(world, what)
        if not vpc_ids:
            return
        self._owed |= what
        self._due = self._due or now + SECOND_LOOK_SECONDS
        for vpc_id in vpc_ids:
            self._look(world, vpc_id, what, endpoints=False)

    def timeout(self, now: float) -> float | None:
        """Seconds until the second look; None when there is none to take."""
        return None if self._due is None else max(self._due - now, 0.0)

    def look_again(self, world: World, now: float) -> None:
        """Take the second look if it is time."""
        if self._due is None or now < self._due:
            return
        what, self._owed, self._due = self._owed, Touched(), None
        for vpc_id in concerned(world, what):
            try:
                self._look(world, vpc_id, what, endpoints=True)
            except FabricError as error:  # what there is to cut is cut by the next change's look
                _logger.error("revocation in %s: %s", vpc_id, error)

    def _look(self, world: World, vpc_id: str, what: Touched, *, endpoints: bool) -> None:
        reading, judged = Reading(world, vpc_id), dict[bytes, bool | None]()
        doomed = []
        for outline in outlines(vpc_id, what.addresses(world)):
            if outline.shape not in judged:
                judged[outline.shape] = self._passes(world, reading.flow(outline.entry), what, endpoints=endpoints)
            passes = judged[outline.shape]
            if passes is None:
                self.unknown += 1
            elif not passes:
                doomed.append(outline.entry)
        self.cut += conntrack.delete(vpc_id, *doomed)

    def _passes(self, world: World, flow: Flow | None, what: Touched, *, endpoints: bool) -> bool | None:
        """Whether a connection may go on; None when nobody knows."""
        if flow is None:
            return None
        if not what.concerns(flow) or (not endpoints and world.endpoint_of_interface(flow.sender.id) is not None):
            return True
        failure = standing(world, flow).failure
        if failure is not None:
            _logger.info("cut: %s to %s: %s", flow.source_address, flow.destination, failure.reason)
        return failure is None
