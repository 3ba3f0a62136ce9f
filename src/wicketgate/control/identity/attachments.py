"""Which managed policies users, groups and roles have: AttachUserPolicy, DetachUserPolicy, ListAttachedUserPolicies,
the same for Group and Role, and ListEntitiesForPolicy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import msgspec

from wicketgate.control.call import Ask, Call, Outcome, operation
from wicketgate.control.identity.common import (
    IAM_QUOTAS,
    KINDS,
    IamQuotas,
    Identity,
    Kind,
    ask_identity,
    ask_policy,
    asks_about,
    below_prefix,
    check_policy_arn,
    check_quota,
    named,
    no_such,
    paged,
    policy_at,
)


def _asks(kind: Kind) -> Callable[[Call], Sequence[Ask]]:
    """Asks about the identity, with iam:PolicyARN."""
    return lambda call: (
        ask_identity(kind, call, call.parameters[kind.parameter], PolicyARN=call.parameters["PolicyArn"]),
    )


def attach_policy(kind: Kind, call: Call, quotas: IamQuotas = IAM_QUOTAS) -> Outcome:
    """Gives an identity a managed policy; no change if it has it. Raises LimitExceeded."""
    identity = named(kind, call.world, call.parameters[kind.parameter])
    arn = call.parameters["PolicyArn"]
    policy_at(call.world, arn, "Policy {arn} does not exist or is not attachable.")
    if arn in identity.attached:
        return Outcome()
    check_quota(len(identity.attached), quotas.attached_policies, f"PoliciesPer{kind.title}")
    return Outcome({}, call.change(msgspec.structs.replace(identity, attached=(*identity.attached, arn))))


def detach_policy(kind: Kind, call: Call) -> Outcome:
    """Takes a managed policy from an identity. Raises NoSuchEntity if it has not got it."""
    identity = named(kind, call.world, call.parameters[kind.parameter])
    arn = call.parameters["PolicyArn"]
    check_policy_arn(arn)
    if arn not in identity.attached:
        raise no_such(f"Policy {arn} was not found.")
    left = tuple(one for one in identity.attached if one != arn)
    return Outcome({}, call.change(msgspec.structs.replace(identity, attached=left)))


def list_attached_policies(kind: Kind, call: Call) -> Outcome:
    """The managed policies that an identity has, below PathPrefix."""
    identity = named(kind, call.world, call.parameters[kind.parameter])
    policies = below_prefix(call, [policy_at(call.world, arn) for arn in identity.attached])
    shown, more = paged(call, policies, lambda policy: f"{policy.name}\n{policy in call.world.managed_policies}")
    attached = [{"PolicyName": policy.name, "PolicyArn": policy.arn} for policy in shown]
    return Outcome({"AttachedPolicies": attached, **more})


for _kind in KINDS:
    operation("iam", _asks(_kind), f"Attach{_kind.title}Policy")(partial(attach_policy, _kind))
    operation("iam", _asks(_kind), f"Detach{_kind.title}Policy")(partial(detach_policy, _kind))
    operation("iam", asks_about(_kind), f"ListAttached{_kind.title}Policies")(partial(list_attached_policies, _kind))


@operation("iam", asks=ask_policy)
def list_entities_for_policy(call: Call) -> Outcome:
    """The users, groups and roles that have a managed policy; as a permissions boundary nobody has one."""
    policy = policy_at(call.world, call.parameters["PolicyArn"])
    wanted = call.parameters.get("EntityFilter")
    found: list[tuple[Kind, Identity]] = []
    if call.parameters.get("PolicyUsageFilter") != "PermissionsBoundary":
        kinds = [kind for kind in KINDS if wanted in (None, kind.title)]
        found = [
            (kind, one)
            for kind in kinds
            for one in below_prefix(call, kind.listing(call.world))
            if policy.arn in one.attached
        ]
    shown, more = paged(call, found, lambda pair: f"{pair[0].word}\n{pair[1].name}")
    entities: dict[str, Any] = {
        f"Policy{kind.title}s": [
            {kind.parameter: one.name, f"{kind.title}Id": one.id} for of, one in shown if of == kind
        ]
        for kind in KINDS
    }
    return Outcome({**entities, **more})
