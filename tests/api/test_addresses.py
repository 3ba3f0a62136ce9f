"""IPv6, further addresses and further interfaces, through the SDK, the stock CLI and the kernel."""

import json
import subprocess
import sys
from contextlib import contextmanager

import pytest

from tests.api.kernel import in_namespace
from tests.api.test_stock_cli import CommandLine
from tests.api.worlds import IMAGE, POOL, code_of, complete, endpoint, filters, run, wait_for_state

PORT = 7500


class Place:
    """A dual-stack VPC with a dual-stack subnet and an IPv6-only one, and a group that lets out and in nothing."""

    def __init__(self, ec2):
        self.ec2 = ec2
        vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16", AmazonProvidedIpv6CidrBlock=True)["Vpc"]
        self.vpc = vpc["VpcId"]
        self.range = vpc["Ipv6CidrBlockAssociationSet"][0]["Ipv6CidrBlock"]
        self.six = self.range.removesuffix("::/56")
        self.dual = self._subnet(CidrBlock="10.0.1.0/24", Ipv6CidrBlock=f"{self.six}:1::/64")
        self.native = self._subnet(Ipv6Native=True, Ipv6CidrBlock=f"{self.six}:2::/64")
        self.group = self.new_group("g")

    def _subnet(self, **ranges):
        return self.ec2.create_subnet(VpcId=self.vpc, AvailabilityZone="us-east-1a", **ranges)["Subnet"]["SubnetId"]

    def new_group(self, name):
        """A group without rules."""
        group = self.ec2.create_security_group(GroupName=name, Description="d", VpcId=self.vpc)["GroupId"]
        (shown,) = self.ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"]
        self.ec2.revoke_security_group_egress(GroupId=group, IpPermissions=shown["IpPermissionsEgress"])
        return group

    def instance(self, subnet=None, **wish):
        """An instance that runs; how it is shown."""
        made = run(self.ec2, SubnetId=subnet or self.dual, SecurityGroupIds=[self.group], **wish)
        return self.shown(made["InstanceId"])

    def shown(self, instance):
        """An instance as it is shown."""
        (reservation,) = self.ec2.describe_instances(InstanceIds=[instance])["Reservations"]
        return reservation["Instances"][0]


@pytest.fixture
def place(ec2):
    """A place of the test's own."""
    return Place(ec2)


def addresses_in(namespace, device="eth0"):
    """The addresses on a device of a namespace, but for link-local ones."""
    (shown,) = json.loads(in_namespace(namespace, "ip", "-json", "address", "show", "dev", device))
    return {one["local"] for one in shown["addr_info"] if one["scope"] != "link"}


def devices_in(namespace):
    """The names of a namespace's devices."""
    return {one["ifname"] for one in json.loads(in_namespace(namespace, "ip", "-json", "link", "show"))} - {"lo"}


SERVE = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
server = socket.create_server((sys.argv[1], int(sys.argv[2])), family=family)
print("listens", flush=True)
while True:
    connection, client = server.accept()
    connection.sendall(client[0].encode())
    connection.close()
"""
ASK = """
import socket, sys
try:
    source = (sys.argv[3], 0) if len(sys.argv) > 3 else None
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=0.7, source_address=source) as connection:
        print(connection.recv(100).decode())
except OSError:
    print("nobody")
"""


@contextmanager
def serving(namespace, address):
    """Something that tells each who connects which address he has."""
    command = ["ip", "netns", "exec", namespace, sys.executable, "-c", SERVE, address, str(PORT)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "listens\n"
        yield
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def asked(namespace, address, *source):
    """From which address a connection from a namespace came, or `nobody`."""
    return in_namespace(namespace, sys.executable, "-c", ASK, address, str(PORT), *source).strip()


def over_ipv6(cidr):
    """A permission for the port from or to an IPv6 range."""
    return [{"IpProtocol": "tcp", "FromPort": PORT, "ToPort": PORT, "Ipv6Ranges": [{"CidrIpv6": cidr}]}]


# -- through the SDK ---------------------------------------------------------------------------------------------------


def test_ranges_and_waiters(ec2, place):
    """What a VPC and its subnets show of IPv6; all of it goes before the VPC does."""
    (vpc,) = ec2.describe_vpcs(VpcIds=[place.vpc])["Vpcs"]
    (association,) = vpc["Ipv6CidrBlockAssociationSet"]
    assert (association["Ipv6CidrBlockState"]["State"], association["Ipv6Pool"]) == ("associated", "Amazon")
    subnets = {one["SubnetId"]: one for one in ec2.describe_subnets(Filters=filters(vpc_id=place.vpc))["Subnets"]}
    assert (subnets[place.dual]["Ipv6Native"], subnets[place.native]["Ipv6Native"]) == (False, True)
    in_use = code_of(ec2, "DisassociateVpcCidrBlock", AssociationId=association["AssociationId"])
    assert in_use == "InvalidCidrBlock.InUse"
    (of_subnet,) = subnets[place.dual]["Ipv6CidrBlockAssociationSet"]
    ec2.disassociate_subnet_cidr_block(AssociationId=of_subnet["AssociationId"])
    ec2.delete_subnet(SubnetId=place.native)
    ec2.disassociate_vpc_cidr_block(AssociationId=association["AssociationId"])
    own = ec2.associate_vpc_cidr_block(VpcId=place.vpc, Ipv6Pool=POOL, Ipv6CidrBlock="fd66:6666::/48")
    assert own["Ipv6CidrBlockAssociation"]["Ipv6CidrBlockState"]["State"] == "associated"
    made = ec2.associate_subnet_cidr_block(SubnetId=place.dual, Ipv6CidrBlock="fd66:6666:0:1::/64")
    assert made["Ipv6CidrBlockAssociation"]["Ipv6CidrBlock"] == "fd66:6666:0:1::/64"
    ec2.delete_security_group(GroupId=place.group)
    ec2.delete_subnet(SubnetId=place.dual)
    ec2.delete_vpc(VpcId=place.vpc)


def test_the_same_token_makes_one_interface(ec2, place):
    """CreateNetworkInterface under a ClientToken answers what it answered, with all addresses."""
    wish = {
        "SubnetId": place.dual,
        "ClientToken": place.vpc,
        "Ipv6AddressCount": 2,
        "SecondaryPrivateIpAddressCount": 2,
    }
    made, again = (ec2.create_network_interface(**wish)["NetworkInterface"] for _ in range(2))
    assert made == again
    assert (len(made["PrivateIpAddresses"]), len(made["Ipv6Addresses"])) == (3, 2)
    assert code_of(ec2, "CreateNetworkInterface", **(wish | {"Ipv6AddressCount": 1})) == "IdempotentParameterMismatch"


# -- in the kernel -----------------------------------------------------------------------------------------------------


def test_addresses_are_on_the_device(ec2, place):
    """When a call is answered, the instance has the address, or has it no more."""
    made = place.instance(Ipv6AddressCount=1)
    instance, eni = made["InstanceId"], made["NetworkInterfaces"][0]["NetworkInterfaceId"]
    first = {made["PrivateIpAddress"], made["Ipv6Address"]}
    assert addresses_in(instance) == first
    six = ec2.assign_ipv6_addresses(NetworkInterfaceId=eni, Ipv6AddressCount=2)["AssignedIpv6Addresses"]
    four = ec2.assign_private_ip_addresses(NetworkInterfaceId=eni, PrivateIpAddresses=["10.0.1.77"])
    assert four["AssignedPrivateIpAddresses"] == [{"PrivateIpAddress": "10.0.1.77"}]
    assert addresses_in(instance) == first | {*six, "10.0.1.77"}
    other = place.instance()
    there = other["NetworkInterfaces"][0]["NetworkInterfaceId"]
    move = {"NetworkInterfaceId": there, "PrivateIpAddresses": ["10.0.1.77"]}
    assert code_of(ec2, "AssignPrivateIpAddresses", **move) == "InvalidParameterValue"
    ec2.assign_private_ip_addresses(**move, AllowReassignment=True)
    assert "10.0.1.77" in addresses_in(other["InstanceId"])
    assert addresses_in(instance) == first | {*six}
    ec2.unassign_ipv6_addresses(NetworkInterfaceId=eni, Ipv6Addresses=six)
    assert addresses_in(instance) == first


def test_packets_over_ipv6(ec2, place):
    """Judged by the rules for IPv6, between a dual-stack instance and an IPv6-only one; rules for IPv4 say nothing."""
    one, other = place.instance(Ipv6AddressCount=1), place.instance(place.native)
    target = other["Ipv6Address"]
    with serving(other["InstanceId"], target):
        assert asked(one["InstanceId"], target) == "nobody"
        ec2.authorize_security_group_egress(GroupId=place.group, IpPermissions=over_ipv6(f"{place.six}:2::/64"))
        everywhere = {"IpProtocol": "tcp", "FromPort": PORT, "ToPort": PORT, "CidrIp": "0.0.0.0/0"}
        ec2.authorize_security_group_ingress(GroupId=place.group, **everywhere)
        assert asked(one["InstanceId"], target) == "nobody"
        ec2.authorize_security_group_ingress(GroupId=place.group, IpPermissions=over_ipv6(f"{one['Ipv6Address']}/128"))
        assert asked(one["InstanceId"], target) == one["Ipv6Address"]
        ec2.revoke_security_group_egress(GroupId=place.group, IpPermissions=over_ipv6(f"{place.six}:2::/64"))
        assert asked(one["InstanceId"], target) == "nobody"


def test_further_interfaces(ec2, place):
    """An attached interface is a device of the running instance, judged by its own groups; detached it is gone."""
    group = place.new_group("further")
    one, other = place.instance(Ipv6AddressCount=1), place.instance(Ipv6AddressCount=1)
    made = ec2.create_network_interface(SubnetId=place.dual, Groups=[group], Ipv6AddressCount=1)["NetworkInterface"]
    ids = {"InstanceId": other["InstanceId"], "NetworkInterfaceId": made["NetworkInterfaceId"]}
    attachment = ec2.attach_network_interface(DeviceIndex=2, **ids)["AttachmentId"]
    assert devices_in(other["InstanceId"]) == {"eth0", "eth2"}
    six, four = made["Ipv6Addresses"][0]["Ipv6Address"], made["PrivateIpAddress"]
    assert addresses_in(other["InstanceId"], "eth2") == {six, four}
    pair = [{"IpProtocol": "tcp", "FromPort": PORT, "ToPort": PORT, "UserIdGroupPairs": [{"GroupId": group}]}]
    ec2.authorize_security_group_egress(GroupId=place.group, IpPermissions=pair)
    pair[0]["UserIdGroupPairs"] = [{"GroupId": place.group}]
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=pair)
    for target, member in ((six, "Ipv6Address"), (four, "PrivateIpAddress")):
        first, source = other[member], one[member]
        with serving(other["InstanceId"], target):
            assert asked(one["InstanceId"], target) == source
        with serving(other["InstanceId"], first):
            assert asked(one["InstanceId"], first) == "nobody"
    ec2.detach_network_interface(AttachmentId=attachment)
    assert devices_in(other["InstanceId"]) == {"eth0"}
    soon = {"Delay": 0, "MaxAttempts": 2}
    ec2.get_waiter("network_interface_available").wait(
        NetworkInterfaceIds=[made["NetworkInterfaceId"]], WaiterConfig=soon
    )
    ec2.delete_network_interface(NetworkInterfaceId=made["NetworkInterfaceId"])


def test_instances_with_several_interfaces(ec2, place):
    """Launched with two; stopped and started with both; terminated, one goes and one stays."""
    listed = [
        {"DeviceIndex": 0, "SubnetId": place.dual, "Groups": [place.group], "Ipv6AddressCount": 1},
        {"DeviceIndex": 1, "SubnetId": place.native, "Groups": [place.group], "DeleteOnTermination": False},
    ]
    made = run(ec2, NetworkInterfaces=listed)
    instance = made["InstanceId"]
    first, further = made["NetworkInterfaces"]
    assert devices_in(instance) == {"eth0", "eth1"}
    assert addresses_in(instance, "eth1") == {further["Ipv6Addresses"][0]["Ipv6Address"]}
    ec2.stop_instances(InstanceIds=[instance])
    wait_for_state(ec2, instance, "stopped")
    ec2.start_instances(InstanceIds=[instance])
    wait_for_state(ec2, instance, "running")
    assert devices_in(instance) == {"eth0", "eth1"}
    ec2.terminate_instances(InstanceIds=[instance])
    wait_for_state(ec2, instance, "terminated")
    gone = code_of(ec2, "DescribeNetworkInterfaces", NetworkInterfaceIds=[first["NetworkInterfaceId"]])
    assert gone == "InvalidNetworkInterfaceID.NotFound"
    ids = [further["NetworkInterfaceId"]]
    (left,) = ec2.describe_network_interfaces(NetworkInterfaceIds=ids)["NetworkInterfaces"]
    assert (left["Status"], "Attachment" in left) == ("available", False)


def test_endpoints_of_both_families(ec2, place):
    """Its namespace has the addresses that its interface has, before and after its type is modified."""
    door = endpoint(ec2, SubnetId=place.dual, SecurityGroupIds=[place.group])
    door_id = door["InstanceConnectEndpointId"]

    def interface():
        (shown,) = ec2.describe_network_interfaces(NetworkInterfaceIds=door["NetworkInterfaceIds"])["NetworkInterfaces"]
        return {shown["PrivateIpAddress"], *(one["Ipv6Address"] for one in shown["Ipv6Addresses"])}

    assert door["IpAddressType"] == "dualstack"
    assert len(interface()) == 2
    assert addresses_in(door_id) == interface()
    for kind, count in (("ipv4", 1), ("ipv6", 2)):
        ec2.modify_instance_connect_endpoint(InstanceConnectEndpointId=door_id, IpAddressType=kind)
        assert complete(ec2, door_id)["State"] == "update-complete"
        assert len(interface()) == count
        assert addresses_in(door_id) == interface()


# -- the stock CLI -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_stock_cli(deployment, ec2, place, tmp_path):
    """From the ranges to two interfaces of an instance, by the CLI's own spellings."""
    aws = CommandLine(tmp_path)
    made = aws("ec2", "create-vpc", "--cidr-block", "10.0.0.0/16", "--amazon-provided-ipv6-cidr-block")["Vpc"]
    (association,) = made["Ipv6CidrBlockAssociationSet"]
    aws("ec2", "disassociate-vpc-cidr-block", "--association-id", association["AssociationId"])
    again = aws("ec2", "associate-vpc-cidr-block", "--vpc-id", made["VpcId"], "--amazon-provided-ipv6-cidr-block")
    assert again["Ipv6CidrBlockAssociation"]["Ipv6CidrBlock"] == association["Ipv6CidrBlock"]
    taken = aws.fails(
        "ec2", "create-subnet", "--vpc-id", place.vpc, "--ipv6-native", "--ipv6-cidr-block", f"{place.six}:2::/64"
    )
    assert taken.endswith(f"The IPv6 CIDR '{place.six}:2::/64' conflicts with another subnet")

    interfaces = [
        f"DeviceIndex=0,SubnetId={place.dual},Groups={place.group},Ipv6AddressCount=1",
        f"DeviceIndex=1,SubnetId={place.native},Groups={place.group}",
    ]
    launched = aws("ec2", "run-instances", "--image-id", IMAGE, "--network-interfaces", *interfaces)
    (instance,) = launched["Instances"]
    aws("ec2", "wait", "instance-running", "--instance-ids", instance["InstanceId"])
    first, further = (one["NetworkInterfaceId"] for one in instance["NetworkInterfaces"])
    of_first = ("--network-interface-id", first)
    count = ("--secondary-private-ip-address-count", "2")
    assigned = aws("ec2", "assign-private-ip-addresses", *of_first, *count)["AssignedPrivateIpAddresses"]
    assert len(assigned) == 2
    moved = ("--network-interface-id", further, "--private-ip-addresses", assigned[0]["PrivateIpAddress"])
    refused = aws.fails("ec2", "assign-private-ip-addresses", *moved)
    assert refused.endswith("has no IPv4 CIDR block.")
    timeouts = ("--connection-tracking-specification", "TcpEstablishedTimeout=60,UdpTimeout=30")
    aws("ec2", "modify-network-interface-attribute", *of_first, *timeouts)
    query = (
        "--query",
        "NetworkInterfaces[0].ConnectionTrackingConfiguration.TcpEstablishedTimeout",
        "--output",
        "text",
    )
    assert aws.run("ec2", "describe-network-interfaces", "--network-interface-ids", first, *query).stdout == "60\n"
    attachment = instance["NetworkInterfaces"][0]["Attachment"]["AttachmentId"]
    stays = aws.fails("ec2", "detach-network-interface", "--attachment-id", attachment)
    assert stays.endswith("The network interface at device index 0 and networkCard index 0 cannot be detached.")
    aws(
        "ec2",
        "detach-network-interface",
        "--attachment-id",
        instance["NetworkInterfaces"][1]["Attachment"]["AttachmentId"],
    )
    attach = ("--network-interface-id", further, "--instance-id", instance["InstanceId"], "--device-index", "1")
    assert aws("ec2", "attach-network-interface", *attach)["AttachmentId"].startswith("eni-attach-")

    door = ("ec2", "create-instance-connect-endpoint", "--subnet-id", place.dual)
    preserving = aws.fails(*door, "--preserve-client-ip")
    assert "(InvalidParameterValue) when calling the CreateInstanceConnectEndpoint operation" in preserving
    assert "Client IP preservation isn't supported for Dualstack and IPv6" in preserving
    made = aws(*door)["InstanceConnectEndpoint"]
    assert (made["IpAddressType"], made["PreserveClientIp"]) == ("dualstack", False)
