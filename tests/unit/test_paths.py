"""The pure reading: which step fails, and in whose words."""

import msgspec
import pytest

from tests.net.worlds import CLIENT, ENDPOINT, rule, sg, world
from wicketgate.model import SecurityGroupRule
from wicketgate.paths import allows, judge

GROUPS = {
    "endpoint": [rule("out", "tcp", (22, 22), "sg:web")],
    "web": [rule("in", "tcp", (22, 22), "sg:endpoint")],
    "db": [],
}
MEMBERS = {"web-1": ["web"], "db-1": ["db"]}


def _judge(made, address="10.0.1.11", port=22, client=CLIENT):
    return judge(made, endpoint_id=ENDPOINT, address=address, port=port, client_address=client)


def test_passes_and_says_by_which_rules():
    """A passing verdict names route, source address, outbound rule and inbound rule, in this order."""
    verdict = _judge(world(GROUPS, MEMBERS))
    assert verdict.passed
    assert [step.name for step in verdict.steps] == ["route", "source-address", "endpoint-outbound", "target-inbound"]
    assert verdict.steps[2].decided_by == GROUPS["endpoint"][0].id
    assert verdict.steps[3].decided_by == GROUPS["web"][0].id


@pytest.mark.parametrize(("preserve", "source"), [(False, "10.0.1.10"), (True, CLIENT)])
def test_source_address_by_preservation(preserve, source):
    """The target sees the endpoint's address with preservation off, the client's with it on."""
    verdict = _judge(world(GROUPS, MEMBERS, preserve=preserve))
    assert source in verdict.steps[1].reason


@pytest.mark.parametrize(
    ("address", "port", "step", "words"),
    [
        ("10.0.1.77", 22, "route", "no network interface of vpc-00000000000000001 has 10.0.1.77"),
        ("10.0.1.12", 22, "endpoint-outbound", f"no outbound rule of {sg('endpoint')} allows tcp 22 to 10.0.1.12"),
        ("10.0.1.11", 3389, "endpoint-outbound", "allows tcp 3389 to 10.0.1.11"),
    ],
)
def test_failures(address, port, step, words):
    """The verdict stops at the step that fails and words it."""
    failure = _judge(world(GROUPS, MEMBERS), address, port).failure
    assert failure.name == step
    assert words in failure.reason


def test_inbound_failure_names_the_visible_source():
    """An inbound refusal names the groups that lack the rule and the address the target would have seen."""
    made = world({**GROUPS, "web": [rule("in", "tcp", (22, 22), "10.0.0.0/16")]}, MEMBERS, preserve=True)
    assert _judge(made).failure.reason == f"no inbound rule of {sg('web')} allows tcp 22 from {CLIENT}"


def test_stopped_instance():
    """A target that does not run fails before its groups are read."""
    made = world(GROUPS, MEMBERS)
    stopped = (msgspec.structs.replace(made.instances[0], state="stopped"), *made.instances[1:])
    failure = _judge(msgspec.structs.replace(made, instances=stopped)).failure
    assert (failure.name, "is stopped" in failure.reason) == ("target", True)


def test_unknown_endpoint():
    """An endpoint that does not exist is a failed step, not an exception."""
    made = msgspec.structs.replace(world(GROUPS, MEMBERS), endpoints=())
    assert _judge(made).failure.name == "endpoint"


def _rule(protocol, first=-1, last=-1, **peer):
    peer = peer or {"cidr_ipv4": "0.0.0.0/0"}
    return SecurityGroupRule(id="sgr-1", is_egress=False, ip_protocol=protocol, from_port=first, to_port=last, **peer)


@pytest.mark.parametrize(
    ("one", "packet", "expected"),
    [
        (_rule("tcp", 22, 22), (6, 22, 0, "192.0.2.1"), True),
        (_rule("tcp", 22, 22), (17, 22, 0, "192.0.2.1"), False),
        (_rule("tcp", 20, 25), (6, 26, 0, "192.0.2.1"), False),
        (_rule("6", 22, 22), (6, 22, 0, "192.0.2.1"), True),
        (_rule("-1"), (6, 22, 0, "192.0.2.1"), True),
        (_rule("-1", 80, 80), (17, 53, 0, "192.0.2.1"), True),
        (_rule("47", 80, 80), (47, 0, 0, "192.0.2.1"), True),
        (_rule("icmp", 8, -1), (1, 8, 0, "192.0.2.1"), True),
        (_rule("icmp", 8, 0), (1, 8, 1, "192.0.2.1"), False),
        (_rule("icmp", 3, 4), (1, 3, 4, "192.0.2.1"), True),
        (_rule("icmp", -1, -1), (1, 11, 3, "192.0.2.1"), True),
        (_rule("-1"), (6, 22, 0, "2001:db8::1"), False),
        (_rule("-1", cidr_ipv6="::/0"), (6, 22, 0, "2001:db8::1"), True),
        (_rule("-1", cidr_ipv6="::/0"), (6, 22, 0, "192.0.2.1"), False),
        (_rule("icmpv6", cidr_ipv6="::/0"), (58, 128, 0, "2001:db8::1"), True),
        (_rule("icmp", referenced_group_id="sg-a"), (1, 8, 0, "2001:db8::1"), False),
        (_rule("tcp", 22, 22, referenced_group_id="sg-a"), (6, 22, 0, "192.0.2.1"), True),
        (_rule("tcp", 22, 22, referenced_group_id="sg-b"), (6, 22, 0, "192.0.2.1"), False),
        (_rule("tcp", 22, 22, cidr_ipv4="192.0.2.0/24"), (6, 22, 0, "192.0.2.255"), True),
        (_rule("tcp", 22, 22, cidr_ipv4="192.0.2.0/24"), (6, 22, 0, "192.0.3.0"), False),
    ],
)
def test_one_rule(one, packet, expected):
    """What one rule covers, field by field (EC2 API, IpPermission); the peer carries group sg-a."""
    protocol, port, code, address = packet
    peer = {"peer_address": address, "peer_groups": frozenset({"sg-a"})}
    assert allows(one, protocol=protocol, port=port, code=code, **peer) is expected
