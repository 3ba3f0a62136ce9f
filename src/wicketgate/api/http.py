"""HTTP/1.1 on the API process's Unix socket: requests in, one answer each, in order.

The gateway ends TLS and hands a connection on with a preamble: 2 bytes length (big-endian) and a JSON object that says
from whom it is. Everything after it is the client's own bytes. Parsing is httptools' (llhttp, RFC 9112); what is ours
are the limits: 32 KiB of head, `MAX_BODY` of body, 30 s for a request to arrive, 75 s between two, and no further
request is read before the answer to the one before is taken. A client that sends
a request before the answer to the one before (RFC 9112 section 9.3.2) gets that answer and has to connect again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import struct
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, Final

import httptools
import msgspec

from wicketgate.api.service import MAX_BODY, Reply

_logger = logging.getLogger("wicketgate.api")

PREAMBLE: Final = struct.Struct("!H")
MAX_HEAD: Final = 32 * 1024
REQUEST_SECONDS: Final = 30.0
"""From a request's first byte to its last."""
IDLE_SECONDS: Final = 75.0
"""Between two requests. Longer than the minute after which common clients drop an idle connection themselves."""
LINGER_SECONDS: Final = 5.0
"""For which what still comes is thrown away after a refusal: closing at once could lose the answer to a reset."""
STALL_SECONDS: Final = 60.0
"""For which a client may take nothing of its answer."""
SMALL_BODY: Final = 64 * 1024
MAX_LARGE: Final = 64
"""Requests at once with a body above SMALL_BODY bytes: bodies are read before it is known who sends them."""
_ONCE: Final = frozenset({"authorization", "host", "x-amz-target"})
"""Headers that come once (RFC 9112 section 3.2, RFC 9110 section 5.3): two readers could mean different ones."""


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """Who is at the other end of a connection, as the gateway saw it."""

    source_ip: str
    tls_version: str = ""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One HTTP request, whole."""

    method: str
    path: str
    """As it stands in the request line, without the query."""
    query: str
    headers: dict[str, str]
    """By lower-case name; values of a name that comes again are joined by a comma (RFC 9110 section 5.3, and SigV4)."""
    body: bytes
    peer: Peer


Handler = Callable[[Request], Awaitable[Reply]]


class _Broken(Exception):  # never leaves this module
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Connection(asyncio.Protocol):
    """One client's connection, handed on by a gateway."""

    def __init__(
        self,
        handler: Handler,
        connections: set[Connection],
        *,
        request_seconds: float = REQUEST_SECONDS,
        idle_seconds: float = IDLE_SECONDS,
        stall_seconds: float = STALL_SECONDS,
    ) -> None:
        self._handler = handler
        self._connections = connections
        self._request_seconds = request_seconds
        self._idle_seconds = idle_seconds
        self._stall_seconds = stall_seconds
        self._transport: asyncio.Transport | None = None
        self._preamble = b""
        self._ended = False
        self._peer: Peer | None = None
        self._parser: Any = None
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._later = b""
        self._ending = False
        self._writable = asyncio.Event()
        self._writable.set()
        self._reset()

    def _reset(self) -> None:
        self._began = False
        self._url = b""
        self._headers: dict[str, str] = {}
        self._head_size = 0
        self._read = 0
        """Bytes of a head that is not whole yet, as they came."""
        self._head_complete = False
        self._body = bytearray()
        self._large = False
        self._complete = False
        self._more = False
        """The next request has begun."""

    # -- called by the event loop --------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The preamble has to follow."""
        self._transport = transport  # type: ignore[assignment]  # what uvloop makes is no asyncio.Transport by class
        self._connections.add(self)
        self._wait(self._request_seconds)

    def data_received(self, data: bytes) -> None:
        """More of the preamble, a request, or the next one."""
        if self._ending:
            return
        if self._peer is None:
            data = self._read_preamble(data)
            if self._peer is None:
                return
        if self._task is not None:
            self._later += data  # at most one read more: reading is paused
            return
        self._feed(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client or its gateway is gone. What was asked is carried out all the same."""
        self._connections.discard(self)
        self._stop_timer()
        self._transport = None
        self._writable.set()

    def eof_received(self) -> bool:
        """Nothing more is asked: what was is answered, and the connection closed. Returns whether it stays open."""
        self._ended = True
        return self._task is not None

    def pause_writing(self) -> None:
        """The client is slow to take its answer."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """It has taken most of it."""
        self._writable.set()

    def close(self) -> None:
        """Close when no request is under way."""
        if self._task is None and self._transport is not None:
            self._transport.close()

    # -- reading -------------------------------------------------------------------------------------------------------

    def _read_preamble(self, data: bytes) -> bytes:
        self._preamble += data
        if len(self._preamble) < PREAMBLE.size:
            return b""
        (size,) = PREAMBLE.unpack_from(self._preamble)
        end = PREAMBLE.size + size
        if len(self._preamble) < end:
            return b""
        self._peer = msgspec.json.decode(self._preamble[PREAMBLE.size : end], type=Peer)
        self._parser = httptools.HttpRequestParser(self)
        rest, self._preamble = self._preamble[end:], b""
        return rest

    def _feed(self, data: bytes) -> None:
        if not data:
            return
        if not self._began:  # once: what comes byte by byte gets no more time
            self._began = True
            self._wait(self._request_seconds)
        try:
            self._parser.feed_data(data)
            self._check_read(len(data))
        except _Broken as broken:
            self._refuse(broken.status, str(broken))
        except httptools.HttpParserUpgrade:
            self._more = True  # ignored (RFC 9110 section 7.8), but what follows would not be read
        except httptools.HttpParserError as error:
            cause = error.__context__
            if isinstance(cause, _Broken):
                self._refuse(cause.status, str(cause))
            else:
                self._refuse(400, "The request is not HTTP/1.1.")

    def on_message_begin(self) -> None:
        """A request, or the next one: of that nothing is taken."""
        self._more = self._complete

    def on_url(self, url: bytes) -> None:
        """Some of the request target."""
        if self._complete:
            return
        self._url += url
        self._check_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header line. Trailers say nothing here (RFC 9110 section 6.5.1)."""
        if self._head_complete:
            return
        key, text = name.decode("latin-1").lower(), value.strip(b" \t").decode("latin-1")
        if key in _ONCE and key in self._headers:
            raise _Broken(400, f"The request has more than one {key} header.")
        self._headers[key] = f"{self._headers[key]},{text}" if key in self._headers else text
        self._check_head(len(name) + len(value) + 4)

    def on_headers_complete(self) -> None:
        """The head is whole."""
        if self._complete:
            return
        self._head_complete = True
        length = self._headers.get("content-length", "0")
        if length.isdecimal() and int(length) > MAX_BODY:
            raise _Broken(413, f"The body has {length} bytes; at most {MAX_BODY} are read.")
        if self._headers.get("expect", "").lower() == "100-continue" and self._transport is not None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, data: bytes) -> None:
        """Some of the body."""
        if self._complete:
            return
        self._body += data
        if len(self._body) > MAX_BODY:
            raise _Broken(413, f"The body has more than {MAX_BODY} bytes.")
        if len(self._body) > SMALL_BODY and not self._large:
            if sum(one._large for one in self._connections) >= MAX_LARGE:
                raise _Broken(503, "Too many large requests at once.")
            self._large = True

    def on_message_complete(self) -> None:
        """The request is whole."""
        if self._complete:
            return
        self._complete = True
        self._stop_timer()
        url = httptools.parse_url(self._url)
        request = Request(
            method=self._parser.get_method().decode("latin-1"),
            path=(url.path or b"/").decode("latin-1"),
            query=(url.query or b"").decode("latin-1"),
            headers=self._headers,
            body=bytes(self._body),
            peer=self._peer or Peer(source_ip=""),
        )
        if self._transport is not None:
            self._transport.pause_reading()
        self._task = asyncio.get_running_loop().create_task(self._answer(request, self._parser.should_keep_alive()))

    def _check_head(self, size: int) -> None:
        self._head_size += size
        if self._head_size > MAX_HEAD:
            raise _Broken(431, f"The request line and headers have more than {MAX_HEAD} bytes.")

    def _check_read(self, size: int) -> None:
        """The parser keeps a line until it is whole, however long: see to that as well."""
        if not self._head_complete:
            self._read += size
            if self._read > MAX_HEAD:
                raise _Broken(431, f"The request line and headers have more than {MAX_HEAD} bytes.")

    # -- answering -----------------------------------------------------------------------------------------------------

    async def _answer(self, request: Request, keep_alive: bool) -> None:
        reply = await self._handler(request)
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        keep_alive = keep_alive and not self._more and not self._ended
        self._write(reply, keep_alive=keep_alive, with_body=request.method != "HEAD")
        await self._taken(transport)
        self._task = None
        if transport.is_closing():
            return
        if not keep_alive:
            self._end()
            return
        self._reset()
        self._wait(self._idle_seconds)
        transport.resume_reading()
        if self._later:
            data, self._later = self._later, b""
            self._feed(data)

    async def _taken(self, transport: asyncio.Transport) -> None:
        """Wait until the client has taken most of its answer; cut off one that takes nothing of it any more."""
        left = transport.get_write_buffer_size()
        while not self._writable.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._writable.wait(), self._stall_seconds)
            before, left = left, transport.get_write_buffer_size()
            if not self._writable.is_set() and left >= before:
                transport.abort()
                return

    def _write(self, reply: Reply, *, keep_alive: bool, with_body: bool = True) -> None:
        lines = [f"HTTP/1.1 {reply.status} {_phrase(reply.status)}"]
        lines += [f"{name}: {value}" for name, value in reply.headers]
        lines += [f"Content-Length: {len(reply.body)}", f"Connection: {'keep-alive' if keep_alive else 'close'}"]
        head = "\r\n".join([*lines, "", ""]).encode("latin-1")
        assert self._transport is not None
        self._transport.write(head + reply.body if with_body else head)

    def _refuse(self, status: int, message: str) -> None:
        """Answer what is no request, and end the connection: nobody knows where the next one would begin."""
        self._stop_timer()
        if self._task is not None:  # wrong is what follows a request whose answer is still to come
            self._more = True
        if self._transport is None or self._transport.is_closing() or self._task is not None:
            return
        body = f"{message}\n".encode()
        reply = Reply(status, (("Content-Type", "text/plain; charset=utf-8"),), body)
        self._write(reply, keep_alive=False)
        self._end()

    def _end(self) -> None:
        """End our side, and the connection when the client has ended its own, or is late with that."""
        self._ending = True
        if self._transport is not None:
            self._transport.write_eof()
            self._transport.resume_reading()
            self._stop_timer()
            self._timer = asyncio.get_running_loop().call_later(LINGER_SECONDS, self._part, self._stall_seconds)

    def _part(self, patience: float) -> None:
        """Close, also before a client that takes nothing any more: `close` alone would wait for it without end."""
        if self._transport is None:
            return
        if self._transport.get_write_buffer_size() and patience > 0:
            later = asyncio.get_running_loop().call_later
            self._timer = later(LINGER_SECONDS, self._part, patience - LINGER_SECONDS)
        else:
            self._transport.abort()

    # -- time ----------------------------------------------------------------------------------------------------------

    def _wait(self, seconds: float) -> None:
        self._stop_timer()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._late)

    def _late(self) -> None:
        if self._url or self._headers:
            self._refuse(408, f"The request did not arrive within {self._request_seconds:g} s.")
        elif self._transport is not None:
            self._transport.abort()  # nothing is under way, and an answer that is not taken by now never will be

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Answer"
