"""References to security groups across VPC peering connections: who refers to a group, and which references are stale.

A reference counts while a peering connection of the two VPCs is active and the group exists (`World.referenced_group`);
otherwise it is stale: shown, and allowing nothing. (VPC Peering Guide, "Update your security groups to reference peer
security groups".)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from wicketgate.control import resources
from wicketgate.control.call import Call, Outcome, operation
from wicketgate.control.permissions import peering_between, permissions_of
from wicketgate.control.resources import VPC, found
from wicketgate.control.security_groups import existing_group
from wicketgate.model import SecurityGroup, SecurityGroupRule, World

MIN_STALE, MAX_STALE = 5, 255
"""Bounds of MaxResults (EC2 API Reference, DescribeStaleSecurityGroups)."""


@operation("ec2")
def describe_security_group_references(call: Call) -> Outcome:
    """The VPCs at the other end of active peering connections whose rules name these groups."""
    items = []
    for group_id in dict.fromkeys(call.parameters["GroupId"]):
        group = existing_group(call.world, group_id)
        for vpc_id in _referring_vpcs(call.world, group):
            peering = peering_between(call.world, group.vpc_id, vpc_id)
            if peering is not None:
                item = {"GroupId": group.id, "ReferencingVpcId": vpc_id, "VpcPeeringConnectionId": peering.id}
                items.append(item)
    return Outcome({"SecurityGroupReferenceSet": items})


def _referring_vpcs(world: World, group: SecurityGroup) -> Sequence[str]:
    """The other VPCs with a rule that names the group, each once."""
    return list(
        dict.fromkeys(
            other.vpc_id
            for other in world.groups
            if other.vpc_id != group.vpc_id and any(rule.referenced_group_id == group.id for rule in other.rules)
        )
    )


@operation("ec2")
def describe_stale_security_groups(call: Call) -> Outcome:
    """The groups of a VPC that have stale rules, with these rules. Raises InvalidVpcID.NotFound."""
    world = call.world
    vpc = found(VPC, world, call.parameters["VpcId"])
    groups = [
        group for group in world.groups if group.vpc_id == vpc.id and any(map(_stale_in(world, group), group.rules))
    ]
    shown, following = resources.paged(call, groups, lambda group: group.id, MIN_STALE, MAX_STALE)
    return Outcome({"StaleSecurityGroupSet": [_stale_item(world, group) for group in shown]} | following)


def _stale_in(world: World, group: SecurityGroup) -> Callable[[SecurityGroupRule], bool]:
    """Whether a rule of the group refers to a group that does not count."""
    return lambda rule: rule.referenced_group_id is not None and world.referenced_group(group, rule) is None


def _stale_item(world: World, group: SecurityGroup) -> dict[str, Any]:
    stale = _stale_in(world, group)
    return {
        "GroupId": group.id,
        "GroupName": group.name,
        "Description": group.description,
        "VpcId": group.vpc_id,
        "StaleIpPermissions": _stale_permissions(world, group, filter(stale, group.inbound)),
        "StaleIpPermissionsEgress": _stale_permissions(world, group, filter(stale, group.outbound)),
    }


def _stale_permissions(world: World, group: SecurityGroup, rules: Iterable[SecurityGroupRule]) -> list[dict[str, Any]]:
    """These rules, which have no source but groups, as StaleIpPermissions (IpPermissions without `Ipv6Ranges`)."""
    permissions = permissions_of(rules, world, group.vpc_id)
    return [{name: value for name, value in one.items() if name != "Ipv6Ranges"} for one in permissions]
