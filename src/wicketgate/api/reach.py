"""The operation Reach of the service `wicketgate`: who reaches what, by the World of now or of a moment of the past.

It runs in the one thread for questions, beside the loop that answers calls, and so is bounded: whoever wants the whole
matrix of a very large World asks about it part by part, or of a World in a file.
"""

from __future__ import annotations

import json
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from wicketgate.api.planning import read_plan
from wicketgate.api.service import Catalogue
from wicketgate.explain import Unanswerable, principal_arn
from wicketgate.explain.reach import Wish
from wicketgate.explain.reach_answers import answer, answer_plan, answer_traffic
from wicketgate.explain.reach_change import PlanRefused
from wicketgate.model import ApiError, World

if TYPE_CHECKING:
    from wicketgate.api.explanations import Asking

MOST: Final = 2_000_000
"""Principals x endpoints x addresses that are asked about at once: some ten seconds."""

catalogue = cache(Catalogue.load)


def reach_world(asking: Asking) -> dict[str, Any]:
    """Reach. About one principal it is about that one; else it names everybody, and is about `*`."""
    given = asking.parameters
    alone = given.get("Principal") if not given.get("AllTraffic") else None
    asking.authorize((principal_arn(asking.world, alone) if alone else "") or "*")
    moment = given.get("Time")
    wish = Wish(
        principal=given.get("Principal", ""),
        target=given.get("Target", ""),
        source=given.get("SourceRange", ""),
        endpoint_id=given.get("EndpointId", ""),
        port=given.get("Port"),
        at=asking.now if moment is None else moment.timestamp(),
    )
    world = asking.world_then()
    _check_size(world, wish)
    return {"Reach": json.dumps(_answer(asking, world, wish), ensure_ascii=False)}


def _answer(asking: Asking, world: World, wish: Wish) -> dict[str, Any]:
    given, later = asking.parameters, asking.parameters.get("LaterTime")
    if sum(name in given for name in ("LaterTime", "Plan", "AllTraffic")) > 1:
        raise ApiError("ValidationException", "LaterTime, Plan and AllTraffic exclude each other.")
    if given.get("AllTraffic"):
        return answer_traffic(world, wish)
    if "Plan" in given:
        try:
            return answer_plan(world, wish, read_plan(given["Plan"], catalogue()))
        except PlanRefused as error:
            raise ApiError("UnanswerableException", f"Plan: {error}") from error
    if later is None:
        return answer(world, wish)
    return answer(world, wish, later=_world_at(asking, later), later_at=later.timestamp())


def _world_at(asking: Asking, moment: datetime) -> World:
    if moment.timestamp() >= asking.now:
        return asking.world
    world = asking.store.at(time=moment.timestamp())
    if world.revision == 0:
        raise Unanswerable("Time", "ask-time", given=moment.strftime("%Y-%m-%dT%H:%M:%SZ"))
    return world


def _check_size(world: World, wish: Wish) -> None:
    """Raise ApiError for more than can be answered beside everything else."""
    principals = 1 if wish.principal else len(world.users) + len(world.roles) + len(world.access_keys)
    addresses = 1 if wish.target else sum(len(eni.addresses) for eni in world.interfaces)
    endpoints = 1 if wish.endpoint_id else len(world.endpoints)
    if principals * addresses * endpoints > MOST:
        words = f"{principals} principals x {endpoints} endpoints x {addresses} addresses are more than {MOST:,}"
        raise ApiError("UnanswerableException", f"Target: {words}; name one of them.")
