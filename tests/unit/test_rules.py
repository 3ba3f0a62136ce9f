"""The compiler, the renderer and the model, without a kernel."""

import os
from dataclasses import replace
from pathlib import Path
from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.net.families import dual
from tests.net.random_flows import random_plans
from tests.net.random_worlds import A, B, random_world
from tests.net.small_changes import FOLLOWED, edited
from tests.net.worlds import CLIENT, VPC, preserving, rule, sg, world
from wicketgate import rules
from wicketgate.model import ConnectionTracking, Vpc, VpcPeeringConnection, World
from wicketgate.paths import covering, judge_flow, tracking
from wicketgate.paths.routes import hop
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


def seeds():
    """Ordinary generators: hypothesis's own draws repeat small values so often that flows would be too much alike."""
    return st.integers(0, 2**64).map(Random)


def worlds():
    """Random Worlds over all that groups know."""
    return seeds().map(random_world)


def _first_packet(made, rulesets, flow):
    """The walks of a flow's first packet through one router or two; None where routes end it."""
    way = hop(made, flow.sender, flow.receiver, flow.destination)
    if not way.arrives:
        return None
    packet = rules.Packet("", "", flow.source_address, flow.destination, flow.protocol, flow.port, flow.code)
    here, there = (made.vpc_of_subnet(eni.subnet_id).id for eni in (flow.sender, flow.receiver))
    if way.peering is None:
        return [rules.walk(rulesets[here], replace(packet, iif=flow.sender.link, oif=flow.receiver.link))]
    leaves = rules.walk(rulesets[here], replace(packet, iif=flow.sender.link, oif=way.peering.link))
    if leaves.outcome != "accept":
        return [leaves]
    return [leaves, rules.walk(rulesets[there], replace(packet, iif=way.peering.link, oif=flow.receiver.link))]


@settings(max_examples=100, deadline=None)
@given(worlds(), seeds())
def test_model_equals_reading(made, random):
    """walk(compile(World)) and the pure reading of the same World agree on flows of every kind: whether they pass, by
    which rule, and which sides track them; what an endpoint sends is rejected with its mark, other packets vanish."""
    rulesets = {vpc.id: rules.compile_vpc(made, vpc.id) for vpc in made.vpcs}
    for plan in random_plans(random, made, 40):
        flow = plan.flow(made)
        walks = _first_packet(made, rulesets, flow)
        if walks is None:
            continue
        said, last = judge_flow(made, flow), walks[-1]
        assert said.passed is (last.outcome == "accept"), (said, last)
        endpoint = made.endpoint_of_interface(flow.sender.id)
        if said.passed:
            assert last.decided_by in {one.id for one in covering(made, flow)[1]}
            marks = walks[0].ct_mark & rules.INITIATOR_UNTRACKED, last.ct_mark & rules.RESPONDER_UNTRACKED
            assert tuple(side.tracked for side in tracking(made, flow)) == tuple(mark == 0 for mark in marks)
        elif "forged_source" not in last.counted and "to_endpoint" not in last.counted:
            assert last.outcome == ("reject" if endpoint else "drop")
            assert last.mark == (rules.endpoint_mark(endpoint) if endpoint else 0)


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
        ({"ct_state": "invalid", "protocol": 1, "dport": 3}, "reject", ["snd_stop_endpoint"]),
        ({"iif": "web-2", "saddr": "10.0.1.12", "ct_state": "invalid", "protocol": 1}, "drop", ["snd_stop_web-2"]),
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
        ({"saddr": "fd00::1", "daddr": "fd00::2"}, "drop", ["forged_source"]),
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
        f'delete element inet wicketgate {name} {{ "web-2" }}'
        for name in ("open_in_tcp4", "open_in_udp4", f"members_{_hex('db')}")
    ]
    assert not [
        line for line in lines if line.startswith(("flush chain inet wicketgate in_", "add rule inet wicketgate in_"))
    ]


def _hex(name):
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


@settings(max_examples=80, deadline=None)
@given(worlds(), seeds())
def test_incremental_compilation_is_the_whole_one(made, random):
    """Compiled from another World's ruleset or from nothing: equal rulesets, equal fingerprints, and the commands that
    lead from one to the other leave exactly the new fingerprint."""
    rulesets = {vpc_id: rules.compile_vpc(made, vpc_id) for vpc_id in (A, B)}
    for _ in range(6):
        other, edits = edited(random, made)
        for vpc_id, ruleset in rulesets.items():
            rules.fingerprint(ruleset)
            derived, whole = (rules.compile_vpc(other, vpc_id, before) for before in ((made, ruleset), None))
            assert derived == whole, edits
            assert not edits <= FOLLOWED or derived is ruleset or derived.origin
            commands = rules.changes(ruleset, derived)
            assert commands == "" if ruleset == whole else f'"{rules.fingerprint(whole)}"' in commands
            assert rules.fingerprint(derived) == rules.fingerprint(whole)
            assert (rules.fingerprint(whole) == rules.fingerprint(ruleset)) is (ruleset == whole)
            rulesets[vpc_id] = derived
        made = other


def test_unchanged_groups_are_not_compiled_again():
    """Chains of groups that are the same objects as before are the same objects."""
    made = world(GROUPS, MEMBERS)
    before = rules.compile_vpc(made, VPC)
    groups = tuple(msgspec.structs.replace(one, rules=()) if one.name == "web" else one for one in made.groups)
    after = rules.compile_vpc(msgspec.structs.replace(made, groups=groups), VPC, (made, before))
    remade = {name for name, chain in after.chains.items() if chain is not before.chains.get(name)}
    assert remade == {f"in_{_hex('web')}"}


def test_a_load_denies_until_its_last_part():
    """What comes first drops all that is forwarded; dispatch is filled, and the fingerprint there, in the last part."""
    many = {f"g{number}": [rule("in", "tcp", (port, port), "0.0.0.0/0") for port in range(60)] for number in range(40)}
    ruleset = rules.compile_vpc(world({**GROUPS, **many}, {**MEMBERS, "web-3": ["web", "g1"]}), VPC)
    parts = list(rules.loading(ruleset))
    assert len(parts) > 3
    assert max(map(len, parts)) < 200_000
    assert all(" policy drop; }" in parts[0] and hook in parts[0] for hook in ("hook forward", "hook input"))
    *others, last = parts
    assert all(f"{rules.APPLIED}\0".encode() not in part for part in others if isinstance(part, bytes))
    assert all(f" {rules.APPLIED} " not in part for part in others if isinstance(part, str))
    assert all(" element " not in part for part in others if isinstance(part, str))
    filled = [number for number, part in enumerate(parts) if isinstance(part, bytes) and b"snd_web-3\0" in part]
    assert filled[-1] == len(parts) - 1
    assert rules.fingerprint(ruleset).encode() in last


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


BACK = {"iif": "b", "oif": "a", "saddr": "10.0.1.12", "daddr": "10.0.1.11"}
OPEN = [rule("in", "-1", (-1, -1), "0.0.0.0/0"), rule("out", "-1", (-1, -1), "0.0.0.0/0")]


@pytest.mark.parametrize("reply", [False, True])
@pytest.mark.parametrize("mark", [0, 1, 2, 3])
def test_later_packets_change_no_mark(reply, mark):
    """What a flow is at either side is settled by its first packet, whichever way later ones go and whoever sends."""
    ruleset = rules.compile_vpc(world({"endpoint": [], "open": OPEN}, {"a": ["open"], "b": ["open"]}), VPC)
    ends = (
        {"iif": "b", "oif": "a", "saddr": "10.0.1.12", "daddr": "10.0.1.11"}
        if reply
        else {"iif": "a", "oif": "b", "saddr": "10.0.1.11", "daddr": "10.0.1.12"}
    )
    seen = rules.walk(ruleset, _packet(**ends, ct_state="established", ct_reply=reply, ct_mark=mark))
    assert (seen.outcome, seen.ct_mark) == ("accept", mark)


@pytest.mark.parametrize(
    ("packet", "outcome"),
    [
        ({"ct_state": "new"}, "drop"),
        ({"ct_state": "new", "ct_confirmed": True}, "accept"),
        ({"ct_state": "established"}, "accept"),
        ({"ct_state": "established", "ct_mark": 1}, "drop"),
        ({"ct_state": "established", "ct_mark": 2}, "drop"),
        ({"ct_state": "new", "ct_confirmed": True, "ct_mark": 2}, "drop"),
        ({**BACK, "ct_state": "established", "ct_reply": True}, "accept"),
        ({**BACK, "ct_state": "established", "ct_reply": True, "ct_mark": 1}, "drop"),
        ({**BACK, "ct_state": "established", "ct_reply": True, "ct_mark": 2}, "drop"),
        ({"ct_state": "related", "protocol": 1, "dport": 3}, "accept"),
        ({"ct_state": "related", "protocol": 1, "dport": 3, "ct_mark": 1}, "drop"),
        ({"ct_state": "invalid"}, "drop"),
    ],
)
def test_later_packets_without_rules(packet, outcome):
    """Of a flow whose rules are gone all but the first packet pass, at sides that track it."""
    ruleset = rules.compile_vpc(world({"endpoint": [], "none": []}, {"a": ["none"], "b": ["none"]}), VPC)
    ends = {"iif": "a", "oif": "b", "saddr": "10.0.1.11", "daddr": "10.0.1.12"}
    assert rules.walk(ruleset, _packet(**{**ends, **packet})).outcome == outcome


def test_no_way_from_peer_to_peer():
    """A peering connection leads to the VPC at its other end, not on to a third."""
    vpcs = [Vpc(id=f"vpc-{number}", cidr_block=f"10.{number}.0.0/16") for number in range(3)]
    peerings = [
        VpcPeeringConnection(
            id=f"pcx-{number}",
            requester_vpc_id="vpc-0",
            accepter_vpc_id=f"vpc-{number}",
            link=f"p{number}",
            status="active",
        )
        for number in (1, 2)
    ]
    made = World(vpcs=tuple(vpcs), peerings=tuple(peerings))
    made.check()
    ruleset = rules.compile_vpc(made, "vpc-0")
    seen = rules.walk(ruleset, _packet(iif="p1", oif="p2", saddr="10.1.0.5", daddr="10.2.0.5"))
    assert (seen.outcome, seen.chains[-1]) == ("drop", "leaving")


@pytest.mark.parametrize(
    ("protocol", "one", "other", "wanted"),
    [
        (6, (350, None, None), (None, None, None), "tcp_350"),
        (6, (350, None, None), (60, None, None), "tcp_60"),
        (17, (350, None, None), (60, None, None), ""),
        (17, (None, 90, 60), (None, 100, 45), "udp_90_45"),
        (17, (None, None, 60), (None, None, None), ""),
        (17, (None, 90, 60), (None, None, None), "udp_90_30"),
        (17, (None, 180, 30), (None, None, 40), ""),
        (1, (350, 90, 60), (350, 90, 60), ""),
    ],
)
@pytest.mark.parametrize("swapped", [False, True])
def test_time_outs(protocol, one, other, wanted, swapped):
    """Each timer is the smaller of both sides', whichever opens the flow."""
    made = world({"endpoint": [], "open": OPEN}, {"a": ["open"], "b": ["open"], "c": ["open"]})
    names = ("tcp_established", "udp_stream", "udp")
    asked = {"a": other, "b": one, "c": (61, 61, 31)} if swapped else {"a": one, "b": other, "c": (61, 61, 31)}
    interfaces = tuple(
        msgspec.structs.replace(
            eni, connection_tracking=ConnectionTracking(**dict(zip(names, asked[eni.link], strict=True)))
        )
        if eni.link in asked
        else eni
        for eni in made.interfaces
    )
    ruleset = rules.compile_vpc(msgspec.structs.replace(made, interfaces=interfaces), VPC)
    ends = {"iif": "a", "oif": "b", "saddr": "10.0.1.11", "daddr": "10.0.1.12"}
    seen = rules.walk(ruleset, _packet(**ends, protocol=protocol))
    assert (seen.outcome, seen.timeout) == ("accept", wanted)


@pytest.mark.parametrize(
    ("packet", "outcome"),
    [
        ({"daddr": "fd00:ec2::254"}, "accept"),
        ({"daddr": "fd00:ec2::254", "saddr": "2001:db8:0:1::12"}, "drop"),
        ({"daddr": "fd00:ec2::254", "iif": "endpoint", "saddr": "2001:db8:0:1::10"}, "drop"),
        ({"daddr": "fd00:ec2::253", "protocol": 17, "dport": 53}, "accept"),
        ({"daddr": "fd00:ec2::123", "protocol": 17, "dport": 123}, "accept"),
        ({"daddr": "10.0.0.2", "saddr": "10.0.1.11", "protocol": 17, "dport": 53}, "accept"),
        ({"daddr": "169.254.169.253", "saddr": "10.0.1.11", "dport": 53}, "accept"),
        ({"daddr": "169.254.169.123", "saddr": "10.0.1.11", "protocol": 17, "dport": 123}, "accept"),
        ({"daddr": "10.0.0.3", "saddr": "10.0.1.11", "protocol": 17, "dport": 53}, "drop"),
        ({"daddr": "255.255.255.255", "saddr": "0.0.0.0", "protocol": 17, "dport": 67}, "accept"),
        ({"daddr": "10.0.1.1", "saddr": "0.0.0.0", "protocol": 17, "dport": 67}, "drop"),
        ({"daddr": "10.0.1.1", "saddr": "10.0.1.11", "protocol": 17, "dport": 67}, "accept"),
        ({"daddr": "ff02::1:2", "saddr": "fe80::5", "protocol": 17, "dport": 547}, "accept"),
        ({"daddr": "ff02::1:ff00:1", "saddr": "fe80::5", "protocol": 58, "dport": 135}, "accept"),
        ({"daddr": "ff02::1:ff00:1", "saddr": "::", "protocol": 58, "dport": 135}, "accept"),
        ({"daddr": "ff02::16", "saddr": "::", "protocol": 58, "dport": 143}, "accept"),
        ({"daddr": "fe80::1", "protocol": 58, "dport": 136}, "accept"),
        ({"daddr": "fe80::1", "saddr": "fe80::5", "iif": "unknown", "protocol": 58, "dport": 136}, "drop"),
        ({"daddr": "fe80::1", "saddr": "fe80::5", "protocol": 58, "dport": 128}, "drop"),
        ({"daddr": "2001:db8:0:1::12", "saddr": "fe80::5", "protocol": 58, "dport": 135}, "drop"),
    ],
)
def test_what_is_never_filtered(packet, outcome):
    """The router hears metadata, DNS, time, DHCP and neighbour discovery whatever the groups say, and nothing else."""
    made = dual(world({"endpoint": [], "none": []}, {"web-1": ["none"], "web-2": ["none"]}))
    base = {"iif": "web-1", "oif": "", "saddr": "2001:db8:0:1::11", "dport": 80}
    seen = rules.walk(rules.compile_vpc(made, VPC), _packet(**{**base, **packet}), ("prerouting", "input"))
    assert seen.outcome == outcome
