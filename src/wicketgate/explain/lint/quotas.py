"""Findings about quotas that are nearly reached, and about prefix lists that take more of them than they need."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from wicketgate.control.rule_quotas import effective_rules, fullest
from wicketgate.explain.answer import Say
from wicketgate.explain.lint.finding import Facts, Finding, Fix
from wicketgate.model import Change, PrefixList, World

NEAR: Final = 0.8
"""The part of a quota from which on it is nearly reached."""
ROOM: Final = 10
"""Entries that a prefix list may have room for without being oversized."""


def quotas(world: World, facts: Facts) -> Iterator[Finding]:
    """WG040 to WG045."""
    yield from _groups(world, facts)
    yield from _interfaces(world, facts)
    yield from _endpoints(world, facts)
    yield from _tunnels(world, facts)
    for one in world.prefix_lists:
        yield from _prefix_list(world, one)


def _near(used: int, limit: int) -> bool:
    """A quota of one is for having one, so it is never nearly reached."""
    return limit > 1 and used >= NEAR * limit


def _finding(kind: str, resource: str, used: int, limit: int, **facts: str) -> Finding:
    return Finding(kind=kind, resource=resource, say=Say(kind, {"used": str(used), "limit": str(limit), **facts}))


def _groups(world: World, facts: Facts) -> Iterator[Finding]:
    limit = facts.quotas.rules_per_group
    for group in world.groups:
        if _near(used := fullest(world, group), limit):
            yield _finding("WG040", group.id, used, limit, group=group.id, name=group.name)


def _interfaces(world: World, facts: Facts) -> Iterator[Finding]:
    most, rules = facts.quotas.groups_per_interface, facts.quotas.rules_per_interface
    known: dict[tuple[str, ...], int] = {}
    for eni in world.interfaces:
        groups = tuple(dict.fromkeys(eni.group_ids))
        if groups not in known:
            known[groups] = effective_rules(world, filter(None, map(world.group, groups)))
        if _near(known[groups], rules):
            yield _finding("WG041", eni.id, known[groups], rules, interface=eni.id)
        if _near(len(groups), most):
            yield _finding("WG042", eni.id, len(groups), most, interface=eni.id)


def _endpoints(world: World, facts: Facts) -> Iterator[Finding]:
    quota = facts.endpoint_quotas
    by_vpc: dict[str, int] = {}
    by_subnet: dict[str, int] = {}
    for one in world.endpoints:
        vpc_id = world.vpc_of_subnet(one.subnet_id).id
        by_vpc[vpc_id] = by_vpc.get(vpc_id, 0) + 1
        by_subnet[one.subnet_id] = by_subnet.get(one.subnet_id, 0) + 1
    counted = [(world.region, len(world.endpoints), quota.endpoints_per_region)]
    counted += [(place, used, quota.endpoints_per_vpc) for place, used in by_vpc.items()]
    counted += [(place, used, quota.endpoints_per_subnet) for place, used in by_subnet.items()]
    for place, used, limit in counted:
        if _near(used, limit):
            yield _finding("WG043", place, used, limit, place=place)


def _tunnels(world: World, facts: Facts) -> Iterator[Finding]:
    limit = world.settings.max_tunnels_per_endpoint
    for endpoint_id, used in (facts.tunnels or {}).items():
        if _near(used, limit):
            yield _finding("WG044", endpoint_id, used, limit, endpoint=endpoint_id)


def _prefix_list(world: World, one: PrefixList) -> Iterator[Finding]:
    """Every rule that names it counts for its MaxEntries (VPC User Guide, managed prefix lists)."""
    entries = len(one.entries)
    fitting = max(1, entries + entries // 4)
    if one.max_entries < 2 * fitting or one.max_entries - entries < ROOM or not world.groups_naming(one.id):
        return
    which = ("--prefix-list-id", one.id, "--max-entries", str(fitting))
    fix = Fix(
        commands=(("aws", "ec2", "modify-managed-prefix-list", *which),),
        change=Change(puts=(msgspec.structs.replace(one, max_entries=fitting),)),
    )
    found = _finding("WG045", one.id, entries, one.max_entries, list=one.id, name=one.name, fitting=str(fitting))
    yield msgspec.structs.replace(found, fix=fix)
