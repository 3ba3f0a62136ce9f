"""The way back to endpoints, whatever address their packets bear: in the VPC's namespace by mark, in the endpoint's own
by taking all that arrives for local. The same with client IP preservation on and off, so that tunnels outlive a switch.
"""

from __future__ import annotations

from typing import Final, Literal

from wicketgate import rules
from wicketgate.kernel import ip
from wicketgate.model import Vpc, World

RETURN_PRIORITY = 100
"""Endpoint n's return rule has priority 100 + n; the rules before them all are for what the router itself sends."""
RETURN_TABLE = 1000
"""Routing table 1000 + n leads back to endpoint n."""
MOST_ENDPOINTS = 4095
LOCAL_TABLE = 100
"""In an endpoint's namespace: the table that makes every address local."""

VERSIONS: Final[tuple[Literal[4, 6], ...]] = (4, 6)

Returns = dict[int, tuple[tuple[str, ...], str]]
"""Endpoint's index -> its interface's addresses and link."""


def wanted_returns(world: World, vpc_id: str) -> Returns:
    """The endpoints of a VPC."""
    found: Returns = {}
    for endpoint in world.endpoints:
        eni = world.interface(endpoint.interface_id)
        if eni is not None and world.vpc_of_subnet(eni.subnet_id).id == vpc_id:
            found[endpoint.index] = (eni.addresses, eni.link)
    return found


def lay_returns(vpc: Vpc, wanted: Returns) -> None:
    """Make routes and rules of a VPC's namespace what is wanted; nothing is written that is so. Raises FabricError."""
    for version in VERSIONS:
        ranges = [str(one) for one in vpc.networks if one.version == version]
        ways = {
            index: (address, link)
            for index, (addresses, link) in wanted.items()
            for address in reversed(addresses)  # the primary one counts
            if (":" in address) is (version == 6)
        }
        _lay(vpc.id, version, ranges, ways)


def _lay(vpc_id: str, version: Literal[4, 6], ranges: list[str], ways: dict[int, tuple[str, str]]) -> None:
    option = f"-{version}"
    there = [rule for rule in ip.read(vpc_id, option, "rule", "show") if "fwmark" in rule or rule.get("iif") == "lo"]
    ours = {rule["priority"] for rule in there if 0 < rule["priority"] - RETURN_PRIORITY <= MOST_ENDPOINTS}
    lines = [f"rule delete priority {priority}" for priority in sorted(ours) if priority - RETURN_PRIORITY not in ways]
    # An ICMP error bears the mark of the packet it answers: one about a reply is for the target all the same.
    known = {f"{rule['dst']}/{rule['dstlen']}" for rule in there if rule["priority"] == RETURN_PRIORITY}
    for one in sorted(known.symmetric_difference(ranges)):
        verb = "delete" if one in known else "add"
        lines.append(f"rule {verb} priority {RETURN_PRIORITY} iif lo to {one} lookup main")
    routes = _routes(vpc_id, option)
    lines += [f"route flush table {table}" for table in sorted(routes) if table - RETURN_TABLE not in ways]
    for index, (address, link) in sorted(ways.items()):
        # `via ... onlink`, not `dev` alone: else every client address becomes a neighbour entry of its own.
        table, priority = RETURN_TABLE + index, RETURN_PRIORITY + index
        if routes.get(table) != (address, link):
            default = "::/0" if version == 6 else "default"
            lines.append(f"route replace {default} via {address} dev {link} onlink table {table}")
        if priority not in ours:
            mark = f"{index << rules.ENDPOINT_MARK_SHIFT:#x}/{rules.ENDPOINT_MARK_MASK:#x}"
            lines.append(f"rule add priority {priority} fwmark {mark} lookup {table}")
    ip.batch(vpc_id, lines, version)


def _routes(namespace: str, option: str) -> dict[int, tuple[str, str]]:
    """Return table -> gateway and link of its route."""
    routes = ip.read(namespace, option, "route", "show", "table", "all")
    return {
        int(route["table"]): (str(route.get("gateway", "")), str(route.get("dev", "")))
        for route in routes
        if str(route.get("table", "")).isdigit() and 0 < int(route["table"]) - RETURN_TABLE <= MOST_ENDPOINTS
    }


def make_all_local(namespace: str) -> None:
    """In an endpoint's namespace: all that arrives is for a socket here, also replies to an address that one borrowed.

    Raises FabricError.
    """
    for version in VERSIONS:
        there = any(rule.get("iif") == "eth0" for rule in ip.read(namespace, f"-{version}", "rule", "show"))
        lines = [f"route replace local {'::/0' if version == 6 else 'default'} dev lo table {LOCAL_TABLE}"]
        ip.batch(namespace, lines + ([] if there else [f"rule add iif eth0 lookup {LOCAL_TABLE}"]), version)
