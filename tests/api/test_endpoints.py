"""EC2 Instance Connect Endpoints through the API: their life, what is shown of them, who may make one."""

import re

import pytest

from tests.api.deployment import DOMAIN
from tests.api.people import User, allow
from tests.api.worlds import code_of, complete, endpoint, filters, refusal, tagged, until

SERVICE_ROLE = (
    "arn:aws:iam::123456789012:role/aws-service-role/ec2-instance-connect.amazonaws.com/"
    "AWSServiceRoleForEc2InstanceConnect"
)


class Place:
    """A VPC, a subnet and a group."""

    def __init__(self, ec2):
        self.vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        made = ec2.create_subnet(VpcId=self.vpc, CidrBlock="10.0.1.0/24", AvailabilityZone="us-east-1b")
        self.subnet = made["Subnet"]["SubnetId"]
        self.group = ec2.create_security_group(GroupName="g", Description="d", VpcId=self.vpc)["GroupId"]


@pytest.fixture
def place(ec2):
    """A place for an endpoint."""
    return Place(ec2)


def wait_until_gone(ec2, wanted):
    """Until there is no endpoint that passes these filters."""
    until(lambda: not ec2.describe_instance_connect_endpoints(Filters=wanted)["InstanceConnectEndpoints"])


def delete_all(ec2):
    """Every endpoint of the deployment goes."""
    for one in ec2.describe_instance_connect_endpoints()["InstanceConnectEndpoints"]:
        ec2.delete_instance_connect_endpoint(InstanceConnectEndpointId=one["InstanceConnectEndpointId"])
    wait_until_gone(ec2, [])


def test_dependent_actions(deployment, ec2, iam, place):
    """The first endpoint needs iam:CreateServiceLinkedRole; each one CreateNetworkInterface, and CreateTags on it."""
    delete_all(ec2)
    user = User(deployment, iam)
    kind, subnet, group = "instance-connect-endpoint/*", f"subnet/{place.subnet}", f"security-group/{place.group}"
    needs = [
        ("ec2:CreateInstanceConnectEndpoint", kind),
        ("ec2:CreateInstanceConnectEndpoint", subnet),
        ("ec2:CreateInstanceConnectEndpoint", group),
        ("ec2:CreateNetworkInterface", "network-interface/*"),
        ("ec2:CreateNetworkInterface", subnet),
        ("ec2:CreateNetworkInterface", group),
        ("ec2:CreateTags", "network-interface/*"),
        ("iam:CreateServiceLinkedRole", SERVICE_ROLE),
    ]
    asked = {"SubnetId": place.subnet, "SecurityGroupIds": [place.group]}
    for missing in needs:
        user.may(*(allow(*need) for need in needs if need != missing))
        assert refusal(user.ec2, "CreateInstanceConnectEndpoint", asked) == user.denied(*missing)
    only_for_it = {"StringEquals": {"iam:AWSServiceName": "ec2-instance-connect.amazonaws.com"}}
    user.may(*(allow(*need) for need in needs[:-1]), allow(*needs[-1], **only_for_it))
    made = user.ec2.create_instance_connect_endpoint(**asked)["InstanceConnectEndpoint"]
    complete(ec2, made["InstanceConnectEndpointId"])
    # From the second on without the role.
    other = Place(ec2)
    second = {"SubnetId": other.subnet, "SecurityGroupIds": [other.group], "DryRun": True}
    resources = [subnet, group], [f"subnet/{other.subnet}", f"security-group/{other.group}"]
    moved = dict(zip(*resources, strict=True))
    user.may(*(allow(action, moved.get(resource, resource)) for action, resource in needs[:-1]))
    assert refusal(user.ec2, "CreateInstanceConnectEndpoint", second)[0] == "DryRunOperation"


def test_condition_keys(deployment, ec2, iam, place):
    """Create by subnet, VPC, group and tags asked for; Delete by tag and subnet (Service Authorization Reference)."""
    user, action = User(deployment, iam), "ec2:CreateInstanceConnectEndpoint"
    vpc = f"arn:aws:ec2:us-east-1:123456789012:vpc/{place.vpc}"
    asked = {"SubnetId": place.subnet, "SecurityGroupIds": [place.group], "DryRun": True}
    asked |= tagged("instance-connect-endpoint", {"Team": "red"})
    rest = [allow("ec2:CreateNetworkInterface"), allow("ec2:CreateTags"), allow("iam:CreateServiceLinkedRole")]
    right = {
        "instance-connect-endpoint/*": {"ec2:SubnetID": place.subnet, "aws:RequestTag/Team": "red"},
        "subnet/*": {"ec2:Vpc": vpc, "ec2:SubnetID": place.subnet, "ec2:AvailabilityZone": "us-east-1b"},
        "security-group/*": {"ec2:SecurityGroupID": place.group, "ec2:Vpc": vpc, "ec2:Region": "us-east-1"},
    }
    user.may(*rest, *(allow(action, kind, StringEquals=keys) for kind, keys in right.items()))
    assert refusal(user.ec2, "CreateInstanceConnectEndpoint", asked)[0] == "DryRunOperation"
    for wrong_kind, keys in right.items():
        for key in keys:
            changed = right | {wrong_kind: keys | {key: "another"}}
            user.may(*rest, *(allow(action, kind, StringEquals=wanted) for kind, wanted in changed.items()))
            assert refusal(user.ec2, "CreateInstanceConnectEndpoint", asked)[0] == "UnauthorizedOperation", key

    made = endpoint(ec2, SubnetId=place.subnet, **tagged("instance-connect-endpoint", {"Team": "red"}))
    asked = {"InstanceConnectEndpointId": made["InstanceConnectEndpointId"], "DryRun": True}
    for key, value, code in (
        ("aws:ResourceTag/Team", "red", "DryRunOperation"),
        ("ec2:ResourceTag/Team", "red", "DryRunOperation"),
        ("ec2:SubnetID", place.subnet, "DryRunOperation"),
        ("aws:ResourceTag/Team", "blue", "UnauthorizedOperation"),
        ("aws:ResourceTag/team", "red", "DryRunOperation"),  # tag keys in conditions: without regard to case
    ):
        user.may(allow("ec2:DeleteInstanceConnectEndpoint", StringEquals={key: value}))
        assert refusal(user.ec2, "DeleteInstanceConnectEndpoint", asked)[0] == code, (key, value)


def test_create(ec2, place):
    """The answer is create-in-progress without interface or name; then both are there, and the default group."""
    asked = {"SubnetId": place.subnet, "ClientToken": "t", **tagged("instance-connect-endpoint", {"Name": "door"})}
    answer = ec2.create_instance_connect_endpoint(**asked)
    made = answer["InstanceConnectEndpoint"]
    assert answer["ClientToken"] == "t"
    assert (made["State"], made["NetworkInterfaceIds"]) == ("create-in-progress", [])
    assert "DnsName" not in made
    endpoint_id = made["InstanceConnectEndpointId"]
    assert re.fullmatch("eice-[0-9a-f]{17}", endpoint_id)

    shown = complete(ec2, endpoint_id)
    groups = ec2.describe_security_groups(Filters=filters(vpc_id=place.vpc, group_name="default"))["SecurityGroups"]
    expected = {
        "OwnerId": "123456789012",
        "InstanceConnectEndpointId": endpoint_id,
        "InstanceConnectEndpointArn": f"arn:aws:ec2:us-east-1:123456789012:instance-connect-endpoint/{endpoint_id}",
        "State": "create-complete",
        "StateMessage": "",
        "VpcId": place.vpc,
        "SubnetId": place.subnet,
        "AvailabilityZone": "us-east-1b",
        "AvailabilityZoneId": "use1-az2",
        "PreserveClientIp": False,
        "SecurityGroupIds": [groups[0]["GroupId"]],
        "Tags": [{"Key": "Name", "Value": "door"}],
        "IpAddressType": "ipv4",
    }
    assert {name: shown[name] for name in expected} == expected
    suffix = rf"ec2-instance-connect-endpoint\.us-east-1\.{re.escape(DOMAIN)}"
    assert re.fullmatch(rf"{endpoint_id}\.[0-9a-f]{{8}}\.{suffix}", shown["DnsName"])
    assert re.fullmatch(rf"{endpoint_id}\.[0-9a-f]{{8}}\.fips\.{suffix}", shown["FipsDnsName"])
    assert shown["PublicDnsNames"]["Ipv4"] == {"DnsName": shown["DnsName"], "FipsDnsName": shown["FipsDnsName"]}
    assert set(shown["PublicDnsNames"]["Dualstack"]) == {"DnsName", "FipsDnsName"}
    assert shown["CreatedAt"].tzinfo is not None


def test_interface(ec2, place):
    """Its network interface is the service's: tagged, not to be deleted, changed or attached, gone with it."""
    made = endpoint(ec2, SubnetId=place.subnet, SecurityGroupIds=[place.group])
    (interface_id,) = made["NetworkInterfaceIds"]
    (interface,) = ec2.describe_network_interfaces(
        Filters=filters(interface_type="ec2_instance_connect_endpoint", vpc_id=place.vpc)
    )["NetworkInterfaces"]
    assert interface["NetworkInterfaceId"] == interface_id
    assert (interface["RequesterManaged"], interface["Status"]) == (True, "in-use")
    tag = {"Key": "InstanceConnectEndpointId", "Value": made["InstanceConnectEndpointId"]}
    assert interface["TagSet"] == [tag]
    assert [one["GroupId"] for one in interface["Groups"]] == [place.group]
    asked = {"NetworkInterfaceId": interface_id}
    assert code_of(ec2, "DeleteNetworkInterface", **asked) == "InvalidParameterValue"
    assert code_of(ec2, "ModifyNetworkInterfaceAttribute", **asked, Groups=[place.group]) == "AuthFailure"
    assert code_of(ec2, "DeleteSecurityGroup", GroupId=place.group) == "DependencyViolation"
    assert code_of(ec2, "DeleteSubnet", SubnetId=place.subnet) == "DependencyViolation"


def test_modify(ec2, place):
    """Groups, client IP preservation and address type change by way of update-in-progress; a set of groups whole."""
    made = endpoint(ec2, SubnetId=place.subnet)["InstanceConnectEndpointId"]
    asked = {"InstanceConnectEndpointId": made}
    answer = ec2.modify_instance_connect_endpoint(
        **asked, SecurityGroupIds=[place.group], PreserveClientIp=True, IpAddressType="ipv4"
    )
    assert answer["Return"] is True
    shown = complete(ec2, made)
    assert (shown["State"], shown["PreserveClientIp"]) == ("update-complete", True)
    assert shown["SecurityGroupIds"] == [place.group]
    ec2.modify_instance_connect_endpoint(**asked, PreserveClientIp=False)
    shown = complete(ec2, made)
    assert (shown["PreserveClientIp"], shown["SecurityGroupIds"]) == (False, [place.group])
    assert code_of(ec2, "ModifyInstanceConnectEndpoint", **asked, PreserveClientIp=True, IpAddressType="dualstack") == (
        "InvalidParameterValue"
    )


def test_delete(ec2, place):
    """The answer is delete-in-progress without interfaces; then it is gone, and its subnet can go."""
    made = endpoint(ec2, SubnetId=place.subnet)
    asked = {"InstanceConnectEndpointId": made["InstanceConnectEndpointId"]}
    gone = ec2.delete_instance_connect_endpoint(**asked)["InstanceConnectEndpoint"]
    assert (gone["State"], gone["NetworkInterfaceIds"]) == ("delete-in-progress", [])
    wait_until_gone(ec2, filters(vpc_id=place.vpc))
    not_found = "InvalidInstanceConnectEndpointId.NotFound"
    words = f"The instance connect endpoint ID '{asked['InstanceConnectEndpointId']}' does not exist"
    assert refusal(ec2, "DeleteInstanceConnectEndpoint", asked) == (not_found, words, 400)
    assert code_of(ec2, "DescribeNetworkInterfaces", NetworkInterfaceIds=made["NetworkInterfaceIds"]) == (
        "InvalidNetworkInterfaceID.NotFound"
    )
    ec2.delete_subnet(SubnetId=place.subnet)


def test_one_for_each_vpc(ec2, place):
    """A second one in the VPC is over the quota until the first is gone."""
    first = endpoint(ec2, SubnetId=place.subnet)
    other = ec2.create_subnet(VpcId=place.vpc, CidrBlock="10.0.2.0/24")["Subnet"]["SubnetId"]
    limit = "InstanceConnectEndpointLimitExceeded"
    assert code_of(ec2, "CreateInstanceConnectEndpoint", SubnetId=other) == limit
    ec2.delete_instance_connect_endpoint(InstanceConnectEndpointId=first["InstanceConnectEndpointId"])
    wait_until_gone(ec2, filters(vpc_id=place.vpc))
    endpoint(ec2, SubnetId=other)


def test_sixteen_groups(ec2, place):
    """An endpoint carries up to 16 groups; the seventeenth is one too many."""
    groups = [
        ec2.create_security_group(GroupName=f"g{n}", Description="d", VpcId=place.vpc)["GroupId"] for n in range(17)
    ]
    asked = {"SubnetId": place.subnet, "SecurityGroupIds": groups}
    code = code_of(ec2, "CreateInstanceConnectEndpoint", **asked)
    assert code in ("SecurityGroupsPerInterfaceLimitExceeded", "InvalidParameterValue")
    made = endpoint(ec2, **asked | {"SecurityGroupIds": groups[:16]})
    assert made["SecurityGroupIds"] == groups[:16]


@pytest.fixture(scope="module")
def filtered(ec2):
    """Two endpoints to be found by filters."""
    made = {}
    for name in ("front", "back"):
        place = Place(ec2)
        tags = tagged("instance-connect-endpoint", {"Name": name, "Set": "filtered"})
        made[name] = endpoint(ec2, SubnetId=place.subnet, **tags)
    back = made["back"]["InstanceConnectEndpointId"]
    ec2.modify_instance_connect_endpoint(InstanceConnectEndpointId=back, PreserveClientIp=True)
    complete(ec2, back)
    return made


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("instance-connect-endpoint-id", ["{InstanceConnectEndpointId}"], {"front"}),
        ("subnet-id", ["{SubnetId}", "subnet-nothing"], {"front"}),
        ("vpc-id", ["{VpcId}"], {"front"}),
        ("state", ["create-complete"], {"front"}),
        ("state", ["update-*"], {"back"}),
        ("state", ["create-complete", "update-in-progress", "update-complete", "update-failed"], {"front", "back"}),
        ("tag:Name", ["f*"], {"front"}),
        ("tag-key", ["Name"], {"front", "back"}),
        ("tag-value", ["bac?"], {"back"}),
        ("tag:Name", ["Front"], set()),
    ],
)
def test_filter(ec2, filtered, name, values, expected):
    """Each filter of DescribeInstanceConnectEndpoints; every state can be asked for, as the AWS CLI does."""
    values = [value.format(**filtered["front"]) for value in values]
    wanted = [{"Name": "tag:Set", "Values": ["filtered"]}, {"Name": name, "Values": values}]
    found = ec2.describe_instance_connect_endpoints(Filters=wanted)["InstanceConnectEndpoints"]
    names = {one["InstanceConnectEndpointId"]: name for name, one in filtered.items()}
    assert {names[one["InstanceConnectEndpointId"]] for one in found} == expected


def test_no_default_for_dual_stack(ec2, place):
    """Client IP preservation with an address type that cannot have it: AWS's own words."""
    words = (
        "Client IP preservation isn't supported for Dualstack and IPv6 EC2 Instance Connect Endpoints. "
        "To use client IP preservation, create an IPv4 EC2 Instance Connect Endpoint."
    )
    asked = {"SubnetId": place.subnet, "PreserveClientIp": True, "IpAddressType": "dualstack"}
    assert refusal(ec2, "CreateInstanceConnectEndpoint", asked) == ("InvalidParameterValue", words, 400)
