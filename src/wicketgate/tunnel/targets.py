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
from wicketgate.model.verdict import Reason

REFUSALS: Final = {
    "not-an-address": "{given!r} is not an IP address",
    "family": "{address} is an IPv{version} address, and an {kind} endpoint reaches {kind} addresses only",
    "outside": "{address} is outside {ranges}, the range of the endpoint's VPC {vpc}",
    "outside-several": "{address} is outside {ranges}, the ranges of the endpoint's VPC {vpc}",
    "outside-none": "{address} is outside the IPv6 ranges, of which there are none, of the endpoint's VPC {vpc}",
    "own": "{address} is the endpoint's own address",
    "resolver": "{address} is the DNS server's address in {vpc}",
    "network": "{address} is the network address of {subnet}",
    "router": "{address} is the VPC router's address in {subnet}",
    "subnet-broadcast": "{address} is the broadcast address of {subnet}",
    "client-ipv6": "{address} is an IPv6 address, and client IP preservation is for IPv4",
    "client-family": "{address} is an IPv{version} address and cannot be the source towards an IPv{other} one",
    "client-inside": "{address} is inside {ranges}, the range of the endpoint's VPC {vpc}",
    "client-inside-several": "{address} is inside {ranges}, the ranges of the endpoint's VPC {vpc}",
    "client-no-return": (
        "{target} does not send its replies through this gateway, so a client's address cannot be preserved to it"
    ),
    "metadata": "{address} is the instance metadata service",  # EC2 User Guide, instancedata-data-retrieval
    "loopback": "{address} is a loopback address",
    "link-local": "{address} is a link-local address",
    "multicast": "{address} is a multicast address",
    "broadcast": "{address} is the broadcast address",
    "reserved": "{address} is an address of the reserved range 240.0.0.0/4",
    "unspecified": "{address} is the unspecified address",
    "this-network": "{address} is an address of 0.0.0.0/8, which names no host",
    "services": "{address} is an address of fd00:ec2::/32, where the VPC's own services are",
    "compatible": "{address} is an address of ::/96, which names no host",  # RFC 4291, deprecated
}
"""Every reason there is for not dialling a target or not preserving a client's address, by its key."""

SPECIAL: Final = tuple(
    (ipaddress.ip_network(block), key)
    for block, key in (
        ("169.254.169.254/32", "metadata"),
        ("127.0.0.0/8", "loopback"),
        ("169.254.0.0/16", "link-local"),
        ("224.0.0.0/4", "multicast"),
        ("255.255.255.255/32", "broadcast"),
        ("240.0.0.0/4", "reserved"),
        ("0.0.0.0/32", "unspecified"),
        ("0.0.0.0/8", "this-network"),
        ("fd00:ec2::254/128", "metadata"),
        ("fd00:ec2::/32", "services"),
        ("::1/128", "loopback"),
        ("::/128", "unspecified"),
        ("::/96", "compatible"),
        ("fe80::/10", "link-local"),
        ("ff00::/8", "multicast"),
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


def _refusal(key: str, /, **facts: object) -> Reason:
    return Reason(key, REFUSALS[key], {name: str(fact) for name, fact in facts.items()})


def target_refusal(world: World, endpoint: Endpoint, address: str) -> Reason | None:
    """Why this endpoint never dials `address`, in words that follow "The target"; None if it may try.

    Its VPC is what it reaches, in the families of its IpAddressType: with client IP preservation because AWS says so
    (EC2 User Guide, eice-security-groups), without because that is all its routes reach so far.
    """
    target = parse_address(address)
    if target is None:
        return _refusal("not-an-address", given=address)
    if endpoint.ip_address_type in ("ipv4", "ipv6") and endpoint.ip_address_type != f"ipv{target.version}":
        kind = "IPv4" if endpoint.ip_address_type == "ipv4" else "IPv6"
        return _refusal("family", address=target, version=target.version, kind=kind)
    if key := _special_kind(target):
        return _refusal(key, address=target)
    vpc = world.vpc_of_subnet(endpoint.subnet_id)
    if not _inside(vpc, target):
        blocks = _blocks(vpc, target.version)
        key = "outside-none" if not blocks else "outside-several" if len(blocks) > 1 else "outside"
        return _refusal(key, address=target, ranges=", ".join(blocks), vpc=vpc.id)
    eni = world.interface(endpoint.interface_id)
    if eni is not None and str(target) in eni.addresses:
        return _refusal("own", address=target)
    if str(target) == _resolver(vpc.cidr_block) and world.interface_at(vpc.id, str(target)) is None:
        return _refusal("resolver", address=target, vpc=vpc.id)
    subnets = (one for one in world.subnets if one.vpc_id == vpc.id)
    return next((found for subnet in subnets if (found := _reserved_in(subnet, target))), None)


def client_refusal(world: World, endpoint: Endpoint, client_address: str, target: str | None = None) -> Reason | None:
    """Why this client's address cannot be the source that the target sees, in words that follow "The client address".

    None if it can, and always None with client IP preservation off. IPv6 is preserved where the setting
    `preserve_client_ipv6` says so. An address of the VPC would impersonate a member of its groups, or its replies would
    never return; nor would those of a machine whose router is another one. `target`: None while it is not known.
    """
    if not endpoint.preserve_client_ip:
        return None
    client = parse_address(client_address)
    end = client if target is None else parse_address(target)
    if client is None or end is None:
        return _refusal("not-an-address", given=client_address if client is None else target)
    if client.version == 6 and not (world.settings.preserve_client_ipv6 and endpoint.ip_address_type != "ipv4"):
        return _refusal("client-ipv6", address=client)
    if client.version != end.version:
        return _refusal("client-family", address=client, version=client.version, other=end.version)
    if key := _special_kind(client):
        return _refusal(key, address=client)
    vpc = world.vpc_of_subnet(endpoint.subnet_id)
    if _inside(vpc, client):
        blocks = _blocks(vpc, client.version)
        key = "client-inside-several" if len(blocks) > 1 else "client-inside"
        return _refusal(key, address=client, ranges=", ".join(blocks), vpc=vpc.id)
    receiver = None if target is None else world.interface_at(vpc.id, str(end))
    if receiver is not None and not world.replies_return(receiver):
        return _refusal("client-no-return", target=end)
    return None


@lru_cache(maxsize=8192)
def _special_kind(address: IPv4or6Address) -> str | None:
    return next((key for network, key in SPECIAL if address in network), None)


def _inside(vpc: Vpc, address: IPv4or6Address) -> bool:
    return any(address in _network(block) for block in _blocks(vpc, address.version))


def _blocks(vpc: Vpc, version: int) -> tuple[str, ...]:
    return (vpc.cidr_block,) if version == 4 else vpc.ipv6_cidr_blocks


def _reserved_in(subnet: Subnet, address: IPv4or6Address) -> Reason | None:
    """What AWS reserves that would not be a host here (VPC User Guide, subnet sizing)."""
    block = subnet.cidr_block if address.version == 4 else subnet.ipv6_cidr_block
    if not block or address not in (network := _network(block)):
        return None
    if address == network.network_address:
        return _refusal("network", address=address, subnet=subnet.id)
    if address == network.network_address + 1:
        return _refusal("router", address=address, subnet=subnet.id)
    if address.version == 4 and address == network.broadcast_address:
        return _refusal("subnet-broadcast", address=address, subnet=subnet.id)
    return None


@lru_cache(maxsize=8192)
def _network(block: str) -> IPv4or6Network:
    return ipaddress.ip_network(block)


@lru_cache(maxsize=8192)
def _resolver(block: str) -> str:
    """The VPC's base address + 2 (VPC User Guide, Amazon DNS server)."""
    return str(_network(block).network_address + 2)
