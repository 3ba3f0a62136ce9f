"""Many random Worlds one after the other, and the smallest World when one of them shows a disagreement."""

import time
from itertools import count
from random import Random

from tests.net.differential import compare
from tests.net.random_flows import random_plans
from tests.net.random_worlds import changed, random_world, readdressed
from tests.net.rig import Rig
from tests.net.shrinking import described, smallest
from tests.net.trials import Mismatch, Tally
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
            worlds_of_one = (place, changed(random, place))
            if number % WORLDS_PER_PLACE in (1, 2, 3):
                worlds_of_one += (readdressed(worlds_of_one[1]),)
            try:
                compare(rig, worlds_of_one, plans, tally)
            except Mismatch as mismatch:
                where = f"seed {seed!r}, World {number}"
                raise (_smaller(compile_vpc, worlds_of_one, mismatch, where) if shrink else mismatch) from None
    finally:
        rig.close()


def _smaller(compile_vpc, worlds, mismatch, where):
    words = [str(mismatch)]
    rig = Rig(compile_vpc)

    def disagree(worlds, plan):
        try:
            compare(rig, worlds, [plan], Tally())
        except Mismatch as found:
            words.append(str(found))
            return True
        return False

    try:
        for plan in mismatch.plans:
            if disagree(worlds, plan):
                links = (plan.sender, plan.receiver)
                told = [described(one, links) for one in smallest(worlds, plan, disagree)]
                return Mismatch([], f"{where}:\n{words[-1]}\nin\n" + "\nthen\n".join(told))
    finally:
        rig.close()
    return Mismatch(mismatch.plans, f"{where}, none of them by itself:\n{words[0]}")
