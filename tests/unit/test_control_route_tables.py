"""Route tables and routes: main tables, associations, states, what goes with a VPC or subnet, what IAM is asked.

(Refusals stand with peering's in tests/golden.)"""

import ipaddress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.net_world import MODEL, asks, number, run, run_with
from tests.unit.peering_world import (
    ACCOUNT,
    ACTIVE,
    ASSOCIATION_A2,
    BACK,
    EMPTY_A,
    MAIN_A,
    MAIN_ASSOCIATION_A,
    MAIN_B,
    PENDING,
    SUBNET_A,
    SUBNET_A2,
    SUBNET_B,
    TABLE_A,
    TABLE_B,
    A,
    B,
    D,
    small_world,
)
from wicketgate.control import operations
from wicketgate.control.common import Quotas
from wicketgate.model import ApiError, Route, World

ACTIONS = {
    "CreateRouteTable",
    "DeleteRouteTable",
    "DescribeRouteTables",
    "AssociateRouteTable",
    "DisassociateRouteTable",
    "ReplaceRouteTableAssociation",
    "CreateRoute",
    "ReplaceRoute",
    "DeleteRoute",
}
ARN = f"arn:aws:ec2:us-east-1:{ACCOUNT}:"
LOCAL = {"GatewayId": "local", "Origin": "CreateRouteTable", "State": "active"}
TO_B = {"VpcPeeringConnectionId": ACTIVE, "Origin": "CreateRoute", "State": "active"}


def test_actions_offered():
    """Every action of the family is offered under its name in the service model."""
    assert {("ec2", name) for name in ACTIONS} <= set(operations())
    assert set(MODEL.operation_names) >= ACTIONS


def shown(world, table_id):
    """The table as DescribeRouteTables shows it."""
    (one,) = run(world, "DescribeRouteTables", RouteTableIds=[table_id])[1]["RouteTables"]
    return one


def listed(world, **values):
    """Ids of the tables that pass filters: `vpc_id="vpc-..."` is the filter vpc-id, `__` stands for a dot."""
    named = {name.replace("__", ".").replace("_", "-"): value for name, value in values.items()}
    asked = [{"Name": name, "Values": [value]} for name, value in named.items()]
    answer = run(world, "DescribeRouteTables", **({"Filters": asked} if asked else {}))[1]
    return {one["RouteTableId"] for one in answer["RouteTables"]}


def refused(world, action, **parameters):
    """The code that a call is refused with."""
    with pytest.raises(ApiError) as caught:
        run(world, action, **parameters)
    return caught.value.code


# -- main tables -------------------------------------------------------------------------------------------------------


def test_main_table_of_a_vpc_that_never_changed_it():
    """It is there under an id that stays, holds the local routes, and is not kept."""
    assert shown(small_world(), MAIN_A) == {
        "RouteTableId": MAIN_A,
        "VpcId": A,
        "OwnerId": ACCOUNT,
        "Associations": [
            {
                "Main": True,
                "RouteTableAssociationId": MAIN_ASSOCIATION_A,
                "RouteTableId": MAIN_A,
                "AssociationState": {"State": "associated"},
            }
        ],
        "PropagatingVgws": [],
        "Routes": [
            {"DestinationCidrBlock": "10.0.0.0/16", **LOCAL},
            {"DestinationIpv6CidrBlock": "2001:db8:a::/56", **LOCAL},
        ],
        "Tags": [],
    }
    assert len(listed(small_world())) == len(small_world().route_tables) + len(small_world().vpcs)


@pytest.mark.parametrize(
    ("action", "parameters"),
    [
        ("CreateRoute", {"DestinationCidrBlock": "10.1.0.0/16", "VpcPeeringConnectionId": ACTIVE}),
        ("AssociateRouteTable", {"SubnetId": SUBNET_A}),
    ],
)
def test_a_changed_main_table_is_kept(action, parameters):
    """Under the same id, still the main one and the only one."""
    world, _ = run(small_world(), action, RouteTableId=MAIN_A, **parameters)
    kept = world.route_table(MAIN_A)
    assert (kept.main, kept.vpc_id) == (True, A)
    assert listed(world) == listed(small_world())
    assert listed(world, vpc_id=A, association__main="true") == {MAIN_A}


def test_tags_of_main_tables():
    """Tags keep the table, too."""
    world, _ = run(small_world(), "CreateTags", Resources=[MAIN_A, TABLE_A], Tags=[{"Key": "k", "Value": "v"}])
    assert listed(world, tag_key="k") == {MAIN_A, TABLE_A}
    assert world.route_table(MAIN_A).main
    _, answer = run(world, "DescribeTags", Filters=[{"Name": "key", "Values": ["k"]}])
    assert {tag["ResourceType"] for tag in answer["Tags"]} == {"route-table"}


def test_another_main_table():
    """All that follows the main table follows the other one; the old one may then be deleted, and stays away."""
    replace = {"AssociationId": MAIN_ASSOCIATION_A, "RouteTableId": EMPTY_A}
    world, answer = run(small_world(), "ReplaceRouteTableAssociation", **replace)
    assert answer["NewAssociationId"] != MAIN_ASSOCIATION_A
    assert [one["Main"] for one in shown(world, EMPTY_A)["Associations"]] == [True]
    assert shown(world, MAIN_A)["Associations"] == []
    assert refused(world, "DeleteRouteTable", RouteTableId=EMPTY_A) == "DependencyViolation"
    world, _ = run(world, "DeleteRouteTable", RouteTableId=MAIN_A)
    assert listed(world, vpc_id=A) == {TABLE_A, EMPTY_A}
    assert refused(world, "DescribeRouteTables", RouteTableIds=[MAIN_A]) == "InvalidRouteTableID.NotFound"
    again = {"AssociationId": answer["NewAssociationId"], "RouteTableId": EMPTY_A}
    assert run(world, "ReplaceRouteTableAssociation", **again)[0] == world


# -- tables and associations -------------------------------------------------------------------------------------------


def test_create_and_delete():
    """A new table has the local routes, the tags given and no association."""
    tags = [{"ResourceType": "route-table", "Tags": [{"Key": "Name", "Value": "n"}]}]
    world, answer = run(small_world(), "CreateRouteTable", VpcId=B, TagSpecifications=tags, ClientToken="t")
    made = answer["RouteTable"]
    assert answer["ClientToken"] == "t"
    assert (made["Routes"], made["Associations"]) == ([{"DestinationCidrBlock": "10.1.0.0/16", **LOCAL}], [])
    assert made["Tags"] == [{"Key": "Name", "Value": "n"}]
    assert shown(world, made["RouteTableId"]) == made
    world, _ = run(world, "DeleteRouteTable", RouteTableId=made["RouteTableId"])
    assert world.route_tables == small_world().route_tables


def test_associations():
    """A subnet is associated once; the association's id finds it, and is another with another table."""
    world, answer = run(small_world(), "AssociateRouteTable", RouteTableId=EMPTY_A, SubnetId=SUBNET_A)
    one = answer["AssociationId"]
    assert answer["AssociationState"] == {"State": "associated"}
    assert run(world, "AssociateRouteTable", RouteTableId=EMPTY_A, SubnetId=SUBNET_A) == (world, answer)
    assert listed(world, association__route_table_association_id=one) == {EMPTY_A}
    world, answer = run(world, "ReplaceRouteTableAssociation", AssociationId=one, RouteTableId=TABLE_A)
    assert answer["NewAssociationId"] not in (one, ASSOCIATION_A2)
    assert world.route_table(TABLE_A).subnet_ids == (SUBNET_A2, SUBNET_A)
    assert world.route_table(EMPTY_A).subnet_ids == ()
    assert refused(world, "DisassociateRouteTable", AssociationId=one) == "InvalidAssociationID.NotFound"
    world, _ = run(world, "DisassociateRouteTable", AssociationId=answer["NewAssociationId"])
    assert world.route_table(TABLE_A).subnet_ids == (SUBNET_A2,)


def test_replaced_by_the_same():
    """Nothing changes."""
    same = {"AssociationId": ASSOCIATION_A2, "RouteTableId": TABLE_A}
    world, answer = run(small_world(), "ReplaceRouteTableAssociation", **same)
    assert (world, answer["NewAssociationId"]) == (small_world(), ASSOCIATION_A2)


def test_quota_of_tables():
    """The main table counts, kept or not."""
    with pytest.raises(ApiError) as caught:
        run_with(small_world(), "CreateRouteTable", {"quotas": Quotas(route_tables_per_vpc=3)}, VpcId=A)
    assert caught.value.code == "RouteTableLimitExceeded"
    run_with(small_world(), "CreateRouteTable", {"quotas": Quotas(route_tables_per_vpc=4)}, VpcId=A)


def test_a_subnet_leaves_its_table():
    """A deleted subnet's association is gone, the table stays."""
    world, _ = run(small_world(), "DeleteSubnet", SubnetId=SUBNET_A2)
    assert world.route_table(TABLE_A).subnet_ids == ()
    world, _ = run(world, "DeleteSubnet", SubnetId=SUBNET_A)
    assert world.route_table(TABLE_A).routes == small_world().route_table(TABLE_A).routes


def test_a_vpc_and_its_tables():
    """Other tables keep a VPC; its main one, kept or not, goes with it."""
    world = small_world()
    world = msgspec.structs.replace(world, groups=world.groups[:2])
    world, answer = run(world, "CreateRouteTable", VpcId=D)
    table = answer["RouteTable"]["RouteTableId"]
    assert refused(world, "DeleteVpc", VpcId=D) == "DependencyViolation"
    (main,) = listed(world, vpc_id=D, association__main="true")
    old = shown(world, main)["Associations"][0]["RouteTableAssociationId"]
    world, _ = run(world, "ReplaceRouteTableAssociation", AssociationId=old, RouteTableId=table)
    world, _ = run(world, "DeleteRouteTable", RouteTableId=main)
    world, _ = run(world, "DeleteVpc", VpcId=D)
    assert [one for one in world.route_tables if one.vpc_id == D] == []
    assert listed(world, vpc_id=D) == set()


# -- routes ------------------------------------------------------------------------------------------------------------


def test_routes():
    """Made canonical, shown after the local ones in the order they were made; replaced in place, deleted by either
    spelling."""
    world, answer = run(
        small_world(),
        "CreateRoute",
        RouteTableId=EMPTY_A,
        DestinationCidrBlock="10.1.2.3/16",
        VpcPeeringConnectionId=ACTIVE,
    )
    assert answer == {"Return": True}
    six = {"DestinationIpv6CidrBlock": "2001:DB8:B:0::/56"}
    world, _ = run(world, "CreateRoute", RouteTableId=EMPTY_A, **six, GatewayId=PENDING)
    assert shown(world, EMPTY_A)["Routes"][2:] == [
        {"DestinationCidrBlock": "10.1.0.0/16", **TO_B},
        {
            "DestinationIpv6CidrBlock": "2001:db8:b::/56",
            "VpcPeeringConnectionId": PENDING,
            "Origin": "CreateRoute",
            "State": "blackhole",
        },
    ]
    change = {"RouteTableId": EMPTY_A, "DestinationCidrBlock": "10.1.0.0/16"}
    world, answer = run(world, "ReplaceRoute", **change, VpcPeeringConnectionId=BACK)
    assert answer == {}
    assert world.route_table(EMPTY_A).routes[0] == Route(destination="10.1.0.0/16", peering_id=BACK)
    world, _ = run(world, "DeleteRoute", RouteTableId=EMPTY_A, DestinationCidrBlock="10.1.9.9/16")
    world, _ = run(world, "DeleteRoute", RouteTableId=EMPTY_A, **six)
    assert world.route_table(EMPTY_A).routes == ()


def test_the_same_route_again():
    """It is there already: nothing changes."""
    same = {"DestinationCidrBlock": "10.1.0.0/16", "VpcPeeringConnectionId": ACTIVE}
    world, answer = run(small_world(), "CreateRoute", RouteTableId=TABLE_A, **same)
    assert (world, answer) == (small_world(), {"Return": True})


def test_local_target():
    """A local route is local: asking for it changes nothing."""
    local = {"DestinationCidrBlock": "10.0.0.0/16", "LocalTarget": True}
    assert run(small_world(), "ReplaceRoute", RouteTableId=TABLE_A, **local) == (small_world(), {})


def test_a_wider_destination_than_the_vpc():
    """Everything may lead to a peer: what is local stays local."""
    wide = {"DestinationCidrBlock": "0.0.0.0/0", "VpcPeeringConnectionId": ACTIVE}
    world, _ = run(small_world(), "CreateRoute", RouteTableId=EMPTY_A, **wide)
    assert listed(world, route__destination_cidr_block="0.0.0.0/0") == {EMPTY_A}


def test_blackhole():
    """A route dies with its connection and stays; one over a connection that pends lives when that is accepted."""
    world, _ = run(small_world(), "DeleteVpcPeeringConnection", VpcPeeringConnectionId=ACTIVE)
    assert shown(world, TABLE_A)["Routes"][2]["State"] == "blackhole"
    assert listed(world, route__state="blackhole") == {TABLE_A}
    forgotten = msgspec.structs.replace(world, peerings=())
    assert shown(forgotten, TABLE_A)["Routes"][2] == {
        "DestinationCidrBlock": "10.1.0.0/16",
        **TO_B,
        "State": "blackhole",
    }
    change = {"RouteTableId": TABLE_A, "DestinationCidrBlock": "10.1.0.0/16"}
    world, _ = run(world, "ReplaceRoute", **change, VpcPeeringConnectionId=BACK)
    world, _ = run(world, "AcceptVpcPeeringConnection", VpcPeeringConnectionId=BACK)
    assert shown(world, TABLE_A)["Routes"][2]["State"] == "active"


def test_quota_of_routes():
    """For each family."""
    settings = {"quotas": Quotas(routes_per_table=1)}
    route = {"RouteTableId": TABLE_A, "VpcPeeringConnectionId": ACTIVE}
    with pytest.raises(ApiError) as caught:
        run_with(small_world(), "CreateRoute", settings, **route, DestinationCidrBlock="10.2.0.0/16")
    assert caught.value.code == "RouteLimitExceeded"
    run_with(small_world(), "CreateRoute", settings, **route, DestinationIpv6CidrBlock="2001:db8::/32")


@given(st.ip_addresses(v=4), st.integers(0, 32))
def test_any_destination(address, length):
    """A destination is refused exactly when it lies in the VPC or where the services of a link are."""
    network = ipaddress.IPv4Network((int(address), length), strict=False)
    closed = [ipaddress.IPv4Network(one) for one in ("10.0.0.0/16", "169.254.168.0/22")]
    asked = {"DestinationCidrBlock": f"{address}/{length}", "VpcPeeringConnectionId": ACTIVE, "RouteTableId": EMPTY_A}
    if any(network.subnet_of(one) for one in closed):
        assert refused(small_world(), "CreateRoute", **asked) == "InvalidParameterValue"
    else:
        world, _ = run(small_world(), "CreateRoute", **asked)
        assert world.route_table(EMPTY_A).routes == (Route(destination=str(network), peering_id=ACTIVE),)


# -- describe ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("association.main", "false", {TABLE_A}),
        ("association.route-table-association-id", ASSOCIATION_A2, {TABLE_A}),
        ("association.route-table-id", TABLE_A, {TABLE_A}),
        ("association.route-table-id", EMPTY_A, set()),
        ("association.subnet-id", SUBNET_A2, {TABLE_A}),
        ("association.gateway-id", "*", set()),
        ("route.destination-cidr-block", "10.1.0.0/16", {TABLE_A, TABLE_B, MAIN_B}),
        ("route.destination-ipv6-cidr-block", "2001:*", {TABLE_A, EMPTY_A, MAIN_A}),
        ("route.vpc-peering-connection-id", ACTIVE, {TABLE_A}),
        ("route.origin", "CreateRoute", {TABLE_A}),
        ("route.nat-gateway-id", "*", set()),
        ("vpc-id", B, {TABLE_B, MAIN_B}),
        ("route-table-id", TABLE_B, {TABLE_B}),
    ],
)
def test_filters(name, value, expected):
    """Each filter finds what the answers show."""
    _, answer = run(small_world(), "DescribeRouteTables", Filters=[{"Name": name, "Values": [value]}])
    assert {one["RouteTableId"] for one in answer["RouteTables"]} == expected


def test_gateway_and_owner_filters():
    """Every table has a local route and the one owner."""
    assert listed(small_world(), route__gateway_id="local", owner_id=ACCOUNT) == listed(small_world())


# -- what IAM is asked -------------------------------------------------------------------------------------------------

TABLE_CONTEXT = {
    "ec2:Region": ("us-east-1",),
    "ec2:RouteTableID": (TABLE_A,),
    "ec2:Vpc": (f"{ARN}vpc/{A}",),
}


@pytest.mark.parametrize("action", ["DeleteRouteTable", "CreateRoute", "ReplaceRoute", "DeleteRoute"])
def test_actions_on_a_table_ask(action):
    """The table alone."""
    assert asks(small_world(), action, RouteTableId=TABLE_A) == [
        (f"ec2:{action}", f"{ARN}route-table/{TABLE_A}", TABLE_CONTEXT)
    ]


def resources_asked(action, **parameters):
    """The resources without the ARN's beginning."""
    return [resource.removeprefix(ARN) for _, resource, _ in asks(small_world(), action, **parameters)]


def test_create_asks():
    """The table to be made, its VPC, and CreateTags for tags."""
    tags = [{"ResourceType": "route-table", "Tags": [{"Key": "k", "Value": "v"}]}]
    asked = resources_asked("CreateRouteTable", VpcId=A, TagSpecifications=tags)
    assert asked == ["route-table/*", f"vpc/{A}", "route-table/*"]


def test_association_asks():
    """Each table and subnet that is concerned; for an unknown association no table's name will do."""
    both = {"RouteTableId": EMPTY_A, "SubnetId": SUBNET_B}
    assert resources_asked("AssociateRouteTable", **both) == [f"route-table/{EMPTY_A}", f"subnet/{SUBNET_B}"]
    of_subnet = {"AssociationId": ASSOCIATION_A2}
    assert resources_asked("DisassociateRouteTable", **of_subnet) == [f"route-table/{TABLE_A}", f"subnet/{SUBNET_A2}"]
    assert resources_asked("ReplaceRouteTableAssociation", **of_subnet, RouteTableId=EMPTY_A) == [
        f"route-table/{TABLE_A}",
        f"route-table/{EMPTY_A}",
        f"subnet/{SUBNET_A2}",
    ]
    assert resources_asked("ReplaceRouteTableAssociation", AssociationId=MAIN_ASSOCIATION_A, RouteTableId=MAIN_A) == [
        f"route-table/{MAIN_A}"
    ]
    unknown = f"rtbassoc-{number('9')}"
    assert resources_asked("DisassociateRouteTable", AssociationId=unknown) == ["route-table/*"]


def test_an_empty_world_has_no_tables():
    """Tables are there for VPCs alone."""
    assert run(World(), "DescribeRouteTables")[1] == {"RouteTables": []}
