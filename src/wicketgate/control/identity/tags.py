"""Tags of users, roles and managed policies: TagUser, UntagUser, ListUserTags, and the same for Role and Policy.

Keys of users and roles are the same in any case, those of policies are not (IAM User Guide, id_tags).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec

from wicketgate.control.call import Ask, Call, Outcome, operation
from wicketgate.control.common import tag_list
from wicketgate.control.identity.common import (
    MAX_TAGS,
    ROLE,
    USER,
    ask_policy,
    asks_about,
    given_tags,
    own_policy_at,
    paged,
    policy_at,
    role_named,
    tag_key,
    user_named,
)
from wicketgate.model import ApiError

Find = Callable[[Call], Any]
"""The resource that a call names; raises NoSuchEntity."""


def tagged(before: Mapping[str, str], given: Mapping[str, str], *, ignore_case: bool) -> dict[str, str]:
    """The tags after new ones were given; a key that is known in another case keeps its case."""
    known = {key.lower(): key for key in before} if ignore_case else {}
    return {**before, **{known.get(key.lower(), key): value for key, value in given.items()}}


def tag(find: Find, ignore_case: bool, call: Call) -> Outcome:
    """Adds tags and overwrites known ones. Raises LimitExceeded for more than 50, InvalidInput."""
    resource = find(call)
    tags = tagged(resource.tags, given_tags(call, ignore_case=ignore_case), ignore_case=ignore_case)
    if len(tags) > MAX_TAGS:
        raise ApiError("LimitExceeded", "The number of tags has reached the maximum limit.", 409)
    return Outcome({}, call.change(msgspec.structs.replace(resource, tags=tags)))


def untag(find: Find, ignore_case: bool, call: Call) -> Outcome:
    """Takes tags away; keys that are unknown change nothing."""
    resource = find(call)
    gone = {key.lower() if ignore_case else key for key in call.parameters["TagKeys"]}
    left = {key: value for key, value in resource.tags.items() if (key.lower() if ignore_case else key) not in gone}
    return Outcome({}, call.change(msgspec.structs.replace(resource, tags=left)))


def list_tags(find: Find, call: Call) -> Outcome:
    """The tags, by key."""
    tags = find(call).tags
    shown, more = paged(call, tags, tag_key)
    return Outcome({"Tags": tag_list({key: tags[key] for key in shown}), **more})


def _offer(title: str, shown: Find, changed: Find, ignore_case: bool, asks: Callable[[Call], Sequence[Ask]]) -> None:
    operation("iam", asks, f"Tag{title}")(partial(tag, changed, ignore_case))
    operation("iam", asks, f"Untag{title}")(partial(untag, changed, ignore_case))
    operation("iam", asks, f"List{title}Tags")(partial(list_tags, shown))


def _user(call: Call) -> Any:
    return user_named(call.world, call.parameters["UserName"])


def _role(call: Call) -> Any:
    return role_named(call.world, call.parameters["RoleName"])


def _policy(call: Call) -> Any:
    return policy_at(call.world, call.parameters["PolicyArn"])


def _own_policy(call: Call) -> Any:
    return own_policy_at(call.world, call.parameters["PolicyArn"])


_offer("User", _user, _user, True, asks_about(USER))
_offer("Role", _role, _role, True, asks_about(ROLE))
_offer("Policy", _policy, _own_policy, False, ask_policy)
