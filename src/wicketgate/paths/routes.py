"""Where the VPC router takes a packet, and which source addresses it lets through.

The local route comes first, whatever a route table says (VPC User Guide, route priority); beyond the VPC the longest
prefix of the sender's subnet's table decides, and a route whose peering connection is not active swallows packets.
"""

from __future__ import annotations

from typing import NamedTuple

from wicketgate.model import NetworkInterface, Route, RouteTable, Step, Vpc, VpcPeeringConnection, World
from wicketgate.paths.ranges import Remembered, address, cidr, never_forwarded


class Hop(NamedTuple):
    """How a packet gets from one network interface to the other."""

    step: Step | None
    """What is worth saying: always when it does not get there, and when it does by a peering connection."""
    peering: VpcPeeringConnection | None = None
    """What it crosses; None within a VPC."""

    @property
    def arrives(self) -> bool:
        """Whether the packet gets there."""
        return self.step is None or self.step.passed


def vpc_ranges(vpc: Vpc) -> tuple[str, ...]:
    """The VPC's ranges of both families."""
    return (vpc.cidr_block, *vpc.ipv6_cidr_blocks)


def in_vpc(vpc: Vpc, text: str) -> bool:
    """Whether an address is of one of the VPC's ranges."""
    where = address(text)
    return any(cidr(one).holds(where) for one in vpc_ranges(vpc))


def hop(world: World, sender: NetworkInterface, receiver: NetworkInterface, destination: str) -> Hop:
    """The way of a packet to an address that the receiver should hold."""
    here, there = world.vpc_of_subnet(sender.subnet_id), world.vpc_of_subnet(receiver.subnet_id)
    if destination not in receiver.addresses:
        words = f"{destination} is no address of {receiver.id}" if destination else f"{receiver.id} has no such address"
        return Hop(Step("route", False, words, receiver.id))
    if here is there:
        return Hop(None)
    if in_vpc(here, destination):
        return Hop(Step("route", False, f"{destination} is inside {here.id} itself, where nothing leaves it", here.id))
    return _beyond(world, sender, here, there, destination)


def _beyond(world: World, sender: NetworkInterface, here: Vpc, there: Vpc, destination: str) -> Hop:
    endpoint = world.endpoint_of_interface(sender.id)
    if endpoint is not None:
        return Hop(Step("route", False, f"{endpoint.id} reaches {here.id} only, no peered VPC", endpoint.id))
    table = route_table(world, sender.subnet_id, here.id)
    route = None if table is None else _longest(table, destination)
    if table is None or route is None:
        name = here.id if table is None else table.id
        return Hop(Step("route", False, f"no route of {name} leads to {destination}", name))
    peering = world.peering(route.peering_id)
    if peering is None or peering not in world.active_peerings(here.id):
        state = "does not exist" if peering is None else f"is {peering.status}"
        words = f"{table.id} leads {destination} to {route.peering_id}, which {state}"
        return Hop(Step("route", False, words, table.id))
    if peering.other(here.id) != there.id:
        words = f"{table.id} leads {destination} by {peering.id} to {peering.other(here.id)}, which does not hold it"
        return Hop(Step("route", False, words, table.id))
    words = f"{table.id} leads {destination} by {route.destination} and {peering.id} to {there.id}"
    return Hop(Step("route", True, words, table.id), peering)


def source_refusal(world: World, sender: NetworkInterface, source: str, *, opened: bool, leaves: bool) -> Step | None:
    """Why the sender's router does not take a packet with this source; None if it does.

    `opened`: of a flow that this interface opened. `leaves`: the packet goes by a peering connection.
    """
    if source in sender.addresses:
        return None
    vpc = world.vpc_of_subnet(sender.subnet_id)
    endpoint = world.endpoint_of_interface(sender.id)
    if never_forwarded(source):
        return _forged(source, sender, "no router passes it on")
    if endpoint is not None:
        if in_vpc(vpc, source):
            return _forged(source, sender, f"{endpoint.id} sends only its own addresses of {vpc.id}")
        if opened or endpoint.preserve_client_ip or not sender.source_dest_check:
            return None
        return _forged(source, sender, f"client IP preservation of {endpoint.id} is off")
    if sender.source_dest_check:
        return _forged(source, sender, "source/destination check")
    if leaves and in_vpc(vpc, source):
        return _forged(source, sender, f"out of {vpc.id} goes no address that is another's")
    return None


def peer_source_refusal(
    world: World, sender: NetworkInterface, source: str, peering: VpcPeeringConnection
) -> Step | None:
    """Why the receiver's router does not take a packet from a peering connection; None if it does."""
    vpc = world.vpc_of_subnet(sender.subnet_id)
    if in_vpc(vpc, source):
        return None
    return Step("peer-source", False, f"{source} is no address of {vpc.id}, from which {peering.id} leads", peering.id)


def route_table(world: World, subnet_id: str, vpc_id: str) -> RouteTable | None:
    """The table that packets from a subnet follow: its own, else the VPC's main one; None = the local route alone."""
    by_subnet, main = _tables(world.route_tables)
    return by_subnet.get(subnet_id) or main.get(vpc_id)


def _forged(source: str, sender: NetworkInterface, why: str) -> Step:
    return Step("source-check", False, f"{source} is not an address of {sender.id} ({why})", sender.id)


def _longest(table: RouteTable, destination: str) -> Route | None:
    where = address(destination)
    found = [route for route in table.routes if cidr(route.destination).holds(where)]
    return min(found, key=lambda route: cidr(route.destination).host_bits, default=None)


def _by_place(tables: tuple[RouteTable, ...]) -> tuple[dict[str, RouteTable], dict[str, RouteTable]]:
    """Subnet -> its own table, VPC -> its main table."""
    by_subnet = {subnet_id: table for table in tables for subnet_id in table.subnet_ids}
    return by_subnet, {table.vpc_id: table for table in tables if table.main}


_tables: Remembered[tuple[RouteTable, ...], tuple[dict[str, RouteTable], dict[str, RouteTable]]] = Remembered(
    _by_place, 64
)
