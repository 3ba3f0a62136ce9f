"""How the rule actions name rules and groups: IpPermissions, the legacy flat form, UserIdGroupPairs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from wicketgate.control.call import Call
from wicketgate.control.common import check_id
from wicketgate.control.permissions import Resolve, peering_between
from wicketgate.control.security_groups import existing_group, named_group
from wicketgate.model import ApiError, SecurityGroup, World

FLAT = (
    "IpProtocol",
    "FromPort",
    "ToPort",
    "CidrIp",
    "SourceSecurityGroupName",
    "SourceSecurityGroupOwnerId",
)
"""The legacy form of one inbound rule, parameters of the call itself."""

ALL_OF_A_GROUP = (
    {"IpProtocol": "tcp", "FromPort": 0, "ToPort": 65535},
    {"IpProtocol": "udp", "FromPort": 0, "ToPort": 65535},
    {"IpProtocol": "icmp", "FromPort": -1, "ToPort": -1},
)
"""What a flat source group stands for: "full ICMP, UDP, and TCP access" (EC2 API Reference)."""


def given_permissions(call: Call, *, is_egress: bool, others: Collection[str] = ()) -> list[Mapping[str, Any]]:
    """The IpPermissions of a call, the flat form put into them. `others` are parameters that exclude both."""
    asked = call.parameters
    permissions: list[Mapping[str, Any]] = list(asked.get("IpPermissions") or ())
    flat = [name for name in FLAT if asked.get(name) is not None]
    if flat and is_egress:
        raise ApiError(
            "InvalidParameterValue", f"The parameter {flat[0]} is not supported for outbound rules. Use IpPermissions."
        )
    forms = [*(["IpPermissions"] if permissions else []), *flat[:1], *(name for name in others if asked.get(name))]
    if len(forms) > 1:
        raise ApiError(
            "InvalidParameterCombination", f"The parameter {forms[1]} cannot be used with the parameter {forms[0]}"
        )
    return _unflattened(asked, flat) if flat else permissions


def _unflattened(asked: Mapping[str, Any], flat: Sequence[str]) -> list[Mapping[str, Any]]:
    source = asked.get("SourceSecurityGroupName")
    if source is None:
        if "SourceSecurityGroupOwnerId" in flat:
            raise ApiError("MissingParameter", "The request must contain the parameter SourceSecurityGroupName")
        one = {name: asked.get(name) for name in ("IpProtocol", "FromPort", "ToPort")}
        return [one | ({"IpRanges": [{"CidrIp": asked["CidrIp"]}]} if asked.get("CidrIp") is not None else {})]
    if flat[0] != "SourceSecurityGroupName":
        raise ApiError(
            "InvalidParameterCombination",
            f"The parameter {flat[0]} cannot be used with the parameter SourceSecurityGroupName",
        )
    pair = {"GroupName": source, "UserId": asked.get("SourceSecurityGroupOwnerId")}
    return [{**whole, "UserIdGroupPairs": [pair]} for whole in ALL_OF_A_GROUP]


# -- group references --------------------------------------------------------------------------------------------------


def referenced(world: World, group: SecurityGroup) -> Resolve:
    """What finds the group of a UserIdGroupPair for a rule of `group`: it must exist in the same VPC or in one that an
    active peering connection leads to."""

    def resolve(pair: Mapping[str, Any]) -> Mapping[str, str]:
        owner, group_id = _owner_and_id(pair)
        if owner not in (None, world.account_id):
            raise _other_network()
        other = existing_group(world, group_id) if group_id else named_group(world, _name(pair))
        fields = {"referenced_group_id": other.id}
        if other.vpc_id == group.vpc_id:
            return fields
        peering = peering_between(world, group.vpc_id, other.vpc_id)
        if peering is None:
            raise _other_network()
        return fields | {"referenced_vpc_id": other.vpc_id, "peering_id": peering.id}

    return resolve


def mentioned(world: World) -> Resolve:
    """What reads the group of a UserIdGroupPair for comparison with rules there are: it need not exist."""

    def resolve(pair: Mapping[str, Any]) -> Mapping[str, str]:
        owner, group_id = _owner_and_id(pair)
        if not group_id:
            return {"referenced_group_id": named_group(world, _name(pair)).id}
        if world.group(group_id) is None:
            check_id("sg", group_id, "InvalidGroupId.Malformed")
        return {"referenced_group_id": group_id if owner in (None, world.account_id) else f"{owner}/{group_id}"}

    return resolve


def _owner_and_id(pair: Mapping[str, Any]) -> tuple[str | None, str]:
    """Account and group id; the console's form `123456789012/sg-...` holds both."""
    owner, slash, group_id = (pair.get("GroupId") or "").rpartition("/")
    return (owner if slash else pair.get("UserId") or None), group_id


def _name(pair: Mapping[str, Any]) -> str:
    name: str | None = pair.get("GroupName")
    if not name:
        raise ApiError("MissingParameter", "The request must contain the parameter groupName or groupId")
    return name


def _other_network() -> ApiError:
    return ApiError("InvalidGroup.NotFound", "You have specified two resources that belong to different networks.")
