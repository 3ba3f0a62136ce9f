"""Security groups: create, delete, describe. (Their rules: `security_group_rules`.)

None of these actions takes a ClientToken. Names are unique per VPC without regard to case; `default` is each VPC's
own. What is referred to within the VPC is never deleted: an interface or another group's rule that names the group
forbids it. (References across a peering: `group_references`.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from wicketgate.control.call import Ask, Call, Outcome, operation
from wicketgate.control.common import (
    AWS_QUOTAS,
    TAG_GETTERS,
    Quotas,
    check_id,
    ec2_context,
    page,
    request_tags,
    select,
    tag_list,
    tags_from,
)
from wicketgate.control.permissions import DESCRIPTION, DESCRIPTION_SET, permissions_of
from wicketgate.model import ApiError, SecurityGroup, SecurityGroupRule, Vpc, World

DEFAULT_NAME = "default"
MIN_RESULTS, MAX_RESULTS = 5, 1000
"""Bounds of MaxResults of all actions here (EC2 API Reference)."""


# -- look-ups, also for other families ---------------------------------------------------------------------------------


def existing_group(world: World, group_id: str) -> SecurityGroup:
    """The group with this id. Raises InvalidGroup.NotFound, or InvalidGroupId.Malformed for what is no id at all."""
    group = world.group(group_id)
    if group is None:
        check_id("sg", group_id, "InvalidGroupId.Malformed")
        raise _no_group(group_id)
    return group


def named_group(world: World, name: str) -> SecurityGroup:
    """The group of the default VPC with this name. Raises InvalidGroup.NotFound."""
    vpc = default_vpc(world)
    if vpc is None:
        raise _no_group(name)
    found = group_by_name(world, vpc.id, name)
    if found is None:
        raise ApiError("InvalidGroup.NotFound", f"The security group '{name}' does not exist in default VPC '{vpc.id}'")
    return found


def group_by_name(world: World, vpc_id: str, name: str) -> SecurityGroup | None:
    """The group of a VPC with this name, in any case."""
    wanted = name.lower()
    return next((one for one in world.groups if one.vpc_id == vpc_id and one.name.lower() == wanted), None)


def default_group_of(world: World, vpc_id: str) -> SecurityGroup | None:
    """The group `default` of a VPC: what an interface carries when none is named."""
    return group_by_name(world, vpc_id, DEFAULT_NAME)


def default_vpc(world: World) -> Vpc | None:
    """The account's default VPC, if there is one."""
    return next((vpc for vpc in world.vpcs if vpc.is_default), None)


def group_of_call(call: Call) -> SecurityGroup:
    """The group that a call names by GroupId, or by GroupName in the default VPC.

    Raises MissingParameter when it names none, InvalidParameterCombination for both, and as the look-ups do.
    """
    group_id, name = call.parameters.get("GroupId"), call.parameters.get("GroupName")
    if group_id and name:
        raise ApiError(
            "InvalidParameterCombination", "The parameter GroupName cannot be used with the parameter GroupId"
        )
    if group_id:
        return existing_group(call.world, group_id)
    if name:
        return named_group(call.world, name)
    raise ApiError("MissingParameter", "The request must contain the parameter groupName or groupId")


def _no_group(what: str) -> ApiError:
    return ApiError("InvalidGroup.NotFound", f"The security group '{what}' does not exist")


# -- what IAM is asked -------------------------------------------------------------------------------------------------


def ask_group(call: Call) -> Ask:
    """The question for an action on one existing group (Service Authorization Reference, security-group).

    A group that does not exist is asked about all the same, so that a refusal does not tell.
    """
    group_id = call.parameters.get("GroupId")
    group = call.world.group(group_id) if group_id else None
    vpc = default_vpc(call.world)
    if not group_id and vpc is not None:
        group = group_by_name(call.world, vpc.id, call.parameters.get("GroupName") or "")
    if group is None:
        return Ask(f"ec2:{call.action}", call.arn(f"security-group/{group_id or '*'}"), ec2_context(call))
    context = ec2_context(call, group.tags, SecurityGroupID=group.id, Vpc=call.arn(f"vpc/{group.vpc_id}"))
    return Ask(f"ec2:{call.action}", call.arn(f"security-group/{group.id}"), context)


def ask_tags(call: Call, resource_type: str) -> list[Ask]:
    """The dependent question for tags given on creation: ec2:CreateTags, with ec2:CreateAction."""
    tags = request_tags(call, resource_type)
    if not tags:
        return []
    context = ec2_context(call, CreateAction=call.action) | tags
    return [Ask("ec2:CreateTags", call.arn(f"{resource_type}/*"), context)]


def _ask_vpc(call: Call, vpc_id: str | None) -> Ask:
    vpc = call.world.vpc(vpc_id) if vpc_id else default_vpc(call.world)
    if vpc is None:
        return Ask(f"ec2:{call.action}", call.arn(f"vpc/{vpc_id or '*'}"), ec2_context(call))
    return Ask(f"ec2:{call.action}", call.arn(f"vpc/{vpc.id}"), ec2_context(call, vpc.tags, VpcID=vpc.id))


def _ask_create(call: Call) -> Sequence[Ask]:
    vpc = _ask_vpc(call, call.parameters.get("VpcId"))
    context = ec2_context(call, Vpc=vpc.resource) | request_tags(call, "security-group")
    group = Ask("ec2:CreateSecurityGroup", call.arn("security-group/*"), context)
    return [group, vpc, *ask_tags(call, "security-group")]


# -- create and delete -------------------------------------------------------------------------------------------------


@operation("ec2", asks=_ask_create)
def create_security_group(call: Call, quotas: Quotas = AWS_QUOTAS) -> Outcome:
    """A group that lets nothing in and everything out (VPC User Guide, "Security groups")."""
    name = _checked_name(call.parameters.get("GroupName") or "")
    description = _checked_description(call.parameters.get("Description") or "")
    vpc = _vpc_for_group(call)
    tags = tags_from(call.parameters, "security-group")
    if group_by_name(call.world, vpc.id, name) is not None:
        raise ApiError("InvalidGroup.Duplicate", f"The security group '{name}' already exists for VPC '{vpc.id}'")
    if len(call.world.groups) >= quotas.groups_per_region:
        raise ApiError("SecurityGroupLimitExceeded", "The maximum number of security groups has been reached.")
    group = SecurityGroup(
        id=call.new_id("sg"),
        vpc_id=vpc.id,
        name=name,
        description=description,
        rules=_all_outbound(call.new_id, ipv6=bool(vpc.ipv6_cidr_blocks)),
        tags=tags,
    )
    answer: dict[str, Any] = {"GroupId": group.id, "SecurityGroupArn": call.arn(f"security-group/{group.id}")}
    return Outcome(answer | ({"Tags": tag_list(tags)} if tags else {}), call.change(group))


def default_security_group(vpc_id: str, new_id: Callable[[str], str], *, ipv6: bool = False) -> SecurityGroup:
    """The group `default` that a new VPC comes with: its members may talk to each other and to everybody.

    `new_id` makes ids from prefixes, as `Call.new_id`; `ipv6`: whether the VPC has an IPv6 range. Source: VPC User
    Guide, "Default security groups".
    """
    group_id = new_id("sg")
    from_itself = SecurityGroupRule(id=new_id("sgr"), is_egress=False, ip_protocol="-1", referenced_group_id=group_id)
    return SecurityGroup(
        id=group_id,
        vpc_id=vpc_id,
        name=DEFAULT_NAME,
        description="default VPC security group",
        rules=(from_itself, *_all_outbound(new_id, ipv6=ipv6)),
    )


def _all_outbound(new_id: Callable[[str], str], *, ipv6: bool) -> tuple[SecurityGroupRule, ...]:
    """A new group lets out everything of the families that its VPC has; a range that comes later changes no group."""
    rules = [SecurityGroupRule(id=new_id("sgr"), is_egress=True, ip_protocol="-1", cidr_ipv4="0.0.0.0/0")]
    if ipv6:
        rules.append(SecurityGroupRule(id=new_id("sgr"), is_egress=True, ip_protocol="-1", cidr_ipv6="::/0"))
    return tuple(rules)


def _checked_name(given: str) -> str:
    name = given.rstrip(" ")
    if not name:
        raise ApiError("MissingParameter", "The request must contain the parameter GroupName")
    _check_ascii("GroupName", name)
    if name.lower() == DEFAULT_NAME:
        raise ApiError("InvalidParameterValue", "Cannot use reserved security group name: default")
    if name.lower().startswith("sg-"):
        raise ApiError("InvalidParameterValue", "Group names may not be in the format sg-*")
    if DESCRIPTION.fullmatch(name) is None:
        raise ApiError(
            "InvalidParameterValue",
            "Invalid security group name. Valid names are non-empty strings less than 256 characters from the "
            f"following set:  {DESCRIPTION_SET}",
        )
    return name


def _checked_description(description: str) -> str:
    if not description:
        raise ApiError("MissingParameter", "The request must contain the parameter GroupDescription")
    _check_ascii("GroupDescription", description)
    if DESCRIPTION.fullmatch(description) is None:
        raise ApiError(
            "InvalidParameterValue",
            "Invalid security group description. Valid descriptions are strings less than 256 characters from the "
            f"following set:  {DESCRIPTION_SET}",
        )
    return description


def _check_ascii(parameter: str, value: str) -> None:
    if not value.isascii():
        raise ApiError(
            "InvalidParameterValue",
            f"Value ({value}) for parameter {parameter} is invalid. Character sets beyond ASCII are not supported.",
        )


def _vpc_for_group(call: Call) -> Vpc:
    vpc_id = call.parameters.get("VpcId")
    if not vpc_id:
        vpc = default_vpc(call.world)
        if vpc is None:
            raise ApiError("VPCIdNotSpecified", "No default VPC for this user. Specify the parameter VpcId.")
        return vpc
    return _existing_vpc(call.world, vpc_id)


def _existing_vpc(world: World, vpc_id: str) -> Vpc:
    vpc = world.vpc(vpc_id)
    if vpc is None:
        raise ApiError("InvalidVpcID.NotFound", f"The vpc ID '{vpc_id}' does not exist")
    return vpc


@operation("ec2", asks=lambda call: (ask_group(call),))
def delete_security_group(call: Call) -> Outcome:
    """Remove a group that nothing carries and no other group's rule in the VPC names. Rules in peered VPCs that name it
    go stale."""
    group = group_of_call(call)
    if group.name == DEFAULT_NAME:
        raise ApiError(
            "CannotDelete", f'the specified group: "{group.id}" name: "{group.name}" cannot be deleted by a user'
        )
    if in_use(call.world, group.id):
        raise ApiError("DependencyViolation", f"resource {group.id} has a dependent object")
    change = call.change(deletes=[("security-group", group.id)])
    return Outcome({"Return": True, "GroupId": group.id}, change)


def in_use(world: World, group_id: str) -> bool:
    """Whether an interface carries the group, an endpoint is about to, or a rule of another group in its VPC does."""
    pending = (one.pending.group_ids or () for one in world.endpoints if one.pending is not None)
    return (
        any(group_id in eni.group_ids for eni in world.interfaces)
        or any(group_id in group_ids for group_ids in pending)
        or any(
            rule.referenced_group_id == group_id and not rule.referenced_vpc_id
            for group in world.groups
            if group.id != group_id
            for rule in group.rules
        )
    )


# -- describe ----------------------------------------------------------------------------------------------------------


@operation("ec2")
def describe_security_groups(call: Call) -> Outcome:
    """Groups with their rules merged into IpPermissions. Rule filters may be met by different rules of a group."""
    world, asked = call.world, call.parameters
    groups: Sequence[SecurityGroup] = world.groups
    if asked.get("GroupIds") or asked.get("GroupNames"):
        named = [existing_group(world, group_id) for group_id in asked.get("GroupIds") or ()]
        named += [named_group(world, name) for name in asked.get("GroupNames") or ()]
        groups = list({group.id: group for group in named}.values())
    found = select(groups, asked.get("Filters"), _group_filters(world))
    shown, token = _page(call, found)
    answer: dict[str, Any] = {"SecurityGroups": [_group_item(call, group) for group in shown]}
    return Outcome(answer | ({"NextToken": token} if token else {}))


def _page(call: Call, groups: Sequence[SecurityGroup]) -> tuple[list[SecurityGroup], str | None]:
    asked = call.parameters
    return page(
        groups,
        asked.get("MaxResults"),
        asked.get("NextToken"),
        minimum=MIN_RESULTS,
        maximum=MAX_RESULTS,
        key=lambda group: group.id,
        scope=call.action,
    )


def _group_item(call: Call, group: SecurityGroup) -> dict[str, Any]:
    item: dict[str, Any] = {
        "OwnerId": call.world.account_id,
        "GroupId": group.id,
        "GroupName": group.name,
        "Description": group.description,
        "VpcId": group.vpc_id,
        "SecurityGroupArn": call.arn(f"security-group/{group.id}"),
        "IpPermissions": permissions_of(group.inbound, call.world, group.vpc_id),
        "IpPermissionsEgress": permissions_of(group.outbound, call.world, group.vpc_id),
    }
    return item | ({"Tags": tag_list(group.tags)} if group.tags else {})


Getter = Callable[[SecurityGroup], Any]


def _group_filters(world: World) -> dict[str, Getter]:
    filters: dict[str, Getter] = {
        "description": lambda group: group.description,
        "group-id": lambda group: group.id,
        "group-name": lambda group: group.name,
        "owner-id": lambda group: world.account_id,
        "vpc-id": lambda group: group.vpc_id,
        **TAG_GETTERS,
    }
    of_rule: dict[str, Callable[[SecurityGroupRule], Any]] = {
        "cidr": lambda rule: rule.cidr_ipv4,
        "ipv6-cidr": lambda rule: rule.cidr_ipv6,
        "prefix-list-id": lambda rule: rule.prefix_list_id,
        "protocol": lambda rule: rule.ip_protocol,
        "from-port": lambda rule: rule.from_port,
        "to-port": lambda rule: rule.to_port,
        "group-id": lambda rule: rule.referenced_group_id,
        "group-name": lambda rule: _name_of(world, rule.referenced_group_id),
        "user-id": lambda rule: world.account_id if rule.referenced_group_id is not None else None,
    }
    for name, get in of_rule.items():
        filters[f"ip-permission.{name}"] = _of_rules(get, is_egress=False)
        filters[f"egress.ip-permission.{name}"] = _of_rules(get, is_egress=True)
    return filters


def _of_rules(get: Callable[[SecurityGroupRule], Any], *, is_egress: bool) -> Getter:
    return lambda group: [get(rule) for rule in group.rules if rule.is_egress == is_egress]


def _name_of(world: World, group_id: str | None) -> str | None:
    group = world.group(group_id) if group_id is not None else None
    return group.name if group is not None else None


@operation("ec2", asks=lambda call: (_ask_vpc(call, call.parameters.get("VpcId")),))
def get_security_groups_for_vpc(call: Call) -> Outcome:
    """The groups that interfaces in a VPC may carry: those made in it."""
    world, asked = call.world, call.parameters
    vpc = _existing_vpc(world, asked["VpcId"])
    getters: dict[str, Getter] = {
        "group-id": lambda group: group.id,
        "description": lambda group: group.description,
        "group-name": lambda group: group.name,
        "owner-id": lambda group: world.account_id,
        "primary-vpc-id": lambda group: group.vpc_id,
    }
    found = select([one for one in world.groups if one.vpc_id == vpc.id], asked.get("Filters"), getters)
    shown, token = _page(call, found)
    items = [
        {
            "Description": group.description,
            "GroupName": group.name,
            "OwnerId": world.account_id,
            "GroupId": group.id,
            "Tags": tag_list(group.tags),
            "PrimaryVpcId": group.vpc_id,
        }
        for group in shown
    ]
    answer: dict[str, Any] = {"SecurityGroupForVpcs": items}
    return Outcome(answer | ({"NextToken": token} if token else {}))
