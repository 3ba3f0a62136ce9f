"""What changes of who reaches what: between two Worlds, or before and after API calls that are only planned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Any, Final, NamedTuple

from wicketgate.control.call import Call, Caller, Operation
from wicketgate.explain.reach import Cell, Matrix, Target
from wicketgate.explain.region import NOTHING, Region
from wicketgate.model import AccessKey, ApiError, WicketgateError, World, WorldError, apply_change

_FIRST_ID: Final = 0xF1A_0000_0000_0000


class Planned(NamedTuple):
    """One API call that may be made."""

    operation: Operation
    parameters: Mapping[str, Any]
    """Validated, by the service model's member names."""


class PlanRefused(WicketgateError):
    """A planned call that would be refused; `str(error)` says which and why."""

    code = "PlanRefused"
    http_status = 400


class Shift(NamedTuple):
    """What all these principals gain or lose by an endpoint to each of these targets."""

    endpoint: str
    principals: tuple[str, ...]
    targets: tuple[Target, ...]
    gained: Region
    lost: Region
    may_gain: Region = NOTHING
    """Of what cannot be known beforehand; see `Cell.doubtful`."""
    may_lose: Region = NOTHING


def planned(world: World, calls: Sequence[Planned], now: float) -> World:
    """The World after the calls, made by root at `now`, seconds since the epoch. Raises PlanRefused.

    What is created gets ids that nothing has (`sg-0f1a...`), in order. Who may make
    the calls is not asked.
    """
    numbers = count(_FIRST_ID)
    root = world.principal(AccessKey(id="", secret=""))
    assert root is not None, "every account has its root"
    caller = Caller(arn=root.arn, account_id=world.account_id, principal=root)
    for place, (operation, parameters) in enumerate(calls, start=1):
        call = Call(
            world=world,
            action=operation.name,
            parameters=parameters,
            caller=caller,
            now=now,
            request_id=f"planned-{place}",
            new_id=lambda prefix: f"{prefix}-{next(numbers):017x}",
        )
        try:
            world = apply_change(world, operation.run(call).change)
        except (ApiError, WorldError) as error:
            raise PlanRefused(f"call {place}, {operation.name}: {error}") from error
    return world


def compare(before: Matrix, after: Matrix) -> tuple[Shift, ...]:
    """Everything that differs; what is the same on both sides is in none."""
    return tuple(shift for endpoint in _endpoints(before, after) for shift in _compare(endpoint, before, after))


def _endpoints(before: Matrix, after: Matrix) -> tuple[str, ...]:
    return tuple(dict.fromkeys(cell.endpoint for matrix in (before, after) for cell in matrix.cells))


def _compare(endpoint: str, before: Matrix, after: Matrix) -> Iterator[Shift]:
    sides = [[cell for cell in matrix.cells if cell.endpoint == endpoint] for matrix in (before, after)]
    found: dict[tuple[Any, ...], list[Target]] = {}
    shifts: dict[tuple[Any, ...], Shift] = {}
    for (mine, theirs), targets in _alike(sides).items():
        for shift in _shifts(endpoint, [sides[0][one] for one in mine], [sides[1][one] for one in theirs]):
            key = shift.principals, *(region.merged() for region in shift[3:])
            shifts.setdefault(key, shift)
            found.setdefault(key, []).extend(targets)
    for key, shift in shifts.items():
        yield shift._replace(targets=tuple(found[key]))


def _alike(sides: Sequence[Sequence[Cell]]) -> dict[tuple[tuple[int, ...], tuple[int, ...]], list[Target]]:
    """Targets by the cells that they are in, before and after."""
    places: dict[Target, tuple[list[int], list[int]]] = {}
    for side, cells in enumerate(sides):
        for number, cell in enumerate(cells):
            for target in cell.targets:
                places.setdefault(target, ([], []))[side].append(number)
    found: dict[tuple[tuple[int, ...], tuple[int, ...]], list[Target]] = {}
    for target, (mine, theirs) in places.items():
        found.setdefault((tuple(mine), tuple(theirs)), []).append(target)
    return found


def _shifts(endpoint: str, before: Sequence[Cell], after: Sequence[Cell]) -> Iterator[Shift]:
    """What differs for targets that are in the same cells, once for principals that are."""
    where: dict[str, tuple[list[Cell], list[Cell]]] = {}
    for side, cells in enumerate((before, after)):
        for cell in cells:
            for name in cell.principals:
                where.setdefault(name, ([], []))[side].append(cell)
    pairs: dict[tuple[int, int], tuple[Cell | None, Cell | None, list[str]]] = {}
    for name, (mine, theirs) in where.items():
        old, new = next(iter(mine), None), next(iter(theirs), None)
        pairs.setdefault((id(old), id(new)), (old, new, []))[2].append(name)
    for old, new, names in pairs.values():
        was = (NOTHING, NOTHING) if old is None else (old.region, old.doubtful)
        is_now = (NOTHING, NOTHING) if new is None else (new.region, new.doubtful)
        shift = Shift(
            endpoint, tuple(names), (), is_now[0] - was[0], was[0] - is_now[0], is_now[1] - was[1], was[1] - is_now[1]
        )
        if any(shift[3:]):
            yield shift
