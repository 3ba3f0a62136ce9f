"""Explanations at scale: single questions a second, and the whole matrix of `reach` over growing Worlds.

    questions   10,000 distinct random ones over 1,000 interfaces: IAM and the network's judge, no answer kept
    reach       200 groups, 100 principals, 5 endpoints, 500 to 10,000 interfaces

`bench/explain.py [questions|reach] [--json] [--quick]`. One core, no network, no root. Seconds are
of the process's CPU: on a machine that does other things besides they say what the work costs.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from explain_world import made
from wicketgate import iam, paths
from wicketgate.admit import OPEN_TUNNEL, caller_context, tunnel_context
from wicketgate.explain.reach import Wish, reach
from wicketgate.model import AccessKey, Endpoint, Principal, World

QUESTIONS, ROUNDS = 10_000, 7
PER_SECOND_TARGET = 20_000.0
SECONDS_TARGETS = {1_000: 3.0, 10_000: 60.0}
SIZES = (500, 1_000, 2_000, 5_000, 10_000)
NOW = 1_000_000.0


class Question(NamedTuple):
    """Who, from where, by which endpoint, to what."""

    principal: Principal
    source: str
    endpoint: Endpoint
    address: str
    port: int
    duration: int


def questions(world: World, count: int, seed: int) -> list[Question]:
    """Distinct ones."""
    pick = random.Random(seed)
    found = [world.principal(AccessKey(id="", secret="", user_name=user.name)) for user in world.users]
    principals = [one for one in found if one is not None]
    addresses = [eni.private_ip_address for eni in world.interfaces if world.endpoint_of_interface(eni.id) is None]
    asked: dict[tuple[Any, ...], Question] = {}
    while len(asked) < count:
        source = f"203.0.{pick.randrange(len(principals))}.{pick.randrange(256)}"
        one = Question(
            pick.choice(principals),
            source,
            pick.choice(world.endpoints),
            pick.choice(addresses),
            pick.choice((22, 80, 443, 3389, 5432)),
            pick.randint(1, 3600),
        )
        asked[one.principal.arn, source, one.endpoint.id, *one[3:]] = one
    return list(asked.values())


def request(world: World, one: Question) -> iam.Request:
    """What IAM is asked."""
    context = caller_context(world, one.principal, one.source, "aws-cli/2.31", NOW)
    return iam.Request(
        principal_arn=one.principal.arn,
        action=OPEN_TUNNEL,
        resource=world.endpoint_arn(one.endpoint.id),
        context=context | tunnel_context(one.port, one.address, one.duration, one.endpoint),
    )


def judged(world: World, one: Question) -> bool:
    """Whether the network passes it."""
    return paths.judge(
        world, endpoint_id=one.endpoint.id, address=one.address, port=one.port, client_address=one.source
    ).passed


def plain(world: World, one: Question) -> bool:
    """Both, without words; the network is asked whatever IAM says."""
    return iam.allows(request(world, one), one.principal) & judged(world, one)


def worded(world: World, one: Question) -> bool:
    """Both, with what nearly allowed it, as an audit record has it."""
    return iam.decide(request(world, one), one.principal).allowed & judged(world, one)


def rates(ask: Callable[[World, Question], bool], world: World, rounds: int) -> list[float]:
    """Questions a second, round by round, each round other questions. The first round, which warms up what is kept
    of the World, is left out."""
    found = []
    for number in range(rounds + 1):
        asked = questions(world, QUESTIONS, number)
        gc.collect()
        start = time.process_time()
        for one in asked:
            ask(world, one)
        found.append(len(asked) / (time.process_time() - start))
    return found[1:]


def matrix_seconds(size: int, rounds: int) -> tuple[list[float], int]:
    """Seconds for a whole matrix, each time of a World that nothing is remembered of; and its cells."""
    found, cells = [], 0
    for number in range(rounds):
        world = made(size, seed=number)
        gc.collect()
        start = time.process_time()
        cells = len(reach(world, Wish(at=NOW)).cells)
        found.append(time.process_time() - start)
    return found, cells


def middle(values: Sequence[float], digits: int) -> str:
    """Median with minimum and maximum."""
    return f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f}-{max(values):,.{digits}f})"


def measure(what: str, *, quick: bool) -> dict[str, Any]:
    """Every single figure."""
    found: dict[str, Any] = {"python": platform.python_version(), "machine": platform.machine()}
    if what in ("", "questions"):
        world, rounds = made(1_000), 2 if quick else ROUNDS
        found["questions"] = {"plain": rates(plain, world, rounds), "worded": rates(worded, world, rounds)}
    if what in ("", "reach"):
        found["reach"] = {}
        for size in SIZES[:2] if quick else SIZES:
            seconds, cells = matrix_seconds(size, 1 if quick else 3)
            found["reach"][size] = {"seconds": seconds, "cells": cells}
    return found


def lines(found: dict[str, Any]) -> list[str]:
    """As a table."""
    said = []
    for name, values in found.get("questions", {}).items():
        target = f"  target at least {PER_SECOND_TARGET:,.0f}" if name == "plain" else ""
        said.append(f"questions a CPU second, {name:7} {middle(values, 0)}{target}")
    for size, one in found.get("reach", {}).items():
        seconds = one["seconds"]
        target = f"  target at most {SECONDS_TARGETS[size]:.0f} s" if size in SECONDS_TARGETS else ""
        each = 1e6 * statistics.median(seconds) / size
        said.append(
            f"reach, {size:6,} interfaces {middle(seconds, 2)} CPU s, "
            f"{each:,.0f} us each, {one['cells']:,} cells{target}"
        )
    return said


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", nargs="?", default="", choices=("", "questions", "reach"))
    parser.add_argument("--json", action="store_true", help="every single run")
    parser.add_argument("--quick", action="store_true", help="fewer rounds and two sizes")
    options = parser.parse_args()
    found = measure(options.what, quick=options.quick)
    sys.stdout.write("\n".join([json.dumps(found)] if options.json else lines(found)) + "\n")


if __name__ == "__main__":
    main()
