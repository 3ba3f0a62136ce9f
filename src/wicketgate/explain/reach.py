"""Who reaches what by tunnels: the exact matrix principal x endpoint x target x client x duration x port.

Nothing is sampled: what policies allow (`reach_iam`) and what the network lets through (`reach_network`) are sets, and
the answer is what they have in common. Principals, and targets, that nothing tells apart are judged once and stand
together in one cell.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from wicketgate.explain.question import Unanswerable, principal_arn
from wicketgate.explain.reach_iam import Allowance, Reading
from wicketgate.explain.reach_network import Likeness, Target, ends, likeness, passing, targets_of
from wicketgate.explain.reach_principals import Who, everybody
from wicketgate.explain.region import EVERY_PORT, EVERY_SOURCE, NOTHING, Box, Region, span_of
from wicketgate.model import CONNECTABLE_STATES, Endpoint, World

__all__ = ["Cell", "Matrix", "Target", "Unanswerable", "Who", "Wish", "reach"]


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """Which part of the matrix is wanted; empty means all of it."""

    principal: str = ""
    """A user's name, `role/NAME`, `role/NAME/SESSION`, `root`, an ARN or an access key's id."""
    target: str = ""
    """An instance's or network interface's id, or a private address."""
    source: str = ""
    """A client's address or range."""
    endpoint_id: str = ""
    port: int | None = None
    at: float = 0.0
    """When, in seconds since the epoch: conditions on the time are judged at this moment."""


class Cell(NamedTuple):
    """All these principals have the same reach by the endpoint to each of these targets."""

    endpoint: str
    principals: tuple[str, ...]
    targets: tuple[Target, ...]
    region: Region
    """What they reach for certain: client's address, duration in seconds, port."""
    doubtful: Region
    """What they reach besides if what cannot be known beforehand is right."""
    depends: tuple[str, ...]
    """What that is."""


class Matrix(NamedTuple):
    """The answer. What is in no cell is not reached."""

    cells: tuple[Cell, ...]
    principals: tuple[Who, ...]
    """All that were asked about, those who reach nothing too."""
    endpoints: tuple[str, ...]
    revision: int
    at: float


def reach(world: World, wish: Wish) -> Matrix:
    """The matrix, or the part that is wanted. Raises Unanswerable for a wish that names what is not there."""
    whos = _principals(world, wish)
    endpoints = _endpoints(world, wish)
    likes: dict[Any, tuple[Reading, list[Who]]] = {}
    for who in whos:
        reading = Reading(world, who, wish.at)
        likes.setdefault(reading.likeness, (reading, []))[1].append(who)
    cut = _cut(wish)
    targets = wanted_targets(world, wish)
    cells = [cell for one in endpoints for cell in _Sheet(world, one, cut).cells(targets, list(likes.values()))]
    return Matrix(tuple(cells), whos, tuple(one.id for one in endpoints), world.revision, wish.at)


def _principals(world: World, wish: Wish) -> tuple[Who, ...]:
    all_of_them = everybody(world, wish.at)
    if not wish.principal:
        return all_of_them
    named = wish.principal.removeprefix("user/")
    found = tuple(who for who in all_of_them if who.name == named)
    if not found:
        arn = principal_arn(world, wish.principal)
        key = world.access_key(wish.principal)
        found = tuple(who for who in all_of_them if arn and arn in _arns(world, who))
        if key is not None and key.role_name:  # several sessions of one name: the one with this key
            found = tuple(who for who in found if who.name == f"role/{key.role_name}/{key.session_name}")
    if not found:
        kind = "role" if wish.principal.startswith("role/") else "user"
        raise Unanswerable("Principal", f"ask-no-{kind}", name=wish.principal.removeprefix("role/"))
    return found


def _arns(world: World, who: Who) -> set[str]:
    role = world.role(who.name.removeprefix("role/")) if who.name.startswith("role/") else None
    return {world.role_arn(role) if role is not None else who.principal.arn}


def _endpoints(world: World, wish: Wish) -> tuple[Endpoint, ...]:
    if wish.endpoint_id and world.endpoint(wish.endpoint_id) is None:
        there = ", ".join(one.id for one in world.endpoints)
        key = "ask-endpoint" if there else "ask-endpoint-none"
        raise Unanswerable("EndpointId", key, given=wish.endpoint_id, there=there)
    asked = [one for one in world.endpoints if wish.endpoint_id in ("", one.id)]
    return tuple(one for one in asked if one.state in CONNECTABLE_STATES)


def wanted_targets(world: World, wish: Wish) -> dict[str, list[Target]]:
    """VPC -> the targets in it that are wanted. Raises Unanswerable when a target is named and there is none."""
    found: dict[str, list[Target]] = {}
    for eni in world.interfaces:
        if world.endpoint_of_interface(eni.id) is not None:
            continue
        for target in targets_of(world, eni):
            if not wish.target or wish.target in target:
                found.setdefault(world.vpc_of_subnet(eni.subnet_id).id, []).append(target)
    if wish.target and not found:
        if wish.target.startswith("i-"):
            raise Unanswerable("Target", "ask-instance", given=wish.target)
        if wish.target.startswith("eni-"):
            raise Unanswerable("Target", "ask-interface", given=wish.target)
        raise Unanswerable("Target", "ask-target", given=wish.target)
    return found


def _cut(wish: Wish) -> Region:
    source, ports = EVERY_SOURCE, EVERY_PORT
    if wish.source:
        try:
            source = span_of(wish.source)
        except ValueError:
            raise Unanswerable("SourceIp", "ask-address", given=wish.source) from None
    if wish.port is not None:
        if not 1 <= wish.port <= 65535:
            raise Unanswerable("Port", "ask-port", given=str(wish.port))
        ports = (wish.port, wish.port)
    return Region((Box(source, EVERY_SOURCE, ports),))


class _Part(NamedTuple):
    """What some principals reach of some targets; the regions by their numbers in the sheet."""

    certain: int
    doubtful: int
    depends: tuple[str, ...]


_Rows = dict[tuple[tuple[Target, ...], _Part], list[str]]


class _Sheet:
    """The part of the matrix that belongs to one endpoint."""

    def __init__(self, world: World, endpoint: Endpoint, cut: Region) -> None:
        self._world = world
        self._endpoint = endpoint
        self._vpc_id = world.vpc_of_subnet(endpoint.subnet_id).id
        self._cut = cut
        self._allowances: dict[tuple[int, tuple[Any, ...]], Allowance] = {}
        self._interned: dict[tuple[Any, ...], Allowance] = {}
        self._regions = [NOTHING]
        self._numbers: dict[tuple[Box, ...], int] = {(): 0}

    def cells(self, targets: dict[str, list[Target]], likes: Sequence[tuple[Reading, list[Who]]]) -> Iterator[Cell]:
        """Each principal and target is in at most one."""
        merged: dict[tuple[tuple[str, ...], _Part], list[Target]] = {}
        for network, alike in self._by_network(targets.get(self._vpc_id, [])):
            for (some, part), names in self._rows(network, alike, likes).items():
                merged.setdefault((tuple(names), part), []).extend(some)
        for (names_of, part), reached in merged.items():
            regions = self._regions[part.certain], self._regions[part.doubtful]
            yield Cell(self._endpoint.id, names_of, tuple(reached), *regions, part.depends)

    def _rows(self, network: Region, alike: tuple[Target, ...], likes: Sequence[tuple[Reading, list[Who]]]) -> _Rows:
        """Who reaches what of targets to which the network lets through the same."""
        parts: dict[int, _Part] = {}
        rows: _Rows = {}
        for reading, whos in likes:
            for allowance, some in self._by_policies(reading, alike):
                part = parts.get(id(allowance))
                if part is None:
                    part = parts[id(allowance)] = self._part(network, allowance)
                if part.certain or part.doubtful:
                    rows.setdefault((some, part), []).extend(who.name for who in whos)
        return rows

    def _part(self, network: Region, allowance: Allowance) -> _Part:
        certain, doubtful = network & allowance.certain, NOTHING
        if allowance.possible is not allowance.certain:
            doubtful = (network & allowance.possible) - certain
        depends = tuple(sorted(allowance.depends)) if doubtful else ()
        return _Part(self._key(certain), self._key(doubtful), depends)

    def _key(self, region: Region) -> int:
        """A number for the content of a region; 0 for none."""
        boxes = region.merged()
        key = self._numbers.setdefault(boxes, len(self._regions))
        if key == len(self._regions):
            self._regions.append(Region.of_disjoint(boxes))
        return key

    def _by_network(self, targets: Iterable[Target]) -> Iterator[tuple[Region, tuple[Target, ...]]]:
        """What the network lets through, and to which targets."""
        places = ends(self._world, self._vpc_id)
        classes: dict[Likeness, list[Target]] = {}
        for target in targets:
            classes.setdefault(likeness(self._world, target, places), []).append(target)
        same: dict[int, list[Target]] = {}
        for alike in classes.values():
            region = passing(self._world, self._endpoint, alike[0]) & self._cut
            if region:
                same.setdefault(self._key(region), []).extend(alike)
        for key, alike in same.items():
            yield self._regions[key], tuple(alike)

    def _by_policies(
        self, reading: Reading, targets: tuple[Target, ...]
    ) -> Iterator[tuple[Allowance, tuple[Target, ...]]]:
        """What the policies allow, and to which of the targets."""
        if not reading.asks_address:
            yield self._allowance(reading, (), targets[0].address), targets
            return
        some: dict[tuple[Any, ...], list[Target]] = {}
        for target in targets:
            some.setdefault(reading.signature(target.address), []).append(target)
        for signature, alike in some.items():
            yield self._allowance(reading, signature, alike[0].address), tuple(alike)

    def _allowance(self, reading: Reading, signature: tuple[Any, ...], address: str) -> Allowance:
        known = id(reading), signature
        if known not in self._allowances:
            found = reading.allowance(self._endpoint, address)
            content = found.certain.merged(), found.possible.merged(), found.depends
            self._allowances[known] = self._interned.setdefault(content, found)
        return self._allowances[known]
