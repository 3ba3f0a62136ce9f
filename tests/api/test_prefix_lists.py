"""Managed prefix lists as clients use them: the stock SDK and CLI, the sequences of Terraform's provider, packets."""

import itertools
import subprocess
import sys
import threading

import pytest

from tests.api.test_stock_cli import CommandLine
from tests.api.worlds import Made, code_of, filters, golden, id_of, refusal, run, tagged, wait_for_state

ACCOUNT = "123456789012"
_numbers = itertools.count(1)


def from_list(prefix_list, protocol="tcp", port=22, **more):
    """An IpPermission whose source is a list."""
    permission = {"IpProtocol": protocol, "PrefixListIds": [{"PrefixListId": prefix_list, **more}]}
    return permission if protocol == "-1" else permission | {"FromPort": port, "ToPort": port}


@pytest.fixture(scope="module")
def vpc(ec2):
    """One VPC for the module."""
    return ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]


@pytest.fixture
def group(ec2, vpc):
    """A group of the test's own."""
    name = f"lists-{next(_numbers)}"
    return ec2.create_security_group(GroupName=name, Description="d", VpcId=vpc)["GroupId"]


def new_list(ec2, *cidrs, size=10, family="IPv4", **more):
    """A list of these blocks; as the answer has it."""
    return ec2.create_managed_prefix_list(
        PrefixListName=f"list-{next(_numbers)}",
        MaxEntries=size,
        AddressFamily=family,
        Entries=[{"Cidr": cidr} for cidr in cidrs],
        **more,
    )["PrefixList"]


def shown(ec2, prefix_list):
    """The list as DescribeManagedPrefixLists has it."""
    (found,) = ec2.describe_managed_prefix_lists(PrefixListIds=[prefix_list])["PrefixLists"]
    return found


def blocks(ec2, prefix_list, **more):
    """Its blocks, as the paginator finds them."""
    pages = ec2.get_paginator("get_managed_prefix_list_entries").paginate(PrefixListId=prefix_list, **more)
    return [entry["Cidr"] for page in pages for entry in page["Entries"]]


def modify(ec2, prefix_list, add=(), remove=(), version=None):
    """Add and remove entries at the present version, or at the one given; the list then."""
    return ec2.modify_managed_prefix_list(
        PrefixListId=prefix_list,
        CurrentVersion=shown(ec2, prefix_list)["Version"] if version is None else version,
        AddEntries=[{"Cidr": one} if isinstance(one, str) else one for one in add],
        RemoveEntries=[{"Cidr": one} for one in remove],
    )["PrefixList"]


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(ec2):
    """The World of tests/unit/test_control_prefix_lists.py, made by the API."""
    made = Made(ec2)
    made.vpc(id_of("vpc", "1"), "sg-default")
    made.group(id_of("sg", "1"), id_of("vpc", "1"), "web")
    office = new_list(ec2, size=3)["PrefixListId"]
    modify(ec2, office, add=[{"Cidr": "192.0.2.0/24", "Description": "office"}, "198.51.100.0/24"])
    made[id_of("pl", "1")] = office
    made[id_of("pl", "2")] = new_list(ec2, "2001:db8::/32", size=59, family="IPv6")["PrefixListId"]
    ssh = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22}
    made.rules(id_of("sg", "1"), [id_of("sgr", "1")], from_list(office))
    made.rules(id_of("sg", "1"), [id_of("sgr", "1", "2")], {**ssh, "IpRanges": [{"CidrIp": "203.0.113.0/24"}]})
    return made


@golden("prefix-lists")
def test_refusal(plain, world, row):
    """Every refusal of the golden file, with DryRun too."""
    parameters = world.translated(row["parameters"])
    expected = row["code"], world.translated(row["message"]), 400
    for more in ({}, {"DryRun": True}):
        assert refusal(plain, row["action"], parameters | more) == expected


def test_entries_of_one_call(plain):
    """More than a hundred entries are refused as at AWS, and not by the SDK's model of the call."""
    many = [{"Cidr": f"10.{number}.0.0/16"} for number in range(101)]
    new = {"PrefixListName": "n", "MaxEntries": 500, "AddressFamily": "IPv4", "Entries": many}
    assert refusal(plain, "CreateManagedPrefixList", new) == (
        "InvalidParameterValue",
        "The number of entries per request cannot exceeds limit (100).",
        400,
    )


# -- the life of a list ------------------------------------------------------------------------------------------------


def test_answers(ec2):
    """What a list is made with is what is shown; without tags there is an empty list of them, as at AWS."""
    made = new_list(ec2, "10.1.2.3/8", **tagged("prefix-list", {"Team": "red"}))
    prefix_list = made["PrefixListId"]
    assert len(prefix_list) == len("pl-") + 17
    assert made == {
        "PrefixListId": prefix_list,
        "AddressFamily": "IPv4",
        "State": "create-complete",
        "PrefixListArn": f"arn:aws:ec2:us-east-1:{ACCOUNT}:prefix-list/{prefix_list}",
        "PrefixListName": made["PrefixListName"],
        "MaxEntries": 10,
        "Version": 1,
        "Tags": [{"Key": "Team", "Value": "red"}],
        "OwnerId": ACCOUNT,
    }
    assert shown(ec2, prefix_list) == made
    assert new_list(ec2)["Tags"] == []
    assert blocks(ec2, prefix_list) == ["10.0.0.0/8"]


def test_versions(ec2):
    """Entries come and go in versions, all of which can be read and restored."""
    prefix_list = new_list(ec2, "192.0.2.0/24")["PrefixListId"]
    second = modify(ec2, prefix_list, add=["10.0.0.0/8"])
    assert (second["Version"], second["State"]) == (2, "modify-complete")
    modify(ec2, prefix_list, remove=["192.0.2.0/24"], add=["198.51.100.0/24"])
    restored = ec2.restore_managed_prefix_list_version(PrefixListId=prefix_list, PreviousVersion=1, CurrentVersion=3)[
        "PrefixList"
    ]
    assert (restored["Version"], restored["State"]) == (4, "restore-complete")
    assert [blocks(ec2, prefix_list, TargetVersion=version) for version in (1, 2, 3, 4)] == [
        ["192.0.2.0/24"],
        ["10.0.0.0/8", "192.0.2.0/24"],
        ["10.0.0.0/8", "198.51.100.0/24"],
        ["192.0.2.0/24"],
    ]
    ec2.delete_managed_prefix_list(PrefixListId=prefix_list)
    assert code_of(ec2, "GetManagedPrefixListEntries", PrefixListId=prefix_list) == "InvalidPrefixListID.NotFound"


def test_many_entries(ec2):
    """A list of a thousand, filled by ten calls, read in pages of a hundred and at once."""
    prefix_list = new_list(ec2, size=1000)["PrefixListId"]
    every = [f"10.{first}.{second}.0/24" for first in range(10) for second in range(100)]
    for first in range(10):
        modify(ec2, prefix_list, add=every[first * 100 : first * 100 + 100])
    assert blocks(ec2, prefix_list) == every
    assert blocks(ec2, prefix_list, PaginationConfig={"PageSize": 100}) == every
    assert code_of(ec2, "ModifyManagedPrefixList", PrefixListId=prefix_list, AddEntries=[{"Cidr": "11.0.0.0/8"}]) == (
        "PrefixListMaxEntriesExceeded"
    )


def test_rules(ec2, group):
    """A list as a source: in answers, merged, filtered for, and what keeps it from being deleted."""
    prefix_list = new_list(ec2, "192.0.2.0/24")["PrefixListId"]
    permission = from_list(prefix_list, Description="from-corp")
    (rule,) = ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[permission])["SecurityGroupRules"]
    assert (rule["PrefixListId"], rule["Description"]) == (prefix_list, "from-corp")
    assert not {"CidrIpv4", "CidrIpv6", "ReferencedGroupInfo"} & set(rule)
    (found,) = ec2.describe_security_groups(
        Filters=[{"Name": "ip-permission.prefix-list-id", "Values": [prefix_list]}]
    )["SecurityGroups"]
    assert found["GroupId"] == group
    assert found["IpPermissions"] == [{**permission, "UserIdGroupPairs": [], "IpRanges": [], "Ipv6Ranges": []}]
    associated = ec2.get_managed_prefix_list_associations(PrefixListId=prefix_list)["PrefixListAssociations"]
    assert associated == [{"ResourceId": group, "ResourceOwner": ACCOUNT}]
    assert code_of(ec2, "DeleteManagedPrefixList", PrefixListId=prefix_list) == "DependencyViolation"
    revoked = ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=[from_list(prefix_list)])
    assert revoked["RevokedSecurityGroupRules"][0]["PrefixListId"] == prefix_list
    gone = ec2.delete_managed_prefix_list(PrefixListId=prefix_list)["PrefixList"]
    assert (gone["PrefixListId"], gone["State"]) == (prefix_list, "delete-complete")


def test_resize(ec2, group):
    """A size that a group cannot take fails, and the state's message names the group; a smaller one works."""
    prefix_list = new_list(ec2, "192.0.2.0/24", size=50)["PrefixListId"]
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[from_list(prefix_list)])
    failed = ec2.modify_managed_prefix_list(PrefixListId=prefix_list, MaxEntries=61)["PrefixList"]
    assert (failed["State"], failed["MaxEntries"], failed["Version"]) == ("modify-failed", 50, 1)
    assert group in failed["StateMessage"]
    assert shown(ec2, prefix_list) == failed
    resized = ec2.modify_managed_prefix_list(PrefixListId=prefix_list, MaxEntries=60)["PrefixList"]
    assert (resized["State"], resized["MaxEntries"]) == ("modify-complete", 60)
    assert "StateMessage" not in resized


def test_audit(deployment, ec2):
    """The record of a call names the list."""
    prefix_list = new_list(ec2)["PrefixListId"]
    modify(ec2, prefix_list, add=["10.0.0.0/8"])
    event = next(one for one in reversed(deployment.audit()) if one["eventName"] == "ModifyManagedPrefixList")
    arn = f"arn:aws:ec2:us-east-1:{ACCOUNT}:prefix-list/{prefix_list}"
    assert {"accountId": ACCOUNT, "type": "AWS::EC2::PrefixList", "ARN": arn} in event["resources"]


# -- Terraform's aws_ec2_managed_prefix_list and aws_ec2_managed_prefix_list_entry -------------------------------------


def test_terraform_list(ec2):
    """Create; read; larger before entries are added, smaller after they are removed; a description alone; delete."""
    entries = [{"Cidr": "10.0.0.0/16", "Description": "a"}, {"Cidr": "10.1.0.0/16"}]
    made = ec2.create_managed_prefix_list(
        PrefixListName="tf", MaxEntries=2, AddressFamily="IPv4", Entries=entries, **tagged("prefix-list", {"a": "1"})
    )["PrefixList"]
    name = {"PrefixListId": made["PrefixListId"], "PrefixListName": "tf"}
    assert shown(ec2, made["PrefixListId"])["State"] == "create-complete"
    assert ec2.get_managed_prefix_list_entries(PrefixListId=made["PrefixListId"])["Entries"] == entries

    ec2.modify_managed_prefix_list(PrefixListId=made["PrefixListId"], MaxEntries=3)
    assert shown(ec2, made["PrefixListId"])["State"] == "modify-complete"
    third = {"Cidr": "10.2.0.0/16", "Description": "c"}
    ec2.modify_managed_prefix_list(**name, CurrentVersion=made["Version"], AddEntries=[third])

    # A description that changes is removed first, alone, and the version is read again.
    gone = [{"Cidr": "10.0.0.0/16"}]
    ec2.modify_managed_prefix_list(PrefixListId=made["PrefixListId"], CurrentVersion=2, RemoveEntries=gone)
    version = shown(ec2, made["PrefixListId"])["Version"]
    again = [{"Cidr": "10.0.0.0/16", "Description": "b"}]
    ec2.modify_managed_prefix_list(**name, CurrentVersion=version, AddEntries=again)
    found = ec2.get_managed_prefix_list_entries(PrefixListId=made["PrefixListId"])["Entries"]
    assert found == [*again, entries[1], third]

    ec2.modify_managed_prefix_list(**name, CurrentVersion=4, RemoveEntries=[{"Cidr": "10.1.0.0/16"}])
    ec2.modify_managed_prefix_list(PrefixListId=made["PrefixListId"], MaxEntries=2)
    ec2.create_tags(Resources=[made["PrefixListId"]], Tags=[{"Key": "a", "Value": "2"}])
    last = shown(ec2, made["PrefixListId"])
    assert (last["MaxEntries"], last["Version"], last["Tags"]) == (2, 5, [{"Key": "a", "Value": "2"}])

    ec2.delete_managed_prefix_list(PrefixListId=made["PrefixListId"])
    for action in ("DeleteManagedPrefixList", "GetManagedPrefixListEntries"):
        assert code_of(ec2, action, PrefixListId=made["PrefixListId"]) == "InvalidPrefixListID.NotFound"
    asked = {"PrefixListIds": [made["PrefixListId"]]}
    assert code_of(ec2, "DescribeManagedPrefixLists", **asked) == "InvalidPrefixListID.NotFound"


@pytest.mark.slow
def test_terraform_entries(deployment, ec2):
    """Entries as resources of their own, five at once: who comes with an old version tries again, and all are in."""
    prefix_list = new_list(ec2, size=20)["PrefixListId"]
    wanted, refused = [f"10.{number}.0.0/16" for number in range(5)], []

    def change(**entries):
        client = deployment.client("ec2")
        while True:
            version = shown(client, prefix_list)["Version"]
            try:
                modify(client, prefix_list, version=version, **entries)
            except client.exceptions.ClientError as error:
                assert error.response["Error"]["Code"] == "PrefixListVersionMismatch"
                refused.append(entries)
            else:
                return

    def at_once(**kind):
        (name,) = kind
        threads = [threading.Thread(target=change, kwargs={name: [one]}) for one in wanted]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)

    at_once(add=True)
    assert blocks(ec2, prefix_list) == wanted
    at_once(remove=True)
    assert blocks(ec2, prefix_list) == []
    assert shown(ec2, prefix_list)["Version"] == 11
    assert refused  # otherwise this has shown nothing

    # What the provider takes for success when an entry is gone already.
    asked = {"PrefixListId": prefix_list, "CurrentVersion": 11, "RemoveEntries": [{"Cidr": wanted[0]}]}
    code, message, _ = refusal(ec2, "ModifyManagedPrefixList", asked)
    assert (code, message.endswith("does not exist.")) == ("InvalidPrefixListModification", True)


# -- the stock CLI -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_cli(deployment, ec2, group, tmp_path):
    """The CLI's own spellings, from a list to a rule and back."""
    aws = CommandLine(tmp_path)
    made = aws(
        *("ec2", "create-managed-prefix-list", "--address-family", "IPv4", "--max-entries", "10"),
        *("--prefix-list-name", "stock-cli-cidrs"),
        *("--entries", "Cidr=10.0.0.0/16,Description=vpc-a", "Cidr=10.2.0.0/16,Description=vpc-b"),
    )["PrefixList"]
    named = ("--prefix-list-id", made["PrefixListId"])
    changed = aws(
        *("ec2", "modify-managed-prefix-list", *named, "--current-version", "1"),
        *("--add-entries", "Cidr=10.1.0.0/16,Description=vpc-c"),
    )["PrefixList"]
    assert (changed["Version"], changed["State"]) == (2, "modify-complete")
    stale = aws.fails(
        *("ec2", "modify-managed-prefix-list", *named, "--current-version", "1"),
        *("--remove-entries", "Cidr=10.1.0.0/16"),
    )
    assert "(PrefixListVersionMismatch) when calling the ModifyManagedPrefixList operation" in stale
    assert stale.endswith("The prefix list has the incorrect version number.")
    entries = aws("ec2", "get-managed-prefix-list-entries", *named)["Entries"]
    assert [one["Description"] for one in entries] == ["vpc-a", "vpc-c", "vpc-b"]
    restored = aws(
        *("ec2", "restore-managed-prefix-list-version", *named, "--current-version", "2", "--previous-version", "1")
    )["PrefixList"]
    assert (restored["Version"], restored["State"]) == (3, "restore-complete")

    permission = f"IpProtocol=tcp,FromPort=22,ToPort=22,PrefixListIds=[{{PrefixListId={made['PrefixListId']}}}]"
    rule = ("--group-id", group, "--ip-permissions", permission)
    aws("ec2", "authorize-security-group-ingress", *rule)
    found = aws("ec2", "get-managed-prefix-list-associations", *named)["PrefixListAssociations"]
    assert [one["ResourceId"] for one in found] == [group]
    assert "(DependencyViolation)" in aws.fails("ec2", "delete-managed-prefix-list", *named)
    aws("ec2", "revoke-security-group-ingress", *rule)
    by_name = ("--filters", "Name=prefix-list-name,Values=stock-cli-*")
    listed = aws("ec2", "describe-managed-prefix-lists", *by_name)["PrefixLists"]
    assert [one["PrefixListId"] for one in listed] == [made["PrefixListId"]]
    assert aws("ec2", "delete-managed-prefix-list", *named)["PrefixList"]["State"] == "delete-complete"
    assert aws("ec2", "describe-prefix-lists")["PrefixLists"] == []


# -- packets -----------------------------------------------------------------------------------------------------------

CONNECT = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=float(sys.argv[3]))
except ConnectionRefusedError:
    print("arrived")
except TimeoutError:
    print("dropped")
"""
"""Nobody listens: a packet that arrives is answered by a reset, one that the rules drop by nothing."""


LISTEN = """
import socket, sys
listener = socket.create_server(("", int(sys.argv[1])))
print("listening", flush=True)
connection = listener.accept()[0]
while sent := connection.recv(100):
    connection.sendall(sent)
"""
TALK = """
import socket, sys
connection = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=1)
for line in sys.stdin:
    connection.sendall(line.encode())
    try:
        print(connection.recv(100).decode(), end="", flush=True)
    except TimeoutError:
        print("nothing", flush=True)
"""
"""What is said comes back, line by line."""


class Machines:
    """Two instances; the second one's group lets in, and the first one's lets out, what the test says."""

    def __init__(self, ec2):
        self.ec2 = ec2
        self.vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        self.subnet = ec2.create_subnet(VpcId=self.vpc, CidrBlock="10.0.1.0/24")["Subnet"]["SubnetId"]
        self.groups, self.instances, self.addresses = [], [], ["10.0.1.10", "10.0.1.20"]
        for name, address in zip(("from", "to"), self.addresses, strict=True):
            group = ec2.create_security_group(GroupName=name, Description="d", VpcId=self.vpc)["GroupId"]
            made = run(ec2, SubnetId=self.subnet, SecurityGroupIds=[group], PrivateIpAddress=address)["InstanceId"]
            wait_for_state(ec2, made, "running")
            self.groups.append(group)
            self.instances.append(made)

    def command(self, index, script, *arguments):
        """The command that runs a script on an instance."""
        return ["ip", "netns", "exec", self.instances[index], sys.executable, "-c", script, *map(str, arguments)]

    def arrives(self, port=7300, wait=0.5, address=None):
        """Whether a connection of the first instance to the second one gets there."""
        command = self.command(0, CONNECT, address or self.addresses[1], port, wait)
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return {"arrived": True, "dropped": False}[done.stdout.strip()]

    def with_ipv6(self):
        """Give both an IPv6 address; the addresses."""
        block = self.ec2.associate_vpc_cidr_block(VpcId=self.vpc, AmazonProvidedIpv6CidrBlock=True)
        block = block["Ipv6CidrBlockAssociation"]["Ipv6CidrBlock"].replace("/56", "/64")
        self.ec2.associate_subnet_cidr_block(SubnetId=self.subnet, Ipv6CidrBlock=block)
        found = self.ec2.describe_network_interfaces(Filters=filters(subnet_id=self.subnet))["NetworkInterfaces"]
        interfaces = {one["PrivateIpAddress"]: one["NetworkInterfaceId"] for one in found}
        return [
            self.ec2.assign_ipv6_addresses(NetworkInterfaceId=interfaces[one], Ipv6AddressCount=1)[
                "AssignedIpv6Addresses"
            ][0]
            for one in self.addresses
        ]


@pytest.fixture(scope="module")
def machines(ec2):
    """The two instances."""
    return Machines(ec2)


@pytest.mark.slow
def test_packets_in(ec2, machines):
    """Inbound rules follow the list's present version when the call is answered: entries, restored versions, rules."""
    source, group = f"{machines.addresses[0]}/32", machines.groups[1]
    prefix_list = new_list(ec2)["PrefixListId"]
    rule = {"GroupId": group, "IpPermissions": [from_list(prefix_list, port=7300)]}
    ec2.authorize_security_group_ingress(**rule)
    assert not machines.arrives()
    modify(ec2, prefix_list, add=[source, "192.0.2.0/24"])  # version 2
    assert machines.arrives()
    assert not machines.arrives(7301)
    modify(ec2, prefix_list, remove=[source])  # version 3
    assert not machines.arrives()
    ec2.restore_managed_prefix_list_version(PrefixListId=prefix_list, PreviousVersion=2, CurrentVersion=3)
    assert machines.arrives()
    ec2.restore_managed_prefix_list_version(PrefixListId=prefix_list, PreviousVersion=1, CurrentVersion=4)
    assert not machines.arrives()
    modify(ec2, prefix_list, add=["10.0.0.0/16"])
    assert machines.arrives()
    ec2.revoke_security_group_ingress(**rule)
    assert not machines.arrives()


@pytest.mark.slow
def test_packets_out(ec2, machines):
    """The same for outbound rules; another list's entries are nothing to them."""
    leaving, arriving = machines.groups
    everything = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    to_port = {"IpProtocol": "tcp", "FromPort": 7310, "ToPort": 7310, "IpRanges": [{"CidrIp": "10.0.0.0/16"}]}
    ec2.authorize_security_group_ingress(GroupId=arriving, IpPermissions=[to_port])
    assert machines.arrives(7310)
    ec2.revoke_security_group_egress(GroupId=leaving, IpPermissions=[everything])
    assert not machines.arrives(7310)
    prefix_list, other = new_list(ec2)["PrefixListId"], new_list(ec2, "0.0.0.0/0")["PrefixListId"]
    ec2.authorize_security_group_egress(GroupId=leaving, IpPermissions=[from_list(prefix_list, "-1")])
    assert not machines.arrives(7310)
    modify(ec2, prefix_list, add=["10.0.1.16/28"])
    assert machines.arrives(7310)
    (rule,) = (
        one
        for one in ec2.describe_security_group_rules(Filters=filters(group_id=leaving))["SecurityGroupRules"]
        if one.get("PrefixListId") == prefix_list
    )
    modify(ec2, prefix_list, remove=["10.0.1.16/28"])
    assert not machines.arrives(7310)
    change = {"IpProtocol": "-1", "PrefixListId": other}
    update = {"SecurityGroupRuleId": rule["SecurityGroupRuleId"], "SecurityGroupRule": change}
    ec2.modify_security_group_rules(GroupId=leaving, SecurityGroupRules=[update])
    assert machines.arrives(7310)
    ec2.revoke_security_group_egress(GroupId=leaving, SecurityGroupRuleIds=[rule["SecurityGroupRuleId"]])
    ec2.authorize_security_group_egress(GroupId=leaving, IpPermissions=[everything])
    assert machines.arrives(7310)


@pytest.mark.slow
def test_packets_of_many_groups(ec2, machines):
    """One change of a list reaches every group whose rules name it."""
    prefix_list = new_list(ec2)["PrefixListId"]
    ports = range(7320, 7326)
    subnet_groups = list(machines.groups[1:])
    for port in ports[1:]:
        group = ec2.create_security_group(GroupName=f"p{port}", Description="d", VpcId=machines.vpc)["GroupId"]
        ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[from_list(prefix_list, port=port)])
        subnet_groups.append(group)
    ec2.modify_instance_attribute(InstanceId=machines.instances[1], Groups=subnet_groups)
    assert [machines.arrives(port, 0.2) for port in ports] == [False] * 6
    modify(ec2, prefix_list, add=["10.0.1.0/24"])
    assert [machines.arrives(port, 0.2) for port in ports] == [False, *[True] * 5]
    modify(ec2, prefix_list, remove=["10.0.1.0/24"])
    assert [machines.arrives(port, 0.2) for port in ports] == [False] * 6


@pytest.mark.slow
def test_packets_of_ipv6(ec2, machines):
    """A list of IPv6 opens to IPv6 alone, beside one of IPv4 in a rule of the same words."""
    leaving, arriving = machines.groups
    sender, receiver = machines.with_ipv6()
    everywhere = {"IpProtocol": "-1", "Ipv6Ranges": [{"CidrIpv6": "::/0"}]}
    ec2.authorize_security_group_egress(GroupId=leaving, IpPermissions=[everywhere])
    four, six = new_list(ec2)["PrefixListId"], new_list(ec2, family="IPv6")["PrefixListId"]
    permissions = [from_list(four, port=7330), from_list(six, port=7330)]
    ec2.authorize_security_group_ingress(GroupId=arriving, IpPermissions=permissions)

    def arriving_by():
        return machines.arrives(7330), machines.arrives(7330, address=receiver)

    assert arriving_by() == (False, False)
    modify(ec2, six, add=[f"{sender}/128"])
    assert arriving_by() == (False, True)
    modify(ec2, four, add=["0.0.0.0/0"])
    assert arriving_by() == (True, True)
    modify(ec2, six, remove=[f"{sender}/128"], add=["2001:db8::/32"])
    assert arriving_by() == (True, False)


@pytest.mark.slow
def test_connections(ec2, machines):
    """An entry that goes takes no connection with it, not even one for every address: such a flow is tracked."""
    prefix_list = new_list(ec2, "0.0.0.0/0")["PrefixListId"]
    rule = [from_list(prefix_list, port=7340)]
    ec2.authorize_security_group_ingress(GroupId=machines.groups[1], IpPermissions=rule)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    talk = machines.command(0, TALK, machines.addresses[1], 7340)
    with subprocess.Popen(machines.command(1, LISTEN, 7340), **pipes) as listener:
        assert listener.stdout.readline() == "listening\n"
        talker = subprocess.Popen(talk, **pipes)

        def say(word):
            talker.stdin.write(f"{word}\n")
            talker.stdin.flush()
            return talker.stdout.readline().strip()

        assert say("before") == "before"
        modify(ec2, prefix_list, remove=["0.0.0.0/0"])
        assert say("after") == "after"
        assert not machines.arrives(7340)
        talker.communicate()
