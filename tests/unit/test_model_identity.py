"""What a World refuses about users, groups, roles and policies, and AWS's own policies in it."""

import msgspec
import pytest

from wicketgate.model import AccessKey, ManagedPolicy, PolicyVersion, Role, User, UserGroup, World, WorldError

ADMIN = "arn:aws:iam::aws:policy/AdministratorAccess"
ALLOW = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}


def policy(name, default="v1"):
    """A managed policy with version v1."""
    arn = f"arn:aws:iam::123456789012:policy/{name}"
    return ManagedPolicy(
        arn=arn, name=name, id=name, default_version=default, versions=(PolicyVersion(id="v1", document=ALLOW),)
    )


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"users": (User(name="ann", id="1"), User(name="Ann", id="2"))}, "users: the name ann exists twice"),
        ({"user_groups": (UserGroup(name="a", id="1"), UserGroup(name="A", id="2"))}, "user_groups: the name a"),
        ({"roles": (Role(name="a", id="1"), Role(name="A", id="2"))}, "roles: the name a exists twice"),
        ({"managed_policies": (policy("P"), policy("p"))}, "managed_policies: the name p exists twice"),
        ({"users": (User(name="ann", id="1", groups=("none",)),)}, "user ann: group none does not exist"),
        ({"roles": (Role(name="ops", id="1", attached=(ADMIN + "2",)),)}, f"ops: policy {ADMIN}2 does not exist"),
        ({"managed_policies": (policy("P", "v2"),)}, "version v2 does not exist"),
        (
            {"access_keys": (AccessKey(id="ASIA1", secret="s", role_name="ops"),)},
            "access key ASIA1: role ops does not exist",
        ),
    ],
)
def test_contradictions(fields, words):
    """Names are unique in any case, and what is referred to exists."""
    with pytest.raises(WorldError) as caught:
        World(**fields).check()
    assert words in str(caught.value)


def test_a_whole_identity_passes():
    """Groups, attached policies (AWS's too) and sessions that exist are no contradiction."""
    own = policy("P")
    World(
        users=(User(name="ann", id="1", groups=("g",), attached=(ADMIN,)),),
        user_groups=(UserGroup(name="g", id="2", attached=(own.arn,)),),
        roles=(Role(name="ann", id="3"),),
        managed_policies=(own,),
        access_keys=(AccessKey(id="ASIA1", secret="s", role_name="ann"),),
    ).check()


@pytest.mark.parametrize("partition", ["aws", "aws-cn"])
def test_awss_policies_are_found_in_the_worlds_partition(partition):
    """AdministratorAccess exists in every World, under its partition's ARN, and only as AWS's."""
    world = World(partition=partition)
    found = world.managed_policy(f"arn:{partition}:iam::aws:policy/AdministratorAccess")
    assert found is not None and found.document == ALLOW
    assert world.managed_policy("arn:other:iam::aws:policy/AdministratorAccess") is None
    assert world.managed_policy(f"arn:{partition}:iam::{world.account_id}:policy/AdministratorAccess") is None


def test_a_session_knows_when_it_was_issued():
    """A temporary key's principal has the time; a long-term key's has none."""
    world = World(
        users=(User(name="ann", id="1"),),
        roles=(Role(name="ops", id="AROA1"),),
        access_keys=(
            AccessKey(id="ASIA1", secret="s", role_name="ops", session_name="x", created_at=7.0),
            AccessKey(id="AKIA1", secret="s", user_name="ann", created_at=7.0),
        ),
    )
    session, user = (world.principal(key) for key in world.access_keys)
    assert (session.issued_at, user.issued_at) == (7.0, None)
    assert msgspec.json.decode(msgspec.json.encode(session), type=type(session)) == session
