"""What must hold in a World: whole, and, after a Change, for what the Change can have broken.

Both run the same checks of single resources. The whole check runs them for all, `check_change` for those touched and
for those that refer to what was touched; `tests/unit/test_change.py` proves that both refuse the same Worlds.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from wicketgate.model.errors import WorldError

if TYPE_CHECKING:  # World itself calls us
    from wicketgate.model.resources import (
        Endpoint,
        NetworkInterface,
        Role,
        SecurityGroup,
        SecurityGroupRule,
        Subnet,
        User,
        UserGroup,
    )
    from wicketgate.model.world import World

NETWORK = ("vpcs", "subnets", "groups", "interfaces", "instances", "endpoints")
IDENTITY = ("users", "user_groups", "roles", "managed_policies", "access_keys")
"""Fields of the World whose resources refer to one another, but not to those of NETWORK."""

_LINK = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,14}")
_ID = re.compile(r"[A-Za-z0-9-]{1,64}")
_RESERVED_LINKS = frozenset({"lo", "all", "default", "void", "void-peer"})
_PREFIXES = {"vpcs": "vpc-", "interfaces": "eni-", "instances": "i-", "endpoints": "eice-"}
"""Field -> how its ids begin: netd, which is root, makes names of namespaces and files of them."""


def check_world(world: World) -> None:
    """Raise WorldError for the first contradiction: a dangling id, an address outside its subnet, a duplicate."""
    for kind in (*NETWORK, "access_keys", "pushed_keys"):
        ids = [thing.id for thing in getattr(world, kind)]
        if len(ids) != len(set(ids)):
            raise WorldError(f"{kind}: {Counter(ids).most_common(1)[0][0]} exists twice")
    _check_network(world, {kind: getattr(world, kind) for kind in NETWORK})
    _check_identity(world)


def check_change(world: World, before: World, touched: Mapping[str, Collection[str]]) -> None:
    """The same for a World made from `before`, which was checked, by putting or deleting what `touched` names.

    `touched`: field of the World -> ids.
    """
    vpcs, subnets, groups, interfaces, instances, endpoints = (set(touched.get(kind, ())) for kind in NETWORK)
    if vpcs:
        subnets |= {one.id for one in world.subnets if one.vpc_id in vpcs}
        groups |= {one.id for one in world.groups if one.vpc_id in vpcs}
    # Who names a group asks only that it is there and in which VPC, so a change of its rules concerns nobody else.
    moved = {one for one in groups if _vpc_of_group(before, one) not in (None, _vpc_of_group(world, one))}
    if moved:
        groups |= {one.id for one in world.groups if any(rule.referenced_group_id in moved for rule in one.rules)}
    if subnets or moved:
        interfaces |= {
            one.id for one in world.interfaces if one.subnet_id in subnets or not moved.isdisjoint(one.group_ids)
        }
    if interfaces:
        instances |= {one.id for one in world.instances if one.interface_id in interfaces}
    if interfaces or subnets:
        endpoints |= {one.id for one in world.endpoints if one.interface_id in interfaces or one.subnet_id in subnets}
    concerned = dict(zip(NETWORK, (vpcs, subnets, groups, interfaces, instances, endpoints), strict=True))
    _check_network(
        world,
        {
            kind: [one for key in keys if (one := world.by_id(kind).get(key)) is not None]
            for kind, keys in concerned.items()
        },
    )
    if not touched.keys().isdisjoint(IDENTITY):
        _check_identity(world)


def _vpc_of_group(world: World, group_id: str) -> str | None:
    group = world.group(group_id)
    return None if group is None else group.vpc_id


def _check_network(world: World, concerned: Mapping[str, Collection[Any]]) -> None:
    """Check these resources (field of the World -> resources), in an order in which each may rely on those before."""
    for kind in ("vpcs", "subnets", "interfaces", "instances", "endpoints"):
        for one in concerned[kind]:
            _check_id(kind, one.id)
    for vpc in concerned["vpcs"]:
        _ipv4_network(vpc.id, vpc.cidr_block)
    for subnet in concerned["subnets"]:
        _check_subnet(world, subnet)
    for vpc_id in {subnet.vpc_id for subnet in concerned["subnets"]}:
        _check_overlap(world, vpc_id)
    for group in concerned["groups"]:
        _check_group(world, group)
    for eni in concerned["interfaces"]:
        _check_interface(world, eni)
    if concerned["interfaces"]:
        _check_places(world, concerned["interfaces"])
    for owner in (*concerned["instances"], *concerned["endpoints"]):
        if world.interface(owner.interface_id) is None:
            raise WorldError(f"{owner.id}: interface {owner.interface_id} does not exist")
    for endpoint in concerned["endpoints"]:
        _check_endpoint(world, endpoint)
    if concerned["endpoints"]:
        _check_indexes(world, concerned["endpoints"])


def _check_id(kind: str, resource_id: str) -> None:
    prefix = _PREFIXES.get(kind, "")
    if not _ID.fullmatch(resource_id) or not resource_id.startswith(prefix):
        raise WorldError(f"{kind}: {resource_id!r}: an id is {prefix} and letters, digits and hyphens")


# -- ranges ------------------------------------------------------------------------------------------------------------


def _check_subnet(world: World, subnet: Subnet) -> None:
    parent = world.vpc(subnet.vpc_id)
    if parent is None:
        raise WorldError(f"subnet {subnet.id}: VPC {subnet.vpc_id} does not exist")
    if not _ipv4_network(subnet.id, subnet.cidr_block).subnet_of(_ipv4_network(parent.id, parent.cidr_block)):
        raise WorldError(f"subnet {subnet.id}: {subnet.cidr_block} is not inside {parent.cidr_block}")


def _check_overlap(world: World, vpc_id: str) -> None:
    """Ranges nest or are apart: sorted, one that overlaps any other overlaps its neighbour."""
    ranges = sorted((one.network, one.id) for one in world.subnets if one.vpc_id == vpc_id)
    for (network, subnet_id), (other, other_id) in pairwise(ranges):
        if network.overlaps(other):
            raise WorldError(f"subnet {other_id}: {other} overlaps {subnet_id}")


def _ipv4_network(owner: str, text: str) -> ipaddress.IPv4Network:
    try:
        return ipaddress.IPv4Network(text)
    except ValueError as error:
        raise WorldError(f"{owner}: {text!r} is no IPv4 range: {error}") from error


# -- groups ------------------------------------------------------------------------------------------------------------


def _check_group(world: World, group: SecurityGroup) -> None:
    if not _ID.fullmatch(group.id):
        raise WorldError(f"group {group.id!r}: an id has letters, digits and hyphens")
    if world.vpc(group.vpc_id) is None:
        raise WorldError(f"group {group.id}: VPC {group.vpc_id} does not exist")
    for rule in group.rules:
        peers = [p for p in (rule.cidr_ipv4, rule.cidr_ipv6, rule.referenced_group_id) if p is not None]
        if len(peers) != 1:
            raise WorldError(f"rule {rule.id}: exactly one of cidr_ipv4, cidr_ipv6, referenced_group_id is needed")
        _check_rule(rule)
        if rule.referenced_group_id is not None:
            other = world.group(rule.referenced_group_id)
            if other is None or other.vpc_id != group.vpc_id:
                raise WorldError(f"rule {rule.id}: group {rule.referenced_group_id} does not exist in {group.vpc_id}")


def _check_rule(rule: SecurityGroupRule) -> None:
    """Protocol, ports and range are such as can be enforced."""
    named = rule.ip_protocol in ("-1", "tcp", "udp", "icmp", "icmpv6")
    numbered = rule.ip_protocol.isascii() and rule.ip_protocol.isdecimal()
    if not named and not (numbered and int(rule.ip_protocol) <= 255):
        raise WorldError(f"rule {rule.id}: {rule.ip_protocol!r} is no protocol: a name, -1 or a number to 255")
    if rule.ip_protocol in ("tcp", "udp", "6", "17") and not 0 <= rule.from_port <= rule.to_port <= 65535:
        raise WorldError(f"rule {rule.id}: {rule.from_port}-{rule.to_port} is no port range within 0-65535")
    if not _ID.fullmatch(rule.id):
        raise WorldError(f"rule {rule.id!r}: an id has letters, digits and hyphens")
    text = rule.cidr_ipv4 or rule.cidr_ipv6
    if text is None:
        return
    if "%" in text:  # Python takes anything for an IPv6 zone, and netd writes ranges into nft commands
        raise WorldError(f"rule {rule.id}: {text!r} is no address range: it has a zone")
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise WorldError(f"rule {rule.id}: {text!r} is no address range: {error}") from error
    if network.version != (4 if rule.cidr_ipv4 else 6):
        raise WorldError(f"rule {rule.id}: {text} is of the other address family")


# -- interfaces, and what has one --------------------------------------------------------------------------------------


def _check_interface(world: World, eni: NetworkInterface) -> None:
    subnet = world.subnet(eni.subnet_id)
    if subnet is None:
        raise WorldError(f"interface {eni.id}: subnet {eni.subnet_id} does not exist")
    if not _LINK.fullmatch(eni.link) or eni.link in _RESERVED_LINKS:
        raise WorldError(f"interface {eni.id}: {eni.link!r} cannot be a link's name")
    _check_address(eni, subnet)
    if not eni.group_ids:
        raise WorldError(f"interface {eni.id}: a network interface carries at least one security group")
    for group_id in eni.group_ids:
        if _vpc_of_group(world, group_id) != subnet.vpc_id:
            raise WorldError(f"interface {eni.id}: group {group_id} does not exist in {subnet.vpc_id}")


def _check_address(eni: NetworkInterface, subnet: Subnet) -> None:
    """The address is one of the subnet's that an interface may hold: not its base, router or broadcast address."""
    network, text = subnet.network, eni.private_ip_address
    try:
        address = ipaddress.IPv4Address(text)
    except ValueError as error:
        raise WorldError(f"interface {eni.id}: {text!r} is no IPv4 address") from error
    if address not in network:
        raise WorldError(f"interface {eni.id}: {text} is not inside {subnet.cidr_block}")
    if text in (str(network.network_address), subnet.router_address, str(network.broadcast_address)):
        raise WorldError(f"interface {eni.id}: {text} is reserved in {subnet.cidr_block}")


def _check_places(world: World, interfaces: Iterable[NetworkInterface]) -> None:
    """No other interface of the VPC has the address or the link of one of these."""
    vpc_of = {subnet.id: subnet.vpc_id for subnet in world.subnets}
    for what, field in (("address", "private_ip_address"), ("link", "link")):
        taken = Counter((vpc_of[eni.subnet_id], getattr(eni, field)) for eni in world.interfaces)
        for eni in interfaces:
            vpc_id, value = vpc_of[eni.subnet_id], getattr(eni, field)
            if taken[vpc_id, value] > 1:
                raise WorldError(f"interface {eni.id}: {what} {value} is taken in {vpc_id}")


def _check_endpoint(world: World, endpoint: Endpoint) -> None:
    if world.subnet(endpoint.subnet_id) is None:
        raise WorldError(f"{endpoint.id}: subnet {endpoint.subnet_id} does not exist")
    if not 1 <= endpoint.index <= 4095:
        raise WorldError(f"{endpoint.id}: index {endpoint.index} is not within 1-4095")
    interface = world.by_id("interfaces")[endpoint.interface_id]
    vpc = world.vpc_of_subnet(endpoint.subnet_id)
    if world.vpc_of_subnet(interface.subnet_id) is not vpc:
        raise WorldError(f"{endpoint.id}: interface {interface.id} is not in {vpc.id}")


def _check_indexes(world: World, endpoints: Iterable[Endpoint]) -> None:
    """No other endpoint of the VPC has the index of one of these."""
    vpc_of = {subnet.id: subnet.vpc_id for subnet in world.subnets}
    taken = Counter((vpc_of[endpoint.subnet_id], endpoint.index) for endpoint in world.endpoints)
    for endpoint in endpoints:
        vpc_id = vpc_of[endpoint.subnet_id]
        if taken[vpc_id, endpoint.index] > 1:
            raise WorldError(f"{endpoint.id}: index {endpoint.index} is taken in {vpc_id}")


# -- identities --------------------------------------------------------------------------------------------------------


def _check_identity(world: World) -> None:
    """Names are unique without regard to case, as IAM has it; what is referred to exists."""
    for kind in ("users", "user_groups", "roles", "managed_policies"):
        names = [one.name.lower() for one in getattr(world, kind)]
        if len(names) != len(set(names)):
            twice = next(name for name in names if names.count(name) > 1)
            raise WorldError(f"{kind}: the name {twice} exists twice")
    owners: list[User | UserGroup | Role] = [*world.users, *world.user_groups, *world.roles]
    for owner in owners:
        for arn in owner.attached:
            if world.managed_policy(arn) is None:
                raise WorldError(f"{owner.name}: policy {arn} does not exist")
    for user in world.users:
        for name in user.groups:
            if world.user_group(name) is None:
                raise WorldError(f"user {user.name}: group {name} does not exist")
    for policy in world.managed_policies:
        if all(version.id != policy.default_version for version in policy.versions):
            raise WorldError(f"policy {policy.arn}: version {policy.default_version} does not exist")
    for key in world.access_keys:
        if key.role_name and world.role(key.role_name) is None:
            raise WorldError(f"access key {key.id}: role {key.role_name} does not exist")
        if key.user_name and world.user(key.user_name) is None:
            raise WorldError(f"access key {key.id}: user {key.user_name} does not exist")
