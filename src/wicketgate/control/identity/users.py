"""IAM users: create, get, list, update, delete. (Keys, policies, groups and tags: their own modules.)"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from wicketgate.control.call import Ask, Call, Outcome, operation
from wicketgate.control.common import tag_list
from wicketgate.control.identity.common import (
    IAM_QUOTAS,
    USER,
    IamQuotas,
    arn_of,
    ask_identity,
    asks_about,
    asks_create,
    asks_move,
    below_prefix,
    check_deletable,
    check_name_free,
    check_quota,
    delete_conflict,
    given_tags,
    iam_arn,
    moment,
    paged,
    path_of,
    refuse_boundary,
    unique_id,
    user_named,
)
from wicketgate.model import AccessKey, ApiError, User, World


def caller_type(call: Call) -> str:
    """Root, IAMUser or AssumedRole."""
    principal = call.caller.principal
    if principal is not None:
        return principal.type
    return "IAMUser" if call.caller.user_name else "Root"


def own_or_named(call: Call) -> str:
    """The user that a call is about: the one it names, or the caller; empty for root.

    Raises ValidationError for a session of a role that names none.
    """
    name: str = call.parameters.get("UserName") or call.caller.user_name
    if not name and caller_type(call) == "AssumedRole":
        raise ApiError("ValidationError", "Must specify userName when calling with non-User credentials")
    return name


def ask_own_or_named(call: Call) -> Sequence[Ask]:
    """Asks about the user that the call is about."""
    name = call.parameters.get("UserName") or call.caller.user_name
    return (ask_identity(USER, call, name) if name else Ask(f"iam:{call.action}", iam_arn(call.world, "root")),)


def keys_of(world: World, user_name: str) -> list[AccessKey]:
    """The long-term access keys of a user; of root for the empty name."""
    return [key for key in world.access_keys if key.user_name == user_name and not key.role_name]


def user_answer(world: World, user: User, *, tags: bool = False) -> dict[str, Any]:
    """A user as answers show it; tags only where AWS shows them and there are any."""
    answer: dict[str, Any] = {
        "Path": user.path,
        "UserName": user.name,
        "UserId": user.id,
        "Arn": arn_of(USER, world, user),
        "CreateDate": moment(user.created_at),
    }
    return answer | {"Tags": tag_list(user.tags)} if tags and user.tags else answer


@operation("iam", asks=asks_create("user", "UserName", "TagUser"))
def create_user(call: Call, quotas: IamQuotas = IAM_QUOTAS) -> Outcome:
    """A user without any permission. Raises EntityAlreadyExists, LimitExceeded, InvalidInput for tags."""
    name = call.parameters["UserName"]
    refuse_boundary(call)
    check_name_free(USER, call.world, name)
    check_quota(len(call.world.users), quotas.users, "UsersPerAccount")
    user = User(name=name, id=unique_id(call, "AIDA"), path=path_of(call), created_at=call.now, tags=given_tags(call))
    return Outcome({"User": user_answer(call.world, user, tags=True)}, call.change(user))


@operation("iam", asks=ask_own_or_named)
def get_user(call: Call) -> Outcome:
    """A user, or without UserName the caller. Root has neither path nor name."""
    name = own_or_named(call)
    if name:
        return Outcome({"User": user_answer(call.world, user_named(call.world, name), tags=True)})
    key = call.world.access_key(call.caller.access_key_id)
    root = {
        "UserId": call.world.account_id,
        "Arn": iam_arn(call.world, "root"),
        "CreateDate": moment(key.created_at if key is not None else 0.0),
    }
    return Outcome({"User": root})


@operation("iam")
def list_users(call: Call) -> Outcome:
    """The users below PathPrefix, by name."""
    shown, more = paged(call, below_prefix(call, call.world.users), lambda user: user.name)
    return Outcome({"Users": [user_answer(call.world, user) for user in shown], **more})


@operation("iam", asks=asks_move(USER))
def update_user(call: Call) -> Outcome:
    """A new name, a new path, or both. Its access keys stay its own. Raises EntityAlreadyExists."""
    user = user_named(call.world, call.parameters["UserName"])
    name = call.parameters.get("NewUserName") or user.name
    check_name_free(USER, call.world, name, but=user.name)
    moved = msgspec.structs.replace(user, name=name, path=call.parameters.get("NewPath") or user.path)
    if name == user.name:
        return Outcome({}, call.change(moved))
    keys = [msgspec.structs.replace(key, user_name=name) for key in keys_of(call.world, user.name)]
    return Outcome({}, call.change(moved, *keys, deletes=[("user", user.name)]))


@operation("iam", asks=asks_about(USER))
def delete_user(call: Call) -> Outcome:
    """Ends a user. Raises DeleteConflict while it has policies, access keys or groups."""
    user = user_named(call.world, call.parameters["UserName"])
    check_deletable(user)
    if keys_of(call.world, user.name):
        raise delete_conflict("Cannot delete entity, must delete access keys first.")
    if user.groups:
        raise delete_conflict("Cannot delete entity, must remove users from group first.")
    return Outcome({}, call.change(deletes=[("user", user.name)]))
