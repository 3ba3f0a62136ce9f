"""Which addresses an endpoint never dials, and which client addresses it never preserves: what the World alone can say.

Whether a packet then passes is the kernel's business; whether anything answers shows at dial time. An address of the
VPC that no network interface holds is therefore not refused here.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import Final

from wicketgate.model import Endpoint, Subnet, Vpc, World
from wicketgate.model.resources import IPv4or6Address, IPv4or6Network

_SPECIAL: Final = tuple(
    (ipaddress.ip_network(block), words)
    for block, words in (
        ("169.254.169.254/32", "the instance metadata service"),  # EC2 User Guide, instancedata-data-retrieval
        ("127.0.0.0/8", "a loopback address"),
        ("169.254.0.0/16", "a link-local address"),
        ("224.0.0.0/4", "a multicast address"),
        ("255.255.255.255/32", "the broadcast address"),
        ("240.0.0.0/4", "an address of the reserved range 240.0.0.0/4"),
        ("0.0.0.0/32", "the unspecified address"),
        ("0.0.0.0/8", "an address of 0.0.0.0/8, which names no host"),
        ("fd00:ec2::254/128", "the instance metadata service"),
        ("fd00:ec2::/32", "an address of fd00:ec2::/32, where the VPC's own services are"),
        ("::1/128", "a loopback address"),
        ("::/128", "the unspecified address"),
        ("::/96", "an address of ::/96, which names no host"),  # RFC 4291, IPv4-compatible, deprecated
        ("fe80::/10", "a link-local address"),
        ("ff00::/8", "a multicast address"),
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

    Its VPC is what it reaches, in the families of its IpAddressType: with client IP preservation because AWS says so
    (EC2 User Guide, eice-security-groups), without because that is all its routes reach so far.
    """
    target = parse_address(address)
    if target is None:
        return f"{address!r} is not an IP address"
    if endpoint.ip_address_type in ("ipv4", "ipv6") and endpoint.ip_address_type != f"ipv{target.version}":
        kind = "IPv4" if endpoint.ip_address_type == "ipv4" else "IPv6"
        return f"{target} is an IPv{target.version} address, and an {kind} endpoint reaches {kind} addresses only"
    if words := _special_kind(target):
        return f"{target} is {words}"
    vpc = world.vpc_of_subnet(endpoint.subnet_id)
    if not _inside(vpc, target):
        return f"{target} is outside {_ranges(vpc, target.version)} of the endpoint's VPC {vpc.id}"
    eni = world.interface(endpoint.interface_id)
    if eni is not None and str(target) in eni.addresses:
        return f"{target} is the endpoint's own address"
    if str(target) == _resolver(vpc.cidr_block) and world.interface_at(vpc.id, str(target)) is None:
        return f"{target} is the DNS server's address in {vpc.id}"
    subnets = (one for one in world.subnets if one.vpc_id == vpc.id)
    return next((words for subnet in subnets if (words := _reserved_in(subnet, target))), None)


def client_refusal(world: World, endpoint: Endpoint, client_address: str, target: str | None = None) -> str | None:
    """Why this client's address cannot be the source that the target sees, in words that follow "The client address".

    None if it can, and always None with client IP preservation off. IPv6 is preserved where the setting
    `preserve_client_ipv6` says so. An address of the VPC would impersonate a member of its groups, or its replies would
    never return. `target`: None while it is not known.
    """
    if not endpoint.preserve_client_ip:
        return None
    client = parse_address(client_address)
    end = client if target is None else parse_address(target)
    if client is None or end is None:
        return f"{client_address if client is None else target!r} is not an IP address"
    if client.version == 6 and not (world.settings.preserve_client_ipv6 and endpoint.ip_address_type != "ipv4"):
        return f"{client} is an IPv6 address, and client IP preservation is for IPv4"
    if client.version != end.version:
        return f"{client} is an IPv{client.version} address and cannot be the source towards an IPv{end.version} one"
    if words := _special_kind(client):
        return f"{client} is {words}"
    vpc = world.vpc_of_subnet(endpoint.subnet_id)
    if _inside(vpc, client):
        return f"{client} is inside {_ranges(vpc, client.version)} of the endpoint's VPC {vpc.id}"
    return None


@lru_cache(maxsize=8192)
def _special_kind(address: IPv4or6Address) -> str | None:
    return next((words for network, words in _SPECIAL if address in network), None)


def _inside(vpc: Vpc, address: IPv4or6Address) -> bool:
    blocks = (vpc.cidr_block,) if address.version == 4 else vpc.ipv6_cidr_blocks
    return any(address in _network(block) for block in blocks)


def _ranges(vpc: Vpc, version: int) -> str:
    """`10.0.0.0/16, the range` and the like, in words that go on with whose it is."""
    blocks = (vpc.cidr_block,) if version == 4 else vpc.ipv6_cidr_blocks
    if not blocks:
        return "the IPv6 ranges, of which there are none,"
    return f"{', '.join(blocks)}, the range{'s' if len(blocks) > 1 else ''}"


def _reserved_in(subnet: Subnet, address: IPv4or6Address) -> str | None:
    """What AWS reserves that would not be a host here (VPC User Guide, subnet sizing)."""
    block = subnet.cidr_block if address.version == 4 else subnet.ipv6_cidr_block
    if not block or address not in (network := _network(block)):
        return None
    if address == network.network_address:
        return f"{address} is the network address of {subnet.id}"
    if address == network.network_address + 1:
        return f"{address} is the VPC router's address in {subnet.id}"
    if address.version == 4 and address == network.broadcast_address:
        return f"{address} is the broadcast address of {subnet.id}"
    return None


@lru_cache(maxsize=8192)
def _network(block: str) -> IPv4or6Network:
    return ipaddress.ip_network(block)


@lru_cache(maxsize=8192)
def _resolver(block: str) -> str:
    """The VPC's base address + 2 (VPC User Guide, Amazon DNS server)."""
    return str(_network(block).network_address + 2)
