"""Rules for ports and ranges as the elements of one set: which become cells, and that they mean what they meant."""

import itertools
from random import Random

import msgspec
import pytest

from tests.net.random_worlds import A, B, random_world
from tests.net.small_changes import edited
from tests.net.worlds import VPC, rule, sg, world
from wicketgate import rules
from wicketgate.model import Change, apply_change
from wicketgate.rules import groups, names

APART = [rule("in", "tcp", (port, port + 1), f"10.{port}.0.0/16") for port in range(20, 40, 2)]


def _world(*given):
    return world({"endpoint": [rule("out", "-1", (-1, -1), "0.0.0.0/0")], "web": list(given)}, {"web-1": ["web"]})


def _cells(ruleset, protocol="tcp", version=4):
    found = ruleset.cell_sets.get(names.cells("in", protocol, version, sg("web")))
    return set() if found is None else {one.comment for one in found.cells}


def _packet(source, port, protocol=6):
    return rules.Packet(iif="endpoint", oif="web-1", saddr=source, daddr="10.0.1.11", protocol=protocol, dport=port)


def _inbound(ruleset, packet):
    """The inbound rule that lets a packet in, if one does."""
    result = rules.walk(ruleset, packet, ("forward",))
    return result.decided_by if result.outcome == "accept" else None


@pytest.mark.parametrize(
    ("other", "apart"),
    [
        (("tcp", (20, 20), "10.21.0.0/16"), True),  # the same port from elsewhere
        (("tcp", (60, 60), "10.20.0.0/16"), True),  # another port from there
        (("udp", (20, 20), "10.20.0.0/16"), True),  # another protocol
        (("tcp", (21, 21), "10.20.3.0/24"), False),  # a part of the ports and of the addresses
        (("6", (0, 65535), "10.0.0.0/8"), False),  # all of everything
        (("tcp", (19, 20), "10.20.0.0/16"), False),  # one port in common
    ],
)
def test_what_overlaps_another_rule_stays_a_rule(other, apart):
    """The kernel takes no cells that overlap: those that would are a rule each, whatever their order."""
    one = rule("in", *other)
    for order in ([*APART, one], [one, *APART]):
        ruleset = rules.compile_vpc(_world(*order), VPC)
        cells = _cells(ruleset)
        overlapping = {each.id for each in APART} - cells
        assert bool(overlapping) is not apart
        said = {each.comment for each in ruleset.chains[names.group_chain("in", sg("web"))].rules}
        assert overlapping <= said
        assert apart or one.id in said
    assert rules.compile_vpc(_world(*APART, one), VPC).cell_sets == ruleset.cell_sets


def test_few_rules_are_rules():
    """Below the least number there is no set, with one more there is; it goes again with the rule."""
    few = APART[: groups.FEWEST_CELLS - 1]
    before = rules.compile_vpc(_world(*few), VPC)
    more = rules.compile_vpc(_world(*APART[: groups.FEWEST_CELLS]), VPC)
    assert _cells(before) == set()
    assert len(_cells(more)) == groups.FEWEST_CELLS
    for one, other in ((before, more), (more, before)):
        assert rules.rewriting(one, other)


def test_any_address_is_no_cell():
    """Rules for any address can make a flow untracked, and stay in the chains that see to it."""
    everywhere = [rule("in", "tcp", (port, port), cidr) for port in range(20, 40) for cidr in ("0.0.0.0/0", "::/0")]
    assert rules.compile_vpc(_world(*everywhere), VPC).cell_sets == {}


def test_cells_let_in_what_their_rules_do(monkeypatch):
    """Packets at the edges of every rule are let in with cells as without, and by the same rule."""
    given = [*APART, rule("in", "udp", (20, 30), "10.20.0.0/16"), rule("in", "tcp", (25, 60), "10.0.0.0/8")]
    made = _world(*given)
    monkeypatch.setattr(groups, "FEWEST_CELLS", 1)
    celled = rules.compile_vpc(made, VPC)
    monkeypatch.setattr(groups, "FEWEST_CELLS", 1000)
    ruled = rules.compile_vpc(made, VPC)
    assert _cells(celled) and not ruled.cell_sets
    passed = 0
    sources = [f"10.{second}.{rest}" for second in (*range(19, 41), 255) for rest in ("0.0", "255.255")]
    for source, port, protocol in itertools.product(["11.20.0.0", *sources], range(18, 63), (6, 17)):
        packet = _packet(source, port, protocol)
        by_cells, by_rules = _inbound(celled, packet), _inbound(ruled, packet)
        assert by_cells == by_rules, packet
        passed += by_cells is not None
    assert passed > 500


def test_one_rule_more_is_one_element(monkeypatch):
    """A rule that overlaps no other comes and goes as an element: the group's chain is not written again, so that the
    kernel need not look at all chains."""
    made = _world(*APART)
    before = rules.compile_vpc(made, VPC)
    web = made.group(sg("web"))
    more = msgspec.structs.replace(web, rules=(*web.rules, rule("in", "tcp", (80, 80), "192.0.2.0/24")))
    other = apply_change(made, Change(puts=(more,)))
    after = rules.compile_vpc(other, VPC, (made, before))
    flushed = [line.split()[-1] for line in rules.changes(before, after).splitlines() if line.startswith("flush")]
    assert flushed == [rules.APPLIED]
    assert len(rules.rewriting(before, after)) < 1000


@pytest.mark.parametrize("seed", range(6))
def test_derived_is_whole(seed, monkeypatch):
    """Change by change, the ruleset made from the one before is the one that is made anew."""
    monkeypatch.setattr(groups, "FEWEST_CELLS", 1)
    random = Random(seed)
    made = random_world(random)
    rulesets = {vpc_id: rules.compile_vpc(made, vpc_id) for vpc_id in (A, B)}
    cells = 0
    for _ in range(40):
        other, edits = edited(random, made)
        for vpc_id, ruleset in rulesets.items():
            derived, whole = (rules.compile_vpc(other, vpc_id, before) for before in ((made, ruleset), None))
            assert derived == whole, edits
            assert rules.fingerprint(derived) == rules.fingerprint(whole)
            rulesets[vpc_id] = derived
            cells += len(whole.cell_sets)
        made = other
    assert cells > 50
