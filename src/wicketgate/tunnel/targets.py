"""Which addresses an endpoint never dials, and which client addresses it never preserves: what the World alone can say.

Whether a packet then passes is the kernel's business; whether anything answers shows at dial time. An address of the
VPC that no network interface holds is therefore not refused here.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import Final

from wicketgate.model import Endpoint, Subnet, Vpc, World
from wicketgate.model.resources import IPv4or6Address

_SPECIAL: Final = tuple(
    (ipaddress.IPv4Network(block), words)
    for block, words in (
        ("169.254.169.254/32", "the instance metadata service"),  # EC2 User Guide, instancedata-data-retrieval
        ("127.0.0.0/8", "a loopback address"),
        ("169.254.0.0/16", "a link-local address"),
        ("224.0.0.0/4", "a multicast address"),
        ("255.255.255.255/32", "the broadcast address"),
        ("240.0.0.0/4", "an address of the reserved range 240.0.0.0/4"),
        ("0.0.0.0/32", "the unspecified address"),
        ("0.0.0.0/8", "an address of 0.0.0.0/8, which names no host"),
    )
)
"""What is no ordinary unicast address (RFC 6890), the narrower range first."""


@lru_cache(maxsize=8192)
def parse_address(text: str) -> IPv4or6Address | None:
    """An address from its text, None for anything else (names, zones, leading zeros).

    An IPv4-mapped IPv6 address (::ffff:192.0.2.1) is its IPv4 address: sockets that listen for both show peers so.
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            return None
        return address.ipv4_mapped or address
    return address


def target_refusal(world: World, endpoint: Endpoint, address: str) -> str | None:
    """Why this endpoint never dials `address`, in words that follow "The target"; None if it may try.

    The endpoint's VPC is what it reaches: with client IP preservation because AWS says so (EC2 User Guide,
    eice-security-groups), without because that is all its routes reach so far.
    """
    target = parse_address(address)
    if target is None:
        return f"{address!r} is not an IP address"
    if isinstance(target, ipaddress.IPv6Address):
        return f"{target} is an IPv6 address, and an IPv4 endpoint reaches IPv4 addresses only"
    if kind := _special_kind(target):
        return f"{target} is {kind}"
    vpc = world.vpc_of_subnet(endpoint.subnet_id)
    if target not in _network(vpc.cidr_block):
        return f"{target} is outside {vpc.cidr_block}, the range of the endpoint's VPC {vpc.id}"
    eni = world.interface(endpoint.interface_id)
    if eni is not None and parse_address(eni.private_ip_address) == target:
        return f"{target} is the endpoint's own address"
    return next((words for subnet in _subnets(world, vpc) if (words := _reserved_in(subnet, target))), None)


def client_refusal(world: World, endpoint: Endpoint, client_address: str) -> str | None:
    """Why this client's address cannot be the source that targets see, in words that follow "The client address".

    None if it can, and always None with client IP preservation off. An address of the VPC would impersonate a member
    of its groups, or its replies would never return.
    """
    if not endpoint.preserve_client_ip:
        return None
    client = parse_address(client_address)
    if client is None:
        return f"{client_address!r} is not an IP address"
    if isinstance(client, ipaddress.IPv6Address):
        return f"{client} is an IPv6 address, and client IP preservation is for IPv4"
    if kind := _special_kind(client):
        return f"{client} is {kind}"
    vpc = world.vpc_of_subnet(endpoint.subnet_id)
    if client in _network(vpc.cidr_block):
        return f"{client} is inside {vpc.cidr_block}, the range of the endpoint's VPC {vpc.id}"
    return None


@lru_cache(maxsize=8192)
def _special_kind(address: ipaddress.IPv4Address) -> str | None:
    return next((words for network, words in _SPECIAL if address in network), None)


def _reserved_in(subnet: Subnet, address: ipaddress.IPv4Address) -> str | None:
    """What AWS reserves that would not be a host here (VPC User Guide, subnet sizing)."""
    network = _network(subnet.cidr_block)
    if address not in network:
        return None
    if address == network.network_address:
        return f"{address} is the network address of {subnet.id}"
    if address == network.network_address + 1:
        return f"{address} is the VPC router's address in {subnet.id}"
    if address == network.broadcast_address:
        return f"{address} is the broadcast address of {subnet.id}"
    return None


def _subnets(world: World, vpc: Vpc) -> list[Subnet]:
    return [subnet for subnet in world.subnets if subnet.vpc_id == vpc.id]


@lru_cache(maxsize=8192)
def _network(cidr_block: str) -> ipaddress.IPv4Network:
    return ipaddress.IPv4Network(cidr_block)
