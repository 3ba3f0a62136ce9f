"""Close codes and close reasons: the one line a user of the stock AWS CLI gets to see when a tunnel ends.

The AWS CLI prints `Websocket Closure Reason: <reason>` for every code but 1000 and shows the code only in its debug
log, so the words carry the meaning. "Unable to connect to target" is the one reason of AWS's that users have reported;
everything that kept a tunnel from reaching its target starts with it and goes on with what we know.
"""

from __future__ import annotations

import errno
from enum import IntEnum
from typing import Final

UNABLE: Final = "Unable to connect to target"
"""AWS's words, as seen by clients of the live service."""

MAX_REASON: Final = 123
"""Bytes: a control frame carries at most 125, two of them the code (RFC 6455 section 5.5)."""


class CloseCode(IntEnum):
    """WebSocket close codes that a gateway sends (RFC 6455 section 7.4; 4000-4999 are an application's own)."""

    OK = 1000
    GOING_AWAY = 1001
    """The gateway stops."""
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    """A text frame."""
    NO_STATUS = 1005
    """Never sent: the peer's close frame carried no code."""
    ABNORMAL = 1006
    """Never sent: the connection ended without a close frame."""
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    TARGET_FAILED = 1011
    """The target could not be reached, or reset the connection."""
    TRY_AGAIN_LATER = 1013
    """A limit is reached, or a part of the gateway is not there for the moment."""
    REVOKED = 4403
    """Ours, after HTTP's 403: what let the tunnel open no longer holds, and the VPC's revocation is immediate."""
    ENDPOINT_DELETED = 4404
    """Ours, after HTTP's 404."""
    DURATION_OVER = 4408
    """Ours, after HTTP's 408."""


def cut(reason: str, size: int = MAX_REASON) -> str:
    """`reason` as at most `size` bytes of UTF-8, never ending inside a character; one cut short ends in `...`."""
    data = " ".join(reason.split()).encode()
    if len(data) <= size:
        return data.decode()
    return data[: size - 3].decode(errors="ignore").rstrip() + "..."


_GENERAL: Final = {
    errno.ECONNREFUSED: "connection refused",
    errno.ETIMEDOUT: "timed out",
    errno.EHOSTUNREACH: "no route",
    errno.ENETUNREACH: "no route",
    errno.EACCES: "no route",  # IPv6's word for what IPv4 calls EHOSTUNREACH: administratively prohibited (RFC 4443)
    errno.ECONNRESET: "connection reset",
}

_KNOWING: Final = {
    errno.ECONNREFUSED: "connection refused: the packet passed, but nothing listens on port {port} of {address}",
    errno.ETIMEDOUT: "no answer from {address} within {timeout:g} s, although routes and rules pass",
    errno.EHOSTUNREACH: "no route to {address}, although routes and rules pass: the host is down or rejects",
    errno.ENETUNREACH: "no route from the endpoint to {address}",
    errno.EACCES: "no route to {address}, although routes and rules pass: the host rejects",
    errno.ECONNRESET: "connection reset by {address} while connecting",
}


def dial_failure(
    error: int,
    *,
    address: str,
    port: int,
    timeout: float,
    may_see_rules: bool,
    failed_step: str,
    request_id: str = "",
) -> str:
    """The close reason for a dial that failed with errno `error`.

    `failed_step`: the first step that fails, as `explain` words it; empty when all of them pass. Only a caller who may
    see the rules gets it; others get AWS's words and the kind of failure, which a port scan from the inside would show
    as well. The request's id, by which the whole explanation can be had, stands at the end if there is room.
    """
    if not may_see_rules:
        words = _GENERAL.get(error, "connection failed")
    elif failed_step:
        words = failed_step
    else:
        name = errno.errorcode.get(error, str(error))
        words = _KNOWING.get(error, "the kernel says {name} for {address}")
        words = words.format(address=address, port=port, timeout=timeout, name=name)
    whole = f"{UNABLE}: {words} (request id {request_id})"
    return whole if request_id and len(whole.encode()) <= MAX_REASON else cut(f"{UNABLE}: {words}")


def duration_over(seconds: float) -> str:
    """The reason when maxTunnelDuration has passed."""
    return f"Tunnel duration limit of {seconds:g} seconds reached"


def endpoint_deleted(endpoint_id: str) -> str:
    """The reason when the endpoint of an open tunnel goes away."""
    return cut(f"The EC2 Instance Connect Endpoint {endpoint_id} was deleted")


def revoked(words: str) -> str:
    """The reason when an open tunnel would no longer be admitted (the setting `revocation`)."""
    return cut(f"Access revoked: {words}")


SHUTDOWN: Final = "The gateway is shutting down; connect again"
TARGET_CLOSED: Final = "The target closed the connection"
TARGET_RESET: Final = "The target reset the connection"
CLIENT_GONE: Final = "The client went away without a close frame"
CLIENT_STALLED: Final = "The client took too long over what the target had left for it"
CLIENT_CLOSED: Final = "The client closed the tunnel"
TEXT_FRAME: Final = "Text frames are not accepted: send binary frames"
RESERVED_BITS: Final = "Reserved bits are set, but no extension was negotiated"
BAD_CONTINUATION: Final = "Continuation frame without a message to continue"
BAD_START: Final = "New data frame inside a fragmented message"
DATA_AFTER_END: Final = "Data after the end of input (an empty binary frame ends the client's input)"
