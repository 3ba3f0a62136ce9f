"""What was acknowledged is there after a stop and a start, and after kill -9 of the API process."""

import threading
import time

import pytest
from botocore.exceptions import BotoCoreError

from tests.api.kernel import kernel_rules
from tests.api.people import User, allow
from tests.api.worlds import call, filters, network_world, tagged

LISTS = (
    "DescribeVpcs",
    "DescribeSubnets",
    "DescribeSecurityGroups",
    "DescribeSecurityGroupRules",
    "DescribeNetworkInterfaces",
    "DescribeInstances",
    "DescribeInstanceStatus",
    "DescribeInstanceConnectEndpoints",
    "DescribeTags",
    "DescribeManagedPrefixLists",
)


def everything(ec2):
    """All that the API shows."""
    return {action: call(ec2, action, {}) | {"ResponseMetadata": None} for action in LISTS}


@pytest.mark.slow
def test_stop_and_start(deployment, ec2, iam):
    """Every value survives: resources, rules, lists, tags, states, users and keys, ClientTokens, pages begun before."""
    made = network_world(ec2)
    group = made["sg-22222222222222222"]
    ec2.authorize_security_group_ingress(
        GroupId=group,
        IpPermissions=[{"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "UserIdGroupPairs": [{"GroupId": group}]}],
        **tagged("security-group-rule", {"Team": "red"}),
    )
    ec2.modify_vpc_attribute(VpcId=made["vpc-11111111111111111"], EnableDnsHostnames={"Value": True})
    new = {"PrefixListName": "kept", "MaxEntries": 5, "AddressFamily": "IPv4", "Entries": [{"Cidr": "192.0.2.0/24"}]}
    prefix_list = {"PrefixListId": ec2.create_managed_prefix_list(**new)["PrefixList"]["PrefixListId"]}
    ec2.modify_managed_prefix_list(**prefix_list, AddEntries=[{"Cidr": "10.0.0.0/8"}])
    token = {"SubnetId": made["subnet-11111111111111111"], "ClientToken": "before the stop"}
    interface = ec2.create_network_interface(**token)["NetworkInterface"]
    user = User(deployment, iam)
    user.may(allow("ec2:DescribeVpcs"))
    for number in range(5):  # enough for a second page, whether or not other tests have made groups
        name = f"page-{number}"
        ec2.create_security_group(GroupName=name, Description=name, VpcId=made["vpc-11111111111111111"])
    page = ec2.describe_security_groups(MaxResults=5)
    before = everything(ec2)

    deployment.stop()
    deployment.start()

    ec2 = deployment.client("ec2")
    assert everything(ec2) == before
    versions = [ec2.get_managed_prefix_list_entries(**prefix_list, TargetVersion=number) for number in (1, 2)]
    assert [len(one["Entries"]) for one in versions] == [1, 2]
    assert deployment.client("ec2", *user.key).describe_vpcs()["Vpcs"] == before["DescribeVpcs"]["Vpcs"]
    assert ec2.create_network_interface(**token)["NetworkInterface"] == interface
    assert everything(ec2) == before
    following = ec2.describe_security_groups(MaxResults=1000, NextToken=page["NextToken"])["SecurityGroups"]
    ids = [one["GroupId"] for one in [*page["SecurityGroups"], *following]]
    assert sorted(ids) == sorted(one["GroupId"] for one in before["DescribeSecurityGroups"]["SecurityGroups"])


class Caller(threading.Thread):
    """Makes groups one after the other, and keeps count of what was acknowledged."""

    def __init__(self, ec2, vpc, name):
        super().__init__()
        self.ec2, self.vpc, self.prefix = ec2, vpc, name
        self.acknowledged, self.unanswered = set(), set()
        self.ending = threading.Event()

    def run(self):
        number = 0
        while not self.ending.is_set():
            number += 1
            name = f"{self.prefix}-{number}"
            try:
                self.ec2.create_security_group(GroupName=name, Description="d", VpcId=self.vpc)
            except BotoCoreError:  # the connection ended without an answer: nobody knows
                self.unanswered.add(name)
                time.sleep(0.05)
            else:
                self.acknowledged.add(name)


@pytest.mark.slow
def test_killed(deployment, ec2):
    """Twice kill -9 of the API process under load: all that was acknowledged is there, in the kernel too."""
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    callers = [Caller(deployment.client("ec2"), vpc, name) for name in "ab"]
    for caller in callers:
        caller.start()
    for _ in range(2):
        time.sleep(0.4)
        counted = sum(len(caller.acknowledged) for caller in callers)
        deployment.serve.api.kill()
        deadline = time.monotonic() + 10
        while sum(len(caller.acknowledged) for caller in callers) < counted + 5:
            assert time.monotonic() < deadline, "calls are not answered again"
            time.sleep(0.02)
    for caller in callers:
        caller.ending.set()
        caller.join(30)
    deployment.serve.wait_alive()
    names = {"default"}.union(*(caller.acknowledged for caller in callers))
    unknown = set().union(*(caller.unanswered for caller in callers))
    assert unknown, "no call was cut off: the kills came too late"
    found = ec2.describe_security_groups(Filters=filters(vpc_id=vpc))["SecurityGroups"]
    assert names <= {group["GroupName"] for group in found} <= names | unknown
    suffixes = [group["GroupId"].removeprefix("sg-") for group in found]
    chains = {f"{kind}_{suffix}" for kind in ("in", "in_any") for suffix in suffixes}
    assert {line.split()[1] for line in kernel_rules(vpc).splitlines() if line.startswith("\tchain in_")} == chains
