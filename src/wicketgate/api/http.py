"""HTTP/1.1 on the API process's Unix socket: requests in, one answer each, in order.

The gateway ends TLS and hands a connection on with a preamble: 2 bytes length (big-endian) and a JSON object that says
from whom it is. Everything after it is the client's own bytes. Parsing is httptools' (llhttp, RFC 9112); what is ours
are the limits: 32 KiB of head, `MAX_BODY` of body, 30 s for a request to arrive, 75 s between two.
"""

from __future__ import annotations

import asyncio
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
    """By lower-case name; values of a name that comes again are joined by `, ` (RFC 9110 section 5.3)."""
    body: bytes
    peer: Peer


Handler = Callable[[Request], Awaitable[Reply]]


class _Broken(Exception):  # never leaves this module
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Connection(asyncio.Protocol):
    """One client's connection, handed on by a gateway."""

    def __init__(self, handler: Handler, connections: set[Connection]) -> None:
        self._handler = handler
        self._connections = connections
        self._transport: asyncio.Transport | None = None
        self._preamble = b""
        self._peer: Peer | None = None
        self._parser: Any = None
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._later = b""
        self._upgrade = False
        self._reset()

    def _reset(self) -> None:
        self._url = b""
        self._headers: dict[str, str] = {}
        self._body = bytearray()
        self._head_size = 0
        self._complete = False

    # -- called by the event loop --------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The preamble has to follow."""
        self._transport = transport  # type: ignore[assignment]  # what uvloop makes is no asyncio.Transport by class
        self._connections.add(self)
        self._wait(REQUEST_SECONDS)

    def data_received(self, data: bytes) -> None:
        """More of the preamble, a request, or the next one."""
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
        if not self._complete and not self._url and not self._headers:
            self._wait(REQUEST_SECONDS)
        if not self._body:
            self._head_size += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse(400, "Upgrades are made at endpoints' names only.")
        except httptools.HttpParserError as error:
            cause = error.__context__
            if isinstance(cause, _Broken):
                self._refuse(cause.status, str(cause))
            else:
                self._refuse(400, "The request is not HTTP/1.1.")

    def on_url(self, url: bytes) -> None:
        """Some of the request target."""
        self._url += url
        self._check_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header line."""
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        self._headers[key] = f"{self._headers[key]}, {text}" if key in self._headers else text
        self._check_head()

    def on_headers_complete(self) -> None:
        """The head is whole."""
        length = self._headers.get("content-length", "0")
        if length.isdecimal() and int(length) > MAX_BODY:
            raise _Broken(413, f"The body has {length} bytes; at most {MAX_BODY} are read.")
        if self._headers.get("expect", "").lower() == "100-continue" and self._transport is not None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, data: bytes) -> None:
        """Some of the body."""
        self._body += data
        if len(self._body) > MAX_BODY:
            raise _Broken(413, f"The body has more than {MAX_BODY} bytes.")

    def on_message_complete(self) -> None:
        """The request is whole. One more in the same data is not taken: AWS's clients wait for their answers."""
        if self._complete:
            raise _Broken(400, "Send a request after the answer to the one before.")
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

    def _check_head(self) -> None:
        size = len(self._url) + sum(len(name) + len(value) for name, value in self._headers.items())
        if size > MAX_HEAD:
            raise _Broken(431, f"The request line and headers have more than {MAX_HEAD} bytes.")

    # -- answering -----------------------------------------------------------------------------------------------------

    async def _answer(self, request: Request, keep_alive: bool) -> None:
        reply = await self._handler(request)
        self._task = None
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        self._write(reply, keep_alive=keep_alive, with_body=request.method != "HEAD")
        if not keep_alive:
            transport.close()
            return
        self._reset()
        self._wait(IDLE_SECONDS)
        transport.resume_reading()
        if self._later:
            data, self._later = self._later, b""
            self._feed(data)

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
        if self._transport is None or self._transport.is_closing() or self._task is not None:
            return
        body = f"{message}\n".encode()
        reply = Reply(status, (("Content-Type", "text/plain; charset=utf-8"),), body)
        self._write(reply, keep_alive=False)
        self._transport.close()

    # -- time ----------------------------------------------------------------------------------------------------------

    def _wait(self, seconds: float) -> None:
        self._stop_timer()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._late)

    def _late(self) -> None:
        if self._url or self._headers:
            self._refuse(408, f"The request did not arrive within {REQUEST_SECONDS:.0f} s.")
        elif self._transport is not None:
            self._transport.close()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Answer"
