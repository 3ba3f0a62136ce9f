"""IPv6 ranges, further addresses and interfaces, idle time-outs: every refusal, what is made, what IAM is asked."""

import ipaddress
from itertools import combinations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.address_world import (
    ALONE,
    DUAL,
    ENDPOINT_ENI,
    FIRST,
    FOUR,
    FOUR_ENI,
    FREE,
    FURTHER,
    NATIVE,
    NATIVE_ENI,
    ONE,
    OTHER_ENI,
    OTHER_VPC,
    RANGE,
    SIX,
    TWO,
    VPC,
    WEB,
    address_world,
)
from tests.unit.net_world import (
    ENDPOINT,
    IMAGE,
    MODEL,
    NOW,
    asks,
    check_refusal,
    golden_errors,
    run,
    run_with,
    settled,
)
from wicketgate.control import addresses, operations
from wicketgate.control.common import Quotas
from wicketgate.control.endpoints import EndpointQuotas
from wicketgate.model import ApiError, Settings, Subnet, Vpc, World

ACTIONS = {
    "AssociateVpcCidrBlock",
    "DisassociateVpcCidrBlock",
    "AssociateSubnetCidrBlock",
    "DisassociateSubnetCidrBlock",
    "AssignPrivateIpAddresses",
    "UnassignPrivateIpAddresses",
    "AssignIpv6Addresses",
    "UnassignIpv6Addresses",
    "AttachNetworkInterface",
    "DetachNetworkInterface",
}
POOL = "ipv6pool-ec2-00000000000000001"
ONE_MACHINE = {"ImageId": IMAGE, "MinCount": 1, "MaxCount": 1}
LARGE = Quotas(vpcs_per_region=100)
MANY = {"quotas": EndpointQuotas(endpoints_per_region=9, endpoints_per_vpc=9, endpoints_per_subnet=9)}


def refused(world, action, **parameters):
    """The code and words that the call is refused with."""
    with pytest.raises(ApiError) as caught:
        run(world, action, **parameters)
    return caught.value.code, str(caught.value)


def only(answer, member):
    """The one item of an answer."""
    (item,) = answer[member]
    return item


def shown_interface(world, eni):
    """The interface as DescribeNetworkInterfaces shows it."""
    return only(run(world, "DescribeNetworkInterfaces", NetworkInterfaceIds=[eni])[1], "NetworkInterfaces")


def shown_instance(world, instance):
    """The instance as DescribeInstances shows it."""
    (reservation,) = run(world, "DescribeInstances", InstanceIds=[instance])[1]["Reservations"]
    return only(reservation, "Instances")


def test_actions_offered():
    """Every action of the family is offered under its name in the service model."""
    assert {("ec2", name) for name in ACTIONS} <= set(operations())
    assert set(MODEL.operation_names) >= ACTIONS


@golden_errors("addresses")
def test_refusal(error):
    """A bad call is refused with the code and words that the golden file has."""
    check_refusal(error, address_world())


# -- ranges of VPCs ----------------------------------------------------------------------------------------------------


def test_provided_ranges_are_unique_local_and_apart():
    """Each VPC that asks gets a /56 of fd00::/8 (RFC 4193) of its own, never in the metadata service's range."""
    world = World()
    for _ in range(40):
        world, _ = run_with(
            world, "CreateVpc", {"quotas": LARGE}, CidrBlock="10.0.0.0/16", AmazonProvidedIpv6CidrBlock=True
        )
    ranges = [ipaddress.IPv6Network(text) for vpc in world.vpcs for text in vpc.ipv6_cidr_blocks]
    assert len(ranges) == 40
    assert {one.prefixlen for one in ranges} == {56}
    assert all(one.subnet_of(ipaddress.IPv6Network("fd00::/8")) for one in ranges)
    assert not any(one.overlaps(ipaddress.IPv6Network("fd00:ec2::/32")) for one in ranges)
    assert not any(one.overlaps(other) for one, other in combinations(ranges, 2))


def test_a_provided_range_comes_back():
    """A VPC that gives its range back and asks again gets the same, unless another VPC has taken it since."""
    world, _ = run(address_world(), "AssociateVpcCidrBlock", VpcId=OTHER_VPC, AmazonProvidedIpv6CidrBlock=True)
    (first,) = world.vpc(OTHER_VPC).ipv6_cidr_blocks
    vpc = only(run(world, "DescribeVpcs", VpcIds=[OTHER_VPC])[1], "Vpcs")
    association = only(vpc, "Ipv6CidrBlockAssociationSet")["AssociationId"]
    world, gone = run(world, "DisassociateVpcCidrBlock", AssociationId=association)
    assert gone["Ipv6CidrBlockAssociation"]["Ipv6CidrBlockState"] == {"State": "disassociated"}
    again, _ = run(world, "AssociateVpcCidrBlock", VpcId=OTHER_VPC, AmazonProvidedIpv6CidrBlock=True)
    assert again.vpc(OTHER_VPC).ipv6_cidr_blocks == (first,)
    world, _ = run(world, "AssociateVpcCidrBlock", VpcId=VPC, Ipv6Pool=POOL, Ipv6CidrBlock=first)
    other, _ = run(world, "AssociateVpcCidrBlock", VpcId=OTHER_VPC, AmazonProvidedIpv6CidrBlock=True)
    (second,) = other.vpc(OTHER_VPC).ipv6_cidr_blocks
    assert not ipaddress.IPv6Network(second).overlaps(ipaddress.IPv6Network(first))


def test_a_new_vpc_with_ipv6():
    """Its range is shown with the pool it is of; its default group lets out both families, in one permission."""
    world, answer = run(World(), "CreateVpc", CidrBlock="10.0.0.0/16", AmazonProvidedIpv6CidrBlock=True)
    association = only(answer["Vpc"], "Ipv6CidrBlockAssociationSet")
    assert association["Ipv6CidrBlockState"] == {"State": "associated"}
    assert (association["Ipv6Pool"], association["NetworkBorderGroup"]) == ("Amazon", "us-east-1")
    group = only(run(world, "DescribeSecurityGroups")[1], "SecurityGroups")
    everything = only(group, "IpPermissionsEgress")
    assert (everything["IpRanges"], everything["Ipv6Ranges"]) == ([{"CidrIp": "0.0.0.0/0"}], [{"CidrIpv6": "::/0"}])


def test_an_operators_range():
    """It is made canonical, and shown as of the pool."""
    world, answer = run(
        World(), "CreateVpc", CidrBlock="10.0.0.0/16", Ipv6CidrBlock="2001:DB8:0:12::9/48", Ipv6Pool=POOL
    )
    association = only(answer["Vpc"], "Ipv6CidrBlockAssociationSet")
    assert (association["Ipv6CidrBlock"], association["Ipv6Pool"]) == ("2001:db8::/48", POOL)
    assert world.vpcs[0].ipv6_cidr_blocks == ("2001:db8::/48",)


def test_groups_do_not_follow_a_range_that_comes_later():
    """AssociateVpcCidrBlock leaves the rules of groups alone; a group that is made after it lets out both families."""
    world, answer = run(address_world(), "AssociateVpcCidrBlock", VpcId=OTHER_VPC, AmazonProvidedIpv6CidrBlock=True)
    assert answer["VpcId"] == OTHER_VPC
    assert answer["Ipv6CidrBlockAssociation"]["Ipv6CidrBlock"] == world.vpc(OTHER_VPC).ipv6_cidr_blocks[0]
    assert world.groups == address_world().groups
    world, _ = run(world, "CreateSecurityGroup", VpcId=OTHER_VPC, GroupName="new", Description="d")
    assert [rule.peer for rule in world.groups[-1].outbound] == ["0.0.0.0/0", "::/0"]


def test_ranges_of_a_vpc_are_limited():
    """One that is provided, five in all."""
    world, _ = run(address_world(), "AssociateVpcCidrBlock", VpcId=VPC, AmazonProvidedIpv6CidrBlock=True)
    too_many = "CidrLimitExceeded", f"This network '{VPC}' has met its maximum number of allowed CIDRs: "
    again = refused(world, "AssociateVpcCidrBlock", VpcId=VPC, AmazonProvidedIpv6CidrBlock=True)
    assert again == (too_many[0], too_many[1] + "1")
    for number in range(3):
        parameters = {"Ipv6Pool": POOL, "Ipv6CidrBlock": f"2001:db8:{number}::/56"}
        world, _ = run(world, "AssociateVpcCidrBlock", VpcId=VPC, **parameters)
    sixth = refused(world, "AssociateVpcCidrBlock", VpcId=VPC, Ipv6Pool=POOL, Ipv6CidrBlock="2001:db8:9::/56")
    assert sixth == (too_many[0], too_many[1] + "5")


def test_a_range_in_use_stays():
    """A VPC keeps its IPv4 range always, an IPv6 range while a subnet is within it."""
    vpc = only(run(address_world(), "DescribeVpcs", VpcIds=[VPC])[1], "Vpcs")
    four = only(vpc, "CidrBlockAssociationSet")["AssociationId"]
    six = only(vpc, "Ipv6CidrBlockAssociationSet")["AssociationId"]
    assert refused(address_world(), "DisassociateVpcCidrBlock", AssociationId=four) == (
        "OperationNotPermitted",
        f"The vpc CIDR block with association ID {four} may not be disassociated. "
        "It is the primary IPv4 CIDR block of the VPC",
    )
    assert refused(address_world(), "DisassociateVpcCidrBlock", AssociationId=six) == (
        "InvalidCidrBlock.InUse",
        f"The vpc {VPC} currently has a subnet within CIDR block {RANGE}",
    )


@pytest.mark.parametrize(
    ("kind", "name", "value", "expected"),
    [
        ("Vpc", "ipv6-cidr-block-association.ipv6-cidr-block", RANGE, {VPC}),
        ("Vpc", "ipv6-cidr-block-association.ipv6-pool", POOL, {VPC}),
        ("Vpc", "ipv6-cidr-block-association.state", "associated", {VPC}),
        ("Subnet", "ipv6-native", "true", {NATIVE}),
        ("Subnet", "cidr-block", "10.0.1.0/24", {DUAL}),
        ("Subnet", "ipv6-cidr-block-association.ipv6-cidr-block", f"{SIX}/64", {DUAL}),
        ("Subnet", "ipv6-cidr-block-association.state", "associated", {DUAL, NATIVE}),
        ("Subnet", "private-dns-name-options-on-launch.hostname-type", "resource-name", {NATIVE}),
    ],
)
def test_filters_of_ranges(kind, name, value, expected):
    """Each filter picks the VPCs or subnets that have the value."""
    _, answer = run(address_world(), f"Describe{kind}s", Filters=[{"Name": name, "Values": [value]}])
    assert {one[f"{kind}Id"] for one in answer[f"{kind}s"]} == expected


def test_filters_by_association():
    """Associations are found by the ids that they are shown with."""
    for action, member, name in (
        ("DescribeVpcs", "Vpcs", "vpc"),
        ("DescribeSubnets", "Subnets", "subnet"),
    ):
        everything = run(address_world(), action)[1][member]
        with_ipv6 = [one for one in everything if one["Ipv6CidrBlockAssociationSet"]]
        assert len(with_ipv6) == (1 if name == "vpc" else 2)
        for one in with_ipv6:
            wanted = one["Ipv6CidrBlockAssociationSet"][0]["AssociationId"]
            assert wanted.startswith(f"{name}-cidr-assoc-")
            filters = [{"Name": "ipv6-cidr-block-association.association-id", "Values": [wanted]}]
            assert run(address_world(), action, Filters=filters)[1][member] == [one]


# -- ranges of subnets -------------------------------------------------------------------------------------------------


def test_subnets_of_both_kinds():
    """A dual-stack subnet shows both ranges; an IPv6-only one has no IPv4 and gives each interface an address."""
    world, answer = run(
        address_world(), "CreateSubnet", VpcId=VPC, CidrBlock="10.0.9.0/24", Ipv6CidrBlock="fd12:3456:789a:9::1/64"
    )
    subnet = answer["Subnet"]
    association = only(subnet, "Ipv6CidrBlockAssociationSet")
    assert (association["Ipv6CidrBlock"], subnet["CidrBlock"]) == ("fd12:3456:789a:9::/64", "10.0.9.0/24")
    assert association["Ipv6CidrBlockState"] == {"State": "associated"}
    assert (subnet["Ipv6Native"], subnet["AssignIpv6AddressOnCreation"]) == (False, False)
    assert subnet["PrivateDnsNameOptionsOnLaunch"]["HostnameType"] == "ip-name"
    world, answer = run(world, "CreateSubnet", VpcId=VPC, Ipv6CidrBlock="fd12:3456:789a:a0::/60", Ipv6Native=True)
    subnet = answer["Subnet"]
    assert "CidrBlock" not in subnet
    assert (subnet["Ipv6Native"], subnet["AssignIpv6AddressOnCreation"]) == (True, True)
    assert (subnet["AvailableIpAddressCount"], subnet["PrivateDnsNameOptionsOnLaunch"]["HostnameType"]) == (
        0,
        "resource-name",
    )
    assert run(world, "DescribeSubnets", SubnetIds=[subnet["SubnetId"]])[1]["Subnets"] == [subnet]


def test_a_subnet_gets_a_range_and_gives_it_back():
    """Not while interfaces have addresses of it, nor while new ones would get some, nor in an IPv6-only subnet."""
    world, answer = run(
        address_world(), "AssociateSubnetCidrBlock", SubnetId=FOUR, Ipv6CidrBlock="fd12:3456:789a:3::/64"
    )
    association = answer["Ipv6CidrBlockAssociation"]["AssociationId"]
    may_not = f"The subnet IPv6 CIDR block with association ID {association} may not be disassociated, because"
    world, _ = run(world, "AssignIpv6Addresses", NetworkInterfaceId=FOUR_ENI, Ipv6AddressCount=1)
    assert refused(world, "DisassociateSubnetCidrBlock", AssociationId=association) == (
        "InvalidCidrBlock.InUse",
        f"{may_not} network interfaces have addresses of it.",
    )
    world, _ = run(world, "UnassignIpv6Addresses", NetworkInterfaceId=FOUR_ENI, Ipv6Addresses=["fd12:3456:789a:3::4"])
    world, _ = run(world, "ModifySubnetAttribute", SubnetId=FOUR, AssignIpv6AddressOnCreation={"Value": True})
    assert refused(world, "DisassociateSubnetCidrBlock", AssociationId=association) == (
        "InvalidCidrBlock.InUse",
        f"{may_not} its subnet has assign-ipv6-address-on-creation set to true.",
    )
    world, _ = run(world, "ModifySubnetAttribute", SubnetId=FOUR, AssignIpv6AddressOnCreation={"Value": False})
    world, answer = run(world, "DisassociateSubnetCidrBlock", AssociationId=association)
    assert answer["Ipv6CidrBlockAssociation"]["Ipv6CidrBlockState"] == {"State": "disassociated"}
    assert world.subnet(FOUR) == address_world().subnet(FOUR)
    native = only(run(world, "DescribeSubnets", SubnetIds=[NATIVE])[1], "Subnets")
    association = only(native, "Ipv6CidrBlockAssociationSet")["AssociationId"]
    assert refused(world, "DisassociateSubnetCidrBlock", AssociationId=association)[0] == "OperationNotPermitted"


# -- addresses of a new interface --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("subnet", "wish", "four", "six"),
    [
        (DUAL, {}, ["10.0.1.9"], []),
        (DUAL, {"SecondaryPrivateIpAddressCount": 2}, ["10.0.1.9", "10.0.1.10", "10.0.1.11"], []),
        (
            DUAL,
            {
                "PrivateIpAddresses": [
                    {"PrivateIpAddress": "10.0.1.10"},
                    {"PrivateIpAddress": "10.0.1.9", "Primary": True},
                ]
            },
            ["10.0.1.9", "10.0.1.10"],
            [],
        ),
        (DUAL, {"PrivateIpAddresses": [{"PrivateIpAddress": "10.0.1.9"}]}, ["10.0.1.10", "10.0.1.9"], []),
        (
            DUAL,
            {"PrivateIpAddress": "10.0.1.30", "PrivateIpAddresses": [{"PrivateIpAddress": "10.0.1.31"}]},
            ["10.0.1.30", "10.0.1.31"],
            [],
        ),
        (DUAL, {"Ipv6AddressCount": 2}, ["10.0.1.9"], [f"{SIX}6", f"{SIX}7"]),
        (
            DUAL,
            {"Ipv6Addresses": [{"Ipv6Address": "FD12:3456:789A:1:0:0:0:99"}, {"Ipv6Address": f"{SIX}6"}]},
            ["10.0.1.9"],
            [f"{SIX}99", f"{SIX}6"],
        ),
        (NATIVE, {}, [], ["fd12:3456:789a:2::5"]),
        (NATIVE, {"Ipv6AddressCount": 0}, [], ["fd12:3456:789a:2::5"]),
        (NATIVE, {"Ipv6AddressCount": 2}, [], ["fd12:3456:789a:2::5", "fd12:3456:789a:2::6"]),
    ],
)
def test_addresses_of_a_new_interface(subnet, wish, four, six):
    """Named ones, else the lowest free; the primary IPv4 address is marked, and there is none without IPv4."""
    world, answer = run(address_world(), "CreateNetworkInterface", SubnetId=subnet, **wish)
    shown = answer["NetworkInterface"]
    assert [one["PrivateIpAddress"] for one in shown["PrivateIpAddresses"]] == four
    assert [one["Primary"] for one in shown["PrivateIpAddresses"]] == [True, False, False][: len(four)]
    assert shown.get("PrivateIpAddress") == (four[0] if four else None)
    assert [one["Ipv6Address"] for one in shown["Ipv6Addresses"]] == six
    assert (shown.get("Ipv6Address"), shown.get("Ipv6Native", False)) == (six[0] if six else None, not four)
    assert world.interfaces[-1].addresses == (*four, *six)


def test_addresses_on_creation():
    """AssignIpv6AddressOnCreation gives an interface one IPv6 address, unless the call says how many, be it none."""
    world, _ = run(address_world(), "ModifySubnetAttribute", SubnetId=DUAL, AssignIpv6AddressOnCreation={"Value": True})
    assert only(run(world, "DescribeSubnets", SubnetIds=[DUAL])[1], "Subnets")["AssignIpv6AddressOnCreation"] is True
    for wish, count in (({}, 1), ({"Ipv6AddressCount": 0}, 0), ({"Ipv6AddressCount": 3}, 3)):
        made, _ = run(world, "CreateNetworkInterface", SubnetId=DUAL, **wish)
        assert len(made.interfaces[-1].ipv6_addresses) == count
        made, _ = run(world, "RunInstances", SubnetId=DUAL, **ONE_MACHINE, **wish)
        assert len(made.interfaces[-1].ipv6_addresses) == count


@given(
    prefix=st.sampled_from(range(44, 65, 4)), taken=st.sets(st.integers(0, 30), max_size=20), count=st.integers(1, 20)
)
def test_free_ipv6_addresses_are_never_reserved_nor_taken(prefix, taken, count):
    """Whatever the subnet: never one of the first four, never a taken one, lowest first."""
    network = ipaddress.IPv6Network((int(ipaddress.IPv6Address("fd12::")), prefix))
    subnet = Subnet(id="subnet-1", vpc_id="vpc-1", cidr_block="10.0.0.0/16", ipv6_cidr_block=str(network))
    template = address_world().interfaces[0]
    world = World(
        vpcs=(Vpc(id="vpc-1", cidr_block="10.0.0.0/16", ipv6_cidr_blocks=("fd12::/44",)),),
        subnets=(subnet,),
        interfaces=(
            msgspec.structs.replace(
                template, subnet_id="subnet-1", ipv6_addresses=tuple(str(network[one]) for one in sorted(taken))
            ),
        ),
    )
    expected = [one for one in range(4, 60) if one not in taken][:count]
    assert addresses.Pool(world).take(subnet, 6, count) == [str(network[one]) for one in expected]


def test_free_addresses_are_counted():
    """AvailableIpAddressCount counts secondary addresses as taken, and IPv6 ones not at all."""

    def count(world):
        return only(run(world, "DescribeSubnets", SubnetIds=[DUAL])[1], "Subnets")["AvailableIpAddressCount"]

    before = count(address_world())
    assert before == 256 - 5 - 6
    world, _ = run(
        address_world(), "AssignPrivateIpAddresses", NetworkInterfaceId=FREE, SecondaryPrivateIpAddressCount=3
    )
    world, _ = run(world, "AssignIpv6Addresses", NetworkInterfaceId=FREE, Ipv6AddressCount=3)
    assert count(world) == before - 3


# -- assign and unassign -----------------------------------------------------------------------------------------------


def test_secondary_addresses_come_and_go():
    """Assigned by count or by name, shown, found by filters, taken away; what it has already stays once."""
    world, answer = run(
        address_world(), "AssignPrivateIpAddresses", NetworkInterfaceId=FREE, SecondaryPrivateIpAddressCount=2
    )
    assert answer["AssignedPrivateIpAddresses"] == [{"PrivateIpAddress": "10.0.1.9"}, {"PrivateIpAddress": "10.0.1.10"}]
    again, answer = run(world, "AssignPrivateIpAddresses", NetworkInterfaceId=FREE, PrivateIpAddresses=["10.0.1.9"])
    assert again is world
    assert answer["AssignedPrivateIpAddresses"] == [{"PrivateIpAddress": "10.0.1.9"}]
    world, _ = run(
        world, "AssignPrivateIpAddresses", NetworkInterfaceId=FREE, PrivateIpAddresses=["10.0.1.9", "10.0.1.50"]
    )
    assert world.interface(FREE).secondary_ip_addresses == ("10.0.1.9", "10.0.1.10", "10.0.1.50")
    for name in ("addresses.private-ip-address", "private-ip-address"):
        _, found = run(world, "DescribeNetworkInterfaces", Filters=[{"Name": name, "Values": ["10.0.1.50"]}])
        assert only(found, "NetworkInterfaces")["NetworkInterfaceId"] == FREE
    world, _ = run(
        world, "UnassignPrivateIpAddresses", NetworkInterfaceId=FREE, PrivateIpAddresses=["10.0.1.9", "10.0.1.50"]
    )
    assert world.interface(FREE).addresses == ("10.0.1.7", "10.0.1.10")


def test_a_secondary_address_moves():
    """With AllowReassignment it goes from one interface to the other in one Change; neither has it twice."""
    parameters = {
        "NetworkInterfaceId": FREE,
        "PrivateIpAddresses": ["10.0.1.20", "10.0.1.21"],
        "AllowReassignment": True,
    }
    world, _ = run(address_world(), "AssignPrivateIpAddresses", **parameters)
    assert world.interface(FREE).secondary_ip_addresses == ("10.0.1.20", "10.0.1.21")
    assert world.interface(FURTHER).secondary_ip_addresses == ()
    assert world.interface_at(VPC, "10.0.1.20").id == FREE
    world.check()


def test_ipv6_addresses_come_and_go():
    """As secondary ones do; what is assigned is answered in canonical form."""
    world, answer = run(address_world(), "AssignIpv6Addresses", NetworkInterfaceId=FREE, Ipv6AddressCount=2)
    assert answer["AssignedIpv6Addresses"] == [f"{SIX}6", f"{SIX}7"]
    named = ["fd12:3456:789a:0001::0099", f"{SIX}6"]
    world, answer = run(world, "AssignIpv6Addresses", NetworkInterfaceId=FREE, Ipv6Addresses=named)
    assert answer["AssignedIpv6Addresses"] == [f"{SIX}99", f"{SIX}6"]
    assert world.interface(FREE).ipv6_addresses == (f"{SIX}6", f"{SIX}7", f"{SIX}99")
    _, found = run(
        world, "DescribeNetworkInterfaces", Filters=[{"Name": "ipv6-addresses.ipv6-address", "Values": [f"{SIX}99"]}]
    )
    assert only(found, "NetworkInterfaces")["NetworkInterfaceId"] == FREE
    world, answer = run(world, "UnassignIpv6Addresses", NetworkInterfaceId=FREE, Ipv6Addresses=[f"{SIX}6", f"{SIX}99"])
    assert answer["UnassignedIpv6Addresses"] == [f"{SIX}6", f"{SIX}99"]
    assert world.interface(FREE).ipv6_addresses == (f"{SIX}7",)


# -- several interfaces ------------------------------------------------------------------------------------------------


def test_attach_and_detach():
    """A free interface becomes one of the instance and comes back; the next attachment has another id."""
    world, answer = run(
        address_world(), "AttachNetworkInterface", InstanceId=ONE, NetworkInterfaceId=FREE, DeviceIndex=3
    )
    first = answer["AttachmentId"]
    assert answer["NetworkCardIndex"] == 0
    shown = shown_interface(world, FREE)
    assert (shown["Status"], shown["Attachment"]["InstanceId"]) == ("in-use", ONE)
    attachment = shown["Attachment"]
    assert (attachment["DeviceIndex"], attachment["DeleteOnTermination"], attachment["AttachmentId"]) == (
        3,
        False,
        first,
    )
    assert [one["Attachment"]["DeviceIndex"] for one in shown_instance(world, ONE)["NetworkInterfaces"]] == [0, 3]
    assert refused(world, "DeleteNetworkInterface", NetworkInterfaceId=FREE)[0] == "InvalidParameterValue"
    world, _ = run(world, "DetachNetworkInterface", AttachmentId=first, Force=True)
    assert world.interface(FREE) == address_world().interface(FREE)
    assert refused(world, "DetachNetworkInterface", AttachmentId=first)[0] == "InvalidAttachmentID.NotFound"
    later = msgspec.structs.replace(world.interface(FREE), attached_to=TWO, device_index=2, attached_at=NOW + 1)
    world = msgspec.structs.replace(world, interfaces=(*world.interfaces[:-2], later, world.interfaces[-1]))
    assert shown_interface(world, FREE)["Attachment"]["AttachmentId"] != first
    assert refused(world, "DetachNetworkInterface", AttachmentId=first)[0] == "InvalidAttachmentID.NotFound"


def test_what_cannot_be_detached():
    """An instance's first interface and an endpoint's, in AWS's words."""
    ids = {eni: shown_interface(address_world(), eni)["Attachment"]["AttachmentId"] for eni in (FIRST, ENDPOINT_ENI)}
    assert (ids[FIRST][:11], ids[ENDPOINT_ENI][:11]) == ("eni-attach-", "ela-attach-")
    assert refused(address_world(), "DetachNetworkInterface", AttachmentId=ids[FIRST]) == (
        "OperationNotPermitted",
        "The network interface at device index 0 and networkCard index 0 cannot be detached.",
    )
    assert refused(address_world(), "DetachNetworkInterface", AttachmentId=ids[ENDPOINT_ENI]) == (
        "OperationNotPermitted",
        "You are not allowed to manage 'ela-attach' attachments.",
    )


@pytest.mark.parametrize(
    ("state", "may"), [("running", True), ("stopped", True), ("pending", False), ("stopping", False)]
)
def test_states_in_which_an_interface_is_attached(state, may):
    """While the instance runs and while it is stopped."""
    world = address_world()
    instance = msgspec.structs.replace(world.instance(ONE), state=state)
    world = msgspec.structs.replace(world, instances=(world.instances[0], instance))
    parameters = {"InstanceId": ONE, "NetworkInterfaceId": FREE, "DeviceIndex": 1}
    if may:
        assert run(world, "AttachNetworkInterface", **parameters)[0].interface(FREE).attached_to == ONE
    else:
        said = f"Instance '{ONE}' is not 'running' or 'stopped'."
        assert refused(world, "AttachNetworkInterface", **parameters) == ("IncorrectState", said)


def interfaces_of(count, subnet=DUAL, **fields):
    """NetworkInterfaces of RunInstances: so many, by device index."""
    return [{"DeviceIndex": index, "SubnetId": subnet, **fields} for index in range(count)]


def test_an_instance_has_fifteen_interfaces_at_most():
    """Fifteen are launched, a sixteenth index does not exist."""
    world, answer = run(address_world(), "RunInstances", **ONE_MACHINE, NetworkInterfaces=interfaces_of(15))
    (made,) = answer["Instances"]
    assert [one["Attachment"]["DeviceIndex"] for one in made["NetworkInterfaces"]] == list(range(15))
    assert len({eni.link for eni in world.interfaces}) == len(world.interfaces)
    more = refused(address_world(), "RunInstances", **ONE_MACHINE, NetworkInterfaces=interfaces_of(16))
    assert more == ("InvalidParameterValue", "Value (15) for parameter deviceIndex is invalid. It is from 0 to 14.")


def test_instances_with_several_interfaces():
    """Each instance has a set of its own, in the order of device indexes; the instance shows what its first one has."""
    listed = [
        {"DeviceIndex": 1, "SubnetId": NATIVE, "Groups": [WEB], "DeleteOnTermination": False, "Description": "further"},
        {
            "DeviceIndex": 0,
            "SubnetId": DUAL,
            "Groups": [WEB],
            "SecondaryPrivateIpAddressCount": 1,
            "Ipv6AddressCount": 1,
        },
    ]
    parameters = ONE_MACHINE | {"MaxCount": 2, "NetworkInterfaces": listed}
    world, answer = run(address_world(), "RunInstances", **parameters)
    assert len(answer["Instances"]) == 2
    for number, made in enumerate(answer["Instances"]):
        first, further = made["NetworkInterfaces"]
        four, six = 9 + 2 * number, 6 + number
        assert made["PrivateIpAddress"] == f"10.0.1.{four}"
        assert made["Ipv6Address"] == f"{SIX}{six}"
        assert [one["PrivateIpAddress"] for one in first["PrivateIpAddresses"]] == [
            f"10.0.1.{four}",
            f"10.0.1.{four + 1}",
        ]
        assert further["Ipv6Addresses"] == [{"Ipv6Address": f"fd12:3456:789a:2::{5 + number}", "IsPrimaryIpv6": False}]
        assert (further["Description"], further["Attachment"]["DeleteOnTermination"]) == ("further", False)
        assert shown_instance(world, made["InstanceId"]) == made
    world = settled(world)
    world, _ = run(world, "TerminateInstances", InstanceIds=[answer["Instances"][0]["InstanceId"]])
    world = settled(world)
    gone, left = (one["NetworkInterfaceId"] for one in answer["Instances"][0]["NetworkInterfaces"])
    assert world.interface(gone) is None
    kept = world.interface(left)
    assert (kept.attached_to, kept.device_index, kept.attached_at) == ("", 0, None)
    world, _ = run(world, "AttachNetworkInterface", InstanceId=ONE, NetworkInterfaceId=left, DeviceIndex=1)


def test_as_many_instances_as_there_are_addresses_for():
    """Eleven addresses are free in a /28, less one: five instances with two each; six are refused."""
    parameters = {"ImageId": IMAGE, "MinCount": 5, "MaxCount": 9, "NetworkInterfaces": interfaces_of(2, FOUR)}
    world, answer = run(address_world(), "RunInstances", **parameters)
    assert len(answer["Instances"]) == 5
    assert len(world.interfaces) == len(address_world().interfaces) + 10
    assert (
        refused(address_world(), "RunInstances", **(parameters | {"MinCount": 6}))[0]
        == "InsufficientFreeAddressesInSubnet"
    )


def test_named_addresses_come_first():
    """An address that one interface names is not given to another one of the same call before."""
    listed = interfaces_of(2)
    listed[1]["PrivateIpAddress"] = "10.0.1.9"
    _, answer = run(address_world(), "RunInstances", **ONE_MACHINE, NetworkInterfaces=listed)
    (made,) = answer["Instances"]
    assert [one["PrivateIpAddress"] for one in made["NetworkInterfaces"]] == ["10.0.1.10", "10.0.1.9"]


def test_an_existing_interface_beside_a_new_one():
    """It keeps what it has, and outlives the instance; the new one goes with it."""
    listed = [{"DeviceIndex": 0, "SubnetId": DUAL}, {"DeviceIndex": 4, "NetworkInterfaceId": FREE}]
    world, answer = run(address_world(), "RunInstances", **ONE_MACHINE, NetworkInterfaces=listed)
    (made,) = answer["Instances"]
    assert (world.interface(FREE).attached_to, world.interface(FREE).device_index) == (made["InstanceId"], 4)
    world, _ = run(settled(world), "TerminateInstances", InstanceIds=[made["InstanceId"]])
    world = settled(world)
    assert world.interface(FREE) == address_world().interface(FREE)
    assert {eni.id for eni in world.interfaces} == {eni.id for eni in address_world().interfaces}


def test_an_ipv6_only_instance():
    """It shows its IPv6 address, no IPv4 address, and a host name made of its id."""
    _, answer = run(address_world(), "RunInstances", **ONE_MACHINE, SubnetId=NATIVE)
    (made,) = answer["Instances"]
    assert "PrivateIpAddress" not in made
    assert made["Ipv6Address"] == "fd12:3456:789a:2::5"
    assert made["PrivateDnsName"] == f"{made['InstanceId']}.ec2.internal"
    assert made["NetworkInterfaces"][0]["PrivateIpAddresses"] == []


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("ipv6-address", f"{SIX}4", {TWO}),
        ("network-interface.ipv6-addresses.ipv6-address", f"{SIX}4", {TWO}),
        ("network-interface.ipv6-addresses.is-primary-ipv6", "false", {TWO}),
        ("network-interface.addresses.private-ip-address", "10.0.1.20", {TWO}),
        ("network-interface.addresses.primary", "false", {TWO}),
        ("network-interface.network-interface-id", FURTHER, {TWO}),
        ("network-interface.attachment.device-index", "1", {TWO}),
        ("network-interface.attachment.instance-id", ONE, {ONE}),
        ("network-interface.attachment.network-card-index", "0", {ONE, TWO}),
        ("private-ip-address", "10.0.1.5", set()),
        ("private-ip-address", "10.0.1.4", {TWO}),
    ],
)
def test_filters_of_instances(name, value, expected):
    """Filters see all interfaces and addresses of an instance, but its own private address is that of the first."""
    _, answer = run(address_world(), "DescribeInstances", Filters=[{"Name": name, "Values": [value]}])
    found = {one["InstanceId"] for reservation in answer["Reservations"] for one in reservation["Instances"]}
    assert found == expected


def test_groups_of_a_further_interface():
    """ModifyNetworkInterfaceAttribute changes those of one interface, and of no other."""
    default = address_world().groups[0].id
    world, _ = run(address_world(), "ModifyNetworkInterfaceAttribute", NetworkInterfaceId=FURTHER, Groups=[default])
    assert world.interface(FURTHER).group_ids == (default,)
    assert world.interface(FIRST) == address_world().interface(FIRST)
    assert shown_instance(world, TWO)["SecurityGroups"] == [{"GroupId": WEB, "GroupName": "web"}]
    world, _ = run(world, "ModifyInstanceAttribute", InstanceId=ONE, Groups=[default])
    assert world.interface(ALONE).group_ids == (default,)


def test_delete_on_termination_of_a_further_interface():
    """It is set by the attachment that the interface is shown with."""
    attachment = shown_interface(address_world(), FURTHER)["Attachment"]["AttachmentId"]
    wish = {"AttachmentId": attachment, "DeleteOnTermination": True}
    world, _ = run(address_world(), "ModifyNetworkInterfaceAttribute", NetworkInterfaceId=FURTHER, Attachment=wish)
    world, _ = run(world, "TerminateInstances", InstanceIds=[TWO])
    world = settled(world)
    assert (world.interface(FIRST), world.interface(FURTHER)) == (None, None)


# -- idle time-outs ----------------------------------------------------------------------------------------------------


def test_time_outs_are_kept_and_shown():
    """Those that a call names change, the others stay; where none is set, none is shown."""
    assert "ConnectionTrackingConfiguration" not in shown_interface(address_world(), FREE)
    tcp = {"TcpEstablishedTimeout": 60}
    world, _ = run(
        address_world(), "ModifyNetworkInterfaceAttribute", NetworkInterfaceId=FREE, ConnectionTrackingSpecification=tcp
    )
    assert shown_interface(world, FREE)["ConnectionTrackingConfiguration"] == tcp
    udp = {"UdpTimeout": 30, "UdpStreamTimeout": 180}
    world, _ = run(
        world, "ModifyNetworkInterfaceAttribute", NetworkInterfaceId=FREE, ConnectionTrackingSpecification=udp
    )
    assert shown_interface(world, FREE)["ConnectionTrackingConfiguration"] == tcp | udp
    tracking = world.interface(FREE).connection_tracking
    assert (tracking.tcp_established, tracking.udp_stream, tracking.udp) == (60, 180, 30)


def test_time_outs_of_new_interfaces():
    """CreateNetworkInterface and RunInstances take them, the latter for each interface."""
    wish = {"TcpEstablishedTimeout": 432000, "UdpTimeout": 60, "UdpStreamTimeout": 60}
    _, answer = run(address_world(), "CreateNetworkInterface", SubnetId=DUAL, ConnectionTrackingSpecification=wish)
    assert answer["NetworkInterface"]["ConnectionTrackingConfiguration"] == wish
    listed = interfaces_of(2)
    listed[1]["ConnectionTrackingSpecification"] = wish
    _, answer = run(address_world(), "RunInstances", **ONE_MACHINE, NetworkInterfaces=listed)
    first, further = answer["Instances"][0]["NetworkInterfaces"]
    assert "ConnectionTrackingConfiguration" not in first
    assert further["ConnectionTrackingConfiguration"] == wish


# -- endpoints ---------------------------------------------------------------------------------------------------------


def endpoint_in(world, subnet, **parameters):
    """The World with another endpoint, complete, and how that is shown."""
    world, answer = run_with(world, "CreateInstanceConnectEndpoint", MANY, SubnetId=subnet, **parameters)
    world = settled(world)
    ids = [answer["InstanceConnectEndpoint"]["InstanceConnectEndpointId"]]
    described = run(world, "DescribeInstanceConnectEndpoints", InstanceConnectEndpointIds=ids)[1]
    return world, only(described, "InstanceConnectEndpoints")


@pytest.mark.parametrize(
    ("subnet", "wanted", "kind", "four", "six"),
    [
        (DUAL, None, "dualstack", 1, 1),
        (FOUR, None, "ipv4", 1, 0),
        (NATIVE, None, "ipv6", 0, 1),
        (DUAL, "ipv4", "ipv4", 1, 0),
        (DUAL, "ipv6", "ipv6", 1, 1),
        (DUAL, "dualstack", "dualstack", 1, 1),
        (NATIVE, "ipv6", "ipv6", 0, 1),
    ],
)
def test_address_types(subnet, wanted, kind, four, six):
    """The type follows the subnet unless one is named; the interface has IPv6 unless the endpoint is of IPv4."""
    world, shown = endpoint_in(address_world(), subnet, **({"IpAddressType": wanted} if wanted else {}))
    assert (shown["IpAddressType"], shown["PreserveClientIp"]) == (kind, False)
    assert set(shown["PublicDnsNames"]) == {"Ipv4", "Dualstack"}
    interface = world.interface(only(shown, "NetworkInterfaceIds"))
    assert (bool(interface.private_ip_address), len(interface.ipv6_addresses)) == (bool(four), six)


def test_the_address_type_is_modified():
    """The interface gives its IPv6 address back and gets one again, once the update is complete."""

    def modified(world, kind):
        world, _ = run(world, "ModifyInstanceConnectEndpoint", InstanceConnectEndpointId=ENDPOINT, IpAddressType=kind)
        assert world.endpoint(ENDPOINT).ip_address_type != kind
        return settled(world)

    world = modified(address_world(), "ipv4")
    assert (world.endpoint(ENDPOINT).ip_address_type, world.interface(ENDPOINT_ENI).ipv6_addresses) == ("ipv4", ())
    world = modified(world, "ipv6")
    assert world.endpoint(ENDPOINT).state == "update-complete"
    assert world.interface(ENDPOINT_ENI).ipv6_addresses == (f"{SIX}5",)
    world = modified(world, "dualstack")
    assert world.interface(ENDPOINT_ENI).ipv6_addresses == (f"{SIX}5",)


def test_an_update_fails_when_the_range_is_gone():
    """update-failed, with the reason and the old type, when the subnet lost its IPv6 range in between."""
    world, _ = run(address_world(), "AssociateSubnetCidrBlock", SubnetId=FOUR, Ipv6CidrBlock="fd12:3456:789a:3::/64")
    world, shown = endpoint_in(world, FOUR, IpAddressType="ipv4")
    endpoint_id = shown["InstanceConnectEndpointId"]
    world, _ = run(
        world, "ModifyInstanceConnectEndpoint", InstanceConnectEndpointId=endpoint_id, IpAddressType="dualstack"
    )
    subnet = only(run(world, "DescribeSubnets", SubnetIds=[FOUR])[1], "Subnets")
    association = only(subnet, "Ipv6CidrBlockAssociationSet")["AssociationId"]
    world, _ = run(world, "DisassociateSubnetCidrBlock", AssociationId=association)
    world = settled(world)
    failed = world.endpoint(endpoint_id)
    assert (failed.state, failed.ip_address_type) == ("update-failed", "ipv4")
    assert failed.state_message == f"The subnet {FOUR} has no free IPv6 address any more."


def test_preservation_beyond_aws():
    """With the setting, endpoints with IPv6 preserve client addresses; without it AWS's words (golden file)."""
    world = msgspec.structs.replace(address_world(), settings=Settings(preserve_client_ipv6=True))
    _, shown = endpoint_in(world, DUAL, PreserveClientIp=True)
    assert (shown["IpAddressType"], shown["PreserveClientIp"]) == ("dualstack", True)
    world, _ = run(world, "ModifyInstanceConnectEndpoint", InstanceConnectEndpointId=ENDPOINT, PreserveClientIp=True)
    assert settled(world).endpoint(ENDPOINT).preserve_client_ip is True


# -- what IAM is asked -------------------------------------------------------------------------------------------------


def _arn(resource):
    return f"arn:aws:ec2:us-east-1:123456789012:{resource}"


def test_what_iam_is_asked():
    """About the interface, and about the instance where one is concerned; about any, for an attachment that is none."""
    attachment = shown_interface(address_world(), FURTHER)["Attachment"]["AttachmentId"]
    table = [
        ("AssignPrivateIpAddresses", {"NetworkInterfaceId": FREE}, [f"network-interface/{FREE}"]),
        ("UnassignIpv6Addresses", {"NetworkInterfaceId": FREE}, [f"network-interface/{FREE}"]),
        (
            "AttachNetworkInterface",
            {"InstanceId": ONE, "NetworkInterfaceId": FREE, "DeviceIndex": 1},
            [f"instance/{ONE}", f"network-interface/{FREE}"],
        ),
        ("DetachNetworkInterface", {"AttachmentId": attachment}, [f"instance/{TWO}", f"network-interface/{FURTHER}"]),
        ("DetachNetworkInterface", {"AttachmentId": "eni-attach-0"}, ["instance/*", "network-interface/*"]),
        ("AssociateVpcCidrBlock", {"VpcId": VPC}, [f"vpc/{VPC}"]),
        ("AssociateVpcCidrBlock", {"VpcId": VPC, "Ipv6Pool": POOL}, [f"vpc/{VPC}", f"ipv6pool-ec2/{POOL}"]),
        ("DisassociateVpcCidrBlock", {"AssociationId": "vpc-cidr-assoc-0"}, ["vpc/*"]),
        ("AssociateSubnetCidrBlock", {"SubnetId": DUAL}, [f"subnet/{DUAL}"]),
        ("DisassociateSubnetCidrBlock", {"AssociationId": "subnet-cidr-assoc-0"}, ["subnet/*"]),
    ]
    for action, parameters, resources in table:
        asked = asks(address_world(), action, **parameters)
        assert [(one, resource) for one, resource, _ in asked] == [(f"ec2:{action}", _arn(one)) for one in resources]


def test_what_iam_is_asked_about_several_interfaces():
    """RunInstances: about each subnet, interface and group that any of the interfaces concerns."""
    listed = [
        {"DeviceIndex": 0, "SubnetId": DUAL, "Groups": [WEB]},
        {"DeviceIndex": 1, "SubnetId": NATIVE},
        {"DeviceIndex": 2, "NetworkInterfaceId": FREE},
        {"DeviceIndex": 3, "NetworkInterfaceId": OTHER_ENI},
        {"DeviceIndex": 4, "NetworkInterfaceId": NATIVE_ENI},
    ]
    asked = {
        resource for _, resource, _ in asks(address_world(), "RunInstances", **ONE_MACHINE, NetworkInterfaces=listed)
    }
    default = address_world().groups[0].id
    concerned = [f"subnet/{DUAL}", f"subnet/{NATIVE}", f"security-group/{WEB}", f"security-group/{default}"]
    concerned += [f"network-interface/{one}" for one in ("*", FREE, OTHER_ENI, NATIVE_ENI)]
    assert {_arn(one) for one in concerned} <= asked
