"""Who may: policies of users, groups, roles and sessions, their conditions, and what a refusal tells."""

import json

import pytest

from tests.api.people import User, allow, arn
from tests.api.worlds import code_of, refusal, tagged

RULE = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "CidrIp": "192.0.2.0/24"}
MAY, MAY_NOT = "DryRunOperation", "UnauthorizedOperation"


class Place:
    """A VPC with a group that bears a tag."""

    def __init__(self, ec2):
        self.vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16", **tagged("vpc", {"Team": "red"}))["Vpc"]["VpcId"]
        self.vpc_arn = f"arn:aws:ec2:us-east-1:123456789012:vpc/{self.vpc}"
        self.group = ec2.create_security_group(
            GroupName="g", Description="d", VpcId=self.vpc, **tagged("security-group", {"Team": "red", "Stage": "test"})
        )["GroupId"]


@pytest.fixture(scope="module")
def place(ec2):
    """One place for the module: nothing here changes it."""
    return Place(ec2)


@pytest.fixture(scope="module")
def user(deployment, iam):
    """A user whose policy each test sets."""
    return User(deployment, iam)


def authorize(user, place):
    """The code of an inbound rule's dry run on the place's group."""
    return code_of(user.ec2, "AuthorizeSecurityGroupIngress", GroupId=place.group, **RULE, DryRun=True)


@pytest.mark.parametrize(
    ("operator", "key", "value", "code"),
    [
        ("StringEquals", "aws:ResourceTag/Team", "red", MAY),
        ("StringEquals", "ec2:ResourceTag/Team", "red", MAY),
        ("StringEquals", "ec2:ResourceTag/Team", "blue", MAY_NOT),
        ("StringEquals", "ec2:ResourceTag/Owner", "red", MAY_NOT),
        ("StringLike", "ec2:ResourceTag/Stage", "te*", MAY),
        ("StringNotEquals", "ec2:ResourceTag/Stage", "prod", MAY),
        ("Null", "ec2:ResourceTag/Owner", "true", MAY),
        ("ArnEquals", "ec2:Vpc", "{vpc_arn}", MAY),
        ("ArnLike", "ec2:Vpc", "arn:aws:ec2:*:*:vpc/vpc-*", MAY),
        ("StringEquals", "ec2:Vpc", "{vpc_arn}0", MAY_NOT),
        ("StringEquals", "EC2:REGION", "us-east-1", MAY),
        ("StringEquals", "ec2:Region", "eu-west-1", MAY_NOT),
        ("StringEquals", "ec2:SecurityGroupID", "{group}", MAY),
        ("IpAddress", "aws:SourceIp", "127.0.0.0/8", MAY),
        ("IpAddress", "aws:SourceIp", "192.0.2.0/24", MAY_NOT),
        ("Bool", "aws:SecureTransport", "true", MAY),
        ("Bool", "aws:SecureTransport", "false", MAY_NOT),
        ("StringEquals", "aws:PrincipalAccount", "123456789012", MAY),
        ("StringEquals", "aws:username", "{user}", MAY),
        ("StringEquals", "aws:PrincipalType", "User", MAY),
        ("StringLike", "aws:UserAgent", "Boto3/*", MAY),
        ("DateGreaterThan", "aws:CurrentTime", "2020-01-01T00:00:00Z", MAY),
        ("DateLessThan", "aws:CurrentTime", "2020-01-01T00:00:00Z", MAY_NOT),
        ("StringEquals", "aws:RequestedRegion", "us-east-1", MAY),
    ],
)
def test_condition(user, place, *, operator, key, value, code):
    """Each kind of condition key, of the group and of the caller, that holds and that does not."""
    names = {"vpc_arn": place.vpc_arn, "group": place.group, "user": user.name}
    condition = {operator: {key: value.format(**names)}}
    user.may(allow("ec2:AuthorizeSecurityGroupIngress", f"security-group/{place.group}", **condition))
    assert authorize(user, place) == code


def test_explicit_deny(user, place):
    """A statement that denies wins over one that allows, and the refusal says that it was one."""
    deny = allow("ec2:Authorize*", StringEquals={"aws:ResourceTag/Team": "red"}) | {"Effect": "Deny"}
    user.may(allow("*"), deny)
    asked = {"GroupId": place.group, **RULE}
    words = (
        f"You are not authorized to perform this operation. User: {user.arn} is not authorized to perform: "
        f"ec2:AuthorizeSecurityGroupIngress on resource: {arn(f'security-group/{place.group}')} "
        "with an explicit deny in an identity-based policy"
    )
    assert refusal(user.ec2, "AuthorizeSecurityGroupIngress", asked) == (MAY_NOT, words, 403)
    assert code_of(user.ec2, "RevokeSecurityGroupIngress", **asked, DryRun=True) != MAY_NOT


def test_policy_variables(user, ec2, iam):
    """`${aws:username}` in a resource's tag."""
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16", **tagged("vpc", {"Owner": user.name}))["Vpc"]["VpcId"]
    user.may(allow("ec2:DeleteVpc", StringEquals={"aws:ResourceTag/Owner": "${aws:username}"}))
    assert code_of(user.ec2, "DeleteVpc", VpcId=vpc, DryRun=True) == MAY
    ec2.create_tags(Resources=[vpc], Tags=[{"Key": "Owner", "Value": "another"}])
    assert code_of(user.ec2, "DeleteVpc", VpcId=vpc, DryRun=True) == MAY_NOT


def test_tags_on_create(user):
    """aws:RequestTag, aws:TagKeys; and ec2:CreateAction allows tags on what is made, but not on what is there."""
    keys = {"ForAllValues:StringEquals": {"aws:TagKeys": ["Team", "Stage"]}}
    only_when_made = allow("ec2:CreateTags", StringEquals={"ec2:CreateAction": "CreateVpc"})
    user.may(allow("ec2:CreateVpc", StringEquals={"aws:RequestTag/Team": "red"}, **keys), only_when_made)

    def made(tags):
        asked = {"CidrBlock": "10.0.0.0/16", "DryRun": True, **tagged("vpc", tags)}
        return code_of(user.ec2, "CreateVpc", **asked)

    assert made({"Team": "red"}) == MAY
    assert made({"Team": "red", "Stage": "x"}) == MAY
    assert made({"Team": "blue"}) == MAY_NOT
    assert made({"Team": "red", "Owner": "x"}) == MAY_NOT
    assert made({}) == MAY_NOT
    vpc = user.ec2.create_vpc(CidrBlock="10.0.0.0/16", **tagged("vpc", {"Team": "red"}))["Vpc"]["VpcId"]
    later = {"Resources": [vpc], "Tags": [{"Key": "Team", "Value": "red"}]}
    assert refusal(user.ec2, "CreateTags", later) == user.denied("CreateTags", f"vpc/{vpc}")


def test_delete_tags_by_key(user, place):
    """DeleteTags by the keys that it names."""
    only_stage = {"ForAllValues:StringEquals": {"aws:TagKeys": ["Stage"]}}
    user.may(allow("ec2:DeleteTags", "security-group/*", **only_stage))
    asked = {"Resources": [place.group], "DryRun": True}
    assert code_of(user.ec2, "DeleteTags", **asked, Tags=[{"Key": "Stage"}]) == MAY
    assert code_of(user.ec2, "DeleteTags", **asked, Tags=[{"Key": "Team"}]) == MAY_NOT


@pytest.mark.parametrize(
    ("action", "member", "kind"),
    [
        ("DeleteVpc", "VpcId", "vpc"),
        ("DeleteSubnet", "SubnetId", "subnet"),
        ("DeleteSecurityGroup", "GroupId", "security-group"),
        ("DeleteNetworkInterface", "NetworkInterfaceId", "network-interface"),
        ("DeleteInstanceConnectEndpoint", "InstanceConnectEndpointId", "instance-connect-endpoint"),
        ("StopInstances", "InstanceIds", "instance"),
        ("CreateTags", "Resources", "vpc"),
    ],
)
def test_nothing_is_told(user, action, member, kind):
    """Who may not is told the same of what does not exist as of what does."""
    prefix = {"network-interface": "eni", "security-group": "sg", "instance": "i", "instance-connect-endpoint": "eice"}
    user.may(allow("ec2:Describe*"))
    missing = f"{prefix.get(kind, kind)}-99999999999999999"
    asked = {member: [missing] if member in ("InstanceIds", "Resources") else missing}
    asked |= {"Tags": [{"Key": "k", "Value": "v"}]} if action == "CreateTags" else {}
    assert refusal(user.ec2, action, asked) == user.denied(action, f"{kind}/{missing}")


def test_root(ec2, place):
    """Root may, without a policy."""
    assert code_of(ec2, "AuthorizeSecurityGroupIngress", GroupId=place.group, **RULE, DryRun=True) == MAY


def test_groups_and_managed_policies(deployment, iam, place):
    """What a user may by its groups and by managed policies, AWS's own included, counts from the next call on."""
    user = User(deployment, iam)
    assert authorize(user, place) == MAY_NOT
    document = json.dumps({"Version": "2012-10-17", "Statement": [allow("ec2:AuthorizeSecurityGroup*")]})
    iam.create_group(GroupName="rules")
    iam.put_group_policy(GroupName="rules", PolicyName="p", PolicyDocument=document)
    iam.add_user_to_group(GroupName="rules", UserName=user.name)
    assert authorize(user, place) == MAY
    iam.remove_user_from_group(GroupName="rules", UserName=user.name)
    assert authorize(user, place) == MAY_NOT
    policy = iam.create_policy(PolicyName="rules", PolicyDocument=document)["Policy"]["Arn"]
    for one in (policy, "arn:aws:iam::aws:policy/AdministratorAccess"):
        iam.attach_user_policy(UserName=user.name, PolicyArn=one)
        assert authorize(user, place) == MAY
        iam.detach_user_policy(UserName=user.name, PolicyArn=one)
        assert authorize(user, place) == MAY_NOT


def test_session_policy(deployment, iam, place):
    """A session may what both the role's policies and its own session policy allow; refusals name the session."""
    user = User(deployment, iam)
    trust = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Principal": {"AWS": user.arn}, "Action": "sts:AssumeRole"}],
    }
    role = iam.create_role(RoleName="both", AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
    document = {"Version": "2012-10-17", "Statement": [allow("ec2:*")]}
    iam.put_role_policy(RoleName="both", PolicyName="p", PolicyDocument=json.dumps(document))
    user.may(allow("sts:AssumeRole", role))
    sts = deployment.client("sts", *user.key)

    def session(**more):
        given = sts.assume_role(RoleArn=role, RoleSessionName="me", **more)["Credentials"]
        return deployment.client("ec2", given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"])

    asked = {"GroupId": place.group, **RULE, "DryRun": True}
    whole = session()
    assert code_of(whole, "AuthorizeSecurityGroupIngress", **asked) == MAY
    narrow = session(Policy=json.dumps({"Version": "2012-10-17", "Statement": [allow("ec2:Describe*")]}))
    narrow.describe_vpcs()
    code, message, status = refusal(narrow, "AuthorizeSecurityGroupIngress", asked)
    assert (code, status) == (MAY_NOT, 403)
    assert "User: arn:aws:sts::123456789012:assumed-role/both/me is not authorized to perform" in message
    assert message.endswith("because no session policy allows the ec2:AuthorizeSecurityGroupIngress action")
    iam.delete_role_policy(RoleName="both", PolicyName="p")
    assert code_of(whole, "AuthorizeSecurityGroupIngress", **asked) == MAY_NOT


def test_deleted_user(deployment, iam):
    """With the user goes the key."""
    user = User(deployment, iam)
    user.may(allow("ec2:DescribeVpcs"))
    user.ec2.describe_vpcs()
    iam.delete_user_policy(UserName=user.name, PolicyName="p")
    iam.delete_access_key(UserName=user.name, AccessKeyId=user.key[0])
    iam.delete_user(UserName=user.name)
    assert refusal(user.ec2, "DescribeVpcs", {})[::2] == ("AuthFailure", 401)


def test_other_services(deployment, user):
    """IAM and Instance Connect refuse in their own codes; whoever is authenticated may ask STS who he is."""
    user.may(allow("ec2:Describe*"))
    iam, sts = (deployment.client(service, *user.key) for service in ("iam", "sts"))
    code, message, status = refusal(iam, "ListUsers", {})
    assert (code, status) == ("AccessDenied", 403)
    assert message.startswith(f"User: {user.arn} is not authorized to perform: iam:ListUsers on resource: ")
    assert message.endswith(" because no identity-based policy allows the iam:ListUsers action")
    assert sts.get_caller_identity()["Arn"] == user.arn
    eic = deployment.client("ec2-instance-connect", *user.key)
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
    asked = {"InstanceId": "i-99999999999999999", "InstanceOSUser": "me", "SSHPublicKey": key}
    code, message, status = refusal(eic, "SendSSHPublicKey", asked)
    assert (code, status) == ("AccessDeniedException", 400)
    assert (
        "ec2-instance-connect:SendSSHPublicKey on resource: arn:aws:ec2:us-east-1:123456789012:instance/i-9" in message
    )
