"""The pure reading: which step fails, and in whose words."""

import msgspec
import pytest

from tests.net.worlds import CLIENT, ENDPOINT, VPC, prefix_list, rule, sg, world
from wicketgate.model import (
    Endpoint,
    NetworkInterface,
    Route,
    RouteTable,
    SecurityGroup,
    SecurityGroupRule,
    Settings,
    Subnet,
    Vpc,
    VpcPeeringConnection,
    World,
)
from wicketgate.paths import Flow, Tracking, allows, covering, judge, judge_flow, judge_packet, tracking

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


# -- two peered VPCs, both families -----------------------------------------------------------------------------------

OTHER, PEERING = "vpc-00000000000000002", "pcx-00000000000000001"
ANY4, ANY6 = "0.0.0.0/0", "::/0"


def _eni(number, subnet, groups, *addresses, **fields):
    four = [one for one in addresses if ":" not in one]
    return NetworkInterface(
        id=f"eni-000000000000000{number}",
        subnet_id=subnet,
        private_ip_address=four[0] if four else "",
        secondary_ip_addresses=tuple(four[1:]),
        ipv6_addresses=tuple(one for one in addresses if ":" in one),
        group_ids=tuple(sg(name) for name in groups),
        link=f"link{number}",
        **fields,
    )


def _peered(groups, *, status="active", routes=(), lists=()):
    """Two VPCs: a and b in the first (a with a secondary address), c in the second; one group for each."""
    in_vpc = {"a": VPC, "b": VPC, "c": OTHER}
    made = World(
        vpcs=(
            Vpc(id=VPC, cidr_block="10.0.0.0/16", ipv6_cidr_blocks=("2001:db8:a::/56",)),
            Vpc(id=OTHER, cidr_block="10.1.0.0/16", ipv6_cidr_blocks=("2001:db8:b::/56",)),
        ),
        subnets=(
            Subnet(id="subnet-1", vpc_id=VPC, cidr_block="10.0.1.0/24", ipv6_cidr_block="2001:db8:a::/64"),
            Subnet(id="subnet-2", vpc_id=OTHER, cidr_block="10.1.1.0/24", ipv6_cidr_block="2001:db8:b::/64"),
        ),
        groups=tuple(
            SecurityGroup(id=sg(name), vpc_id=vpc, name=name, rules=tuple(groups.get(name, ())))
            for name, vpc in in_vpc.items()
        ),
        interfaces=(
            _eni(10, "subnet-1", ["a"], "10.0.1.10", "10.0.1.20", "2001:db8:a::10"),
            _eni(11, "subnet-1", ["b"], "10.0.1.11", "2001:db8:a::11"),
            _eni(12, "subnet-2", ["c"], "10.1.1.12", "2001:db8:b::12"),
        ),
        prefix_lists=lists,
        peerings=(
            VpcPeeringConnection(id=PEERING, requester_vpc_id=VPC, accepter_vpc_id=OTHER, link="peer1", status=status),
        ),
        route_tables=(
            RouteTable(
                id="rtb-1",
                vpc_id=VPC,
                main=True,
                routes=tuple(Route(destination=one, peering_id=PEERING) for one in routes),
            ),
        ),
    )
    made.check()
    return made


def _flow(made, sender="10.0.1.10", receiver="10.0.1.11", **fields):
    holders = {address: eni for eni in made.interfaces for address in eni.addresses}
    fields = {"source_address": sender, "destination_address": receiver, "source_port": 40000, **fields}
    return Flow(holders[sender], holders[receiver], **fields)


@pytest.mark.parametrize(
    ("outbound", "inbound", "fields", "failing"),
    [
        ("10.0.1.11/32", "sg:a", {}, None),
        (ANY4, "10.0.1.20/32", {"sender": "10.0.1.20"}, None),  # a secondary address is the interface's
        (ANY4, "10.0.1.10/32", {"sender": "10.0.1.20"}, "target-inbound"),
        (ANY4, ANY4, {"source_address": "10.0.1.11"}, "source-check"),
        (ANY4, ANY4, {"sender": "2001:db8:a::10", "receiver": "2001:db8:a::11"}, "sender-outbound"),
        (ANY6, "sg:a", {"sender": "2001:db8:a::10", "receiver": "2001:db8:a::11"}, None),
        (ANY6, "pl:six", {"sender": "2001:db8:a::10", "receiver": "2001:db8:a::11"}, None),
        ("pl:four", "sg:a", {}, None),
        ("pl:six", "sg:a", {}, "sender-outbound"),
        (ANY4, "sg:b", {}, "target-inbound"),
    ],
)
def test_flows_inside_a_vpc(outbound, inbound, fields, failing):
    """Families, secondary addresses, prefix lists and references: which step fails, if any."""
    lists = (prefix_list("four", "10.0.1.8/30"), prefix_list("six", "2001:db8:a::/64"))
    rules = {"a": [rule("out", "tcp", (22, 22), outbound)], "b": [rule("in", "tcp", (22, 22), inbound)]}
    made = _peered(rules, lists=lists)
    failure = judge_flow(made, _flow(made, **fields)).failure
    assert (failure.name if failure else None) == failing


def test_prefix_list_names_its_entry():
    """The step says by which entry of the list's present version a rule allows."""
    lists = (prefix_list("four", "10.0.0.0/16", "10.0.1.0/28"),)
    made = _peered({"a": [rule("out", "-1", (-1, -1), "pl:four")]}, lists=lists)
    assert judge_flow(made, _flow(made)).steps[0].reason.endswith("by entry 10.0.1.0/28")


@pytest.mark.parametrize(
    ("inbound", "change", "failing"),
    [
        (f"sg:a@{VPC}", {}, None),
        ("10.0.0.0/16", {}, None),
        (f"sg:b@{VPC}", {}, "target-inbound"),
        (f"sg:a@{VPC}", {"routes": ("10.1.1.12/32",)}, None),
        (f"sg:a@{VPC}", {"routes": ("10.1.1.0/28", "10.1.1.13/32")}, None),
        (f"sg:a@{VPC}", {"routes": ("2001:db8:b::/64",)}, "route"),
        (f"sg:a@{VPC}", {"routes": ()}, "route"),
        (f"sg:a@{VPC}", {"status": "deleted"}, "route"),
    ],
)
def test_flows_across_a_peering(inbound, change, failing):
    """A route, an active connection, and a reference that counts while the connection is active."""
    rules = {"a": [rule("out", "tcp", (22, 22), f"sg:c@{OTHER}")], "c": [rule("in", "tcp", (22, 22), inbound)]}
    made = _peered(rules, **{"routes": ("10.1.0.0/16",), **change})
    failure = judge_flow(made, _flow(made, receiver="10.1.1.12")).failure
    assert (failure.name if failure else None) == failing


def test_own_range_never_leaves():
    """The local route wins, and no source of the VPC's that is another's goes out by a peering connection."""
    everything = [rule("out", "-1", (-1, -1), ANY4), rule("in", "-1", (-1, -1), ANY4)]
    made = _peered(dict.fromkeys("abc", everything), routes=("10.0.1.0/24", "10.1.0.0/16"))
    assert judge_flow(made, _flow(made)).passed
    loose = msgspec.structs.replace(made.interfaces[0], source_dest_check=False)
    made = msgspec.structs.replace(made, interfaces=(loose, *made.interfaces[1:]))
    assert judge_flow(made, _flow(made, source_address=CLIENT)).passed
    across = {"receiver": "10.1.1.12"}
    assert judge_flow(made, _flow(made, **across)).passed
    assert judge_flow(made, _flow(made, source_address="10.0.1.11", **across)).failure.name == "source-check"
    assert judge_flow(made, _flow(made, source_address=CLIENT, **across)).failure.name == "peer-source"


@pytest.mark.parametrize("source", ["169.254.7.7", "0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255"])
def test_what_no_router_passes_on(source):
    """Sources that name no host elsewhere stay on their link, with the source/destination check off too."""
    everything = [rule("out", "-1", (-1, -1), ANY4), rule("in", "-1", (-1, -1), ANY4)]
    made = _peered(dict.fromkeys("abc", everything))
    loose = msgspec.structs.replace(made.interfaces[0], source_dest_check=False)
    made = msgspec.structs.replace(made, interfaces=(loose, *made.interfaces[1:]))
    assert judge_flow(made, _flow(made, source_address=source)).failure.name == "source-check"


def test_endpoints_track_what_they_open():
    """An endpoint's inbound rules count for nothing, so they make nothing untracked either: tunnels outlive rules."""
    everything = [rule("out", "-1", (-1, -1), ANY4), rule("in", "-1", (-1, -1), ANY4)]
    made = world({"endpoint": everything, "web": everything}, {"web-1": ["web"]})
    sides = tracking(made, Flow(made.interfaces[0], made.interfaces[1], "10.0.1.10"))
    assert [side.tracked for side in sides] == [True, False]


EVERYTHING_OUT, EVERYTHING_IN = ("out", "-1", (-1, -1), ANY4), ("in", "tcp", (0, 65535), ANY4)


@pytest.mark.parametrize(
    ("sender", "receiver", "fields", "tracked"),
    [
        ([EVERYTHING_OUT], [EVERYTHING_IN], {}, (True, True)),  # the other directions have no rule
        ([EVERYTHING_OUT, EVERYTHING_IN], [EVERYTHING_IN, EVERYTHING_OUT], {}, (False, False)),
        ([EVERYTHING_OUT, EVERYTHING_IN], [("in", "tcp", (22, 22), "10.0.0.0/8"), EVERYTHING_OUT], {}, (False, True)),
        ([("out", "tcp", (22, 22), "sg:b"), EVERYTHING_IN], [EVERYTHING_IN], {}, (True, True)),
        (
            [("out", "tcp", (22, 22), "10.0.0.0/8"), ("out", "tcp", (22, 22), ANY4), EVERYTHING_IN],
            [],
            {},
            (False, True),
        ),
        ([("out", "tcp", (22, 22), "pl:any"), EVERYTHING_IN], [], {}, (True, True)),
        ([EVERYTHING_OUT, ("in", "tcp", (1, 65535), ANY4)], [], {}, (True, True)),
        ([EVERYTHING_OUT, ("in", "udp", (0, 65535), ANY4)], [], {}, (True, True)),
        ([EVERYTHING_OUT, ("in", "6", (0, 65535), ANY4)], [], {}, (False, True)),
        ([EVERYTHING_OUT, ("in", "tcp", (0, 65535), ANY6)], [], {}, (True, True)),
        ([EVERYTHING_OUT, EVERYTHING_IN], [], {"protocol": 17}, (True, True)),
        ([EVERYTHING_OUT, ("in", "-1", (-1, -1), ANY4)], [], {"protocol": 17}, (False, True)),
        ([EVERYTHING_OUT, ("in", "-1", (-1, -1), ANY4)], [], {"protocol": 1, "port": 8}, (True, True)),
        ([EVERYTHING_OUT, ("in", "-1", (-1, -1), ANY4)], [], {"protocol": 47}, (True, True)),
    ],
)
def test_what_is_tracked(sender, receiver, fields, tracked):
    """Untracked: TCP or UDP that a rule for any address admits, with all ports open to any address the other way."""
    lists = (prefix_list("any", ANY4),)
    made = _peered({"a": [rule(*one) for one in sender], "b": [rule(*one) for one in receiver]}, lists=lists)
    sides = tracking(made, _flow(made, **fields))
    assert tuple(side.tracked for side in sides) == tracked
    assert all(len(side.rules) == (0 if side.tracked else 2) and side.reason for side in sides)


TRACKED, UNTRACKED = Tracking(True), Tracking(False)


@pytest.mark.parametrize(
    ("rules", "sides", "how", "failing"),
    [
        ({}, (TRACKED, TRACKED), {}, None),
        ({}, (TRACKED, TRACKED), {"reply": True}, None),
        ({}, (UNTRACKED, TRACKED), {}, "sender-outbound"),
        ({}, (TRACKED, UNTRACKED), {}, "target-inbound"),
        ({}, (UNTRACKED, TRACKED), {"reply": True}, "sender-inbound"),
        ({}, (TRACKED, UNTRACKED), {"reply": True}, "target-outbound"),
        ({"a": [("out", "tcp", (22, 22), ANY4)]}, (UNTRACKED, TRACKED), {}, None),
        ({"a": [("in", "tcp", (22, 22), ANY4)]}, (UNTRACKED, TRACKED), {"reply": True}, "sender-inbound"),
        ({"a": [("in", "tcp", (40000, 40000), "sg:b")]}, (UNTRACKED, TRACKED), {"reply": True}, None),
        ({}, (TRACKED, TRACKED), {"reply": True, "icmp_error": (3, 4)}, None),
        ({}, (UNTRACKED, TRACKED), {"reply": True, "icmp_error": (3, 4)}, "sender-inbound"),
        ({"a": [("in", "icmp", (3, 4), ANY4)]}, (UNTRACKED, TRACKED), {"reply": True, "icmp_error": (3, 4)}, None),
        (
            {"a": [("in", "icmp", (3, 3), ANY4)]},
            (UNTRACKED, TRACKED),
            {"reply": True, "icmp_error": (3, 4)},
            "sender-inbound",
        ),
        ({}, (TRACKED, UNTRACKED), {"icmp_error": (3, 3)}, "target-inbound"),
    ],
)
def test_later_packets(rules, sides, how, failing):
    """Later packets pass where the side tracks the flow, and are judged by the present rules where it does not."""
    made = _peered({name: [rule(*one) for one in there] for name, there in rules.items()})
    failure = judge_packet(made, _flow(made), sides=sides, **how).failure
    assert (failure.name if failure else None) == failing


def test_later_packets_across_a_peering_need_routes():
    """A tracked flow ends with the route of the direction in which the packet goes."""
    made = _peered({}, routes=("10.1.0.0/16",))
    flow, sides = _flow(made, receiver="10.1.1.12"), (TRACKED, TRACKED)
    assert judge_packet(made, flow, sides=sides).passed
    assert judge_packet(made, flow, sides=sides, reply=True).failure.name == "route"


def test_covering_names_every_rule():
    """All rules that cover the first packet count, whatever the order and whichever decided."""
    rules = {
        "a": [
            rule("out", "tcp", (22, 22), ANY4),
            rule("out", "-1", (-1, -1), "sg:b"),
            rule("out", "udp", (22, 22), ANY4),
        ],
        "b": [rule("in", "tcp", (0, 65535), "10.0.0.0/8"), rule("in", "tcp", (23, 23), "10.0.0.0/8")],
    }
    made = _peered(rules)
    assert covering(made, _flow(made)) == (tuple(rules["a"][:2]), tuple(rules["b"][:1]))


def test_endpoints_borrow_clients_addresses_only():
    """With preservation an endpoint sends clients' addresses, never another one of its VPC; without it, its own alone;
    replies find their way back, and a flow that it opened goes on when preservation is switched off."""
    kept, plain = (world(GROUPS, MEMBERS, preserve=on) for on in (True, False))
    endpoint, web = kept.interfaces[:2]
    borrowed = Flow(endpoint, web, CLIENT)
    assert judge_flow(kept, borrowed).passed
    assert judge_flow(kept, Flow(endpoint, web, "10.0.9.9")).failure.name == "source-check"
    assert judge_flow(plain, borrowed).failure.name == "source-check"
    sides = tracking(kept, borrowed)
    assert judge_packet(plain, borrowed, sides=sides).passed
    assert judge_packet(plain, borrowed, sides=sides, reply=True).passed


@pytest.mark.parametrize(
    ("kind", "preserve", "address", "client", "outcome"),
    [
        ("ipv4", False, "2001:db8:a::11", CLIENT, "address-family"),
        ("ipv6", False, "10.0.1.11", CLIENT, "address-family"),
        ("dualstack", False, "10.0.1.11", CLIENT, "10.0.1.10"),
        ("dualstack", False, "2001:db8:a::11", CLIENT, "2001:db8:a::10"),
        ("dualstack", False, "2001:DB8:A:0::11", CLIENT, "2001:db8:a::10"),
        ("dualstack", True, "2001:db8:a::11", "2001:db8:99::1", "2001:db8:99::1"),
        ("dualstack", True, "10.0.1.11", CLIENT, CLIENT),
        ("dualstack", True, "10.0.1.11", "2001:db8:99::1", "10.0.1.10"),
        ("dualstack", True, "10.0.1.11", "10.0.7.7", "10.0.1.10"),  # of the VPC itself
        ("dualstack", True, "10.0.1.11", "127.0.0.1", "10.0.1.10"),
    ],
)
def test_tunnels_of_both_families(kind, preserve, address, client, outcome):
    """Which families an endpoint reaches, and under which source address."""
    made = _peered({"a": [rule("out", "tcp", (22, 22), "sg:b")], "b": [rule("in", "tcp", (22, 22), "sg:a")]})
    endpoint = Endpoint(
        id=ENDPOINT,
        subnet_id="subnet-1",
        interface_id=made.interfaces[0].id,
        dns_name="eice.wicketgate.test",
        ip_address_type=kind,
        preserve_client_ip=preserve,
    )
    made = msgspec.structs.replace(made, endpoints=(endpoint,), settings=Settings(preserve_client_ipv6=True))
    verdict = judge(made, endpoint_id=ENDPOINT, address=address, port=22, client_address=client)
    if verdict.passed:
        assert verdict.steps[1].reason.startswith(f"the target sees {outcome},")
    else:
        assert verdict.failure.name == outcome
