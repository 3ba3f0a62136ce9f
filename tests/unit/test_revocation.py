"""Which connections a change may concern, where they are, and what a tracked connection is in terms of the World."""

import msgspec
import pytest

from tests.net.worlds import CLIENT, VPC, rule, sg, world
from wicketgate.kernel.conntrack import Direction, Entry
from wicketgate.model import Change, PrefixList, PrefixListEntry, RouteTable, Settings, Subnet, Vpc, apply_change
from wicketgate.model.routing import VpcPeeringConnection
from wicketgate.netd.flows import Reading
from wicketgate.netd.revocation import FEW, Touched, concerned, touched
from wicketgate.rules import endpoint_mark

GROUPS = {"endpoint": [], "web": [rule("in", "tcp", (80, 80), "10.0.0.0/16")], "db": []}
MEMBERS = {"web-1": ["web"], "web-2": ["web"], "db-1": ["db", "web"], "none": ["endpoint"]}
ENDPOINT_ENI, WEB_1, WEB_2, DB_1, NONE = (f"eni-000000000000000{number}" for number in (10, 11, 12, 13, 14))
BASE = world(GROUPS, MEMBERS)
OTHER = "vpc-00000000000000002"


def after(*puts, before=BASE):
    """The World after a Change."""
    return apply_change(before, Change(puts=puts))


def test_a_groups_rules_concern_its_members():
    """And nobody else."""
    changed = after(msgspec.structs.replace(BASE.group(sg("web")), rules=()))
    assert touched(BASE, changed) == Touched(frozenset({WEB_1, WEB_2, DB_1}))


def test_an_interfaces_groups_concern_it_alone():
    """Both the one that loses a group and the one that gets it."""
    changed = after(msgspec.structs.replace(BASE.interface(NONE), group_ids=(sg("db"),)))
    assert touched(BASE, changed) == Touched(frozenset({NONE}))


def test_a_prefix_lists_entries_concern_whose_rules_name_it():
    """By the list's id in a rule."""
    made = PrefixList(id="pl-00000000000000001", name="l", address_family="IPv4", max_entries=5)
    listed = msgspec.structs.replace(rule("in", "tcp", (1, 1), "10.0.0.0/8"), cidr_ipv4=None, prefix_list_id=made.id)
    before = after(made, msgspec.structs.replace(BASE.group(sg("db")), rules=(listed,)))
    changed = after(msgspec.structs.replace(made, entries=(PrefixListEntry(cidr="10.0.0.0/8"),)), before=before)
    assert touched(before, changed) == Touched(frozenset({DB_1}))


@pytest.mark.parametrize(
    "put",
    [Settings(revocation="immediate"), msgspec.structs.replace(BASE.vpcs[0], tags={"wicketgate:revocation": "aws"})],
)
def test_what_says_when_to_cut_concerns_everything(put):
    """The setting, and the tag of a VPC."""
    assert touched(BASE, after(put)).everything


@pytest.mark.parametrize(
    "put",
    [
        VpcPeeringConnection(id="pcx-1", requester_vpc_id=VPC, accepter_vpc_id=OTHER, link="pcx-1", status="deleted"),
        RouteTable(id="rtb-1", vpc_id=VPC, main=True),
        msgspec.structs.replace(BASE.subnets[0], cidr_block="10.0.0.0/20"),
    ],
)
def test_ways_concern_everything(put):
    """Peering connections, routes and subnets: a flow may have lost its way, wherever it is."""
    assert touched(BASE, after(put)).everything


def test_nothing_is_concerned_by_what_decides_nothing():
    """An endpoint's tags, an instance's state."""
    changed = after(
        msgspec.structs.replace(BASE.endpoints[0], tags={"a": "b"}),
        msgspec.structs.replace(BASE.instances[0], state="stopping"),
    )
    assert touched(BASE, changed) == Touched()


def test_where_concerned_connections_are():
    """In VPCs with immediate revocation: that of the interface, and those that are peered with it."""
    two = after(
        Vpc(id=OTHER, cidr_block="10.9.0.0/16"),
        Subnet(id="subnet-00000000000000009", vpc_id=OTHER, cidr_block="10.9.1.0/24"),
        Settings(revocation="immediate"),
    )
    what = Touched(frozenset({WEB_1}))
    assert concerned(BASE, what) == []
    assert concerned(two, what) == [VPC]
    peering = VpcPeeringConnection(
        id="pcx-1", requester_vpc_id=OTHER, accepter_vpc_id=VPC, link="pcx-1", status="active"
    )
    assert concerned(after(peering, before=two), what) == [VPC, OTHER]
    assert concerned(two, Touched()) == []
    assert concerned(two, Touched(everything=True)) == [VPC, OTHER]
    calm = after(msgspec.structs.replace(two.vpc(VPC), tags={"wicketgate:revocation": "aws"}), before=two)
    assert concerned(calm, what) == []


def test_addresses_to_look_for():
    """Few interfaces are looked for by their addresses; an endpoint not, whose packets may bear a client's."""
    assert Touched(frozenset({WEB_1, DB_1})).addresses(BASE) in (["10.0.1.11", "10.0.1.13"], ["10.0.1.13", "10.0.1.11"])
    assert Touched(frozenset({WEB_1, ENDPOINT_ENI})).addresses(BASE) is None
    assert Touched(everything=True).addresses(BASE) is None
    assert Touched(frozenset(map(str, range(FEW + 1)))).addresses(BASE) is None


def entry(source, destination, *, protocol=6, mark=0, **more):
    """A tracked connection."""
    first = Direction(source, destination, **more)
    return Entry(id=1, protocol=protocol, original=first, reply=Direction(destination, source), mark=mark)


def test_flows_are_read_by_address_and_mark():
    """Ports for TCP and UDP, type and code for ICMP, neither for others; an endpoint by its mark, whatever it bears."""
    reading = Reading(BASE, VPC)
    flow = reading.flow(entry("10.0.1.11", "10.0.1.12", source_port=4000, destination_port=80))
    assert (flow.sender.id, flow.receiver.id, flow.protocol, flow.port) == (WEB_1, WEB_2, 6, 80)
    flow = reading.flow(entry("10.0.1.11", "10.0.1.12", protocol=1, icmp_type=8, icmp_code=1, icmp_id=7))
    assert (flow.port, flow.code) == (8, 1)
    assert reading.flow(entry("10.0.1.11", "10.0.1.12", protocol=47, destination_port=5)).port == 0
    mark = endpoint_mark(BASE.endpoints[0])
    flow = reading.flow(entry(CLIENT, "10.0.1.11", mark=mark | 3, destination_port=22))
    assert (flow.sender.id, flow.source_address) == (ENDPOINT_ENI, CLIENT)


@pytest.mark.parametrize(
    ("source", "destination"),
    [("10.0.1.11", "169.254.169.254"), (CLIENT, "10.0.1.11"), ("10.0.1.99", "10.0.1.11"), ("10.0.1.11", "10.0.1.99")],
)
def test_ends_that_are_nobodys(source, destination):
    """The router itself, a client without an endpoint's mark, addresses that no interface has."""
    assert Reading(BASE, VPC).flow(entry(source, destination, destination_port=22)) is None
