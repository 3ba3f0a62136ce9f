"""The compiler, the renderer and the model, without a kernel."""

import itertools
import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.net.differential import worlds
from tests.net.worlds import CLIENT, VPC, preserving, rule, world
from wicketgate import rules
from wicketgate.paths import Flow, judge_flow
from wicketgate.rules import ir

GROUPS = {
    "endpoint": [rule("out", "tcp", (22, 22), "sg:web")],
    "web": [rule("in", "tcp", (22, 22), "sg:endpoint"), rule("in", "icmp", (8, -1), "10.0.0.0/16")],
    "db": [rule("in", "-1", (-1, -1), "0.0.0.0/0"), rule("out", "47", (-1, -1), "10.0.1.0/24")],
}
MEMBERS = {"web-1": ["web"], "web-2": ["web", "db"]}
GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.mark.parametrize("preserve", [False, True])
def test_golden_ruleset(preserve):
    """The rendered ruleset of a small World, word for word (GOLDEN=write rewrites it; review the diff)."""
    text = rules.render(rules.compile_vpc(world(GROUPS, MEMBERS, preserve=preserve), VPC))
    path = GOLDEN / f"ruleset-{'kept' if preserve else 'plain'}.nft"
    if os.environ.get("GOLDEN") == "write":
        path.write_text(text)
    assert text == path.read_text()


@settings(max_examples=150, deadline=None)
@given(worlds(), st.sampled_from([1, 6, 17, 47]), st.sampled_from([0, 8, 22, 80, 8080]))
def test_model_equals_reading(made, protocol, port):
    """walk(compile(World)) and the pure reading of the same World agree on every pair, protocol and port."""
    ruleset = rules.compile_vpc(made, VPC)
    for sender, receiver in itertools.permutations(made.interfaces, 2):
        endpoint = made.endpoint_of_interface(sender.id)
        source = CLIENT if endpoint and endpoint.preserve_client_ip else sender.private_ip_address
        said = judge_flow(made, Flow(sender, receiver, source, protocol, port))
        packet = rules.Packet(sender.link, receiver.link, source, receiver.private_ip_address, protocol, port)
        seen = rules.walk(ruleset, packet)
        assert said.passed is (seen.outcome == "accept"), (said, seen)
        if said.passed:
            assert seen.decided_by == said.steps[-1].decided_by


@settings(max_examples=100, deadline=None)
@given(worlds())
def test_refused_endpoint_is_told_and_others_are_not(made):
    """What an endpoint sends and the rules refuse is rejected with its mark; what an instance sends vanishes."""
    ruleset = rules.compile_vpc(made, VPC)
    for sender, receiver in itertools.permutations(made.interfaces, 2):
        endpoint = made.endpoint_of_interface(sender.id)
        source = CLIENT if endpoint and endpoint.preserve_client_ip else sender.private_ip_address
        packet = rules.Packet(sender.link, receiver.link, source, receiver.private_ip_address, 6, 22)
        seen = rules.walk(ruleset, packet)
        if seen.outcome != "accept":
            assert seen.outcome == ("reject" if endpoint else "drop")
            assert seen.mark == (rules.endpoint_mark(endpoint) if endpoint else 0)


def _packet(**change):
    base = {"iif": "endpoint", "oif": "web-1", "saddr": "10.0.1.10", "daddr": "10.0.1.11", "protocol": 6, "dport": 22}
    return rules.Packet(**{**base, **change})


@pytest.mark.parametrize(
    ("change", "outcome", "counted"),
    [
        ({}, "accept", []),
        ({"ct_state": "established", "dport": 9}, "accept", []),
        ({"ct_state": "related", "dport": 9}, "accept", []),
        ({"ct_state": "invalid"}, "drop", ["invalid"]),
        ({"saddr": CLIENT}, "drop", ["forged_source"]),
        ({"saddr": CLIENT, "ct_state": "established"}, "drop", ["forged_source"]),
        ({"iif": "web-2", "saddr": "10.0.1.10"}, "drop", ["forged_source"]),
        ({"iif": "unknown", "saddr": "10.0.1.10"}, "drop", ["forged_source"]),
        ({"oif": "void", "daddr": "10.0.1.99"}, "reject", ["snd_stop_endpoint"]),
        ({"iif": "web-1", "saddr": "10.0.1.11", "oif": "endpoint", "daddr": "10.0.1.10"}, "drop", ["to_endpoint"]),
        ({"saddr": "fd00::1", "daddr": "fd00::2"}, "drop", ["ipv6"]),
        ({"dport": 23}, "reject", ["snd_stop_endpoint"]),
        ({"iif": "web-1", "saddr": "10.0.1.11", "oif": "web-2", "daddr": "10.0.1.12"}, "drop", ["snd_stop_web-1"]),
    ],
)
def test_one_packet(change, outcome, counted):
    """Each way of the forward hook: what becomes of the packet and which counter says so."""
    ruleset = rules.compile_vpc(world(GROUPS, MEMBERS), VPC)
    seen = rules.walk(ruleset, _packet(**change))
    assert (seen.outcome, [name for name in seen.counted if not name.startswith(("from_", "to_end"))]) == (
        outcome,
        [name for name in counted if name != "to_endpoint"],
    )
    assert ("to_endpoint" in counted) is ("to_endpoint" in seen.counted)


def test_endpoint_flow_is_marked_only_when_preserving():
    """New flows of an endpoint carry its mark with preservation on; replies copy it to the packet; else nothing."""
    made = world(GROUPS, MEMBERS)
    for on in (False, True):
        ruleset = rules.compile_vpc(preserving(made, on), VPC)
        seen = rules.walk(ruleset, _packet(saddr=CLIENT if on else "10.0.1.10", ct_mark=0xF000ABCD))
        assert seen.ct_mark == (0xF001ABCD if on else 0xF000ABCD)
        reply = _packet(iif="web-1", saddr="10.0.1.11", ct_reply=True, ct_state="established", ct_mark=0x10000)
        assert rules.walk(ruleset, reply, ("prerouting",)).mark == 0x10000
        first = _packet(ct_mark=0x10000)
        assert rules.walk(ruleset, first, ("prerouting",)).mark == 0


def test_no_change_no_command():
    """A World that compiles to the same ruleset needs no transaction, whatever its revision."""
    made = world(GROUPS, MEMBERS)
    later = msgspec.structs.replace(made, revision=9)
    assert rules.changes(rules.compile_vpc(made, VPC), rules.compile_vpc(later, VPC)) == ""


def test_member_change_touches_one_element():
    """A membership change is one set element and one interface's chains, not a rewrite of any group's chain."""
    before = rules.compile_vpc(world(GROUPS, MEMBERS), VPC)
    after = rules.compile_vpc(world(GROUPS, {**MEMBERS, "web-2": ["web"]}), VPC)
    lines = rules.changes(before, after).splitlines()
    assert [line for line in lines if "element" in line] == [
        f'delete element inet wicketgate members_{_hex("db")} {{ "web-2" }}'
    ]
    assert not [
        line for line in lines if line.startswith(("flush chain inet wicketgate in_", "add rule inet wicketgate in_"))
    ]


def _hex(name):
    from tests.net.worlds import sg

    return sg(name).removeprefix("sg-")


def test_rule_change_rewrites_its_chain_only():
    """A changed rule rewrites the chain of its group and direction and nothing else but the fingerprint."""
    before = rules.compile_vpc(world(GROUPS, MEMBERS), VPC)
    after = rules.compile_vpc(world({**GROUPS, "web": [rule("in", "tcp", (23, 23), "sg:endpoint")]}, MEMBERS), VPC)
    flushed = [line.split()[-1] for line in rules.changes(before, after).splitlines() if line.startswith("flush")]
    assert flushed == [f"in_{_hex('web')}", rules.APPLIED]


def test_fingerprint_tells_rulesets_apart():
    """Equal rulesets have equal fingerprints, different ones do not."""
    one = rules.compile_vpc(world(GROUPS, MEMBERS), VPC)
    same = rules.compile_vpc(world(GROUPS, MEMBERS), VPC)
    other = rules.compile_vpc(world({**GROUPS, "web": []}, MEMBERS), VPC)
    assert rules.fingerprint(one) == rules.fingerprint(same) != rules.fingerprint(other)


def test_unknown_interface_is_in_no_map():
    """Every interface of the World is dispatched; any other device finds no entry and falls to the policy, drop."""
    ruleset = rules.compile_vpc(world(GROUPS, MEMBERS), VPC)
    assert set(ruleset.maps["senders"]) == set(ruleset.maps["receivers"]) == {"endpoint", "web-1", "web-2"}
    hook = ruleset.chains["forward"].hook
    assert hook == ir.Hook("forward", 0, "drop")


@pytest.mark.parametrize("preserve", [False, True])
def test_the_router_answers_for_metadata_alone(preserve):
    """Whatever the groups say: an interface under its own address, over TCP to one address and port; nobody else."""
    made = world(GROUPS, MEMBERS, preserve=preserve)
    free = tuple(msgspec.structs.replace(one, source_dest_check=False) for one in made.interfaces)
    made = msgspec.structs.replace(made, interfaces=free)
    ruleset = rules.compile_vpc(made, VPC)

    def outcome(link="web-1", source="10.0.1.11", target=rules.METADATA_ADDRESS, protocol=6, port=80):
        packet = rules.Packet(link, "", source, target, protocol, port)
        return rules.walk(ruleset, packet, ("prerouting", "input")).outcome

    assert outcome() == "accept"
    assert outcome(source="10.0.1.12") == "drop", "the address of another, from an interface without source check"
    assert outcome(link="endpoint", source="10.0.1.10") == "drop"
    assert outcome(link="endpoint", source=CLIENT) == "drop"
    assert outcome(link="void", source="10.0.1.11") == "drop"
    assert outcome(target="10.0.1.1") == "drop"
    assert outcome(protocol=17) == "drop"
    assert outcome(port=8080) == "drop"
