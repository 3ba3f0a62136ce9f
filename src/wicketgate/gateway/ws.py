"""Everything we know about picows, in one file: the hand-over of a connection, and the strictness it lacks.

picows parses frames without Python per byte, but it is not a strict peer and not an HTTP front. Here:
- `ClientLink` checks what picows does not: reserved bits, the order of fragments, text frames;
- close reasons are cut at 123 bytes before picows sees them (it would send an illegal frame);
- PINGs are answered here, and only the latest one while the client does not read (RFC 6455 section 5.5.3 allows
  that): picows would queue an answer to each, and a client that pings without reading would fill our memory;
- whole binary frames do not reach picows: `Unmasker` takes them, for speed;
- `hand_over` builds picows' protocol object by its private constructor. picows is pinned for that.

Reading is paused and resumed through `resume`: aiofastnet 1.2.0, when resumed, looks at the socket only, and would let
ciphertext that it had already read lie until the client sends more - for ever, if the client waits for an answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final, Protocol, cast

from picows import (
    WSAutoPingStrategy,
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
)
from picows.picows import WSProtocol  # type: ignore[attr-defined]  # private, hence not in its stub

from wicketgate.gateway.drain import TCP_CLOSE, Patience, tcp_state, unacknowledged
from wicketgate.gateway.unmask import Unmasker
from wicketgate.tunnel import CloseCode, cut, reasons

MAX_FRAME: Final = 256 * 1024
"""Bytes of one inbound frame. The stock CLI sends at most 65,000; picows' read buffer stays as large."""
WRITE_HIGH: Final = 256 * 1024
"""Bytes waiting for the client above which the target is no longer read."""

_DRAIN_TICK: Final = 1.0
_TCP_ESTABLISHED: Final = 1

_BINARY: Final = WSMsgType.BINARY
_CONTINUATION: Final = WSMsgType.CONTINUATION
_DATA: Final = (_BINARY, _CONTINUATION)

_log = logging.getLogger("wicketgate.gateway.picows")
_log.setLevel(logging.CRITICAL)  # it logs every connection and every malformed frame; we log what matters ourselves


class LinkOwner(Protocol):
    """What a ClientLink reports to: the tunnel."""

    def client_ended(self) -> None:
        """An empty message: end of input."""

    def client_closed(self, code: int) -> None:
        """A close frame; 1005 when it carried no code."""

    def client_violated(self, code: int, reason: str) -> None:
        """A frame that must not be sent. Nothing the client sends counts any more."""

    def client_gone(self) -> None:
        """The connection is over."""

    def pause_target(self) -> None:
        """The client does not keep up: stop reading from the target."""

    def resume_target(self) -> None:
        """The client has caught up."""


class ClientLink(WSListener):
    """The client's side of one tunnel, from the 101 on."""

    def __init__(self, owner: LinkOwner, transport: Any, sink: Callable[[bytes | memoryview], None]) -> None:
        """`sink` takes each payload and must be done with it when it returns."""
        super().__init__()
        self._owner = owner
        self._transport = transport
        self._sink: Callable[[bytes | memoryview], None] | None = sink
        self._ws: WSTransport | None = None
        self._in_message = False
        self._write_paused = False
        self._owed_pong: bytes | None = None
        self._closing = False
        self._drain_timer: asyncio.TimerHandle | None = None
        self._patience: Patience | None = None
        self.received = 0
        """Payload bytes from the client."""
        self.sent = 0
        """Payload bytes to the client."""

    # -- called by the tunnel ------------------------------------------------------------------------------------------

    def send(self, data: memoryview) -> None:
        """Send one binary frame. Ignored once a close frame was sent."""
        if self._ws is not None and not self._closing:
            self.sent += len(data)
            self._ws.send(_BINARY, data)

    def behind(self) -> bool:
        """Whether so much waits for the client that the target is not read."""
        return self._write_paused

    def owed(self) -> int:
        """Bytes sent that the client's kernel has not acknowledged, TLS and frames included."""
        return int(self._transport.get_write_buffer_size()) + unacknowledged(self._transport)

    def hung_up(self) -> bool:
        """Whether the client's TCP connection is over, or over in its direction, read or not (tcp(7), TCP_INFO)."""
        return tcp_state(self._transport) != _TCP_ESTABLISHED

    def broken(self) -> bool:
        """Whether the client's TCP connection is over in both directions: reset, or given up by keepalive."""
        return tcp_state(self._transport) == TCP_CLOSE

    def ping(self) -> None:
        """Send a PING unless the client is behind. No answer is needed: a suspended client must not lose its tunnel."""
        if self._ws is not None and not self._closing and not self._write_paused:
            self._ws.send_ping()

    def refuse_more(self) -> None:
        """From now on a payload from the client is a violation: its input has ended."""
        self._sink = None

    def pause(self) -> None:
        """Stop reading from the client."""
        self._transport.pause_reading()

    def resume(self) -> None:
        """Read from the client again, beginning with what is already here."""
        self._transport.resume_reading()
        retry = getattr(self._transport, "_retry_ssl_read", None)
        if retry is not None:
            retry()

    def close(self, code: int, reason: str) -> None:
        """Send a close frame behind everything sent, then see the connection to its end."""
        if self._closing or self._ws is None:
            return
        self._closing = True
        self._sink = None
        self._ws.send_close(code, cut(reason))  # type: ignore[arg-type]  # takes any code, its stub only WSCloseCode
        self.resume()
        self._drain()

    def abort(self) -> None:
        """End the connection now."""
        self._transport.abort()

    # -- called by picows ----------------------------------------------------------------------------------------------

    def on_ws_connected(self, transport: WSTransport) -> None:
        """The 101 is sent."""
        self._ws = transport
        self._transport.set_write_buffer_limits(high=WRITE_HIGH, low=WRITE_HIGH // 4)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """One frame. The common case, a whole binary message, comes first."""
        if self._closing:
            if frame.msg_type == WSMsgType.CLOSE:
                self._hang_up()
            return
        kind = frame.msg_type
        if frame.rsv1 or frame.rsv2 or frame.rsv3:
            self._violation(CloseCode.PROTOCOL_ERROR, reasons.RESERVED_BITS)
        elif kind in _DATA:
            if (kind == _CONTINUATION) is not self._in_message:
                self._out_of_order()
                return
            whole = frame.fin and not self._in_message
            self._in_message = not frame.fin
            if frame.payload_size:
                self.payload(frame.get_payload_as_memoryview())
            elif whole:
                self._owner.client_ended()
        else:
            self._control(kind, frame)

    def takes_messages(self) -> bool:
        """Whether a whole binary frame may come now: no fragmented one is under way, and no end."""
        return not self._in_message and not self._closing and self._ws is not None and self._ws.close_handshake is None

    def payload(self, data: bytes | memoryview) -> None:
        """Payload of a binary frame."""
        if self._sink is None:
            self._violation(CloseCode.PROTOCOL_ERROR, reasons.DATA_AFTER_END)
            return
        self.received += len(data)
        self._sink(data)

    def _control(self, kind: WSMsgType, frame: WSFrame) -> None:
        if kind == WSMsgType.PING:
            self._pong(frame.get_payload_as_bytes())
        elif kind == WSMsgType.CLOSE:
            code = int(cast(int, frame.get_close_code())) if frame.payload_size >= 2 else CloseCode.NO_STATUS
            self._owner.client_closed(code)
            self._hang_up()
        elif kind == WSMsgType.TEXT:
            self._violation(CloseCode.UNSUPPORTED_DATA, reasons.TEXT_FRAME)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """The connection is over. Errors that picows found by itself come to light here, already answered by it."""
        self._stop_drain()
        handshake = transport.close_handshake
        if not self._closing and handshake is not None and handshake.sent is not None:
            self._closing = True
            self._owner.client_violated(int(cast(int, handshake.sent.code)), handshake.sent.reason or "")
        self._owner.client_gone()

    def pause_writing(self) -> None:
        """Too much waits for the client."""
        self._write_paused = True
        self._owner.pause_target()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._write_paused = False
        if self._owed_pong is not None:
            self._pong(self._owed_pong)
        self._owner.resume_target()

    def _pong(self, payload: bytes) -> None:
        if self._write_paused:
            self._owed_pong = payload
        elif self._ws is not None:
            self._owed_pong = None
            self._ws.send_pong(payload)

    def _out_of_order(self) -> None:
        self._violation(CloseCode.PROTOCOL_ERROR, reasons.BAD_START if self._in_message else reasons.BAD_CONTINUATION)

    def _violation(self, code: int, reason: str) -> None:
        self._owner.client_violated(code, reason)

    # -- the end -------------------------------------------------------------------------------------------------------

    def _drain(self) -> None:
        """After our close frame: wait for the client's, as long as what we sent before is still being delivered.

        Closing the socket while the client still sends would reset the connection and destroy what is on its way.
        """
        loop = asyncio.get_running_loop()
        owed, now = self.owed(), loop.time()
        if self._patience is None:
            self._patience = Patience(owed, now)
        if self._patience.over(owed, now):
            self._transport.abort() if owed else self._hang_up()
            return
        self._drain_timer = loop.call_later(_DRAIN_TICK, self._drain)

    def _stop_drain(self) -> None:
        if self._drain_timer is not None:
            self._drain_timer.cancel()
            self._drain_timer = None

    def _hang_up(self) -> None:
        self._stop_drain()
        self._transport.close()


def hand_over(transport: Any, link: ClientLink, *, websocket_key: str, request_id: str, early: bytes) -> None:
    """Answer 101 on `transport` and let picows speak from here on; `early` is what the client sent after its head.

    `link` gets frames before this returns if there are any in `early`. Reading stays paused; resume it with the link.
    """
    head = (
        "GET / HTTP/1.1\r\nHost: wicketgate\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {websocket_key}\r\n\r\n"
    ).encode()

    def factory(request: WSUpgradeRequest) -> WSUpgradeResponseWithListener:
        answer = WSUpgradeResponse.create_101_response({"x-amzn-requestid": request_id})
        return WSUpgradeResponseWithListener(answer, link)

    protocol = WSProtocol(
        None,  # host_port and ws_path: a client's
        None,
        False,  # server side
        factory,
        _log,
        True,  # disconnect_on_exception
        None,  # handshake timeout: the head is complete
        False,  # auto ping: silence is no reason to cut (see ClientLink.ping)
        20,
        20,
        WSAutoPingStrategy.PING_WHEN_IDLE,
        False,  # auto pong: ClientLink answers
        MAX_FRAME,
        None,
        max(16384, len(head) + 512),
    )
    protocol.connection_made(transport)
    room = protocol.get_buffer(-1)
    room[: len(head)] = head
    protocol.buffer_updated(len(head))
    unmasker = Unmasker(protocol, link, MAX_FRAME)
    transport.set_protocol(unmasker)
    unmasker.feed(early)
