"""Tags on resources of every kind, security group rules included: CreateTags, DeleteTags, DescribeTags.

None of these actions takes a ClientToken. A call is for all of its resources or for none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final

import msgspec

from wicketgate.control import common, resources
from wicketgate.control.call import Ask, Call, Outcome, operation
from wicketgate.control.peering import PEERING
from wicketgate.control.route_tables import ROUTE_TABLE, all_tables
from wicketgate.model import ApiError, SecurityGroup, SecurityGroupRule, World
from wicketgate.model.change import Resource

MAX_RESOURCES: Final = 1000
"""Resources of one call (EC2 API Reference, CreateTags)."""

_KINDS: Final[Mapping[str, tuple[Callable[[World], Iterable[Any]], resources.Kind[Any]]]] = {
    "vpc": (attrgetter("vpcs"), resources.VPC),
    "subnet": (attrgetter("subnets"), resources.SUBNET),
    "security-group": (attrgetter("groups"), resources.GROUP),
    "network-interface": (attrgetter("interfaces"), resources.INTERFACE),
    "instance": (attrgetter("instances"), resources.INSTANCE),
    "instance-connect-endpoint": (attrgetter("endpoints"), resources.ENDPOINT),
    "prefix-list": (attrgetter("prefix_lists"), resources.PREFIX_LIST),
    "vpc-peering-connection": (attrgetter("peerings"), PEERING),
    "route-table": (all_tables, ROUTE_TABLE),
    "network-insights-path": (attrgetter("insights_paths"), resources.INSIGHTS_PATH),
    "network-insights-analysis": (attrgetter("insights_analyses"), resources.INSIGHTS_ANALYSIS),
}
"""Resource type -> all of a World, and their kind."""
_GROUP_NOT_FOUND: Final = "InvalidGroup.NotFound"


@dataclass(frozen=True)
class _Tagged:
    """A resource that can carry tags."""

    type: str
    """As tags call it, e.g. `security-group-rule`."""
    id: str
    tags: Mapping[str, str]
    resource: Any
    group: SecurityGroup | None = None
    """The group that a rule belongs to."""


def _everything(world: World) -> Iterator[_Tagged]:
    for kind, (all_of, _) in _KINDS.items():
        for one in all_of(world):
            yield _Tagged(kind, one.id, one.tags, one)
    for group in world.groups:
        for rule in group.rules:
            yield _Tagged("security-group-rule", rule.id, rule.tags, rule, group)


def _named(world: World, ids: Sequence[str]) -> list[_Tagged]:
    """The resources with these ids, each once. Raises InvalidID for no id of ours, else the kind's `.NotFound`."""
    if len(set(ids)) > MAX_RESOURCES:
        raise ApiError("InvalidParameterValue", f"One request tags at most {MAX_RESOURCES} resources, not {len(ids)}.")
    there = {one.id: one for one in _everything(world)}
    missing = [one for one in ids if one not in there]
    if missing:
        raise _no_such(missing[0])
    return [there[one] for one in dict.fromkeys(ids)]


def _no_such(resource_id: str) -> ApiError:
    prefix = resource_id.rpartition("-")[0]
    if prefix == "sgr":
        return ApiError(
            "InvalidSecurityGroupRuleId.NotFound", f"The security group rule ID '{resource_id}' does not exist"
        )
    kind = next((kind for _, kind in _KINDS.values() if kind.prefix == prefix), None)
    if kind is None:
        return ApiError("InvalidID", f"The ID '{resource_id}' is not valid")
    if kind is resources.GROUP:
        return ApiError(_GROUP_NOT_FOUND, f"The security group '{resource_id}' does not exist")
    return ApiError(kind.not_found, f"The {kind.noun} ID '{resource_id}' does not exist")


def _ask(call: Call) -> Sequence[Ask]:
    """One question for each resource, in the context of its tags and of those in the request."""
    tags = {tag.get("Key") or "": tag.get("Value") or "" for tag in call.parameters.get("Tags") or ()}
    requested: dict[str, Sequence[str]] = {f"aws:RequestTag/{key}": (value,) for key, value in tags.items()}
    requested |= {"aws:TagKeys": tuple(tags)} if tags else {}
    there = {one.id: one for one in _everything(call.world)}
    asked = []
    for resource_id in dict.fromkeys(call.parameters["Resources"]):
        one = there.get(resource_id)
        arn = call.arn(f"{one.type if one else _type_of(resource_id)}/{resource_id}")
        asked.append(Ask(f"ec2:{call.action}", arn, common.ec2_context(call, one.tags if one else None) | requested))
    return asked


def _type_of(resource_id: str) -> str:
    prefix = resource_id.rpartition("-")[0]
    return next((name for name, (_, kind) in _KINDS.items() if kind.prefix == prefix), "*")


@operation("ec2", asks=_ask)
def create_tags(call: Call) -> Outcome:
    """Adds tags and overwrites those with the same key.

    Raises InvalidParameterValue and TagLimitExceeded as `common.checked_tags`, InvalidID and `.NotFound` for resources.
    """
    new = common.checked_tags(call.parameters["Tags"])
    if not new:
        raise ApiError("MissingParameter", "The request must contain the parameter Tag")
    return _retag(call, lambda tags: dict(tags) | new)


@operation("ec2", asks=_ask)
def delete_tags(call: Call) -> Outcome:
    """Takes tags away: by key, by key and value when a value is given (the empty one too), all when none are named.

    Tags of `aws:` stay. What a resource does not carry is no error.
    """
    given = call.parameters.get("Tags")
    if given and any(not tag.get("Key") for tag in given):
        raise ApiError("InvalidParameterValue", "Tag key cannot be null or empty")
    for tag in given or ():
        common.check_tag_key(tag["Key"])
    wanted = [(tag["Key"], tag.get("Value")) for tag in given or ()]

    def stays(key: str, value: str) -> bool:
        if not wanted:
            return key.lower().startswith("aws:")
        return all(key != name or exact not in (None, value) for name, exact in wanted)

    return _retag(call, lambda tags: {key: value for key, value in tags.items() if stays(key, value)})


def _retag(call: Call, change: Callable[[Mapping[str, str]], dict[str, str]]) -> Outcome:
    """New tags for every resource named. Rules are put with their group, which may be named as well."""
    puts: dict[str, Resource] = {}
    for one in _named(call.world, call.parameters["Resources"]):
        tags = change(one.tags)
        common.check_tag_count(tags)
        if tags == one.tags:
            continue
        if one.group is None:
            before = puts.get(one.id, one.resource)  # a group whose rule came first
            puts[one.id] = msgspec.structs.replace(before, tags=tags)
        else:
            group = puts.get(one.group.id, one.group)
            assert isinstance(group, SecurityGroup)
            puts[group.id] = msgspec.structs.replace(group, rules=_with_tags(group, one.resource, tags))
    return Outcome({}, call.change(*puts.values()))


def _with_tags(group: SecurityGroup, rule: SecurityGroupRule, tags: dict[str, str]) -> tuple[SecurityGroupRule, ...]:
    return tuple(msgspec.structs.replace(one, tags=tags) if one.id == rule.id else one for one in group.rules)


@dataclass(frozen=True)
class _Tag:
    """One tag of one resource."""

    owner: _Tagged
    key: str
    value: str


@operation("ec2")
def describe_tags(call: Call) -> Outcome:
    """DescribeTags: every tag of every resource, by kind, resource and key."""
    every = [_Tag(one, key, value) for one in _everything(call.world) for key, value in sorted(one.tags.items())]
    chosen = common.select(
        every,
        call.parameters.get("Filters"),
        {
            "key": lambda tag: tag.key,
            "resource-id": lambda tag: tag.owner.id,
            "resource-type": lambda tag: tag.owner.type,
            "tag:": lambda tag: {tag.key: tag.value},
            "value": lambda tag: tag.value,
        },
    )
    shown, following = resources.paged(call, chosen, lambda tag: f"{tag.owner.id}/{tag.key}")
    answers = [
        {"Key": tag.key, "ResourceId": tag.owner.id, "ResourceType": tag.owner.type, "Value": tag.value}
        for tag in shown
    ]
    return Outcome({"Tags": answers} | following)
