"""What Reachability Analyzer keeps: what is asked, and what was found out (VPC Reachability Analyzer guide)."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from wicketgate.model.resources import Struct


class HeaderFilter(Struct, frozen=True, kw_only=True):
    """What a packet's header has to be at one end of a path (EC2 API, PathFilter). Empty and None: anything."""

    source_address: str = ""
    source_ports: tuple[int, int] | None = None
    """First and last."""
    destination_address: str = ""
    destination_ports: tuple[int, int] | None = None


class NetworkInsightsPath(Struct, frozen=True, kw_only=True):
    """A question: does this reach that?"""

    id: str
    source: str
    """Id of an instance, network interface, VPC peering connection or EC2 Instance Connect Endpoint, which may have
    gone since."""
    destination: str = ""
    """The same; empty when an address alone says what is to be reached."""
    source_ip: str = ""
    """Canonical; empty for any."""
    destination_ip: str = ""
    protocol: Literal["tcp", "udp"]
    destination_port: int | None = None
    """None for any."""
    at_source: HeaderFilter | None = None
    at_destination: HeaderFilter | None = None
    created_at: float = 0.0
    """Seconds since the epoch."""
    tags: dict[str, str] = msgspec.field(default_factory=dict)


class NetworkInsightsAnalysis(Struct, frozen=True, kw_only=True):
    """An answer, by the World of the moment when it was asked for."""

    id: str
    path_id: str
    started_at: float = 0.0
    """Seconds since the epoch."""
    path_found: bool
    filter_in: tuple[str, ...] = ()
    """ARNs of what the path had to traverse."""
    filter_out: tuple[str, ...] = ()
    """ARNs of what it had to do without."""
    forward: tuple[dict[str, Any], ...] = ()
    """The way there, as the EC2 API shows it (PathComponent)."""
    back: tuple[dict[str, Any], ...] = ()
    explanations: tuple[dict[str, Any], ...] = ()
    """Why there is no path, as the EC2 API shows it (Explanation)."""
    hints: tuple[str, ...] = ()
    """ARNs of what another path would traverse."""
    tags: dict[str, str] = msgspec.field(default_factory=dict)
