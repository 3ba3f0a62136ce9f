"""Inline and managed policies: documents come back as they were, versions, attachments, and what they do to callers."""

import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.identity_world import (
    ACCOUNT,
    ADMIN,
    ALLOW,
    ALLOW_TEXT,
    READ,
    WRITE,
    pages,
    read,
    refused,
    run,
    small_world,
)
from tests.unit.test_control_identity import may
from wicketgate.control.identity.common import IamQuotas
from wicketgate.model import ApiError

WORLD = small_world()
FULL = f"arn:aws:iam::{ACCOUNT}:policy/Full"
RUN = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "ec2:RunInstances", "Resource": "*"}]}
RUN_TEXT = msgspec.json.encode(RUN).decode()
KINDS = [("User", "bob"), ("Group", "empty"), ("Role", "service")]


@pytest.mark.parametrize(("kind", "name"), KINDS)
def test_an_inline_policy_from_nothing_and_back(kind, name):
    """Put, get, list, put again, delete; the document is read back equal, whatever stands in it."""
    owner = {f"{kind}Name": name}
    odd = {"Statement": {"Sid": "é %/+~", "Effect": "Allow", "Action": "*", "Resource": "*"}}
    world, _ = run(WORLD, f"Put{kind}Policy", PolicyName="P", PolicyDocument=RUN_TEXT, **owner)
    world, _ = run(world, f"Put{kind}Policy", PolicyName="A", PolicyDocument=RUN_TEXT, **owner)
    world, _ = run(world, f"Put{kind}Policy", PolicyName="P", PolicyDocument=msgspec.json.encode(odd).decode(), **owner)
    _, answer = run(world, f"Get{kind}Policy", PolicyName="P", **owner)
    assert (answer[f"{kind}Name"], answer["PolicyName"], read(answer["PolicyDocument"])) == (name, "P", odd)
    assert re.fullmatch(r"[A-Za-z0-9._~%-]+", answer["PolicyDocument"])
    assert run(world, f"List{kind}Policies", **owner)[1] == {"PolicyNames": ["A", "P"], "IsTruncated": False}
    assert pages(world, f"List{kind}Policies", "PolicyNames", **owner) == ["A", "P"]
    for policy in ("A", "P"):
        world, _ = run(world, f"Delete{kind}Policy", PolicyName=policy, **owner)
    assert (world.users, world.user_groups, world.roles) == (WORLD.users, WORLD.user_groups, WORLD.roles)


@pytest.mark.parametrize(("kind", "name"), KINDS)
def test_inline_policies_have_a_size_together(kind, name):
    """The sizes of all inline policies of an identity are added up; a policy put again counts once."""
    field = f"{kind.lower()}_inline_size"
    size = {"quotas": IamQuotas(**{field: 2 * len(RUN_TEXT)})}
    owner = {f"{kind}Name": name, "PolicyDocument": RUN_TEXT}
    world, _ = run(WORLD, f"Put{kind}Policy", settings=size, PolicyName="A", **owner)
    world, _ = run(world, f"Put{kind}Policy", settings=size, PolicyName="B", **owner)
    run(world, f"Put{kind}Policy", settings=size, PolicyName="B", **owner)
    code, words, status = refused(world, f"Put{kind}Policy", settings=size, PolicyName="C", **owner)
    expected = f"Maximum policy size of {2 * len(RUN_TEXT)} bytes exceeded for {kind.lower()} {name}"
    assert (code, words, status) == ("LimitExceeded", expected, 409)


@pytest.mark.parametrize(("kind", "name"), KINDS)
def test_attach_and_detach(kind, name):
    """An attached policy is listed on both sides and counted; attaching it twice changes nothing."""
    owner = {f"{kind}Name": name}
    world, _ = run(WORLD, f"Attach{kind}Policy", PolicyArn=READ, **owner)
    assert run(world, f"Attach{kind}Policy", PolicyArn=READ, **owner)[0] == world
    listed = run(world, f"ListAttached{kind}Policies", **owner)[1]["AttachedPolicies"]
    assert listed == [{"PolicyName": "Read", "PolicyArn": READ}]
    assert run(world, f"ListAttached{kind}Policies", PathPrefix="/ops/", **owner)[1]["AttachedPolicies"] == []
    assert run(world, "GetPolicy", PolicyArn=READ)[1]["Policy"]["AttachmentCount"] == 2
    _, entities = run(world, "ListEntitiesForPolicy", PolicyArn=READ, EntityFilter=kind)
    assert name in [one[f"{kind}Name"] for one in entities[f"Policy{kind}s"]]
    world, _ = run(world, f"Detach{kind}Policy", PolicyArn=READ, **owner)
    assert (world.users, world.user_groups, world.roles) == (WORLD.users, WORLD.user_groups, WORLD.roles)


def test_entities_for_policy():
    """All kinds at once, in pages that show each once; as a boundary nobody has the policy."""
    world, _ = run(WORLD, "AttachRolePolicy", RoleName="ops", PolicyArn=READ)
    _, answer = run(world, "ListEntitiesForPolicy", PolicyArn=READ)
    assert answer == {
        "PolicyUsers": [{"UserName": "alice", "UserId": "AIDAALICE000000000000"}],
        "PolicyGroups": [],
        "PolicyRoles": [{"RoleName": "ops", "RoleId": "AROAOPS00000000000000"}],
        "IsTruncated": False,
    }
    _, first = run(world, "ListEntitiesForPolicy", PolicyArn=READ, MaxItems=1)
    _, second = run(world, "ListEntitiesForPolicy", PolicyArn=READ, MaxItems=1, Marker=first["Marker"])
    assert (first["PolicyRoles"], second["PolicyUsers"]) == (answer["PolicyRoles"], answer["PolicyUsers"])
    assert not second["IsTruncated"] and second["PolicyRoles"] == []
    _, none = run(world, "ListEntitiesForPolicy", PolicyArn=READ, PolicyUsageFilter="PermissionsBoundary")
    assert none["PolicyUsers"] == none["PolicyRoles"] == []


def test_a_managed_policy_from_nothing_and_back():
    """Create shows no description, Get does; the path is in the ARN; delete leaves nothing."""
    world, answer = run(WORLD, "CreatePolicy", PolicyName="New", Path="/p/", PolicyDocument=RUN_TEXT, Description="why")
    made = answer["Policy"]
    assert re.fullmatch(r"ANPA[A-Z2-7]{17}", made["PolicyId"])
    assert (made["Arn"], made["DefaultVersionId"]) == (f"arn:aws:iam::{ACCOUNT}:policy/p/New", "v1")
    assert (made["AttachmentCount"], made["IsAttachable"], "Description" in made) == (0, True, False)
    got = run(world, "GetPolicy", PolicyArn=made["Arn"])[1]["Policy"]
    assert got == made | {"Description": "why", "Tags": []}
    assert run(world, "ListPolicies", Scope="Local", PathPrefix="/p/")[1]["Policies"] == [made]
    assert run(world, "DeletePolicy", PolicyArn=made["Arn"])[0].managed_policies == WORLD.managed_policies


def test_scopes():
    """The account's, AWS's, both; only attached ones."""

    def names(**parameters):
        return [policy["PolicyName"] for policy in run(WORLD, "ListPolicies", **parameters)[1]["Policies"]]

    assert names(Scope="Local") == ["Full", "Read", "Write"]
    assert names(Scope="AWS") == ["AdministratorAccess", "EC2InstanceConnect"]
    assert names() == sorted(names(Scope="Local") + names(Scope="AWS"))
    assert names(OnlyAttached=True) == ["AdministratorAccess", "Read", "Write"]
    assert names(PolicyUsageFilter="PermissionsBoundary") == []


def test_versions_count_on():
    """Numbers of versions are never used again; the newest comes first; SetAsDefault puts one in force."""
    world, answer = run(WORLD, "CreatePolicyVersion", PolicyArn=READ, PolicyDocument=RUN_TEXT)
    version = answer["PolicyVersion"]
    assert (version["VersionId"], version["IsDefaultVersion"], "Document" in version) == ("v4", False, False)
    world, _ = run(world, "CreatePolicyVersion", PolicyArn=READ, PolicyDocument=RUN_TEXT, SetAsDefault=True)
    world, _ = run(world, "DeletePolicyVersion", PolicyArn=READ, VersionId="v4")
    world, _ = run(world, "CreatePolicyVersion", PolicyArn=READ, PolicyDocument=ALLOW_TEXT)
    versions = run(world, "ListPolicyVersions", PolicyArn=READ)[1]["Versions"]
    assert [(one["VersionId"], one["IsDefaultVersion"]) for one in versions] == [
        ("v6", False), ("v5", True), ("v3", False), ("v1", False)
    ]  # fmt: skip
    _, got = run(world, "GetPolicyVersion", PolicyArn=READ, VersionId="v5")
    assert read(got["PolicyVersion"]["Document"]) == RUN


def test_the_version_in_force_decides():
    """Setting the default version changes at once what those may do who have the policy."""
    world, _ = run(WORLD, "AttachUserPolicy", UserName="dave", PolicyArn=WRITE)
    assert (may(world, "dave", "ec2:DescribeVpcs"), may(world, "dave", "ec2:RunInstances")) == (True, False)
    world, _ = run(world, "CreatePolicyVersion", PolicyArn=WRITE, PolicyDocument=RUN_TEXT)
    assert not may(world, "dave", "ec2:RunInstances")
    world, _ = run(world, "SetDefaultPolicyVersion", PolicyArn=WRITE, VersionId="v2")
    assert (may(world, "dave", "ec2:DescribeVpcs"), may(world, "dave", "ec2:RunInstances")) == (False, True)


def test_administrator_access():
    """AWS's AdministratorAccess can be attached, read, and makes an administrator."""
    world, _ = run(WORLD, "AttachUserPolicy", UserName="dave", PolicyArn=ADMIN)
    assert may(world, "dave", "iam:CreateUser") and not may(WORLD, "dave", "iam:CreateUser")
    _, version = run(WORLD, "GetPolicyVersion", PolicyArn=ADMIN, VersionId="v1")
    assert read(version["PolicyVersion"]["Document"]) == {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}],
    }


@pytest.mark.parametrize(
    ("action", "more"),
    [
        ("CreatePolicyVersion", {"PolicyDocument": RUN_TEXT}),
        ("SetDefaultPolicyVersion", {"VersionId": "v1"}),
        ("DeletePolicyVersion", {"VersionId": "v1"}),
        ("TagPolicy", {"Tags": [{"Key": "a", "Value": "b"}]}),
        ("UntagPolicy", {"TagKeys": ["a"]}),
    ],
)
def test_awss_policies_are_nobodys_to_change(action, more):
    """Whatever would change one of AWS's policies is refused."""
    assert refused(WORLD, action, PolicyArn=ADMIN, **more) == (
        "AccessDenied",
        "Policy is outside your own account.",
        403,
    )


def test_deleting_versions_makes_a_policy_deletable():
    """Once only the default version is left and nobody has the policy, it goes."""
    world = WORLD
    for number in (2, 3, 4, 5):
        world, _ = run(world, "DeletePolicyVersion", PolicyArn=FULL, VersionId=f"v{number}")
    world, _ = run(world, "DeletePolicy", PolicyArn=FULL)
    assert world.managed_policy(FULL) is None
    assert WORLD.managed_policy(FULL).document == ALLOW


# -- whatever is done, the World stays whole ---------------------------------------------------------------------------

_NAMES = st.sampled_from(["alice", "bob", "BOB", "new"])
_GROUPS = st.sampled_from(["admins", "guests", "new"])
_ROLES = st.sampled_from(["ops", "direct", "new"])
_ARNS = st.sampled_from([READ, WRITE, ADMIN, f"arn:aws:iam::{ACCOUNT}:policy/new"])
_TRUST = '{"Statement": {"Effect": "Allow", "Principal": {"AWS": "123456789012"}, "Action": "sts:AssumeRole"}}'
_MOVES = st.one_of(
    st.tuples(
        st.sampled_from(["CreateUser", "DeleteUser", "CreateAccessKey"]), st.fixed_dictionaries({"UserName": _NAMES})
    ),
    st.tuples(st.just("UpdateUser"), st.fixed_dictionaries({"UserName": _NAMES, "NewUserName": _NAMES})),
    st.tuples(st.sampled_from(["CreateGroup", "DeleteGroup"]), st.fixed_dictionaries({"GroupName": _GROUPS})),
    st.tuples(st.just("UpdateGroup"), st.fixed_dictionaries({"GroupName": _GROUPS, "NewGroupName": _GROUPS})),
    st.tuples(
        st.sampled_from(["AddUserToGroup", "RemoveUserFromGroup"]),
        st.fixed_dictionaries({"GroupName": _GROUPS, "UserName": _NAMES}),
    ),
    st.tuples(
        st.sampled_from(["AttachUserPolicy", "DetachUserPolicy"]),
        st.fixed_dictionaries({"UserName": _NAMES, "PolicyArn": _ARNS}),
    ),
    st.tuples(
        st.sampled_from(["AttachRolePolicy", "DetachRolePolicy"]),
        st.fixed_dictionaries({"RoleName": _ROLES, "PolicyArn": _ARNS}),
    ),
    st.tuples(st.just("DeleteRolePolicy"), st.fixed_dictionaries({"RoleName": _ROLES, "PolicyName": st.just("Own")})),
    st.tuples(
        st.just("CreateRole"),
        st.fixed_dictionaries({"RoleName": _ROLES, "AssumeRolePolicyDocument": st.just(_TRUST)}),
    ),
    st.tuples(st.just("DeleteRole"), st.fixed_dictionaries({"RoleName": _ROLES})),
    st.tuples(st.just("DeletePolicy"), st.fixed_dictionaries({"PolicyArn": _ARNS})),
    st.tuples(
        st.just("CreatePolicy"),
        st.fixed_dictionaries({"PolicyName": st.just("new"), "PolicyDocument": st.just(ALLOW_TEXT)}),
    ),
    st.tuples(
        st.sampled_from(["DeletePolicyVersion", "SetDefaultPolicyVersion"]),
        st.fixed_dictionaries({"PolicyArn": _ARNS, "VersionId": st.sampled_from(["v1", "v3"])}),
    ),
)


@given(st.lists(_MOVES, max_size=30))
def test_no_order_of_calls_breaks_the_world(moves):
    """Each call is refused in IAM's words or leaves a World without contradiction (applying a Change checks it)."""
    world = WORLD
    for action, parameters in moves:
        try:
            world, _ = run(world, action, **parameters)
        except ApiError as error:
            assert error.code in (
                "NoSuchEntity",
                "EntityAlreadyExists",
                "DeleteConflict",
                "LimitExceeded",
                "AccessDenied",
            )
    world.check()
    for key in world.access_keys:
        assert world.principal(key) is not None
