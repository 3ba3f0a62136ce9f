"""Managed prefix lists: create, modify, restore, delete. (Reading them: `prefix_list_answers`.)

What AWS does in the background is done here when the call is answered, so no list is ever seen `in-progress`. Rules
that name a list follow its present version. Only CreateManagedPrefixList takes a ClientToken.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from msgspec.structs import replace

from wicketgate.control import resources
from wicketgate.control.call import Ask, Call, Outcome, operation
from wicketgate.control.common import AWS_QUOTAS, Quotas, check_id, ec2_context, request_tags, tag_list, tags_from
from wicketgate.control.prefix_list_entries import (
    MAX_ENTRIES,
    changed,
    check_size,
    entries_at,
    in_order,
    next_version,
    outlived,
    requested,
)
from wicketgate.control.rule_quotas import can_take
from wicketgate.model import ApiError, PrefixList, SecurityGroup, World, apply_change

PREFIX_LIST: Final = "prefix-list"
MAX_NAME: Final = 255
"""Characters of a list's name (EC2 API Reference, CreateManagedPrefixList)."""
MAX_PER_CALL: Final = 100
"""Entries that one call may add, and that it may remove."""
RESERVED: Final = ("com.amazonaws.", "com.amazon.", "com.aws.")
"""What names may not begin with, as AWS's refusal lists it."""
MAX_NAMED: Final = 10
"""Resources that the state message of a failed resize names (EC2 API Reference, ModifyManagedPrefixList)."""


# -- look-ups and answers, also for reading ----------------------------------------------------------------------------


def existing_prefix_list(world: World, prefix_list_id: str) -> PrefixList:
    """The list with this id. Raises InvalidPrefixListID.NotFound, or InvalidPrefixListId.Malformed for no id at all."""
    found = world.prefix_list(prefix_list_id)
    if found is None:
        check_id("pl", prefix_list_id, "InvalidPrefixListId.Malformed")
        raise ApiError("InvalidPrefixListID.NotFound", f"The prefix list ({prefix_list_id}) does not exist.")
    return found


def groups_with(world: World, prefix_list_id: str) -> list[SecurityGroup]:
    """The groups with a rule that names a list."""
    return list(world.groups_naming(prefix_list_id))


def list_item(call: Call, prefix_list: PrefixList) -> dict[str, Any]:
    """A list as a ManagedPrefixList of the API."""
    item: dict[str, Any] = {
        "PrefixListId": prefix_list.id,
        "AddressFamily": prefix_list.address_family,
        "State": prefix_list.state,
        "PrefixListArn": call.arn(f"{PREFIX_LIST}/{prefix_list.id}"),
        "PrefixListName": prefix_list.name,
        "MaxEntries": prefix_list.max_entries,
        "Version": prefix_list.version,
        "Tags": tag_list(prefix_list.tags),
        "OwnerId": call.world.account_id,
    }
    return item | ({"StateMessage": prefix_list.state_message} if prefix_list.state_message else {})


# -- what IAM is asked -------------------------------------------------------------------------------------------------


def ask_prefix_list(call: Call) -> Sequence[Ask]:
    """The question for an action on one list (Service Authorization Reference, prefix-list), existing or not."""
    prefix_list_id = call.parameters["PrefixListId"]
    there = call.world.prefix_list(prefix_list_id)
    context = ec2_context(call, there.tags if there is not None else None)
    return (Ask(f"ec2:{call.action}", call.arn(f"{PREFIX_LIST}/{prefix_list_id}"), context),)


def _ask_create(call: Call) -> Sequence[Ask]:
    context = ec2_context(call) | request_tags(call, PREFIX_LIST)
    made = Ask("ec2:CreateManagedPrefixList", call.arn(f"{PREFIX_LIST}/*"), context)
    return (made, *resources.about_tagging(call, PREFIX_LIST))


# -- create ------------------------------------------------------------------------------------------------------------


@operation("ec2", asks=_ask_create)
def create_managed_prefix_list(call: Call, quotas: Quotas = AWS_QUOTAS) -> Outcome:
    """A list of one address family for up to MaxEntries entries, in its version 1. Names need not be unique.

    Raises InvalidParameterValue, PrefixListMaxEntriesExceeded, PrefixListLimitExceeded.
    """
    asked = call.parameters
    name = _checked_name(asked["PrefixListName"])
    family = asked["AddressFamily"]
    if family not in ("IPv4", "IPv6"):
        raise _bad(f"Value ({family}) for parameter addressFamily is invalid. Valid values are IPv4 and IPv6.")
    max_entries = _checked_size(asked["MaxEntries"])
    if len(asked.get("Entries") or ()) > MAX_PER_CALL:
        raise _bad(f"The number of entries per request cannot exceeds limit ({MAX_PER_CALL}).")  # AWS's words
    entries = requested(asked.get("Entries") or (), family)
    check_size(len(entries), max_entries)
    tags = tags_from(asked, PREFIX_LIST)
    if len(call.world.prefix_lists) >= quotas.prefix_lists_per_region:
        raise ApiError("PrefixListLimitExceeded", "The maximum number of prefix lists has been reached.")
    made = PrefixList(
        id=call.new_id("pl"),
        name=name,
        address_family=family,
        max_entries=max_entries,
        entries=in_order(entries.values()),
        tags=tags,
    )
    return Outcome({"PrefixList": list_item(call, made)}, call.change(made))


def _checked_name(name: str) -> str:
    if not name:
        raise ApiError("MissingParameter", "The request must contain the parameter PrefixListName")
    if len(name) > MAX_NAME:
        raise _bad(f"The prefix list name exceeds {MAX_NAME} characters: it has {len(name)}.")
    if name.startswith(RESERVED):
        raise _bad(f"The prefix list name cannot begin with ({', '.join(RESERVED)}).")
    return name


def _checked_size(max_entries: int) -> int:
    if not 1 <= max_entries <= MAX_ENTRIES:
        raise _bad(f"Must specify a max size between 1 and {MAX_ENTRIES}")
    return max_entries


def _bad(message: str) -> ApiError:
    return ApiError("InvalidParameterValue", message)


# -- modify ------------------------------------------------------------------------------------------------------------


@operation("ec2", asks=ask_prefix_list)
def modify_managed_prefix_list(call: Call, quotas: Quotas = AWS_QUOTAS) -> Outcome:
    """Change a list's name, and either its entries, which makes a new version, or its size.

    A size that a referencing group cannot take leaves the list as it was, in the state modify-failed. Raises
    PrefixListVersionMismatch, InvalidParameterCombination, and as `changed` and `check_size` do.
    """
    asked = call.parameters
    prefix_list = existing_prefix_list(call.world, asked["PrefixListId"])
    resources.refuse_parameters(asked, ("IpamPrefixListResolverSyncEnabled",), call.action)
    entries = asked.get("AddEntries") or asked.get("RemoveEntries")
    if entries and asked.get("MaxEntries") is not None:
        raise ApiError(
            "InvalidParameterCombination",
            "You cannot modify the entries and the maximum entries for the prefix list in the same request.",
        )
    _check_version(prefix_list, asked.get("CurrentVersion"))
    if not entries and asked.get("MaxEntries") is None and asked.get("PrefixListName") is None:
        raise ApiError("InvalidRequest", "The request received was invalid.")
    name = prefix_list.name if asked.get("PrefixListName") is None else _checked_name(asked["PrefixListName"])
    named = replace(prefix_list, name=name, state="modify-complete", state_message="")
    if entries:
        return _with_entries(call, named)
    if asked.get("MaxEntries") is None:
        return Outcome({"PrefixList": list_item(call, named)}, call.change(named))
    new = replace(named, max_entries=_checked_size(asked["MaxEntries"]))
    check_size(len(new.entries), new.max_entries)
    overfull = _overfull(call, new, quotas) if new.max_entries > prefix_list.max_entries else []
    if overfull:
        message = f"The following resources do not support the new maximum size: {', '.join(overfull[:MAX_NAMED])}"
        new = replace(prefix_list, state="modify-failed", state_message=message)
    return Outcome({"PrefixList": list_item(call, new)}, call.change(new))


def _check_version(prefix_list: PrefixList, version: int | None) -> None:
    if version is None:
        return
    if version < 1:
        raise _bad("The specified value for version is not valid. The value must be greater than (1).")
    if version != prefix_list.version:
        raise ApiError("PrefixListVersionMismatch", "The prefix list has the incorrect version number.")


def _with_entries(call: Call, prefix_list: PrefixList) -> Outcome:
    given = [call.parameters.get(name) or () for name in ("AddEntries", "RemoveEntries")]
    if max(map(len, given)) > MAX_PER_CALL:
        raise _bad(f"Request cannot contain more than {MAX_PER_CALL} entry additions or removals.")
    add, remove = (requested(one, prefix_list.address_family) for one in given)
    entries = changed(prefix_list.entries, add, remove)
    check_size(len(entries), prefix_list.max_entries)
    new, step = next_version(prefix_list, entries, "modify-complete")
    change = call.change(new, step, deletes=outlived(call.world, new))
    return Outcome({"PrefixList": list_item(call, new)}, change)


def _overfull(call: Call, prefix_list: PrefixList, quotas: Quotas) -> list[str]:
    """The groups that would have too many rules if the list were as given."""
    world = apply_change(call.world, call.change(prefix_list))
    return [group.id for group in groups_with(world, prefix_list.id) if not can_take(world, group, quotas)]


# -- restore and delete ------------------------------------------------------------------------------------------------


@operation("ec2", asks=ask_prefix_list)
def restore_managed_prefix_list_version(call: Call) -> Outcome:
    """Make a new version with the entries of an earlier one.

    Raises PrefixListVersionMismatch, InvalidParameterValue for a version that is not there, and
    PrefixListMaxEntriesExceeded when the list has become too small for it.
    """
    prefix_list = existing_prefix_list(call.world, call.parameters["PrefixListId"])
    _check_version(prefix_list, call.parameters["CurrentVersion"])
    entries = entries_at(call.world, prefix_list, call.parameters["PreviousVersion"])
    check_size(len(entries), prefix_list.max_entries)
    new, step = next_version(prefix_list, entries, "restore-complete")
    change = call.change(new, step, deletes=outlived(call.world, new))
    return Outcome({"PrefixList": list_item(call, new)}, change)


@operation("ec2", asks=ask_prefix_list)
def delete_managed_prefix_list(call: Call) -> Outcome:
    """Remove a list, with its versions, that no rule names. Raises DependencyViolation."""
    prefix_list = existing_prefix_list(call.world, call.parameters["PrefixListId"])
    if groups_with(call.world, prefix_list.id):
        raise ApiError("DependencyViolation", f"resource {prefix_list.id} has a dependent object")
    steps = [step.id for step in call.world.prefix_list_versions if step.prefix_list_id == prefix_list.id]
    deletes = [(PREFIX_LIST, prefix_list.id), *(("prefix-list-version", step_id) for step_id in steps)]
    gone = replace(prefix_list, state="delete-complete", state_message="")
    return Outcome({"PrefixList": list_item(call, gone)}, call.change(deletes=deletes))
