"""May this principal do this to that? Default deny, an explicit Deny wins.

Only identity-based policies so far: groups' policies would join the same list; boundaries and resource-based policies
are further lists, each with a decision of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from wicketgate.iam.patterns import Context
from wicketgate.iam.policy import Statement

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


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What IAM says, and why."""

    allowed: bool
    statement: str
    """The deciding statement, `policy/Sid`; empty when none decided (implicit deny)."""
    reason: str
    """One line for operators: which statement, or which nearly did and what kept each from it."""
    message: str
    """One line for the caller in AWS's words; empty when allowed."""


def evaluate(request: Request, statements: Sequence[Statement]) -> Decision:
    """Decide a request by all statements of the principal's identity-based policies."""
    action, resource, context = request.action.lower(), request.resource, request.context
    allowing: Statement | None = None
    for statement in statements:
        if (allowing is None or not statement.allows) and statement.applies(action, resource, context):
            if not statement.allows:
                return _explicit_deny(request, statement)
            allowing = statement
    if allowing is None:
        return _implicit_deny(request, statements)
    return Decision(
        allowed=True,
        statement=allowing.name,
        reason=f"statement {allowing.name} allows {request.action} on {resource}",
        message="",
    )


def _explicit_deny(request: Request, statement: Statement) -> Decision:
    return Decision(
        allowed=False,
        statement=statement.name,
        reason=f"statement {statement.name} denies {request.action} on {request.resource}",
        message=f"{_not_authorized(request)} with an explicit deny in an identity-based policy",
    )


def _implicit_deny(request: Request, statements: Sequence[Statement]) -> Decision:
    misses = sorted(
        (miss for statement in statements if statement.allows and (miss := _miss(request, statement))),
        key=lambda miss: miss[0],
    )
    nearest = "; ".join(words for _, words in misses[:NEAREST])
    return Decision(
        allowed=False,
        statement="",
        reason=nearest or f"no statement allows {request.action}",
        message=f"{_not_authorized(request)} because no identity-based policy allows the {request.action} action",
    )


def _miss(request: Request, statement: Statement) -> tuple[int, str] | None:
    """What keeps a statement that allows the action from allowing the request: how much, and in words."""
    if not statement.names_action(request.action.lower()):
        return None
    shortfalls = [
        condition.shortfall(request.context)
        for condition in statement.conditions
        if not condition.holds(request.context)
    ]
    if not statement.names_resource(request.resource, request.context):
        named = " or ".join(pattern.text for pattern in statement.resources)
        relation = "is in NotResource" if statement.not_resource else "is not"
        shortfalls.insert(0, f"the resource {request.resource} {relation} {named}")
    words = f"statement {statement.name} allows the action but not: {', and '.join(shortfalls)}"
    return len(shortfalls), words


def _not_authorized(request: Request) -> str:
    """AWS's words (IAM User Guide, troubleshoot_access-denied)."""
    return (
        f"User: {request.principal_arn} is not authorized to perform: {request.action} on resource: {request.resource}"
    )
