"""Many random Worlds one after the other, and the smallest World when one of them shows a disagreement."""

import time
from itertools import count
from random import Random

from tests.net.differential import Mismatch, Tally, compare
from tests.net.random_worlds import changed, random_plans, random_world
from tests.net.rig import Rig
from tests.net.shrinking import described, smallest
from wicketgate import rules

FLOWS = 120
"""Flows tried in each World."""
WORLDS_PER_PLACE = 5
"""Worlds in a row that differ in rules, groups, lists, routes and settings, but not in machines."""


def run(seed, *, worlds=None, seconds=None, compile_vpc=rules.compile_vpc, shrink=True, first=0):
    """Compare that many Worlds, or for so long; raises Mismatch, worded with the smallest World that shows it.

    The same seed means the same Worlds. `first`: number of the World to begin with, a multiple of WORLDS_PER_PLACE.
    """
    tally = Tally()
    rig = Rig(compile_vpc)
    deadline = time.monotonic() + (float("inf") if seconds is None else seconds)
    place = None
    try:
        for number in count(first):
            if number - first == worlds or time.monotonic() > deadline:
                return tally
            random = Random(f"{seed}/{number}")
            place = random_world(random, None if number % WORLDS_PER_PLACE == 0 else place)
            plans = random_plans(random, place, FLOWS)
            after = changed(random, place)
            try:
                compare(rig, place, after, plans, tally)
            except Mismatch as mismatch:
                where = f"seed {seed!r}, World {number}"
                raise (_smaller(compile_vpc, (place, after), mismatch, where) if shrink else mismatch) from None
    finally:
        rig.close()


def _smaller(compile_vpc, worlds, mismatch, where):
    words = [str(mismatch)]
    rig = Rig(compile_vpc)

    def disagree(before, after, plan):
        try:
            compare(rig, before, after, [plan], Tally())
        except Mismatch as found:
            words.append(str(found))
            return True
        return False

    try:
        for plan in mismatch.plans:
            if disagree(*worlds, plan):
                before, after = smallest(*worlds, plan, disagree)
                links = (plan.sender, plan.receiver)
                later = "" if before is after else f"\nthen\n{described(after, links)}"
                return Mismatch([], f"{where}:\n{words[-1]}\nin\n{described(before, links)}{later}")
    finally:
        rig.close()
    return Mismatch(mismatch.plans, f"{where}, none of them by itself:\n{words[0]}")
