"""VPC peering, route tables and references across, through the SDK, the stock CLI and the kernel."""

import subprocess
import sys
from contextlib import contextmanager

import pytest

from tests.api.test_stock_cli import CommandLine
from tests.api.worlds import Made, code_of, filters, golden, id_of, refusal, run, tagged

ACCOUNT = "123456789012"


def peered(ec2, requester, accepter):
    """An active connection of two VPCs; its id."""
    made = ec2.create_vpc_peering_connection(VpcId=requester, PeerVpcId=accepter)["VpcPeeringConnection"]
    peering = made["VpcPeeringConnectionId"]
    ec2.accept_vpc_peering_connection(VpcPeeringConnectionId=peering)
    return peering


def main_table(ec2, vpc):
    """The id of a VPC's main table."""
    main = {"Name": "association.main", "Values": ["true"]}
    (table,) = ec2.describe_route_tables(Filters=[*filters(vpc_id=vpc), main])["RouteTables"]
    return table["RouteTableId"]


def association_of(ec2, table):
    """The id of a table's only association."""
    (shown,) = ec2.describe_route_tables(RouteTableIds=[table])["RouteTables"]
    return shown["Associations"][0]["RouteTableAssociationId"]


def from_group(group, port=22):
    """A permission for TCP on a port from, or to, a group."""
    pair = {"GroupId": group, "Description": "from A"}
    return {"IpProtocol": "tcp", "FromPort": port, "ToPort": port, "UserIdGroupPairs": [pair]}


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(ec2):
    """As tests/unit/peering_world.py, but for IPv6."""
    made = Made(ec2)
    for digit, cidr in zip("1234", ("10.0.0.0/16", "10.1.0.0/16", "10.0.0.0/16", "10.4.0.0/16"), strict=True):
        made.vpc(id_of("vpc", digit), f"sg-default-{digit}", cidr)
    for digit, vpc, cidr in (("1", "1", "10.0.1.0/24"), ("2", "1", "10.0.2.0/24"), ("3", "2", "10.1.1.0/24")):
        made.subnet(id_of("subnet", digit), id_of("vpc", vpc), cidr)
    for digit, name in (("1", "a"), ("2", "b"), ("4", "d")):
        made.group(id_of("sg", digit), id_of("vpc", digit), name)
    a, b, c, d = (made[id_of("vpc", digit)] for digit in "1234")
    for digit, requester, accepter in (("1", a, b), ("2", a, d), ("3", b, d), ("4", a, c), ("5", d, b), ("7", b, a)):
        request = ec2.create_vpc_peering_connection(VpcId=requester, PeerVpcId=accepter)["VpcPeeringConnection"]
        made[id_of("pcx", digit)] = request["VpcPeeringConnectionId"]
    ec2.accept_vpc_peering_connection(VpcPeeringConnectionId=made[id_of("pcx", "1")])
    ec2.reject_vpc_peering_connection(VpcPeeringConnectionId=made[id_of("pcx", "3")])
    ec2.delete_vpc_peering_connection(VpcPeeringConnectionId=made[id_of("pcx", "5")])
    for digit, vpc in (("1", a), ("2", a), ("3", b)):
        made[id_of("rtb", digit)] = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
    made["rtb-1435face87471ed02"] = main_table(ec2, a)
    made["rtbassoc-57772906f9c5f9c4f"] = association_of(ec2, main_table(ec2, a))
    table, peering = made[id_of("rtb", "1")], made[id_of("pcx", "1")]
    associated = ec2.associate_route_table(RouteTableId=table, SubnetId=made[id_of("subnet", "2")])
    made["rtbassoc-a4888debe9a09467d"] = associated["AssociationId"]
    ec2.create_route(RouteTableId=table, DestinationCidrBlock="10.1.0.0/16", VpcPeeringConnectionId=peering)
    group_a, group_b = made[id_of("sg", "1")], made[id_of("sg", "2")]
    ec2.authorize_security_group_egress(GroupId=group_a, IpPermissions=[from_group(group_b)])
    ec2.authorize_security_group_ingress(GroupId=group_b, IpPermissions=[from_group(group_a)])
    return made


@golden("peering")
def test_refusal(plain, world, row):
    """Every refusal of the golden file: code, words and status; and a dry run is refused alike."""
    parameters = world.translated(row["parameters"])
    expected = row["code"], world.translated(row["message"]), row.get("status", 400)
    assert refusal(plain, row["action"], parameters) == expected
    assert refusal(plain, row["action"], parameters | {"DryRun": True}) == expected


# -- the life of a connection ------------------------------------------------------------------------------------------


@pytest.fixture
def vpcs(ec2):
    """Two VPCs that may be peered."""
    return [ec2.create_vpc(CidrBlock=cidr)["Vpc"]["VpcId"] for cidr in ("10.0.0.0/16", "10.1.0.0/16")]


def test_life(ec2, vpcs):
    """Asked for, accepted, used by a route, deleted; the SDK's waiters are content."""
    one, other = vpcs
    tags = tagged("vpc-peering-connection", {"Name": "n"})
    made = ec2.create_vpc_peering_connection(VpcId=one, PeerVpcId=other, PeerOwnerId=ACCOUNT, **tags)
    peering = made["VpcPeeringConnection"]["VpcPeeringConnectionId"]
    assert made["VpcPeeringConnection"]["Status"]["Code"] == "pending-acceptance"
    only = {"VpcPeeringConnectionIds": [peering]}
    soon = {"Delay": 0, "MaxAttempts": 2}
    ec2.get_waiter("vpc_peering_connection_exists").wait(**only, WaiterConfig=soon)
    (shown,) = ec2.describe_vpc_peering_connections(**only)["VpcPeeringConnections"]
    assert shown == made["VpcPeeringConnection"]
    assert shown["Tags"] == [{"Key": "Name", "Value": "n"}]
    table = main_table(ec2, one)
    route = {"RouteTableId": table, "DestinationCidrBlock": "10.1.0.0/16"}
    ec2.create_route(**route, VpcPeeringConnectionId=peering)

    def state():
        return ec2.describe_route_tables(RouteTableIds=[table])["RouteTables"][0]["Routes"][1]["State"]

    assert state() == "blackhole"
    accepted = ec2.accept_vpc_peering_connection(VpcPeeringConnectionId=peering)["VpcPeeringConnection"]
    assert (accepted["Status"]["Code"], state()) == ("active", "active")
    assert accepted["AccepterVpcInfo"]["CidrBlock"] == "10.1.0.0/16"
    for vpc in vpcs:
        assert code_of(ec2, "DeleteVpc", VpcId=vpc) == "DependencyViolation"
    ec2.delete_vpc_peering_connection(VpcPeeringConnectionId=peering)
    ec2.get_waiter("vpc_peering_connection_deleted").wait(**only, WaiterConfig=soon)
    assert state() == "blackhole"
    ec2.delete_route(**route)
    for vpc in vpcs:
        ec2.delete_vpc(VpcId=vpc)
    (shown,) = ec2.describe_vpc_peering_connections(**only)["VpcPeeringConnections"]
    assert (shown["Status"]["Code"], shown["RequesterVpcInfo"]["VpcId"]) == ("deleted", one)


def test_a_new_vpc_has_a_main_table(ec2, vpcs):
    """Under an id that stays when it is changed; it goes with the VPC."""
    vpc = vpcs[0]
    table = main_table(ec2, vpc)
    ec2.create_tags(Resources=[table], Tags=[{"Key": "Name", "Value": "main"}])
    (shown,) = ec2.describe_route_tables(Filters=filters(vpc_id=vpc))["RouteTables"]
    assert (shown["RouteTableId"], shown["Tags"]) == (table, [{"Key": "Name", "Value": "main"}])
    ec2.delete_vpc(VpcId=vpc)
    assert ec2.describe_route_tables(Filters=filters(vpc_id=vpc))["RouteTables"] == []


# -- references --------------------------------------------------------------------------------------------------------


def test_stale_rules(ec2, vpcs):
    """Page by page, once the connection is gone; with none before; and a group that is only named so may be deleted."""
    one, other = vpcs
    peering = peered(ec2, one, other)
    named = ec2.create_security_group(GroupName="named", Description="d", VpcId=one)["GroupId"]
    groups = set()
    for number in range(6):
        group = ec2.create_security_group(GroupName=f"g{number}", Description="d", VpcId=other)["GroupId"]
        ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[from_group(named)])
        groups.add(group)
    paginator = ec2.get_paginator("describe_stale_security_groups")

    def stale():
        pages = list(paginator.paginate(VpcId=other, PaginationConfig={"PageSize": 5}))
        return pages, [item for page in pages for item in page["StaleSecurityGroupSet"]]

    assert stale()[1] == []
    references = ec2.describe_security_group_references(GroupId=[named])["SecurityGroupReferenceSet"]
    assert references == [{"GroupId": named, "ReferencingVpcId": other, "VpcPeeringConnectionId": peering}]
    ec2.delete_vpc_peering_connection(VpcPeeringConnectionId=peering)
    pages, items = stale()
    assert (len(pages), {item["GroupId"] for item in items}) == (2, groups)
    (permission,) = items[0]["StaleIpPermissions"]
    assert (permission["IpProtocol"], permission["FromPort"], permission["ToPort"]) == ("tcp", 22, 22)
    pair = {"UserId": ACCOUNT, "GroupId": named, "VpcId": one, "VpcPeeringConnectionId": peering}
    assert permission["UserIdGroupPairs"] == [{**pair, "PeeringStatus": "deleted", "Description": "from A"}]
    assert ec2.describe_security_group_references(GroupId=[named])["SecurityGroupReferenceSet"] == []
    ec2.delete_security_group(GroupId=named)
    assert len(stale()[1]) == 6


# -- the stock CLI -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_stock_cli(deployment, ec2, vpcs, tmp_path):
    """A reference across a connection by the CLI's own spellings, its waiters and its words for errors."""
    aws = CommandLine(tmp_path)
    one, other = vpcs
    made = aws("ec2", "create-vpc-peering-connection", "--vpc-id", one, "--peer-vpc-id", other)
    peering = made["VpcPeeringConnection"]["VpcPeeringConnectionId"]
    named = ("--vpc-peering-connection-id", peering)
    dry = aws.fails("ec2", "accept-vpc-peering-connection", *named, "--dry-run")
    assert "(DryRunOperation) when calling the AcceptVpcPeeringConnection operation" in dry
    accepted = aws("ec2", "accept-vpc-peering-connection", *named)
    assert accepted["VpcPeeringConnection"]["Status"] == {"Code": "active", "Message": "Active"}
    table = aws("ec2", "create-route-table", "--vpc-id", one)["RouteTable"]["RouteTableId"]
    to_other = ("--route-table-id", table, "--destination-cidr-block", "10.1.0.0/16")
    assert aws("ec2", "create-route", *to_other, *named) == {"Return": True}
    query = ("--query", "RouteTables[0].Routes[].[DestinationCidrBlock,GatewayId,State]", "--output", "text")
    shown = aws.run("ec2", "describe-route-tables", "--route-table-ids", table, *query).stdout
    assert shown == "10.0.0.0/16\tlocal\tactive\n10.1.0.0/16\tNone\tactive\n"
    groups = [ec2.create_security_group(GroupName="g", Description="d", VpcId=vpc)["GroupId"] for vpc in (one, other)]
    rule = ("--group-id", groups[1], "--protocol", "tcp", "--port", "22", "--source-group", groups[0])
    (added,) = aws("ec2", "authorize-security-group-ingress", *rule)["SecurityGroupRules"]
    assert added["ReferencedGroupInfo"] == {
        "GroupId": groups[0],
        "UserId": ACCOUNT,
        "VpcId": one,
        "VpcPeeringConnectionId": peering,
        "PeeringStatus": "active",
    }
    aws("ec2", "delete-vpc-peering-connection", *named)
    aws("ec2", "wait", "vpc-peering-connection-deleted", "--vpc-peering-connection-ids", peering)
    again = aws.fails("ec2", "delete-vpc-peering-connection", *named)
    assert again.endswith("attempted to transition from deleted to deleting")
    (stale,) = aws("ec2", "describe-stale-security-groups", "--vpc-id", other)["StaleSecurityGroupSet"]
    assert stale["GroupId"] == groups[1]
    refused = aws.fails("ec2", "authorize-security-group-egress", *rule)
    assert refused.endswith("You have specified two resources that belong to different networks.")


# -- packets -----------------------------------------------------------------------------------------------------------

PORT = 7400

SERVE = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
server = socket.create_server((sys.argv[1], int(sys.argv[2])), family=family)
print("listens", flush=True)
while True:
    connection, _ = server.accept()
    connection.sendall(sys.argv[3].encode())
    connection.close()
"""
HOLD = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=5) as connection:
    print(connection.recv(100).decode(), flush=True)
    connection.settimeout(1.5)
    for line in sys.stdin:
        try:
            connection.sendall(line.encode())
            print(connection.recv(100).decode().strip() or "ended", flush=True)
        except OSError:
            print("cut", flush=True)
"""
"""For each line of input: what comes back through one and the same connection."""
ECHO = """
import socket, sys
server = socket.create_server((sys.argv[1], int(sys.argv[2])))
print("listens", flush=True)
connection, _ = server.accept()
connection.sendall(sys.argv[3].encode())
while line := connection.recv(100):
    connection.sendall(line)
"""
ASK = """
import socket, sys
try:
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=0.7) as connection:
        print(connection.recv(100).decode())
except OSError:
    print("nobody")
"""


def in_machine(instance, program, *arguments):
    """The command that runs a program in an instance's network namespace."""
    return ["ip", "netns", "exec", instance, sys.executable, "-c", program, *arguments]


@contextmanager
def serving(instance, address, name, program=SERVE):
    """A server in an instance that tells everybody its name."""
    command = in_machine(instance, program, address, str(PORT), name)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "listens\n"
            yield
        finally:
            process.kill()


def answer(instance, address):
    """Who answers an instance at an address; `nobody` when no connection comes about."""
    command = in_machine(instance, ASK, address, str(PORT))
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


class Site:
    """A VPC with one instance in a group of its own, which lets nothing in and everything out."""

    def __init__(self, ec2, cidr, address):
        self.cidr, self.address = cidr, address
        self.vpc = ec2.create_vpc(CidrBlock=cidr)["Vpc"]["VpcId"]
        self.table = main_table(ec2, self.vpc)
        subnet_range = address.rsplit(".", 1)[0] + ".0/24"
        self.subnet = ec2.create_subnet(VpcId=self.vpc, CidrBlock=subnet_range)["Subnet"]["SubnetId"]
        self.group = ec2.create_security_group(GroupName="g", Description="d", VpcId=self.vpc)["GroupId"]
        place = {"SubnetId": self.subnet, "SecurityGroupIds": [self.group], "PrivateIpAddress": address}
        made = run(ec2, **place)
        self.instance, self.interface = made["InstanceId"], made["NetworkInterfaces"][0]["NetworkInterfaceId"]
        self.ipv6_range = ""

    def with_ipv6(self, ec2):
        """Give VPC, subnet and instance IPv6; the instance's address."""
        made = ec2.associate_vpc_cidr_block(VpcId=self.vpc, AmazonProvidedIpv6CidrBlock=True)
        self.ipv6_range = made["Ipv6CidrBlockAssociation"]["Ipv6CidrBlock"]
        of_subnet = self.ipv6_range.replace("/56", "/64")
        ec2.associate_subnet_cidr_block(SubnetId=self.subnet, Ipv6CidrBlock=of_subnet)
        assigned = ec2.assign_ipv6_addresses(NetworkInterfaceId=self.interface, Ipv6AddressCount=1)
        return assigned["AssignedIpv6Addresses"][0]


def connect(ec2, one, other):
    """Peer two sites, with routes in both main tables; the connection's id."""
    peering = peered(ec2, one.vpc, other.vpc)
    for here, there in ((one, other), (other, one)):
        route = {"RouteTableId": here.table, "DestinationCidrBlock": there.cidr}
        ec2.create_route(**route, VpcPeeringConnectionId=peering)
    return peering


@pytest.mark.slow
def test_packets_by_reference(ec2):
    """By a reference to the group of A its members reach B while the peering is active; a third VPC's do not."""
    a, b, other = (Site(ec2, f"10.{number}.0.0/16", f"10.{number}.1.10") for number in range(3))
    peering = connect(ec2, a, b)
    connect(ec2, other, b)
    with serving(b.instance, b.address, "b"):
        assert answer(a.instance, b.address) == "nobody"
        ec2.authorize_security_group_ingress(GroupId=b.group, IpPermissions=[from_group(a.group, PORT)])
        assert answer(a.instance, b.address) == "b"
        assert answer(other.instance, b.address) == "nobody"
        ec2.delete_vpc_peering_connection(VpcPeeringConnectionId=peering)
        assert answer(a.instance, b.address) == "nobody"
        again = peered(ec2, b.vpc, a.vpc)
        assert answer(a.instance, b.address) == "nobody"  # the routes still lead into the old connection
        for here, there in ((a, b), (b, a)):
            route = {"RouteTableId": here.table, "DestinationCidrBlock": there.cidr}
            ec2.replace_route(**route, VpcPeeringConnectionId=again)
        assert answer(a.instance, b.address) == "b"


@pytest.mark.slow
def test_packets_by_outbound_reference(ec2):
    """An outbound rule that names the other VPC's group lets out to its members alone."""
    a, b = Site(ec2, "10.0.0.0/16", "10.0.1.10"), Site(ec2, "10.1.0.0/16", "10.1.1.10")
    connect(ec2, a, b)
    everybody = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    ec2.authorize_security_group_ingress(GroupId=b.group, IpPermissions=[everybody])
    ec2.revoke_security_group_egress(GroupId=a.group, IpPermissions=[everybody])
    second = ec2.create_security_group(GroupName="s", Description="d", VpcId=b.vpc)["GroupId"]
    ec2.authorize_security_group_egress(GroupId=a.group, IpPermissions=[from_group(second, PORT)])
    with serving(b.instance, b.address, "b"):
        assert answer(a.instance, b.address) == "nobody"
        ec2.modify_instance_attribute(InstanceId=b.instance, Groups=[b.group, second])
        assert answer(a.instance, b.address) == "b"
        ec2.modify_instance_attribute(InstanceId=b.instance, Groups=[b.group])
        assert answer(a.instance, b.address) == "nobody"


@pytest.mark.slow
def test_packets_follow_route_tables(ec2):
    """Both ways need a route; a subnet's own table counts instead of the main one."""
    a, b = Site(ec2, "10.0.0.0/16", "10.0.1.10"), Site(ec2, "10.1.0.0/16", "10.1.1.10")
    peering = peered(ec2, a.vpc, b.vpc)
    everybody = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    ec2.authorize_security_group_ingress(GroupId=b.group, IpPermissions=[everybody])
    there = {"DestinationCidrBlock": b.cidr, "VpcPeeringConnectionId": peering}
    back = {"DestinationCidrBlock": a.cidr, "VpcPeeringConnectionId": peering}
    with serving(b.instance, b.address, "b"):
        assert answer(a.instance, b.address) == "nobody"
        ec2.create_route(RouteTableId=a.table, **there)
        assert answer(a.instance, b.address) == "nobody"
        ec2.create_route(RouteTableId=b.table, **back)
        assert answer(a.instance, b.address) == "b"
        empty = ec2.create_route_table(VpcId=a.vpc)["RouteTable"]["RouteTableId"]
        association = ec2.associate_route_table(RouteTableId=empty, SubnetId=a.subnet)["AssociationId"]
        assert answer(a.instance, b.address) == "nobody"
        ec2.create_route(RouteTableId=empty, **there)
        assert answer(a.instance, b.address) == "b"
        ec2.delete_route(RouteTableId=empty, DestinationCidrBlock=b.cidr)
        assert answer(a.instance, b.address) == "nobody"
        ec2.disassociate_route_table(AssociationId=association)
        assert answer(a.instance, b.address) == "b"


@pytest.mark.slow
def test_overlapping_vpcs_are_apart(ec2):
    """Of two VPCs with the same range, each sees its own; an address that only the other one has is nobody's; a third
    VPC that is peered with one of them reaches that one."""
    everybody = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    one, two = Site(ec2, "10.0.0.0/16", "10.0.1.10"), Site(ec2, "10.0.0.0/16", "10.0.1.10")
    alone = run(ec2, SubnetId=two.subnet, SecurityGroupIds=[two.group], PrivateIpAddress="10.0.1.20")["InstanceId"]
    beside = run(ec2, SubnetId=one.subnet, SecurityGroupIds=[one.group], PrivateIpAddress="10.0.1.30")["InstanceId"]
    third = Site(ec2, "10.1.0.0/16", "10.1.1.10")
    for site in (one, two):
        ec2.authorize_security_group_ingress(GroupId=site.group, IpPermissions=[everybody])
    made = ec2.create_vpc_peering_connection(VpcId=one.vpc, PeerVpcId=two.vpc)["VpcPeeringConnection"]
    assert made["Status"]["Code"] == "failed"
    connect(ec2, third, two)
    servers = (one.instance, one.address, "one"), (two.instance, two.address, "two"), (alone, "10.0.1.20", "alone")
    with serving(*servers[0]), serving(*servers[1]), serving(*servers[2]):
        assert answer(beside, one.address) == "one"
        assert answer(alone, two.address) == "two"
        assert answer(beside, "10.0.1.20") == "nobody"
        assert answer(third.instance, two.address) == "two"
        assert answer(third.instance, "10.0.1.20") == "alone"


@pytest.mark.slow
def test_a_connection_ends_with_the_peering(ec2):
    """A tracked connection outlives the rule by which it came, but not the peering."""
    a, b = Site(ec2, "10.0.0.0/16", "10.0.1.10"), Site(ec2, "10.1.0.0/16", "10.1.1.10")
    peering = connect(ec2, a, b)
    rule = {"GroupId": b.group, "IpPermissions": [from_group(a.group, PORT)]}
    ec2.authorize_security_group_ingress(**rule)
    command = in_machine(a.instance, HOLD, b.address, str(PORT))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    with serving(b.instance, b.address, "b", ECHO), subprocess.Popen(command, **pipes) as holding:

        def echo(line):
            holding.stdin.write(f"{line}\n")
            return holding.stdout.readline().strip()

        assert holding.stdout.readline() == "b\n"
        assert echo("one") == "one"
        ec2.revoke_security_group_ingress(**rule)
        assert answer(a.instance, b.address) == "nobody"
        assert echo("two") == "two"
        ec2.delete_vpc_peering_connection(VpcPeeringConnectionId=peering)
        assert echo("three") == "cut"
        holding.kill()


@pytest.mark.slow
def test_packets_in_ipv6(ec2):
    """Routes and references are good for IPv6 too."""
    a, b = Site(ec2, "10.0.0.0/16", "10.0.1.10"), Site(ec2, "10.1.0.0/16", "10.1.1.10")
    addresses = [site.with_ipv6(ec2) for site in (a, b)]
    peering = connect(ec2, a, b)
    rule = {"GroupId": b.group, "IpPermissions": [from_group(a.group, PORT)]}
    everybody = {"IpProtocol": "-1", "Ipv6Ranges": [{"CidrIpv6": "::/0"}]}
    ec2.authorize_security_group_egress(GroupId=a.group, IpPermissions=[everybody])
    with serving(b.instance, addresses[1], "b"):
        ec2.authorize_security_group_ingress(**rule)
        assert answer(a.instance, addresses[1]) == "nobody"
        for here, there in ((a, b), (b, a)):
            route = {"RouteTableId": here.table, "DestinationIpv6CidrBlock": there.ipv6_range}
            ec2.create_route(**route, VpcPeeringConnectionId=peering)
        assert answer(a.instance, addresses[1]) == "b"
        ec2.revoke_security_group_ingress(**rule)
        assert answer(a.instance, addresses[1]) == "nobody"
