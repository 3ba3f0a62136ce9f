"""VPCs, subnets, network interfaces, instances and tags through the stock SDK."""

import pytest

from tests.api.worlds import IMAGE, call, code_of, filters, refusal, run, tagged, until, wait_for_state

ACCOUNT = "123456789012"


class Place:
    """A VPC and a subnet."""

    def __init__(self, ec2, zone="us-east-1a"):
        self.vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        made = ec2.create_subnet(VpcId=self.vpc, CidrBlock="10.0.1.0/24", AvailabilityZone=zone)
        self.subnet = made["Subnet"]["SubnetId"]

    def group(self, ec2, name):
        """A new group in it."""
        return ec2.create_security_group(GroupName=name, Description="d", VpcId=self.vpc)["GroupId"]


@pytest.fixture
def place(ec2):
    """A place of the test's own."""
    return Place(ec2)


def values(answer, member):
    """One member of each item."""
    return [item[member] for item in answer]


# -- VPCs and subnets --------------------------------------------------------------------------------------------------


def test_vpc(ec2):
    """Made canonical and available, shown the same, with tags; the SDK's waiters are content; then deleted."""
    made = ec2.create_vpc(CidrBlock="10.7.9.9/16", **tagged("vpc", {"Name": "lab"}))["Vpc"]
    vpc = made["VpcId"]
    assert (made["CidrBlock"], made["State"], made["IsDefault"], made["OwnerId"]) == (
        "10.7.0.0/16",
        "available",
        False,
        ACCOUNT,
    )
    assert made["Tags"] == [{"Key": "Name", "Value": "lab"}]
    (association,) = made["CidrBlockAssociationSet"]
    assert (association["CidrBlock"], association["CidrBlockState"]["State"]) == ("10.7.0.0/16", "associated")
    for name in ("vpc_exists", "vpc_available"):
        ec2.get_waiter(name).wait(VpcIds=[vpc], WaiterConfig={"Delay": 0, "MaxAttempts": 2})
    assert ec2.describe_vpcs(VpcIds=[vpc])["Vpcs"] == [made]
    ec2.delete_vpc(VpcId=vpc)
    assert refusal(ec2, "DescribeVpcs", {"VpcIds": [vpc]}) == (
        "InvalidVpcID.NotFound",
        f"The vpc ID '{vpc}' does not exist",
        400,
    )


def test_vpc_attributes(ec2, place):
    """DNS support is on and host names are off, until they are set."""

    def attribute(name):
        answer = ec2.describe_vpc_attribute(VpcId=place.vpc, Attribute=name)
        assert answer["VpcId"] == place.vpc
        return answer[name[0].upper() + name[1:]]["Value"]

    names = "enableDnsSupport", "enableDnsHostnames", "enableNetworkAddressUsageMetrics"
    assert [attribute(name) for name in names] == [True, False, False]
    ec2.modify_vpc_attribute(VpcId=place.vpc, EnableDnsHostnames={"Value": True})
    ec2.modify_vpc_attribute(VpcId=place.vpc, EnableDnsSupport={"Value": False})
    assert [attribute(name) for name in names] == [False, True, False]


def test_vpc_with_groups_stays(ec2, place):
    """A VPC goes only after its subnets and groups; its default group goes with it."""
    group = place.group(ec2, "g")
    (default,) = ec2.describe_security_groups(Filters=filters(vpc_id=place.vpc, group_name="default"))["SecurityGroups"]
    assert code_of(ec2, "DeleteVpc", VpcId=place.vpc) == "DependencyViolation"
    ec2.delete_subnet(SubnetId=place.subnet)
    assert code_of(ec2, "DeleteVpc", VpcId=place.vpc) == "DependencyViolation"
    ec2.delete_security_group(GroupId=group)
    ec2.delete_vpc(VpcId=place.vpc)
    assert code_of(ec2, "DescribeSecurityGroups", GroupIds=[default["GroupId"]]) == "InvalidGroup.NotFound"


def test_subnet(ec2, place):
    """Its zone and free addresses; interfaces take them; public addresses on launch are kept as a wish."""
    made = ec2.create_subnet(VpcId=place.vpc, CidrBlock="10.0.2.0/28", AvailabilityZoneId="use1-az3")["Subnet"]
    subnet = made["SubnetId"]
    assert (made["AvailabilityZone"], made["AvailableIpAddressCount"]) == ("us-east-1c", 11)
    assert made["SubnetArn"] == f"arn:aws:ec2:us-east-1:{ACCOUNT}:subnet/{subnet}"
    ec2.get_waiter("subnet_available").wait(SubnetIds=[subnet], WaiterConfig={"Delay": 0, "MaxAttempts": 2})
    interface = ec2.create_network_interface(SubnetId=subnet)["NetworkInterface"]
    assert interface["PrivateIpAddress"] == "10.0.2.4"
    ec2.modify_subnet_attribute(SubnetId=subnet, MapPublicIpOnLaunch={"Value": True})
    (shown,) = ec2.describe_subnets(SubnetIds=[subnet])["Subnets"]
    assert (shown["AvailableIpAddressCount"], shown["MapPublicIpOnLaunch"]) == (10, True)
    assert code_of(ec2, "DeleteSubnet", SubnetId=subnet) == "DependencyViolation"
    ec2.delete_network_interface(NetworkInterfaceId=interface["NetworkInterfaceId"])
    ec2.delete_subnet(SubnetId=subnet)
    assert code_of(ec2, "DescribeSubnets", SubnetIds=[subnet]) == "InvalidSubnetID.NotFound"


def test_subnet_runs_out(ec2, place):
    """When every address is taken, the next interface is refused; one freed is given again."""
    subnet = ec2.create_subnet(VpcId=place.vpc, CidrBlock="10.0.3.0/28")["Subnet"]["SubnetId"]
    made = [ec2.create_network_interface(SubnetId=subnet)["NetworkInterface"] for _ in range(11)]
    assert values(made, "PrivateIpAddress") == [f"10.0.3.{last}" for last in range(4, 15)]
    assert code_of(ec2, "CreateNetworkInterface", SubnetId=subnet) == "InsufficientFreeAddressesInSubnet"
    ec2.delete_network_interface(NetworkInterfaceId=made[5]["NetworkInterfaceId"])
    again = ec2.create_network_interface(SubnetId=subnet)["NetworkInterface"]
    assert again["PrivateIpAddress"] == made[5]["PrivateIpAddress"]


# -- interfaces and instances ------------------------------------------------------------------------------------------


def test_interface(ec2, place):
    """Everything that can be given to one and changed on it, and each change alone."""
    groups = [place.group(ec2, name) for name in "ab"]
    made = ec2.create_network_interface(
        SubnetId=place.subnet,
        PrivateIpAddress="10.0.1.77",
        Description="mine",
        Groups=[groups[0]],
        **tagged("network-interface", {"Name": "n"}),
    )["NetworkInterface"]
    interface = made["NetworkInterfaceId"]
    assert (made["Status"], made["InterfaceType"], made["RequesterManaged"]) == ("available", "interface", False)
    assert (made["PrivateIpAddress"], made["Description"]) == ("10.0.1.77", "mine")
    assert (made["PrivateDnsName"], made["SourceDestCheck"]) == ("ip-10-0-1-77.ec2.internal", True)
    assert values(made["Groups"], "GroupName") == ["a"]
    assert made["TagSet"] == [{"Key": "Name", "Value": "n"}]
    ec2.get_waiter("network_interface_available").wait(
        NetworkInterfaceIds=[interface], WaiterConfig={"Delay": 0, "MaxAttempts": 2}
    )
    for change, member, expected in (
        ({"Description": {"Value": "yours"}}, "Description", "yours"),
        ({"SourceDestCheck": {"Value": False}}, "SourceDestCheck", False),
        (
            {"Groups": groups},
            "Groups",
            [{"GroupId": one, "GroupName": name} for one, name in zip(groups, "ab", strict=True)],
        ),
    ):
        ec2.modify_network_interface_attribute(NetworkInterfaceId=interface, **change)
        (shown,) = ec2.describe_network_interfaces(NetworkInterfaceIds=[interface])["NetworkInterfaces"]
        made[member] = expected
        assert shown == made


def test_groups_per_interface(ec2, place):
    """As many groups on an interface as the setting has it, 6 here: when it is made, changed, and with an instance."""
    groups = [place.group(ec2, f"g{number}") for number in range(7)]
    limit = "SecurityGroupsPerInterfaceLimitExceeded"
    assert code_of(ec2, "CreateNetworkInterface", SubnetId=place.subnet, Groups=groups) == limit
    made = ec2.create_network_interface(SubnetId=place.subnet, Groups=groups[:6])["NetworkInterface"]
    asked = {"NetworkInterfaceId": made["NetworkInterfaceId"], "Groups": groups}
    assert code_of(ec2, "ModifyNetworkInterfaceAttribute", **asked) == limit
    launch = {"ImageId": IMAGE, "MinCount": 1, "MaxCount": 1, "SubnetId": place.subnet, "SecurityGroupIds": groups}
    assert code_of(ec2, "RunInstances", **launch) == limit
    instance = run(ec2, SubnetId=place.subnet, SecurityGroupIds=groups[:6])["InstanceId"]
    assert code_of(ec2, "ModifyInstanceAttribute", InstanceId=instance, Groups=groups) == limit
    ec2.modify_instance_attribute(InstanceId=instance, Groups=groups[1:])
    ec2.modify_network_interface_attribute(**asked | {"Groups": groups[1:]})


def instance_of(ec2, instance):
    """The instance as DescribeInstances has it."""
    (reservation,) = ec2.describe_instances(InstanceIds=[instance])["Reservations"]
    return reservation["Instances"][0]


def test_instances(ec2, place):
    """Three in one reservation: pending, running, stopping, stopped, running again, terminated; the waiters agree."""
    group = place.group(ec2, "g")
    reservation = ec2.run_instances(
        ImageId=IMAGE,
        MinCount=1,
        MaxCount=3,
        SubnetId=place.subnet,
        SecurityGroupIds=[group],
        InstanceType="t3.micro",
        TagSpecifications=[
            *tagged("instance", {"Name": "i"})["TagSpecifications"],
            *tagged("network-interface", {"Name": "n"})["TagSpecifications"],
        ],
    )
    made = reservation["Instances"]
    ids = values(made, "InstanceId")
    assert values(made, "State") == [{"Code": 0, "Name": "pending"}] * 3
    assert values(made, "AmiLaunchIndex") == [0, 1, 2]
    assert values(made, "PrivateIpAddress") == ["10.0.1.4", "10.0.1.5", "10.0.1.6"]
    quick = {"WaiterConfig": {"Delay": 0, "MaxAttempts": 500}}
    ec2.get_waiter("instance_running").wait(InstanceIds=ids, **quick)
    (shown,) = ec2.describe_instances(InstanceIds=ids)["Reservations"]
    assert shown["ReservationId"] == reservation["ReservationId"]
    first = shown["Instances"][0]
    assert (first["InstanceType"], first["SubnetId"], first["VpcId"]) == ("t3.micro", place.subnet, place.vpc)
    assert first["Tags"] == [{"Key": "Name", "Value": "i"}]
    (interface,) = first["NetworkInterfaces"]
    assert values(interface["Groups"], "GroupId") == [group]
    ec2.get_waiter("instance_status_ok").wait(InstanceIds=ids, **quick)

    (change,) = ec2.stop_instances(InstanceIds=ids[:1])["StoppingInstances"]
    assert (change["PreviousState"]["Name"], change["CurrentState"]["Name"]) == ("running", "stopping")
    ec2.get_waiter("instance_stopped").wait(InstanceIds=ids[:1], **quick)
    assert instance_of(ec2, ids[0])["StateReason"]["Code"] == "Client.UserInitiatedShutdown"
    assert ec2.describe_instance_status(InstanceIds=ids[:1])["InstanceStatuses"] == []
    (status,) = ec2.describe_instance_status(InstanceIds=ids[:1], IncludeAllInstances=True)["InstanceStatuses"]
    assert (status["InstanceState"]["Name"], status["InstanceStatus"]["Status"]) == ("stopped", "not-applicable")
    (change,) = ec2.start_instances(InstanceIds=ids[:1])["StartingInstances"]
    assert (change["PreviousState"]["Name"], change["CurrentState"]["Name"]) == ("stopped", "pending")
    ec2.get_waiter("instance_running").wait(InstanceIds=ids[:1], **quick)
    assert instance_of(ec2, ids[0])["PrivateIpAddress"] == "10.0.1.4"

    changes = ec2.terminate_instances(InstanceIds=ids)["TerminatingInstances"]
    assert {change["CurrentState"]["Name"] for change in changes} == {"shutting-down"}
    ec2.get_waiter("instance_terminated").wait(InstanceIds=ids, **quick)
    over = instance_of(ec2, ids[0])
    assert (over["State"], over["NetworkInterfaces"]) == ({"Code": 48, "Name": "terminated"}, [])
    assert code_of(ec2, "DescribeNetworkInterfaces", NetworkInterfaceIds=[interface["NetworkInterfaceId"]]) == (
        "InvalidNetworkInterfaceID.NotFound"
    )


def test_all_or_none(ec2, place):
    """One instance that does not exist: none is stopped."""
    instance = run(ec2, SubnetId=place.subnet)["InstanceId"]
    for action in ("StopInstances", "TerminateInstances"):
        code = code_of(ec2, action, InstanceIds=[instance, "i-99999999999999999"])
        assert code == "InvalidInstanceID.NotFound"
    assert instance_of(ec2, instance)["State"]["Name"] == "running"


def test_own_interface(ec2, place):
    """An instance with an interface that was made before: in use with it, and left when it ends."""
    interface = ec2.create_network_interface(SubnetId=place.subnet)["NetworkInterface"]["NetworkInterfaceId"]
    instance = run(ec2, NetworkInterfaces=[{"DeviceIndex": 0, "NetworkInterfaceId": interface}])["InstanceId"]
    (shown,) = ec2.describe_network_interfaces(NetworkInterfaceIds=[interface])["NetworkInterfaces"]
    assert (shown["Status"], shown["Attachment"]["InstanceId"]) == ("in-use", instance)
    assert shown["Attachment"]["DeleteOnTermination"] is False
    ec2.terminate_instances(InstanceIds=[instance])
    wait_for_state(ec2, instance, "terminated")
    (shown,) = ec2.describe_network_interfaces(NetworkInterfaceIds=[interface])["NetworkInterfaces"]
    assert (shown["Status"], "Attachment" in shown) == ("available", False)


def test_delete_on_termination(ec2, place):
    """An instance's interface can be kept."""
    made = run(ec2, SubnetId=place.subnet)["NetworkInterfaces"][0]
    attachment = {"AttachmentId": made["Attachment"]["AttachmentId"], "DeleteOnTermination": False}
    asked = {"NetworkInterfaceId": made["NetworkInterfaceId"]}
    ec2.modify_network_interface_attribute(**asked, Attachment=attachment)
    (shown,) = ec2.describe_network_interfaces(NetworkInterfaceIds=[made["NetworkInterfaceId"]])["NetworkInterfaces"]
    assert shown["Attachment"]["DeleteOnTermination"] is False
    instance = shown["Attachment"]["InstanceId"]
    ec2.terminate_instances(InstanceIds=[instance])
    wait_for_state(ec2, instance, "terminated")
    ec2.delete_network_interface(**asked)


def test_instance_attributes(ec2, place):
    """Groups and the source/destination check, which are its interface's."""
    instance, group = run(ec2, SubnetId=place.subnet)["InstanceId"], place.group(ec2, "g")
    ec2.modify_instance_attribute(InstanceId=instance, Groups=[group])
    ec2.modify_instance_attribute(InstanceId=instance, SourceDestCheck={"Value": False})
    shown = instance_of(ec2, instance)
    assert values(shown["SecurityGroups"], "GroupId") == [group]
    assert (shown["SourceDestCheck"], shown["NetworkInterfaces"][0]["SourceDestCheck"]) == (False, False)


# -- finding -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def filtered(ec2):
    """Two places with an interface and two instances, one of them stopped."""
    one, two = Place(ec2), Place(ec2, "us-east-1b")
    made = {"vpc": one.vpc, "subnet": one.subnet, "other": two.subnet}
    made["running"] = run(ec2, SubnetId=one.subnet, **tagged("instance", {"Name": "web-1"}))["InstanceId"]
    made["stopped"] = run(ec2, SubnetId=one.subnet, InstanceType="t3.micro")["InstanceId"]
    ec2.stop_instances(InstanceIds=[made["stopped"]])
    wait_for_state(ec2, made["stopped"], "stopped")
    interface = ec2.create_network_interface(SubnetId=one.subnet, Description="a free one")["NetworkInterface"]
    made["free"] = interface["NetworkInterfaceId"]
    ec2.create_tags(Resources=[one.subnet], Tags=[{"Key": "Tier", "Value": "front"}])
    return made


@pytest.mark.parametrize(
    ("action", "name", "values", "expected"),
    [
        ("DescribeVpcs", "vpc-id", ["{vpc}"], ["vpc"]),
        ("DescribeVpcs", "is-default", ["true"], []),
        ("DescribeSubnets", "tag:Tier", ["fr*t"], ["subnet"]),
        ("DescribeSubnets", "vpc-id", ["{vpc}"], ["subnet"]),
        ("DescribeSubnets", "subnet-arn", ["arn:*:subnet/{other}"], ["other"]),
        ("DescribeInstances", "tag:Name", ["web-?"], ["running"]),
        ("DescribeInstances", "instance-state-name", ["stopped"], ["stopped"]),
        ("DescribeInstances", "instance-state-code", ["16"], ["running"]),
        ("DescribeInstances", "instance-type", ["t3.*"], ["stopped"]),
        ("DescribeInstances", "private-ip-address", ["10.0.1.4"], ["running"]),
        ("DescribeInstances", "network-interface.addresses.private-ip-address", ["10.0.1.5"], ["stopped"]),
        ("DescribeInstances", "availability-zone", ["us-east-1a"], ["running", "stopped"]),
        ("DescribeInstances", "key-name", ["*"], []),
        ("DescribeNetworkInterfaces", "status", ["available"], ["free"]),
        ("DescribeNetworkInterfaces", "description", ["a * one"], ["free"]),
        ("DescribeNetworkInterfaces", "private-ip-address", ["10.0.1.6"], ["free"]),
        ("DescribeNetworkInterfaces", "requester-managed", ["true"], []),
    ],
)
def test_filter(ec2, filtered, *, action, name, values, expected):
    """Filters with wildcards, numbers and booleans, within one VPC where there is one."""
    wanted = [{"Name": name, "Values": [value.format(**filtered) for value in values]}]
    if action in ("DescribeInstances", "DescribeNetworkInterfaces"):
        wanted += filters(vpc_id=filtered["vpc"])
    answer = call(ec2, action, {"Filters": wanted})
    member, key = {
        "DescribeVpcs": ("Vpcs", "VpcId"),
        "DescribeSubnets": ("Subnets", "SubnetId"),
        "DescribeInstances": ("Reservations", "InstanceId"),
        "DescribeNetworkInterfaces": ("NetworkInterfaces", "NetworkInterfaceId"),
    }[action]
    items = answer[member]
    if member == "Reservations":
        items = [instance for reservation in items for instance in reservation["Instances"]]
    assert {item[key] for item in items} == {filtered[one] for one in expected}


def test_status_filters(ec2, filtered):
    """DescribeInstanceStatus by state."""
    asked = {"IncludeAllInstances": True, "InstanceIds": [filtered["running"], filtered["stopped"]]}
    found = ec2.describe_instance_status(**asked, Filters=filters(instance_state_name="stopped"))["InstanceStatuses"]
    assert values(found, "InstanceId") == [filtered["stopped"]]


def test_regions_and_zones(ec2):
    """One region of three zones, with ids as AWS spells them."""
    (region,) = ec2.describe_regions()["Regions"]
    assert (region["RegionName"], region["OptInStatus"]) == ("us-east-1", "opt-in-not-required")
    assert region["Endpoint"] == "ec2.us-east-1.wicketgate.test"
    zones = ec2.describe_availability_zones()["AvailabilityZones"]
    assert [(zone["ZoneName"], zone["ZoneId"]) for zone in zones] == [
        ("us-east-1a", "use1-az1"),
        ("us-east-1b", "use1-az2"),
        ("us-east-1c", "use1-az3"),
    ]
    (zone,) = ec2.describe_availability_zones(Filters=filters(zone_id="*-az2"))["AvailabilityZones"]
    assert zone["ZoneName"] == "us-east-1b"


def test_account_attributes(ec2):
    """What tools ask for first: VPC only, no default VPC, groups on an interface as set."""
    attributes = {
        one["AttributeName"]: values(one["AttributeValues"], "AttributeValue")
        for one in ec2.describe_account_attributes()["AccountAttributes"]
    }
    assert attributes["supported-platforms"] == ["VPC"]
    assert attributes["default-vpc"] == ["none"]
    assert attributes["vpc-max-security-groups-per-interface"] == ["6"]
    (one,) = ec2.describe_account_attributes(AttributeNames=["default-vpc"])["AccountAttributes"]
    assert one["AttributeName"] == "default-vpc"


# -- tags --------------------------------------------------------------------------------------------------------------


def test_tags_later(ec2, place):
    """Resources of every kind at once, rules too: added, overwritten, listed, taken away by key, by value, all."""
    group = place.group(ec2, "g")
    (rule,) = ec2.describe_security_group_rules(Filters=filters(group_id=group))["SecurityGroupRules"]
    instance = run(ec2, SubnetId=place.subnet)
    interface = instance["NetworkInterfaces"][0]["NetworkInterfaceId"]
    door = ec2.create_instance_connect_endpoint(SubnetId=place.subnet)["InstanceConnectEndpoint"]
    door_id = door["InstanceConnectEndpointId"]
    kinds = {
        place.vpc: "vpc",
        place.subnet: "subnet",
        group: "security-group",
        rule["SecurityGroupRuleId"]: "security-group-rule",
        interface: "network-interface",
        instance["InstanceId"]: "instance",
        door_id: "instance-connect-endpoint",
    }
    every = list(kinds)

    def found():
        answer = ec2.describe_tags(Filters=filters(resource_id=every))["Tags"]
        return {(one["ResourceId"], one["ResourceType"], one["Key"], one["Value"]) for one in answer}

    def all_with(**tags):
        return {(one, kind, key, value) for one, kind in kinds.items() for key, value in tags.items()}

    ec2.create_tags(Resources=every, Tags=[{"Key": "A", "Value": "1"}, {"Key": "B", "Value": ""}])
    assert found() == all_with(A="1", B="")
    ec2.create_tags(Resources=every, Tags=[{"Key": "A", "Value": "2"}])
    assert found() == all_with(A="2", B="")
    ec2.delete_tags(Resources=every, Tags=[{"Key": "A", "Value": "1"}, {"Key": "B"}, {"Key": "Nothing"}])
    assert found() == all_with(A="2")
    ec2.delete_tags(Resources=every, Tags=[{"Key": "A", "Value": "2"}])
    assert found() == set()
    ec2.create_tags(Resources=every, Tags=[{"Key": "A", "Value": "1"}])
    ec2.delete_tags(Resources=every)
    assert found() == set()


def test_tags_all_or_nothing(ec2, place):
    """One resource that does not exist, or one that would have too many tags: none is tagged."""
    tags = [{"Key": "K", "Value": "v"}]
    assert code_of(ec2, "CreateTags", Resources=[place.vpc, "subnet-99999999999999999"], Tags=tags) == (
        "InvalidSubnetID.NotFound"
    )
    ec2.create_tags(Resources=[place.subnet], Tags=[{"Key": f"k{n}", "Value": ""} for n in range(50)])
    assert code_of(ec2, "CreateTags", Resources=[place.vpc, place.subnet], Tags=tags) == "TagLimitExceeded"
    assert ec2.describe_tags(Filters=filters(resource_id=place.vpc))["Tags"] == []


def test_tag_text(ec2, place):
    """Keys and values of any script, at their greatest length; one more character is refused."""
    text = "ключ 鍵 🔑 +-=._:/@"
    ec2.create_tags(Resources=[place.vpc], Tags=[{"Key": text, "Value": text}, {"Key": "k" * 128, "Value": "v" * 256}])
    found = ec2.describe_tags(Filters=filters(resource_id=place.vpc))["Tags"]
    assert {(one["Key"], one["Value"]) for one in found} == {(text, text), ("k" * 128, "v" * 256)}
    for tag in ({"Key": "k" * 129, "Value": ""}, {"Key": "k", "Value": "v" * 257}, {"Key": "AWS:k", "Value": ""}):
        assert code_of(ec2, "CreateTags", Resources=[place.vpc], Tags=[tag]) == "InvalidParameterValue"
    (vpc,) = ec2.describe_vpcs(Filters=[{"Name": f"tag:{text}", "Values": [text]}])["Vpcs"]
    assert vpc["VpcId"] == place.vpc


def test_many_at_once(ec2, place):
    """Twenty instances in one call; all run, all end."""
    made = ec2.run_instances(ImageId=IMAGE, MinCount=20, MaxCount=20, SubnetId=place.subnet)["Instances"]
    ids = values(made, "InstanceId")
    assert len(set(values(made, "PrivateIpAddress"))) == 20

    def states():
        answer = ec2.describe_instances(Filters=filters(vpc_id=place.vpc))["Reservations"]
        return {one["State"]["Name"] for reservation in answer for one in reservation["Instances"]}

    until(lambda: states() == {"running"})
    ec2.terminate_instances(InstanceIds=ids)
    until(lambda: states() <= {"terminated"})
    ec2.delete_subnet(SubnetId=place.subnet)
