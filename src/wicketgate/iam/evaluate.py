"""May this principal do this to that? Default deny, an explicit Deny wins.

`evaluate` decides by one set of policies, `decide` by all that count for a principal: each set (its identity-based
policies; those given for its session) decides on its own, an explicit Deny of any wins, and all have to allow. Further
sets, such as permissions boundaries, would join that list. Source: IAM User Guide,
reference_policies_evaluation-logic.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from wicketgate.iam.conditions import shortfall
from wicketgate.iam.patterns import Context
from wicketgate.iam.policy import MalformedPolicy, Statement, read_policies
from wicketgate.model import Policy, Principal
from wicketgate.model.verdict import Reason

Kind = Literal["identity-based", "session", "role trust"]
"""What a set of policies is called in a refusal."""

NEAREST = 3
"""How many statements that nearly allowed a request its refusal mentions."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked."""

    principal_arn: str
    action: str
    """`service:Action`."""
    resource: str
    """An ARN, or `*` for actions that have no resource."""
    context: Context


class Miss(msgspec.Struct, frozen=True):
    """A statement that allows the action, but not this request."""

    statement: str
    """`policy/Sid`."""
    shortfalls: tuple[Reason, ...]
    """What keeps it from allowing the request."""

    def __str__(self) -> str:
        """One line for operators."""
        return f"statement {self.statement} allows the action but not: {', and '.join(map(str, self.shortfalls))}"


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What IAM says, and why."""

    allowed: bool
    statement: str
    """The deciding statement, `policy/Sid`; empty when none decided (implicit deny)."""
    reason: str
    """One line for operators: which statement, or which nearly did and what kept each from it."""
    message: str
    """One line for the caller in AWS's words; empty when allowed."""
    explicit: bool = False
    """Denied for good: by a Deny, or by a policy that cannot be read. No other policy can allow it."""
    kind: Kind = "identity-based"
    """Which set of policies decided."""
    misses: tuple[Miss, ...] = ()
    """What nearly allowed it, the nearest first."""


def decide(request: Request, principal: Principal, *, granted: bool = False) -> Decision:
    """Decide a request by everything that says what its principal may do.

    The root user is never locked out by a policy. A policy that cannot be read denies everything: it could have held
    the Deny. `granted` says that a policy of the resource names the principal itself: its identity-based policies then
    need not allow the request, only not deny it.
    """
    if principal.type == "Root":
        return _allowed("root is never locked out by a policy")
    sets: list[tuple[Kind, tuple[Policy, ...]]] = [("identity-based", principal.policies)]
    if principal.session_policies is not None:
        sets.append(("session", principal.session_policies))
    decisions = [_decide_set(request, kind, policies) for kind, policies in sets]
    for decision in decisions:
        if decision.explicit:
            return decision
    if granted and not decisions[0].allowed:
        decisions[0] = _allowed(f"the resource's own policy allows {request.principal_arn} {request.action}")
    return next((decision for decision in decisions if not decision.allowed), decisions[0])


def allows(request: Request, principal: Principal) -> bool:
    """Whether `decide` allows a request, without finding out why: for whoever asks for nothing else."""
    if principal.type == "Root":
        return True
    sets = (principal.policies, principal.session_policies)
    try:
        deciding = [_deciding(request, read_policies(policies)) for policies in sets if policies is not None]
    except MalformedPolicy:
        return False
    return all(statement is not None and statement.allows for statement in deciding)


def _decide_set(request: Request, kind: Kind, policies: Sequence[Policy]) -> Decision:
    try:
        return evaluate(request, read_policies(policies), kind)
    except MalformedPolicy as error:
        article = "an" if kind == "identity-based" else "a"
        message = f"{_not_authorized(request)} because {article} {kind} policy is malformed"
        return Decision(allowed=False, statement="", reason=str(error), message=message, explicit=True, kind=kind)


def evaluate(request: Request, statements: Sequence[Statement], kind: Kind = "identity-based") -> Decision:
    """Decide a request by all statements of one set of policies."""
    statement = _deciding(request, statements)
    if statement is None:
        return _implicit_deny(request, statements, kind)
    if not statement.allows:
        return _explicit_deny(request, statement, kind)
    return _allowed(f"statement {statement.name} allows {request.action} on {request.resource}", statement.name)


def _deciding(request: Request, statements: Sequence[Statement]) -> Statement | None:
    """The first Deny that applies, else the first Allow; None when none does."""
    action, resource, context = request.action.lower(), request.resource, request.context
    allowing: Statement | None = None
    for statement in statements:
        if (allowing is None or not statement.allows) and statement.applies(action, resource, context):
            if not statement.allows:
                return statement
            allowing = statement
    return allowing


def _allowed(reason: str, statement: str = "") -> Decision:
    return Decision(allowed=True, statement=statement, reason=reason, message="")


def _explicit_deny(request: Request, statement: Statement, kind: Kind) -> Decision:
    article = "an" if kind == "identity-based" else "a"
    return Decision(
        allowed=False,
        statement=statement.name,
        reason=f"statement {statement.name} denies {request.action} on {request.resource}",
        message=f"{_not_authorized(request)} with an explicit deny in {article} {kind} policy",
        explicit=True,
        kind=kind,
    )


def _implicit_deny(request: Request, statements: Sequence[Statement], kind: Kind) -> Decision:
    misses = sorted(
        (miss for statement in statements if statement.allows and (miss := _miss(request, statement))),
        key=lambda miss: len(miss.shortfalls),
    )[:NEAREST]
    return Decision(
        allowed=False,
        statement="",
        reason="; ".join(map(str, misses)) or f"no statement{_of(kind)} allows {request.action}",
        message=f"{_not_authorized(request)} because no {kind} policy allows the {request.action} action",
        kind=kind,
        misses=tuple(misses),
    )


def _of(kind: Kind) -> str:
    return "" if kind == "identity-based" else f" of a {kind} policy"


def _miss(request: Request, statement: Statement) -> Miss | None:
    """What keeps a statement that allows the action from allowing the request; None for one of other actions."""
    if not statement.names_action(request.action.lower()):
        return None
    shortfalls = [
        condition.shortfall(request.context)
        for condition in statement.conditions
        if not condition.holds(request.context)
    ]
    if not statement.names_resource(request.resource, request.context):
        named = " or ".join(pattern.text for pattern in statement.resources)
        key = "not-resource" if statement.not_resource else "resource"
        shortfalls.insert(0, shortfall(key, resource=request.resource, named=named))
    return Miss(statement.name, tuple(shortfalls))


def _not_authorized(request: Request) -> str:
    """AWS's words (IAM User Guide, troubleshoot_access-denied)."""
    return (
        f"User: {request.principal_arn} is not authorized to perform: {request.action} on resource: {request.resource}"
    )
