"""What leads beyond one VPC's groups and ranges: managed prefix lists, VPC peering connections, route tables."""

from __future__ import annotations

from typing import Literal

import msgspec

from wicketgate.model.resources import Struct


class PrefixListEntry(Struct, frozen=True, kw_only=True):
    """A range of a prefix list."""

    cidr: str
    """In canonical form, of the list's address family."""
    description: str = ""


class PrefixList(Struct, frozen=True, kw_only=True):
    """A customer-managed prefix list in its present version. Rules that name it follow it at once (VPC User Guide,
    managed prefix lists)."""

    id: str
    name: str
    address_family: Literal["IPv4", "IPv6"]
    max_entries: int
    """Also its weight: for how many rules a rule that names it counts."""
    version: int = 1
    entries: tuple[PrefixListEntry, ...] = ()
    state: str = "create-complete"
    state_message: str = ""
    tags: dict[str, str] = msgspec.field(default_factory=dict)


class PrefixListVersion(Struct, frozen=True, kw_only=True):
    """What a version of a prefix list did to the one before: enough to find any version again from the present one."""

    id: str
    """`pl-...:3`."""
    prefix_list_id: str
    number: int
    added: tuple[PrefixListEntry, ...] = ()
    removed: tuple[PrefixListEntry, ...] = ()


class VpcPeeringConnection(Struct, frozen=True, kw_only=True):
    """A link between the routers of two VPCs of the account. Packets pass once it is active and both sides have
    routes (VPC Peering Guide)."""

    id: str
    requester_vpc_id: str
    accepter_vpc_id: str
    link: str
    """Name of the network device on both VPC routers (at most 15 bytes)."""
    status: Literal["pending-acceptance", "active", "failed", "rejected", "expired", "deleted"] = "pending-acceptance"
    status_message: str = ""
    created_at: float = 0.0
    """Seconds since the epoch."""
    ended_at: float = 0.0
    """When it failed, expired, was rejected or deleted, in seconds since the epoch; it is shown for a while after."""
    tags: dict[str, str] = msgspec.field(default_factory=dict)

    def other(self, vpc_id: str) -> str:
        """The VPC at the other end."""
        return self.accepter_vpc_id if vpc_id == self.requester_vpc_id else self.requester_vpc_id


class Route(Struct, frozen=True, kw_only=True):
    """A route of a route table to a peered VPC. (The local route is not kept: every table has it.)"""

    destination: str
    """IPv4 or IPv6 range in canonical form."""
    peering_id: str
    """Where it leads; while that connection is not active the route is a blackhole."""


class RouteTable(Struct, frozen=True, kw_only=True):
    """Where packets of some subnets go beyond the VPC."""

    id: str
    vpc_id: str
    main: bool = False
    """Whether subnets without a table of their own follow it."""
    subnet_ids: tuple[str, ...] = ()
    """Subnets that are explicitly associated."""
    routes: tuple[Route, ...] = ()
    tags: dict[str, str] = msgspec.field(default_factory=dict)
