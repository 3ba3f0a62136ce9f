"""Admission of those who are no users: root and sessions of roles; and the context that every caller brings."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest

from tests.unit.test_admit import HOST, NOW, TARGET, allow, policy, refused, world
from wicketgate.admit import TunnelCall, admit, caller_context
from wicketgate.model import AccessKey, Policy, Principal, Role, World
from wicketgate.sigv4 import Credentials, presign

ROLE = Role(name="ops", id="AROAOPS", path="/net/", policies=(policy(allow(), name="Own"),), tags={"Team": "blue"})
SESSION = AccessKey(
    id="ASIASESSION",
    secret="s",
    session_token="token",
    role_name="ops",
    session_name="ann",
    created_at=NOW - 10,
    expires=NOW + 100,
)
ROOT = AccessKey(id="AKIAROOT", secret="r")
SESSION_ARN = "arn:aws:sts::123456789012:assumed-role/ops/ann"


def with_key(key: AccessKey, *roles: Role) -> World:
    """A World with this access key and these roles."""
    before = world()
    made = msgspec.structs.replace(before, roles=roles, access_keys=(*before.access_keys, key))
    made.check()
    return made


def call(key: AccessKey, token: str | None = None) -> TunnelCall:
    """A call signed with this key."""
    url = presign(HOST, TARGET, Credentials(key.id, key.secret, token), region="us-east-1", now=NOW)
    return TunnelCall(query=urlsplit(url).query, host=HOST, source_ip="203.0.113.10")


def narrowed(*policies: Policy) -> AccessKey:
    """The session's key with session policies."""
    return msgspec.structs.replace(SESSION, session_policies=policies)


def test_root_is_admitted_without_any_policy():
    """The account's root user opens tunnels; the step says why."""
    admission = admit(with_key(ROOT), call(ROOT), NOW)
    assert admission.grant is not None and admission.grant.may_see_rules
    assert admission.principal is not None and admission.principal.type == "Root"
    steps = {step.name: step.reason for step in admission.verdict.steps}
    assert steps["iam"] == "root is never locked out by a policy"
    assert steps["credentials"] == "signed with access key AKIAROOT of root"


def test_a_session_is_admitted_by_its_roles_policies():
    """A session with its token is admitted as an assumed role."""
    admission = admit(with_key(SESSION, ROLE), call(SESSION, "token"), NOW)
    assert admission.grant is not None
    assert admission.principal is not None
    assert (admission.principal.type, admission.principal.arn) == ("AssumedRole", SESSION_ARN)
    assert admission.verdict.steps[0].reason == "signed with access key ASIASESSION of session ops/ann"


@pytest.mark.parametrize("token", [None, "other"])
def test_a_session_needs_its_token(token):
    """Without the session token, or with another, nobody is proven."""
    admission = admit(with_key(SESSION, ROLE), call(SESSION, token), NOW)
    refused(admission, "credentials", "InvalidClientTokenId", 403)
    assert admission.principal is None


def test_a_session_ends():
    """After its expiration the session opens nothing."""
    expired = msgspec.structs.replace(SESSION, expires=NOW)
    refused(admit(with_key(expired, ROLE), call(expired, "token"), NOW), "credentials", "ExpiredToken", 403)


def test_a_session_policy_narrows():
    """What the role allows and the session policy does not is refused in AWS's words; the ARN is the session's."""
    narrow = with_key(narrowed(policy(allow("ec2:DescribeVpcs", "*"), name="Narrow")), ROLE)
    message = refused(admit(narrow, call(SESSION, "token"), NOW), "iam", "AccessDeniedException", 403)
    assert message.startswith(f"User: {SESSION_ARN} is not authorized to perform: ec2-instance-connect:OpenTunnel")
    assert message.endswith("because no session policy allows the ec2-instance-connect:OpenTunnel action")


def test_a_session_policy_widens_nothing():
    """A session policy that allows everything gives no more than the role has."""
    role = msgspec.structs.replace(ROLE, policies=())
    wide = with_key(narrowed(policy(allow("*", "*"), name="Wide")), role)
    message = refused(admit(wide, call(SESSION, "token"), NOW), "iam", "AccessDeniedException", 403)
    assert message.endswith("because no identity-based policy allows the ec2-instance-connect:OpenTunnel action")


def test_a_role_that_is_gone_takes_its_sessions_along():
    """A key whose role does not exist proves nobody."""
    gone = msgspec.structs.replace(world(), access_keys=(SESSION,))
    message = refused(admit(gone, call(SESSION, "token"), NOW), "credentials", "InvalidClientTokenId", 403)
    assert message == "The access key ASIASESSION belongs to no role that exists."


# -- the context of every request --------------------------------------------------------------------------------------


def context_of(key: AccessKey, **how: Any) -> dict[str, str]:
    """The context that the key's owner brings, at NOW."""
    made = with_key(key, ROLE)
    principal = made.principal(key)
    assert isinstance(principal, Principal)
    return caller_context(made, principal, how.get("source", "203.0.113.10"), how.get("agent", "cli"), NOW)


def test_context_of_a_user():
    """A user has a name and tags; nothing says when a token was issued."""
    context = context_of(AccessKey(id="AKIA2", secret="x", user_name="alice"))
    assert context == {
        "aws:currenttime": "2026-09-21T14:13:20Z",
        "aws:epochtime": "1790000000",
        "aws:principalaccount": "123456789012",
        "aws:principalarn": "arn:aws:iam::123456789012:user/alice",
        "aws:principalisawsservice": "false",
        "aws:principaltype": "User",
        "aws:principaltag/Team": "blue",
        "aws:principaltag/team": "blue",
        "aws:requestedregion": "us-east-1",
        "aws:securetransport": "true",
        "aws:sourceip": "203.0.113.10",
        "aws:useragent": "cli",
        "aws:userid": "AIDAALICE",
        "aws:username": "alice",
        "aws:viaawsservice": "false",
        "ec2:region": "us-east-1",
    }


def test_context_of_root():
    """Root is of type Account and has no user name."""
    context = context_of(ROOT)
    assert (context["aws:principaltype"], context["aws:userid"]) == ("Account", "123456789012")
    assert context["aws:principalarn"] == "arn:aws:iam::123456789012:root"
    assert "aws:username" not in context


def test_context_of_a_session():
    """A session's principal ARN is its role's; its tags are the role's and its own; its token has an age."""
    context = context_of(msgspec.structs.replace(SESSION, session_tags={"Team": "red"}))
    assert context["aws:principalarn"] == "arn:aws:iam::123456789012:role/net/ops"
    assert (context["aws:principaltype"], context["aws:userid"]) == ("AssumedRole", "AROAOPS:ann")
    assert (context["aws:principaltag/Team"], context["aws:tokenissuetime"]) == ("red", "2026-09-21T14:13:10Z")
    assert context["aws:multifactorauthpresent"] == "false"
    assert "aws:username" not in context


@pytest.mark.parametrize(
    ("source", "written"),
    [("::ffff:192.0.2.1", "192.0.2.1"), ("2001:DB8:0::1", "2001:db8::1"), ("fe80::1%eth0", None), ("name", None)],
)
def test_source_address_is_canonical(source, written):
    """aws:SourceIp is an address in one spelling, or absent."""
    assert context_of(ROOT, source=source).get("aws:sourceip") == written
