"""What must hold in a World: whole, and, after a Change, for what the Change can have broken.

Both run the same checks of single resources. The whole check runs them for all, `check_change` for those touched and
for those that refer to what was touched; `tests/unit/test_change.py` proves that both refuse the same Worlds.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

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
        Vpc,
    )
    from wicketgate.model.routing import PrefixList, RouteTable, VpcPeeringConnection
    from wicketgate.model.world import World

NETWORK = (
    "vpcs",
    "subnets",
    "prefix_lists",
    "groups",
    "interfaces",
    "instances",
    "endpoints",
    "peerings",
    "route_tables",
)
INSIGHTS = ("insights_paths", "insights_analyses")
"""Fields of what asks about the network; what was asked about may be gone."""
IDENTITY = ("users", "user_groups", "roles", "managed_policies", "access_keys")
"""Fields of the World whose resources refer to one another, but not to those of NETWORK."""

MOST_ENTRIES = 1000
"""Entries that a prefix list may hold (VPC User Guide, managed prefix lists)."""
_TIMEOUTS = {"tcp_established": (60, 432_000), "udp_stream": (60, 180), "udp": (30, 60)}
"""Seconds that may be asked for (EC2 API, ConnectionTrackingSpecificationRequest)."""
_NUMBERS = frozenset(map(str, range(256)))
_ICMP = frozenset({"icmp", "icmpv6", "1", "58"})
_LINK = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,14}")
_ID = re.compile(r"[A-Za-z0-9-]{1,64}")
_RESERVED_LINKS = frozenset({"lo", "all", "default", "void", "void-peer"})
_PREFIXES = {
    "vpcs": "vpc-",
    "prefix_lists": "pl-",
    "groups": "sg-",
    "interfaces": "eni-",
    "instances": "i-",
    "endpoints": "eice-",
}
"""Field -> how its ids begin: netd, which is root, makes names of namespaces, files, chains and sets of them, and no
two may share one."""


def check_world(world: World) -> None:
    """Raise WorldError for the first contradiction: a dangling id, an address outside its subnet, a duplicate."""
    for kind in (*NETWORK, *INSIGHTS, "access_keys", "pushed_keys", "machine_credentials", "prefix_list_versions"):
        ids = [thing.id for thing in getattr(world, kind)]
        if len(ids) != len(set(ids)):
            raise WorldError(f"{kind}: {Counter(ids).most_common(1)[0][0]} exists twice")
    _check_network(world, {kind: getattr(world, kind) for kind in NETWORK})
    _check_insights(world)
    _check_identity(world)


def check_change(world: World, before: World, touched: Mapping[str, Collection[str]]) -> None:
    """The same for a World made from `before`, which was checked, by putting or deleting what `touched` names.

    `touched`: field of the World -> ids.
    """
    ids = {kind: set(touched.get(kind, ())) for kind in NETWORK}
    vpcs, subnets, groups, interfaces = ids["vpcs"], ids["subnets"], ids["groups"], ids["interfaces"]
    if vpcs:
        subnets |= {one.id for one in world.subnets if one.vpc_id in vpcs}
        groups |= {one.id for one in world.groups if one.vpc_id in vpcs}
        ids["peerings"] |= {one.id for one in world.peerings if vpcs & {one.requester_vpc_id, one.accepter_vpc_id}}
        ids["route_tables"] |= {one.id for one in world.route_tables if one.vpc_id in vpcs}
    # Who names a list asks only that it is there.
    gone = {one for one in ids["prefix_lists"] if world.prefix_list(one) is None}
    if gone:
        groups |= {one.id for list_id in gone for one in world.groups_naming(list_id)}
    # Who names a group asks only that it is there and in which VPC, so a change of its rules concerns nobody else.
    moved = {one for one in groups if _vpc_of_group(before, one) not in (None, _vpc_of_group(world, one))}
    if moved:
        groups |= {one.id for one in world.groups if any(rule.referenced_group_id in moved for rule in one.rules)}
    if subnets or moved:
        interfaces |= {
            one.id for one in world.interfaces if one.subnet_id in subnets or not moved.isdisjoint(one.group_ids)
        }
    if interfaces:
        owners = (world.instance_by_first_interface(key) for key in interfaces)
        ids["instances"] |= {owner.id for owner in owners if owner is not None}
        ids["instances"] |= {one.attached_to for key in interfaces if (one := world.interface(key)) is not None}
    # A further interface depends on its instance, on the place of its first interface and on the other ones.
    interfaces |= {one.id for key in ids["instances"] for one in world.further_interfaces(key)}
    if interfaces or subnets:
        ids["endpoints"] |= {
            one.id for one in world.endpoints if one.interface_id in interfaces or one.subnet_id in subnets
        }
    if subnets:
        ids["route_tables"] |= {one.id for one in world.route_tables if not subnets.isdisjoint(one.subnet_ids)}
    _check_network(
        world,
        {kind: [one for key in keys if (one := world.by_id(kind).get(key)) is not None] for kind, keys in ids.items()},
        before,
    )
    if not touched.keys().isdisjoint(INSIGHTS):
        _check_insights(world)
    if not touched.keys().isdisjoint(IDENTITY):
        _check_identity(world)


def _vpc_of_group(world: World, group_id: str) -> str | None:
    group = world.group(group_id)
    return None if group is None else group.vpc_id


def _check_network(world: World, concerned: Mapping[str, Collection[Any]], before: World | None = None) -> None:
    """Check these resources (field of the World -> resources), in an order in which each may rely on those before.

    What is in `before` too, which was checked, is looked at again only as far as it depends on anything else.
    """
    for kind in ("vpcs", "subnets", "prefix_lists", "groups", "interfaces", "instances", "endpoints"):
        for one in concerned[kind]:
            _check_id(kind, one.id)
    for vpc in concerned["vpcs"]:
        _check_vpc(vpc)
    for prefix_list in concerned["prefix_lists"]:
        _check_prefix_list(prefix_list)
    for subnet in concerned["subnets"]:
        _check_subnet(world, subnet)
    for vpc_id in {subnet.vpc_id for subnet in concerned["subnets"]}:
        _check_overlap(world, vpc_id)
    for group in concerned["groups"]:
        _check_group(world, group, None if before is None else before.group(group.id))
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
    for peering in concerned["peerings"]:
        _check_peering(world, peering)
    for table in concerned["route_tables"]:
        _check_route_table(world, table)
    for vpc_id in {table.vpc_id for table in concerned["route_tables"]}:
        _check_associations(world, vpc_id)


def _check_id(kind: str, resource_id: str) -> None:
    prefix = _PREFIXES.get(kind, "")
    if not _ID.fullmatch(resource_id) or not resource_id.startswith(prefix):
        raise WorldError(f"{kind}: {resource_id!r}: an id is {prefix} and letters, digits and hyphens")


# -- ranges ------------------------------------------------------------------------------------------------------------


def _check_vpc(vpc: Vpc) -> None:
    _check_room(vpc.id, _network(4, vpc.id, vpc.cidr_block))
    for text in vpc.ipv6_cidr_blocks:
        _network(6, vpc.id, text)


def _check_subnet(world: World, subnet: Subnet) -> None:
    parent = world.vpc(subnet.vpc_id)
    if parent is None:
        raise WorldError(f"subnet {subnet.id}: VPC {subnet.vpc_id} does not exist")
    if not subnet.cidr_block and not subnet.ipv6_cidr_block:
        raise WorldError(f"subnet {subnet.id}: it has no range")
    if subnet.cidr_block and not _within(subnet.id, 4, subnet.cidr_block, [parent.cidr_block]):
        raise WorldError(f"subnet {subnet.id}: {subnet.cidr_block} is not inside {parent.cidr_block}")
    if subnet.ipv6_cidr_block and not _within(subnet.id, 6, subnet.ipv6_cidr_block, parent.ipv6_cidr_blocks):
        inside = " or ".join(parent.ipv6_cidr_blocks) or f"an IPv6 range of {parent.id}, which has none"
        raise WorldError(f"subnet {subnet.id}: {subnet.ipv6_cidr_block} is not inside {inside}")
    for network in (subnet.network, subnet.ipv6_network):
        if network is not None:
            _check_room(f"subnet {subnet.id}", network)


def _check_room(owner: str, network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> None:
    """The router and the DNS server have the first addresses after the base."""
    if network.num_addresses < 4:
        raise WorldError(f"{owner}: {network} has no room for the router's addresses")


def _check_overlap(world: World, vpc_id: str) -> None:
    """Ranges nest or are apart: sorted, one that overlaps any other overlaps its neighbour."""
    there = [one for one in world.subnets if one.vpc_id == vpc_id]
    _check_apart([(one.network, one.id) for one in there if one.network is not None])
    _check_apart([(one.ipv6_network, one.id) for one in there if one.ipv6_network is not None])


def _check_apart(ranges: list[tuple[_Network, str]]) -> None:
    for (network, subnet_id), (other, other_id) in pairwise(sorted(ranges)):
        if network.overlaps(other):
            raise WorldError(f"subnet {other_id}: {other} overlaps {subnet_id}")


_Network = TypeVar("_Network", ipaddress.IPv4Network, ipaddress.IPv6Network)


def _network(version: int, owner: str, text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return _parsed(version, text)
    except ValueError as error:
        raise WorldError(f"{owner}: {text!r} is no IPv{version} range: {error}") from error


@lru_cache(maxsize=4096)
def _parsed(version: int, text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """A range by its text: the same few come again and again, and each would take 10 us."""
    if "%" in text:  # Python takes anything for an IPv6 zone, and netd writes ranges into commands
        raise ValueError("it has a zone")
    return ipaddress.IPv4Network(text) if version == 4 else ipaddress.IPv6Network(text)


def _within(owner: str, version: int, text: str, parents: Iterable[str]) -> bool:
    inner = _network(version, owner, text)
    outer = [_network(version, owner, parent) for parent in parents]
    return any(inner.prefixlen >= one.prefixlen and inner.network_address in one for one in outer)


def _check_prefix_list(prefix_list: PrefixList) -> None:
    version = 4 if prefix_list.address_family == "IPv4" else 6
    if not 1 <= prefix_list.max_entries <= MOST_ENTRIES:
        raise WorldError(
            f"prefix list {prefix_list.id}: {prefix_list.max_entries} entries are not within 1-{MOST_ENTRIES}"
        )
    ranges = [_network(version, prefix_list.id, entry.cidr) for entry in prefix_list.entries]
    if len(ranges) != len(set(ranges)):
        raise WorldError(f"prefix list {prefix_list.id}: {Counter(ranges).most_common(1)[0][0]} is in it twice")


# -- groups ------------------------------------------------------------------------------------------------------------


def _check_group(world: World, group: SecurityGroup, before: SecurityGroup | None) -> None:
    if world.vpc(group.vpc_id) is None:
        raise WorldError(f"group {group.id}: VPC {group.vpc_id} does not exist")
    known = {} if before is None else {rule.id: rule for rule in before.rules}
    for rule in group.rules:
        if known.get(rule.id) != rule:
            _check_rule(rule)
        if rule.prefix_list_id is not None and world.prefix_list(rule.prefix_list_id) is None:
            raise WorldError(f"rule {rule.id}: prefix list {rule.prefix_list_id} does not exist")
        if rule.referenced_group_id is not None:
            _check_reference(world, group, rule)


def _check_reference(world: World, group: SecurityGroup, rule: SecurityGroupRule) -> None:
    """A reference within the VPC exists; one into a peered VPC may be stale."""
    here = rule.referenced_vpc_id in ("", group.vpc_id)
    if here and _vpc_of_group(world, rule.referenced_group_id or "") != group.vpc_id:
        raise WorldError(f"rule {rule.id}: group {rule.referenced_group_id} does not exist in {group.vpc_id}")
    if not _ID.fullmatch(rule.referenced_group_id or ""):
        raise WorldError(f"rule {rule.id}: {rule.referenced_group_id!r}: an id has letters, digits and hyphens")


def _check_rule(rule: SecurityGroupRule) -> None:
    """Protocol, ports and range are such as can be enforced; what it refers to is not looked at."""
    peers = (rule.cidr_ipv4, rule.cidr_ipv6, rule.prefix_list_id, rule.referenced_group_id)
    if sum(peer is not None for peer in peers) != 1:
        raise WorldError(
            f"rule {rule.id}: exactly one of cidr_ipv4, cidr_ipv6, prefix_list_id, referenced_group_id is needed"
        )
    named = rule.ip_protocol in ("-1", "tcp", "udp", "icmp", "icmpv6")
    # As everybody writes it: `06` would be TCP to some readers and to others not.
    if not named and rule.ip_protocol not in _NUMBERS:
        raise WorldError(f"rule {rule.id}: {rule.ip_protocol!r} is no protocol: a name, -1 or a number to 255")
    if rule.ip_protocol in ("tcp", "udp", "6", "17") and not 0 <= rule.from_port <= rule.to_port <= 65535:
        raise WorldError(f"rule {rule.id}: {rule.from_port}-{rule.to_port} is no port range within 0-65535")
    if rule.ip_protocol in _ICMP and not (-1 <= rule.from_port <= 255 and -1 <= rule.to_port <= 255):
        raise WorldError(f"rule {rule.id}: {rule.from_port}, {rule.to_port} are no type and code of ICMP")
    if not _ID.fullmatch(rule.id):
        raise WorldError(f"rule {rule.id!r}: an id has letters, digits and hyphens")
    if rule.cidr_ipv4 is not None:
        _network(4, f"rule {rule.id}", rule.cidr_ipv4)
    if rule.cidr_ipv6 is not None:
        _network(6, f"rule {rule.id}", rule.cidr_ipv6)


# -- interfaces, and what has one --------------------------------------------------------------------------------------


def _check_interface(world: World, eni: NetworkInterface) -> None:
    subnet = world.subnet(eni.subnet_id)
    if subnet is None:
        raise WorldError(f"interface {eni.id}: subnet {eni.subnet_id} does not exist")
    if not _LINK.fullmatch(eni.link) or eni.link in _RESERVED_LINKS:
        raise WorldError(f"interface {eni.id}: {eni.link!r} cannot be a link's name")
    _check_addresses(eni, subnet)
    _check_timeouts(eni)
    if eni.attached_to:
        _check_attachment(world, eni, subnet)
    if not eni.group_ids:
        raise WorldError(f"interface {eni.id}: a network interface carries at least one security group")
    for group_id in eni.group_ids:
        if _vpc_of_group(world, group_id) != subnet.vpc_id:
            raise WorldError(f"interface {eni.id}: group {group_id} does not exist in {subnet.vpc_id}")


def _check_timeouts(eni: NetworkInterface) -> None:
    for name, (least, most) in _TIMEOUTS.items():
        seconds = getattr(eni.connection_tracking, name, None)
        if seconds is not None and not least <= seconds <= most:
            raise WorldError(f"interface {eni.id}: {name} of {seconds} s is not within {least}-{most}")


def _check_attachment(world: World, eni: NetworkInterface, subnet: Subnet) -> None:
    instance = world.instance(eni.attached_to)
    first = None if instance is None else world.interface(instance.interface_id)
    if instance is None or first is None or first.id == eni.id:
        raise WorldError(f"interface {eni.id}: instance {eni.attached_to} has no other interface beside which it is")
    place = world.subnet(first.subnet_id)
    if place is None or place.vpc_id != subnet.vpc_id:
        raise WorldError(f"interface {eni.id}: instance {instance.id} is not in {subnet.vpc_id}")
    taken = [one.device_index for one in world.interfaces_of_instance(instance) if one.id != eni.id]
    if eni.device_index < 1 or eni.device_index in taken:
        raise WorldError(f"interface {eni.id}: device index {eni.device_index} is taken on {instance.id}, or below 1")


def _check_addresses(eni: NetworkInterface, subnet: Subnet) -> None:
    """The addresses are of the subnet's that an interface may hold: not its base, router or broadcast address."""
    network, six = subnet.network, subnet.ipv6_network
    if network is None and eni.private_ip_address:
        raise WorldError(f"interface {eni.id}: {subnet.id} has no IPv4 range")
    if not eni.addresses or (eni.secondary_ip_addresses and not eni.private_ip_address):
        raise WorldError(f"interface {eni.id}: it has no primary address")
    for text in (*((eni.private_ip_address,) if eni.private_ip_address else ()), *eni.secondary_ip_addresses):
        if network is None or _address(4, eni.id, text) not in network:
            raise WorldError(f"interface {eni.id}: {text} is not inside {subnet.cidr_block}")
        if text in (str(network.network_address), subnet.router_address, str(network.broadcast_address)):
            raise WorldError(f"interface {eni.id}: {text} is reserved in {subnet.cidr_block}")
    for text in eni.ipv6_addresses:
        if six is None or _address(6, eni.id, text) not in six:
            raise WorldError(f"interface {eni.id}: {text} is not inside {subnet.ipv6_cidr_block or 'an IPv6 range'}")
        if text in (str(six.network_address), str(six.network_address + 1)):
            raise WorldError(f"interface {eni.id}: {text} is reserved in {subnet.ipv6_cidr_block}")


def _address(version: int, owner: str, text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An address in canonical form: netd writes it into commands, and look-ups are by its text."""
    try:
        address = ipaddress.IPv4Address(text) if version == 4 else ipaddress.IPv6Address(text)
    except ValueError as error:
        raise WorldError(f"interface {owner}: {text!r} is no IPv{version} address") from error
    if str(address) != text or "%" in text:
        raise WorldError(f"interface {owner}: {text!r} is not the canonical form of an address")
    return address


def _check_places(world: World, interfaces: Iterable[NetworkInterface]) -> None:
    """No other interface of the VPC has an address or the link of one of these, and no peering connection the link."""
    for eni in interfaces:
        vpc_id = world.vpc_of_subnet(eni.subnet_id).id
        taken = [f"address {one}" for one in eni.addresses if len(world.holders(vpc_id, one)) > 1]
        peered = any(one.link == eni.link for one in world.active_peerings(vpc_id))
        taken += [f"link {eni.link}"] if peered or len(world.interfaces_on_link(vpc_id, eni.link)) > 1 else []
        if taken:
            raise WorldError(f"interface {eni.id}: {taken[0]} is taken in {vpc_id}")


def _check_endpoint(world: World, endpoint: Endpoint) -> None:
    if world.subnet(endpoint.subnet_id) is None:
        raise WorldError(f"{endpoint.id}: subnet {endpoint.subnet_id} does not exist")
    if not 1 <= endpoint.index <= 4095:
        raise WorldError(f"{endpoint.id}: index {endpoint.index} is not within 1-4095")
    interface = world.by_id("interfaces")[endpoint.interface_id]
    vpc = world.vpc_of_subnet(endpoint.subnet_id)
    if world.vpc_of_subnet(interface.subnet_id) is not vpc:
        raise WorldError(f"{endpoint.id}: interface {interface.id} is not in {vpc.id}")
    if endpoint.ip_address_type != "ipv6" and not interface.private_ip_address:
        raise WorldError(f"{endpoint.id}: interface {interface.id} has no IPv4 address")
    if endpoint.ip_address_type != "ipv4" and not interface.ipv6_addresses:
        raise WorldError(f"{endpoint.id}: interface {interface.id} has no IPv6 address")


def _check_indexes(world: World, endpoints: Iterable[Endpoint]) -> None:
    """No other endpoint of the VPC has the index of one of these."""
    vpc_of = {subnet.id: subnet.vpc_id for subnet in world.subnets}
    taken = Counter((vpc_of[endpoint.subnet_id], endpoint.index) for endpoint in world.endpoints)
    for endpoint in endpoints:
        vpc_id = vpc_of[endpoint.subnet_id]
        if taken[vpc_id, endpoint.index] > 1:
            raise WorldError(f"{endpoint.id}: index {endpoint.index} is taken in {vpc_id}")


# -- beyond one VPC ----------------------------------------------------------------------------------------------------


def _check_peering(world: World, peering: VpcPeeringConnection) -> None:
    if not _ID.fullmatch(peering.id):
        raise WorldError(f"peering {peering.id!r}: an id has letters, digits and hyphens")
    if not _LINK.fullmatch(peering.link) or peering.link in _RESERVED_LINKS:
        raise WorldError(f"peering {peering.id}: {peering.link!r} cannot be a link's name")
    if peering.status not in ("pending-acceptance", "active"):
        return
    ends = [world.vpc(vpc_id) for vpc_id in (peering.requester_vpc_id, peering.accepter_vpc_id)]
    if ends[0] is None or ends[1] is None or ends[0] is ends[1]:
        raise WorldError(f"peering {peering.id}: it needs two VPCs that exist")
    if peering.status == "active":
        _check_active(world, peering, ends[0], ends[1])


def _check_active(world: World, peering: VpcPeeringConnection, one: Vpc, other: Vpc) -> None:
    if any(a.version == b.version and a.overlaps(b) for a in one.networks for b in other.networks):
        raise WorldError(f"peering {peering.id}: the ranges of {one.id} and {other.id} overlap")
    for vpc_id in (one.id, other.id):
        rivals = [found for found in world.active_peerings(vpc_id) if found.id != peering.id]
        if any(found.other(vpc_id) == peering.other(vpc_id) for found in rivals):
            raise WorldError(f"peering {peering.id}: {one.id} and {other.id} have another one")
        taken = {found.link for found in rivals} | {eni.link for eni in world.interfaces_of_vpc(vpc_id)}
        if peering.link in taken:
            raise WorldError(f"peering {peering.id}: link {peering.link} is taken in {vpc_id}")


def _check_route_table(world: World, table: RouteTable) -> None:
    if world.vpc(table.vpc_id) is None:
        raise WorldError(f"route table {table.id}: VPC {table.vpc_id} does not exist")
    for subnet_id in table.subnet_ids:
        subnet = world.subnet(subnet_id)
        if subnet is None or subnet.vpc_id != table.vpc_id:
            raise WorldError(f"route table {table.id}: subnet {subnet_id} does not exist in {table.vpc_id}")
    destinations = [
        _network(6 if ":" in route.destination else 4, table.id, route.destination) for route in table.routes
    ]
    if len(destinations) != len(set(destinations)):
        raise WorldError(f"route table {table.id}: {Counter(destinations).most_common(1)[0][0]} is in it twice")


def _check_associations(world: World, vpc_id: str) -> None:
    """A VPC has at most one main table, and a subnet at most one of its own."""
    there = [one for one in world.route_tables if one.vpc_id == vpc_id]
    if sum(one.main for one in there) > 1:
        raise WorldError(f"{vpc_id}: it has two main route tables")
    taken = Counter(subnet_id for one in there for subnet_id in one.subnet_ids)
    for subnet_id, count in taken.items():
        if count > 1:
            raise WorldError(f"subnet {subnet_id}: it is associated with two route tables")


def _check_insights(world: World) -> None:
    """An analysis is of a path that exists."""
    for one in world.insights_analyses:
        if world.insights_path(one.path_id) is None:
            raise WorldError(f"analysis {one.id}: path {one.path_id} does not exist")


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
