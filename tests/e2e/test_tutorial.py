"""From nothing to a login, as the README tells it: the stock AWS CLI, boto3 and `wicketgate ssh`, with a pushed key."""

import json
import subprocess
import sys
import time

import pytest

from wicketgate.kernel import netns
from wicketgate.lab.lab import wicketgate_command

QUIET = ["-o", "LogLevel=ERROR"]


@pytest.fixture
def client(lab, aws):
    """Run a program as user `admin` at client `office`; returns its standard output, parsed if it is JSON."""

    def run(*command, user="admin", check=True, text=None):
        with netns.entered("office"):
            done = subprocess.run(
                command,
                env=lab.environment(user),
                input=text,
                stdin=None if text is not None else subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
        assert not check or done.returncode == 0, done.stderr
        return done

    return run


@pytest.fixture
def ec2(client, aws):
    """The stock CLI's `aws ec2 ... --output json`."""

    def call(*command):
        out = client(aws, "ec2", *command, "--output", "json").stdout
        return json.loads(out) if out.strip() else None

    return call


@pytest.fixture
def place(ec2):
    """What the tutorial's first four commands make; taken down again."""
    made = {}
    made["vpc"] = ec2("create-vpc", "--cidr-block", "10.20.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2("create-subnet", "--vpc-id", made["vpc"], "--cidr-block", "10.20.1.0/24")
    made["subnet"] = subnet["Subnet"]["SubnetId"]
    image = "ami-00000000000000001"
    run = ec2("run-instances", "--image-id", image, "--subnet-id", made["subnet"], "--count", "1")
    made["instance"] = run["Instances"][0]["InstanceId"]
    endpoint = ec2("create-instance-connect-endpoint", "--subnet-id", made["subnet"])["InstanceConnectEndpoint"]
    made["endpoint"] = endpoint["InstanceConnectEndpointId"]
    yield made
    ec2("delete-instance-connect-endpoint", "--instance-connect-endpoint-id", made["endpoint"])
    ec2("terminate-instances", "--instance-ids", made["instance"])
    for operation, kind in (("delete-subnet", "subnet"), ("delete-vpc", "vpc")):
        _until(lambda operation=operation, kind=kind: ec2(operation, f"--{kind}-id", made[kind]))


def _until(call, seconds=20):
    deadline = time.monotonic() + seconds
    while True:
        try:
            return call()
        except AssertionError as error:
            if "DependencyViolation" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _connectable(ec2, endpoint):
    deadline = time.monotonic() + 20
    while True:
        command = ("describe-instance-connect-endpoints", "--instance-connect-endpoint-ids", endpoint)
        state = ec2(*command)["InstanceConnectEndpoints"][0]["State"]
        if state == "create-complete":
            return
        assert time.monotonic() < deadline, state
        time.sleep(0.1)


def test_five_commands(client, ec2, aws, place):
    """Four calls of the stock CLI make network, machine and endpoint; the fifth pushes a key and logs in."""
    _connectable(ec2, place["endpoint"])
    ec2("wait", "instance-running", "--instance-ids", place["instance"])
    command = [aws, "ec2-instance-connect", "ssh", "--instance-id", place["instance"], "--os-user", "ec2-user"]
    done = client(*command, "--connection-type", "eice", text="id -un; exit 7\n", check=False)
    assert (done.returncode, done.stdout.split()[-1:]) == (7, ["ec2-user"]), done.stderr


def test_wicketgate_ssh(client, ec2, place):
    """`wicketgate ssh i-...` does the same; a command's exit code is ssh's."""
    _connectable(ec2, place["endpoint"])
    options = ["-o", "StrictHostKeyChecking=no", *QUIET]
    done = client(*wicketgate_command(), "ssh", place["instance"], *options, "id -un; exit 3", check=False)
    assert (done.returncode, done.stdout.strip()) == (3, "ec2-user"), done.stderr


def test_plain_ssh_and_scp(client, ec2, place, tmp_path):
    """With the stanza of `wicketgate ssh-config`, plain ssh and scp reach `i-...` by its id."""
    _connectable(ec2, place["endpoint"])
    config = tmp_path / "ssh_config"
    config.write_text(client(*wicketgate_command(), "ssh-config").stdout)
    common = ["-F", str(config), "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", *QUIET]
    target = f"ec2-user@{place['instance']}"
    assert client("ssh", *common, target, "echo reached").stdout.strip() == "reached"
    (tmp_path / "there").write_text("carried")
    client("scp", *common, str(tmp_path / "there"), f"{target}:/tmp/carried-{place['instance']}")
    client("scp", *common, f"{target}:/tmp/carried-{place['instance']}", str(tmp_path / "back"))
    assert (tmp_path / "back").read_text() == "carried"


BOTO3 = """
import subprocess, sys, time
import boto3

ec2, connect = boto3.client("ec2"), boto3.client("ec2-instance-connect")
vpc = ec2.create_vpc(CidrBlock="10.21.0.0/16")["Vpc"]["VpcId"]
subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.21.1.0/24")["Subnet"]["SubnetId"]
image = "ami-00000000000000001"
run = ec2.run_instances(ImageId=image, SubnetId=subnet, MinCount=1, MaxCount=1)
instance = run["Instances"][0]["InstanceId"]
endpoint = ec2.create_instance_connect_endpoint(SubnetId=subnet)["InstanceConnectEndpoint"]["InstanceConnectEndpointId"]
ec2.get_waiter("instance_running").wait(InstanceIds=[instance])
for _ in range(100):
    found = ec2.describe_instance_connect_endpoints(InstanceConnectEndpointIds=[endpoint])["InstanceConnectEndpoints"]
    if found[0]["State"] == "create-complete":
        break
    time.sleep(0.1)
subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "key"], check=True)
connect.send_ssh_public_key(InstanceId=instance, InstanceOSUser="ec2-user", SSHPublicKey=open("key.pub").read())
proxy = sys.argv[1] + " open-tunnel --instance-id " + instance
options = ["-i", "key", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
subprocess.run(["ssh", *options, "-o", "ProxyCommand=" + proxy, "ec2-user@" + instance, "echo by boto3"], check=True)
ec2.delete_instance_connect_endpoint(InstanceConnectEndpointId=endpoint)
ec2.terminate_instances(InstanceIds=[instance])
ec2.get_waiter("instance_terminated").wait(InstanceIds=[instance])
for _ in range(100):
    try:
        ec2.delete_subnet(SubnetId=subnet)
        break
    except ec2.exceptions.ClientError as error:
        if error.response["Error"]["Code"] != "DependencyViolation":
            raise
        time.sleep(0.1)
ec2.delete_vpc(VpcId=vpc)
"""


def test_in_boto3(client, tmp_path):
    """The same in boto3, from nothing to a login and back to nothing."""
    script = tmp_path / "tutorial.py"
    script.write_text(f"import os\nos.chdir({str(tmp_path)!r})\n{BOTO3}")
    done = client(sys.executable, str(script), " ".join(wicketgate_command()))
    assert done.stdout.strip() == "by boto3"


def test_a_pushed_key_ends(lab, client, aws, place, tmp_path):
    """A key opens what it was pushed for, for 60 s by the server's clock, and nothing else, nor any longer."""
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    push = [aws, "ec2-instance-connect", "send-ssh-public-key", "--ssh-public-key", f"file://{key}.pub"]
    proxy = " ".join([*wicketgate_command(), "open-tunnel", "--instance-id"])

    def login(instance):
        options = ["-F", "none", "-i", str(key), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", *QUIET]
        options += ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
        options += ["-o", f"ProxyCommand={proxy} {instance}"]
        return client("ssh", *options, f"ec2-user@{instance}", "echo in", check=False)

    assert "Permission denied" in login(place["instance"]).stderr
    client(*push, "--instance-id", place["instance"], "--instance-os-user", "somebody-else")
    assert "Permission denied" in login(place["instance"]).stderr
    client(*push, "--instance-id", place["instance"], "--instance-os-user", "ec2-user")
    pushed = time.monotonic()
    assert login(place["instance"]).stdout.strip() == "in"
    other = lab.instance("plain", "web-1").id
    assert "Permission denied" in login(other).stderr
    time.sleep(max(0.0, pushed + 61 - time.monotonic()))
    assert "Permission denied" in login(place["instance"]).stderr


def test_stop_and_start(client, ec2, place):
    """A stopped instance is off: its sessions end and nobody gets in; started again it lets in."""
    _connectable(ec2, place["endpoint"])
    command = [*wicketgate_command(), "ssh", place["instance"], "-o", "StrictHostKeyChecking=no", *QUIET]
    assert client(*command, "echo on").stdout.strip() == "on"
    ec2("stop-instances", "--instance-ids", place["instance"])
    ec2("wait", "instance-stopped", "--instance-ids", place["instance"])
    done = client(*command, "echo on", check=False)
    assert done.returncode != 0
    assert "stopped" in done.stderr
    ec2("start-instances", "--instance-ids", place["instance"])
    ec2("wait", "instance-running", "--instance-ids", place["instance"])
    assert client(*command, "echo on again").stdout.strip() == "on again"
