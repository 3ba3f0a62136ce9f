"""What one network interface gets to another, exactly: by groups, routes, and the addresses that it may send from."""

from __future__ import annotations

from functools import lru_cache
from typing import Final, Literal

from wicketgate.explain import allowed
from wicketgate.explain.region import EVERY_IPV4, EVERY_IPV6, NOTHING, Box, Region, span_of
from wicketgate.model import NetworkInterface, World
from wicketgate.paths.routes import hop, vpc_ranges
from wicketgate.tunnel.targets import SPECIAL

Sends = Literal["own", "clients", "any"]
"""From which addresses an interface sends: its own, those of clients (an endpoint that preserves them) or any."""

NEVER_FORWARDED: Final = (
    "0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "255.0.0.0/8",
    "::/128", "::1/128", "fe80::/10", "ff00::/8",
)  # fmt: skip
"""Sources of which no router passes packets on (`paths.ranges.never_forwarded`)."""
_NO_CLIENTS: Final = tuple(str(network) for network, _ in SPECIAL)


def sends(world: World, eni: NetworkInterface) -> Sends:
    """From which addresses an interface sends within its VPC."""
    endpoint = world.endpoint_of_interface(eni.id)
    if endpoint is not None:
        return "clients" if endpoint.preserve_client_ip else "own"
    return "own" if eni.source_dest_check else "any"


def sent(
    world: World,
    sender: NetworkInterface,
    receiver: NetworkInterface,
    destination: str,
    within: Box = allowed.EVERY_PACKET,
) -> Region:
    """The packets within a box that pass to one address of the receiver, in its VPC or in a peered one; of an endpoint,
    those that its tunnels may be: TCP from its own address or from clients'."""
    endpoint = world.endpoint_of_interface(sender.id)
    if sender.id == receiver.id or world.endpoint_of_interface(receiver.id) is not None:
        return NOTHING
    way = hop(world, sender, receiver, destination)
    if not way.arrives:
        return NOTHING
    six = ":" in destination
    out = allowed.outbound(world, sender, receiver, destination, within)
    both = out & allowed.inbound(world, receiver, sender, within) if out else NOTHING
    if not both:
        return NOTHING
    # Over a peering connection an interface sends its own addresses alone, with and without source check.
    own = way.peering is not None
    sources = _own(world, sender, six=six) if own else _sources(world, sender, receiver, six=six)
    return both & (sources if endpoint is None else sources & Region((Box(protocols=(6, 6)),)))


def widened(world: World, sender: NetworkInterface, region: Region, also: Region = NOTHING) -> Region:
    """The same with every source of a family in the place of what the interface sends from: for an address of its own,
    so that alike interfaces have the same answer; for clients where it is all of them, which needs no words then.

    `also`: what passes as well, of clients.
    """
    kind = sends(world, sender)
    if not region or kind == "any":
        return region
    if kind == "own":
        whole = [(Region((Box(span_of(one)),)), EVERY_IPV6 if ":" in one else EVERY_IPV4) for one in sender.addresses]
        return Region(box._replace(sources=family) for own, family in whole for box in (region & own).boxes)
    found = list(region.boxes)
    for family in (EVERY_IPV4, EVERY_IPV6):
        sources = _sources(world, sender, None, six=family is EVERY_IPV6)
        for box in region.boxes:
            content = (
                Region((box._replace(sources=family),))
                if box.sources[0] in range(family[0], family[1] + 1)
                else NOTHING
            )
            if content and sources & content <= region | also:
                found += content.boxes
    return Region(found)


def _sources(world: World, sender: NetworkInterface, receiver: NetworkInterface | None, *, six: bool) -> Region:
    """The addresses of a family that may be the source of what an interface sends within its VPC, to one whose replies
    come back unless `receiver` is named."""
    kind = sends(world, sender)
    if kind == "own":
        return _own(world, sender, six=six)
    if kind == "any":
        return _but(NEVER_FORWARDED, six=six)
    returns = receiver is None or world.replies_return(receiver)
    clients = _clients(world, sender, six=six) if returns else NOTHING
    return clients if world.settings.unpreservable_client == "refuse" else clients | _own(world, sender, six=six)


def _own(world: World, sender: NetworkInterface, *, six: bool) -> Region:
    """An interface's own addresses of a family; of an endpoint the first, from which its tunnels come."""
    own = [Box(span_of(one)) for one in sender.addresses if (":" in one) is six]
    return Region(own if world.endpoint_of_interface(sender.id) is None else own[:1])


def _clients(world: World, sender: NetworkInterface, *, six: bool) -> Region:
    """The clients whose addresses can be preserved (`tunnel.targets.client_refusal`)."""
    reached = any((":" in one) is six for one in sender.addresses)
    if not reached or (six and not world.settings.preserve_client_ipv6):
        return NOTHING
    return _but((*_NO_CLIENTS, *vpc_ranges(world.vpc_of_subnet(sender.subnet_id))), six=six)


@lru_cache(maxsize=1024)
def _but(ranges: tuple[str, ...], *, six: bool) -> Region:
    """A family without some ranges."""
    return Region((Box(EVERY_IPV6 if six else EVERY_IPV4),)) - Region(Box(span_of(one)) for one in ranges)
