"""What is still on its way to a client, and how long it may take over it once nothing can follow.

A client that reads is waited for, however little it reads of a target that lives: the target then waits too. Once the
target has ended, what it left is all there is, and its slot and the client's place are held for that alone.
"""

from __future__ import annotations

import fcntl
import socket
import struct
import termios
from typing import Any, Final

STALLED_SECONDS: Final = 30.0
"""So long without any progress, and a client that does not read is dropped."""
ANSWER_SECONDS: Final = 5.0
"""How long a client gets to answer our close frame once it has received everything."""
GRACE_SECONDS: Final = 60.0
"""What every client gets, however little there is for it."""
SLOWEST: Final = 8 * 1024
"""Bytes a second (64 kbit/s) that a client has to take on average of what is left. Slower ones are dropped: the sockets
of both sides may hold megabytes, over which a client that reads a byte now and then would stay for ever."""

_OVER_FOR_THE_PEER: Final = frozenset({6, 7, 8, 9, 11})
"""TIME_WAIT, CLOSE, CLOSE_WAIT, LAST_ACK, CLOSING (Linux, include/net/tcp_states.h): its FIN or reset is here."""
TCP_CLOSE: Final = 7


class Patience:
    """How long a client may take. Made when nothing can follow; asked again and again. Pure."""

    def __init__(self, owed: int, now: float) -> None:
        """`owed` bytes are on their way to it; `now` is any monotonic time in seconds."""
        self._least = owed
        self._progress = now
        self._end = now + GRACE_SECONDS + owed / SLOWEST

    def over(self, owed: int, now: float) -> bool:
        """Whether it has had its time, with `owed` bytes still on their way."""
        if owed < self._least:
            self._least, self._progress = owed, now
        return now >= self._end or now - self._progress >= (STALLED_SECONDS if owed else ANSWER_SECONDS)


def tcp_state(transport: Any) -> int:
    """State of a transport's TCP connection (tcp(7), TCP_INFO); TCP_CLOSE when there is none any more."""
    try:
        sock = transport.get_extra_info("socket")
        return int(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0])
    except (OSError, AttributeError):
        return TCP_CLOSE


def peer_ended(transport: Any) -> bool:
    """Whether the peer's end has reached our kernel, read or not: it may lie behind data for which there is no room."""
    return tcp_state(transport) in _OVER_FOR_THE_PEER


def unread(transport: Any) -> int:
    """Bytes in the socket's receive queue (tcp(7), SIOCINQ)."""
    return _queued(transport, termios.FIONREAD)


def unacknowledged(transport: Any) -> int:
    """Bytes in the socket's send queue that the peer has not acknowledged (tcp(7), SIOCOUTQ)."""
    return _queued(transport, termios.TIOCOUTQ)


def _queued(transport: Any, request: int) -> int:
    try:
        sock = transport.get_extra_info("socket")
        return int(struct.unpack("i", fcntl.ioctl(sock.fileno(), request, b"\0\0\0\0"))[0])
    except (OSError, ValueError, AttributeError):
        return 0
