"""Trust policies: who may assume a role. The role's own policy, so its statements name principals instead of resources.

Principal is `"*"`, or `{"AWS": ...}` with the ARN of a user, a role or a session of one, with an account (its id or the
ARN of its root), or `*`; `{"Service": ...}` and `{"Federated": ...}` are read and name nobody who calls this API. Whole
names only: AWS knows no patterns in Principal. Source: IAM User Guide, reference_policies_elements_principal.

A statement that names the caller itself is enough within an account; one that names the account, or everybody, leaves
it to the caller's own policies (STS API Reference, AssumeRole).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from wicketgate.iam.evaluate import Decision, Request, evaluate
from wicketgate.iam.patterns import Template, lookup
from wicketgate.iam.policy import (
    MalformedPolicy,
    Statement,
    check_elements,
    malformed,
    read_rest,
    read_statements,
)

EVERYBODY: Final = "*"
_ELEMENTS: Final = ("Sid", "Effect", "Principal", "Action", "NotAction", "Condition")
_KINDS: Final = ("AWS", "Service", "Federated", "CanonicalUser")
_ANY_RESOURCE: Final = (Template("*"),)
_account = re.compile(r"(?:arn:[a-z-]+:iam::)?([0-9]{12})(?::root)?").fullmatch
_identity = re.compile(
    r"arn:[a-z-]+:(?:iam::[0-9]{12}:(?:user|role)/.+|sts::[0-9]{12}:(?:assumed-role|federated-user)/.+)"
).fullmatch
_action = re.compile(r"\*|sts:(?:\*|assumerole[a-z*?]*|tagsession|setsourceidentity)").fullmatch


class TrustStatement(msgspec.Struct, frozen=True, kw_only=True):
    """One statement of a trust policy."""

    statement: Statement
    """Effect, actions and conditions; its resource is the role, whichever."""
    everybody: bool
    accounts: frozenset[str]
    """Ids of the accounts that are trusted as a whole."""
    arns: frozenset[str]
    """ARNs of users, roles and sessions."""

    def names_itself(self, request: Request) -> bool:
        """Whether the caller is named by its own ARN, or its role's."""
        return request.principal_arn in self.arns or not self.arns.isdisjoint(
            lookup(request.context, "aws:PrincipalArn") or ()
        )

    def names(self, request: Request) -> bool:
        """Whether the statement is about the caller."""
        accounts = lookup(request.context, "aws:PrincipalAccount") or ()
        return self.everybody or not self.accounts.isdisjoint(accounts) or self.names_itself(request)


class Trust(msgspec.Struct, frozen=True, kw_only=True):
    """What a trust policy says."""

    decision: Decision
    itself: bool = False
    """Whether it allows the caller by name, so that the caller's own policies need not."""


def read_trust(name: str, document: Any) -> tuple[TrustStatement, ...]:
    """The statements of a trust policy (JSON data); `name` is for messages. Raises MalformedPolicy."""
    return read_statements(name, document, _read_statement, lambda one: one.statement.name)


def may_assume(role_name: str, document: Any, request: Request) -> Trust:
    """Whether a role's trust policy lets the caller do this (sts:AssumeRole, sts:TagSession).

    The caller is the request's `principal_arn`, and `aws:PrincipalArn` and `aws:PrincipalAccount` of its context. A
    document that cannot be read trusts nobody.
    """
    try:
        statements = [one for one in read_trust(role_name, document) if one.names(request)]
    except MalformedPolicy as error:
        return Trust(decision=Decision(allowed=False, statement="", reason=str(error), message=str(error)))
    decision = _decide(request, statements)
    by_name = [one for one in statements if one.names_itself(request)]
    return Trust(decision=decision, itself=decision.allowed and _decide(request, by_name).allowed)


def _decide(request: Request, statements: Sequence[TrustStatement]) -> Decision:
    return evaluate(request, [one.statement for one in statements], "role trust")


def _read_statement(policy: str, index: int, data: Any, variables: bool) -> TrustStatement:
    where = f"policy {policy}: statement {index}"
    if isinstance(data, dict) and ("Resource" in data or "NotResource" in data):
        raise MalformedPolicy("Has prohibited field Resource")
    check_elements(where, data, _ELEMENTS, "Effect, Principal and Action")
    statement = read_rest(policy, index, data, variables=variables, resources=_ANY_RESOURCE)
    if not all(_action(action) for action in statement.actions):
        raise MalformedPolicy("AssumeRole policy may only specify STS AssumeRole actions.")
    if "Principal" not in data:
        raise malformed(where, "Principal is needed")
    named = _aws_principals(where, data["Principal"])
    accounts = {name: found[1] for name in named if (found := _account(name))}
    return TrustStatement(
        statement=statement,
        everybody=EVERYBODY in named,
        accounts=frozenset(accounts.values()),
        arns=frozenset(named) - set(accounts) - {EVERYBODY},
    )


def _aws_principals(where: str, data: Any) -> list[str]:
    """The names under AWS, and `*` for everybody."""
    if data == EVERYBODY:
        return [EVERYBODY]
    if not isinstance(data, dict) or not data:
        raise malformed(f"{where}: Principal", f'must be "*" or an object with {", ".join(_KINDS)}')
    for kind, value in data.items():
        if kind not in _KINDS:
            raise malformed(f"{where}: Principal: {kind}", f"is unknown; {', '.join(_KINDS)} exist")
        listed = value if isinstance(value, list) else [value]
        if not listed or not all(isinstance(one, str) and one for one in listed):
            raise malformed(f"{where}: Principal: {kind}", "must be a string or a list of at least one")
    names = data.get("AWS", [])
    names = [names] if isinstance(names, str) else names
    for name in names:
        if name != EVERYBODY and not _account(name) and (not _identity(name) or "*" in name):
            raise MalformedPolicy(f'Invalid principal in policy: "AWS":"{name}"')
    return list(names)
