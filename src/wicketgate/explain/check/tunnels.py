"""Checks about who reaches what by tunnels: the exact matrix of `reach`, and the part of it that a check is about."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice, product
from typing import Final, NamedTuple

import msgspec

from wicketgate.explain import Question, explain
from wicketgate.explain.answer import Say
from wicketgate.explain.check import selectors
from wicketgate.explain.check.answer import SHOWN, Example, Outcome, Result
from wicketgate.explain.check.language import Word, Written, packets, seconds
from wicketgate.explain.reach import Cell, Matrix, Wish, reach
from wicketgate.explain.reach_network import Target, targets_of
from wicketgate.explain.reach_principals import Who
from wicketgate.explain.region import EVERY_SOURCE, IPV4_END, Box, Region, Span, address_at, span_of
from wicketgate.model import NetworkInterface, World

_TCP: Final = 6
_FAVOURITES: Final = ("203.0.113.10", "198.51.100.10", "2001:db8::10")
"""Clients' addresses to show where any will do (RFC 5737, RFC 3849)."""


class Tunnels:
    """A World's tunnels, with every machine running: what is off now may be on when it matters."""

    def __init__(self, world: World, at: float) -> None:
        awake = [msgspec.structs.replace(one, state="running") for one in world.instances]
        self._now = world
        self._world = msgspec.structs.replace(world, instances=tuple(awake))
        self._at = at
        self._known: Matrix | None = None

    @property
    def _matrix(self) -> Matrix:
        if self._known is None:
            self._known = reach(self._world, Wish(at=self._at))
        return self._known

    def check(self, written: Written) -> Result:
        """Whether a check holds. Raises Mistake for one that names what is not there."""
        asked = self._asked(written)
        if written.verb == "never":
            return self._never(written, asked)
        return self._always(written, asked)

    def _asked(self, written: Written) -> _Asked:
        values, world = written.values, self._world
        whos = selectors.principals(
            self._matrix.principals,
            world,
            values.get("who", (_default(written, "anyone"),)),
            sessions=written.verb == "never",
        )
        sources = selectors.clients(values.get("from", (_default(written, "anywhere"),)))
        if written.verb == "always":  # an address that names no host is nobody's
            sources -= selectors.special()
        ports = [_tcp(word) for word in values.get("port", (_default(written, "any"),))]
        longest = world.settings.max_tunnel_duration
        duration = seconds(values["duration"], longest) if "duration" in values else longest
        if written.verb == "never" and "duration" in values:
            raise values["duration"][0].wrong("no-duration")
        offered = world.settings.allowed_ports
        if ports == [(1, 65535)] and offered:
            ports = [(port, port) for port in offered]
        cut = Region(Box(one.sources, EVERY_SOURCE, span) for one in sources.boxes for span in ports)
        through = (
            selectors.endpoints(world, values.get("through", (_default(written, "any"),))) if world.endpoints else ()
        )
        return _Asked(whos, cut, frozenset(through), selectors.machines(world, values["to"]), duration)

    # -- never ---------------------------------------------------------------------------------------------------------

    def _never(self, written: Written, asked: _Asked) -> Result:
        """No part of the matrix that is asked about may be there."""
        found: list[tuple[int, Who, Target, str, Region]] = []
        count, depends = 0, set[str]()
        for cell, whos, targets in self._cells(asked):
            if region := cell.region & asked.cut:
                count += len(whos) * len(targets)
                pairs = islice(product(self._ready_first(whos), self._running_first(targets)), SHOWN)
                found += [(len(self._hindrances(*pair)), *pair, cell.endpoint, region) for pair in pairs]
            elif cell.doubtful & asked.cut:
                depends.update(cell.depends)
        found.sort(key=lambda one: one[0])
        outcome: Outcome = "fail" if count else "unknown" if depends else "pass"
        shown = tuple(self._opened(who, target, endpoint, region) for _, who, target, endpoint, region in found[:SHOWN])
        return _result(written, outcome, shown, count - len(shown), () if count else tuple(sorted(depends)))

    def _cells(self, asked: _Asked) -> Iterator[tuple[Cell, list[Who], list[Target]]]:
        """The cells of the matrix that are asked about, each with whom and what of it."""
        whos = {who.name: who for who in asked.whos}
        wanted = {eni.id for eni in asked.targets}
        for cell in self._matrix.cells:
            if cell.endpoint in asked.through:
                some = [whos[name] for name in cell.principals if name in whos]
                targets = [target for target in cell.targets if target.interface in wanted]
                if some and targets:
                    yield cell, some, targets

    def _ready_first(self, whos: Iterable[Who]) -> list[Who]:
        return sorted(whos, key=lambda who: who.credentials != "valid")

    def _running_first(self, targets: Iterable[Target]) -> list[Target]:
        return sorted(targets, key=lambda target: not self._runs(target))

    def _runs(self, target: Target) -> bool:
        instance = self._now.instance(target.instance)
        return instance is None or instance.may_answer

    def _opened(self, who: Who, target: Target, endpoint: str, region: Region) -> Example:
        """One tunnel of a region."""
        source, box = _client(region)
        longest = self._world.settings.max_tunnel_duration
        return Example(
            source=source,
            target=target.address,
            interface=target.interface,
            port=box.ports[0],
            principal=who.name,
            endpoint=endpoint,
            duration=None if box.protocols[1] >= longest else box.protocols[1],
            why=self._hindrances(who, target),
        )

    def _hindrances(self, who: Who, target: Target) -> tuple[Say, ...]:
        """What has to be true before the tunnel can be tried."""
        found = []
        if who.credentials != "valid":
            key = "first-session" if who.credentials == "to-assume" else "first-key"
            found.append(Say(key, {"principal": who.name}))
        instance = self._now.instance(target.instance)
        if instance is not None and not instance.may_answer:
            found.append(Say("first-run", {"instance": instance.id, "state": instance.state}))
        return tuple(found)

    # -- always --------------------------------------------------------------------------------------------------------

    def _always(self, written: Written, asked: _Asked) -> Result:
        """All that is asked about has to be there, by one endpoint or another."""
        cells: list[Cell] = []
        there: dict[tuple[str, Target], list[int]] = {}
        for cell, whos, targets in self._cells(asked):
            for who, target in product(whos, targets):
                there.setdefault((who.name, target), []).append(len(cells))
            cells.append(cell)
        missing = _Missing(asked, cells)
        found: list[Example] = []
        count, depends = 0, set[str]()
        for who, target in product(asked.whos, self._first_addresses(asked)):
            lacking, doubts = missing.of(tuple(there.get((who.name, target), ())))
            depends.update(doubts)
            if lacking:
                count += 1
                found += [self._shut(asked, who, target, lacking)] if len(found) < SHOWN else []
        outcome: Outcome = "fail" if count else "unknown" if depends else "pass"
        return _result(written, outcome, tuple(found), count - len(found), () if count else tuple(sorted(depends)))

    def _first_addresses(self, asked: _Asked) -> list[Target]:
        """Each machine by the first of its addresses."""
        found = (next(iter(targets_of(self._world, eni)), None) for eni in asked.targets)
        return [one for one in found if one is not None]

    def _shut(self, asked: _Asked, who: Who, target: Target, lacking: Region) -> Example:
        """One tunnel that does not come about, and why not."""
        source, box = _client(lacking)
        duration = asked.duration if asked.duration != self._world.settings.max_tunnel_duration else None
        vpc_id = self._vpc_id(target.interface)
        named = next(
            (one.id for one in self._world.endpoints if one.id in asked.through and self._in(one.subnet_id, vpc_id)), ""
        )
        question = Question(
            principal=who.name,
            source_ip=source,
            target=target.interface,
            endpoint_id=named,
            port=box.ports[0],
            duration=duration,
            at=self._at,
        )
        answer = explain(self._world, question)
        why = tuple(line.say for line in answer.lines if line.outcome == "fail" and line.step != "credentials")
        return Example(
            source=source,
            target=target.address,
            interface=target.interface,
            port=box.ports[0],
            principal=who.name,
            endpoint=named,
            duration=duration,
            why=why[:1],
        )

    def _vpc_id(self, interface_id: str) -> str:
        eni = self._world.interface(interface_id)
        assert eni is not None, "targets are made from interfaces"
        return self._world.vpc_of_subnet(eni.subnet_id).id

    def _in(self, subnet_id: str, vpc_id: str) -> bool:
        return self._world.vpc_of_subnet(subnet_id).id == vpc_id


class _Asked(NamedTuple):
    """What a check is about, found."""

    whos: tuple[Who, ...]
    cut: Region
    """Clients' addresses and ports, on the axes of `reach`."""
    through: frozenset[str]
    targets: tuple[NetworkInterface, ...]
    duration: int


class _Missing:
    """What is lacking of all that is asked about where some cells are all there is; asked once for the same cells."""

    def __init__(self, asked: _Asked, cells: list[Cell]) -> None:
        duration = asked.duration, asked.duration
        self._wanted = Region(box._replace(protocols=duration) for box in asked.cut.boxes)
        self._cells = cells
        self._known: dict[tuple[int, ...], tuple[Region, tuple[str, ...]]] = {}

    def of(self, numbers: tuple[int, ...]) -> tuple[Region, tuple[str, ...]]:
        """What is lacking for certain, and if nothing is, what decides whether something may be."""
        if numbers not in self._known:
            self._known[numbers] = self._find([self._cells[number] for number in numbers])
        return self._known[numbers]

    def _find(self, cells: list[Cell]) -> tuple[Region, tuple[str, ...]]:
        missing = self._wanted
        for cell in cells:
            missing -= cell.region
        lacking = missing
        for cell in cells:
            lacking -= cell.doubtful
        doubtful = missing and not lacking
        return lacking, tuple(sorted({one for cell in cells for one in cell.depends})) if doubtful else ()


def _default(written: Written, text: str) -> Word:
    """What a key that is left out means."""
    return written.name._replace(text=text)


def _tcp(word: Word) -> Span:
    """The ports of a text; TCP alone comes out of tunnels. Raises Mistake."""
    box = packets((word,))[0]
    if word.text == "any":
        return (1, 65535)
    if box.protocols != (_TCP, _TCP) or box.ports[0] == 0:
        raise word.wrong("tcp")
    return box.ports


def _client(region: Region) -> tuple[str, Box]:
    """A client's address that people recognise, and the box of the region that it is in."""
    ordinary = region - selectors.special()
    boxes = sorted((ordinary or region).boxes, key=_preference)
    for favourite in _FAVOURITES:
        place = span_of(favourite)[0]
        for box in boxes:
            if box.sources[0] <= place <= box.sources[1]:
                return favourite, box
    first, last = boxes[0].sources
    return address_at(min(first + 10, last)), boxes[0]  # the first addresses of a range are often nobody's


def _preference(box: Box) -> tuple[int, int, int]:
    """The longest duration first, then IPv4, then the lowest port."""
    return -box.protocols[1], int(box.sources[0] >= IPV4_END), box.ports[0]


def _result(
    written: Written, outcome: Outcome, examples: Iterable[Example], more: int, depends: tuple[str, ...]
) -> Result:
    return Result(
        verb=written.verb,
        name=written.name.text,
        place=written.place,
        outcome=outcome,
        examples=tuple(examples),
        more=more,
        depends=depends,
    )
