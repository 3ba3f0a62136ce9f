"""Names and fixed values that the ruleset's parts agree on."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from typing import Literal

from wicketgate.model import Endpoint
from wicketgate.rules.ir import Version

TABLE = "wicketgate"
APPLIED = "applied"
"""A chain without a hook that carries the fingerprint of the ruleset in its comment."""

INITIATOR_UNTRACKED, RESPONDER_UNTRACKED = 0x1, 0x2
"""Bits of the connection mark: whether the flow is untracked at the interface that opened it, and at the other."""
UNTRACKED = INITIATOR_UNTRACKED | RESPONDER_UNTRACKED

ENDPOINT_MARK_SHIFT = 16
ENDPOINT_MARK_MASK = 0x0FFF0000
"""Bits 16-27 of connection and packet marks: the endpoint a flow came from. Bits 28-31 are the operator's."""

METADATA_ADDRESS, METADATA_ADDRESS6, METADATA_PORT = "169.254.169.254", "fd00:ec2::254", 80
"""Where instance metadata is, in every VPC (EC2 User Guide, "Access instance metadata")."""
DNS_ADDRESSES = ("169.254.169.253", "fd00:ec2::253")
"""Where the Amazon DNS server is, beside the VPC's base + 2 (VPC User Guide, "Amazon DNS server")."""
TIME_ADDRESSES = ("169.254.169.123", "fd00:ec2::123")
"""Where the Amazon Time Sync Service is (EC2 User Guide)."""

LINK_LOCAL4, LINK_LOCAL6 = IPv4Network("169.254.0.0/16"), IPv6Network("fe80::/10")

Direction = Literal["in", "out"]


def endpoint_mark(endpoint: Endpoint) -> int:
    """The mark of an endpoint's flows."""
    return endpoint.index << ENDPOINT_MARK_SHIFT


def sources(version: Version) -> str:
    """Set of (link, address) of all interfaces: what each may send as."""
    return f"sources{version}"


def members(group_id: str) -> str:
    """Set of the links that carry a group."""
    return f"members_{_short(group_id)}"


def remote(group_id: str, version: Version) -> str:
    """Set of (peering link, address) of the members of a group of a peered VPC."""
    return f"remote{version}_{_short(group_id)}"


def group_chain(direction: Direction, group_id: str) -> str:
    """A group's rules of a direction but for those of the next."""
    return f"{direction}_{_short(group_id)}"


def cells(direction: Direction, protocol: Literal["tcp", "udp"], version: Version, group_id: str) -> str:
    """Set of a group's rules of a direction for ports of a protocol and ranges of a family."""
    return f"{direction}_{protocol}{version}_{_short(group_id)}"


def any_chain(direction: Direction, group_id: str) -> str:
    """A group's rules of a direction for any address, which can make a flow untracked."""
    return f"{direction}_any_{_short(group_id)}"


def list_chain(direction: Direction, prefix_list_id: str, bucket: int | None = None) -> str:
    """The entries of a prefix list, or one bucket of them."""
    whole = f"{direction}_list_{prefix_list_id.removeprefix('pl-')}"
    return whole if bucket is None else f"{whole}_{bucket}"


def untracking_chain(direction: Direction, version: Version) -> str:
    """Where a rule for any address leads: what makes the flow untracked, then on as after any other rule."""
    return f"untrack_{direction}{version}"


def open_set(direction: Direction, protocol: Literal["tcp", "udp"], version: Version) -> str:
    """Set of the links whose rules of a direction allow all ports from, or to, any address."""
    return f"open_{direction}_{protocol}{version}"


OPEN_SETS = tuple(
    open_set(direction, protocol, version)
    for direction in ("in", "out")
    for protocol in ("tcp", "udp")
    for version in (4, 6)
)


def _short(group_id: str) -> str:
    return group_id.removeprefix("sg-")
