"""What the rules let through: connections, credited to every rule that covers their first packet, and their bytes.

The kernel tells of each connection of a VPC's namespace when it begins and when it ends; only what the rules admitted
begins. Connections are counted when they begin, packets and bytes when they end, by the kernel's accounting. What is
credited is decided by the World that is in force when the beginning is read, so what happened before a change is read
before it.

Totals outlive a restart of netd. What begins while no netd runs is not counted; it is credited with what it carried.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from wicketgate.kernel.outlines import Happening, Happenings, Outline, outlines
from wicketgate.model import FabricError, SecurityGroupRule, World
from wicketgate.netd.flows import Reading
from wicketgate.paths import Flow, covering

_logger = logging.getLogger("wicketgate.netd")

WRITE_SECONDS: Final = 1.0
"""Totals are written to disk no more often than this."""
_AT_ONCE: Final = 250
"""Events read before netd turns to something else: some 2 ms."""
_CATCH_UP: Final = 2_000
"""Events read at most before a change is applied, and before an answer: some 10 ms. In a storm of connections those
behind them are credited by the World after."""
_MOST_LIVE: Final = 262_144
"""Connections of a VPC whose rules are remembered until they end; what the others carry is not credited."""
_MOST_SHAPES: Final = 65_536
_DECIDING: Final = ("vpcs", "subnets", "groups", "interfaces", "endpoints", "prefix_lists", "peerings", "route_tables")

Rules = tuple[str, ...]
"""Ids of the rules that cover a first packet."""


class Tally(msgspec.Struct):
    """What one rule let through."""

    connections: int = 0
    packets: int = 0
    """Of connections that have ended, in both directions."""
    octets: int = 0
    """The same in bytes, IP headers included."""
    live: int = 0
    """Connections that stand. This and the next two are of the moment of asking, and 0 on disk."""
    live_packets: int = 0
    live_octets: int = 0


class Totals(msgspec.Struct):
    """All there is to show, and what may be missing in it."""

    since: float
    """When counting began, in seconds since the epoch."""
    rules: dict[str, Tally] = {}
    """Rule id -> its tally; a rule without one let nothing through."""
    lost_events: int = 0
    """Beginnings and ends that came faster than netd read them."""
    elsewhere: int = 0
    """Connections without a rule: to the router itself (metadata), or passed on for somebody else."""
    uncredited: int = 0
    """Ends of connections whose beginning is not known."""


class _Listening:
    """One VPC's namespace."""

    def __init__(self, vpc_id: str) -> None:
        self.happenings = Happenings(vpc_id)
        self.lost = 0
        self.live: dict[bytes, Rules] = {}
        self.shapes: dict[bytes, Rules] = {}
        self._swept = 0

    def has_room(self, vpc_id: str) -> bool:
        """Whether another connection can be remembered; those whose end was lost are found out when there is none."""
        if len(self.live) < _MOST_LIVE:
            return True
        if self._swept != self.lost:
            self._swept = self.lost
            there = {one.id for one in outlines(vpc_id)}
            self.live = {key: rules for key, rules in self.live.items() if key in there}
        return len(self.live) < _MOST_LIVE


class Counters:
    """The totals of a host. `follow` each World that is in force; `read` when the kernel has something to tell."""

    def __init__(
        self,
        file: Path,
        now: float,
        *,
        watch: Callable[[Happenings, Callable[[], None]], None],
        unwatch: Callable[[Happenings], object],
    ) -> None:
        """`watch` has a callback called when there is something to read, `unwatch` ends that; `now` is the time in
        seconds since the epoch."""
        self._file = file
        self._watch, self._unwatch = watch, unwatch
        self._world = World()
        self._listening: dict[str, _Listening] = {}
        self._readings: dict[str, Reading] = {}
        self.totals = _earlier(file) or Totals(since=now)
        self._dirty = False
        self._next_write = 0.0

    def follow(self, world: World) -> None:
        """Credit by this World from now on, and listen where its VPCs are."""
        before, self._world = self._world, world
        wanted = {vpc.id for vpc in world.vpcs} if world.settings.rule_counters else set()
        for vpc_id in self._listening.keys() - wanted:
            self._end(vpc_id)
        if any(getattr(before, field) is not getattr(world, field) for field in _DECIDING):
            self._readings.clear()
            for one in self._listening.values():
                one.shapes.clear()
            self._forget_rules_that_are_gone(before, world)
        for vpc_id in wanted - self._listening.keys():
            self._begin(vpc_id)

    def catch_up(self) -> None:
        """Read what has happened up to now, before another World is in force."""
        for vpc_id in list(self._listening):
            self._read(vpc_id, _CATCH_UP)

    def timeout(self, now: float) -> float | None:
        """Seconds until there is something to write; `now` is of the monotonic clock. None when there is not."""
        return max(self._next_write - now, 0.0) if self._dirty else None

    def write(self, now: float) -> None:
        """Write the totals to disk if it is time."""
        if not self._dirty or now < self._next_write:
            return
        self._next_write, self._dirty = now + WRITE_SECONDS, False
        temporary = self._file.with_name(f".{self._file.name}.new")
        try:
            temporary.write_bytes(msgspec.json.encode(self.totals))
            temporary.replace(self._file)
        except OSError as error:  # a full disk must stop neither dials nor changes
            _logger.error("counters of rules cannot be written to %s: %s", self._file, error.strerror)

    def present(self) -> Totals:
        """The totals with what stands at the moment. Costs 5 us for each connection."""
        self.catch_up()
        found = {rule: msgspec.structs.replace(tally) for rule, tally in self.totals.rules.items()}
        for vpc_id, listening in self._listening.items():
            try:
                there = outlines(vpc_id)
            except FabricError as error:
                _logger.error("connections of %s: %s", vpc_id, error)
                continue
            for one in there:
                for rule in listening.live.get(one.id, ()):
                    _add_live(found.setdefault(rule, Tally()), one)
        return msgspec.structs.replace(self.totals, rules=found)

    def close(self) -> None:
        """Listen no more, and write what is not written yet."""
        for vpc_id in list(self._listening):
            self._end(vpc_id)
        self.write(self._next_write)

    # -- listening -----------------------------------------------------------------------------------------------------

    def _begin(self, vpc_id: str) -> None:
        try:
            listening = _Listening(vpc_id)
            there = outlines(vpc_id)
        except FabricError as error:
            _logger.error("rules of %s are not counted: %s", vpc_id, error)
            return
        self._listening[vpc_id] = listening
        for one in there:  # of before: not counted again, but credited with what it carries
            found = self._rules(vpc_id, listening, one) or ()
            listening.live[one.id] = found
            for rule in found:
                self._tally(rule)
        self._watch(listening.happenings, lambda: self._read(vpc_id, _AT_ONCE))

    def _end(self, vpc_id: str) -> None:
        listening = self._listening.pop(vpc_id)
        self._unwatch(listening.happenings)
        listening.happenings.close()

    def _read(self, vpc_id: str, most: int) -> None:
        listening = self._listening.get(vpc_id)
        if listening is None:  # ended in the very turn of the loop that found it readable
            return
        try:
            happened = listening.happenings.read(most)
        except FabricError as error:
            _logger.error("rules of %s are no longer counted: %s", vpc_id, error)
            self._end(vpc_id)
            return
        for one in happened:
            self._take(vpc_id, listening, one)
        lost, listening.lost = listening.lost, listening.happenings.lost
        self.totals.lost_events += listening.lost - lost
        self._dirty |= bool(happened)

    def _take(self, vpc_id: str, listening: _Listening, one: Happening) -> None:
        if one.ended:
            rules = listening.live.pop(one.outline.id, None)
            if rules is None:
                self.totals.uncredited += 1
            elif rules:
                self._credit_end(rules, one.outline)
            return
        found = self._rules(vpc_id, listening, one.outline)
        if found is None:
            self.totals.elsewhere += 1
        for rule in found or ():
            self._tally(rule).connections += 1
        if listening.has_room(vpc_id):
            listening.live[one.outline.id] = found or ()

    def _credit_end(self, rules: Rules, outline: Outline) -> None:
        packets, octets = outline.counts
        for rule in rules:
            tally = self.totals.rules.get(rule)
            if tally is not None:  # else the rule is gone
                tally.packets += packets
                tally.octets += octets

    # -- crediting -----------------------------------------------------------------------------------------------------

    def _rules(self, vpc_id: str, listening: _Listening, outline: Outline) -> Rules | None:
        """The rules of this VPC that cover a connection's first packet; None when it passes none."""
        found = listening.shapes.get(outline.shape)
        if found is None:
            if vpc_id not in self._readings:
                self._readings[vpc_id] = Reading(self._world, vpc_id)
            flow = self._readings[vpc_id].flow(outline.entry)
            if flow is None:
                return None
            if len(listening.shapes) >= _MOST_SHAPES:
                listening.shapes.clear()
            found = listening.shapes[outline.shape] = tuple(one.id for one in self._covering(vpc_id, flow))
        return found

    def _covering(self, vpc_id: str, flow: Flow) -> Iterator[SecurityGroupRule]:
        """Of a connection between peered VPCs each VPC's namespace tells: it is credited to the own side's rules."""
        outbound, inbound = covering(self._world, flow)
        if self._world.vpc_of_subnet(flow.sender.subnet_id).id == vpc_id:
            yield from outbound
        if self._world.vpc_of_subnet(flow.receiver.subnet_id).id == vpc_id:
            yield from inbound

    def _tally(self, rule: str) -> Tally:
        tally = self.totals.rules.get(rule)
        if tally is None:
            tally = self.totals.rules[rule] = Tally()
        return tally

    def _forget_rules_that_are_gone(self, before: World, world: World) -> None:
        """A rule's id never comes back. What is in the file of an earlier netd is looked through at the first World."""
        there, now = before.by_id("groups"), world.by_id("groups")
        if not there:
            known = {rule.id for group in world.groups for rule in group.rules}
            gone = self.totals.rules.keys() - known
        else:
            changed = [group for key, group in there.items() if now.get(key) is not group]
            old = {rule.id for group in changed for rule in group.rules}
            kept = {rule.id for group in changed if group.id in now for rule in now[group.id].rules}
            gone = old - kept
        for rule in gone:
            self.totals.rules.pop(rule, None)


def _add_live(tally: Tally, outline: Outline) -> None:
    packets, octets = outline.counts
    tally.live += 1
    tally.live_packets += packets
    tally.live_octets += octets


def _earlier(file: Path) -> Totals | None:
    """What an earlier netd wrote; None when there is none that can be read."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=Totals)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        _logger.error("counters of rules begin anew: %s cannot be read: %s", file, error)
        return None
