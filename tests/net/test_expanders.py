"""Every way to a World is the same as building it whole: the states of a random history, expanded into many histories.

Compared is what the kernel tells (kernel_state.py). After each history a process without memory finds nothing to do.
"""

from random import Random

import msgspec
import pytest

from tests.net.kernel_state import Writes, differences, kernel_state
from tests.net.random_worlds import random_world
from tests.net.small_changes import edited
from tests.net.worlds import resource_id
from wicketgate.kernel.fabric import Fabric
from wicketgate.model import KINDS, Change, ConnectionTracking, World, WorldError, apply_change
from wicketgate.model.change import FIELDS

pytestmark = pytest.mark.once

RESTART = "restart"
HISTORIES = 6
_KINDS = [(kind, FIELDS[made]) for kind, made in KINDS.items() if FIELDS[made] != "settings"]


def history(random):
    """Random Worlds, each some changes after the one before; two of them have nothing in common with it."""
    worlds = [random_world(random)]
    for fresh in (False, False, True, False, False):
        made = random_world(random) if fresh else edited(random, worlds[-1])[0]
        slow = ConnectionTracking(tcp_established=random.randint(60, 90), udp_stream=random.randint(60, 90))
        interfaces = [
            msgspec.structs.replace(one, connection_tracking=slow) if random.random() < 0.2 else one
            for one in made.interfaces
        ]
        worlds.append(_moved(random, msgspec.structs.replace(made, interfaces=tuple(interfaces))))
        worlds[-1].check()
    return worlds


def _moved(random, made):
    """The further interface belongs to this instance or that, as this device or that, or to none."""
    owner = random.choice(["", resource_id("i", "m-3"), resource_id("i", "m-1"), resource_id("i", "m-3")])
    eni = next(one for one in made.interfaces if one.link == "m-3b")
    other = msgspec.structs.replace(eni, attached_to=owner, device_index=random.randint(1, 2) if owner else 0)
    return apply_change(made, Change(puts=(other,)))


# -- expanders: a list of states -> another one with the same end ------------------------------------------------------


def as_it_was(_random, worlds):
    """One after the other."""
    return worlds


def backwards(_random, worlds):
    """From the end to the beginning, and to the end at once."""
    return [*reversed(worlds), worlds[-1]]


def resources_reversed(_random, worlds):
    """The resources of each World in another order: a World is a set of them."""
    return [_turned(one) for one in worlds]


def split(random, worlds):
    """One resource at a time, in any order that makes sense."""
    found = [worlds[0]]
    for world in worlds[1:]:
        found += _small_steps(random, found[-1], world)
    return found


def empty_between(_random, worlds):
    """Nothing at all between any two."""
    return [one for world in worlds for one in (World(), world)]


def restarts(_random, worlds):
    """A process without memory for each."""
    return [one for world in worlds for one in (world, RESTART)]


def split_and_restarts(random, worlds):
    """The same for every few of small steps."""
    return [one for step in split(random, worlds) for one in ((step, RESTART) if random.random() < 0.2 else (step,))]


def _turned(world):
    return msgspec.structs.replace(world, **{field: tuple(reversed(getattr(world, field))) for _, field in _KINDS})


def _small_steps(random, world, wanted):
    todo = [
        Change(puts=(one,)) for _, field in _KINDS for one in getattr(wanted, field) if one not in getattr(world, field)
    ]
    for kind, field in _KINDS:
        kept = {one.id for one in getattr(wanted, field)}
        todo += [Change(deletes=((kind, one.id),)) for one in getattr(world, field) if one.id not in kept]
    random.shuffle(todo)
    while todo:
        left = []
        for change in todo:
            try:
                world = apply_change(world, change)
            except WorldError:
                left.append(change)
                continue
            yield world
        if len(left) == len(todo):  # addresses that two exchange, and the like
            yield wanted
            return
        todo = left


EXPANDERS = (as_it_was, backwards, resources_reversed, split, empty_between, restarts, split_and_restarts)


@pytest.mark.parametrize("seed", range(3))
def test_every_history_has_the_same_end(seed):
    """Squashed into one step and in seven other ways a history ends in the same kernel; a restart writes nothing."""
    random = Random(seed)
    worlds = history(random)
    expected = _after([worlds[-1]])
    assert any(state["ruleset"] for state in expected.values())
    for expander in EXPANDERS:
        steps = expander(random, worlds)
        assert differences(_after(steps), expected) == [], f"seed {seed}: {expander.__name__} in {len(steps)} steps"


def _after(steps):
    """The kernel after these Worlds and restarts, from nothing."""
    cleaner = Fabric()
    cleaner.apply(World())
    cleaner.close()
    fabric = Fabric()
    for step in steps:
        if step is RESTART:
            fabric.close()
            fabric = Fabric()
        else:
            fabric.apply(step)
            last = step
    found = kernel_state()
    writes = Writes()
    fabric.close()
    fabric = Fabric()
    fabric.apply(last)
    assert writes.seen() == []
    writes.close()
    fabric.apply(World())
    fabric.close()
    return found
