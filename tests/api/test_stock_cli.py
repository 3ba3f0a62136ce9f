"""The stock AWS CLI v2 as it is: its own spellings, dry runs, filters, pages, waiters, and what it says of errors."""

import json
import os
import subprocess

import pytest

from tests import stockcli
from tests.api.deployment import API, REGION, ROOT
from tests.api.worlds import IMAGE


class CommandLine:
    """The CLI in a shell whose environment leads to the deployment."""

    def __init__(self, home):
        self.program = str(stockcli.aws())
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),  # it keeps a data base there
            "AWS_ENDPOINT_URL": f"https://{API}",
            "AWS_CA_BUNDLE": os.environ["AWS_CA_BUNDLE"],
            "AWS_ACCESS_KEY_ID": ROOT[0],
            "AWS_SECRET_ACCESS_KEY": ROOT[1],
            "AWS_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_MAX_ATTEMPTS": "1",
            "AWS_PAGER": "",
        }

    def run(self, *arguments):
        """One command; its exit code, output and errors."""
        command = [self.program, *arguments]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60, check=False)

    def __call__(self, *arguments):
        """One command that works; what it says, read as JSON."""
        done = self.run(*arguments, "--output", "json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if done.stdout.strip() else None

    def fails(self, *arguments):
        """One command that does not work; what it says of that."""
        done = self.run(*arguments)
        assert (done.returncode, done.stdout) == (254, "")
        return done.stderr.strip()


@pytest.fixture(scope="module")
def aws(deployment, tmp_path_factory):
    """The CLI."""
    return CommandLine(tmp_path_factory.mktemp("home"))


@pytest.mark.slow
def test_group_to_endpoint(aws, ec2):
    """From a group to an endpoint, by the CLI's own spellings and its waiters."""
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.1.0/24")["Subnet"]["SubnetId"]
    tags = "ResourceType=security-group,Tags=[{Key=Name,Value=web}]"
    named = ("--group-name", "web", "--description", "the web")
    made = aws("ec2", "create-security-group", *named, "--vpc-id", vpc, "--tag-specifications", tags)
    group = made["GroupId"]
    assert made["Tags"] == [{"Key": "Name", "Value": "web"}]

    of_group = ("--group-id", group)
    flat = ("--protocol", "tcp", "--port", "22-23", "--cidr", "192.0.2.9/24")
    dry = aws.fails("ec2", "authorize-security-group-ingress", *of_group, *flat, "--dry-run")
    assert "(DryRunOperation) when calling the AuthorizeSecurityGroupIngress operation" in dry
    assert dry.endswith("Request would have succeeded, but DryRun flag is set.")
    added = aws("ec2", "authorize-security-group-ingress", *of_group, *flat)
    (rule,) = added["SecurityGroupRules"]
    assert (rule["FromPort"], rule["ToPort"], rule["CidrIpv4"]) == (22, 23, "192.0.2.0/24")
    again = aws.fails("ec2", "authorize-security-group-ingress", *of_group, *flat)
    assert again.endswith(
        'the specified rule "peer: 192.0.2.0/24, TCP, from port: 22, to port: 23, ALLOW" already exists'
    )
    # The CLI turns `all` into -1, and a source group into IpPermissions.
    aws("ec2", "authorize-security-group-egress", *of_group, "--protocol", "all", "--source-group", group)
    ec2.revoke_security_group_egress(
        GroupId=group, IpPermissions=[{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
    )
    query = ("--query", "SecurityGroups[0].IpPermissionsEgress[0].UserIdGroupPairs[0].GroupId", "--output", "text")
    done = aws.run("ec2", "describe-security-groups", "--group-ids", group, *query)
    assert done.stdout == f"{group}\n"

    launched = aws("ec2", "run-instances", "--image-id", IMAGE, "--subnet-id", subnet, "--security-group-ids", group)
    instance = launched["Instances"][0]["InstanceId"]
    aws("ec2", "wait", "instance-running", "--instance-ids", instance)
    made = aws("ec2", "create-instance-connect-endpoint", "--subnet-id", subnet, "--no-preserve-client-ip")
    door = made["InstanceConnectEndpoint"]["InstanceConnectEndpointId"]
    wanted = ("--filters", f"Name=vpc-id,Values={vpc}", "Name=state,Values=create-*")
    (shown,) = aws("ec2", "describe-instance-connect-endpoints", *wanted)["InstanceConnectEndpoints"]
    assert (shown["InstanceConnectEndpointId"], shown["State"]) == (door, "create-complete")
    assert aws.fails("ec2", "delete-vpc", "--vpc-id", vpc).endswith("has dependencies and cannot be deleted.")


@pytest.mark.slow
def test_pages(aws, ec2):
    """--page-size takes small pages to one whole; --max-items cuts, and --starting-token goes on there."""
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    for number in range(11):
        ec2.create_security_group(GroupName=f"g{number}", Description="d", VpcId=vpc)
    command = ("ec2", "describe-security-groups", "--filters", f"Name=vpc-id,Values={vpc}", "Name=group-name,Values=g*")
    whole = [one["GroupId"] for one in aws(*command, "--page-size", "5")["SecurityGroups"]]
    assert len(set(whole)) == 11
    first = aws(*command, "--page-size", "5", "--max-items", "7")
    rest = aws(*command, "--page-size", "5", "--starting-token", first["NextToken"])
    assert "NextToken" not in rest
    assert [one["GroupId"] for one in first["SecurityGroups"] + rest["SecurityGroups"]] == whole


@pytest.mark.slow
def test_people(aws, iam):
    """IAM and STS: a user with a key and a policy, who he is, and what he may not."""
    iam.create_user(UserName="cli-user")
    key = aws("iam", "create-access-key", "--user-name", "cli-user")["AccessKey"]
    document = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "ec2:Describe*", "Resource": "*"}]}
    policy = ("--policy-name", "look", "--policy-document", json.dumps(document))
    aws("iam", "put-user-policy", "--user-name", "cli-user", *policy)
    shown = aws("iam", "get-user-policy", "--user-name", "cli-user", "--policy-name", "look")
    assert shown["PolicyDocument"] == document
    user = CommandLine(aws.environment["HOME"])
    user.environment |= {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}
    assert user("sts", "get-caller-identity")["Arn"] == "arn:aws:iam::123456789012:user/cli-user"
    denied = user.fails("ec2", "create-vpc", "--cidr-block", "10.0.0.0/16")
    assert "(UnauthorizedOperation) when calling the CreateVpc operation" in denied
    assert denied.endswith("because no identity-based policy allows the ec2:CreateVpc action")


@pytest.mark.slow
def test_wrong_secret(aws):
    """What the CLI says of a secret that is wrong, for EC2 and for Instance Connect."""
    stranger = CommandLine(aws.environment["HOME"])
    stranger.environment["AWS_SECRET_ACCESS_KEY"] = "wrong"
    assert "(AuthFailure) when calling the DescribeVpcs operation" in stranger.fails("ec2", "describe-vpcs")
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
    push = ("--instance-id", "i-99999999999999999", "--instance-os-user", "me", "--ssh-public-key", key)
    words = stranger.fails("ec2-instance-connect", "send-ssh-public-key", *push)
    assert "(InvalidSignatureException) when calling the SendSSHPublicKey operation" in words
    words = aws.fails("ec2-instance-connect", "send-ssh-public-key", *push)
    assert words.endswith("The specified instance was not found.")
