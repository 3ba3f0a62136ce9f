"""AWS CLI v1 and the AWS SDK for JavaScript v3 read our answers as they read AWS's: errors, pages, waiters, types."""

from __future__ import annotations

import datetime
import os
import re

import pytest

from tests.api.deployment import API, REGION, ROOT
from tests.api.people import User
from tests.api.worlds import IMAGE, call, complete, filters
from tests.otherclients import CommandFailed, JsSdk, SdkError, aws_v1

MISSING = "sg-0123456789abcdef0"
PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJX8wdvGgrbUHRQ2QFQZgcLMLQwuT3Y8mGSVfyjG1Mdx nobody"


def environment(key=ROOT):
    """What a program that uses AWS finds in its environment."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": "/nonexistent",
        "AWS_ENDPOINT_URL": f"https://{API}",
        "AWS_CA_BUNDLE": os.environ["AWS_CA_BUNDLE"],
        "AWS_ACCESS_KEY_ID": key[0],
        "AWS_SECRET_ACCESS_KEY": key[1],
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@pytest.fixture(scope="module")
def js(deployment):
    """The SDK with the root credential."""
    with JsSdk(environment()) as sdk:
        yield sdk


@pytest.fixture(scope="module")
def v1(deployment):
    """The CLI with the root credential: a function of its arguments."""
    return lambda *arguments: aws_v1(environment(), *arguments)


@pytest.fixture(scope="module")
def person(deployment):
    """A user who may nothing."""
    return User(deployment, deployment.client("iam"))


@pytest.fixture(scope="module")
def vpc(ec2):
    """A VPC with a subnet and twelve groups besides the default one."""
    made = ec2.create_vpc(CidrBlock="10.77.0.0/16")["Vpc"]["VpcId"]
    for number in range(12):
        ec2.create_security_group(GroupName=f"other-{number}", Description="one of twelve", VpcId=made)
    return made


@pytest.fixture(scope="module")
def subnet(ec2, vpc):
    """Its subnet."""
    return ec2.create_subnet(VpcId=vpc, CidrBlock="10.77.1.0/24")["Subnet"]["SubnetId"]


def said_by(v1, *arguments):
    """Exit code and words of a CLI command that must fail."""
    with pytest.raises(CommandFailed) as caught:
        v1(*arguments)
    return caught.value.exit_code, caught.value.said


def thrown_by(js, *call, **given):
    """What a program finds in the error that the SDK must throw."""
    with pytest.raises(SdkError) as caught:
        js.send(*call, **given)
    return caught.value.error


# -- errors ------------------------------------------------------------------------------------------------------------


def test_cli_errors(v1, vpc, person):
    """The CLI names code, operation and AWS's words: of what is missing, of a dry run, of what is not allowed."""
    code, said = said_by(v1, "ec2", "describe-security-groups", "--group-ids", MISSING)
    words = f"The security group '{MISSING}' does not exist"
    operation = "when calling the DescribeSecurityGroups operation"
    assert (code, said) == (255, f"An error occurred (InvalidGroup.NotFound) {operation}: {words}")
    _, said = said_by(v1, "ec2", "create-subnet", "--vpc-id", vpc, "--cidr-block", "10.77.9.0/24", "--dry-run")
    assert said.startswith("An error occurred (DryRunOperation) when calling the CreateSubnet operation: Request would")
    denied = person.denied("DescribeVpcs")
    with pytest.raises(CommandFailed) as caught:
        aws_v1(environment(person.key), "ec2", "describe-vpcs")
    assert caught.value.said == f"An error occurred ({denied[0]}) when calling the DescribeVpcs operation: {denied[1]}"


def test_cli_errors_of_instance_connect(v1):
    """Errors in JSON are named as well."""
    key = ["--instance-os-user", "ec2-user", "--ssh-public-key", PUBLIC_KEY]
    _, said = said_by(v1, "ec2-instance-connect", "send-ssh-public-key", "--instance-id", "i-0123456789abcdef0", *key)
    assert said.startswith(
        "An error occurred (EC2InstanceNotFoundException) when calling the SendSSHPublicKey operation: "
    )


def test_sdk_errors(js, vpc, person):
    """The SDK's error has AWS's code for its name, AWS's words, the status, whose fault it is and the request's id."""
    error = thrown_by(js, "ec2", "DescribeSecurityGroups", GroupIds=[MISSING])
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", error.pop("requestId"))
    assert error == {
        "name": "InvalidGroup.NotFound",
        "message": f"The security group '{MISSING}' does not exist",
        "fault": "client",
        "status": 400,
        "classes": ["EC2ServiceException"],
    }
    error = thrown_by(js, "ec2", "CreateSubnet", VpcId=vpc, CidrBlock="10.77.9.0/24", DryRun=True)
    assert (error["name"], error["status"]) == ("DryRunOperation", 412)
    with JsSdk(environment(person.key)) as theirs:
        error = thrown_by(theirs, "ec2", "DescribeVpcs")
    assert (error["name"], error["message"], error["status"]) == person.denied("DescribeVpcs")


def test_sdk_errors_of_instance_connect(js, person):
    """Errors in JSON become the exceptions that the SDK has for them; a refusal by IAM has its name."""
    given = {"InstanceId": "i-0123456789abcdef0", "InstanceOSUser": "ec2-user", "SSHPublicKey": PUBLIC_KEY}
    error = thrown_by(js, "ec2-instance-connect", "SendSSHPublicKey", **given)
    own = "EC2InstanceNotFoundException"
    assert (error["name"], error["status"], error["fault"]) == (own, 400, "client")
    assert own in error["classes"]
    error = thrown_by(js, "ec2-instance-connect", "SendSSHPublicKey", **given | {"SSHPublicKey": "x" * 100})
    assert (error["name"], "InvalidArgsException" in error["classes"]) == ("InvalidArgsException", True)
    with JsSdk(environment(person.key)) as theirs:
        error = thrown_by(theirs, "ec2-instance-connect", "SendSSHPublicKey", **given)
    assert (error["name"], error["status"]) == ("AccessDeniedException", 400)
    assert "ec2-instance-connect:SendSSHPublicKey" in error["message"]


def test_wrong_secret(v1, js):
    """Who signs with another secret hears so from both, in EC2's words and in Instance Connect's."""
    key = ROOT[0], "not/the/secret"
    with pytest.raises(CommandFailed) as caught:
        aws_v1(environment(key), "ec2", "describe-vpcs")
    with JsSdk(environment(key)) as theirs:
        error = thrown_by(theirs, "ec2", "DescribeVpcs")
        given = {"InstanceId": "i-0123456789abcdef0", "InstanceOSUser": "ec2-user", "SSHPublicKey": PUBLIC_KEY}
        refused = thrown_by(theirs, "ec2-instance-connect", "SendSSHPublicKey", **given)
    assert caught.value.said.startswith("An error occurred (AuthFailure) when calling the DescribeVpcs operation: ")
    assert (error["name"], error["status"]) == ("AuthFailure", 401)
    assert refused["name"] == "InvalidSignatureException"


# -- pages -------------------------------------------------------------------------------------------------------------


def test_sdk_pages(js, vpc):
    """The SDK's paginator finds all thirteen groups, five to a page."""
    pages = js.pages("ec2", "DescribeSecurityGroups", 5, Filters=filters(vpc_id=vpc))
    assert [len(page["SecurityGroups"]) for page in pages] == [5, 5, 3]
    names = {group["GroupName"] for page in pages for group in page["SecurityGroups"]}
    assert names == {"default", *(f"other-{number}" for number in range(12))}


def test_cli_pages(v1, vpc):
    """The CLI's own paging finds them too; so does going on with the token of `--max-items`."""
    listing = ["ec2", "describe-security-groups", "--filters", f"Name=vpc-id,Values={vpc}", "--page-size", "5"]
    assert len(v1(*listing)["SecurityGroups"]) == 13
    first = v1(*listing, "--max-items", "7")
    rest = v1(*listing, "--starting-token", first["NextToken"])
    assert (len(first["SecurityGroups"]), len(rest["SecurityGroups"])) == (7, 6)
    assert len({group["GroupId"] for page in (first, rest) for group in page["SecurityGroups"]}) == 13


# -- waiters -----------------------------------------------------------------------------------------------------------


def test_cli_waiters(v1, subnet):
    """`aws ec2 wait` ends when an instance runs, is well, has stopped and is gone; for one that is gone it fails."""
    run = ["ec2", "run-instances", "--image-id", IMAGE, "--subnet-id", subnet, "--count", "1"]
    instance = v1(*run)["Instances"][0]["InstanceId"]
    of = ["--instance-ids", instance]
    for state in ("instance-exists", "instance-running", "instance-status-ok"):
        v1("ec2", "wait", state, *of)
    v1("ec2", "stop-instances", *of)
    v1("ec2", "wait", "instance-stopped", *of)
    v1("ec2", "terminate-instances", *of)
    v1("ec2", "wait", "instance-terminated", *of)
    code, said = said_by(v1, "ec2", "wait", "instance-running", *of)
    assert (code, said.partition(":")[0]) == (255, "Waiter InstanceRunning failed")


def test_sdk_waiters(js, subnet):
    """The SDK's waiters do."""
    run = js.send("ec2", "RunInstances", ImageId=IMAGE, SubnetId=subnet, MinCount=1, MaxCount=1)
    of = {"InstanceIds": [run["Instances"][0]["InstanceId"]]}
    for state in ("InstanceExists", "InstanceRunning", "InstanceStatusOk"):
        assert js.wait("ec2", state, **of) == "SUCCESS"
    js.send("ec2", "StopInstances", **of)
    assert js.wait("ec2", "InstanceStopped", **of) == "SUCCESS"
    js.send("ec2", "TerminateInstances", **of)
    assert js.wait("ec2", "InstanceTerminated", **of) == "SUCCESS"
    with pytest.raises(SdkError):
        js.wait("ec2", "InstanceRunning", **of)


# -- what is read ------------------------------------------------------------------------------------------------------

READS = {
    "DescribeVpcs": "describe-vpcs",
    "DescribeSubnets": "describe-subnets",
    "DescribeSecurityGroups": "describe-security-groups",
    "DescribeSecurityGroupRules": "describe-security-group-rules",
    "DescribeNetworkInterfaces": "describe-network-interfaces",
    "DescribeInstances": "describe-instances",
    "DescribeInstanceStatus": "describe-instance-status",
    "DescribeInstanceConnectEndpoints": "describe-instance-connect-endpoints",
    "DescribeTags": "describe-tags",
    "DescribeAvailabilityZones": "describe-availability-zones",
    "DescribeRegions": "describe-regions",
    "DescribeAccountAttributes": "describe-account-attributes",
}


@pytest.fixture(scope="module")
def populated(ec2, js, vpc, subnet):
    """Something of every kind, with tags, so that there is something to read."""
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": "read & <written>"}]}]
    group = ec2.create_security_group(GroupName="read", Description="to be read", VpcId=vpc)["GroupId"]
    rule = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "UserIdGroupPairs": [{"GroupId": group}]}
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule])
    given = {"SubnetId": subnet, "SecurityGroupIds": [group], "TagSpecifications": tags}
    run = ec2.run_instances(ImageId=IMAGE, MinCount=1, MaxCount=1, **given)
    endpoint = js.send("ec2", "CreateInstanceConnectEndpoint", SubnetId=subnet, SecurityGroupIds=[group])
    endpoint_id = endpoint["InstanceConnectEndpoint"]["InstanceConnectEndpointId"]
    js.wait("ec2", "InstanceStatusOk", InstanceIds=[run["Instances"][0]["InstanceId"]])
    complete(ec2, endpoint_id)  # nothing may change between three readings
    yield
    ec2.delete_instance_connect_endpoint(InstanceConnectEndpointId=endpoint_id)
    ec2.terminate_instances(InstanceIds=[run["Instances"][0]["InstanceId"]])


@pytest.mark.parametrize("action", READS)
def test_all_read_the_same(ec2, js, v1, populated, action):
    """What the SDK and the CLI make of an answer is what boto3 makes of it: every member, every type."""
    expected = plain(call(ec2, action, {}))
    assert expected, "there is something to read"
    assert plain(js.send("ec2", action)) == expected
    assert plain(v1("ec2", READS[action])) == expected


def plain(value):
    """An output without metadata and empty members, with times as seconds."""
    if isinstance(value, dict):
        kept = {name: plain(one) for name, one in value.items() if name not in ("ResponseMetadata", "$metadata")}
        return {name: one for name, one in kept.items() if one not in (None, [], {})}
    if isinstance(value, list):
        return [plain(one) for one in value]
    if isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)", value):
        value = datetime.datetime.fromisoformat(value)
    return value.timestamp() if isinstance(value, datetime.datetime) else value
