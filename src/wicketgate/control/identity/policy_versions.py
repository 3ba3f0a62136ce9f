"""Versions of managed policies: create, get, list, delete, and which one is in force."""

from __future__ import annotations

from typing import Any

import msgspec

from wicketgate.control.call import Call, Outcome, operation
from wicketgate.control.identity.common import (
    IAM_QUOTAS,
    IamQuotas,
    ask_policy,
    check_quota,
    delete_conflict,
    document_of,
    moment,
    no_such,
    own_policy_at,
    paged,
    policy_at,
    size_of,
    written,
)
from wicketgate.model import ApiError, ManagedPolicy, PolicyVersion

_NOT_ATTACHABLE = "Policy {arn} does not exist or is not attachable."


def _answer(policy: ManagedPolicy, version: PolicyVersion) -> dict[str, Any]:
    return {
        "VersionId": version.id,
        "IsDefaultVersion": version.id == policy.default_version,
        "CreateDate": moment(version.created_at),
    }


def _version(call: Call, *, change: bool) -> tuple[ManagedPolicy, PolicyVersion]:
    arn, wanted = call.parameters["PolicyArn"], call.parameters["VersionId"]
    missing = f"Policy {arn} version {wanted} does not exist or is not attachable."
    policy = (own_policy_at if change else policy_at)(call.world, arn, missing.replace("{", "{{").replace("}", "}}"))
    for version in policy.versions:
        if version.id == wanted:
            return policy, version
    raise no_such(missing)


@operation("iam", asks=ask_policy)
def create_policy_version(call: Call, quotas: IamQuotas = IAM_QUOTAS) -> Outcome:
    """A new version, in force at once with SetAsDefault. Raises LimitExceeded for a sixth, MalformedPolicyDocument."""
    policy = own_policy_at(call.world, call.parameters["PolicyArn"], _NOT_ATTACHABLE)
    document = document_of(policy.name, call.parameters["PolicyDocument"])
    check_quota(size_of(call.parameters["PolicyDocument"]) - 1, quotas.managed_policy_size, "PolicySize")
    if len(policy.versions) >= quotas.versions_per_policy:
        raise ApiError(
            "LimitExceeded",
            f"A managed policy can have up to {quotas.versions_per_policy} versions. Before you create a new version, "
            "you must delete an existing version.",
            409,
        )
    version = PolicyVersion(id=f"v{policy.next_version}", document=document, created_at=call.now)
    changed = msgspec.structs.replace(
        policy,
        versions=(*policy.versions, version),
        next_version=policy.next_version + 1,
        default_version=version.id if call.parameters.get("SetAsDefault") else policy.default_version,
        updated_at=call.now,
    )
    return Outcome({"PolicyVersion": _answer(changed, version)}, call.change(changed))


@operation("iam", asks=ask_policy)
def get_policy_version(call: Call) -> Outcome:
    """One version with its document."""
    policy, version = _version(call, change=False)
    return Outcome({"PolicyVersion": _answer(policy, version) | {"Document": written(version.document)}})


@operation("iam", asks=ask_policy)
def list_policy_versions(call: Call) -> Outcome:
    """The versions of a policy, the newest first, without documents."""
    policy = policy_at(call.world, call.parameters["PolicyArn"], _NOT_ATTACHABLE)
    shown, more = paged(call, policy.versions, lambda version: f"{10**9 - int(version.id[1:]):09}")
    return Outcome({"Versions": [_answer(policy, version) for version in shown], **more})


@operation("iam", asks=ask_policy)
def set_default_policy_version(call: Call) -> Outcome:
    """Puts a version in force, at once, for all who have the policy."""
    policy, version = _version(call, change=True)
    return Outcome({}, call.change(msgspec.structs.replace(policy, default_version=version.id)))


@operation("iam", asks=ask_policy)
def delete_policy_version(call: Call) -> Outcome:
    """Ends a version. Raises DeleteConflict for the one in force."""
    policy, version = _version(call, change=True)
    if version.id == policy.default_version:
        raise delete_conflict("Cannot delete the default version of a policy.")
    left = tuple(one for one in policy.versions if one != version)
    return Outcome({}, call.change(msgspec.structs.replace(policy, versions=left)))
