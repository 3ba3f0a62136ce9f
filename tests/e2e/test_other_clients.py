"""Clients that have no tunnel of their own.

AWS CLI v1 and the AWS SDK for JavaScript v3, unmodified, make a network with an instance and an endpoint, and push a
key; OpenSSH then logs in with it through `wicketgate open-tunnel`; and they take it all down again.
"""

import re
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from tests.otherclients import JsSdk, aws_v1
from wicketgate.kernel import netns
from wicketgate.lab.build import IMAGE
from wicketgate.lab.lab import wicketgate_command
from wicketgate.lab.machines import ACCOUNT
from wicketgate.lab.sshd import Machine

CIDR, SUBNET, ADDRESS = "10.9.0.0/16", "10.9.1.0/24", "10.9.1.20"


@dataclass(frozen=True)
class Site:
    """What a client has made."""

    vpc: str
    subnet: str
    endpoint_group: str
    instance_group: str
    instance: str
    endpoint: str


class BySdk:
    """What a program does with the JavaScript SDK. Its endpoint preserves the client's address."""

    preserves = True

    def __init__(self, environment):
        self.sdk = JsSdk(environment)

    def ec2(self, command, **given):
        return self.sdk.send("ec2", command, **given)

    def make(self):
        ec2 = self.ec2
        vpc = ec2("CreateVpc", CidrBlock=CIDR)["Vpc"]["VpcId"]
        subnet = ec2("CreateSubnet", VpcId=vpc, CidrBlock=SUBNET)["Subnet"]["SubnetId"]
        gate = ec2("CreateSecurityGroup", VpcId=vpc, GroupName="gate", Description="of the endpoint")["GroupId"]
        web = ec2("CreateSecurityGroup", VpcId=vpc, GroupName="web", Description="of instances")["GroupId"]
        everything = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
        ec2("RevokeSecurityGroupEgress", GroupId=gate, IpPermissions=[everything])
        ec2("AuthorizeSecurityGroupEgress", GroupId=gate, IpPermissions=[_ssh(web)])
        ec2("AuthorizeSecurityGroupIngress", GroupId=web, IpPermissions=[_ssh(gate)])
        count = {"ImageId": IMAGE, "MinCount": 1, "MaxCount": 1}
        run = ec2("RunInstances", **count, SubnetId=subnet, PrivateIpAddress=ADDRESS, SecurityGroupIds=[web])
        instance = run["Instances"][0]["InstanceId"]
        made = ec2("CreateInstanceConnectEndpoint", SubnetId=subnet, SecurityGroupIds=[gate], PreserveClientIp=True)
        assert self.sdk.wait("ec2", "InstanceRunning", InstanceIds=[instance]) == "SUCCESS"
        return Site(vpc, subnet, gate, web, instance, made["InstanceConnectEndpoint"]["InstanceConnectEndpointId"])

    def endpoints(self):
        return self.ec2("DescribeInstanceConnectEndpoints")["InstanceConnectEndpoints"]

    def interface(self, interface_id):
        return self.ec2("DescribeNetworkInterfaces", NetworkInterfaceIds=[interface_id])["NetworkInterfaces"][0]

    def push(self, site, key):
        given = {"InstanceId": site.instance, "InstanceOSUser": ACCOUNT, "SSHPublicKey": key.read_text()}
        return self.sdk.send("ec2-instance-connect", "SendSSHPublicKey", **given)

    def take_down(self, site):
        ec2 = self.ec2
        ec2("DeleteInstanceConnectEndpoint", InstanceConnectEndpointId=site.endpoint)
        ec2("TerminateInstances", InstanceIds=[site.instance])
        assert self.sdk.wait("ec2", "InstanceTerminated", InstanceIds=[site.instance]) == "SUCCESS"
        _until(lambda: _found(self, site) is None)
        ec2("RevokeSecurityGroupIngress", GroupId=site.instance_group, IpPermissions=[_ssh(site.endpoint_group)])
        ec2("DeleteSecurityGroup", GroupId=site.endpoint_group)
        ec2("DeleteSecurityGroup", GroupId=site.instance_group)
        ec2("DeleteSubnet", SubnetId=site.subnet)
        ec2("DeleteVpc", VpcId=site.vpc)

    def close(self):
        self.sdk.close()


class ByCli:
    """What a person types with AWS CLI v1, its short forms included. The endpoint puts its own address in place."""

    preserves = False

    def __init__(self, environment):
        self.environment = environment

    def ec2(self, *arguments):
        with netns.entered("office"):
            return aws_v1(self.environment, "ec2", *arguments)

    def make(self):
        ec2 = self.ec2
        vpc = ec2("create-vpc", "--cidr-block", CIDR)["Vpc"]["VpcId"]
        subnet = ec2("create-subnet", "--vpc-id", vpc, "--cidr-block", SUBNET)["Subnet"]["SubnetId"]
        new = ["create-security-group", "--vpc-id", vpc, "--description", "of the tutorial", "--group-name"]
        gate, web = ec2(*new, "gate")["GroupId"], ec2(*new, "web")["GroupId"]
        everything = "IpProtocol=-1,IpRanges=[{CidrIp=0.0.0.0/0}]"
        ec2("revoke-security-group-egress", "--group-id", gate, "--ip-permissions", everything)
        short = f"IpProtocol=tcp,FromPort=22,ToPort=22,UserIdGroupPairs=[{{GroupId={web}}}]"
        ec2("authorize-security-group-egress", "--group-id", gate, "--ip-permissions", short)
        flags = ["--protocol", "tcp", "--port", "22", "--source-group", gate]
        ec2("authorize-security-group-ingress", "--group-id", web, *flags)
        place = ["--subnet-id", subnet, "--private-ip-address", ADDRESS, "--security-group-ids", web]
        instance = ec2("run-instances", "--image-id", IMAGE, *place)["Instances"][0]["InstanceId"]
        create = ["create-instance-connect-endpoint", "--subnet-id", subnet, "--no-preserve-client-ip"]
        made = ec2(*create, "--security-group-ids", gate)["InstanceConnectEndpoint"]
        ec2("wait", "instance-running", "--instance-ids", instance)
        return Site(vpc, subnet, gate, web, instance, made["InstanceConnectEndpointId"])

    def endpoints(self):
        return self.ec2("describe-instance-connect-endpoints")["InstanceConnectEndpoints"]

    def interface(self, interface_id):
        return self.ec2("describe-network-interfaces", "--network-interface-ids", interface_id)["NetworkInterfaces"][0]

    def push(self, site, key):
        given = ["--instance-id", site.instance, "--instance-os-user", ACCOUNT, "--ssh-public-key", f"file://{key}"]
        with netns.entered("office"):
            return aws_v1(self.environment, "ec2-instance-connect", "send-ssh-public-key", *given)

    def take_down(self, site):
        ec2 = self.ec2
        ec2("delete-instance-connect-endpoint", "--instance-connect-endpoint-id", site.endpoint)
        ec2("terminate-instances", "--instance-ids", site.instance)
        ec2("wait", "instance-terminated", "--instance-ids", site.instance)
        _until(lambda: _found(self, site) is None)
        flags = ["--protocol", "tcp", "--port", "22", "--source-group", site.endpoint_group]
        ec2("revoke-security-group-ingress", "--group-id", site.instance_group, *flags)
        ec2("delete-security-group", "--group-id", site.endpoint_group)
        ec2("delete-security-group", "--group-id", site.instance_group)
        ec2("delete-subnet", "--subnet-id", site.subnet)
        ec2("delete-vpc", "--vpc-id", site.vpc)

    def close(self):
        pass


def _ssh(group):
    """Permission for ssh from, or to, a group."""
    return {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "UserIdGroupPairs": [{"GroupId": group}]}


def _found(client, site):
    """The site's endpoint as it is described, None once it is gone."""
    return next((one for one in client.endpoints() if one["InstanceConnectEndpointId"] == site.endpoint), None)


def _until(holds, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@contextmanager
def _made_by(client):
    """The site; it is taken down whatever comes, and then the World is as it was."""
    try:
        site = client.make()
        try:
            yield site
        finally:
            client.take_down(site)
    finally:
        client.close()


@pytest.mark.parametrize("by", [BySdk, ByCli])
def test_tutorial(lab, tmp_path, by):
    """What a client made and pushed lets ssh in, from the address expected and with that key alone."""
    before = lab.world
    key = tmp_path / "pushed"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", key], check=True)
    with netns.entered("office"):
        client = by(lab.environment("admin"))
    with _made_by(client) as site:
        _until(lambda: _found(client, site)["State"] == "create-complete")
        endpoint = _found(client, site)
        assert endpoint["PreserveClientIp"] is by.preserves
        own = client.interface(endpoint["NetworkInterfaceIds"][0])["PrivateIpAddress"]
        log = Machine(site.instance).log
        assert _login(lab, endpoint, key).stderr.strip().startswith(f"{ACCOUNT}@{ADDRESS}: Permission denied")
        pushed = client.push(site, key.with_suffix(".pub"))
        assert (pushed["Success"], len(pushed["RequestId"])) == (True, 36)
        done = _login(lab, endpoint, key)
        assert (done.returncode, done.stdout) == (0, "hello\n"), done.stderr
        accepted = re.findall(r"Accepted publickey for (\S+) from (\S+) port \d+ ssh2: ED25519 (\S+)", log.read_text())
        source = lab.topology.clients["office"] if by.preserves else own
        assert accepted == [(ACCOUNT, source, _fingerprint(key))]
    left = lab.world
    assert (left.vpcs, left.groups, left.endpoints) == (before.vpcs, before.groups, before.endpoints)


def _login(lab, endpoint, key):
    """OpenSSH with this key and no other, through `wicketgate open-tunnel`."""
    given = ["--instance-connect-endpoint-id", endpoint["InstanceConnectEndpointId"]]
    given += ["--instance-connect-endpoint-dns-name", endpoint["DnsName"], "--private-ip-address", "%h"]
    proxy = " ".join([*wicketgate_command(), "open-tunnel", *given])
    options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "BatchMode=yes", "IdentitiesOnly=yes"]
    options += ["LogLevel=ERROR", "ConnectTimeout=15", f"ProxyCommand={proxy}"]
    command = ["ssh", "-F", "none", "-i", key, *(part for option in options for part in ("-o", option))]
    with netns.entered("office"):
        return subprocess.run(
            [*command, f"{ACCOUNT}@{ADDRESS}", "echo hello"],
            env=lab.environment("admin"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


def _fingerprint(key):
    listed = subprocess.run(["ssh-keygen", "-l", "-f", key], capture_output=True, text=True, check=True)
    return listed.stdout.split()[1]
