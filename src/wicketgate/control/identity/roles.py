"""IAM roles: create, get, list, update, delete, and their trust policies. (Who assumes one: `sts`.)"""

from __future__ import annotations

from typing import Any

import msgspec

from wicketgate import iam
from wicketgate.control.call import Call, Outcome, operation
from wicketgate.control.common import tag_list
from wicketgate.control.identity.common import (
    IAM_QUOTAS,
    ROLE,
    USER,
    IamQuotas,
    arn_of,
    asks_about,
    asks_create,
    below_prefix,
    check_deletable,
    check_name_free,
    check_quota,
    given_tags,
    malformed,
    moment,
    paged,
    parsed,
    path_of,
    refuse_boundary,
    role_named,
    size_of,
    unique_id,
    written,
)
from wicketgate.model import Role, World


def _answer(world: World, role: Role) -> dict[str, Any]:
    """A role as CreateRole shows it, without its tags."""
    answer: dict[str, Any] = {
        "Path": role.path,
        "RoleName": role.name,
        "RoleId": role.id,
        "Arn": arn_of(ROLE, world, role),
        "CreateDate": moment(role.created_at),
        "AssumeRolePolicyDocument": written(role.trust),
    }
    return answer | {"Description": role.description} if role.description else answer


def _tags(role: Role) -> dict[str, Any]:
    return {"Tags": tag_list(role.tags)} if role.tags else {}


def _trust(world: World, name: str, text: str, quotas: IamQuotas) -> dict[str, Any]:
    """A trust policy's document, checked: whom it names in this account has to exist."""
    document = parsed(text, "This policy contains invalid Json")
    try:
        statements = iam.read_trust(name, document)
    except iam.MalformedPolicy as error:
        raise malformed(str(error)) from error
    known = {arn_of(USER, world, user) for user in world.users} | {arn_of(ROLE, world, one) for one in world.roles}
    own = f"arn:{world.partition}:iam::{world.account_id}:"
    for arn in sorted(arn for statement in statements for arn in statement.arns):
        if arn.startswith(own) and arn not in known:
            raise malformed(f'Invalid principal in policy: "AWS":"{arn}"')
    check_quota(size_of(text) - 1, quotas.trust_policy_size, "ACLSizePerRole")
    return document


@operation("iam", asks=asks_create("role", "RoleName", "TagRole"))
def create_role(call: Call, quotas: IamQuotas = IAM_QUOTAS) -> Outcome:
    """A role without any permission, with its trust policy.

    Raises EntityAlreadyExists, MalformedPolicyDocument, LimitExceeded, InvalidInput for tags.
    """
    world, parameters = call.world, call.parameters
    refuse_boundary(call)
    check_name_free(ROLE, world, parameters["RoleName"])
    check_quota(len(world.roles), quotas.roles, "RolesPerAccount")
    role = Role(
        name=parameters["RoleName"],
        id=unique_id(call, "AROA"),
        path=path_of(call),
        trust=_trust(world, parameters["RoleName"], parameters["AssumeRolePolicyDocument"], quotas),
        description=parameters.get("Description") or "",
        max_session_duration=parameters.get("MaxSessionDuration") or 3600,
        created_at=call.now,
        tags=given_tags(call),
    )
    return Outcome({"Role": _answer(world, role) | _tags(role)}, call.change(role))


@operation("iam", asks=asks_about(ROLE))
def get_role(call: Call) -> Outcome:
    """One role. When it was last used is not kept."""
    role = role_named(call.world, call.parameters["RoleName"])
    more = {"MaxSessionDuration": role.max_session_duration, "RoleLastUsed": {}}
    return Outcome({"Role": _answer(call.world, role) | more | _tags(role)})


@operation("iam")
def list_roles(call: Call) -> Outcome:
    """The roles below PathPrefix, by name, without their tags."""
    shown, more = paged(call, below_prefix(call, call.world.roles), lambda role: role.name)
    roles = [_answer(call.world, role) | {"MaxSessionDuration": role.max_session_duration} for role in shown]
    return Outcome({"Roles": roles, **more})


@operation("iam", asks=asks_about(ROLE))
def update_role(call: Call) -> Outcome:
    """A new description, a new bound of its sessions' length, or both; what is not given stays."""
    role = role_named(call.world, call.parameters["RoleName"])
    description = call.parameters.get("Description")
    changed = msgspec.structs.replace(
        role,
        description=role.description if description is None else description,
        max_session_duration=call.parameters.get("MaxSessionDuration") or role.max_session_duration,
    )
    return Outcome({}, call.change(changed))


@operation("iam", asks=asks_about(ROLE))
def update_role_description(call: Call) -> Outcome:
    """The older form of UpdateRole; answers with the role."""
    role = role_named(call.world, call.parameters["RoleName"])
    changed = msgspec.structs.replace(role, description=call.parameters["Description"])
    return Outcome({"Role": _answer(call.world, changed)}, call.change(changed))


@operation("iam", asks=asks_about(ROLE))
def update_assume_role_policy(call: Call, quotas: IamQuotas = IAM_QUOTAS) -> Outcome:
    """Another trust policy. Sessions that exist go on. Raises MalformedPolicyDocument, LimitExceeded."""
    role = role_named(call.world, call.parameters["RoleName"])
    trust = _trust(call.world, role.name, call.parameters["PolicyDocument"], quotas)
    return Outcome({}, call.change(msgspec.structs.replace(role, trust=trust)))


@operation("iam", asks=asks_about(ROLE))
def delete_role(call: Call) -> Outcome:
    """Ends a role and its sessions with it. Raises DeleteConflict while it has policies."""
    role = role_named(call.world, call.parameters["RoleName"])
    check_deletable(role)
    sessions = [("access-key", key.id) for key in call.world.access_keys if key.role_name == role.name]
    return Outcome({}, call.change(deletes=[("role", role.name), *sessions]))


@operation("iam", asks=asks_about(ROLE))
def list_instance_profiles_for_role(call: Call) -> Outcome:
    """None: there are no instance profiles. Tools ask before they delete a role."""
    role_named(call.world, call.parameters["RoleName"])
    return Outcome({"InstanceProfiles": [], "IsTruncated": False})
