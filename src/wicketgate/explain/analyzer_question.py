"""Which packets a path of Reachability Analyzer asks about.

A path leaves things open: which of an instance's interfaces, which addresses, which port. Whether any packet passes is
found out by trying one for each case that rules can tell apart: what rules allow is made of ranges, so the first port
and the first client address of each range stand for all of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final, NamedTuple

from wicketgate import paths
from wicketgate.explain.allowed import content_of, peers_of
from wicketgate.explain.classes import class_of, ends_of_ranges
from wicketgate.explain.region import IPV4_END, SOURCE_END, Span, address_at, span_of
from wicketgate.model import (
    PROTOCOL_NUMBERS,
    Endpoint,
    HeaderFilter,
    Instance,
    NetworkInsightsPath,
    NetworkInterface,
    VpcPeeringConnection,
    World,
)
from wicketgate.tunnel.targets import client_refusal

EVERY_PORT: Final[Span] = (0, 65535)


class Wanted(NamedTuple):
    """What a path says about packets, its parameters and its filters at both ends taken together. Empty: anything."""

    source: str
    """As it leaves the source: for an endpoint the client's address."""
    arriving_source: str
    """As the destination sees it."""
    destination: str
    source_ports: Span
    ports: Span
    """Destination ports."""
    impossible: tuple[str, ...]
    """Explanation codes of filters that no packet of the path can match."""


def wanted(path: NetworkInsightsPath) -> Wanted:
    """What a path asks for. Nothing on the way changes addresses or ports, but an endpoint the source address."""
    there, end = path.at_source or HeaderFilter(), path.at_destination or HeaderFilter()
    impossible: list[str] = []

    def one_of(code: str, *given: str) -> str:
        different = list(dict.fromkeys(filter(None, given)))
        impossible.extend([code] if len(different) > 1 else [])
        return different[0] if different else ""

    def common(code: str, *given: Span | None) -> Span:
        spans = [span for span in given if span is not None] or [EVERY_PORT]
        first, last = max(span[0] for span in spans), min(span[1] for span in spans)
        impossible.extend([code] if first > last else [])
        return first, max(first, last)

    exactly = None if path.destination_port is None else (path.destination_port, path.destination_port)
    source = path.source_ip or there.source_address
    changed = path.source.startswith("eice-")
    if not changed:
        source = one_of("FILTER_AT_DESTINATION_SOURCE_ADDRESS", source, end.source_address)
    near = one_of("FILTER_AT_SOURCE_DESTINATION_ADDRESS", path.destination_ip, there.destination_address)
    return Wanted(
        source=source,
        arriving_source=end.source_address if changed else "",
        destination=one_of("FILTER_AT_DESTINATION_DESTINATION_ADDRESS", near, end.destination_address),
        source_ports=common("FILTER_AT_DESTINATION_SOURCE_PORT_RANGE", there.source_ports, end.source_ports),
        ports=common(
            "FILTER_AT_DESTINATION_DESTINATION_PORT_RANGE", exactly, there.destination_ports, end.destination_ports
        ),
        impossible=tuple(impossible),
    )


# -- ends --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class End:
    """A network interface that a path can begin or end at."""

    interface: NetworkInterface
    asked: str
    """Id of what the path names: the interface, its instance, its endpoint, or the peering connection it is behind."""
    instance: Instance | None = None
    """To which the interface is attached."""
    endpoint: Endpoint | None = None
    peering: VpcPeeringConnection | None = None
    """Behind which it is, when the path names that."""


def ends(world: World, resource_id: str, address: str) -> tuple[End, ...]:
    """The network interfaces that a resource stands for; none when it does not exist or has none.

    A peering connection stands for whatever may be behind it, on either side: what holds the address that is asked for,
    else all interfaces but those of endpoints, and of those that nothing tells apart the first one.
    """
    peering = world.peering(resource_id)
    endpoint = world.endpoint(resource_id)
    instance = world.instance(resource_id)
    interfaces: Sequence[NetworkInterface] = ()
    if peering is not None:
        vpc_ids = (peering.requester_vpc_id, peering.accepter_vpc_id)
        holders = [world.interface_at(vpc_id, address) for vpc_id in vpc_ids]
        interfaces = [eni for eni in holders if eni is not None] or _representatives(world, vpc_ids)
    elif instance is not None:
        interfaces = world.interfaces_of_instance(instance)
    else:
        interface = world.interface(resource_id if endpoint is None else endpoint.interface_id)
        interfaces = () if interface is None else (interface,)
    return tuple(_end(world, eni, resource_id, peering) for eni in interfaces)


def _representatives(world: World, vpc_ids: Sequence[str]) -> list[NetworkInterface]:
    """Of the interfaces of these VPCs one for each way in which rules, routes or states could treat it."""
    marks = set(ends_of_ranges((world,), vpc_ids))
    for table in world.route_tables:
        if table.vpc_id in vpc_ids:
            spans = [span_of(route.destination) for route in table.routes]
            marks |= {mark for first, last in spans for mark in (first, last + 1)}
    ordered = sorted(marks)
    found: dict[tuple[object, ...], NetworkInterface] = {}
    for vpc_id in vpc_ids:
        for eni in world.interfaces_of_vpc(vpc_id):
            if world.endpoint_of_interface(eni.id) is None:
                instance = world.instance_of_interface(eni.id)
                state = "running" if instance is None else instance.state
                found.setdefault((class_of(world, eni, ordered), eni.subnet_id, state), eni)
    return list(found.values())


def ends_with(world: World, address: str, vpc_ids: Sequence[str]) -> tuple[End, ...]:
    """The network interfaces that hold an address, in these VPCs and in those peered with them."""
    near = dict.fromkeys(vpc_ids)
    near |= {one.other(vpc_id): None for vpc_id in vpc_ids for one in world.active_peerings(vpc_id)}
    found = [eni for vpc_id in near if (eni := world.interface_at(vpc_id, address)) is not None]
    return tuple(_end(world, eni, eni.id, None) for eni in found)


def _end(world: World, eni: NetworkInterface, asked: str, peering: VpcPeeringConnection | None) -> End:
    return End(eni, asked, world.instance_of_interface(eni.id), world.endpoint_of_interface(eni.id), peering)


# -- packets -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Probe:
    """One packet that is tried, with what it stands for."""

    sender: End
    receiver: End
    flow: paths.Flow
    wanted: Wanted
    client: str = ""
    """Whose address an endpoint would preserve; empty where it does not matter."""
    unpreservable: bool = False
    """Whether a tunnel of this client is refused because its address cannot be preserved."""


def probes(
    world: World, path: NetworkInsightsPath, asked: Wanted, senders: Sequence[End], receivers: Sequence[End]
) -> Iterator[Probe]:
    """A packet for each case, the plainest first."""
    senders = [one for one in senders if asked.source in one.interface.addresses] or senders
    receivers = [one for one in receivers if asked.destination in one.interface.addresses] or receivers
    for sender in senders:
        for receiver in receivers:
            if sender.interface.id != receiver.interface.id and _by_peering(world, sender, receiver):
                yield from _between(world, path, asked, sender, receiver)


def _by_peering(world: World, sender: End, receiver: End) -> bool:
    """Whether the two are on different sides of the peering connections that the path names, if any."""
    here, there = (world.vpc_of_subnet(one.interface.subnet_id).id for one in (sender, receiver))
    named = [one.peering for one in (sender, receiver) if one.peering is not None]
    return all(here in (one.requester_vpc_id, one.accepter_vpc_id) and one.other(here) == there for one in named)


def _between(world: World, path: NetworkInsightsPath, asked: Wanted, sender: End, receiver: End) -> Iterator[Probe]:
    protocol = PROTOCOL_NUMBERS[path.protocol]
    tried = list(_ports(world, asked, protocol, sender, receiver))
    for destination in (asked.destination,) if asked.destination else receiver.interface.addresses:
        for source, client, unpreservable in _sources(world, asked, sender, receiver, destination):
            for port in tried:
                flow = paths.Flow(
                    sender.interface,
                    receiver.interface,
                    source,
                    protocol,
                    port,
                    destination_address=destination,
                    source_port=asked.source_ports[0],
                )
                yield Probe(sender, receiver, flow, asked, client, unpreservable)


def _ports(world: World, asked: Wanted, protocol: int, sender: End, receiver: End) -> Iterator[int]:
    """The first port, and every one at which a rule starts. An endpoint has a few ports and no others."""
    first, last = asked.ports
    offered = world.settings.allowed_ports
    if sender.endpoint is not None and offered:
        yield from [port for port in sorted(offered) if first <= port <= last] or [first]
        return
    starts = {first}
    for end, egress in ((sender, True), (receiver, False)):
        for group in filter(None, map(world.group, end.interface.group_ids)):
            boxes = (content_of(rule) for rule in (group.outbound if egress else group.inbound))
            starts |= {box.ports[0] for box in boxes if box.protocols[0] <= protocol <= box.protocols[1]}
    yield from sorted(port for port in starts if first <= port <= last)


def _sources(
    world: World, asked: Wanted, sender: End, receiver: End, destination: str
) -> Iterator[tuple[str, str, bool]]:
    """Source addresses to try towards an address: with the client's, and whether that client is refused."""
    own = [one for one in sender.interface.addresses if (":" in one) is (":" in destination)]
    endpoint = sender.endpoint
    if endpoint is None:
        given = [asked.source] if asked.source and (":" in asked.source) is (":" in destination) else []
        yield from ((one, "", False) for one in (given if asked.source else own))
        return
    if not own or endpoint.ip_address_type not in ("dualstack", "ipv6" if ":" in destination else "ipv4"):
        return
    if not endpoint.preserve_client_ip:
        yield own[0], asked.source, False
        return
    for client in [asked.source] if asked.source else _clients(world, endpoint, receiver.interface, destination):
        if client_refusal(world, endpoint, client, destination) is None:
            yield client, client, False
        else:
            yield own[0], client, world.settings.unpreservable_client == "refuse"


def _clients(world: World, endpoint: Endpoint, receiver: NetworkInterface, destination: str) -> Iterator[str]:
    """Clients to try: the first of each range that an inbound rule names whose address is preserved, then any."""
    family = (IPV4_END, SOURCE_END - 1) if ":" in destination else (0, IPV4_END - 1)
    spans: dict[Span, None] = {}
    for group in filter(None, map(world.group, receiver.group_ids)):
        for rule in group.inbound:
            if rule.referenced_group_id is None:
                spans |= dict.fromkeys(peers_of(world, group, rule, ()))
    found = {
        client: None
        for first, last in (*spans, family)
        if family[0] <= first <= last <= family[1]
        and (client := _first_preserved(world, endpoint, destination, first, last))
    }
    yield from found or [address_at(family[0])]


def _first_preserved(world: World, endpoint: Endpoint, destination: str, first: int, last: int) -> str:
    """The first address of a span of the source axis that the endpoint preserves; empty when there is none.

    What is refused are ranges, so from a refused address it goes on behind the largest aligned range that is refused.
    """

    def refused(number: int) -> bool:
        return client_refusal(world, endpoint, address_at(number), destination) is not None

    while first <= last:
        if not refused(first):
            return address_at(first)
        base = first if first < IPV4_END else first - IPV4_END
        size = 1
        while (
            size < 2**127 and base % (2 * size) == 0 and first + 2 * size - 1 <= last and refused(first + 2 * size - 1)
        ):
            size *= 2
        first += size
    return ""


def host_range(address: str) -> str:
    """An address as a range of one, in AWS's notation."""
    return f"{address}/{ip_address(address).max_prefixlen}"


def holds(span_text: str, address: str) -> bool:
    """Whether a range holds an address."""
    first, last = span_of(span_text)
    return first <= span_of(address)[0] <= last
