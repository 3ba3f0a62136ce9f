"""ConnectionTrackingSpecification: the idle time-outs that an interface sets for its tracked connections.

Bounds and defaults: EC2 User Guide, "Idle connection tracking timeout".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from wicketgate.model import ApiError, NetworkInterface
from wicketgate.model.resources import ConnectionTracking

_BOUNDS: Final = {
    "TcpEstablishedTimeout": ("tcp_established", 60, 432_000),
    "UdpStreamTimeout": ("udp_stream", 60, 180),
    "UdpTimeout": ("udp", 30, 60),
}
"""Member -> field of the model, least and most seconds."""


def tracking_of(
    given: Mapping[str, Any] | None, present: ConnectionTracking | None = None
) -> ConnectionTracking | None:
    """The time-outs that a request sets, beside the present ones that it leaves alone; None when none is set.

    Raises InvalidParameterValue for seconds out of bounds.
    """
    fields = {_BOUNDS[name][0]: _checked(name, value) for name, value in (given or {}).items() if value is not None}
    changed = msgspec.structs.replace(present or ConnectionTracking(), **fields)
    return None if changed == ConnectionTracking() else changed


def _checked(name: str, seconds: int) -> int:
    _, least, most = _BOUNDS[name]
    if not least <= seconds <= most:
        raise ApiError(
            "InvalidParameterValue",
            f"Value ({seconds}) for parameter {name[0].lower()}{name[1:]} is invalid. "
            f"It is in seconds, from {least} to {most}.",
        )
    return seconds


def tracking_answer(interface: NetworkInterface) -> dict[str, Any]:
    """ConnectionTrackingConfiguration, to be merged into an interface's answer; {} where nothing is set."""
    tracking = interface.connection_tracking
    if tracking is None:
        return {}
    values = {name: getattr(tracking, field) for name, (field, _, _) in _BOUNDS.items()}
    return {"ConnectionTrackingConfiguration": {name: value for name, value in values.items() if value is not None}}
