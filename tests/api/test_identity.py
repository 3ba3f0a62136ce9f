"""IAM, STS and CloudTrail through the stock SDK: each offered action, in the life of users, groups, roles, policies."""

import json
from typing import ClassVar

import pytest
from botocore import xform_name

from tests.api.worlds import refusal, until
from wicketgate.api.offers import offered

ACCOUNT = "123456789012"
LOOK = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "ec2:Describe*", "Resource": "*"}]}
CHANGE = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "ec2:*", "Resource": "*"}]}
TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"AWS": ACCOUNT}, "Action": "sts:AssumeRole"}],
}


class Recorder:
    """A client that keeps which operations were called."""

    called: ClassVar[set[tuple[str, str]]] = set()

    def __init__(self, client):
        self._client = client
        self._service = client.meta.service_model.service_name

    def __getattr__(self, name):
        for operation in self._client.meta.service_model.operation_names:
            if xform_name(operation) == name:
                self.called.add((self._service, operation))
        return getattr(self._client, name)


@pytest.fixture(scope="module")
def people(iam):
    """IAM, recorded."""
    return Recorder(iam)


def test_users(deployment, people):
    """Made, renamed, tagged, listed by path, with keys, at most two; deleted only when nothing is left on it."""
    made = people.create_user(UserName="walker", Path="/walk/", Tags=[{"Key": "Team", "Value": "red"}])["User"]
    assert made["Arn"] == f"arn:aws:iam::{ACCOUNT}:user/walk/walker"
    assert people.get_user(UserName="walker")["User"] == made
    people.update_user(UserName="walker", NewUserName="runner")
    assert [one["UserName"] for one in people.list_users(PathPrefix="/walk/")["Users"]] == ["runner"]
    people.tag_user(UserName="runner", Tags=[{"Key": "Stage", "Value": "test"}])
    people.untag_user(UserName="runner", TagKeys=["Team"])
    assert people.list_user_tags(UserName="runner")["Tags"] == [{"Key": "Stage", "Value": "test"}]

    keys = [people.create_access_key(UserName="runner")["AccessKey"] for _ in range(2)]
    assert refusal(people, "CreateAccessKey", {"UserName": "runner"})[0] == "LimitExceeded"
    client = deployment.client("sts", keys[0]["AccessKeyId"], keys[0]["SecretAccessKey"])
    assert client.get_caller_identity()["Arn"] == f"arn:aws:iam::{ACCOUNT}:user/walk/runner"
    assert people.get_access_key_last_used(AccessKeyId=keys[0]["AccessKeyId"])["UserName"] == "runner"
    people.update_access_key(UserName="runner", AccessKeyId=keys[1]["AccessKeyId"], Status="Inactive")
    shown = people.list_access_keys(UserName="runner")["AccessKeyMetadata"]
    assert {one["AccessKeyId"]: one["Status"] for one in shown} == {
        keys[0]["AccessKeyId"]: "Active",
        keys[1]["AccessKeyId"]: "Inactive",
    }
    assert all("SecretAccessKey" not in one for one in shown)
    assert refusal(people, "DeleteUser", {"UserName": "runner"})[::2] == ("DeleteConflict", 409)
    for key in keys:
        people.delete_access_key(UserName="runner", AccessKeyId=key["AccessKeyId"])
    people.delete_user(UserName="runner")
    assert refusal(people, "GetUser", {"UserName": "runner"}) == (
        "NoSuchEntity",
        "The user with name runner cannot be found.",
        404,
    )


def test_groups(people):
    """Members, and policies of their own."""
    people.create_user(UserName="member")
    made = people.create_group(GroupName="walkers")["Group"]
    assert made["Arn"] == f"arn:aws:iam::{ACCOUNT}:group/walkers"
    people.add_user_to_group(GroupName="walkers", UserName="member")
    assert [one["UserName"] for one in people.get_group(GroupName="walkers")["Users"]] == ["member"]
    assert [one["GroupName"] for one in people.list_groups_for_user(UserName="member")["Groups"]] == ["walkers"]
    people.update_group(GroupName="walkers", NewGroupName="runners")
    assert "runners" in [one["GroupName"] for one in people.list_groups()["Groups"]]
    people.put_group_policy(GroupName="runners", PolicyName="look", PolicyDocument=json.dumps(LOOK))
    assert people.list_group_policies(GroupName="runners")["PolicyNames"] == ["look"]
    assert people.get_group_policy(GroupName="runners", PolicyName="look")["PolicyDocument"] == LOOK
    assert refusal(people, "DeleteGroup", {"GroupName": "runners"})[0] == "DeleteConflict"
    people.delete_group_policy(GroupName="runners", PolicyName="look")
    people.remove_user_from_group(GroupName="runners", UserName="member")
    people.delete_group(GroupName="runners")
    people.delete_user(UserName="member")


def test_managed_policies(people):
    """Versions, the default one, tags, and whom it is attached to."""
    made = people.create_policy(PolicyName="walk", PolicyDocument=json.dumps(LOOK), Description="looks")["Policy"]
    arn = {"PolicyArn": made["Arn"]}
    assert (made["Arn"], made["DefaultVersionId"]) == (f"arn:aws:iam::{ACCOUNT}:policy/walk", "v1")
    people.create_policy_version(**arn, PolicyDocument=json.dumps(CHANGE), SetAsDefault=True)
    assert people.get_policy(**arn)["Policy"]["DefaultVersionId"] == "v2"
    assert people.get_policy_version(**arn, VersionId="v2")["PolicyVersion"]["Document"] == CHANGE
    people.set_default_policy_version(**arn, VersionId="v1")
    assert {one["VersionId"]: one["IsDefaultVersion"] for one in people.list_policy_versions(**arn)["Versions"]} == {
        "v1": True,
        "v2": False,
    }
    people.delete_policy_version(**arn, VersionId="v2")
    people.tag_policy(**arn, Tags=[{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}])
    people.untag_policy(**arn, TagKeys=["a"])
    assert people.list_policy_tags(**arn)["Tags"] == [{"Key": "b", "Value": "2"}]
    assert made["Arn"] in [one["Arn"] for one in people.list_policies(Scope="Local")["Policies"]]

    people.create_user(UserName="holder")
    people.create_group(GroupName="holders")
    people.create_role(RoleName="holding", AssumeRolePolicyDocument=json.dumps(TRUST))
    people.attach_user_policy(UserName="holder", **arn)
    people.attach_group_policy(GroupName="holders", **arn)
    people.attach_role_policy(RoleName="holding", **arn)
    entities = people.list_entities_for_policy(**arn)
    assert [one["UserName"] for one in entities["PolicyUsers"]] == ["holder"]
    assert [one["GroupName"] for one in entities["PolicyGroups"]] == ["holders"]
    assert [one["RoleName"] for one in entities["PolicyRoles"]] == ["holding"]
    attached = [{"PolicyName": "walk", "PolicyArn": made["Arn"]}]
    assert people.list_attached_user_policies(UserName="holder")["AttachedPolicies"] == attached
    assert people.list_attached_group_policies(GroupName="holders")["AttachedPolicies"] == attached
    assert people.list_attached_role_policies(RoleName="holding")["AttachedPolicies"] == attached
    assert refusal(people, "DeletePolicy", arn)[0] == "DeleteConflict"
    people.detach_user_policy(UserName="holder", **arn)
    people.detach_group_policy(GroupName="holders", **arn)
    people.detach_role_policy(RoleName="holding", **arn)
    people.delete_policy(**arn)
    people.delete_user(UserName="holder")
    people.delete_group(GroupName="holders")
    people.delete_role(RoleName="holding")


def test_inline_policies(people):
    """Of a user: put, read, listed, replaced, deleted."""
    people.create_user(UserName="liner")
    of_user = {"UserName": "liner", "PolicyName": "own"}
    for document in (LOOK, CHANGE):
        people.put_user_policy(**of_user, PolicyDocument=json.dumps(document))
        assert people.get_user_policy(**of_user)["PolicyDocument"] == document
    assert people.list_user_policies(UserName="liner")["PolicyNames"] == ["own"]
    broken = refusal(people, "PutUserPolicy", of_user | {"PolicyDocument": '{"Version": "2012-10-17"}'})
    assert broken[0] == "MalformedPolicyDocument"
    people.delete_user_policy(**of_user)
    people.delete_user(UserName="liner")


def test_roles(deployment, people):
    """Trust, description, longest session, tags, policies; and a session of it."""
    made = people.create_role(RoleName="walk", AssumeRolePolicyDocument=json.dumps(TRUST))["Role"]
    people.update_role(RoleName="walk", MaxSessionDuration=7200)
    people.update_role_description(RoleName="walk", Description="walks")
    people.update_assume_role_policy(RoleName="walk", PolicyDocument=json.dumps(TRUST))
    people.tag_role(RoleName="walk", Tags=[{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}])
    people.untag_role(RoleName="walk", TagKeys=["a"])
    assert people.list_role_tags(RoleName="walk")["Tags"] == [{"Key": "b", "Value": "2"}]
    shown = people.get_role(RoleName="walk")["Role"]
    assert (shown["MaxSessionDuration"], shown["Description"], shown["Arn"]) == (7200, "walks", made["Arn"])
    assert shown["AssumeRolePolicyDocument"] == TRUST
    people.put_role_policy(RoleName="walk", PolicyName="look", PolicyDocument=json.dumps(LOOK))
    assert people.list_role_policies(RoleName="walk")["PolicyNames"] == ["look"]
    assert people.get_role_policy(RoleName="walk", PolicyName="look")["PolicyDocument"] == LOOK
    assert "walk" in [one["RoleName"] for one in people.list_roles()["Roles"]]
    assert people.list_instance_profiles_for_role(RoleName="walk")["InstanceProfiles"] == []

    people.create_user(UserName="taker")
    key = people.create_access_key(UserName="taker")["AccessKey"]
    statement = {"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": made["Arn"]}
    may = {"Version": "2012-10-17", "Statement": [statement]}
    people.put_user_policy(UserName="taker", PolicyName="take", PolicyDocument=json.dumps(may))
    sts = Recorder(deployment.client("sts", key["AccessKeyId"], key["SecretAccessKey"]))
    given = sts.assume_role(RoleArn=made["Arn"], RoleSessionName="me", DurationSeconds=900)
    assert given["AssumedRoleUser"]["Arn"] == f"arn:aws:sts::{ACCOUNT}:assumed-role/walk/me"
    session = given["Credentials"]
    temporary = session["AccessKeyId"], session["SecretAccessKey"], session["SessionToken"]
    who = Recorder(deployment.client("sts", *temporary)).get_caller_identity()
    assert who["Arn"] == given["AssumedRoleUser"]["Arn"]
    deployment.client("ec2", *temporary).describe_vpcs()
    people.delete_role_policy(RoleName="walk", PolicyName="look")
    people.delete_role(RoleName="walk")
    assert refusal(deployment.client("ec2", *temporary), "DescribeVpcs", {})[0] == "AuthFailure"
    people.delete_access_key(UserName="taker", AccessKeyId=key["AccessKeyId"])
    people.delete_user_policy(UserName="taker", PolicyName="take")
    people.delete_user(UserName="taker")


def test_all_called():
    """No action of IAM and STS is offered that the tests above do not call. (It takes them all to tell.)"""
    assert {one for one in offered() if one[0] in ("iam", "sts")} == Recorder.called


def test_pages(people):
    """Markers, as IAM has them: every user once."""
    names = {f"page-{number}" for number in range(7)}
    for name in names:
        people.create_user(UserName=name, Path="/pages/")
    pages = list(people.get_paginator("list_users").paginate(PathPrefix="/pages/", PaginationConfig={"PageSize": 3}))
    assert [len(page["Users"]) for page in pages] == [3, 3, 1]
    assert {user["UserName"] for page in pages for user in page["Users"]} == names
    for name in names:
        people.delete_user(UserName=name)


def test_look_up(deployment, people):
    """CloudTrail's LookupEvents tells of a call just made, by its name, without any secret."""
    people.create_user(UserName="looked-up")
    key = people.create_access_key(UserName="looked-up")["AccessKey"]
    cloudtrail = deployment.client("cloudtrail")

    def found():
        wanted = [{"AttributeKey": "EventName", "AttributeValue": "CreateAccessKey"}]
        events = cloudtrail.lookup_events(LookupAttributes=wanted, MaxResults=50)["Events"]
        return [event for event in events if "looked-up" in event["CloudTrailEvent"]]

    until(found)
    (event,) = found()
    record = json.loads(event["CloudTrailEvent"])
    assert (event["EventSource"], record["requestParameters"]) == ("iam.amazonaws.com", {"userName": "looked-up"})
    assert record["responseElements"]["accessKey"]["accessKeyId"] == key["AccessKeyId"]
    assert key["SecretAccessKey"] not in event["CloudTrailEvent"]
    people.delete_access_key(UserName="looked-up", AccessKeyId=key["AccessKeyId"])
    people.delete_user(UserName="looked-up")
