"""Security group rules as the API writes them: IpPermissions in, rules of the model; rules, IpPermissions out.

An IpPermission names a protocol, ports and any number of sources; each source is one rule. Two rules are the same when
direction, protocol, ports and source are; description and tags do not matter. CIDR blocks are stored canonical: the
host bits are cleared, IPv6 is written short (EC2 API Reference, IpRange and Ipv6Range).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from wicketgate.control.common import check_id, tag_list
from wicketgate.model import PROTOCOL_NUMBERS, ApiError, SecurityGroup, SecurityGroupRule, VpcPeeringConnection, World

DESCRIPTION_SET = "a-zA-Z0-9. _-:/()#,@[]+=&;{}!$*"
DESCRIPTION = re.compile(r"[a-zA-Z0-9. _\-:/()#,@\[\]+=&;{}!$*]{0,255}")
"""Names and descriptions of groups and descriptions of rules (EC2 API Reference, CreateSecurityGroup)."""

PROTOCOL_NAMES = {number: name for name, number in PROTOCOL_NUMBERS.items()}
WITH_PORTS = frozenset(PROTOCOL_NAMES.values())
"""Protocols whose rules have ports, or a type and code. Other rules match the whole protocol, whatever was given."""

PREFIX_LENGTH = re.compile(r"0|[1-9][0-9]{0,2}")

Identity = tuple[bool, str, int, int, str]
Resolve = Callable[[Mapping[str, Any]], Mapping[str, str]]
"""The fields of a rule that name the group of a UserIdGroupPair."""


# -- what makes a rule -------------------------------------------------------------------------------------------------


def identity(rule: SecurityGroupRule) -> Identity:
    """What two rules of one group may not have in common: direction, protocol, ports and source."""
    ports = (rule.from_port, rule.to_port) if rule.ip_protocol in WITH_PORTS else (-1, -1)
    return (rule.is_egress, rule.ip_protocol, *ports, rule.peer)


def requested_rules(
    permissions: Iterable[Mapping[str, Any]], is_egress: bool, resolve: Resolve
) -> list[SecurityGroupRule]:
    """The rules that IpPermissions stand for, without ids.

    Raises InvalidParameterValue for a bad protocol, port, CIDR block or description and for a permission that comes
    twice; MissingParameter for a permission without a source; and as `resolve` does.
    """
    rules = [rule for one in permissions for rule in _rules_of(one, is_egress, resolve)]
    if len({identity(rule) for rule in rules}) < len(rules):
        raise twice()
    return rules


def twice() -> ApiError:
    """The refusal of a call that names one rule two times."""
    return ApiError("InvalidParameterValue", "The same permission must not appear multiple times")


def requested_rule(wanted: Mapping[str, Any], is_egress: bool, resolve: Resolve) -> SecurityGroupRule:
    """The rule that a SecurityGroupRuleRequest (ModifySecurityGroupRules) stands for, without an id.

    Raises as `requested_rules` does, and InvalidParameterCombination for more than one source.
    """
    given = [name for name in ("CidrIpv4", "CidrIpv6", "PrefixListId", "ReferencedGroupId") if wanted.get(name)]
    if len(given) > 1:
        raise ApiError(
            "InvalidParameterCombination",
            "Only one of cidrIp, cidrIpv6, prefixListId, or referencedGroupId can be specified",
        )
    described = {"Description": wanted.get("Description")}
    permission: dict[str, Any] = {name: wanted.get(name) for name in ("IpProtocol", "FromPort", "ToPort")}
    if wanted.get("CidrIpv4"):
        permission["IpRanges"] = [{"CidrIp": wanted["CidrIpv4"], **described}]
    if wanted.get("CidrIpv6"):
        permission["Ipv6Ranges"] = [{"CidrIpv6": wanted["CidrIpv6"], **described}]
    if wanted.get("PrefixListId"):
        permission["PrefixListIds"] = [{"PrefixListId": wanted["PrefixListId"], **described}]
    if wanted.get("ReferencedGroupId"):
        permission["UserIdGroupPairs"] = [{"GroupId": wanted["ReferencedGroupId"], **described}]
    return _rules_of(permission, is_egress, resolve)[0]


def _rules_of(permission: Mapping[str, Any], is_egress: bool, resolve: Resolve) -> list[SecurityGroupRule]:
    protocol = protocol_name(permission.get("IpProtocol"))
    from_port, to_port = _ports(protocol, permission.get("FromPort"), permission.get("ToPort"))
    sources: list[tuple[Mapping[str, str], Mapping[str, Any]]] = []
    for one in permission.get("IpRanges") or ():
        sources.append(({"cidr_ipv4": canonical(one.get("CidrIp"), ipaddress.IPv4Network)}, one))
    for one in permission.get("Ipv6Ranges") or ():
        sources.append(({"cidr_ipv6": canonical(one.get("CidrIpv6"), ipaddress.IPv6Network)}, one))
    for one in permission.get("PrefixListIds") or ():
        sources.append(({"prefix_list_id": one.get("PrefixListId") or ""}, one))
    for one in permission.get("UserIdGroupPairs") or ():
        sources.append((resolve(one), one))
    if not sources:
        raise ApiError(
            "MissingParameter",
            "The request must contain exactly one of: cidrIp, cidrIpv6, prefixListId, or referencedGroupId",
        )
    blank = SecurityGroupRule(id="", is_egress=is_egress, ip_protocol=protocol, from_port=from_port, to_port=to_port)
    return [replace(blank, description=rule_description(one.get("Description")), **peer) for peer, one in sources]


def check_prefix_lists(world: World, rules: Iterable[SecurityGroupRule]) -> None:
    """Raise InvalidPrefixListID.NotFound, or InvalidPrefixListId.Malformed, when a rule names a prefix list that does
    not exist."""
    for rule in rules:
        if rule.prefix_list_id is not None and world.prefix_list(rule.prefix_list_id) is None:
            check_id("pl", rule.prefix_list_id, "InvalidPrefixListId.Malformed")
            raise ApiError("InvalidPrefixListID.NotFound", f"The prefix list ID '{rule.prefix_list_id}' does not exist")


def protocol_name(given: str | None) -> str:
    """`tcp`, `udp`, `icmp`, `icmpv6`, a number in decimal, or `-1`: one spelling for each protocol.

    Raises InvalidParameterValue for anything else (`all`, `esp`, 256 are unknown to the API).
    """
    if not given:
        raise ApiError(
            "InvalidParameterValue",
            "Invalid value 'null' for protocol. VPC security group rules must specify protocols explicitly.",
        )
    name = given.lower()
    if name in WITH_PORTS or name == "-1":
        return name
    if name.isascii() and name.isdigit() and len(name) <= 3 and int(name) <= 255:
        return PROTOCOL_NAMES.get(int(name), str(int(name)))
    raise ApiError("InvalidParameterValue", f"Invalid value '{given}' for IP protocol. Unknown protocol.")


def _ports(protocol: str, from_port: int | None, to_port: int | None) -> tuple[int, int]:
    if protocol in ("tcp", "udp"):
        return _port_range(from_port, to_port)
    if protocol == "icmp" or (protocol == "icmpv6" and not (from_port is None and to_port is None)):
        return _icmp(from_port, to_port)
    return -1, -1


def _port_range(from_port: int | None, to_port: int | None) -> tuple[int, int]:
    if from_port is None or to_port is None:
        raise _bad("Invalid value for portRange. Must specify both from and to ports with TCP/UDP.")
    for side, port in (("from", from_port), ("to", to_port)):
        if not 0 <= port <= 65535:
            raise _bad(f"TCP/UDP ({side}) port ({port}) out of range")
    if from_port > to_port:
        raise _bad(f"Invalid TCP/UDP port range ({from_port}:{to_port}). The from port must not exceed the to port.")
    return from_port, to_port


def _icmp(kind: int | None, code: int | None) -> tuple[int, int]:
    if kind is None or code is None:
        raise _bad("Invalid value for portRange. Must specify both from and to ports with ICMP.")
    for word, value in (("type", kind), ("code", code)):
        if not -1 <= value <= 255:
            raise _bad(f"ICMP {word} ({value}) out of range")
    if kind == -1 and code != -1:
        raise _bad(f"ICMP code ({code}) invalid. With type -1 (all types) the code must be -1 (all codes).")
    return kind, code


def _bad(message: str) -> ApiError:
    return ApiError("InvalidParameterValue", message)


def canonical(cidr: str | None, family: type[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> str:
    """A CIDR block of this family in canonical form: host bits cleared, IPv6 compressed in lower case (RFC 5952).

    Raises InvalidParameterValue for what is no such block; an address without a prefix length is none.
    """
    address, _, length = (cidr or "").partition("/")
    if PREFIX_LENGTH.fullmatch(length) is not None and "%" not in address:
        try:
            return str(family(f"{address}/{length}", strict=False))
        except ValueError:
            pass  # said below, in AWS's words
    raise _bad(f"CIDR block {cidr} is malformed")


def rule_description(given: str | None) -> str:
    """The description of a rule, checked; none is the empty one."""
    description = given or ""
    if DESCRIPTION.fullmatch(description) is None:
        raise _bad(
            "Invalid rule description. Valid descriptions are strings less than 256 characters from the following set:"
            f"  {DESCRIPTION_SET}"
        )
    return description


# -- duplicates --------------------------------------------------------------------------------------------------------


def check_duplicates(group: SecurityGroup, wanted: Sequence[SecurityGroupRule]) -> None:
    """Raise InvalidPermission.Duplicate when the group has one of these rules already."""
    there = {identity(rule) for rule in group.rules}
    for rule in wanted:
        if identity(rule) in there:
            raise duplicate(rule)


def duplicate(rule: SecurityGroupRule) -> ApiError:
    """The refusal of a rule that the group has already."""
    return ApiError("InvalidPermission.Duplicate", f'the specified rule "{_words(rule)}" already exists')


def _words(rule: SecurityGroupRule) -> str:
    if rule.ip_protocol in ("tcp", "udp"):
        what = f"{rule.ip_protocol.upper()}, from port: {rule.from_port}, to port: {rule.to_port}"
    elif rule.ip_protocol in WITH_PORTS:
        kind, code = ("ALL" if value == -1 else str(value) for value in (rule.from_port, rule.to_port))
        what = f"{rule.ip_protocol.upper()}, type: {kind}, code: {code}"
    else:
        what = "ALL" if rule.ip_protocol == "-1" else f"protocol: {rule.ip_protocol}"
    return f"peer: {rule.peer}, {what}, ALLOW"


# -- answers -----------------------------------------------------------------------------------------------------------


def permissions_of(rules: Iterable[SecurityGroupRule], world: World, vpc_id: str) -> list[dict[str, Any]]:
    """Rules of one direction, of groups of this VPC, as IpPermissions: one for each protocol and ports, holding all its
    sources.

    Ports are left out where the protocol has none (DescribeSecurityGroups).
    """
    merged: dict[tuple[str, int, int], dict[str, Any]] = {}
    for rule in rules:
        _, protocol, from_port, to_port, _ = identity(rule)
        permission = merged.get((protocol, from_port, to_port))
        if permission is None:
            ports = {"FromPort": from_port, "ToPort": to_port} if protocol in WITH_PORTS else {}
            permission = merged[protocol, from_port, to_port] = {
                "IpProtocol": protocol,
                **ports,
                "UserIdGroupPairs": [],
                "IpRanges": [],
                "Ipv6Ranges": [],
                "PrefixListIds": [],
            }
        described = {"Description": rule.description} if rule.description else {}
        if rule.cidr_ipv4 is not None:
            permission["IpRanges"].append({"CidrIp": rule.cidr_ipv4, **described})
        elif rule.cidr_ipv6 is not None:
            permission["Ipv6Ranges"].append({"CidrIpv6": rule.cidr_ipv6, **described})
        elif rule.prefix_list_id is not None:
            permission["PrefixListIds"].append({"PrefixListId": rule.prefix_list_id, **described})
        else:
            permission["UserIdGroupPairs"].append(reference_answer(world, vpc_id, rule) | described)
    return list(merged.values())


def rule_item(world: World, group: SecurityGroup, rule: SecurityGroupRule) -> dict[str, Any]:
    """A rule as a SecurityGroupRule of the API: ports are -1 where the protocol has none."""
    arn = f"arn:{world.partition}:ec2:{world.region}:{world.account_id}:security-group-rule/{rule.id}"
    item = _common(group, rule) | {
        "GroupOwnerId": world.account_id,
        "SecurityGroupRuleArn": arn,
        "Tags": tag_list(rule.tags),
    }
    if rule.referenced_group_id is not None:
        item["ReferencedGroupInfo"] = reference_answer(world, group.vpc_id, rule)
    return item


def reference_answer(world: World, vpc_id: str, rule: SecurityGroupRule) -> dict[str, str]:
    """The group that a rule of this VPC refers to, as UserIdGroupPair and ReferencedSecurityGroup have it.

    Beyond a peering: with the connection by which the reference counts, else the one by which it was made.
    """
    answer = {"GroupId": rule.referenced_group_id or "", "UserId": world.account_id}
    if not rule.referenced_vpc_id:
        return answer
    peering = peering_between(world, vpc_id, rule.referenced_vpc_id) or world.peering(rule.peering_id)
    return answer | {
        "VpcId": rule.referenced_vpc_id,
        "VpcPeeringConnectionId": peering.id if peering else rule.peering_id,
        "PeeringStatus": peering.status if peering else "deleted",
    }


def peering_between(world: World, vpc_id: str, other_vpc_id: str) -> VpcPeeringConnection | None:
    """The active peering connection of two VPCs."""
    return next((one for one in world.active_peerings(vpc_id) if one.other(vpc_id) == other_vpc_id), None)


def revoked_item(group: SecurityGroup, rule: SecurityGroupRule) -> dict[str, Any]:
    """A rule as a RevokedSecurityGroupRule of the API."""
    item = _common(group, rule)
    if rule.referenced_group_id is not None:
        item["ReferencedGroupId"] = rule.referenced_group_id
    return item


def _common(group: SecurityGroup, rule: SecurityGroupRule) -> dict[str, Any]:
    _, protocol, from_port, to_port, _ = identity(rule)
    item: dict[str, Any] = {
        "SecurityGroupRuleId": rule.id,
        "GroupId": group.id,
        "IsEgress": rule.is_egress,
        "IpProtocol": protocol,
        "FromPort": from_port,
        "ToPort": to_port,
    }
    if rule.cidr_ipv4 is not None:
        item["CidrIpv4"] = rule.cidr_ipv4
    if rule.cidr_ipv6 is not None:
        item["CidrIpv6"] = rule.cidr_ipv6
    if rule.prefix_list_id is not None:
        item["PrefixListId"] = rule.prefix_list_id
    if rule.description:
        item["Description"] = rule.description
    return item
