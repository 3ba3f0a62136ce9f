"""What netd has found outside, for the API process: a file that netd alone writes, whole each time, as JSON.

It goes the other way than the feed, and nothing is decided by it but what is shown and worded: netd enforces by what it
sees itself.
"""

from __future__ import annotations

import msgspec

from wicketgate.model.resources import AttachedNetwork, Struct


class Machine(Struct, frozen=True, kw_only=True):
    """An external machine, as the last probes found it."""

    reachable: bool
    since: float
    """When that was found first, in seconds since the epoch."""
    note: str = ""
    """What an operator should know of it: that its address moved to another link-layer address, or that replies to
    client addresses do not come back this way. Empty for nothing."""


class Observations(Struct, frozen=True, kw_only=True):
    """The content of the file."""

    revision: int = 0
    """The World that netd went by."""
    subnets: dict[str, AttachedNetwork] = msgspec.field(default_factory=dict)
    """Subnet id -> the network that it is bound to."""
    machines: dict[str, Machine] = msgspec.field(default_factory=dict)
    """Instance id -> what was found; instances that are not probed are not in it."""
