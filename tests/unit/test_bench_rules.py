"""The benchmark of security groups measures Worlds that are whole, whose packets pass by their last rule alone."""

from __future__ import annotations

import sys
import xml.dom.minidom
from pathlib import Path

import pytest

from wicketgate import rules

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture
def bench(monkeypatch):
    """The benchmark's modules, importable as for the program itself."""
    monkeypatch.syspath_prepend(str(BENCH))
    yield
    for name in [name for name in sys.modules if name.startswith("rules_")]:
        del sys.modules[name]


def test_the_large_world_is_whole(bench):
    """Groups, interfaces and the list that it is to have, and nothing that contradicts."""
    import rules_world

    made = rules_world.large(20, 60, 30)
    made.check()
    assert (len(made.groups), len(made.interfaces), len(made.instances)) == (20, 30, 30)
    assert all(len(group.inbound) == 60 for group in made.groups)
    assert made.groups_naming(rules_world.LIST) == made.groups[:1]


@pytest.mark.parametrize(("count", "groups", "near"), [(60, 1, False), (1000, 16, False), (1000, 16, True)])
def test_the_last_rule_lets_the_packets_in(bench, count, groups, near):
    """The receiver has so many rules; one of them lets the benchmark's datagrams in, the one before it TCP."""
    import rules_world

    vpc = rules_world.Vpcs(1)
    made = vpc.guarded(count, groups, 4, near=near)
    made.check()
    sender, receiver = made.interfaces[0], made.interfaces[-1]
    inbound = [rule for group_id in receiver.group_ids for rule in made.group(group_id).inbound]
    assert (len(inbound), len(receiver.group_ids)) == (count, groups)
    ruleset = rules.compile_vpc(made, vpc.id)
    for protocol, port, by in ((17, rules_world.PORTS[0], -1), (6, rules_world.TCP_PORT, -2)):
        packet = rules.Packet(
            sender.link, receiver.link, sender.private_ip_address, receiver.private_ip_address, protocol, port
        )
        passed = rules.walk(ruleset, packet)
        assert (passed.outcome, passed.decided_by) == ("accept", inbound[by].id)


def test_the_plot_is_svg(bench):
    """Every line with its points and its name, in a document that can be read."""
    import rules_plot

    lines = [rules_plot.Line(name, [(10, 1.0, 0.5, 2.0), (1000, 30.0, -1.0, 90.0)]) for name in ("a & b", "c")]
    drawn = xml.dom.minidom.parseString(rules_plot.plot("title", "x", "y", lines))
    assert len(drawn.getElementsByTagName("polyline")) == 2
    assert len(drawn.getElementsByTagName("circle")) == 4
    assert "a & b" in [text.firstChild.data for text in drawn.getElementsByTagName("text")]
