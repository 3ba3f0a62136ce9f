"""Read your writes: when a call is answered, this host's kernel enforces it; and what cannot be enforced is undone."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.api.deployment import deployed
from tests.api.kernel import in_namespace, kernel_rules
from tests.api.worlds import endpoint, filters, refusal, run, wait_for_state


def netd_of(deployment):
    """The process that tells the kernel."""
    return next(child for child in deployment.serve.children if child.name == "netd")


@pytest.fixture
def vpc(ec2):
    """A VPC."""
    return ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]


@pytest.fixture
def subnet(ec2, vpc):
    """A subnet of it."""
    return ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.1.0/24")["Subnet"]["SubnetId"]


@pytest.fixture
def group(ec2, vpc):
    """A group in it."""
    return ec2.create_security_group(GroupName="g", Description="d", VpcId=vpc)["GroupId"]


def authorized(ec2, group, port, cidr="192.0.2.0/24"):
    """Authorise one inbound rule; its id."""
    flat = {"IpProtocol": "tcp", "FromPort": port, "ToPort": port, "CidrIp": cidr}
    return ec2.authorize_security_group_ingress(GroupId=group, **flat)["SecurityGroupRules"][0]["SecurityGroupRuleId"]


def test_rules(ec2, vpc, group):
    """Every answer to Authorize, Modify and Revoke comes after the kernel has, or has no more, the rule."""
    for port in range(7001, 7011):
        rule = authorized(ec2, group, port)
        assert f'ip saddr 192.0.2.0/24 tcp dport {port} accept comment "{rule}"' in kernel_rules(vpc)
        change = {"IpProtocol": "udp", "FromPort": port, "ToPort": port, "CidrIpv4": "198.51.100.0/24"}
        update = {"SecurityGroupRuleId": rule, "SecurityGroupRule": change}
        ec2.modify_security_group_rules(GroupId=group, SecurityGroupRules=[update])
        text = kernel_rules(vpc)
        assert f'ip saddr 198.51.100.0/24 udp dport {port} accept comment "{rule}"' in text
        assert f"tcp dport {port}" not in text
        ec2.revoke_security_group_ingress(GroupId=group, SecurityGroupRuleIds=[rule])
        assert rule not in kernel_rules(vpc)


def test_membership(ec2, vpc, subnet, group):
    """An interface's groups are in force when ModifyNetworkInterfaceAttribute and ModifyInstanceAttribute answer."""
    other = ec2.create_security_group(GroupName="other", Description="d", VpcId=vpc)["GroupId"]
    instance = run(ec2, SubnetId=subnet, SecurityGroupIds=[group])
    interface = instance["NetworkInterfaces"][0]["NetworkInterfaceId"]
    receiving = f"rcv_eni{interface[-12:]}"

    def jumps():
        text = in_namespace(vpc, "nft", "list", "chain", "inet", "wicketgate", receiving)
        return {line.rpartition("_")[2].split()[0] for line in text.splitlines() if "jump in_" in line}

    assert jumps() == {group.removeprefix("sg-")}
    ec2.modify_network_interface_attribute(NetworkInterfaceId=interface, Groups=[group, other])
    assert jumps() == {group.removeprefix("sg-"), other.removeprefix("sg-")}
    ec2.modify_instance_attribute(InstanceId=instance["InstanceId"], Groups=[other])
    assert jumps() == {other.removeprefix("sg-")}


def test_namespaces(ec2, vpc, subnet):
    """VPCs, instances and endpoints are namespaces while they exist, with the address that the API tells."""

    def namespaces():
        return {path.name for path in Path("/run/netns").iterdir()}

    instance = run(ec2, SubnetId=subnet)
    door = endpoint(ec2, SubnetId=subnet)
    (interface,) = ec2.describe_network_interfaces(NetworkInterfaceIds=door["NetworkInterfaceIds"])["NetworkInterfaces"]
    door_id = door["InstanceConnectEndpointId"]
    assert {vpc, instance["InstanceId"], door_id} <= namespaces()
    for namespace, address in (
        (door_id, interface["PrivateIpAddress"]),
        (instance["InstanceId"], instance["PrivateIpAddress"]),
    ):
        assert f"inet {address}/24" in in_namespace(namespace, "ip", "address", "show", "dev", "eth0")
    ec2.terminate_instances(InstanceIds=[instance["InstanceId"]])
    wait_for_state(ec2, instance["InstanceId"], "terminated")
    ec2.delete_instance_connect_endpoint(InstanceConnectEndpointId=door_id)
    while ec2.describe_instance_connect_endpoints(Filters=filters(vpc_id=vpc))["InstanceConnectEndpoints"]:
        time.sleep(0.01)
    assert not {instance["InstanceId"], door_id} & namespaces()
    ec2.delete_subnet(SubnetId=subnet)
    ec2.delete_vpc(VpcId=vpc)
    assert vpc not in namespaces()


def test_refused_changes_nothing(ec2, vpc, group):
    """A dry run and a refused call leave the kernel as it was, to the letter."""
    authorized(ec2, group, 22)
    before = kernel_rules(vpc)
    flat = {"GroupId": group, "IpProtocol": "tcp", "FromPort": 23, "ToPort": 23, "CidrIp": "192.0.2.0/24"}
    assert refusal(ec2, "AuthorizeSecurityGroupIngress", flat | {"DryRun": True})[2] == 412
    assert refusal(ec2, "AuthorizeSecurityGroupIngress", flat | {"FromPort": 22, "ToPort": 22})[2] == 400
    assert kernel_rules(vpc) == before


@pytest.mark.slow
def test_netd_killed_during_a_call(deployment, ec2, vpc, group):
    """Killed while it is to enforce a Change, netd is started again; the call is answered by what is then in force."""
    for port in (7101, 7102):
        process = netd_of(deployment).process
        os.kill(process.pid, signal.SIGSTOP)  # so that the call is under way when it dies
        answers = []
        thread = threading.Thread(
            target=lambda port=port, answers=answers: answers.append(authorized(ec2, group, port))
        )
        thread.start()
        time.sleep(0.1)
        assert not answers
        os.kill(process.pid, signal.SIGKILL)
        thread.join(30)
        (rule,) = answers
        assert f'tcp dport {port} accept comment "{rule}"' in kernel_rules(vpc)
        assert netd_of(deployment).process.pid != process.pid
    deployment.serve.wait_alive()


def test_refused_by_the_kernel(deployment):
    """What netd cannot have the kernel do is undone: InternalError with the reason, and World and kernel as before.

    A group's chain that a foreign rule jumps to cannot be deleted. With `guard_rules` the foreign rule would not stay.
    """
    deployment.stop()
    try:
        with deployed("unguarded", guard_rules=False) as other:
            ec2 = other.client("ec2")
            vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
            group = ec2.create_security_group(GroupName="g", Description="d", VpcId=vpc)["GroupId"]
            _refused_by_the_kernel(other, ec2, vpc, group)
    finally:
        deployment.start()


def _refused_by_the_kernel(deployment, ec2, vpc, group):
    rule = authorized(ec2, group, 7201)
    table = ("inet", "wicketgate")
    chain = f"in_{group.removeprefix('sg-')}"
    in_namespace(vpc, "nft", "add", "chain", *table, "foreign")
    in_namespace(vpc, "nft", "add", "rule", *table, "foreign", "jump", chain)
    before = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"]
    code, message, status = refusal(ec2, "DeleteSecurityGroup", {"GroupId": group})
    assert (code, status) == ("InternalError", 500)
    assert "could not be enforced and was undone" in message
    assert "Device or resource busy" in message
    assert ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"] == before
    assert rule in kernel_rules(vpc)
    assert authorized(ec2, group, 7202) in kernel_rules(vpc)  # and life goes on
    assert "foreign" not in kernel_rules(vpc)  # undoing put our whole table back
    ec2.delete_security_group(GroupId=group)
    assert chain not in kernel_rules(vpc)
    # The undone call stands in the audit trail as what it was: a failure.
    (failed,) = [
        event
        for event in deployment.audit()
        if event["eventName"] == "DeleteSecurityGroup"
        and event["requestParameters"].get("groupId") == group
        and "errorCode" in event
    ]
    assert failed["errorCode"] == "Server.InternalError"
