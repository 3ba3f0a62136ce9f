"""VPC peering connections as links between routers, and the routes that lead there.

One veth for an active connection, of the same name in both VPCs' namespaces. Neither end has an address: the other one
is reached by a permanent neighbour entry, the same for both families.

    priority 5000  to the VPC's own ranges: main, the local route, before all others
    priority 5001  from a subnet: the table of its route table
    priority 5002  what the router itself sends, such as ICMP errors: to every peered VPC
"""

from __future__ import annotations

import ipaddress
import zlib
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from wicketgate.kernel import conntrack, ip, netns
from wicketgate.kernel.router import VOID
from wicketgate.model import Vpc, World
from wicketgate.model.routing import RouteTable, VpcPeeringConnection

LOCAL, SUBNET, ROUTER = 5000, 5001, 5002
"""Priorities of rules."""
MAIN_TABLE, ROUTER_TABLE, FIRST_TABLE = 254, 1000, 0x40000000
"""Route tables have numbers from the last one on, ways back to endpoints those after the one before."""

ALIAS = "peering|"
"""How the aliases of peering links begin."""
NEXT_HOP = "fe80::2"
"""What the other end is called on a peering link."""
_MACS = ("02:00:00:00:00:01", "02:00:00:00:00:02")
"""Of the requester's end and of the accepter's."""

_VERSIONS: Final[tuple[Literal[4, 6], ...]] = (4, 6)


@dataclass
class _Routing:
    """What of all this there is, or is to be, in one VPC's namespace."""

    links: dict[str, str] = field(default_factory=dict)
    """Link -> its alias."""
    rules: set[tuple[int, str, int]] = field(default_factory=set)
    """(priority, range, table)."""
    routes: set[tuple[int, str, str]] = field(default_factory=set)
    """(table, destination, link)."""


class Peerings:
    """The peering links and routes of all VPCs of a host."""

    def __init__(self) -> None:
        self._there: dict[str, _Routing] = {}

    def unplug(self, world: World) -> None:
        """Take away the links that are not wanted any more, and what is tracked across them. Raises FabricError."""
        wanted = {vpc.id: _links(world, vpc) for vpc in world.vpcs}
        there = netns.names()
        for vpc_id in wanted.keys() & there - self._there.keys():
            self._there[vpc_id] = _read(vpc_id)
        for vpc_id in self._there.keys() - there:
            del self._there[vpc_id]
        known = [(vpc_id, link, alias) for vpc_id, one in self._there.items() for link, alias in one.links.items()]
        over = {_id(alias) for vpc_id, link, alias in known if wanted.get(vpc_id, {}).get(link) != alias}
        for vpc_id, link, alias in known:
            if _id(alias) in over:
                self._unplug(vpc_id, link, alias)
        for vpc_id in self._there.keys() - wanted.keys():
            del self._there[vpc_id]

    def _unplug(self, vpc_id: str, link: str, alias: str) -> None:
        """With one end both are gone, and with them the routes."""
        ip.delete_links(vpc_id, [link])
        # Another VPC with the same ranges inherits no flow.
        conntrack.forget_ranges(vpc_id, _ranges(alias))
        there = self._there[vpc_id]
        del there.links[link]
        there.routes = {route for route in there.routes if route[2] != link}

    def lay(self, world: World) -> None:
        """Make links, routes and rules what the World wants; nothing is written that is so. Raises FabricError."""
        for peering in world.peerings:
            if peering.status == "active":
                self._plug(world, peering)
        for vpc in world.vpcs:
            there = self._there.setdefault(vpc.id, _Routing())
            wanted = _wanted(world, vpc)
            for version in _VERSIONS:
                _lay(vpc.id, version, there, wanted)
            self._there[vpc.id] = wanted

    def _plug(self, world: World, peering: VpcPeeringConnection) -> None:
        ends = (peering.requester_vpc_id, peering.accepter_vpc_id)
        link = peering.link
        if all(link in self._there.get(vpc_id, _Routing()).links for vpc_id in ends):
            return
        one, other = _MACS
        ip.batch(
            ends[0], [f"link add name {link} address {one} type veth peer name {link} address {other} netns {ends[1]}"]
        )
        for vpc_id, mac in zip(ends, (other, one), strict=True):
            ip.sysctl(vpc_id, {f"net/ipv6/conf/{link}/disable_ipv6": "0", f"net/ipv4/conf/{link}/proxy_arp": "0"})
            vpc = world.vpc(vpc_id)
            assert vpc is not None, "World.check has seen to it"
            alias = _links(world, vpc)[link]
            ip.batch(
                vpc_id,
                [
                    f"link set dev {link} up",
                    f"neighbour replace {NEXT_HOP} lladdr {mac} dev {link} nud permanent",
                    f"link set dev {link} alias {alias}",
                ],
            )
            self._there.setdefault(vpc_id, _Routing()).links[link] = alias


def _id(alias: str) -> str:
    return alias.split("|")[1]


def _ranges(alias: str) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    """The ranges of the VPC at the other end."""
    return [ipaddress.ip_network(one) for one in alias.split("|")[2].split(",")]


def _links(world: World, vpc: Vpc) -> dict[str, str]:
    found = {}
    for peering in world.active_peerings(vpc.id):
        other = world.vpc(peering.other(vpc.id))
        assert other is not None, "World.check has seen to it"
        found[peering.link] = f"{ALIAS}{peering.id}|{','.join(map(str, other.networks))}"
    return found


# -- what is wanted ----------------------------------------------------------------------------------------------------


def _wanted(world: World, vpc: Vpc) -> _Routing:
    found = _Routing(links=_links(world, vpc))
    tables = [one for one in world.route_tables if one.vpc_id == vpc.id and one.routes]
    if not found.links and not tables:
        return found  # the local route is all there is
    found.rules |= {(LOCAL, str(network), MAIN_TABLE) for network in vpc.networks}
    found.rules.add((ROUTER, "lo", ROUTER_TABLE))
    for link, alias in found.links.items():
        found.routes |= {(ROUTER_TABLE, str(network), link) for network in _ranges(alias)}
    active = {one.id: one.link for one in world.active_peerings(vpc.id)}
    for number, table in _numbered(tables).items():
        # Where a route leads nowhere its packets go nowhere, and by no wider route: a blackhole.
        found.routes |= {(number, one.destination, active.get(one.peering_id, VOID[0])) for one in table.routes}
        found.rules |= {(SUBNET, one, number) for one in _followers(world, table)}
    return found


def _numbered(tables: list[RouteTable]) -> dict[int, RouteTable]:
    """Numbers that a table keeps while others come and go."""
    found: dict[int, RouteTable] = {}
    for table in sorted(tables, key=lambda one: one.id):
        number = FIRST_TABLE + zlib.crc32(table.id.encode()) % FIRST_TABLE
        while number in found:
            number += 1
        found[number] = table
    return found


def _followers(world: World, table: RouteTable) -> list[str]:
    """Ranges of the subnets that follow a table."""
    there = [one for one in world.route_tables if one.vpc_id == table.vpc_id]
    explicit = {subnet_id for one in there for subnet_id in one.subnet_ids}
    own = {one.id for one in world.subnets if table.main and one.vpc_id == table.vpc_id and one.id not in explicit}
    subnets = [one for one in world.subnets if one.id in own or one.id in table.subnet_ids]
    return [text for one in subnets for text in (one.cidr_block, one.ipv6_cidr_block) if text]


# -- what there is -----------------------------------------------------------------------------------------------------


def _read(vpc_id: str) -> _Routing:
    """What a namespace has, whoever made it."""
    found = _Routing()
    for link in ip.read(vpc_id, "link", "show"):
        if str(link.get("ifalias", "")).startswith(ALIAS):
            found.links[str(link["ifname"])] = str(link["ifalias"])
    for version in _VERSIONS:
        found.rules |= {_rule(one) for one in ip.read(vpc_id, f"-{version}", "rule", "show") if _is_ours(one)}
        for route in ip.read(vpc_id, f"-{version}", "route", "show", "table", "all"):
            table = str(route.get("table", ""))
            if table.isdigit() and (int(table) == ROUTER_TABLE or int(table) >= FIRST_TABLE):
                destination = ipaddress.ip_network(_everything(version) if route["dst"] == "default" else route["dst"])
                found.routes.add((int(table), str(destination), str(route.get("dev", ""))))
    return found


def _is_ours(rule: dict[str, Any]) -> bool:
    return rule["priority"] in (LOCAL, SUBNET, ROUTER)


def _rule(rule: dict[str, Any]) -> tuple[int, str, int]:
    table = MAIN_TABLE if rule["table"] == "main" else int(rule["table"])
    priority = int(rule["priority"])
    if priority == ROUTER:
        return ROUTER, "lo", table
    side, length = ("dst", "dstlen") if priority == LOCAL else ("src", "srclen")
    return priority, f"{rule[side]}/{rule.get(length, 128 if ':' in rule[side] else 32)}", table


def _everything(version: int) -> str:
    return "0.0.0.0/0" if version == 4 else "::/0"


# -- from one to the other ---------------------------------------------------------------------------------------------


def _lay(vpc_id: str, version: Literal[4, 6], there: _Routing, wanted: _Routing) -> None:
    def here(text: str) -> bool:
        return (":" in text) is (version == 6) or text == "lo"

    old_rules, new_rules = ({one for one in routing.rules if here(one[1])} for routing in (there, wanted))
    old_routes, new_routes = ({one for one in routing.routes if here(one[1])} for routing in (there, wanted))
    kept = {(table, destination) for table, destination, _ in new_routes}
    # What comes before what goes: in between no packet is to miss a way that it has before and after.
    lines = [
        f"route replace {destination} {'' if link == VOID[0] else _via(version)} dev {link} table {table}"
        for table, destination, link in sorted(new_routes - old_routes)
    ]
    lines += [f"rule add {_words(one)}" for one in sorted(new_rules - old_rules)]
    lines += [f"rule delete {_words(one)}" for one in sorted(old_rules - new_rules, reverse=True)]  # the local one last
    lines += [
        f"route delete {destination} table {table}"
        for table, destination, _ in sorted(old_routes - new_routes)
        if (table, destination) not in kept
    ]
    ip.batch(vpc_id, lines, version)


def _via(version: int) -> str:
    return f"via inet6 {NEXT_HOP} onlink" if version == 4 else f"via {NEXT_HOP} onlink"


def _words(rule: tuple[int, str, int]) -> str:
    priority, what, table = rule
    match = {LOCAL: "to", SUBNET: "from", ROUTER: "iif"}[priority]
    return f"priority {priority} {match} {what} lookup {table}"
