"""What IAM's actions share: the kinds of identities, look-ups, ids, pages, policy documents, tags and IAM questions."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, NoReturn, TypeVar
from urllib.parse import quote

import msgspec

from wicketgate import iam
from wicketgate.control import common
from wicketgate.control.call import Ask, Call
from wicketgate.model import ApiError, ManagedPolicy, Role, User, UserGroup, World

T = TypeVar("T")
Identity = User | UserGroup | Role

PAGE: Final = 100
"""MaxItems when a call gives none, and the largest (IAM API Reference, e.g. ListUsers)."""
MAX_PAGE: Final = 1000
MAX_TAGS: Final = 50


class IamQuotas(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of IAM, with AWS's defaults (IAM User Guide, reference_iam-quotas). Sizes are characters that are no
    white space."""

    users: int = 5000
    groups: int = 300
    roles: int = 1000
    policies: int = 1500
    groups_per_user: int = 10
    access_keys_per_user: int = 2
    attached_policies: int = 10
    versions_per_policy: int = 5
    managed_policy_size: int = 6144
    trust_policy_size: int = 2048
    user_inline_size: int = 2048
    group_inline_size: int = 5120
    role_inline_size: int = 10240
    """Of all inline policies of one identity."""

    def inline_size(self, kind: str) -> int:
        """The same by kind: `user`, `group`, `role`."""
        return {"user": self.user_inline_size, "group": self.group_inline_size, "role": self.role_inline_size}[kind]


IAM_QUOTAS: Final = IamQuotas()


# -- identities --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """One of the three kinds of identities that carry policies."""

    word: str
    """`user`, as messages and ARNs have it."""
    kind: str
    """As Changes have it."""
    listing: Callable[[World], Sequence[Identity]]
    find: Callable[[World, str], Identity | None]

    @property
    def title(self) -> str:
        """`User`, as the names of actions and parameters have it."""
        return self.word.capitalize()

    @property
    def parameter(self) -> str:
        """The parameter that names one: `UserName`."""
        return f"{self.title}Name"


USER: Final = Kind("user", "user", lambda world: world.users, World.user)
GROUP: Final = Kind("group", "user-group", lambda world: world.user_groups, World.user_group)
ROLE: Final = Kind("role", "role", lambda world: world.roles, World.role)
KINDS: Final = (USER, GROUP, ROLE)


def named(kind: Kind, world: World, name: str) -> Any:
    """The identity with this name. Raises NoSuchEntity."""
    found = kind.find(world, name)
    if found is None:
        raise no_such(f"The {kind.word} with name {name} cannot be found.")
    return found


def user_named(world: World, name: str) -> User:
    """The user with this name. Raises NoSuchEntity."""
    user: User = named(USER, world, name)
    return user


def group_named(world: World, name: str) -> UserGroup:
    """The group with this name. Raises NoSuchEntity."""
    group: UserGroup = named(GROUP, world, name)
    return group


def role_named(world: World, name: str) -> Role:
    """The role with this name. Raises NoSuchEntity."""
    role: Role = named(ROLE, world, name)
    return role


def check_name_free(kind: Kind, world: World, name: str, but: str = "") -> None:
    """Raise EntityAlreadyExists if another identity of the kind (`but` excepted) has this name, in any case."""
    if any(one.name.lower() == name.lower() and one.name != but for one in kind.listing(world)):
        raise ApiError("EntityAlreadyExists", f"{kind.title} with name {name} already exists.", 409)


def check_deletable(identity: Identity) -> None:
    """Raise DeleteConflict while an identity has policies."""
    if identity.attached:
        raise delete_conflict("Cannot delete entity, must detach all policies first.")
    if identity.policies:
        raise delete_conflict("Cannot delete entity, must delete policies first.")


def path_of(call: Call) -> str:
    """The Path of something to be made."""
    return call.parameters.get("Path") or "/"


def refuse_boundary(call: Call) -> None:
    """Permissions boundaries are not offered: one that is not enforced must not look as if it were."""
    if call.parameters.get("PermissionsBoundary"):
        raise ApiError(
            "UnsupportedOperation",
            f"The parameter PermissionsBoundary of {call.action} is not offered here. Leave it out.",
        )


# -- errors ------------------------------------------------------------------------------------------------------------


def no_such(message: str) -> ApiError:
    """NoSuchEntity."""
    return ApiError("NoSuchEntity", message, 404)


def delete_conflict(message: str) -> ApiError:
    """DeleteConflict."""
    return ApiError("DeleteConflict", message, 409)


def check_quota(count: int, quota: int, name: str) -> None:
    """Raise LimitExceeded when one more than `count` would be over the quota."""
    if count >= quota:
        raise ApiError("LimitExceeded", f"Cannot exceed quota for {name}: {quota}", 409)


def malformed(message: str) -> ApiError:
    """MalformedPolicyDocument."""
    return ApiError("MalformedPolicyDocument", message, 400)


# -- names, ids, times -------------------------------------------------------------------------------------------------


def iam_arn(world: World, resource: str) -> str:
    """ARN of an IAM resource of this account, e.g. of `user/alice`."""
    return f"arn:{world.partition}:iam::{world.account_id}:{resource}"


def arn_of(kind: Kind, world: World, identity: Identity) -> str:
    """ARN of an identity."""
    return iam_arn(world, f"{kind.word}{identity.path}{identity.name}")


def unique_id(call: Call, prefix: str, length: int = 17) -> str:
    """An id such as AIDA and 17 characters of base32's alphabet (IAM User Guide, reference_identifiers)."""
    return prefix + base64.b32encode(call.random(20)).decode()[:length]


def moment(seconds: float) -> datetime:
    """A time as answers carry it."""
    return datetime.fromtimestamp(seconds, UTC)


# -- pages -------------------------------------------------------------------------------------------------------------


def paged(call: Call, items: Iterable[T], key: Callable[[T], str]) -> tuple[list[T], dict[str, Any]]:
    """One page of the items in the order of their keys, and IsTruncated and Marker of the answer.

    Keys are unique and at most 200 bytes, for a Marker has at most 320 characters. Raises ValidationError for a Marker
    that is not ours.
    """
    try:
        shown, following = common.page(
            list(items),
            call.parameters.get("MaxItems") or PAGE,
            call.parameters.get("Marker"),
            minimum=1,
            maximum=MAX_PAGE,
            key=key,
            scope=call.action,
        )
    except ApiError as error:
        if error.code != "InvalidNextToken":
            raise
        raise ApiError(
            "ValidationError", "Invalid Marker. Use the Marker of an earlier answer to the same action."
        ) from error
    if following is None:
        return shown, {"IsTruncated": False}
    return shown, {"IsTruncated": True, "Marker": following}


def below_prefix(call: Call, items: Iterable[T]) -> list[T]:
    """The items whose path starts with the call's PathPrefix."""
    prefix = call.parameters.get("PathPrefix") or "/"
    return [one for one in items if one.path.startswith(prefix)]  # type: ignore[attr-defined]


# -- policy documents --------------------------------------------------------------------------------------------------


def document_of(name: str, text: str) -> dict[str, Any]:
    """An identity-based policy's document from its text, checked. Raises MalformedPolicyDocument."""
    document = parsed(text, "Syntax errors in policy.")
    try:
        iam.read_document(name, document)
    except iam.MalformedPolicy as error:
        raise malformed(str(error)) from error
    return document


def parsed(text: str, otherwise: str) -> dict[str, Any]:
    """A document's JSON object. Raises MalformedPolicyDocument with the text `otherwise`."""
    try:
        return msgspec.json.decode(text.encode(), type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise malformed(otherwise) from error


def written(document: Mapping[str, Any]) -> str:
    """A document as answers carry it: JSON, percent-encoded (RFC 3986)."""
    return quote(msgspec.json.encode(document).decode(), safe="")


def size_of(document: Mapping[str, Any] | str) -> int:
    """Characters that count for the quotas: those that are no white space."""
    text = document if isinstance(document, str) else msgspec.json.encode(document).decode()
    return len("".join(text.split()))


# -- tags --------------------------------------------------------------------------------------------------------------

TAGS_IGNORE_CASE: Final = "Duplicate tag keys found. Please note that Tag keys are case insensitive."


def given_tags(call: Call, *, ignore_case: bool = True) -> dict[str, str]:
    """The call's Tags. Raises InvalidInput for a key that comes twice or is reserved for AWS."""
    tags = {tag["Key"]: tag.get("Value") or "" for tag in call.parameters.get("Tags") or ()}
    keys = [tag["Key"].lower() if ignore_case else tag["Key"] for tag in call.parameters.get("Tags") or ()]
    if len(set(keys)) < len(keys):
        raise ApiError("InvalidInput", TAGS_IGNORE_CASE if ignore_case else "Duplicate tag keys found.")
    if any(key.lower().startswith("aws:") for key in keys):
        raise ApiError("InvalidInput", "Caller is an end user and not allowed to mutate system tags")
    return tags


def tag_key(key: str) -> str:
    """Where a tag stands in pages: by the beginning of its key, shortened so that a Marker can carry it."""
    return f"{key[:40]}\n{hashlib.sha256(key.encode()).hexdigest()[:16]}"


# -- what IAM is asked -------------------------------------------------------------------------------------------------


def tag_context(tags: Mapping[str, str]) -> dict[str, Sequence[str]]:
    """`aws:ResourceTag/...` and `iam:ResourceTag/...` of an existing resource."""
    return {f"{prefix}:ResourceTag/{key}": (value,) for prefix in ("aws", "iam") for key, value in tags.items()}


def request_context(call: Call) -> dict[str, Sequence[str]]:
    """`aws:RequestTag/...` and `aws:TagKeys` of the call's Tags or TagKeys; nothing is validated yet."""
    tags = {tag["Key"]: tag.get("Value") or "" for tag in call.parameters.get("Tags") or () if tag.get("Key")}
    keys = (*tags, *(call.parameters.get("TagKeys") or ()))
    found: dict[str, Sequence[str]] = {f"aws:RequestTag/{key}": (value,) for key, value in tags.items()}
    return found | {"aws:TagKeys": keys} if keys else found


def ask_identity(kind: Kind, call: Call, name: str, **more: str) -> Ask:
    """The question for an action on an identity, existing or not: a refusal does not tell.

    Further condition keys by name without `iam:`, such as `PolicyARN`.
    """
    found = kind.find(call.world, name)
    arn = iam_arn(call.world, f"{kind.word}/{name}") if found is None else arn_of(kind, call.world, found)
    tags = getattr(found, "tags", {})
    extra = {f"iam:{key}": (value,) for key, value in more.items()}
    return Ask(f"iam:{call.action}", arn, {**tag_context(tags), **request_context(call), **extra})


def asks_about(kind: Kind) -> Callable[[Call], Sequence[Ask]]:
    """Asks about the identity that the call's UserName (GroupName, RoleName) names."""
    return lambda call: (ask_identity(kind, call, call.parameters[kind.parameter]),)


def asks_move(kind: Kind) -> Callable[[Call], Sequence[Ask]]:
    """Asks about an identity that gets another name or path: where it is and where it goes (IAM API, UpdateUser)."""

    def asks(call: Call) -> Sequence[Ask]:
        old = call.parameters[kind.parameter]
        before = ask_identity(kind, call, old)
        found = kind.find(call.world, old)
        name = call.parameters.get(f"New{kind.parameter}") or old
        path = call.parameters.get("NewPath") or (found.path if found is not None else "/")
        arn = iam_arn(call.world, f"{kind.word}{path}{name}")
        return (before,) if arn == before.resource else (before, Ask(before.action, arn, before.context))

    return asks


def asks_create(resource: str, parameter: str, tagging: str = "") -> Callable[[Call], Sequence[Ask]]:
    """Asks about something to be made, and, if the call gives it tags, whether the caller may tag (`iam:TagUser`)."""

    def asks(call: Call) -> Sequence[Ask]:
        arn = iam_arn(call.world, f"{resource}{path_of(call)}{call.parameters[parameter]}")
        context = request_context(call)
        create = Ask(f"iam:{call.action}", arn, context)
        return (create, Ask(f"iam:{tagging}", arn, context)) if tagging and call.parameters.get("Tags") else (create,)

    return asks


def ask_policy(call: Call) -> Sequence[Ask]:
    """Asks about the managed policy that the call's PolicyArn names."""
    arn = call.parameters["PolicyArn"]
    policy = call.world.managed_policy(arn)
    return (Ask(f"iam:{call.action}", arn, {**tag_context(policy.tags if policy else {}), **request_context(call)}),)


# -- managed policies --------------------------------------------------------------------------------------------------


def check_policy_arn(arn: str) -> None:
    """Raise ValidationError for what is no ARN."""
    if len(arn.split(":", 5)) != 6 or not arn.startswith("arn:"):
        raise ApiError("ValidationError", f"ARN {arn} is not valid.")


def policy_at(world: World, arn: str, otherwise: str = "Policy {arn} was not found.") -> ManagedPolicy:
    """The managed policy with this ARN. Raises NoSuchEntity with the text `otherwise`."""
    check_policy_arn(arn)
    policy = world.managed_policy(arn)
    if policy is None:
        raise no_such(otherwise.format(arn=arn))
    return policy


def own_policy_at(world: World, arn: str, otherwise: str = "Policy {arn} was not found.") -> ManagedPolicy:
    """The same for an action that changes it. Raises AccessDenied for one of AWS's."""
    policy = policy_at(world, arn, otherwise)
    if policy not in world.managed_policies:
        raise_outside()
    return policy


def raise_outside() -> NoReturn:
    """AWS managed policies are not the account's to change."""
    raise ApiError("AccessDenied", "Policy is outside your own account.", 403)
