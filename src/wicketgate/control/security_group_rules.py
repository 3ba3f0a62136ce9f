"""The rules of security groups: authorize, revoke, modify, describe them.

A call is all or nothing: one bad or duplicate rule, and none is added. None of these actions takes a ClientToken.
Sources are CIDR blocks, managed prefix lists and groups of the same VPC; there are no peerings, so naming one is
answered as AWS answers for one that does not exist.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from wicketgate.control.call import Ask, Call, Outcome, operation
from wicketgate.control.common import (
    AWS_QUOTAS,
    Quotas,
    check_id,
    ec2_context,
    page,
    request_tags,
    select,
    tags_from,
)
from wicketgate.control.permissions import (
    check_duplicates,
    check_prefix_lists,
    duplicate,
    identity,
    permissions_of,
    requested_rule,
    requested_rules,
    revoked_item,
    rule_description,
    rule_item,
    twice,
)
from wicketgate.control.rule_parameters import given_permissions, mentioned, referenced
from wicketgate.control.rule_quotas import check_group_quotas
from wicketgate.control.security_groups import (
    MAX_RESULTS,
    MIN_RESULTS,
    ask_group,
    ask_tags,
    existing_group,
    group_of_call,
)
from wicketgate.model import ApiError, SecurityGroup, SecurityGroupRule, World

RULE = "security-group-rule"

# -- what IAM is asked -------------------------------------------------------------------------------------------------


def _ask_group(call: Call) -> Sequence[Ask]:
    return (ask_group(call),)


def _ask_authorize(call: Call) -> Sequence[Ask]:
    """The group; with tags also the rules to be made, and CreateTags on them."""
    tags = request_tags(call, RULE)
    made = [Ask(f"ec2:{call.action}", call.arn(f"{RULE}/*"), ec2_context(call) | tags)] if tags else []
    return (ask_group(call), *made, *ask_tags(call, RULE))


def _ask_modify(call: Call) -> Sequence[Ask]:
    """The group and each of the rules: ModifySecurityGroupRules has both as required resources."""
    group = call.world.group(call.parameters.get("GroupId") or "")
    there = {rule.id: rule for rule in group.rules} if group is not None else {}
    asks = [ask_group(call)]
    for update in call.parameters.get("SecurityGroupRules") or ():
        rule_id = update.get("SecurityGroupRuleId") or "*"
        tags = there[rule_id].tags if rule_id in there else {}
        asks.append(Ask(f"ec2:{call.action}", call.arn(f"{RULE}/{rule_id}"), ec2_context(call, tags)))
    return asks


# -- authorize ---------------------------------------------------------------------------------------------------------


@operation("ec2", asks=_ask_authorize)
def authorize_security_group_ingress(call: Call, quotas: Quotas = AWS_QUOTAS) -> Outcome:
    """Add inbound rules, given as IpPermissions or in the legacy flat form."""
    return _authorize(call, quotas, is_egress=False)


@operation("ec2", asks=_ask_authorize)
def authorize_security_group_egress(call: Call, quotas: Quotas = AWS_QUOTAS) -> Outcome:
    """Add outbound rules, given as IpPermissions."""
    return _authorize(call, quotas, is_egress=True)


def _authorize(call: Call, quotas: Quotas, *, is_egress: bool) -> Outcome:
    group = group_of_call(call)
    permissions = given_permissions(call, is_egress=is_egress)
    if not permissions:
        raise ApiError("MissingParameter", "The request must contain the parameter ipPermissions")
    tags = tags_from(call.parameters, RULE)
    wanted = requested_rules(permissions, is_egress, referenced(call.world, group))
    check_prefix_lists(call.world, wanted)
    check_duplicates(group, wanted)
    added = [replace(rule, id=call.new_id("sgr"), tags=tags) for rule in wanted]
    changed = replace(group, rules=(*group.rules, *added))
    check_group_quotas(call.world, changed, quotas)
    items = [rule_item(call.world, group, rule) for rule in added]
    return Outcome({"Return": True, "SecurityGroupRules": items}, call.change(changed))


# -- revoke ------------------------------------------------------------------------------------------------------------


@operation("ec2", asks=_ask_group)
def revoke_security_group_ingress(call: Call) -> Outcome:
    """Remove inbound rules, named by IpPermissions, in the legacy flat form or by id."""
    return _revoke(call, is_egress=False)


@operation("ec2", asks=_ask_group)
def revoke_security_group_egress(call: Call) -> Outcome:
    """Remove outbound rules, named by IpPermissions or by id."""
    return _revoke(call, is_egress=True)


def _revoke(call: Call, *, is_egress: bool) -> Outcome:
    world, group = call.world, group_of_call(call)
    permissions = given_permissions(call, is_egress=is_egress, others=("SecurityGroupRuleIds",))
    rule_ids = call.parameters.get("SecurityGroupRuleIds")
    if not permissions and not rule_ids:
        raise ApiError(
            "MissingParameter", "The request must contain the parameter ipPermissions or securityGroupRuleIds"
        )
    unknown: list[SecurityGroupRule] = []
    if rule_ids:
        gone = {rule_id: _rule_by_id(group, rule_id, is_egress) for rule_id in rule_ids}
    else:
        found, unknown = _matched(group, requested_rules(permissions, is_egress, mentioned(world)))
        gone = {rule.id: rule for rule in found}
    vpc = world.vpc(group.vpc_id)
    if unknown and not (vpc is not None and vpc.is_default):
        raise _no_such_rule()
    answer: dict[str, Any] = {
        "Return": True,
        "RevokedSecurityGroupRules": [revoked_item(group, rule) for rule in gone.values()],
        "UnknownIpPermissions": permissions_of(unknown, world, group.vpc_id),
    }
    if not gone:
        return Outcome(answer)
    kept = tuple(rule for rule in group.rules if rule.id not in gone)
    return Outcome(answer, call.change(replace(group, rules=kept)))


def _matched(
    group: SecurityGroup, wanted: Iterable[SecurityGroupRule]
) -> tuple[list[SecurityGroupRule], list[SecurityGroupRule]]:
    """The group's rules that are the wanted ones, and the wanted ones it does not have."""
    there = {identity(rule): rule for rule in group.rules}
    found, unknown = [], []
    for rule in wanted:
        match = there.get(identity(rule))
        if match is None:
            unknown.append(rule)
        else:
            found.append(match)
    return found, unknown


def _rule_by_id(group: SecurityGroup, rule_id: str, is_egress: bool | None = None) -> SecurityGroupRule:
    """The group's rule with this id, of either direction or of one. Raises InvalidSecurityGroupRuleId.NotFound."""
    for rule in group.rules:
        if rule.id == rule_id and is_egress in (None, rule.is_egress):
            return rule
    raise _no_rule_id(rule_id)


def _no_rule_id(rule_id: str) -> ApiError:
    if not rule_id.startswith("sgr-"):
        check_id("sgr", rule_id, "InvalidSecurityGroupRuleId.Malformed")
    return ApiError("InvalidSecurityGroupRuleId.NotFound", f"The security group rule ID '{rule_id}' does not exist")


def _no_such_rule() -> ApiError:
    return ApiError("InvalidPermission.NotFound", "The specified rule does not exist in this security group.")


# -- modify ------------------------------------------------------------------------------------------------------------


@operation("ec2", asks=_ask_modify)
def modify_security_group_rules(call: Call, quotas: Quotas = AWS_QUOTAS) -> Outcome:
    """Replace protocol, ports, source and description of rules of either direction; ids, tags and source kind stay."""
    group = existing_group(call.world, call.parameters.get("GroupId") or "")
    updates = call.parameters.get("SecurityGroupRules") or ()
    if not updates:
        raise ApiError("MissingParameter", "The request must contain the parameter SecurityGroupRule")
    new = [_modified(call.world, group, update) for update in updates]
    changed = {rule.id: rule for rule in new}
    if len(changed) < len(new) or len({identity(rule) for rule in new}) < len(new):
        raise twice()
    untouched = {identity(rule) for rule in group.rules if rule.id not in changed}
    for rule in new:
        if identity(rule) in untouched:
            raise duplicate(rule)
    modified = replace(group, rules=tuple(changed.get(rule.id, rule) for rule in group.rules))
    check_group_quotas(call.world, modified, quotas)  # one prefix list may have more entries than another
    return Outcome({"Return": True}, call.change(modified))


def _modified(world: World, group: SecurityGroup, update: Mapping[str, Any]) -> SecurityGroupRule:
    rule_id = update.get("SecurityGroupRuleId")
    if not rule_id:
        raise ApiError("MissingParameter", "The request must contain the parameter SecurityGroupRuleId")
    old = _rule_by_id(group, rule_id)
    if not update.get("SecurityGroupRule"):
        raise ApiError("MissingParameter", f"The request must contain the parameter SecurityGroupRule for {rule_id}")
    new = requested_rule(update["SecurityGroupRule"], old.is_egress, referenced(world, group))
    check_prefix_lists(world, (new,))
    if _kind(new) != _kind(old):
        raise ApiError(
            "InvalidParameterValue",
            f"You may not specify {_with_article(_kind(new))} for an existing {_kind(old)} rule.",
        )
    return replace(new, id=old.id, tags=old.tags)


def _kind(rule: SecurityGroupRule) -> str:
    if rule.cidr_ipv4 is not None:
        return "IPv4 CIDR"
    if rule.cidr_ipv6 is not None:
        return "IPv6 CIDR"
    return "prefix list id" if rule.prefix_list_id is not None else "referenced group id"


def _with_article(kind: str) -> str:
    return f"an {kind}" if kind.startswith("IP") else f"a {kind}"


@operation("ec2", asks=_ask_group)
def update_security_group_rule_descriptions_ingress(call: Call) -> Outcome:
    """Set or, where none is given, remove descriptions of inbound rules, named by IpPermissions or by id."""
    return _describe_anew(call, is_egress=False)


@operation("ec2", asks=_ask_group)
def update_security_group_rule_descriptions_egress(call: Call) -> Outcome:
    """Set or, where none is given, remove descriptions of outbound rules, named by IpPermissions or by id."""
    return _describe_anew(call, is_egress=True)


def _describe_anew(call: Call, *, is_egress: bool) -> Outcome:
    group = group_of_call(call)
    permissions = call.parameters.get("IpPermissions")
    by_id = call.parameters.get("SecurityGroupRuleDescriptions")
    if permissions and by_id:
        raise ApiError(
            "InvalidParameterCombination",
            "The parameter SecurityGroupRuleDescriptions cannot be used with the parameter IpPermissions",
        )
    if by_id:
        named = [(one.get("SecurityGroupRuleId") or "", rule_description(one.get("Description"))) for one in by_id]
        pairs = [(_rule_by_id(group, rule_id, is_egress), description) for rule_id, description in named]
    elif permissions:
        wanted = requested_rules(permissions, is_egress, mentioned(call.world))
        found, unknown = _matched(group, wanted)
        if unknown:
            raise _no_such_rule()
        pairs = [(rule, one.description) for rule, one in zip(found, wanted, strict=True)]
    else:
        raise ApiError(
            "MissingParameter", "The request must contain the parameter ipPermissions or securityGroupRuleDescriptions"
        )
    changed = {rule.id: replace(rule, description=description) for rule, description in pairs}
    if len(changed) < len(pairs):
        raise twice()
    rules = tuple(changed.get(rule.id, rule) for rule in group.rules)
    return Outcome({"Return": True}, call.change(replace(group, rules=rules)))


# -- describe ----------------------------------------------------------------------------------------------------------

Owned = tuple[SecurityGroup, SecurityGroupRule]


@operation("ec2")
def describe_security_group_rules(call: Call) -> Outcome:
    """Rules one by one, with their ids, tags and ARNs."""
    asked = call.parameters
    owned: list[Owned] = [(group, rule) for group in call.world.groups for rule in group.rules]
    if asked.get("SecurityGroupRuleIds"):
        by_id = {rule.id: (group, rule) for group, rule in owned}
        for rule_id in asked["SecurityGroupRuleIds"]:
            if rule_id not in by_id:
                raise _no_rule_id(rule_id)
        owned = [by_id[rule_id] for rule_id in dict.fromkeys(asked["SecurityGroupRuleIds"])]
    _check_group_ids(call)
    getters: dict[str, Callable[[Owned], Any]] = {
        "group-id": lambda one: one[0].id,
        "security-group-rule-id": lambda one: one[1].id,
        "tag:": lambda one: one[1].tags,
    }
    found = select(owned, asked.get("Filters"), getters)
    shown, token = page(
        found,
        asked.get("MaxResults"),
        asked.get("NextToken"),
        minimum=MIN_RESULTS,
        maximum=MAX_RESULTS,
        key=lambda one: one[1].id,
        scope=call.action,
    )
    answer: dict[str, Any] = {"SecurityGroupRules": [rule_item(call.world, group, rule) for group, rule in shown]}
    return Outcome(answer | ({"NextToken": token} if token else {}))


def _check_group_ids(call: Call) -> None:
    """Refuse a malformed id in the filter `group-id`; one that does not exist merely finds nothing, as at AWS."""
    for one in call.parameters.get("Filters") or ():
        for value in one.get("Values") or () if one.get("Name") == "group-id" else ():
            if not value.startswith("sg-") and not set(value) & set("*?\\"):
                raise ApiError("InvalidGroupId.Malformed", f"The security group ID '{value}' is malformed")
