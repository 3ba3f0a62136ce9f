"""Managed policies: create, get, list, delete. (Versions: `policy_versions`; who has them: `attachments`.)

AWS's own that are offered (`model`) are shown and attached as at AWS, and nobody's to change.
"""

from __future__ import annotations

from typing import Any

from wicketgate.control.call import Call, Outcome, operation
from wicketgate.control.common import tag_list
from wicketgate.control.identity.common import (
    IAM_QUOTAS,
    KINDS,
    IamQuotas,
    ask_policy,
    asks_create,
    below_prefix,
    check_quota,
    delete_conflict,
    document_of,
    given_tags,
    iam_arn,
    moment,
    own_policy_at,
    paged,
    path_of,
    policy_at,
    size_of,
    unique_id,
)
from wicketgate.model import ApiError, ManagedPolicy, PolicyVersion, World
from wicketgate.model.resources import aws_managed_policies


def attachment_count(world: World, arn: str) -> int:
    """How many users, groups and roles a managed policy is attached to."""
    return sum(arn in one.attached for kind in KINDS for one in kind.listing(world))


def _answer(world: World, policy: ManagedPolicy) -> dict[str, Any]:
    """A policy as lists show it."""
    return {
        "PolicyName": policy.name,
        "PolicyId": policy.id,
        "Arn": policy.arn,
        "Path": policy.path,
        "DefaultVersionId": policy.default_version,
        "AttachmentCount": attachment_count(world, policy.arn),
        "PermissionsBoundaryUsageCount": 0,
        "IsAttachable": True,
        "CreateDate": moment(policy.created_at),
        "UpdateDate": moment(policy.updated_at),
    }


@operation("iam", asks=asks_create("policy", "PolicyName", "TagPolicy"))
def create_policy(call: Call, quotas: IamQuotas = IAM_QUOTAS) -> Outcome:
    """A managed policy of the account with its first version.

    Raises EntityAlreadyExists (names are unique whatever the path), MalformedPolicyDocument, LimitExceeded.
    """
    world, name = call.world, call.parameters["PolicyName"]
    if any(one.name.lower() == name.lower() for one in world.managed_policies):
        raise ApiError(
            "EntityAlreadyExists", f"A policy called {name} already exists. Duplicate names are not allowed.", 409
        )
    check_quota(len(world.managed_policies), quotas.policies, "PoliciesPerAccount")
    document = document_of(name, call.parameters["PolicyDocument"])
    check_quota(size_of(call.parameters["PolicyDocument"]) - 1, quotas.managed_policy_size, "PolicySize")
    policy = ManagedPolicy(
        arn=iam_arn(world, f"policy{path_of(call)}{name}"),
        name=name,
        id=unique_id(call, "ANPA"),
        path=path_of(call),
        description=call.parameters.get("Description") or "",
        versions=(PolicyVersion(id="v1", document=document, created_at=call.now),),
        created_at=call.now,
        updated_at=call.now,
        tags=given_tags(call, ignore_case=False),
    )
    tags = {"Tags": tag_list(policy.tags)} if policy.tags else {}
    return Outcome({"Policy": _answer(world, policy) | tags}, call.change(policy))


@operation("iam", asks=ask_policy)
def get_policy(call: Call) -> Outcome:
    """One managed policy, with its description and tags, without a document."""
    policy = policy_at(call.world, call.parameters["PolicyArn"])
    answer = _answer(call.world, policy) | {"Tags": tag_list(policy.tags)}
    return Outcome({"Policy": answer | {"Description": policy.description} if policy.description else answer})


def _in_scope(call: Call) -> list[ManagedPolicy]:
    scope = call.parameters.get("Scope") or "All"
    own = list(call.world.managed_policies) if scope != "AWS" else []
    aws = list(aws_managed_policies(call.world.partition).values()) if scope != "Local" else []
    return own + aws


@operation("iam")
def list_policies(call: Call) -> Outcome:
    """The managed policies of a scope (the account's, AWS's, all) below PathPrefix, perhaps only attached ones."""
    policies = below_prefix(call, _in_scope(call))
    if call.parameters.get("OnlyAttached"):
        policies = [policy for policy in policies if attachment_count(call.world, policy.arn)]
    if call.parameters.get("PolicyUsageFilter") == "PermissionsBoundary":
        policies = []
    shown, more = paged(call, policies, lambda policy: f"{policy.name}\n{policy in call.world.managed_policies}")
    return Outcome({"Policies": [_answer(call.world, policy) for policy in shown], **more})


@operation("iam", asks=ask_policy)
def delete_policy(call: Call) -> Outcome:
    """Ends a managed policy. Raises DeleteConflict while it is attached or has versions besides its default one."""
    policy = own_policy_at(call.world, call.parameters["PolicyArn"])
    if attachment_count(call.world, policy.arn):
        raise delete_conflict("Cannot delete a policy attached to entities.")
    if len(policy.versions) > 1:
        raise delete_conflict(
            "This policy has more than one version. Before you delete a policy, you must delete the policy's versions. "
            "The default version is deleted with the policy."
        )
    return Outcome({}, call.change(deletes=[("policy", policy.arn)]))
