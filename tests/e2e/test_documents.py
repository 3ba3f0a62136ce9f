"""The commands of the documents, as they are printed there: each works, or is refused as the text says."""

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from wicketgate.kernel import netns
from wicketgate.lab.build import Builder

CHECKOUT = Path(__file__).parents[2]
TUTORIAL = CHECKOUT / "docs" / "tutorial.md"


def blocks(document, heading):
    """The indented blocks below a heading, as they would be typed."""
    text = document.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    found = re.findall(r"(?:^    .*\n(?:\n(?=    ))*)+", text, re.MULTILINE)
    return ["".join(line.removeprefix("    ") for line in block.splitlines(keepends=True)) for block in found]


@pytest.fixture
def terminal(lab, aws, tmp_path):
    """A shell such as `wicketgate lab shell` gives, with the AWS CLI on its path; returns what it said."""

    def run(*command, text=""):
        environment = lab.environment("admin")
        programs = [str(Path(aws).parent), str(Path(sys.executable).parent), environment["PATH"]]
        environment["PATH"] = ":".join(programs)
        with netns.entered("office"):
            return subprocess.run(
                command,
                cwd=tmp_path,
                env=environment,
                input=text,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )

    with netns.entered("office"):
        builder = Builder.connected(lab.topology, lab.environment("admin"))
    before = {vpc.id for vpc in lab.world.vpcs}
    yield run
    with netns.entered("office"):
        _take_down(builder.ec2, [vpc.id for vpc in lab.world.vpcs if vpc.id not in before])
        _forget(builder.iam, "developer", [key.id for key in lab.world.access_keys if key.user_name == "developer"])


def _take_down(ec2, vpcs):
    """What the documents' commands made: endpoints and instances, and then, when they are gone, the rest."""
    inside = [{"Name": "vpc-id", "Values": vpcs}]
    for endpoint in ec2.describe_instance_connect_endpoints(Filters=inside)["InstanceConnectEndpoints"]:
        ec2.delete_instance_connect_endpoint(InstanceConnectEndpointId=endpoint["InstanceConnectEndpointId"])
    for reservation in ec2.describe_instances(Filters=inside)["Reservations"]:
        ec2.terminate_instances(InstanceIds=[one["InstanceId"] for one in reservation["Instances"]])
    deadline = time.monotonic() + 20
    while ec2.describe_network_interfaces(Filters=inside)["NetworkInterfaces"]:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    for subnet in ec2.describe_subnets(Filters=inside)["Subnets"]:
        ec2.delete_subnet(SubnetId=subnet["SubnetId"])
    for vpc in vpcs:
        ec2.delete_vpc(VpcId=vpc)


def _forget(iam, user, keys):
    if not keys:
        return
    for key in keys:
        iam.delete_access_key(UserName=user, AccessKeyId=key)
    iam.delete_user_policy(UserName=user, PolicyName="connect")
    iam.delete_user(UserName=user)


def test_tutorial_in_the_shell(terminal):
    """Every command of the tutorial, one after the other in one shell: those that fail are those that should."""
    headings = ("With the AWS CLI", "Who may", "What happened")
    typed = [block for heading in headings for block in blocks(TUTORIAL, heading)]
    assert len(typed) >= 5
    # A login has nothing to read, and ends; what is printed is what a reader sees.
    script = "trap 'echo \"FAILED $BASH_COMMAND\" >&2' ERR\n" + "\n".join(typed)
    done = terminal("bash", "-c", script)
    failed = [line for line in done.stderr.splitlines() if line.startswith("FAILED ")]
    assert [line.split()[1] for line in failed] == ["aws", "AWS_ACCESS_KEY_ID=$1"], done.stderr
    assert "root@$instance" in failed[1]
    assert re.search(r"Unable to connect to target: no inbound rule of sg-\w+ allows tcp 22", done.stderr)
    assert re.search(r"user/developer is not authorized to perform: ec2-instance-connect:SendSSHPublicKey", done.stderr)
    seen = done.stdout.splitlines()[-20:]
    told = [line for line in seen if re.search(r"(admin|developer) OpenTunnel eice-\w+ eni-\w+ i-\w+ ", line)]
    assert sum(line.endswith(": ok") for line in told) >= 3, seen
    assert any("TargetUnreachable" in line for line in told), seen
    assert any("developer SendSSHPublicKey" in line and "AccessDenied" in line for line in seen), seen


def test_tutorial_in_boto3(terminal, tmp_path):
    """The program in boto3 ends with a login, which reads its commands from a pipe here."""
    (program,) = blocks(TUTORIAL, "In boto3")
    (tmp_path / "tutorial.py").write_text(program)
    done = terminal(sys.executable, "tutorial.py", text="echo in\n")
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["in"]), done.stderr
