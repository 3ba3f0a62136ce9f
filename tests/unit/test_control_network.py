"""VPCs, subnets, network interfaces, zones: every refusal, what the actions make and show, what IAM is asked."""

import ipaddress
import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.net_world import (
    DEFAULT,
    ENDPOINT,
    ENDPOINT_ENI,
    FREE_ENI,
    MODEL,
    OTHER_VPC,
    RUNNING,
    SMALL,
    SUBNET,
    VPC,
    WEB,
    asks,
    check_refusal,
    golden_errors,
    number,
    run,
    run_with,
    small_world,
)
from wicketgate.control import addresses, interfaces, operations, regions
from wicketgate.control.common import Quotas
from wicketgate.model import ApiError, Subnet, Vpc, World

ACTIONS = {
    "CreateVpc",
    "DescribeVpcs",
    "DeleteVpc",
    "ModifyVpcAttribute",
    "DescribeVpcAttribute",
    "CreateSubnet",
    "DescribeSubnets",
    "DeleteSubnet",
    "ModifySubnetAttribute",
    "CreateNetworkInterface",
    "DescribeNetworkInterfaces",
    "DeleteNetworkInterface",
    "ModifyNetworkInterfaceAttribute",
    "DescribeAvailabilityZones",
    "DescribeRegions",
    "DescribeAccountAttributes",
}


def test_actions_offered():
    """Every action of the family is offered under its name in the service model."""
    assert {("ec2", name) for name in ACTIONS} <= set(operations())
    assert set(MODEL.operation_names) >= ACTIONS


@golden_errors("network")
def test_refusal(error):
    """A bad call is refused with the code and words that the golden file has."""
    check_refusal(error)


# -- VPCs --------------------------------------------------------------------------------------------------------------


def test_a_vpc_from_nothing_and_back():
    """A VPC comes with a default group that lets members talk and everything out, and takes it along when deleted."""
    tags = [{"ResourceType": "vpc", "Tags": [{"Key": "Name", "Value": "n"}]}]
    world, answer = run(World(), "CreateVpc", CidrBlock="10.9.1.7/16", TagSpecifications=tags)
    vpc = answer["Vpc"]
    assert (vpc["CidrBlock"], vpc["State"], vpc["OwnerId"]) == ("10.9.0.0/16", "available", "123456789012")
    assert vpc["Tags"] == [{"Key": "Name", "Value": "n"}]
    assert vpc["CidrBlockAssociationSet"][0]["CidrBlock"] == "10.9.0.0/16"
    (group,) = world.groups
    assert (group.name, group.vpc_id, len(group.inbound), len(group.outbound)) == ("default", vpc["VpcId"], 1, 1)
    assert run(world, "DescribeVpcs", VpcIds=[vpc["VpcId"]])[1] == {"Vpcs": [vpc]}
    world, _ = run(world, "DeleteVpc", VpcId=vpc["VpcId"])
    assert msgspec.structs.replace(world, revision=0) == World()


def test_a_group_of_its_own_keeps_a_vpc():
    """A VPC without subnets but with another group than the default one is not deleted."""
    world, answer = run(World(), "CreateVpc", CidrBlock="10.9.0.0/16")
    vpc_id = answer["Vpc"]["VpcId"]
    more = msgspec.structs.replace(world.groups[0], id=WEB, name="web", rules=())
    with pytest.raises(ApiError) as caught:
        run(msgspec.structs.replace(world, groups=(*world.groups, more)), "DeleteVpc", VpcId=vpc_id)
    assert caught.value.code == "DependencyViolation"


def test_the_sixth_vpc_is_over_the_quota():
    """VpcLimitExceeded at the quota given; one below it is made."""
    with pytest.raises(ApiError) as caught:
        run_with(small_world(), "CreateVpc", {"quotas": Quotas(vpcs_per_region=2)}, CidrBlock="10.0.0.0/16")
    assert caught.value.code == "VpcLimitExceeded"
    run_with(small_world(), "CreateVpc", {"quotas": Quotas(vpcs_per_region=3)}, CidrBlock="10.0.0.0/16")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("cidr", "10.0.0.0/16", {VPC, OTHER_VPC}),
        ("isDefault", "true", {OTHER_VPC}),
        ("is-default", "false", {VPC}),
        ("tag:Name", "l?b", {VPC}),
        ("tag-key", "Stage", {VPC}),
        ("vpc-id", f"vpc-{'1' * 16}*", {VPC}),
        ("state", "available", {VPC, OTHER_VPC}),
        ("ipv6-cidr-block-association.state", "associated", set()),
    ],
)
def test_vpc_filters(name, value, expected):
    """Each filter picks the VPCs that have the value."""
    _, answer = run(small_world(), "DescribeVpcs", Filters=[{"Name": name, "Values": [value]}])
    assert {vpc["VpcId"] for vpc in answer["Vpcs"]} == expected


def test_vpc_attributes_round_trip():
    """What ModifyVpcAttribute sets, DescribeVpcAttribute shows; the other attributes stay."""
    world = small_world()
    for member, wanted in (("EnableDnsHostnames", True), ("EnableDnsSupport", False)):
        world, _ = run(world, "ModifyVpcAttribute", VpcId=VPC, **{member: {"Value": wanted}})
    shown = {
        name: run(world, "DescribeVpcAttribute", VpcId=VPC, Attribute=name)[1]
        for name in ("enableDnsSupport", "enableDnsHostnames", "enableNetworkAddressUsageMetrics")
    }
    assert shown["enableDnsSupport"] == {"VpcId": VPC, "EnableDnsSupport": {"Value": False}}
    assert shown["enableDnsHostnames"] == {"VpcId": VPC, "EnableDnsHostnames": {"Value": True}}
    assert shown["enableNetworkAddressUsageMetrics"]["EnableNetworkAddressUsageMetrics"] == {"Value": False}
    assert world.vpc(OTHER_VPC) == small_world().vpc(OTHER_VPC)


# -- subnets -----------------------------------------------------------------------------------------------------------


def test_a_subnet_counts_its_free_addresses():
    """A /28 has 16 - 5 addresses to give; an interface takes one; the zone is the first unless named."""
    world, answer = run(small_world(), "CreateSubnet", VpcId=VPC, CidrBlock="10.0.3.9/28")
    subnet = answer["Subnet"]
    assert (subnet["CidrBlock"], subnet["AvailableIpAddressCount"]) == ("10.0.3.0/28", 11)
    assert (subnet["AvailabilityZone"], subnet["AvailabilityZoneId"]) == ("us-east-1a", "use1-az1")
    world, _ = run(world, "CreateNetworkInterface", SubnetId=subnet["SubnetId"])
    (shown,) = run(world, "DescribeSubnets", SubnetIds=[subnet["SubnetId"]])[1]["Subnets"]
    assert shown == subnet | {"AvailableIpAddressCount": 10}


def test_a_subnet_by_zone_id():
    """AvailabilityZoneId names the zone as well as AvailabilityZone does; both must agree."""
    wish = {"VpcId": VPC, "CidrBlock": "10.0.3.0/24", "AvailabilityZoneId": "use1-az2"}
    assert run(small_world(), "CreateSubnet", **wish)[1]["Subnet"]["AvailabilityZone"] == "us-east-1b"
    with pytest.raises(ApiError) as caught:
        run(small_world(), "CreateSubnet", **wish, AvailabilityZone="us-east-1a")
    assert caught.value.code == "InvalidParameterCombination"


def test_the_subnet_quota_counts_per_vpc():
    """SubnetLimitExceeded at two of two in the VPC, not for the other VPC's."""
    quotas = {"quotas": Quotas(subnets_per_vpc=2)}
    with pytest.raises(ApiError) as caught:
        run_with(small_world(), "CreateSubnet", quotas, VpcId=VPC, CidrBlock="10.0.3.0/24")
    assert caught.value.code == "SubnetLimitExceeded"
    run_with(small_world(), "CreateSubnet", quotas, VpcId=OTHER_VPC, CidrBlock="10.0.3.0/24")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("vpc-id", VPC, {SUBNET, SMALL}),
        ("availability-zone", "us-east-1b", {SMALL}),
        ("availability-zone-id", "use1-az2", {SMALL}),
        ("cidr-block", "10.0.2.0/28", {SMALL}),
        ("available-ip-address-count", "11", {SMALL}),
        ("tag:Tier", "x", {SUBNET}),
        ("default-for-az", "true", set()),
        ("map-public-ip-on-launch", "true", set()),
    ],
)
def test_subnet_filters(name, value, expected):
    """Each filter picks the subnets that have the value."""
    _, answer = run(small_world(), "DescribeSubnets", Filters=[{"Name": name, "Values": [value]}])
    assert {subnet["SubnetId"] for subnet in answer["Subnets"]} == expected


def test_subnet_attributes():
    """MapPublicIpOnLaunch is kept and shown; what is off anyway may be switched off."""
    world, _ = run(small_world(), "ModifySubnetAttribute", SubnetId=SMALL, MapPublicIpOnLaunch={"Value": True})
    assert run(world, "DescribeSubnets", SubnetIds=[SMALL])[1]["Subnets"][0]["MapPublicIpOnLaunch"] is True
    same, _ = run(world, "ModifySubnetAttribute", SubnetId=SMALL, EnableDns64={"Value": False})
    assert same is world


def test_an_empty_subnet_is_deleted():
    """DeleteSubnet takes out the subnet and nothing else."""
    world, _ = run(small_world(), "DeleteSubnet", SubnetId=SMALL)
    assert [subnet.id for subnet in world.subnets] == [one.id for one in small_world().subnets if one.id != SMALL]


# -- network interfaces ------------------------------------------------------------------------------------------------


def test_an_interface_gets_what_is_free():
    """The lowest free address, the default group, a link name of 15 bytes, a MAC of its own; attached to nothing."""
    world, answer = run(small_world(), "CreateNetworkInterface", SubnetId=SUBNET, Description="d", ClientToken="t")
    shown = answer["NetworkInterface"]
    assert (shown["PrivateIpAddress"], shown["Status"], shown["Description"]) == ("10.0.1.9", "available", "d")
    assert shown["Groups"] == [{"GroupId": DEFAULT, "GroupName": "default"}]
    assert "Attachment" not in shown
    assert answer["ClientToken"] == "t"
    made = world.interfaces[-1]
    assert len(made.link.encode()) == 15
    assert made.link == "eni" + made.id[-12:]
    assert re.fullmatch("02(:[0-9a-f]{2}){5}", shown["MacAddress"])
    ids = [shown["NetworkInterfaceId"]]
    assert run(world, "DescribeNetworkInterfaces", NetworkInterfaceIds=ids)[1]["NetworkInterfaces"] == [shown]


def test_an_interface_gets_the_address_it_asks_for():
    """By PrivateIpAddress or by a list with one primary entry."""
    for wish in (
        {"PrivateIpAddress": "10.0.1.99"},
        {"PrivateIpAddresses": [{"PrivateIpAddress": "10.0.1.99", "Primary": True}]},
    ):
        _, answer = run(small_world(), "CreateNetworkInterface", SubnetId=SUBNET, **wish)
        assert answer["NetworkInterface"]["PrivateIpAddress"] == "10.0.1.99"


def test_a_full_subnet_gives_no_address():
    """A /28 gives eleven addresses, .4 to .14, then InsufficientFreeAddressesInSubnet; a freed one is given again."""
    world = small_world()
    for _ in range(11):
        world, _ = run(world, "CreateNetworkInterface", SubnetId=SMALL)
    made = [eni for eni in world.interfaces if eni.subnet_id == SMALL]
    assert [eni.private_ip_address for eni in made] == [f"10.0.2.{host}" for host in range(4, 15)]
    with pytest.raises(ApiError) as caught:
        run(world, "CreateNetworkInterface", SubnetId=SMALL)
    assert caught.value.code == "InsufficientFreeAddressesInSubnet"
    world, _ = run(world, "DeleteNetworkInterface", NetworkInterfaceId=made[3].id)
    world, _ = run(world, "CreateNetworkInterface", SubnetId=SMALL)
    assert world.interfaces[-1].private_ip_address == made[3].private_ip_address


@given(
    prefix=st.integers(16, 28),
    base=st.integers(0, 2**16 - 1),
    taken=st.sets(st.integers(0, 40), max_size=30),
)
def test_free_addresses_are_never_reserved_nor_taken(prefix, base, taken):
    """Whatever the subnet: never one of the first four or the last, never a taken one, lowest first, count right."""
    network = ipaddress.IPv4Network((int(ipaddress.IPv4Address("10.0.0.0")) + (base << 4), prefix), strict=False)
    subnet = Subnet(id="subnet-1", vpc_id="vpc-1", cidr_block=str(network))
    usable = [host for host in taken if 4 <= host < network.num_addresses - 1]
    template = small_world().interfaces[0]
    world = World(
        vpcs=(Vpc(id="vpc-1", cidr_block=str(network)),),
        subnets=(subnet,),
        interfaces=tuple(
            msgspec.structs.replace(template, id=f"eni-{n}", subnet_id="subnet-1", private_ip_address=str(network[n]))
            for n in usable
        ),
    )
    expected = [n for n in range(4, network.num_addresses - 1) if n not in usable]
    wanted = min(50, len(expected))
    assert addresses.Pool(world).take(subnet, 4, wanted) == [str(network[n]) for n in expected[:wanted]]
    assert addresses.free_count(world, subnet) == len(expected)


def test_link_names_stay_apart():
    """Two ids with the same last twelve digits get different device names of the VPC, both of 15 bytes."""
    first = interfaces.link_name("eni-0123456789abcdef0", set())
    second = interfaces.link_name("eni-0123456789abcdef0", {first})
    assert (first, second) == ("eni56789abcdef0", "eni456789abcdef")
    everything = {f"eni{'0123456789abcdef0'[at : at + 12]}" for at in range(6)}
    with pytest.raises(ApiError) as caught:
        interfaces.link_name("eni-0123456789abcdef0", everything)
    assert (caught.value.code, caught.value.http_status) == ("InternalError", 500)


def test_groups_per_interface():
    """The sixth group is refused; a group named twice counts once."""
    world, ids = small_world(), []
    for count in range(6):
        group = msgspec.structs.replace(world.groups[1], id=f"sg-{number(hex(count + 10)[-1])}", name=f"g{count}")
        world = msgspec.structs.replace(world, groups=(*world.groups, group))
        ids.append(group.id)
    for action, name in (
        ("CreateNetworkInterface", {"SubnetId": SUBNET}),
        ("ModifyNetworkInterfaceAttribute", {"NetworkInterfaceId": FREE_ENI}),
    ):
        with pytest.raises(ApiError) as caught:
            run(world, action, **name, Groups=ids)
        assert caught.value.code == "SecurityGroupsPerInterfaceLimitExceeded"
        changed, _ = run(world, action, **name, Groups=[*ids[:5], ids[0]])
        assert tuple(ids[:5]) in [eni.group_ids for eni in changed.interfaces]


@pytest.mark.parametrize(
    ("wish", "member", "shown"),
    [
        ({"Groups": [DEFAULT, WEB]}, "Groups", ["default", "web"]),
        ({"Description": {"Value": "new"}}, "Description", "new"),
        ({"SourceDestCheck": {"Value": False}}, "SourceDestCheck", False),
        ({"Attachment": {"DeleteOnTermination": False}}, "Attachment", False),
    ],
)
def test_modify_sets_one_attribute(wish, member, shown):
    """Each attribute is set and shown, and nothing else of the World changes."""
    eni = f"eni-{number('1')}"
    if member == "Attachment":
        (before,) = run(small_world(), "DescribeNetworkInterfaces", NetworkInterfaceIds=[eni])[1]["NetworkInterfaces"]
        wish = {member: wish[member] | {"AttachmentId": before[member]["AttachmentId"]}}
    world, _ = run(small_world(), "ModifyNetworkInterfaceAttribute", NetworkInterfaceId=eni, **wish)
    (answer,) = run(world, "DescribeNetworkInterfaces", NetworkInterfaceIds=[eni])[1]["NetworkInterfaces"]
    value = answer[member]
    if member == "Groups":
        value = [group["GroupName"] for group in value]
    elif member == "Attachment":
        value = value["DeleteOnTermination"]
    assert value == shown
    assert world.interfaces[1:] == small_world().interfaces[1:]


def test_what_owns_an_interface_is_shown():
    """An instance's has its attachment, an endpoint's its type and requester, a free one is available."""
    answers = run(small_world(), "DescribeNetworkInterfaces")[1]["NetworkInterfaces"]
    shown = {answer["NetworkInterfaceId"]: answer for answer in answers}
    instance, free, managed = shown[f"eni-{number('1')}"], shown[FREE_ENI], shown[ENDPOINT_ENI]
    assert (instance["Status"], instance["Attachment"]["InstanceId"]) == ("in-use", RUNNING)
    assert (free["Status"], "Attachment" in free, free["RequesterManaged"]) == ("available", False, False)
    assert managed["InterfaceType"] == "ec2_instance_connect_endpoint"
    assert (managed["RequesterManaged"], managed["Status"]) == (True, "in-use")
    assert managed["TagSet"] == [{"Key": "InstanceConnectEndpointId", "Value": ENDPOINT}]
    assert "InstanceId" not in managed["Attachment"]


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("interface-type", "ec2_instance_connect_endpoint", "9"),
        ("requester-managed", "true", "9"),
        ("status", "available", "8"),
        ("attachment.instance-id", RUNNING, "1"),
        ("attachment.status", "attached", "1239"),
        ("attachment.delete-on-termination", "false", ""),
        ("attachment.attach-time", "2027-01-15T07:00:00.000Z", "19"),
        ("private-ip-address", "10.0.1.[4]", ""),
        ("addresses.private-ip-address", "10.0.1.4", "1"),
        ("private-dns-name", "ip-10-0-1-5.ec2.internal", "2"),
        ("group-id", WEB, "12389"),
        ("group-name", "default", ""),
        ("vpc-id", VPC, "12389"),
        ("vpc-id", OTHER_VPC, ""),
        ("availability-zone", "us-east-1a", "12389"),
        ("tag:InstanceConnectEndpointId", ENDPOINT, "9"),
        ("association.public-ip", "*", ""),
    ],
)
def test_interface_filters(name, value, expected):
    """Each filter picks the interfaces whose answer has the value."""
    world = small_world()
    endpoints = (msgspec.structs.replace(world.endpoints[0], created_at=1_799_996_400.0),)
    world = msgspec.structs.replace(world, endpoints=endpoints)
    _, answer = run(world, "DescribeNetworkInterfaces", Filters=[{"Name": name, "Values": [value]}])
    assert {one["NetworkInterfaceId"][-1] for one in answer["NetworkInterfaces"]} == set(expected)


def test_pages_of_interfaces():
    """Pages of five show each interface that stays exactly once, although one is deleted between them."""
    world = small_world()
    for _ in range(4):
        world, _ = run(world, "CreateNetworkInterface", SubnetId=SMALL)
    _, first = run(world, "DescribeNetworkInterfaces", MaxResults=5)
    seen = [one["NetworkInterfaceId"] for one in first["NetworkInterfaces"]]
    assert (len(seen), FREE_ENI in seen) == (5, False)
    world, _ = run(world, "DeleteNetworkInterface", NetworkInterfaceId=FREE_ENI)
    _, second = run(world, "DescribeNetworkInterfaces", MaxResults=5, NextToken=first["NextToken"])
    seen += [one["NetworkInterfaceId"] for one in second["NetworkInterfaces"]]
    assert "NextToken" not in second
    assert sorted(seen) == sorted(eni.id for eni in world.interfaces)


# -- zones, regions, account -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("zone", "expected"),
    [
        ("us-east-1a", "use1-az1"),
        ("eu-central-1b", "euc1-az2"),
        ("ap-southeast-2c", "apse2-az3"),
        ("ap-northeast-1a", "apne1-az1"),
        ("us-gov-west-1a", "usgw1-az1"),
    ],
)
def test_zone_ids_are_spelt_as_at_aws(zone, expected):
    """Direction words are shortened as in AWS's zone ids."""
    assert regions.zone_id(zone) == expected


def test_zones_and_the_region():
    """Three zones, all available; the region's endpoint stands under the domain given."""
    _, answer = run(small_world(), "DescribeAvailabilityZones")
    assert [zone["ZoneName"] for zone in answer["AvailabilityZones"]] == ["us-east-1a", "us-east-1b", "us-east-1c"]
    only = [{"Name": "zone-id", "Values": ["*-az2"]}]
    _, answer = run(small_world(), "DescribeAvailabilityZones", Filters=only)
    assert [zone["ZoneName"] for zone in answer["AvailabilityZones"]] == ["us-east-1b"]
    assert run(small_world(), "DescribeRegions")[1]["Regions"][0]["RegionName"] == "us-east-1"
    (region,) = run_with(small_world(), "DescribeRegions", {"domain": "example.org"})[1]["Regions"]
    assert region["Endpoint"] == "ec2.us-east-1.example.org"


def test_account_attributes():
    """The default VPC is told, or `none`; only the attributes asked for are answered."""
    wanted = {"AttributeNames": ["default-vpc"]}
    for world, value in ((small_world(), OTHER_VPC), (World(), "none")):
        _, answer = run(world, "DescribeAccountAttributes", **wanted)
        expected = {"AttributeName": "default-vpc", "AttributeValues": [{"AttributeValue": value}]}
        assert answer["AccountAttributes"] == [expected]


# -- IAM ---------------------------------------------------------------------------------------------------------------


def test_create_vpc_asks_for_tagging_too():
    """Tags on creation ask ec2:CreateTags with ec2:CreateAction; without tags there is one question."""
    tags = [{"ResourceType": "vpc", "Tags": [{"Key": "Team", "Value": "a"}]}]
    new, tagging = asks(small_world(), "CreateVpc", CidrBlock="10.0.0.0/16", TagSpecifications=tags)
    assert new[:2] == ("ec2:CreateVpc", "arn:aws:ec2:us-east-1:123456789012:vpc/*")
    assert new[2]["aws:RequestTag/Team"] == ("a",)
    assert tagging[0] == "ec2:CreateTags"
    assert tagging[2]["ec2:CreateAction"] == ("CreateVpc",)
    assert len(asks(small_world(), "CreateVpc", CidrBlock="10.0.0.0/16")) == 1


def test_create_interface_asks_about_all_it_touches():
    """The new interface, the subnet and each group, the default group when none is named."""
    found = asks(small_world(), "CreateNetworkInterface", SubnetId=SUBNET)
    assert [resource.rpartition(":")[2] for _, resource, _ in found] == [
        "network-interface/*",
        f"subnet/{SUBNET}",
        f"security-group/{DEFAULT}",
    ]
    assert found[0][2]["ec2:Vpc"] == (f"arn:aws:ec2:us-east-1:123456789012:vpc/{VPC}",)
    assert found[1][2]["ec2:SubnetID"] == (SUBNET,)
    assert found[1][2]["aws:ResourceTag/Tier"] == ("x",)
    named = asks(small_world(), "CreateNetworkInterface", SubnetId=SUBNET, Groups=[WEB])
    assert named[2][2]["ec2:SecurityGroupID"] == (WEB,)


@pytest.mark.parametrize(
    ("action", "parameters", "resource"),
    [
        ("DeleteVpc", {"VpcId": VPC}, f"vpc/{VPC}"),
        ("DeleteVpc", {"VpcId": "vpc-nope"}, "vpc/vpc-nope"),
        ("ModifyVpcAttribute", {"VpcId": VPC}, f"vpc/{VPC}"),
        ("DeleteSubnet", {"SubnetId": SUBNET}, f"subnet/{SUBNET}"),
        ("ModifySubnetAttribute", {"SubnetId": "subnet-nope"}, "subnet/subnet-nope"),
        ("DeleteNetworkInterface", {"NetworkInterfaceId": FREE_ENI}, f"network-interface/{FREE_ENI}"),
        ("ModifyNetworkInterfaceAttribute", {"NetworkInterfaceId": "eni-nope"}, "network-interface/eni-nope"),
        ("DescribeVpcs", {}, "*"),
    ],
)
def test_one_question_about_the_resource_named(action, parameters, resource):
    """The question names the resource as the caller did, whether it exists or not."""
    ((asked, arn, _),) = asks(small_world(), action, **parameters)
    assert asked == f"ec2:{action}"
    assert arn == (resource if resource == "*" else f"arn:aws:ec2:us-east-1:123456789012:{resource}")
