"""One connection before it is a tunnel: collects the request head, then waits with it for the decision.

    accepted --TLS--> HeadProtocol --head complete--> Gateway.decide --101--> picows (ws.py)
                          |                               |
                          +-- too large, slow, wrong -----+-- refused --> one HTTP answer, then a TLS close

Only input that never became TLS is cut without an answer: the stock AWS CLI hangs for ever on a connection that ends
before a status line.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Callable
from typing import Any, Final, Protocol

from wicketgate.gateway import head
from wicketgate.gateway.head import Head, HeadRefused

_END: Final = b"\r\n\r\n"


class Decider(Protocol):
    """The gateway, as a connection sees it."""

    head_timeout: float

    def decide(self, connection: HeadProtocol, request: Head, early: bytes) -> None:
        """Take over: `early` is what came after the head. Reading is paused."""

    def new_request_id(self) -> str:
        """An id for the answer."""

    def no_stranger(self, connection: HeadProtocol) -> None:
        """The connection is over."""

    def hand_on(self, connection: HeadProtocol, data: bytes) -> bool:
        """Carry a connection that is for the APIs to them, `data` being what was read; False when there are none."""


class HeadProtocol(asyncio.Protocol):
    """Reads one request head. After `decide` it only watches for the end of the connection."""

    def __init__(self, gateway: Decider) -> None:
        self._gateway = gateway
        self._data = b""
        self._timer: asyncio.TimerHandle | None = None
        self.transport: Any = None
        self.source_ip = ""
        self.request_id = ""
        self.on_lost: Callable[[], None] | None = None
        """Called when the connection ends while this object still has it."""

    # -- called by the event loop --------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """TLS stands; the head has to follow."""
        self.transport = transport
        self.source_ip = _address(transport.get_extra_info("peername"))
        self.request_id = self._gateway.new_request_id()
        keep_alive(transport.get_extra_info("socket"))
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._gateway.head_timeout, self._late)

    def data_received(self, data: bytes) -> None:
        """Some of the head, all of it, or more."""
        if self._timer is None:
            return
        self._data += data
        end = self._data.find(_END)
        if end > head.MAX_HEAD or (end < 0 and len(self._data) > head.MAX_HEAD):
            self.refuse_head(head.too_large())
        elif end >= 0:
            self._complete(self._data[:end], self._data[end + len(_END) :])

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._stop_timer()
        self._gateway.no_stranger(self)
        if self.on_lost is not None:
            self.on_lost()

    # -- answering -----------------------------------------------------------------------------------------------------

    def refuse_head(self, refused: HeadRefused) -> None:
        """Answer a head that nothing can come of."""
        self.refuse(refused.status, refused.code, str(refused), **refused.headers)

    def refuse(self, status: int, code: str, message: str, **headers: str) -> None:
        """Send one HTTP error and see the connection to its end.

        The transport's close sends what is written, then TLS's close_notify, and reads on until the client closes: the
        answer cannot be lost to a reset.
        """
        self._stop_timer()
        if self.transport.is_closing():
            return
        self.transport.write(head.response(status, code, message, self.request_id, headers))
        self.transport.resume_reading()
        self.transport.close()

    def refuse_bare(self, status: int) -> None:
        """The same without a body: to an API's client, whose format is not known here; SDKs take it as it is."""
        self._stop_timer()
        if self.transport.is_closing():
            return
        self.transport.write(head.bare_response(status, self.request_id))
        self.transport.resume_reading()
        self.transport.close()

    # -- inside --------------------------------------------------------------------------------------------------------

    def _complete(self, data: bytes, early: bytes) -> None:
        self._stop_timer()
        self._data = b""
        if not head.is_tunnel(data) and self._gateway.hand_on(self, data + _END + early):
            return
        try:
            request = head.parse(data)
        except HeadRefused as refused:
            self.refuse_head(refused)
            return
        self.transport.pause_reading()
        self._gateway.decide(self, request, early)

    def _late(self) -> None:
        self._timer = None
        self.refuse_head(head.too_slow(self._gateway.head_timeout))

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _address(peer: Any) -> str:
    """The client's address; one of IPv4 that came in on an IPv6 socket as IPv4 (RFC 4291 section 2.5.5.2)."""
    if not peer:
        return ""
    address = ipaddress.ip_address(peer[0].partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def keep_alive(sock: Any) -> None:
    """Have the kernel notice within two minutes that the peer's host is gone (tcp(7)). Silence alone ends nothing."""
    with contextlib.suppress(OSError):  # the connection may be over already
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
