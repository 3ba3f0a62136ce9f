"""STS: who am I, and sessions of roles.

AssumeRole asks IAM itself, because two parties have to agree: the role's trust policy, and, unless that names the
caller, the caller's own policies; within one account, the only one there is. The session's access key is a resource of
the World like others, so it counts everywhere at once; those that ended are deleted by later calls.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from wicketgate import iam
from wicketgate.control.call import Ask, Call, Outcome, operation
from wicketgate.control.identity.access_keys import new_secret
from wicketgate.control.identity.common import (
    TAGS_IGNORE_CASE,
    document_of,
    moment,
    policy_at,
    size_of,
    tag_context,
    unique_id,
)
from wicketgate.model import AccessKey, ApiError, Policy, Principal, Role

DEFAULT_DURATION: Final = 3600
CHAINED_DURATION: Final = 3600
"""Seconds: the length of a session by default, and at most for one that a session begets."""
PACKED_SIZE: Final = 2048
"""Characters of session policies and tags together."""
EXPIRED_KEPT: Final = 3600
"""Seconds that an ended session's key is kept, so that its use is still answered with ExpiredToken."""
MAX_SESSIONS: Final = 10_000
"""Sessions at once: each is known to every process until it ends, so their number has to have an end."""
_NOT_OFFERED: Final = ("SerialNumber", "TokenCode", "SourceIdentity", "ProvidedContexts", "TransitiveTagKeys")
_role_arn = re.compile(r"arn:[a-z-]+:iam::[0-9]{12}:role/(?:.*/)?([^/]+)").fullmatch


def _nothing(_: Call) -> Sequence[Ask]:
    return ()


@operation("sts", asks=_nothing)
def get_caller_identity(call: Call) -> Outcome:
    """Who signed. Needs no permission, and no policy can deny it (STS API Reference, GetCallerIdentity)."""
    principal, caller = call.caller.principal, call.caller
    user_id = principal.id if principal is not None else caller.account_id
    return Outcome({"UserId": user_id, "Account": caller.account_id, "Arn": caller.arn})


@operation("sts", asks=_nothing)
def assume_role(call: Call) -> Outcome:
    """Temporary credentials of a role's session.

    Raises AccessDenied (also for a role that does not exist), ValidationError, MalformedPolicyDocument,
    PackedPolicyTooLarge; Throttling while there are too many sessions.
    """
    principal, role = _authorized(call)
    tags = _session_tags(call, role)
    policies = _session_policies(call)
    if sum(one.expires is not None and one.expires > call.now for one in call.world.access_keys) >= MAX_SESSIONS:
        raise ApiError("Throttling", f"There are {MAX_SESSIONS} sessions of roles. Try again when some have ended.")
    packed = _packed_size(call, policies, tags)
    expires = int(call.now) + _duration(call, principal, role)
    key = AccessKey(
        id=unique_id(call, "ASIA", 16),
        secret=new_secret(call),
        session_token=base64.b64encode(call.random(240)).decode(),
        expires=float(expires),
        role_name=role.name,
        session_name=call.parameters["RoleSessionName"],
        session_policies=policies,
        session_tags=tags,
        created_at=call.now,
    )
    credentials = {
        "AccessKeyId": key.id,
        "SecretAccessKey": key.secret,
        "SessionToken": key.session_token,
        "Expiration": moment(expires),
    }
    answer: dict[str, Any] = {"Credentials": credentials, "AssumedRoleUser": _session_answer(call, role)}
    if policies or tags:
        answer["PackedPolicySize"] = packed
    return Outcome(answer, call.change(key, deletes=_ended(call)))


def _session_answer(call: Call, role: Role) -> dict[str, Any]:
    world, name = call.world, call.parameters["RoleSessionName"]
    arn = f"arn:{world.partition}:sts::{world.account_id}:assumed-role/{role.name}/{name}"
    return {"AssumedRoleId": f"{role.id}:{name}", "Arn": arn}


def _ended(call: Call) -> list[tuple[str, str]]:
    return [
        ("access-key", key.id)
        for key in call.world.access_keys
        if key.expires is not None and key.expires + EXPIRED_KEPT <= call.now
    ]


# -- may the caller? ---------------------------------------------------------------------------------------------------


def _authorized(call: Call) -> tuple[Principal, Role]:
    arn, principal = call.parameters["RoleArn"], call.caller.principal
    found = _role_arn(arn)
    if found is None:
        raise ApiError("ValidationError", f"{arn} is invalid")
    for name in _NOT_OFFERED:
        if call.parameters.get(name):
            raise ApiError(
                "UnsupportedOperation", f"The parameter {name} of AssumeRole is not offered here. Leave it out."
            )
    if principal is None or principal.type == "Root":
        raise ApiError("AccessDenied", "Roles may not be assumed by root accounts.", 403)
    role = call.world.role(found[1])
    if role is not None and call.world.role_arn(role) != arn:
        role = None
    context = _context(call, principal, role)
    for action in ("sts:AssumeRole", "sts:TagSession") if call.parameters.get("Tags") else ("sts:AssumeRole",):
        asked = iam.Request(principal_arn=principal.arn, action=action, resource=arn, context=context)
        _check(asked, principal, role)
    if role is None:  # _check has refused
        raise ApiError("AccessDenied", f"{arn} does not exist", 403)
    return principal, role


def _check(asked: iam.Request, principal: Principal, role: Role | None) -> None:
    """Raise AccessDenied unless trust policy and caller's policies agree. A role that does not exist trusts nobody, in
    the same words."""
    trust = iam.may_assume(role.name, role.trust, asked) if role is not None else None
    decision = iam.decide(asked, principal, granted=trust is not None and trust.itself)
    if decision.explicit:
        raise ApiError("AccessDenied", decision.message, 403)
    if trust is None or not trust.decision.allowed or not decision.allowed:
        raise ApiError(
            "AccessDenied",
            f"User: {principal.arn} is not authorized to perform: {asked.action} on resource: {asked.resource}",
            403,
        )


def _context(call: Call, principal: Principal, role: Role | None) -> iam.Context:
    """The condition keys of AssumeRole (Service Authorization Reference, AWS STS)."""
    caller, parameters = call.caller, call.parameters
    context: dict[str, str] = iam.caller_context(call.world, principal, caller.source_ip, caller.user_agent, call.now)
    context["sts:rolesessionname"] = parameters["RoleSessionName"]
    if parameters.get("ExternalId"):
        context["sts:externalid"] = parameters["ExternalId"]
    if role is not None:
        for key, (value,) in tag_context(role.tags).items():
            prefix, _, name = key.partition("/")
            iam.add_tags(context, prefix.lower(), {name: value})
    tags = {tag["Key"]: tag.get("Value") or "" for tag in parameters.get("Tags") or ()}
    iam.add_tags(context, "aws:requesttag", tags)
    return {**context, "aws:tagkeys": tuple(tags)} if tags else context


# -- what the session is like ------------------------------------------------------------------------------------------


def _duration(call: Call, principal: Principal, role: Role) -> int:
    seconds: int = call.parameters.get("DurationSeconds") or DEFAULT_DURATION
    if principal.type == "AssumedRole" and seconds > CHAINED_DURATION:
        raise ApiError(
            "ValidationError",
            "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining",
        )
    if seconds > role.max_session_duration:
        raise ApiError(
            "ValidationError", "The requested DurationSeconds exceeds the MaxSessionDuration set for this role."
        )
    return seconds


def _session_tags(call: Call, role: Role) -> dict[str, str]:
    """The session's tags; one that the role has in another case is the role's, overridden."""
    given = [(tag["Key"], tag.get("Value") or "") for tag in call.parameters.get("Tags") or ()]
    if len({key.lower() for key, _ in given}) < len(given):
        raise ApiError("InvalidParameterValue", TAGS_IGNORE_CASE)
    if any(key.lower().startswith("aws:") for key, _ in given):
        raise ApiError("InvalidParameterValue", "Tag keys starting with 'aws:' are reserved for internal use")
    known = {key.lower(): key for key in role.tags}
    return {known.get(key.lower(), key): value for key, value in given}


def _session_policies(call: Call) -> tuple[Policy, ...]:
    policies = []
    if call.parameters.get("Policy"):
        policies.append(Policy(name="session", document=document_of("session", call.parameters["Policy"])))
    for one in call.parameters.get("PolicyArns") or ():
        managed = policy_at(call.world, one.get("arn") or "", "Policy {arn} does not exist or is not attachable.")
        policies.append(Policy(name=managed.name, document=managed.document))
    return tuple(policies)


def _packed_size(call: Call, policies: Sequence[Policy], tags: Mapping[str, str]) -> int:
    """Percentage of what a session may carry: its policy, ARNs and tags. Raises PackedPolicyTooLarge above 100.

    AWS packs them in a form of its own; here their characters count, white space left out.
    """
    arns = [one.get("arn") or "" for one in call.parameters.get("PolicyArns") or ()]
    size = size_of(call.parameters.get("Policy") or "") + sum(map(len, arns))
    size += sum(len(key) + len(value) for key, value in tags.items())
    percent = -(-100 * size // PACKED_SIZE)
    if percent > 100:
        raise ApiError(
            "PackedPolicyTooLarge",
            f"Packed size of session policies and tags consumes {percent}% of allotted space.",
        )
    return percent
