"""As many groups and rules as an interface may have, of both families at once: the last rule counts, and each does."""

import msgspec
import pytest

from tests.net.families import dual
from tests.net.flows import addresses
from tests.net.packets import SYN, TCP, Ends, packet, tag, tcp
from tests.net.rig import Rig, forget_flows
from tests.net.worlds import rule, sg, world
from wicketgate.control.common import Quotas
from wicketgate.control.rule_quotas import effective_rules
from wicketgate.model import Change, apply_change
from wicketgate.rules import groups

GROUPS, RULES = 16, Quotas().rules_per_interface
FIRST, LAST = 1000, 9999
"""The ports of the first rule of the first group and of the last rule of the last one."""

VERSIONS = pytest.mark.parametrize("version", [4, 6])


@pytest.fixture(name="rig")
def _rig():
    made = Rig()
    yield made
    made.close()


def _full(direction, *, near=False):
    """Sixteen groups with a thousand rules of a direction for each family, each for a port and an address of its own.

    All but the last are for machines elsewhere, unless they are to be `near`: then all of them are for a and b.
    """
    rules = {f"full-{number}": [] for number in range(GROUPS)}
    for number in range(RULES):
        here = near or number == RULES - 1
        four = "10.0.1.0/24" if here else f"198.51.{number // 200}.{number % 200}/32"
        six = "2001:db8:0:1::/64" if here else f"2001:db8:ff::{number:x}/128"
        port = LAST if number == RULES - 1 else FIRST + number
        name = f"full-{number * GROUPS // RULES}"
        rules[name] += [rule(direction, "tcp", (port, port), peer) for peer in (four, six)]
    back = [rule("out" if direction == "in" else "in", "-1", (-1, -1), peer) for peer in ("10.0.1.0/24", "::/0")]
    members = {"a": list(rules), "b": ["back"]} if direction == "out" else {"a": ["back"], "b": list(rules)}
    made = dual(world({"endpoint": [], "back": back, **rules}, members))
    carried = [made.group(sg(name)) for name in rules]
    assert sum(len(one.rules) for one in carried) == 2 * RULES
    assert (len(carried), effective_rules(made, carried)) == (16, 1000)
    return made


def _shot(version, port, source_port):
    source, target = addresses(version)
    ends = Ends(source, target, (source_port, port))
    return lambda number: [packet(source, target, TCP, tcp(ends, SYN, 1000, 0, tag(number)))]


@VERSIONS
@pytest.mark.parametrize("direction", ["in", "out"])
@pytest.mark.parametrize("fewest", [groups.FEWEST_CELLS, 10_000], ids=["as elements", "as rules"])
def test_the_last_of_a_thousand(rig, monkeypatch, version, direction, fewest):
    """At the sender and at the receiver, whichever way rules are laid down: what the last one allows passes, what none
    does is dropped; without it nothing passes any more."""
    monkeypatch.setattr(groups, "FEWEST_CELLS", fewest)
    made = _full(direction)
    (ruleset,) = rig.apply(made).values()
    assert bool(ruleset.cell_sets) is (fewest <= RULES)
    shots = [("a", _shot(version, LAST, 4000), "b"), ("a", _shot(version, LAST - 1, 4000), None)]
    shots += [("a", _shot(version, FIRST, 4000), None), ("a", _shot(version, FIRST + RULES - 2, 4000), None)]
    assert rig.fire(shots) == [{"b"}, set(), set(), set()]
    last = made.group(sg(f"full-{GROUPS - 1}"))
    fewer = tuple(one for one in last.rules if one.from_port != LAST)
    rig.apply(apply_change(made, Change(puts=(msgspec.structs.replace(last, rules=fewer),))))
    forget_flows(made)
    assert rig.fire([("a", _shot(version, LAST, 4001), None)]) == [set()]


@VERSIONS
def test_each_of_a_thousand(rig, version):
    """Every single one lets in what it says."""
    rig.apply(_full("in", near=True))
    ports = [*range(FIRST, FIRST + RULES - 1), LAST]
    assert rig.fire([("a", _shot(version, port, 5000), "b") for port in ports]) == [{"b"}] * RULES
    assert rig.fire([("a", _shot(version, port, 5001), None) for port in (FIRST - 1, FIRST + RULES - 1)]) == [set()] * 2
