"""Several clients at the same time: each change is decided on what the one before left, and none is lost."""

import threading

import pytest
from botocore.exceptions import ClientError

from tests.api.kernel import kernel_rules
from tests.api.worlds import call, filters

CLIENTS = 6


@pytest.fixture(scope="module")
def clients(deployment):
    """Clients with connections of their own."""
    return [deployment.client("ec2") for _ in range(CLIENTS)]


def at_once(clients, work):
    """`work(client, number)` in a thread for each client, begun together; what each returned."""
    results, barrier = [], threading.Barrier(len(clients))

    def run(number, client):
        barrier.wait()
        results.append(work(client, number))

    threads = [threading.Thread(target=run, args=one) for one in enumerate(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(results) == len(clients)
    return results


def outcome(client, action, parameters):
    """`done`, or the code of the refusal."""
    try:
        call(client, action, parameters)
    except ClientError as error:
        return error.response["Error"]["Code"]
    return "done"


@pytest.fixture
def group(ec2):
    """A group in a VPC of its own."""
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    made = ec2.create_security_group(GroupName="g", Description="d", VpcId=vpc)["GroupId"]
    return vpc, made


def test_one_name(clients, group):
    """Of several groups with one name, one is made."""
    asked = {"GroupName": "wanted", "Description": "d", "VpcId": group[0]}
    results = at_once(clients, lambda client, _: outcome(client, "CreateSecurityGroup", asked))
    assert sorted(results) == ["InvalidGroup.Duplicate"] * (CLIENTS - 1) + ["done"]


def test_one_rule(clients, group):
    """Of several times the same rule, one is added; of several revocations, one finds it."""
    asked = {"GroupId": group[1], "IpProtocol": "tcp", "FromPort": 1, "ToPort": 1, "CidrIp": "192.0.2.0/24"}
    for action, otherwise in (
        ("AuthorizeSecurityGroupIngress", "InvalidPermission.Duplicate"),
        ("RevokeSecurityGroupIngress", "InvalidPermission.NotFound"),
    ):
        results = at_once(clients, lambda client, _, action=action: outcome(client, action, asked))
        assert sorted(results) == sorted([otherwise] * (CLIENTS - 1) + ["done"])


def test_one_address(clients, ec2, group):
    """Of several interfaces with one address, one is made."""
    subnet = ec2.create_subnet(VpcId=group[0], CidrBlock="10.0.1.0/24")["Subnet"]["SubnetId"]
    asked = {"SubnetId": subnet, "PrivateIpAddress": "10.0.1.9"}
    results = at_once(clients, lambda client, _: outcome(client, "CreateNetworkInterface", asked))
    assert sorted(results) == ["InvalidIPAddress.InUse"] * (CLIENTS - 1) + ["done"]


def test_no_address_twice(clients, ec2, group):
    """Interfaces made at the same time all have addresses of their own."""
    subnet = ec2.create_subnet(VpcId=group[0], CidrBlock="10.0.1.0/24")["Subnet"]["SubnetId"]

    def make(client, _):
        made = [client.create_network_interface(SubnetId=subnet)["NetworkInterface"] for _ in range(3)]
        return [one["PrivateIpAddress"] for one in made]

    addresses = [one for made in at_once(clients, make) for one in made]
    assert sorted(addresses, key=lambda one: int(one.rpartition(".")[2])) == [f"10.0.1.{n}" for n in range(4, 22)]


def test_quota(clients, ec2, group):
    """A quota of 60 rules holds when its last places are wanted by several."""
    ranges = [{"CidrIp": f"10.{number}.0.0/16"} for number in range(58)]
    ec2.authorize_security_group_ingress(GroupId=group[1], IpPermissions=[{"IpProtocol": "-1", "IpRanges": ranges}])

    def add(client, number):
        flat = {"GroupId": group[1], "IpProtocol": "tcp", "FromPort": number, "ToPort": number, "CidrIp": "0.0.0.0/0"}
        return outcome(client, "AuthorizeSecurityGroupIngress", flat)

    full = "RulesPerSecurityGroupLimitExceeded"
    assert sorted(at_once(clients, add)) == [full] * (CLIENTS - 2) + ["done"] * 2


def test_no_rule_lost(clients, ec2, group):
    """Rules added to one group and removed from it by all at the same time: the sum is right, in the kernel too."""

    def work(client, number):
        kept = []
        for step in range(6):
            port = 1000 + 10 * number + step
            flat = {"GroupId": group[1], "IpProtocol": "tcp", "FromPort": port, "ToPort": port, "CidrIp": "0.0.0.0/0"}
            made = client.authorize_security_group_ingress(**flat)["SecurityGroupRules"][0]["SecurityGroupRuleId"]
            if step % 2:
                client.revoke_security_group_ingress(GroupId=group[1], SecurityGroupRuleIds=[made])
            else:
                kept.append(made)
        return kept

    kept = {one for made in at_once(clients, work) for one in made}
    found = ec2.describe_security_group_rules(Filters=filters(group_id=group[1]))["SecurityGroupRules"]
    assert {one["SecurityGroupRuleId"] for one in found if not one["IsEgress"]} == kept
    text = kernel_rules(group[0])
    assert {rule for rule in kept if f'"{rule}"' in text} == kept
    assert text.count("tcp dport 10") == len(kept)
