"""IAM's actions on users, groups, roles, keys and tags: every refusal, what they make and show, what IAM is asked."""

import re
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.identity_world import (
    ACCOUNT,
    ADMIN,
    ALLOW_TEXT,
    MODELS,
    NOW,
    READ,
    asks,
    golden_errors,
    pages,
    read,
    refused,
    run,
    small_world,
    trust,
)
from wicketgate import iam
from wicketgate.control import operations
from wicketgate.control.identity.common import IamQuotas
from wicketgate.model import World

WORLD = small_world()
TRUST_TEXT = msgspec.json.encode(trust({"AWS": ACCOUNT})).decode()
THEN = datetime.fromtimestamp(NOW, UTC)


def test_actions_offered_are_in_the_service_models():
    """What is offered under `iam` and `sts` exists at AWS under that name."""
    for service, model in MODELS.items():
        offered = {name for of, name in operations() if of == service}
        assert offered and offered <= set(model.operation_names)
    families = {"Put{}Policy", "Get{}Policy", "List{}Policies", "Delete{}Policy", "Attach{}Policy", "Detach{}Policy"}
    for kind in ("User", "Group", "Role"):
        for form in (*families, "Create{}", "Get{}", "List{}s", "Update{}", "Delete{}", "ListAttached{}Policies"):
            assert ("iam", form.format(kind)) in operations()


@golden_errors("iam")
def test_refusal(error):
    """A bad call is refused with the code, words and status that the golden file has."""
    expected = (error["code"], error["message"], error.get("status", 400))
    assert refused(WORLD, error["action"], error.get("who", "root"), **error["parameters"]) == expected


# -- users -------------------------------------------------------------------------------------------------------------


def test_a_user_from_nothing_and_back():
    """CreateUser, GetUser, ListUsers and DeleteUser tell the same; afterwards nothing is left."""
    tags = [{"Key": "Team", "Value": "blue"}]
    world, answer = run(World(), "CreateUser", UserName="eve", Path="/a/b/", Tags=tags)
    user = answer["User"]
    assert re.fullmatch(r"AIDA[A-Z2-7]{17}", user["UserId"])
    assert user == {
        "Path": "/a/b/",
        "UserName": "eve",
        "UserId": user["UserId"],
        "Arn": f"arn:aws:iam::{ACCOUNT}:user/a/b/eve",
        "CreateDate": THEN,
        "Tags": tags,
    }
    assert run(world, "GetUser", UserName="eve")[1] == {"User": user}
    listed = {key: value for key, value in user.items() if key != "Tags"}
    assert run(world, "ListUsers")[1] == {"Users": [listed], "IsTruncated": False}
    world, _ = run(world, "DeleteUser", UserName="eve")
    assert world.users == ()


def test_get_user_without_a_name_is_about_the_caller():
    """A user gets itself; root has neither name nor path."""
    assert run(WORLD, "GetUser", "alice")[1]["User"]["UserName"] == "alice"
    root = run(WORLD, "GetUser")[1]["User"]
    assert (root["UserId"], root["Arn"]) == (ACCOUNT, f"arn:aws:iam::{ACCOUNT}:root")
    assert "UserName" not in root


def test_rename_a_user():
    """A renamed user keeps id, policies, groups and keys; the old name is free and its key still works."""
    world, _ = run(WORLD, "UpdateUser", UserName="alice", NewUserName="Alice2", NewPath="/x/")
    assert world.user("alice") is None
    before, after = WORLD.user("alice"), world.user("Alice2")
    assert msgspec.structs.replace(after, name="alice", path="/ops/") == before
    principal = world.principal(world.access_key("AKIAALICE00000000000"))
    assert (principal.arn, principal.id) == (f"arn:aws:iam::{ACCOUNT}:user/x/Alice2", before.id)
    run(world, "CreateUser", UserName="alice")


def test_a_user_may_change_the_case_of_its_name():
    """The name that a user has itself does not stand in its way."""
    world, _ = run(WORLD, "UpdateUser", UserName="bob", NewUserName="Bob")
    assert (world.user("bob"), world.user("Bob").id) == (None, WORLD.user("bob").id)


def test_path_prefix():
    """PathPrefix compares the beginning of the path, whole parts or not."""
    for prefix, names in (("/", ["alice", "bob", "carol", "dave"]), ("/op", ["alice"]), ("/x/", [])):
        assert [user["UserName"] for user in run(WORLD, "ListUsers", PathPrefix=prefix)[1]["Users"]] == names


@pytest.mark.parametrize(
    ("action", "parameters", "settings", "words"),
    [
        ("CreateUser", {"UserName": "x"}, {"users": 4}, "UsersPerAccount: 4"),
        ("CreateGroup", {"GroupName": "x"}, {"groups": 3}, "GroupsPerAccount: 3"),
        ("CreateRole", {"RoleName": "x", "AssumeRolePolicyDocument": TRUST_TEXT}, {"roles": 3}, "RolesPerAccount: 3"),
        ("CreatePolicy", {"PolicyName": "x", "PolicyDocument": ALLOW_TEXT}, {"policies": 3}, "PoliciesPerAccount: 3"),
        (
            "CreatePolicy",
            {"PolicyName": "x", "PolicyDocument": ALLOW_TEXT},
            {"managed_policy_size": len(ALLOW_TEXT) - 1},
            f"PolicySize: {len(ALLOW_TEXT) - 1}",
        ),
        (
            "UpdateAssumeRolePolicy",
            {"RoleName": "ops", "PolicyDocument": TRUST_TEXT},
            {"trust_policy_size": len(TRUST_TEXT) - 1},
            f"ACLSizePerRole: {len(TRUST_TEXT) - 1}",
        ),
        ("AddUserToGroup", {"UserName": "alice", "GroupName": "empty"}, {"groups_per_user": 1}, "GroupsPerUser: 1"),
        ("AttachUserPolicy", {"UserName": "alice", "PolicyArn": ADMIN}, {"attached_policies": 1}, "PoliciesPerUser: 1"),
    ],
)
def test_quotas(action, parameters, settings, words):
    """One over the quota is LimitExceeded; at the quota the call is carried out."""
    low = {"quotas": IamQuotas(**settings)}
    high = {"quotas": IamQuotas(**{name: value + 1 for name, value in settings.items()})}
    assert refused(WORLD, action, settings=low, **parameters) == (
        "LimitExceeded",
        f"Cannot exceed quota for {words}",
        409,
    )
    assert run(WORLD, action, settings=high, **parameters)[0] != WORLD


def test_white_space_does_not_count():
    """Sizes of policies are without white space (IAM User Guide, quotas)."""
    text = ALLOW_TEXT.replace(",", ",\n      ")
    assert len(text) > len(ALLOW_TEXT)
    small = {"quotas": IamQuotas(managed_policy_size=len(ALLOW_TEXT))}
    run(WORLD, "CreatePolicy", settings=small, PolicyName="x", PolicyDocument=text)


# -- groups ------------------------------------------------------------------------------------------------------------


def test_membership():
    """A user put into a group is shown by both lists and has the group's policies; taken out, it has not."""
    world, _ = run(WORLD, "AddUserToGroup", GroupName="admins", UserName="bob")
    users = run(world, "GetGroup", GroupName="admins")[1]["Users"]
    assert [user["UserName"] for user in users] == ["alice", "bob"]
    assert [one["GroupName"] for one in run(world, "ListGroupsForUser", UserName="bob")[1]["Groups"]] == ["admins"]
    assert may(world, "bob", "ec2:RunInstances")
    again, _ = run(world, "AddUserToGroup", GroupName="admins", UserName="bob")
    assert again == world
    world, _ = run(world, "RemoveUserFromGroup", GroupName="admins", UserName="bob")
    assert not may(world, "bob", "ec2:RunInstances")
    assert run(world, "RemoveUserFromGroup", GroupName="admins", UserName="bob")[0] == world


def may(world, name, action):
    """Whether a user may do this to everything."""
    key = next((key for key in world.access_keys if key.user_name == name), None)
    if key is None:
        world, _ = run(world, "CreateAccessKey", UserName=name)
        key = world.access_keys[-1]
    principal = world.principal(key)
    asked = iam.Request(principal_arn=principal.arn, action=action, resource="*", context={})
    return iam.decide(asked, principal).allowed


def test_rename_a_group():
    """Users of a renamed group stay in it."""
    world, _ = run(WORLD, "UpdateGroup", GroupName="admins", NewGroupName="root")
    assert [user["UserName"] for user in run(world, "GetGroup", GroupName="root")[1]["Users"]] == ["alice"]
    assert may(world, "alice", "ec2:RunInstances")


def test_groups_come_and_go():
    """A group without users and policies is deleted."""
    world, answer = run(WORLD, "CreateGroup", GroupName="new", Path="/q/")
    assert answer["Group"]["Arn"] == f"arn:aws:iam::{ACCOUNT}:group/q/new"
    assert re.fullmatch(r"AGPA[A-Z2-7]{17}", answer["Group"]["GroupId"])
    names = [group["GroupName"] for group in run(world, "ListGroups")[1]["Groups"]]
    assert names == ["admins", "empty", "guests", "new"]
    assert run(world, "DeleteGroup", GroupName="new")[0].user_groups == WORLD.user_groups


# -- roles -------------------------------------------------------------------------------------------------------------


def test_a_role_from_nothing_and_back():
    """Trust policies are percent-encoded in answers and read back equal; lists have no tags."""
    given_trust = trust({"AWS": [ACCOUNT, f"arn:aws:iam::{ACCOUNT}:user/bob"]})
    world, answer = run(
        WORLD,
        "CreateRole",
        RoleName="new",
        AssumeRolePolicyDocument=msgspec.json.encode(given_trust).decode(),
        Description="why",
        Tags=[{"Key": "a", "Value": "b"}],
    )
    role = answer["Role"]
    assert re.fullmatch(r"AROA[A-Z2-7]{17}", role["RoleId"])
    assert (role["Description"], role["CreateDate"], role["Tags"]) == ("why", THEN, [{"Key": "a", "Value": "b"}])
    assert re.fullmatch(r"[A-Za-z0-9._~%-]+", role["AssumeRolePolicyDocument"])
    assert read(role["AssumeRolePolicyDocument"]) == given_trust
    more = {"MaxSessionDuration": 3600, "RoleLastUsed": {}}
    assert run(world, "GetRole", RoleName="new")[1]["Role"] == role | more
    listed = {one["RoleName"]: one for one in run(world, "ListRoles")[1]["Roles"]}
    assert set(listed) == {"direct", "new", "ops", "service"}
    assert "Tags" not in listed["new"] and listed["ops"]["MaxSessionDuration"] == 7200
    assert run(world, "DeleteRole", RoleName="new")[0].roles == WORLD.roles


def test_update_a_role():
    """What UpdateRole is not given stays; a new trust policy replaces the old one."""
    world, _ = run(WORLD, "UpdateRole", RoleName="ops", Description="d")
    world, _ = run(world, "UpdateRole", RoleName="ops", MaxSessionDuration=43200)
    assert (world.role("ops").description, world.role("ops").max_session_duration) == ("d", 43200)
    world, answer = run(world, "UpdateRoleDescription", RoleName="ops", Description="e")
    assert answer["Role"]["Description"] == "e"
    world, _ = run(world, "UpdateAssumeRolePolicy", RoleName="ops", PolicyDocument=TRUST_TEXT)
    assert world.role("ops").trust == trust({"AWS": ACCOUNT})
    assert run(world, "ListInstanceProfilesForRole", RoleName="ops")[1]["InstanceProfiles"] == []


def test_a_deleted_role_takes_its_sessions_along():
    """A role of the same name made later does not bring the sessions back."""
    world, _ = run(WORLD, "DeleteRolePolicy", RoleName="ops", PolicyName="Own")
    world, _ = run(world, "DeleteRole", RoleName="ops")
    assert world.access_key("session") is None
    world, _ = run(world, "CreateRole", RoleName="ops", AssumeRolePolicyDocument=TRUST_TEXT)
    assert world.access_key("session") is None


# -- access keys -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("who", "parameters", "owner"), [("root", {"UserName": "bob"}, "bob"), ("bob", {}, "bob")])
def test_a_key_from_nothing_and_back(who, parameters, owner):
    """The secret is shown once; a deactivated or deleted key proves nobody."""
    world, answer = run(WORLD, "CreateAccessKey", who, **parameters)
    key = answer["AccessKey"]
    assert re.fullmatch(r"AKIA[A-Z2-7]{16}", key["AccessKeyId"])
    assert (len(key["SecretAccessKey"]), key["Status"], key["UserName"]) == (40, "Active", owner)
    (listed,) = run(world, "ListAccessKeys", who, **parameters)[1]["AccessKeyMetadata"]
    assert listed == {name: value for name, value in key.items() if name != "SecretAccessKey"}
    named = {"AccessKeyId": key["AccessKeyId"], **parameters}
    world, _ = run(world, "UpdateAccessKey", who, Status="Inactive", **named)
    assert not world.access_key(key["AccessKeyId"]).active
    assert run(world, "ListAccessKeys", who, **parameters)[1]["AccessKeyMetadata"][0]["Status"] == "Inactive"
    world, _ = run(world, "DeleteAccessKey", who, **named)
    assert world.access_keys == WORLD.access_keys


def test_root_manages_its_own_keys():
    """Without a name root's keys are meant; two are the most, and they have no user name."""
    world, answer = run(WORLD, "CreateAccessKey")
    assert world.access_key(answer["AccessKey"]["AccessKeyId"]).user_name == ""
    assert refused(world, "CreateAccessKey")[0] == "LimitExceeded"
    assert len(run(world, "ListAccessKeys")[1]["AccessKeyMetadata"]) == 2


def test_secrets_differ():
    """No two keys have an id or a secret in common."""
    world, first = run(WORLD, "CreateAccessKey", UserName="bob")
    _, second = run(world, "CreateAccessKey", UserName="bob")
    for name in ("AccessKeyId", "SecretAccessKey"):
        assert first["AccessKey"][name] != second["AccessKey"][name]


def test_last_use():
    """A key that was never used says N/A; one that was says when, where and for what."""
    unused = {"ServiceName": "N/A", "Region": "N/A"}
    _, answer = run(WORLD, "GetAccessKeyLastUsed", AccessKeyId="AKIAALICE00000000000")
    assert answer == {"UserName": "alice", "AccessKeyLastUsed": unused}
    keys = tuple(msgspec.structs.replace(key, last_used=(NOW, "ec2")) for key in WORLD.access_keys)
    used = msgspec.structs.replace(WORLD, access_keys=keys)
    _, answer = run(used, "GetAccessKeyLastUsed", AccessKeyId="AKIAALICE00000000000")
    assert answer["AccessKeyLastUsed"] == {"LastUsedDate": THEN, "ServiceName": "ec2", "Region": "us-east-1"}


# -- tags --------------------------------------------------------------------------------------------------------------

TAGGED = [
    ("User", {"UserName": "alice"}, "Team", True),
    ("Role", {"RoleName": "ops"}, "Stage", True),
    ("Policy", {"PolicyArn": READ}, "Kind", False),
]


@pytest.mark.parametrize(("kind", "named", "known", "ignore_case"), TAGGED)
def test_tags(kind, named, known, ignore_case):
    """New keys are added, known ones overwritten; keys of users and roles are the same in any case."""

    def tags(world):
        return {tag["Key"]: tag["Value"] for tag in run(world, f"List{kind}Tags", **named)[1]["Tags"]}

    old = tags(WORLD)[known]
    new = [{"Key": known.upper(), "Value": "v"}, {"Key": "Empty", "Value": ""}]
    world, _ = run(WORLD, f"Tag{kind}", Tags=new, **named)
    expected = {known: "v", "Empty": ""} if ignore_case else {known: old, known.upper(): "v", "Empty": ""}
    assert tags(world) == expected
    world, _ = run(world, f"Untag{kind}", TagKeys=[known.lower(), "Empty", "unknown"], **named)
    assert tags(world) == ({} if ignore_case else {known: old, known.upper(): "v"})


def test_fifty_tags_and_no_more():
    """The fifty-first key is refused; overwriting at fifty is allowed."""
    many = [{"Key": f"k{number}", "Value": "v"} for number in range(49)]
    world, _ = run(WORLD, "TagUser", UserName="alice", Tags=many)
    more = refused(world, "TagUser", UserName="alice", Tags=[{"Key": "one", "Value": "more"}])
    assert more == ("LimitExceeded", "The number of tags has reached the maximum limit.", 409)
    run(world, "TagUser", UserName="alice", Tags=[{"Key": "K7", "Value": "w"}])


# -- pages -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "member", "parameters"),
    [
        ("ListUsers", "Users", {}),
        ("ListGroups", "Groups", {}),
        ("ListRoles", "Roles", {}),
        ("ListPolicies", "Policies", {}),
        ("ListAccessKeys", "AccessKeyMetadata", {"UserName": "dave"}),
        ("ListPolicyVersions", "Versions", {"PolicyArn": f"arn:aws:iam::{ACCOUNT}:policy/Full"}),
    ],
)
def test_pages_of_one_show_everything_once(action, member, parameters):
    """Pages of one, put together, are the whole list."""
    whole = run(WORLD, action, **parameters)[1][member]
    assert len(whole) > 1
    assert pages(WORLD, action, member, **parameters) == whole


@given(st.sets(st.text("abé /=+-@ ", min_size=1, max_size=128), min_size=1, max_size=50))
def test_pages_of_tags(keys):
    """Whatever the keys are, pages of one show every tag once, with Markers of at most 320 characters."""
    alice = msgspec.structs.replace(WORLD.user("alice"), tags=dict.fromkeys(keys, "v"))
    world = msgspec.structs.replace(WORLD, users=(alice, *WORLD.users[1:]))
    found = pages(world, "ListUserTags", "Tags", UserName="alice")
    assert sorted(tag["Key"] for tag in found) == sorted(keys)


def test_a_marker_survives_change():
    """What is made or deleted between two pages takes nothing else from the list."""
    _, first = run(WORLD, "ListUsers", MaxItems=2)
    world, _ = run(WORLD, "DeleteUser", UserName="bob")
    world, _ = run(world, "CreateUser", UserName="aaron")
    _, second = run(world, "ListUsers", Marker=first["Marker"])
    assert [user["UserName"] for user in first["Users"] + second["Users"]] == ["alice", "bob", "carol", "dave"]


# -- what IAM is asked -------------------------------------------------------------------------------------------------


def test_asked_on_creation():
    """A new user is asked about under its ARN to be, with its tags; tags are asked about too."""
    tags = [{"Key": "Team", "Value": "red"}]
    context = {"aws:RequestTag/Team": ("red",), "aws:TagKeys": ("Team",)}
    arn = f"arn:aws:iam::{ACCOUNT}:user/x/eve"
    assert asks(WORLD, "CreateUser", UserName="eve", Path="/x/", Tags=tags) == [
        ("iam:CreateUser", arn, context),
        ("iam:TagUser", arn, context),
    ]
    assert asks(WORLD, "CreateUser", UserName="eve") == [
        ("iam:CreateUser", f"arn:aws:iam::{ACCOUNT}:user/eve", {}),
    ]


def test_asked_about_what_exists():
    """An identity is asked about under its ARN with its tags; one that does not exist without a path."""
    alice = f"arn:aws:iam::{ACCOUNT}:user/ops/alice"
    tags = {"aws:ResourceTag/Team": ("blue",), "iam:ResourceTag/Team": ("blue",)}
    assert asks(WORLD, "DeleteUser", UserName="alice") == [("iam:DeleteUser", alice, tags)]
    assert asks(WORLD, "ListAccessKeys", "alice") == [("iam:ListAccessKeys", alice, tags)]
    assert asks(WORLD, "CreateAccessKey", UserName="nobody") == [
        ("iam:CreateAccessKey", f"arn:aws:iam::{ACCOUNT}:user/nobody", {})
    ]
    assert asks(WORLD, "AttachUserPolicy", UserName="alice", PolicyArn=ADMIN) == [
        ("iam:AttachUserPolicy", alice, {**tags, "iam:PolicyARN": (ADMIN,)})
    ]
    assert asks(WORLD, "GetAccessKeyLastUsed", AccessKeyId="AKIAALICE00000000000") == [
        ("iam:GetAccessKeyLastUsed", alice, tags)
    ]
    assert asks(WORLD, "UntagRole", RoleName="ops", TagKeys=["Stage"])[0][2]["aws:TagKeys"] == ("Stage",)
    assert asks(WORLD, "AddUserToGroup", GroupName="guests", UserName="bob") == [
        ("iam:AddUserToGroup", f"arn:aws:iam::{ACCOUNT}:group/ext/guests", {})
    ]
    assert asks(WORLD, "ListUsers") == [("iam:ListUsers", "*", {})]


def test_a_move_is_asked_about_twice():
    """Where the user is and where it goes; a change of nothing is asked about once."""
    arns = [arn for _, arn, _ in asks(WORLD, "UpdateUser", UserName="alice", NewPath="/y/")]
    assert arns == [f"arn:aws:iam::{ACCOUNT}:user/ops/alice", f"arn:aws:iam::{ACCOUNT}:user/y/alice"]
    assert len(asks(WORLD, "UpdateGroup", GroupName="guests", NewGroupName="g")) == 2
    assert len(asks(WORLD, "UpdateUser", UserName="alice", NewPath="/ops/")) == 1
