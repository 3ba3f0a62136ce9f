"""Inline policies of users, groups and roles: PutUserPolicy, GetUserPolicy, ListUserPolicies, DeleteUserPolicy, and the
same for Group and Role."""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec

from wicketgate.control.call import Call, Outcome, operation
from wicketgate.control.identity.common import (
    IAM_QUOTAS,
    KINDS,
    IamQuotas,
    Kind,
    asks_about,
    document_of,
    named,
    no_such,
    paged,
    size_of,
    written,
)
from wicketgate.model import ApiError, Policy


def _identity(kind: Kind, call: Call) -> Any:
    return named(kind, call.world, call.parameters[kind.parameter])


def _policy(kind: Kind, call: Call) -> Policy:
    name = call.parameters["PolicyName"]
    for policy in _identity(kind, call).policies:
        if policy.name == name:
            found: Policy = policy
            return found
    raise no_such(f"The {kind.word} policy with name {name} cannot be found.")


def put_policy(kind: Kind, call: Call, quotas: IamQuotas = IAM_QUOTAS) -> Outcome:
    """Adds an inline policy, or puts it in the place of the one with its name.

    Raises MalformedPolicyDocument, and LimitExceeded when all together would be too large.
    """
    identity, name = _identity(kind, call), call.parameters["PolicyName"]
    policy = Policy(name=name, document=document_of(name, call.parameters["PolicyDocument"]))
    policies = {one.name: one for one in identity.policies} | {name: policy}
    limit = quotas.inline_size(kind.word)
    if sum(size_of(one.document) for one in policies.values()) > limit:
        raise ApiError(
            "LimitExceeded", f"Maximum policy size of {limit} bytes exceeded for {kind.word} {identity.name}", 409
        )
    return Outcome({}, call.change(msgspec.structs.replace(identity, policies=tuple(policies.values()))))


def get_policy(kind: Kind, call: Call) -> Outcome:
    """One inline policy with its document."""
    policy = _policy(kind, call)
    owner = {kind.parameter: call.parameters[kind.parameter]}
    return Outcome({**owner, "PolicyName": policy.name, "PolicyDocument": written(policy.document)})


def list_policies(kind: Kind, call: Call) -> Outcome:
    """The names of an identity's inline policies."""
    names = [policy.name for policy in _identity(kind, call).policies]
    shown, more = paged(call, names, lambda name: name)
    return Outcome({"PolicyNames": shown, **more})


def delete_policy(kind: Kind, call: Call) -> Outcome:
    """Takes an inline policy away."""
    identity, gone = _identity(kind, call), _policy(kind, call)
    left = tuple(policy for policy in identity.policies if policy != gone)
    return Outcome({}, call.change(msgspec.structs.replace(identity, policies=left)))


for _kind in KINDS:
    operation("iam", asks_about(_kind), f"Put{_kind.title}Policy")(partial(put_policy, _kind))
    operation("iam", asks_about(_kind), f"Get{_kind.title}Policy")(partial(get_policy, _kind))
    operation("iam", asks_about(_kind), f"List{_kind.title}Policies")(partial(list_policies, _kind))
    operation("iam", asks_about(_kind), f"Delete{_kind.title}Policy")(partial(delete_policy, _kind))
