"""Several sets of policies: what `decide` makes of identity-based and session policies; who a trust policy trusts."""

from __future__ import annotations

from typing import Any

import pytest

from wicketgate.iam import MalformedPolicy, Request, decide, may_assume, read_trust
from wicketgate.model import Policy, Principal

USER = "arn:aws:iam::123456789012:user/alice"
ROLE = "arn:aws:iam::123456789012:role/ops"
SESSION = "arn:aws:sts::123456789012:assumed-role/chain/alice"
ACTION = "ec2:DescribeVpcs"
ALLOW = {"Effect": "Allow", "Action": "*", "Resource": "*"}
DENY = {"Effect": "Deny", "Action": ACTION, "Resource": "*"}
OTHER = {"Effect": "Allow", "Action": "ec2:RunInstances", "Resource": "*"}
BROKEN = {"Effect": "Deny", "Action": ACTION}

Statement = dict[str, Any]


def principal(own: Statement | None, session: Statement | None = None, kind: str = "IAMUser") -> Principal:
    """Who has one statement as policy `own`, and perhaps one as session policy `narrow`."""
    return Principal(
        type=kind,  # type: ignore[arg-type]
        arn=USER,
        id="AIDA",
        policies=() if own is None else (Policy(name="own", document={"Statement": own}),),
        session_policies=None if session is None else (Policy(name="narrow", document={"Statement": session}),),
    )


def asked(action: str = ACTION, **context: str | tuple[str, ...]) -> Request:
    """A request of alice."""
    return Request(principal_arn=USER, action=action, resource="*", context=context)


PREFIX = f"User: {USER} is not authorized to perform: {ACTION} on resource: * "


@pytest.mark.parametrize(
    ("own", "session", "ending"),
    [
        (ALLOW, None, ""),
        (ALLOW, ALLOW, ""),
        (None, None, f"because no identity-based policy allows the {ACTION} action"),
        (ALLOW, OTHER, f"because no session policy allows the {ACTION} action"),
        (None, ALLOW, f"because no identity-based policy allows the {ACTION} action"),
        (DENY, ALLOW, "with an explicit deny in an identity-based policy"),
        (ALLOW, DENY, "with an explicit deny in a session policy"),
        (None, DENY, "with an explicit deny in a session policy"),
        (BROKEN, ALLOW, "because an identity-based policy is malformed"),
        (ALLOW, BROKEN, "because a session policy is malformed"),
    ],
)
def test_every_set_has_to_allow(own, session, ending):
    """Both sets must allow; an explicit Deny of either is told before what is merely missing."""
    decision = decide(asked(), principal(own, session))
    assert decision.allowed == (ending == "")
    assert decision.message == (PREFIX + ending if ending else "")


def test_root_is_never_locked_out():
    """No policy counts for root, not even one that denies or cannot be read."""
    for statement in (DENY, BROKEN):
        decision = decide(asked(), principal(statement, kind="Root"))
        assert (decision.allowed, decision.reason) == (True, "root is never locked out by a policy")


def test_a_malformed_policy_is_told_to_the_log():
    """The reason names the place; the caller learns only that it is malformed."""
    decision = decide(asked(), principal(BROKEN))
    assert decision.reason.startswith("policy own: statement 0: exactly one of Resource")
    assert "own" not in decision.message


@pytest.mark.parametrize(
    ("own", "session", "allowed"),
    [(None, None, True), (DENY, None, False), (BROKEN, None, False), (None, OTHER, False), (None, ALLOW, True)],
)
def test_granted_by_the_resource(own, session, allowed):
    """Where the resource's policy names the caller, its own policies may be silent, but a Deny or a session policy
    still counts."""
    assert decide(asked(), principal(own, session), granted=True).allowed == allowed


def test_who_decided_when_both_allow():
    """The caller's own statement is named if there is one, else the resource's policy."""
    assert decide(asked(), principal(ALLOW), granted=True).statement == "own/0"
    assert decide(asked(), principal(None), granted=True).reason.startswith("the resource's own policy allows")


# -- trust policies ----------------------------------------------------------------------------------------------------


def trust(named: Any, effect: str = "Allow", action: Any = "sts:AssumeRole", **more: Any) -> dict[str, Any]:
    """A trust policy of one statement."""
    statement = {"Effect": effect, "Principal": named, "Action": action, **more}
    return {"Version": "2012-10-17", "Statement": [statement]}


def assume(document: Any, arn: str = USER, principal_arn: str = "", **context: str) -> tuple[bool, bool]:
    """Whether a principal of account 123456789012 is trusted, and by name."""
    keys: dict[str, str | tuple[str, ...]] = {
        "aws:principalarn": principal_arn or arn,
        "aws:principalaccount": "123456789012",
        **{name.replace("__", ":"): value for name, value in context.items()},
    }
    request = Request(principal_arn=arn, action="sts:AssumeRole", resource=ROLE, context=keys)
    found = may_assume("ops", document, request)
    return found.decision.allowed, found.itself


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ({"AWS": USER}, (True, True)),
        ({"AWS": [USER + "2", USER]}, (True, True)),
        ({"AWS": USER + "2"}, (False, False)),
        ({"AWS": "123456789012"}, (True, False)),
        ({"AWS": "arn:aws:iam::123456789012:root"}, (True, False)),
        ({"AWS": "arn:aws:iam::210987654321:root"}, (False, False)),
        ({"AWS": "210987654321"}, (False, False)),
        ({"AWS": "*"}, (True, False)),
        ("*", (True, False)),
        ({"Service": "ec2.amazonaws.com"}, (False, False)),
        ({"Federated": "cognito-identity.amazonaws.com"}, (False, False)),
        ({"Service": "ec2.amazonaws.com", "AWS": USER}, (True, True)),
    ],
)
def test_who_is_named(named, expected):
    """A caller is named by its ARN (then its own policies need not allow it), its account or `*`."""
    assert assume(trust(named)) == expected


def test_a_session_is_named_by_its_role_or_by_itself():
    """A session of a role may be trusted as that role or as that session; another session is not."""
    role = "arn:aws:iam::123456789012:role/net/chain"
    assert assume(trust({"AWS": role}), SESSION, role) == (True, True)
    assert assume(trust({"AWS": SESSION}), SESSION, role) == (True, True)
    assert assume(trust({"AWS": SESSION + "2"}), SESSION, role) == (False, False)


def test_deny_and_conditions():
    """A Deny wins over the Allow; a condition that fails trusts nobody."""
    both = {"Statement": [*trust("*")["Statement"], *trust({"AWS": USER}, "Deny")["Statement"]]}
    assert assume(both) == (False, False)
    external = trust({"AWS": USER}, Condition={"StringEquals": {"sts:ExternalId": "7"}})
    assert assume(external, sts__externalid="7") == (True, True)
    assert assume(external, sts__externalid="8") == (False, False)
    assert assume(external) == (False, False)


def test_by_name_only_where_the_naming_statement_applies():
    """A caller who is named under a condition that fails, and whose account is trusted, still needs a policy."""
    named = trust({"AWS": USER}, Condition={"StringEquals": {"sts:ExternalId": "7"}})["Statement"]
    account = trust({"AWS": "123456789012"})["Statement"]
    assert assume({"Statement": [*named, *account]}) == (True, False)


def test_the_action_counts():
    """Trusted for sts:TagSession is not trusted for sts:AssumeRole."""
    assert assume(trust("*", action="sts:TagSession")) == (False, False)
    assert assume(trust("*", action=["sts:TagSession", "sts:AssumeRole"])) == (True, False)


def test_an_unreadable_trust_policy_trusts_nobody():
    """Whatever stands in it."""
    assert assume({"Statement": [*trust("*")["Statement"], {"Effect": "Deny"}]}) == (False, False)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ([], "policy ops: the document must be a JSON object"),
        ({"Statement": [{**ALLOW, "Principal": "*"}]}, "Has prohibited field Resource"),
        (trust("*", action="ec2:*"), "AssumeRole policy may only specify STS AssumeRole actions."),
        (trust("everybody"), 'statement 0: Principal: must be "*" or an object'),
        (trust({}), 'statement 0: Principal: must be "*" or an object'),
        (trust({"Aws": USER}), "Principal: Aws: is unknown"),
        (trust({"AWS": []}), "must be a string or a list of at least one"),
        (trust({"AWS": "alice"}), 'Invalid principal in policy: "AWS":"alice"'),
        (trust({"AWS": "arn:aws:iam::123456789012:user/*"}), "Invalid principal in policy"),
        ({"Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole"}]}, "statement 0: Principal is needed"),
        (trust("*", NotPrincipal="*"), "element 'NotPrincipal': is unknown"),
    ],
)
def test_malformed_trust(document, words):
    """What is no trust policy is refused when it is read, in AWS's words where AWS has them."""
    with pytest.raises(MalformedPolicy) as caught:
        read_trust("ops", document)
    assert words in str(caught.value)
