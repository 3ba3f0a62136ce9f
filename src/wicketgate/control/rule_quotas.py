"""How many rules a group and an interface may have, and what a group's change does to the interfaces that carry it."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from wicketgate.control.common import Quotas
from wicketgate.model import ApiError, SecurityGroup, SecurityGroupRule, World


def rule_count(world: World, rules: Iterable[SecurityGroupRule]) -> int:
    """What rules of one direction count against the quota: group references, prefix lists by their MaxEntries, and the
    larger of IPv4 and IPv6 ranges.

    Each family has its quota, and references and lists stand in both, so the fuller family decides. (Counted so by AWS,
    as users of awslimitchecker found; of a list, VPC User Guide, "Managed prefix lists".)
    """
    ipv4 = ipv6 = both = 0
    for rule in rules:
        ipv4 += rule.cidr_ipv4 is not None
        ipv6 += rule.cidr_ipv6 is not None
        both += rule.referenced_group_id is not None
        prefix_list = world.prefix_list(rule.prefix_list_id) if rule.prefix_list_id is not None else None
        both += prefix_list.max_entries if prefix_list is not None else 0
    return both + max(ipv4, ipv6)


def fullest(world: World, group: SecurityGroup) -> int:
    """What the fuller direction of a group counts against the quota of rules per group."""
    return max(rule_count(world, group.inbound), rule_count(world, group.outbound))


def effective_rules(world: World, groups: Iterable[SecurityGroup]) -> int:
    """Rules that count on an interface with these groups, in the direction that has more of them."""
    carried = tuple(groups)
    return max(
        sum(rule_count(world, group.inbound) for group in carried),
        sum(rule_count(world, group.outbound) for group in carried),
    )


def check_rules_per_interface(world: World, groups: Collection[SecurityGroup], quotas: Quotas) -> None:
    """Raise SecurityGroupsPerInterfaceLimitExceeded when these groups have too many rules for one interface."""
    if _may_exceed(len(groups), quotas) and effective_rules(world, groups) > quotas.rules_per_interface:
        raise ApiError(
            "SecurityGroupsPerInterfaceLimitExceeded",
            f"The security groups have more rules than a network interface may have: {quotas.rules_per_interface}.",
        )


def check_group_quotas(world: World, group: SecurityGroup, quotas: Quotas) -> None:
    """Raise RulesPerSecurityGroupLimitExceeded when a group as it is to be holds too many rules, or when an interface
    that carries it would have too many."""
    if fullest(world, group) > quotas.rules_per_group:
        raise ApiError(
            "RulesPerSecurityGroupLimitExceeded", "The maximum number of rules per security group has been reached."
        )
    if not carriers_can_take(world, group, quotas):
        raise ApiError(
            "RulesPerSecurityGroupLimitExceeded",
            "The maximum number of rules per network interface has been reached on an interface with the security "
            f"group: {quotas.rules_per_interface}.",
        )


def can_take(world: World, group: SecurityGroup, quotas: Quotas) -> bool:
    """Whether a group, with the prefix lists of this World, and every interface that carries it are within bounds."""
    return fullest(world, group) <= quotas.rules_per_group and carriers_can_take(world, group, quotas)


def carriers_can_take(world: World, group: SecurityGroup, quotas: Quotas) -> bool:
    """Whether no interface that carries a group, or is about to, has too many rules once the group is as given."""
    pending = (one.pending.group_ids or () for one in world.endpoints if one.pending is not None)
    several = {eni.group_ids for eni in world.members(group.id)} | {one for one in pending if group.id in one}
    for group_ids in several:
        if not _may_exceed(len(group_ids), quotas):
            continue
        carried = [group if one == group.id else world.group(one) for one in dict.fromkeys(group_ids)]
        if effective_rules(world, (one for one in carried if one is not None)) > quotas.rules_per_interface:
            return False
    return True


def _may_exceed(groups: int, quotas: Quotas) -> bool:
    """Whether so many groups can hold more rules than an interface may have: with AWS's defaults, never."""
    return groups * quotas.rules_per_group > quotas.rules_per_interface
