"""STS: who am I, who may assume which role, and what a session may do."""

import re
from datetime import UTC, datetime

import msgspec
import pytest

from tests.unit.identity_world import ACCOUNT, ADMIN, NOW, READ, asks, refused, run, small_world, trust
from wicketgate import iam
from wicketgate.sigv4.verify import check_key

WORLD = small_world()
OPS, DIRECT = f"arn:aws:iam::{ACCOUNT}:role/net/ops", f"arn:aws:iam::{ACCOUNT}:role/direct"
NOTHING = '{"Statement": {"Effect": "Allow", "Action": "ec2:RunInstances", "Resource": "*"}}'


def assume(world=WORLD, who="alice", role=OPS, now=NOW, **parameters):
    """The World with a new session, its key, and the answer."""
    world, answer = run(world, "AssumeRole", who, now, RoleArn=role, RoleSessionName="s1", **parameters)
    return world, world.access_key(answer["Credentials"]["AccessKeyId"]), answer


def may(world, key, action):
    """The decision on an action of the key's owner."""
    principal = world.principal(key)
    return iam.decide(iam.Request(principal_arn=principal.arn, action=action, resource="*", context={}), principal)


def with_role(name, **changes):
    """The World with a role changed."""
    roles = [msgspec.structs.replace(role, **changes) if role.name == name else role for role in WORLD.roles]
    return msgspec.structs.replace(WORLD, roles=tuple(roles))


def with_statement(name, effect, action="sts:*", resource="*"):
    """The World with an inline policy of a user."""
    document = msgspec.json.encode({"Statement": {"Effect": effect, "Action": action, "Resource": resource}}).decode()
    return run(WORLD, "PutUserPolicy", UserName=name, PolicyName="More", PolicyDocument=document)[0]


@pytest.mark.parametrize(
    ("who", "user_id", "arn"),
    [
        ("root", ACCOUNT, f"arn:aws:iam::{ACCOUNT}:root"),
        ("alice", "AIDAALICE000000000000", f"arn:aws:iam::{ACCOUNT}:user/ops/alice"),
        ("session", "AROAOPS00000000000000:s0", f"arn:aws:sts::{ACCOUNT}:assumed-role/ops/s0"),
    ],
)
def test_who_am_i(who, user_id, arn):
    """Everybody may ask, without any permission."""
    assert run(WORLD, "GetCallerIdentity", who)[1] == {"UserId": user_id, "Account": ACCOUNT, "Arn": arn}
    assert asks(WORLD, "GetCallerIdentity", who) == []


def test_a_session():
    """A session has temporary credentials, an ARN and an id of its own, and what its role may."""
    world, key, answer = assume()
    credentials = answer["Credentials"]
    assert re.fullmatch(r"ASIA[A-Z2-7]{16}", credentials["AccessKeyId"])
    assert len(credentials["SecretAccessKey"]) == 40 and len(credentials["SessionToken"]) >= 100
    assert credentials["Expiration"] == datetime.fromtimestamp(int(NOW) + 3600, UTC)
    assert answer["AssumedRoleUser"] == {
        "AssumedRoleId": "AROAOPS00000000000000:s1",
        "Arn": f"arn:aws:sts::{ACCOUNT}:assumed-role/ops/s1",
    }
    assert "PackedPolicySize" not in answer
    check_key(key, credentials["SessionToken"], NOW)
    assert may(world, key, "ec2:DescribeVpcs").allowed and not may(world, key, "ec2:RunInstances").allowed
    assert key.expires == credentials["Expiration"].timestamp()


def test_a_session_is_not_among_the_users_keys():
    """Temporary keys are nobody's long-term keys, not root's either."""
    world, key, _ = assume()
    for who in ("root", "alice"):
        listed = run(world, "ListAccessKeys", who)[1]["AccessKeyMetadata"]
        assert key.id not in [one["AccessKeyId"] for one in listed]
        assert refused(world, "DeleteAccessKey", who, AccessKeyId=key.id)[0] == "NoSuchEntity"


# -- who may -----------------------------------------------------------------------------------------------------------


def test_trusted_by_name_needs_no_policy():
    """bob has no policy at all, but the role names him; dave is not named."""
    assert assume(who="bob", role=DIRECT)[1] is not None
    assert refused(WORLD, "AssumeRole", "dave", RoleArn=DIRECT, RoleSessionName="s1")[0] == "AccessDenied"


def test_a_trusted_account_leaves_it_to_policies():
    """bob may assume the role that trusts the account once a policy of his allows it."""
    assert refused(WORLD, "AssumeRole", "bob", RoleArn=OPS, RoleSessionName="s1")[0] == "AccessDenied"
    assert assume(with_statement("bob", "Allow", "sts:AssumeRole", OPS), "bob")[1] is not None
    elsewhere = with_statement("bob", "Allow", "sts:AssumeRole", DIRECT)
    assert refused(elsewhere, "AssumeRole", "bob", RoleArn=OPS, RoleSessionName="s1")[0] == "AccessDenied"


def test_a_deny_of_the_caller_wins_over_trust_by_name():
    """An explicit Deny in the caller's policies is told as such."""
    world = with_statement("bob", "Deny")
    code, words, status = refused(world, "AssumeRole", "bob", RoleArn=DIRECT, RoleSessionName="s1")
    assert (code, status) == ("AccessDenied", 403)
    assert words.endswith(f"sts:AssumeRole on resource: {DIRECT} with an explicit deny in an identity-based policy")


@pytest.mark.parametrize(
    ("condition", "given", "allowed"),
    [
        ({"StringEquals": {"sts:ExternalId": "7"}}, {"ExternalId": "7x"}, False),
        ({"StringEquals": {"sts:ExternalId": "7x"}}, {"ExternalId": "7x"}, True),
        ({"StringEquals": {"sts:ExternalId": "7x"}}, {}, False),
        ({"StringEquals": {"sts:RoleSessionName": "s1"}}, {}, True),
        ({"StringEquals": {"sts:RoleSessionName": "${aws:username}"}}, {}, False),
        ({"IpAddress": {"aws:SourceIp": "192.0.2.0/24"}}, {}, True),
        ({"IpAddress": {"aws:SourceIp": "198.51.100.0/24"}}, {}, False),
        ({"StringEquals": {"aws:PrincipalTag/Team": "blue"}}, {}, True),
        ({"StringEquals": {"aws:UserAgent": "cli"}}, {}, True),
        ({"Bool": {"aws:MultiFactorAuthPresent": "true"}}, {}, False),
        ({"StringEquals": {"aws:ResourceTag/Stage": "test"}}, {}, True),
        ({"StringEquals": {"aws:RequestTag/a": "1"}}, {"Tags": [{"Key": "a", "Value": "1"}]}, True),
        ({"ForAllValues:StringEquals": {"aws:TagKeys": "b"}}, {"Tags": [{"Key": "a", "Value": "1"}]}, False),
    ],
)
def test_conditions_of_trust(condition, given, allowed):
    """A trust policy's conditions are judged with what the call and the caller bring."""
    document = trust({"AWS": ACCOUNT}, ["sts:AssumeRole", "sts:TagSession"], Condition=condition)
    world = with_role("ops", trust=document)
    if allowed:
        assert assume(world, **given)[1] is not None
    else:
        parameters = {"RoleArn": OPS, "RoleSessionName": "s1", **given}
        assert refused(world, "AssumeRole", "alice", **parameters)[0] == "AccessDenied"


def test_a_malformed_trust_policy_trusts_nobody():
    """Not even whom it names."""
    world = with_role("direct", trust={"Statement": [*WORLD.role("direct").trust["Statement"], {}]})
    assert refused(world, "AssumeRole", "bob", RoleArn=DIRECT, RoleSessionName="s1")[0] == "AccessDenied"


# -- what a session is like --------------------------------------------------------------------------------------------


def test_duration():
    """What is asked for is given, up to the role's bound; a session of a session has an hour at most."""
    assert assume(DurationSeconds=900)[1].expires == int(NOW) + 900
    assert assume(DurationSeconds=7200)[1].expires == int(NOW) + 7200
    chained = with_role("direct", trust=trust({"AWS": OPS}), max_session_duration=7200)
    call = {"who": "session", "RoleArn": DIRECT, "RoleSessionName": "s1"}
    assert refused(chained, "AssumeRole", DurationSeconds=3601, **call) == (
        "ValidationError",
        "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining",
        400,
    )
    assert assume(chained, "session", DIRECT, DurationSeconds=3600)[1].expires == int(NOW) + 3600


@pytest.mark.parametrize("how", [{"Policy": NOTHING}, {"PolicyArns": [{"arn": ADMIN}], "Policy": NOTHING}])
def test_a_session_policy_narrows_and_never_widens(how):
    """The session may do what both its role and its session policies allow."""
    world, key, answer = assume(**how)
    denied = may(world, key, "ec2:DescribeVpcs")
    if "PolicyArns" in how:
        assert denied.allowed
    else:
        assert denied.message.endswith("because no session policy allows the ec2:DescribeVpcs action")
    assert not may(world, key, "ec2:RunInstances").allowed
    assert 0 < answer["PackedPolicySize"] <= 100


def test_managed_session_policies():
    """A managed policy narrows as one in the call does; one that does not exist is refused."""
    world, key, _ = assume(PolicyArns=[{"arn": READ}])
    assert may(world, key, "ec2:DescribeVpcs").allowed
    missing = {"RoleArn": OPS, "RoleSessionName": "s1", "PolicyArns": [{"arn": READ + "2"}]}
    assert refused(WORLD, "AssumeRole", "alice", **missing)[0] == "NoSuchEntity"


def test_too_much_to_pack():
    """Policies and tags of a session have a size together."""
    tags = [{"Key": f"k{number}", "Value": "v" * 256} for number in range(8)]
    parameters = {"RoleArn": OPS, "RoleSessionName": "s1", "Tags": tags}
    assert refused(WORLD, "AssumeRole", "alice", **parameters) == (
        "PackedPolicyTooLarge",
        "Packed size of session policies and tags consumes 101% of allotted space.",
        400,
    )


def test_session_tags():
    """They join the role's tags; one that the role has in another case takes its place."""
    world, key, _ = assume(Tags=[{"Key": "STAGE", "Value": "prod"}, {"Key": "a", "Value": "1"}])
    assert world.principal(key).tags == {"Stage": "prod", "a": "1"}


def test_ended_sessions_are_deleted_by_later_calls():
    """An hour after its end a session's key is gone; until then its use is answered with ExpiredToken."""
    world, key, _ = assume(DurationSeconds=900)
    later, _, _ = assume(world, now=key.expires + 3599)
    assert later.access_key(key.id) == key
    later, _, _ = assume(world, now=key.expires + 3600)
    assert later.access_key(key.id) is None
    assert {one.id for one in WORLD.access_keys if one.expires is None} <= {one.id for one in later.access_keys}


def test_a_changed_role_changes_its_sessions():
    """What the role loses, its sessions lose at once."""
    world, key, _ = assume()
    world, _ = run(world, "DeleteRolePolicy", RoleName="ops", PolicyName="Own")
    assert not may(world, key, "ec2:DescribeVpcs").allowed


def test_sessions_have_an_end_of_number(monkeypatch):
    """Nobody fills the memory of all processes with sessions; those that ended do not count."""
    before = sum(key.expires is not None and key.expires > NOW for key in WORLD.access_keys)
    monkeypatch.setattr("wicketgate.control.identity.sts.MAX_SESSIONS", before + 1)
    world, key, _ = assume()
    code, words, _ = refused(world, "AssumeRole", "alice", RoleArn=OPS, RoleSessionName="s2")
    assert code == "Throttling" and f"There are {before + 1} sessions of roles" in words
    assert assume(world, now=key.expires)[1] is not None
