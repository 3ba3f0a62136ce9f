"""The compiler, the renderer and the model, without a kernel."""

import itertools
import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.net.differential import GROUPS as GROUP_NAMES
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
        ({"saddr": CLIENT, "ct_state": "established", "ct_mark": 0x1ABCD}, "accept", []),
        ({"saddr": CLIENT, "ct_state": "related", "ct_mark": 0x10000}, "accept", []),
        ({"saddr": CLIENT, "ct_state": "established", "ct_mark": 0x20000}, "drop", ["forged_source"]),
        ({"saddr": CLIENT, "ct_state": "established", "ct_mark": 0x10000, "ct_reply": True}, "drop", ["forged_source"]),
        ({"saddr": CLIENT, "ct_state": "invalid", "ct_mark": 0x10000}, "drop", ["forged_source"]),
        ({"saddr": "10.0.1.12", "ct_state": "established", "ct_mark": 0x10000}, "drop", ["forged_source"]),
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


@pytest.mark.parametrize(
    ("change", "outcome"),
    [
        ({"saddr": CLIENT}, "accept"),
        ({"saddr": CLIENT, "ct_state": "established", "ct_mark": 0x10000}, "accept"),
        ({"saddr": CLIENT, "ct_state": "established"}, "drop"),
        ({"saddr": CLIENT, "ct_state": "established", "ct_mark": 0x20000}, "drop"),
        ({"saddr": CLIENT, "ct_state": "established", "ct_mark": 0x10000, "ct_reply": True}, "drop"),
        ({"saddr": "10.0.1.12"}, "drop"),
        ({"saddr": "10.0.200.1"}, "drop"),
    ],
)
def test_source_check_of_an_endpoint_that_preserves(change, outcome):
    """It opens flows under any address but the VPC's; to a flow that it did not open it adds no packet."""
    ruleset = rules.compile_vpc(world(GROUPS, MEMBERS, preserve=True), VPC)
    seen = rules.walk(ruleset, _packet(**change))
    assert (seen.outcome, "forged_source" in seen.counted) == (outcome, outcome == "drop")


@pytest.mark.parametrize("on", [False, True])
def test_endpoint_flow_is_marked(on):
    """New flows of an endpoint carry its mark, with preservation off and on; replies copy it to the packet."""
    ruleset = rules.compile_vpc(preserving(world(GROUPS, MEMBERS), on), VPC)
    for saddr in {"10.0.1.10", CLIENT if on else "10.0.1.10"}:
        seen = rules.walk(ruleset, _packet(saddr=saddr, ct_mark=0xF000ABCD))
        assert seen.ct_mark == 0xF001ABCD
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


def _edited(made, random):
    """The World with some of its groups replaced by those of another one, and at times one more or one less."""
    groups = [
        msgspec.structs.replace(one, rules=tuple(random.sample(one.rules, random.randint(0, len(one.rules)))))
        if random.random() < 0.4
        else one
        for one in made.groups
    ]
    if random.random() < 0.3 and len(groups) == len(GROUP_NAMES):
        groups.append(msgspec.structs.replace(groups[0], id="sg-0000000000000new", name="new"))
    elif random.random() < 0.3:
        groups = [*groups[1:4], groups[0]]
    elif random.random() < 0.3:  # one goes as another comes
        groups[-1] = msgspec.structs.replace(groups[-1], id=f"sg-{random.randrange(10**9):017x}")
    other = msgspec.structs.replace(made, groups=tuple(groups))
    return preserving(other, random.random() < 0.5) if random.random() < 0.3 else other


@settings(max_examples=80, deadline=None)
@given(worlds(), st.randoms(use_true_random=False))
def test_incremental_compilation_is_the_whole_one(made, random):
    """Compiled from another World's ruleset or from nothing: equal rulesets, equal fingerprints, and the commands that
    lead from one to the other leave exactly the new fingerprint."""
    ruleset = rules.compile_vpc(made, VPC)
    rules.fingerprint(ruleset)
    for _ in range(4):
        other = _edited(made, random)
        derived = rules.compile_vpc(other, VPC, (made, ruleset))
        whole = rules.compile_vpc(other, VPC)
        assert derived == whole
        commands = rules.changes(ruleset, derived)
        assert rules.fingerprint(derived) == rules.fingerprint(whole)
        assert commands == "" if ruleset == whole else f'"{rules.fingerprint(whole)}"' in commands
        assert (rules.fingerprint(whole) == rules.fingerprint(ruleset)) is (ruleset == whole)
        made, ruleset = other, derived


def test_unchanged_groups_are_not_compiled_again():
    """Chains of groups that are the same objects as before are the same objects."""
    made = world(GROUPS, MEMBERS)
    before = rules.compile_vpc(made, VPC)
    groups = tuple(msgspec.structs.replace(one, rules=()) if one.name == "web" else one for one in made.groups)
    after = rules.compile_vpc(msgspec.structs.replace(made, groups=groups), VPC, (made, before))
    remade = {name for name, chain in after.chains.items() if chain is not before.chains.get(name)}
    assert remade == {f"in_{_hex('web')}", f"out_{_hex('web')}"}


def test_batches_deny_until_the_last():
    """A load in batches is the whole load, cut; after any part of it no packet passes, and no fingerprint is there."""
    many = {f"g{number}": [rule("in", "tcp", (port, port), "0.0.0.0/0") for port in range(60)] for number in range(40)}
    ruleset = rules.compile_vpc(world({**GROUPS, **many}, {**MEMBERS, "web-3": ["web", "g1"]}), VPC)
    parts = list(rules.batches(ruleset))
    assert "".join(parts) == rules.render(ruleset)
    assert len(parts) > 3
    assert max(map(len, parts)) < 40_000
    assert all(" policy drop; }" in parts[0] and hook in parts[0] for hook in ("hook forward", "hook input"))
    for part in parts[:-1]:
        assert f"chain inet {rules.TABLE} {rules.APPLIED}" not in part
    loaded = "".join(parts[:-1])
    assert "element inet wicketgate senders" not in loaded or "element inet wicketgate receivers" not in loaded


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
