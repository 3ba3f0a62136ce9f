"""Managed prefix lists: describe them, their entries, and what refers to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from wicketgate.control.call import Call, Outcome, operation
from wicketgate.control.common import TAG_GETTERS, check_filters, check_id, select
from wicketgate.control.prefix_list_entries import entries_at, place
from wicketgate.control.prefix_lists import ask_prefix_list, existing_prefix_list, groups_with, list_item
from wicketgate.control.resources import paged
from wicketgate.model import ApiError, PrefixList

Getter = Callable[[PrefixList], Any]


@operation("ec2")
def describe_managed_prefix_lists(call: Call) -> Outcome:
    """The lists of the account. There are none that AWS manages."""
    world, asked = call.world, call.parameters
    lists: Sequence[PrefixList] = world.prefix_lists
    if asked.get("PrefixListIds"):
        lists = [existing_prefix_list(world, one) for one in dict.fromkeys(asked["PrefixListIds"])]
    getters: dict[str, Getter] = {
        "owner-id": lambda one: world.account_id,
        "prefix-list-id": lambda one: one.id,
        "prefix-list-name": lambda one: one.name,
        **TAG_GETTERS,
    }
    chosen = select(lists, asked.get("Filters"), getters)
    shown, following = paged(call, chosen, lambda one: one.id, minimum=1, maximum=100)
    return Outcome({"PrefixLists": [list_item(call, one) for one in shown]} | following)


@operation("ec2")
def describe_prefix_lists(call: Call) -> Outcome:
    """The lists of AWS's services, which the older action is about: there are none.

    Raises InvalidPrefixListId.NotFound for every id, and InvalidPrefixListId.Malformed for what is no id at all.
    """
    for prefix_list_id in call.parameters.get("PrefixListIds") or ():
        check_id("pl", prefix_list_id, "InvalidPrefixListId.Malformed")
        raise ApiError("InvalidPrefixListId.NotFound", f"The prefix list ID '{prefix_list_id}' does not exist")
    check_filters(call.parameters.get("Filters"), ("prefix-list-id", "prefix-list-name"))
    nothing: list[str] = []
    shown, following = paged(call, nothing, lambda one: one)
    return Outcome({"PrefixLists": shown} | following)


@operation("ec2", asks=ask_prefix_list)
def get_managed_prefix_list_entries(call: Call) -> Outcome:
    """The entries of a list, in its present version or in TargetVersion, by address."""
    prefix_list = existing_prefix_list(call.world, call.parameters["PrefixListId"])
    version = call.parameters.get("TargetVersion")
    entries = entries_at(call.world, prefix_list, prefix_list.version if version is None else version)
    shown, following = paged(call, entries, place, minimum=1, maximum=100)
    items = [{"Cidr": one.cidr} | ({"Description": one.description} if one.description else {}) for one in shown]
    return Outcome({"Entries": items} | following)


@operation("ec2", asks=ask_prefix_list)
def get_managed_prefix_list_associations(call: Call) -> Outcome:
    """The security groups with a rule that names a list."""
    prefix_list = existing_prefix_list(call.world, call.parameters["PrefixListId"])
    groups = groups_with(call.world, prefix_list.id)
    shown, following = paged(call, groups, lambda group: group.id, maximum=255)
    items = [{"ResourceId": group.id, "ResourceOwner": call.world.account_id} for group in shown]
    return Outcome({"PrefixListAssociations": items} | following)
