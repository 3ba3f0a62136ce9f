"""Which resources an API call is about, as CloudTrail's `resources` lists them. Pure.

EC2's are told by their ids, wherever in parameters and answer those stand; IAM's by the members that name them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from wicketgate.model import World

MAX_RESOURCES: Final = 50

_EC2: Final[Mapping[str, tuple[str, str]]] = {
    "vpc": ("AWS::EC2::VPC", "vpc"),
    "subnet": ("AWS::EC2::Subnet", "subnet"),
    "sg": ("AWS::EC2::SecurityGroup", "security-group"),
    "sgr": ("AWS::EC2::SecurityGroupRule", "security-group-rule"),
    "eni": ("AWS::EC2::NetworkInterface", "network-interface"),
    "i": ("AWS::EC2::Instance", "instance"),
    "ami": ("AWS::EC2::Ami", "image"),
    "pcx": ("AWS::EC2::VPCPeeringConnection", "vpc-peering-connection"),
    "rtb": ("AWS::EC2::RouteTable", "route-table"),
    "eice": ("AWS::EC2::InstanceConnectEndpoint", "instance-connect-endpoint"),
    "pl": ("AWS::EC2::PrefixList", "prefix-list"),
    "nip": ("AWS::EC2::NetworkInsightsPath", "network-insights-path"),
    "nia": ("AWS::EC2::NetworkInsightsAnalysis", "network-insights-analysis"),
}
"""Prefix of an id -> type (AWS Config's and CloudTrail's names) and the kind in its ARN."""

_IAM: Final[Mapping[str, tuple[str, str]]] = {
    "UserName": ("AWS::IAM::User", "user"),
    "RoleName": ("AWS::IAM::Role", "role"),
    "GroupName": ("AWS::IAM::Group", "group"),
}
_IAM_ARNS: Final[Mapping[str, str]] = {
    "user": "AWS::IAM::User",
    "role": "AWS::IAM::Role",
    "group": "AWS::IAM::Group",
    "policy": "AWS::IAM::Policy",
}

_id_parts = re.compile(r"([a-z]{1,8})-(?:[0-9a-f]{8}|[0-9a-f]{17})").fullmatch
_iam_arn_kind = re.compile(r"arn:[a-z-]+:iam::(?:[0-9]{12}|aws):([a-z]+)/.+").fullmatch


def resources(world: World, service: str, *values: Mapping[str, Any] | None) -> list[dict[str, str]]:
    """The resources that parameters and answer name, in order, each once, at most MAX_RESOURCES."""
    find = _of_iam if service in ("iam", "sts") else _of_ec2
    found: dict[str, dict[str, str]] = {}
    for value in values:
        for name, text in _texts("", value or {}):
            if (resource := find(world, name, text)) is not None:
                found.setdefault(resource["ARN"], resource)
            if len(found) == MAX_RESOURCES:
                return list(found.values())
    return list(found.values())


def _texts(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Every text in a value, with the name of the member that it stands in."""
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts(key, item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts(name, item)


def _of_ec2(world: World, _name: str, text: str) -> dict[str, str] | None:
    parts = _id_parts(text)
    if parts is None or parts[1] not in _EC2:
        return None
    type_name, kind = _EC2[parts[1]]
    return _resource(world, type_name, f"arn:{world.partition}:ec2:{world.region}:{world.account_id}:{kind}/{text}")


def _of_iam(world: World, name: str, text: str) -> dict[str, str] | None:
    if (arn := _iam_arn_kind(text)) is not None:
        return _resource(world, _IAM_ARNS[arn[1]], text) if arn[1] in _IAM_ARNS else None
    if name not in _IAM or len(text) > 128:
        return None
    type_name, kind = _IAM[name]
    return _resource(
        world, type_name, f"arn:{world.partition}:iam::{world.account_id}:{kind}{_path(world, kind, text)}"
    )


def _path(world: World, kind: str, name: str) -> str:
    """Path and name of an IAM identity as its ARN has them; `/name` for one that does not exist."""
    things: Mapping[str, Any] = {"user": world.users, "role": world.roles, "group": world.user_groups}
    path = next((thing.path for thing in things[kind] if thing.name == name), "/")
    return f"{path}{name}"


def _resource(world: World, type_name: str, arn: str) -> dict[str, str]:
    return {"accountId": world.account_id, "type": type_name, "ARN": arn}
