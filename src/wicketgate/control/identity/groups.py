"""IAM groups: create, get, list, update, delete, and who is in them."""

from __future__ import annotations

from typing import Any

import msgspec

from wicketgate.control.call import Call, Outcome, operation
from wicketgate.control.identity.common import (
    GROUP,
    IAM_QUOTAS,
    USER,
    IamQuotas,
    arn_of,
    asks_about,
    asks_create,
    asks_move,
    below_prefix,
    check_deletable,
    check_name_free,
    check_quota,
    delete_conflict,
    group_named,
    moment,
    paged,
    path_of,
    unique_id,
    user_named,
)
from wicketgate.control.identity.users import user_answer
from wicketgate.model import User, UserGroup, World


def _answer(world: World, group: UserGroup) -> dict[str, Any]:
    return {
        "Path": group.path,
        "GroupName": group.name,
        "GroupId": group.id,
        "Arn": arn_of(GROUP, world, group),
        "CreateDate": moment(group.created_at),
    }


def _members(world: World, group: UserGroup) -> list[User]:
    return [user for user in world.users if group.name in user.groups]


@operation("iam", asks=asks_create("group", "GroupName"))
def create_group(call: Call, quotas: IamQuotas = IAM_QUOTAS) -> Outcome:
    """A group without users. Raises EntityAlreadyExists, LimitExceeded."""
    name = call.parameters["GroupName"]
    check_name_free(GROUP, call.world, name)
    check_quota(len(call.world.user_groups), quotas.groups, "GroupsPerAccount")
    group = UserGroup(name=name, id=unique_id(call, "AGPA"), path=path_of(call), created_at=call.now)
    return Outcome({"Group": _answer(call.world, group)}, call.change(group))


@operation("iam", asks=asks_about(GROUP))
def get_group(call: Call) -> Outcome:
    """A group and its users, by name."""
    group = group_named(call.world, call.parameters["GroupName"])
    shown, more = paged(call, _members(call.world, group), lambda user: user.name)
    users = [user_answer(call.world, user) for user in shown]
    return Outcome({"Group": _answer(call.world, group), "Users": users, **more})


@operation("iam")
def list_groups(call: Call) -> Outcome:
    """The groups below PathPrefix, by name."""
    shown, more = paged(call, below_prefix(call, call.world.user_groups), lambda group: group.name)
    return Outcome({"Groups": [_answer(call.world, group) for group in shown], **more})


@operation("iam", asks=asks_about(USER))
def list_groups_for_user(call: Call) -> Outcome:
    """The groups that a user is in, by name."""
    user = user_named(call.world, call.parameters["UserName"])
    groups = [group for group in call.world.user_groups if group.name in user.groups]
    shown, more = paged(call, groups, lambda group: group.name)
    return Outcome({"Groups": [_answer(call.world, group) for group in shown], **more})


@operation("iam", asks=asks_move(GROUP))
def update_group(call: Call) -> Outcome:
    """A new name, a new path, or both; its users stay in it. Raises EntityAlreadyExists."""
    group = group_named(call.world, call.parameters["GroupName"])
    name = call.parameters.get("NewGroupName") or group.name
    check_name_free(GROUP, call.world, name, but=group.name)
    moved = msgspec.structs.replace(group, name=name, path=call.parameters.get("NewPath") or group.path)
    if name == group.name:
        return Outcome({}, call.change(moved))
    users = [
        msgspec.structs.replace(user, groups=tuple(name if one == group.name else one for one in user.groups))
        for user in _members(call.world, group)
    ]
    return Outcome({}, call.change(moved, *users, deletes=[("user-group", group.name)]))


@operation("iam", asks=asks_about(GROUP))
def delete_group(call: Call) -> Outcome:
    """Ends a group. Raises DeleteConflict while it has users or policies."""
    group = group_named(call.world, call.parameters["GroupName"])
    if _members(call.world, group):
        raise delete_conflict("Cannot delete entity, must remove users from group first.")
    check_deletable(group)
    return Outcome({}, call.change(deletes=[("user-group", group.name)]))


@operation("iam", asks=asks_about(GROUP))
def add_user_to_group(call: Call, quotas: IamQuotas = IAM_QUOTAS) -> Outcome:
    """Puts a user into a group; no change if it is there. Raises LimitExceeded for too many groups."""
    user = user_named(call.world, call.parameters["UserName"])
    group = group_named(call.world, call.parameters["GroupName"])
    if group.name in user.groups:
        return Outcome()
    check_quota(len(user.groups), quotas.groups_per_user, "GroupsPerUser")
    return Outcome({}, call.change(msgspec.structs.replace(user, groups=(*user.groups, group.name))))


@operation("iam", asks=asks_about(GROUP))
def remove_user_from_group(call: Call) -> Outcome:
    """Takes a user out of a group; no change if it is not in it."""
    user = user_named(call.world, call.parameters["UserName"])
    group = group_named(call.world, call.parameters["GroupName"])
    if group.name not in user.groups:
        return Outcome()
    left = tuple(name for name in user.groups if name != group.name)
    return Outcome({}, call.change(msgspec.structs.replace(user, groups=left)))
