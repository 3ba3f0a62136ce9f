"""From a World in which reading, model and kernel disagree to the smallest one in which they still do."""

import time
from collections.abc import Callable, Iterator

import msgspec

from wicketgate.model import World, WorldError

SECONDS = 40
"""How long to look for something smaller."""


def smallest(worlds, plan, disagree: Callable):
    """The smallest Worlds, one becoming the next, in which `disagree(worlds, plan)` still holds, found step by step."""
    deadline = time.monotonic() + SECONDS
    for fewer in (worlds[:1] * 2, worlds[:2], (worlds[0], *worlds[2:])):
        if len(fewer) > 1 and fewer != worlds and disagree(fewer, plan):
            worlds = fewer
            break
    found = True
    while found and time.monotonic() < deadline:
        found = False
        for less in _less(worlds[0], plan):
            fewer = tuple(less(one) for one in worlds)
            if fewer == worlds or not all(_is_whole(one, plan) for one in fewer):
                continue
            if time.monotonic() > deadline:
                break
            if disagree(fewer, plan):
                worlds, found = fewer, True
    return worlds[:1] if all(one == worlds[0] for one in worlds) else worlds


def _is_whole(world, plan):
    """Whether it is a World, and one that still has both ends of the flow."""
    if {plan.sender, plan.receiver} - {eni.link for eni in world.interfaces}:
        return False
    try:
        world.check()
    except WorldError:
        return False
    return True


def _less(world: World, plan) -> Iterator[Callable[[World], World]]:
    """Ways to take something away: machines first, which make each try cheaper, then rules by halves."""
    ends = (plan.sender, plan.receiver)
    for field in ("interfaces", "route_tables", "peerings", "endpoints", "prefix_lists", "groups"):
        for one in getattr(world, field):
            if field != "interfaces" or one.link not in ends:
                yield _without(field, one.id)
    ids = [one.id for group in world.groups for one in group.rules]
    for size in (len(ids) // 2, len(ids) // 4, len(ids) // 8, 1):
        if size:
            for start in range(0, len(ids), size):
                yield _without_rules(frozenset(ids[start : start + size]))
    for eni in world.interfaces:
        for group_id in eni.group_ids if len(eni.group_ids) > 1 else ():
            yield _without_group(eni.id, group_id)
    for prefix_list in world.prefix_lists:
        for entry in prefix_list.entries:
            yield _without_entry(prefix_list.id, entry.cidr)


def _without_rules(ids):
    def less(world):
        groups = (
            msgspec.structs.replace(group, rules=tuple(one for one in group.rules if one.id not in ids))
            for group in world.groups
        )
        return msgspec.structs.replace(world, groups=tuple(groups))

    return less


def _without(field, resource_id):
    def less(world):
        rest = {field: tuple(one for one in getattr(world, field) if one.id != resource_id)}
        if field == "interfaces":  # and whoever has it
            gone = {one.id for one in world.instances if one.interface_id == resource_id}
            rest["instances"] = tuple(one for one in world.instances if one.id not in gone)
            rest["interfaces"] = tuple(one for one in rest["interfaces"] if one.attached_to not in gone - {""})
            rest["endpoints"] = tuple(one for one in world.endpoints if one.interface_id != resource_id)
        return msgspec.structs.replace(world, **rest)

    return less


def _without_group(interface_id, group_id):
    def less(world):
        interfaces = (
            msgspec.structs.replace(eni, group_ids=tuple(one for one in eni.group_ids if one != group_id))
            if eni.id == interface_id
            else eni
            for eni in world.interfaces
        )
        return msgspec.structs.replace(world, interfaces=tuple(interfaces))

    return less


def _without_entry(list_id, cidr):
    def less(world):
        lists = (
            msgspec.structs.replace(one, entries=tuple(entry for entry in one.entries if entry.cidr != cidr))
            if one.id == list_id
            else one
            for one in world.prefix_lists
        )
        return msgspec.structs.replace(world, prefix_lists=tuple(lists))

    return less


def described(world, links):
    """A World in lines: what there is of it, and the rules of the groups of some links."""
    lines = []
    for eni in world.interfaces:
        loose = "" if eni.source_dest_check else ", no source/destination check"
        lines.append(f"  {eni.link}: {', '.join(eni.addresses)}; groups {', '.join(_names(world, eni))}{loose}")
    for endpoint in world.endpoints:
        lines.append(f"  {endpoint.id}: {endpoint.ip_address_type}, preserve_client_ip={endpoint.preserve_client_ip}")
    carried = {group_id for eni in world.interfaces if eni.link in links for group_id in eni.group_ids}
    for group in world.groups:
        if group.id in carried:
            lines += [f"  {group.name}: {_named(world, one)}" for one in group.rules]
    for one in world.prefix_lists:
        lines.append(f"  list {one.name} = {one.id}: {', '.join(entry.cidr for entry in one.entries)}")
    for table in world.route_tables:
        routes = ", ".join(f"{route.destination} by {route.peering_id}" for route in table.routes)
        lines.append(f"  {table.vpc_id} {table.subnet_ids or 'main'}: {routes or 'no routes'}")
    lines += [f"  {one.id}: {one.status}" for one in world.peerings]
    return "\n".join(lines)


def _names(world, eni):
    return [group.name for one in eni.group_ids if (group := world.group(one)) is not None]


def _named(world, one):
    text = str(one)
    for group in world.groups:
        text = text.replace(group.id, f"group {group.name}")
    return text
