"""Everything that `wicketgate reach` is asked, by one function: the matrix, what arrives, or what shifts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from wicketgate.explain.question import Unanswerable
from wicketgate.explain.reach import Matrix, Wish, reach, wanted_targets
from wicketgate.explain.reach_change import Planned, compare, planned
from wicketgate.explain.reach_report import arrivals_data, matrix_data, shifts_data
from wicketgate.explain.reach_traffic import arriving
from wicketgate.model import World

MOST_TARGETS = 64
"""Addresses about which all traffic is asked at once."""


def answer(world: World, wish: Wish, *, later: World | None = None, later_at: float | None = None) -> dict[str, Any]:
    """The matrix; or what shifts between this World and a later one, at the wish's moment and the later one.

    Raises Unanswerable.
    """
    if later is None:
        return matrix_data(reach(world, wish))
    later_wish = msgspec.structs.replace(wish, at=wish.at if later_at is None else later_at)
    sides = []
    missing: list[Unanswerable] = []
    for side, wished in ((world, wish), (later, later_wish)):
        try:
            sides.append(reach(side, wished))
        except Unanswerable as error:  # what is there on one side only has come or gone
            missing.append(error)
            sides.append(Matrix((), (), (), side.revision, wished.at))
    if len(missing) == len(sides):
        raise missing[0]
    return shifts_data(compare(*sides), world.revision, later.revision)


def answer_plan(world: World, wish: Wish, calls: Sequence[Planned]) -> dict[str, Any]:
    """What planned calls would shift. Raises Unanswerable, PlanRefused."""
    return answer(world, wish, later=planned(world, calls, wish.at))


def answer_traffic(world: World, wish: Wish) -> dict[str, Any]:
    """What instances reach the target that is wished for. Raises Unanswerable."""
    if not wish.target:
        raise Unanswerable("Target", "ask-target-missing")
    targets = [one for of_vpc in wanted_targets(world, wish).values() for one in of_vpc][:MOST_TARGETS]
    return arrivals_data([one for target in targets for one in arriving(world, target)], world.revision)
