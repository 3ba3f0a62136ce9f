"""Reachability Analyzer: its verdict is that of the packets, both ways; its codes and ways say why; and its actions."""

from datetime import UTC, datetime
from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit import net_world
from tests.unit.net_world import (
    ENDPOINT,
    FREE_ENI,
    NOW,
    RUNNING,
    STOPPED,
    SUBNET,
    asks,
    golden_errors,
    number,
    run_with,
)
from tests.unit.net_world import run as run_action
from wicketgate import paths
from wicketgate.api.offers import offered
from wicketgate.control.common import Quotas
from wicketgate.explain.analyzer import Filters, analyze
from wicketgate.explain.analyzer_components import arn_of
from wicketgate.model import (
    ApiError,
    Endpoint,
    HeaderFilter,
    Instance,
    NetworkInsightsAnalysis,
    NetworkInsightsPath,
    NetworkInterface,
    PrefixList,
    PrefixListEntry,
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
from wicketgate.tunnel.targets import client_refusal

PATH, ANALYSIS = f"nip-{number('1')}", f"nia-{number('1')}"
A, B, PCX = "vpc-a", "vpc-b", "pcx-1"
ANY = "0.0.0.0/0"


# -- a World of two peered VPCs ----------------------------------------------------------------------------------------


def rule(name, where, *, ports=None, protocol="tcp", egress=False, vpc=""):
    """An allow rule; `where` is a range, `sg-...` or `pl-...`."""
    kind = {"sg": "referenced_group_id", "pl": "prefix_list_id"}.get(where[:2])
    peer = {kind or ("cidr_ipv6" if ":" in where else "cidr_ipv4"): where}
    first, last = ports or ((0, 65535) if protocol in ("tcp", "udp") else (-1, -1))
    return SecurityGroupRule(
        id=f"sgr-{name}",
        is_egress=egress,
        ip_protocol=protocol,
        from_port=first,
        to_port=last,
        referenced_vpc_id=vpc,
        peering_id=PCX if vpc else "",
        **peer,
    )


def everything_out(name):
    """A rule that lets out everything over IPv4."""
    return rule(name, ANY, protocol="-1", egress=True)


def eni(name, subnet, *addresses, groups, **fields):
    """A network interface with these addresses."""
    four = [one for one in addresses if ":" not in one]
    return NetworkInterface(
        id=f"eni-{name}",
        subnet_id=subnet,
        private_ip_address=four[0] if four else "",
        secondary_ip_addresses=tuple(four[1:]),
        ipv6_addresses=tuple(one for one in addresses if ":" in one),
        group_ids=tuple(groups),
        link=name,
        **fields,
    )


GROUPS = {"web": A, "db": A, "door": A, "far": B, "spare": A}


def world_of(rules=None, *, status="active", routes=((A, "10.1.0.0/16"), (B, "10.0.0.0/16")), **fields):
    """i-web (two interfaces) and i-db in A, with an endpoint; i-far in B. Groups let out everything over IPv4, and in
    nothing but what `rules` says: group -> rules."""
    there = {name: (everything_out(f"out-{name}"),) for name in GROUPS} | (rules or {})
    tables = {}
    for vpc, destination in routes:
        tables.setdefault(vpc, []).append(Route(destination=destination, peering_id=PCX))
    made = World(
        vpcs=(
            Vpc(id=A, cidr_block="10.0.0.0/16", ipv6_cidr_blocks=("2001:db8:a::/56",)),
            Vpc(id=B, cidr_block="10.1.0.0/16"),
        ),
        subnets=(
            Subnet(id="subnet-1", vpc_id=A, cidr_block="10.0.1.0/24", ipv6_cidr_block="2001:db8:a::/64"),
            Subnet(id="subnet-2", vpc_id=A, cidr_block="10.0.2.0/24"),
            Subnet(id="subnet-3", vpc_id=B, cidr_block="10.1.1.0/24"),
        ),
        groups=tuple(
            SecurityGroup(id=f"sg-{name}", vpc_id=vpc, name=name, rules=tuple(there[name]))
            for name, vpc in GROUPS.items()
        ),
        interfaces=(
            eni("web", "subnet-1", "10.0.1.10", "2001:db8:a::10", groups=["sg-web"]),
            eni("web2", "subnet-2", "10.0.2.10", groups=["sg-spare"], attached_to="i-web", device_index=1),
            eni("db", "subnet-2", "10.0.2.20", groups=["sg-db", "sg-spare"]),
            eni("six", "subnet-1", "10.0.1.30", "2001:db8:a::30", groups=["sg-db"]),
            eni("far", "subnet-3", "10.1.1.10", groups=["sg-far"]),
            eni("door", "subnet-1", "10.0.1.4", groups=["sg-door"], interface_type="ec2_instance_connect_endpoint"),
        ),
        instances=(
            Instance(id="i-web", interface_id="eni-web", tags={"Name": "web"}),
            Instance(id="i-db", interface_id="eni-db"),
            Instance(id="i-far", interface_id="eni-far"),
        ),
        endpoints=(Endpoint(id="eice-1", subnet_id="subnet-1", interface_id="eni-door", dns_name="door"),),
        peerings=(VpcPeeringConnection(id=PCX, requester_vpc_id=A, accepter_vpc_id=B, link="pcx", status=status),),
        route_tables=tuple(
            RouteTable(id=f"rtb-{vpc[-1]}", vpc_id=vpc, main=True, routes=tuple(found)) for vpc, found in tables.items()
        ),
    )
    made = msgspec.structs.replace(made, **fields)
    made.check()
    return made


def path(source="i-web", destination="i-db", port=5432, **fields):
    """A path of TCP."""
    fields = {"protocol": "tcp", "destination_port": port, **fields}
    return NetworkInsightsPath(id="nip-1", source=source, destination=destination, **fields)


def codes(world, asked, filters=None):
    """The codes of why there is no path."""
    finding = analyze(world, asked, filters)
    assert (finding.found, finding.forward, finding.back) == (False, (), ())
    return [one["ExplanationCode"] for one in finding.explanations]


def ids(items):
    """The ids of a way's components."""
    assert [one["SequenceNumber"] for one in items] == list(range(1, len(items) + 1))
    return [one["Component"]["Id"] for one in items]


FROM_WEB = {"db": (everything_out("out-db"), rule("in-db", "sg-web", ports=(5432, 5440)))}


# -- ways --------------------------------------------------------------------------------------------------------------


def test_a_way_and_back():
    """Instance, interface, the rules' groups and the local route; headers at both ends, of all ports that pass."""
    finding = analyze(world_of(FROM_WEB), path(port=None))
    assert finding.found
    assert finding.explanations == ()
    assert ids(finding.forward) == ["i-web", "eni-web", "sg-web", "rtb-a", "sg-db", "eni-db", "i-db"]
    first, interface, out, table, into, last_interface, last = finding.forward
    assert first["Component"] == {"Id": "i-web", "Arn": arn("instance/i-web"), "Name": "web"}
    assert first["OutboundHeader"] == {
        "DestinationAddresses": ["10.0.2.20/32"],
        "DestinationPortRanges": [{"From": 5432, "To": 5440}],
        "Protocol": "6",
        "SourceAddresses": ["10.0.1.10/32"],
        "SourcePortRanges": [{"From": 0, "To": 65535}],
    }
    assert last["InboundHeader"] == first["OutboundHeader"]
    assert interface["AttachedTo"]["Id"] == "i-web"
    assert (interface["Subnet"]["Id"], interface["Vpc"]["Arn"]) == ("subnet-1", arn("vpc/vpc-a"))
    assert last_interface["Subnet"]["Id"] == "subnet-2"
    assert out["SecurityGroupRule"] == {"Direction": "egress", "Protocol": "all", "Cidr": ANY}
    ports = {"From": 5432, "To": 5440}
    assert into["SecurityGroupRule"] == {
        "Direction": "ingress",
        "Protocol": "tcp",
        "PortRange": ports,
        "SecurityGroupId": "sg-web",
    }
    local = {"DestinationCidr": "10.0.0.0/16", "GatewayId": "local", "Origin": "createroutetable", "State": "active"}
    assert table["RouteTableRoute"] == local
    assert ids(finding.back) == ids(finding.forward)[::-1]
    assert finding.back[0]["OutboundHeader"] == {
        "DestinationAddresses": ["10.0.1.10/32"],
        "DestinationPortRanges": [{"From": 0, "To": 65535}],
        "Protocol": "6",
        "SourceAddresses": ["10.0.2.20/32"],
        "SourcePortRanges": [{"From": 5432, "To": 5440}],
    }
    assert not any("SecurityGroupRule" in one for one in finding.back)  # both sides track it


def arn(resource):
    """An ARN of the tests' account."""
    return f"arn:aws:ec2:us-east-1:123456789012:{resource}"


def test_replies_of_an_untracked_side_go_by_its_rules():
    """The way back names the rule that lets everything back, at the side that does not track the connection."""
    made = world_of({"db": (everything_out("out-db"), rule("in-db", ANY))})
    back = {one["Component"]["Id"]: one for one in analyze(made, path("eni-web")).back}
    assert back["sg-db"]["SecurityGroupRule"] == {"Direction": "egress", "Protocol": "all", "Cidr": ANY}
    assert "SecurityGroupRule" not in back["sg-web"]


def test_within_a_subnet_there_is_no_route():
    """From interface to interface of one subnet: two interfaces and two groups, headers at the interfaces."""
    finding = analyze(world_of(FROM_WEB), path("eni-web", "eni-six"))
    assert ids(finding.forward) == ["eni-web", "sg-web", "sg-db", "eni-six"]
    assert finding.forward[0]["OutboundHeader"] == finding.forward[-1]["InboundHeader"]


def test_ipv6():
    """Of two families whichever has a path; by address the one that is asked for."""
    rules = {
        "web": (rule("out-web", "::/0", protocol="-1", egress=True),),
        "db": (rule("in-db", "2001:db8:a::/64", ports=(22, 22)),),
    }
    made = world_of(rules)
    finding = analyze(made, path("eni-web", "eni-six", 22))
    assert finding.forward[0]["OutboundHeader"]["SourceAddresses"] == ["2001:db8:a::10/128"]
    assert analyze(made, path("i-web", "", 22, destination_ip="2001:db8:a::30")).found
    told = codes(made, path("eni-web", "", 22, destination_ip="10.0.1.30"))
    assert told == ["ENI_SG_RULES_MISMATCH", "ENI_SG_RULES_MISMATCH"]


def test_across_a_peering():
    """Both route tables and the connection, there and back."""
    rules = {"far": (everything_out("out-far"), rule("in-far", "sg-web", ports=(22, 22), vpc=A))}
    finding = analyze(world_of(rules), path(destination="i-far", port=22))
    way = ["i-web", "eni-web", "sg-web", "rtb-a", PCX, "sg-far", "eni-far", "i-far"]
    assert ids(finding.forward) == way
    assert finding.forward[3]["RouteTableRoute"] == {
        "DestinationCidr": "10.1.0.0/16",
        "VpcPeeringConnectionId": PCX,
        "Origin": "createroute",
        "State": "active",
    }
    assert (finding.forward[4]["SourceVpc"]["Id"], finding.forward[4]["DestinationVpc"]["Id"]) == (A, B)
    back = ["i-far", "eni-far", "sg-far", "rtb-b", PCX, "sg-web", "eni-web", "i-web"]
    assert ids(finding.back) == back


@pytest.mark.parametrize(
    ("source", "destination", "there"),
    [
        ("i-web", PCX, ["i-web", "eni-web", "sg-web", "rtb-a", PCX]),
        (PCX, "i-far", [PCX, "sg-far", "eni-far", "i-far"]),
        (PCX, "i-db", None),
        ("eni-far", PCX, None),
    ],
)
def test_a_peering_connection_at_an_end(source, destination, there):
    """It stands for whatever is behind it; the way begins or ends there."""
    rules = {"far": (everything_out("out-far"), rule("in-far", "10.0.0.0/8", ports=(22, 22)))}
    finding = analyze(world_of(rules), path(source, destination, 22))
    assert finding.found is (there is not None)
    if there is not None:
        assert ids(finding.forward) == there


def test_other_ways_are_hinted_at_and_can_be_asked_for():
    """Another interface of the source and another group of the destination; FilterInArns takes them."""
    rules = {
        "db": (rule("in-db", "10.0.0.0/16", ports=(5432, 5432)),),
        "spare": (everything_out("out-spare"), rule("in-spare", "10.0.0.0/8", ports=(5432, 5432))),
    }
    made = world_of(rules)
    finding = analyze(made, path())
    assert ids(finding.forward) == ["i-web", "eni-web2", "sg-spare", "sg-db", "eni-db", "i-db"]  # the shortest
    assert set(finding.hints) >= {arn("network-interface/eni-web"), arn("route-table/rtb-a")}
    for hint in finding.hints:
        other = analyze(made, path(), Filters(through=[hint]))
        assert hint in {one["Component"]["Arn"] for one in other.forward}, hint
    without = Filters(without=[arn("network-interface/eni-web2"), arn("security-group/sg-db")])
    way = ids(analyze(made, path(), without).forward)
    assert way == ["i-web", "eni-web", "sg-web", "rtb-a", "sg-spare", "eni-db", "i-db"]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"through": ["vpc-peering-connection/pcx-1"]}, ["COMPONENT_FILTER_RESTRICTION"]),
        ({"without": ["instance/i-db"]}, ["COMPONENT_FILTER_RESTRICTION_REMOVED_COMPONENT"]),
        ({"without": ["vpc/vpc-a"]}, ["COMPONENT_FILTER_RESTRICTION_REMOVED_COMPONENT"]),
        ({"through": ["subnet/subnet-2"], "without": ["vpc-peering-connection/pcx-1"]}, None),
    ],
)
def test_component_filters(filters, expected):
    """What no path traverses, or every path does; subnets and VPCs are traversed too."""
    given = Filters(**{name: [arn(one) for one in value] for name, value in filters.items()})
    if expected is None:
        assert analyze(world_of(FROM_WEB), path(), given).found
    else:
        assert codes(world_of(FROM_WEB), path(), given) == expected


# -- endpoints ---------------------------------------------------------------------------------------------------------


def door(world, **fields):
    """The World with the endpoint so."""
    return msgspec.structs.replace(world, endpoints=(msgspec.structs.replace(world.endpoints[0], **fields),))


FROM_OFFICE = {"db": (rule("in-db", "203.0.113.0/24", ports=(22, 22)),)}


def test_from_an_endpoint():
    """The client comes in, the endpoint's own address goes out."""
    made = world_of({"db": (rule("in-db", "sg-door", ports=(22, 22)),)})
    finding = analyze(made, path("eice-1", "i-db", None, source_ip="198.51.100.7"))
    assert ids(finding.forward)[:3] == ["eice-1", "eni-door", "sg-door"]
    first = finding.forward[0]
    assert first["InboundHeader"]["SourceAddresses"] == ["198.51.100.7/32"]
    assert first["OutboundHeader"]["SourceAddresses"] == ["10.0.1.4/32"]
    assert first["OutboundHeader"]["DestinationPortRanges"] == [{"From": 22, "To": 22}]


def test_from_an_endpoint_that_preserves_clients():
    """Some client passes, if one that a rule names does; replies come back without a route to the client."""
    made = door(world_of(FROM_OFFICE), preserve_client_ip=True)
    finding = analyze(made, path("eice-1", "i-db", 22))
    assert finding.forward[0]["OutboundHeader"]["SourceAddresses"] == ["203.0.113.0/32"]
    assert ids(finding.back) == ["i-db", "eni-db", "sg-db", "sg-door", "eni-door", "eice-1"]
    assert codes(made, path("eice-1", "i-db", 22, source_ip="198.51.100.7")) == ["ENI_SG_RULES_MISMATCH"]
    assert analyze(made, path("eice-1", "i-db", 22, source_ip="203.0.113.9")).found
    wanted = HeaderFilter(source_address="203.0.113.9")
    assert analyze(made, path("eice-1", "i-db", None, at_source=wanted, at_destination=wanted)).found


@pytest.mark.parametrize(
    ("asked", "fields", "expected"),
    [
        ({"port": 5432}, {}, ["TARGET_PORT_RESTRICTION"]),
        ({"protocol": "udp"}, {}, ["PROTOCOL_RESTRICTION"]),
        ({}, {"state": "create-in-progress"}, ["BAD_STATE"]),
        ({"source_ip": "10.0.9.9"}, {"preserve_client_ip": True}, ["ENI_ADDRESS_RESTRICTION"]),
        ({"destination": "i-far"}, {}, ["ENI_ADDRESS_RESTRICTION", "DISCONNECTED_VPCS"]),
        ({"at_destination": HeaderFilter(source_address="203.0.113.9")}, {}, ["FILTER_AT_DESTINATION_SOURCE_ADDRESS"]),
    ],
)
def test_what_endpoints_do_not_do(asked, fields, expected):
    """Ports, protocols and clients that they do not take; states in which no tunnel opens; other VPCs."""
    everything = rule("in", ANY, protocol="-1")
    made = door(world_of({"db": (everything,), "far": (everything,)}), **fields)
    found = codes(made, path(**{"source": "eice-1", "destination": "i-db", "port": 22, **asked}))
    assert [one for one in found if one in expected] == expected


def test_nobody_connects_to_an_endpoint():
    """But the service."""
    made = world_of({"door": (rule("in-door", ANY),)})
    assert codes(made, path("i-web", "eice-1")) == ["UNSUPPORTED_COMPONENT"]


# -- codes -------------------------------------------------------------------------------------------------------------

REFERENCE = {"far": (rule("in-far", "sg-web", ports=(22, 22), vpc=A),)}
TO_FAR = {"destination": "i-far", "port": 22}


AFTER = ["DISCONNECTED_VPCS", "BAD_STATE_ROUTE", "BAD_STATE"]
"""What a deleted peering connection leaves, there and back."""
SPOOFED, ADDRESS = "ENI_SOURCE_DEST_CHECK_RESTRICTION", "ENI_ADDRESS_RESTRICTION"
OUT = {"web": (rule("out", "10.9.0.0/16", egress=True),), **FROM_WEB}


@pytest.mark.parametrize(
    ("rules", "world", "asked", "expected"),
    [
        ({}, {}, {}, ["SG_HAS_NO_RULES", "SG_HAS_NO_RULES"]),
        ({"db": (rule("in-db", "10.9.0.0/16"),)}, {}, {}, ["ENI_SG_RULES_MISMATCH"]),
        (OUT, {}, {"source": "eni-web"}, ["ENI_SG_RULES_MISMATCH"]),
        (FROM_WEB, {}, {"source": "eni-web", "source_ip": "192.0.2.1"}, [SPOOFED]),
        (FROM_WEB, {}, {"source": "eni-web", "source_ip": "127.0.0.1"}, [ADDRESS]),
        (FROM_WEB, {}, {"destination_ip": "10.0.2.21"}, [ADDRESS]),
        (FROM_WEB, {}, {"destination": "", "destination_ip": "10.0.2.21"}, ["NO_POSSIBLE_DESTINATION"]),
        (FROM_WEB, {}, {"source": "i-gone"}, ["NO_SOURCE_OR_DESTINATION"]),
        (FROM_WEB, {}, {"destination": "eni-gone"}, ["NO_SOURCE_OR_DESTINATION"]),
        (
            REFERENCE,
            {"status": "deleted"},
            TO_FAR,
            [*AFTER, "ENI_SG_RULES_MISMATCH", "UNKNOWN_PEERED_SGS", *AFTER],
        ),
        (REFERENCE, {"routes": ((B, "10.0.0.0/16"),)}, TO_FAR, ["NO_ROUTE_TO_DESTINATION"]),
        (REFERENCE, {"routes": ((A, "10.1.0.0/16"),)}, TO_FAR, ["NO_ROUTE_TO_DESTINATION"]),
        (
            REFERENCE,
            {"routes": ((A, "10.1.2.0/24"), (B, "10.0.0.0/16"))},
            TO_FAR,
            ["NO_ROUTE_TO_DESTINATION", "CANNOT_ROUTE"],
        ),
        (
            FROM_WEB,
            {},
            {"at_destination": HeaderFilter(destination_ports=(80, 90))},
            ["FILTER_AT_DESTINATION_DESTINATION_PORT_RANGE"],
        ),
        (
            FROM_WEB,
            {},
            {"source_ip": "10.0.1.10", "at_destination": HeaderFilter(source_address="10.0.1.11")},
            ["FILTER_AT_DESTINATION_SOURCE_ADDRESS"],
        ),
        (FROM_WEB, {}, {"source": "i-db", "destination": "eni-db"}, ["NO_PATH"]),
        (FROM_WEB, {}, {"source": "eni-web", "source_ip": "2001:db8:a::10"}, ["NO_PATH"]),
    ],
)
def test_codes(rules, world, asked, expected):
    """Every hindrance of the packet that gets furthest, in its order, then those of its reply."""
    assert codes(world_of(rules, **world), path(**asked)) == expected


def test_a_source_that_is_another_s_stays_inside():
    """With the source check off: its own VPC's addresses do not leave it, and foreign ones do not cross a peering."""
    made = world_of({"far": (rule("in-far", ANY),)})
    interfaces = (msgspec.structs.replace(made.interfaces[0], source_dest_check=False), *made.interfaces[1:])
    made = msgspec.structs.replace(made, interfaces=interfaces)
    ask = {"source": "eni-web", "destination": "eni-far"}
    assert codes(made, path(**ask, source_ip="10.0.2.20"))[0] == "GATEWAY_REJECTS_SPOOFED_TRAFFIC"
    assert codes(made, path(**ask, source_ip="192.0.2.1"))[0] == "PCX_REQUIRES_ADDRESS_IN_VPC_CIDR"


def test_states_and_details():
    """A stopped instance; and what an explanation names: interface, groups, direction, place."""
    made = world_of({"db": (rule("in-db", "10.9.0.0/16"),), "spare": (rule("in-spare", "10.8.0.0/16"),)})
    finding = analyze(made, path("eni-web"))
    (told,) = finding.explanations
    assert told["Direction"] == "ingress"
    assert told["NetworkInterface"] == {"Id": "eni-db", "Arn": arn("network-interface/eni-db")}
    assert [one["Id"] for one in told["SecurityGroups"]] == ["sg-db", "sg-spare"]
    assert (told["Subnet"]["Id"], told["Vpc"]["Id"]) == ("subnet-2", A)
    stopped = msgspec.structs.replace(made.instances[1], state="stopped")
    made = msgspec.structs.replace(made, instances=(made.instances[0], stopped, made.instances[2]))
    state, *rest = analyze(made, path("eni-web")).explanations
    assert (state["ExplanationCode"], state["State"], state["Component"]["Id"]) == ("BAD_STATE", "stopped", "i-db")
    assert [one["ExplanationCode"] for one in rest] == ["ENI_SG_RULES_MISMATCH"]


# -- the same verdict as the packets -----------------------------------------------------------------------------------

_CIDRS = (ANY, "10.0.0.0/16", "10.0.1.0/24", "10.0.2.20/32", "10.1.1.0/24", "203.0.113.0/24", "::/0", "2001:db8:a::/64")
_PORTS = ((0, 65535), (22, 22), (80, 443), (443, 5432), (1024, 65535))


def random_world(random):
    """The two VPCs with random rules, routes, states, source checks and client IP preservation."""
    every = [f"sg-{name}" for name in GROUPS]

    def one(name, index, vpc):
        where = random.choice([*_CIDRS, *every, "pl-1"])
        far = vpc if where.startswith("sg-") and GROUPS[where[3:]] != vpc else ""
        protocol = random.choice(["tcp", "tcp", "tcp", "udp", "-1"])
        ports = random.choice(_PORTS) if protocol != "-1" else None
        egress = random.random() < 0.5
        made = rule(f"{name}{index}", where, ports=ports, protocol=protocol, egress=egress)
        return msgspec.structs.replace(made, referenced_vpc_id=GROUPS[where[3:]], peering_id=PCX) if far else made

    lists = (
        PrefixList(
            id="pl-1",
            name="n",
            address_family="IPv4",
            max_entries=5,
            entries=tuple(PrefixListEntry(cidr=cidr) for cidr in ("10.0.1.8/29", "203.0.113.128/25")),
        ),
    )
    rules = {name: tuple(one(name, index, vpc) for index in range(random.randrange(5))) for name, vpc in GROUPS.items()}
    routes = [(A, "10.1.0.0/16"), (A, "10.1.1.0/28"), (B, "10.0.0.0/16"), (B, "10.0.1.0/24")]
    for name, found in rules.items():
        wide = (everything_out(f"out-{name}"), rule(f"in-{name}", ANY))
        rules[name] = (*found, *(one for one in wide if random.random() < 0.5))
    made = world_of(
        rules,
        status=random.choice(["active", "active", "active", "deleted"]),
        routes=[one for one in routes if random.random() < 0.7],
        prefix_lists=lists,
        settings=Settings(allowed_ports=random.choice([(22, 3389), (), (443,)])),
    )
    interfaces = [msgspec.structs.replace(eni, source_dest_check=random.random() < 0.7) for eni in made.interfaces]
    states = [
        msgspec.structs.replace(one, state=random.choice(["running"] * 5 + ["stopped"])) for one in made.instances
    ]
    made = msgspec.structs.replace(made, interfaces=tuple(interfaces), instances=tuple(states))
    return door(made, preserve_client_ip=random.random() < 0.5)


def passes(world, flow):
    """Whether a packet gets there and its reply comes back."""
    if not paths.judge_flow(world, flow).passed:
        return False
    return paths.judge_packet(world, flow, sides=paths.tracking(world, flow), reply=True).passed


def running(world, eni):
    """Whether what the interface is attached to runs."""
    instance = world.instance_of_interface(eni.id)
    return instance is None or instance.state == "running"


def test_verdict_on_one_packet_is_that_of_paths():
    """Between any two interfaces, with everything given: found exactly when the packet and its reply pass."""
    seen = {True: 0, False: 0}

    @settings(max_examples=300, deadline=None, database=None)
    @given(st.integers(0, 2**64))
    def check(seed):
        random = Random(seed)
        world = random_world(random)
        plain = [one for one in world.interfaces if one.id != "eni-door"]
        for _ in range(12):
            sender, receiver = random.sample(plain, 2)
            destination = random.choice(receiver.addresses)
            own = [one for one in sender.addresses if (":" in one) is (":" in destination)]
            source = random.choice([*own, *own, *own, "::1" if ":" in destination else "192.0.2.7"])
            port = random.choice([22, 80, 443, 5432])
            asked = path(
                sender.id,
                receiver.id,
                port,
                source_ip=source,
                destination_ip=destination,
                protocol=random.choice(["tcp", "udp"]),
            )
            protocol = {"tcp": 6, "udp": 17}[asked.protocol]
            flow = paths.Flow(sender, receiver, source, protocol, port, destination_address=destination)
            expected = running(world, sender) and running(world, receiver) and passes(world, flow)
            finding = analyze(world, asked)
            assert finding.found is expected, (world, asked)
            assert bool(finding.explanations) is not expected
            seen[expected] += 1

    check()
    assert min(seen.values()) > 100, seen


def test_open_questions_are_answered_by_trying_everything():
    """With ports and addresses left open: found exactly when any of them passes, and all ports that are shown do."""
    seen = {True: 0, False: 0}

    @settings(max_examples=200, deadline=None, database=None)
    @given(st.integers(0, 2**64))
    def check(seed):
        random = Random(seed)
        world = random_world(random)
        ports = (0, 21, 22, 23, 79, 80, 443, 444, 1023, 1024, 5432, 5433, 65535)
        for _ in range(6):
            source, destination = random.sample(["i-web", "i-db", "i-far", "eni-six", "eni-web2"], 2)
            asked = path(source, destination, None)
            flows = [
                paths.Flow(sender, receiver, one, 6, port, destination_address=other)
                for sender in interfaces_of(world, source)
                for receiver in interfaces_of(world, destination)
                if sender is not receiver and running(world, sender) and running(world, receiver)
                for one in sender.addresses
                for other in receiver.addresses
                if (":" in one) is (":" in other)
                for port in ports
            ]
            expected = any(passes(world, flow) for flow in flows)
            finding = analyze(world, asked)
            assert finding.found is expected, (world, asked)
            seen[expected] += 1
            if expected:
                check_header(world, finding)

    check()
    assert min(seen.values()) > 100, seen


def test_a_peering_connection_is_everything_behind_it():
    """Found exactly when a packet to, or from, some interface of the VPC behind it passes, or one with the address."""
    seen = {True: 0, False: 0}

    @settings(max_examples=200, deadline=None, database=None)
    @given(st.integers(0, 2**64))
    def check(seed):
        random = Random(seed)
        world = random_world(random)
        twins = [msgspec.structs.replace(one, id=f"{one.id}-twin", link=f"{one.link}t") for one in world.interfaces[:5]]
        moved = {"eni-web": "10.0.1.11", "eni-web2": "10.0.2.11", "eni-db": "10.0.2.21", "eni-far": "10.1.1.12"}
        twins = [
            msgspec.structs.replace(
                one,
                private_ip_address=moved[old],
                ipv6_addresses=(),
                attached_to="",
                group_ids=("sg-spare",) if "far" not in old else ("sg-far",),
            )
            for one in twins
            if (old := one.id.removesuffix("-twin")) in moved
        ]
        world = msgspec.structs.replace(world, interfaces=(*world.interfaces, *twins))
        world.check()
        near, far = ([eni for eni in world.interfaces_of_vpc(vpc) if eni.id != "eni-door"] for vpc in (A, B))
        for one, behind, vpc in ((random.choice(near), far, B), (random.choice(far), near, A)):
            address = random.choice(["", *(address for eni in behind for address in eni.addresses[:1])])
            others = [eni for eni in behind if address in ("", *eni.addresses)]
            for asked, pairs in (
                (path(one.id, PCX, 443, destination_ip=address), [(one, other) for other in others]),
                (path(PCX, one.id, 443, source_ip=address), [(other, one) for other in others]),
            ):
                flows = [
                    paths.Flow(sender, receiver, sender.addresses[0], 6, 443, destination_address=receiver.addresses[0])
                    for sender, receiver in pairs
                    if running(world, sender) and running(world, receiver)
                ]
                expected = world.peerings[0].status == "active" and any(passes(world, flow) for flow in flows)
                assert analyze(world, asked).found is expected, (world, asked, vpc)
                seen[expected] += 1

    check()
    assert min(seen.values()) > 50, seen


def interfaces_of(world, resource_id):
    """The interfaces of an instance, or the interface."""
    instance = world.instance(resource_id)
    return [world.interface(resource_id)] if instance is None else world.interfaces_of_instance(instance)


def check_header(world, finding):
    """The first and last of the ports in a way's header pass."""
    header = finding.forward[0]["OutboundHeader"]
    source, destination = (header[f"{end}Addresses"][0].partition("/")[0] for end in ("Source", "Destination"))
    holders = {address: eni for eni in world.interfaces for address in eni.addresses}
    (span,) = header["DestinationPortRanges"]
    for port in (span["From"], span["To"]):
        flow = paths.Flow(holders[source], holders[destination], source, 6, port, destination_address=destination)
        assert passes(world, flow)


def test_verdict_on_tunnels_is_that_of_paths():
    """From the endpoint with a given client: as `paths.judge`, where the client's address and the port are taken; with
    any client: whenever one of many passes."""
    seen = {True: 0, False: 0}
    clients = ("203.0.113.9", "203.0.113.200", "198.51.100.7", "10.0.9.9", "127.0.0.1")

    @settings(max_examples=200, deadline=None, database=None)
    @given(st.integers(0, 2**64))
    def check(seed):
        random = Random(seed)
        world = random_world(random)
        target = random.choice(["i-web", "i-db", "eni-six"])
        port = random.choice([22, 443])
        outcomes = []
        for client in clients:
            addresses = [one for eni in interfaces_of(world, target) for one in eni.addresses if ":" not in one]
            expected = any(tunnel(world, address, port, client) for address in addresses)
            asked = path("eice-1", target, port, source_ip=client)
            assert analyze(world, asked).found is expected, (world, asked)
            outcomes.append(expected)
            seen[expected] += 1
        assert analyze(world, path("eice-1", target, port)).found or not any(outcomes), (world, target, port)

    check()
    assert min(seen.values()) > 40, seen


def tunnel(world, address, port, client):
    """Whether a tunnel opens."""
    offered_ports = world.settings.allowed_ports
    endpoint = world.endpoints[0]
    if (offered_ports and port not in offered_ports) or client_refusal(world, endpoint, client, address) is not None:
        return False
    return paths.judge(world, endpoint_id="eice-1", address=address, port=port, client_address=client).passed


# -- actions -----------------------------------------------------------------------------------------------------------

ACTIONS = {
    "CreateNetworkInsightsPath",
    "DescribeNetworkInsightsPaths",
    "DeleteNetworkInsightsPath",
    "StartNetworkInsightsAnalysis",
    "DescribeNetworkInsightsAnalyses",
    "DeleteNetworkInsightsAnalysis",
}


def small_world():
    """That of the network's actions, with a path from the running instance to the free interface, and its analysis."""
    return msgspec.structs.replace(
        net_world.small_world(),
        insights_paths=(
            NetworkInsightsPath(id=PATH, source=RUNNING, destination=FREE_ENI, protocol="tcp", created_at=NOW - 60),
        ),
        insights_analyses=(NetworkInsightsAnalysis(id=ANALYSIS, path_id=PATH, started_at=NOW - 30, path_found=False),),
    )


def run(action, world=None, **parameters):
    """The World after the action, and its answer."""
    return run_action(small_world() if world is None else world, action, **parameters)


def test_all_are_offered():
    """The API process offers them beside the families of `control`."""
    found = {action for service, action in offered() if service == "ec2"}
    assert found >= ACTIONS | {"CreateVpc"}


@golden_errors("insights")
def test_refusal(error):
    """Each bad call of the golden file: code and words."""
    net_world.check_refusal(error, small_world())


def test_life():
    """Create by ARN and with capitals, analyse, describe, delete; every answer has the shape of the service model."""
    filters = {"SourceAddress": "10.0.1.4", "DestinationPortRange": {"FromPort": 22, "ToPort": 22}}
    tags = [{"ResourceType": "network-insights-path", "Tags": [{"Key": "Name", "Value": "p"}]}]
    world, answer = run(
        "CreateNetworkInsightsPath",
        Source=arn(f"instance/{RUNNING}"),
        Destination=FREE_ENI,
        Protocol="TCP",
        FilterAtSource=filters,
        TagSpecifications=tags,
        ClientToken="c",
    )
    made = answer["NetworkInsightsPath"]
    assert (made["Source"], made["SourceArn"]) == (RUNNING, arn(f"instance/{RUNNING}"))
    assert (made["Protocol"], made["FilterAtSource"]) == ("tcp", filters)
    only = {"NetworkInsightsPathId": made["NetworkInsightsPathId"]}
    _, shown = run("DescribeNetworkInsightsPaths", world, NetworkInsightsPathIds=list(only.values()))
    assert shown["NetworkInsightsPaths"] == [made]
    world, answer = run("StartNetworkInsightsAnalysis", world, **only, ClientToken="c")
    analysis = answer["NetworkInsightsAnalysis"]
    assert (analysis["Status"], analysis["NetworkPathFound"]) == ("succeeded", False)
    assert {one["ExplanationCode"] for one in analysis["Explanations"]} == {"SG_HAS_NO_RULES"}
    _, shown = run("DescribeNetworkInsightsAnalyses", world, **only)
    assert shown["NetworkInsightsAnalyses"] == [analysis]
    with pytest.raises(ApiError, match="Delete them first"):
        run("DeleteNetworkInsightsPath", world, **only)
    ids = {"NetworkInsightsAnalysisId": analysis["NetworkInsightsAnalysisId"]}
    world, answer = run("DeleteNetworkInsightsAnalysis", world, **ids)
    assert answer == ids
    world, answer = run("DeleteNetworkInsightsPath", world, **only)
    assert answer == only
    assert [one.id for one in world.insights_paths] == [PATH]


def test_found_paths_have_the_model_s_shape():
    """Forward, return, hints, and every kind of explanation fit the service model."""
    rules = {"db": (rule("in-db", "10.0.0.0/16"),), "spare": (everything_out("o"), rule("in-spare", ANY))}
    for world, asked in (
        (world_of(rules), path()),
        (world_of(REFERENCE), path(**TO_FAR)),
        (world_of(REFERENCE, status="deleted"), path(**TO_FAR)),
        (world_of(), path("eice-1", "i-db", 5432, protocol="udp")),
    ):
        world = msgspec.structs.replace(world, insights_paths=(asked,))
        after, answer = run("StartNetworkInsightsAnalysis", world, NetworkInsightsPathId="nip-1", ClientToken="c")
        assert answer["NetworkInsightsAnalysis"]["NetworkPathFound"] in (True, False)
        assert World.from_json(after.to_json()).insights_analyses == after.insights_analyses


@pytest.mark.parametrize(
    ("filters", "shown"),
    [
        ({"source": RUNNING}, True),
        ({"destination": RUNNING}, False),
        ({"protocol": "t*"}, True),
        ({"filter-at-source.source-address": "*"}, False),
    ],
)
def test_filters_of_paths(filters, shown):
    """By ends, protocol and filters at the ends."""
    listed = [{"Name": name, "Values": [value]} for name, value in filters.items()]
    _, answer = run("DescribeNetworkInsightsPaths", Filters=listed)
    assert [one["NetworkInsightsPathId"] for one in answer["NetworkInsightsPaths"]] == [PATH] * shown


def test_filters_at_both_ends_are_told_apart():
    """A filter at the destination is not found as one at the source."""
    there = HeaderFilter(source_ports=(1024, 65535))
    world = msgspec.structs.replace(
        small_world(), insights_paths=(msgspec.structs.replace(small_world().insights_paths[0], at_destination=there),)
    )
    for side, count in (("source", 0), ("destination", 1)):
        only = [{"Name": f"filter-at-{side}.source-port-range", "Values": ["1024-65535"]}]
        assert len(run("DescribeNetworkInsightsPaths", world, Filters=only)[1]["NetworkInsightsPaths"]) == count


def test_filters_of_analyses():
    """By outcome, status and time."""
    for name, value, count in (("path-found", "true", 0), ("path-found", "false", 1), ("status", "succeeded", 1)):
        _, answer = run("DescribeNetworkInsightsAnalyses", Filters=[{"Name": name, "Values": [value]}])
        assert len(answer["NetworkInsightsAnalyses"]) == count
    moments = {seconds: at(seconds) for seconds in (-60, -10)}
    assert not run("DescribeNetworkInsightsAnalyses", AnalysisStartTime=moments[-10])[1]["NetworkInsightsAnalyses"]
    assert not run("DescribeNetworkInsightsAnalyses", AnalysisEndTime=moments[-60])[1]["NetworkInsightsAnalyses"]
    both = {"AnalysisStartTime": moments[-60], "AnalysisEndTime": moments[-10]}
    assert run("DescribeNetworkInsightsAnalyses", **both)[1]["NetworkInsightsAnalyses"]


def at(seconds):
    """A moment relative to the tests' own."""
    return datetime.fromtimestamp(NOW + seconds, UTC)


def test_analyses_run_out():
    """After 120 days they are not shown, hinder nothing, and go with the next change."""
    old = msgspec.structs.replace(small_world().insights_analyses[0], started_at=NOW - 120 * 86400)
    world = msgspec.structs.replace(small_world(), insights_analyses=(old,))
    assert run("DescribeNetworkInsightsAnalyses", world)[1] == {"NetworkInsightsAnalyses": []}
    with pytest.raises(ApiError, match="does not exist"):
        run("DeleteNetworkInsightsAnalysis", world, NetworkInsightsAnalysisId=ANALYSIS)
    after, _ = run("StartNetworkInsightsAnalysis", world, NetworkInsightsPathId=PATH, ClientToken="c")
    assert ANALYSIS not in [one.id for one in after.insights_analyses]
    after, _ = run("DeleteNetworkInsightsPath", world, NetworkInsightsPathId=PATH)
    assert (after.insights_paths, after.insights_analyses) == ((), ())


@pytest.mark.parametrize(
    ("action", "quota", "parameters"),
    [
        (
            "CreateNetworkInsightsPath",
            {"insights_paths_per_region": 1},
            {"Source": RUNNING, "Destination": STOPPED, "Protocol": "tcp"},
        ),
        ("StartNetworkInsightsAnalysis", {"insights_analyses_per_region": 1}, {"NetworkInsightsPathId": PATH}),
    ],
)
def test_quotas(action, quota, parameters):
    """One more than the quota is refused with AWS's code."""
    with pytest.raises(ApiError) as caught:
        run_with(small_world(), action, {"quotas": Quotas(**quota)}, **parameters, ClientToken="c")
    assert (
        caught.value.code == f"{'NetworkInsightsPath' if 'Path' in action else 'NetworkInsightsAnalysis'}.LimitExceeded"
    )


def test_what_iam_is_asked():
    """The path and its ends; for an analysis also whether its caller may see what it shows."""
    tags = [{"ResourceType": "network-insights-path", "Tags": [{"Key": "k", "Value": "v"}]}]
    found = asks(
        small_world(),
        "CreateNetworkInsightsPath",
        Source=RUNNING,
        Destination=arn(f"instance-connect-endpoint/{ENDPOINT}"),
        Protocol="tcp",
        TagSpecifications=tags,
    )
    assert [(action, resource) for action, resource, _ in found] == [
        ("ec2:CreateNetworkInsightsPath", arn("network-insights-path/*")),
        ("ec2:CreateNetworkInsightsPath", arn(f"instance/{RUNNING}")),
        ("ec2:CreateNetworkInsightsPath", arn(f"instance-connect-endpoint/{ENDPOINT}")),
        ("ec2:CreateTags", arn("network-insights-path/*")),
    ]
    assert found[0][2]["aws:RequestTag/k"] == ("v",)
    found = asks(small_world(), "StartNetworkInsightsAnalysis", NetworkInsightsPathId=PATH)
    assert found[:2] == [
        ("ec2:StartNetworkInsightsAnalysis", arn("network-insights-analysis/*"), {"ec2:Region": ("us-east-1",)}),
        ("ec2:StartNetworkInsightsAnalysis", arn(f"network-insights-path/{PATH}"), {"ec2:Region": ("us-east-1",)}),
    ]
    assert {action for action, resource, _ in found[2:] if resource == "*"} >= {"ec2:DescribeSecurityGroups"}


def test_tags():
    """Paths and analyses carry tags like everything else."""
    world, _ = run("CreateTags", Resources=[PATH, ANALYSIS], Tags=[{"Key": "k", "Value": "v"}])
    _, answer = run("DescribeTags", world, Filters=[{"Name": "key", "Values": ["k"]}])
    assert [one["ResourceType"] for one in answer["Tags"]] == ["network-insights-path", "network-insights-analysis"]


def test_arns_are_of_this_account():
    """Ids that a way can have, and others."""
    world = small_world()
    assert arn_of(world, SUBNET) == arn(f"subnet/{SUBNET}")
    assert arn_of(world, "igw-1") == ""
