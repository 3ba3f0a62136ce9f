"""The gateway's end of the dial channel: one SOCK_SEQPACKET socket, many requests in flight, matched by id.

A granted reply carries two descriptors. Whatever happens - a reply that comes after we gave up, one nobody asked for,
one that does not parse - every descriptor received is either handed to a caller or closed here.
"""

from __future__ import annotations

import array
import asyncio
import logging
import os
import secrets
import socket
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from wicketgate.ipc import MAX_MESSAGE
from wicketgate.tunnel import DialReply, DialRequest, RefusalKind

_logger = logging.getLogger("wicketgate.gateway")

CONNECT_SECONDS: Final = 0.2
"""Between two attempts to reach netd."""
_MAX_FDS: Final = 8
"""Room for more descriptors than a reply has: a surplus is closed, not lost."""


class Dialled(msgspec.Struct, frozen=True):
    """A granted dial. The receiver owns the socket and the lease and has to close both."""

    sock: socket.socket
    """Non-blocking, its connect under way or done."""
    lease: int
    """Descriptor; the tunnel's slot lives until it is closed."""
    source_address: str


class DialDenied(msgspec.Struct, frozen=True):
    """netd's refusal."""

    kind: RefusalKind
    message: str
    errno: int = 0


class NetdUnavailable(Exception):
    """netd is gone or too slow; the message is one line for people."""


class Dialer(Protocol):
    """Something that opens connections to targets: netd, or a loopback one in tests."""

    async def dial(self, request: DialRequest, seconds: float) -> Dialled | DialDenied:
        """Dial; raises NetdUnavailable, also after `seconds`. The request's id is chosen by the dialer."""
        ...


class NetdChannel:
    """Asks netd to dial. `start` takes up reading, `close` gives everything up."""

    def __init__(self, sock: socket.socket | None = None, connect: Callable[[], socket.socket] | None = None) -> None:
        """`sock` is our end of a socketpair, or `connect` makes one: again when it is lost, until it does not raise
        OSError.
        """
        self._sock = sock
        self._connect = connect
        # Our end may outlive us: `serve` keeps it for the next worker, who may read answers meant for us. With ids that
        # start anywhere, none of them can be taken for the answer to a request of his.
        self._next_id = secrets.randbits(60)
        self._waiting: dict[int, asyncio.Future[Dialled | DialDenied]] = {}
        self._unsent: deque[bytes] = deque()
        self._gone = ""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._again: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to read answers; needs a running loop."""
        self._loop = asyncio.get_running_loop()
        if self._sock is None:
            self._reach()
        else:
            self._use(self._sock)

    def close(self) -> None:
        """Close the channel; whoever waits gets NetdUnavailable."""
        self._connect = None
        if self._again is not None:
            self._again.cancel()
        self._lose("the gateway is shutting down")

    def _use(self, sock: socket.socket) -> None:
        assert self._loop is not None
        self._sock, self._gone = sock, ""
        sock.setblocking(False)
        self._loop.add_reader(sock.fileno(), self._readable)

    def _reach(self) -> None:
        """Connect, now or as soon as netd is there."""
        assert self._loop is not None
        if self._connect is None:
            return
        try:
            self._use(self._connect())
        except OSError as error:
            self._gone = f"netd is not running: {error.strerror or error}"
            self._again = self._loop.call_later(CONNECT_SECONDS, self._reach)

    async def dial(self, request: DialRequest, seconds: float) -> Dialled | DialDenied:
        """Ask netd; raises NetdUnavailable when it is gone, or silent for `seconds`."""
        if self._gone or self._loop is None:
            raise NetdUnavailable(self._gone or "the channel to netd is not started")
        request = msgspec.structs.replace(request, id=self._next_id)
        self._next_id += 1
        answer: asyncio.Future[Dialled | DialDenied] = self._loop.create_future()
        self._waiting[request.id] = answer
        self._send(msgspec.json.encode(request))
        timer = self._loop.call_later(seconds, _expire, answer, seconds)
        try:
            return await answer
        except asyncio.CancelledError:
            # Cancelled between the answer's arrival and our turn: its descriptors are nobody's but ours.
            if answer.done() and not answer.cancelled() and answer.exception() is None:
                _discard(answer.result())
            raise
        finally:
            timer.cancel()
            self._waiting.pop(request.id, None)

    # -- sending -------------------------------------------------------------------------------------------------------

    def _send(self, data: bytes) -> None:
        self._unsent.append(data)
        if len(self._unsent) == 1:
            self._writable()

    def _writable(self) -> None:
        assert self._loop is not None
        assert self._sock is not None
        while self._unsent:
            try:
                self._sock.send(self._unsent[0])
            except BlockingIOError:
                self._loop.add_writer(self._sock.fileno(), self._writable)
                return
            except OSError as error:
                self._lose(f"the channel to netd broke: {error.strerror}")
                return
            self._unsent.popleft()
        self._loop.remove_writer(self._sock.fileno())

    # -- receiving -----------------------------------------------------------------------------------------------------

    def _readable(self) -> None:
        while self._sock is not None:
            try:
                data, fds = _receive(self._sock)
            except BlockingIOError:
                return
            except OSError as error:
                self._lose(f"the channel to netd broke: {error.strerror}")
                return
            if not data:
                _close_all(fds)
                self._lose("netd is not running")
                return
            self._answered(data, fds)

    def _answered(self, data: bytes, fds: list[int]) -> None:
        try:
            reply = msgspec.json.decode(data, type=DialReply)
        except msgspec.DecodeError as error:
            _close_all(fds)
            _logger.error("netd sent an answer that is none: %s", error)
            return
        waiting = self._waiting.pop(reply.id, None)
        if waiting is None or waiting.done():
            _close_all(fds)
        elif reply.refused is not None:
            _close_all(fds)
            waiting.set_result(DialDenied(reply.refused, reply.message, reply.errno))
        elif len(fds) != 2:
            _close_all(fds)
            waiting.set_exception(NetdUnavailable(f"netd granted a dial with {len(fds)} descriptors instead of 2"))
        else:
            waiting.set_result(Dialled(socket.socket(fileno=fds[0]), fds[1], reply.source_address))

    def _lose(self, why: str) -> None:
        self._gone = self._gone or why
        if self._sock is None:
            return
        sock, self._sock = self._sock, None
        if self._loop is not None:
            self._loop.remove_reader(sock.fileno())
            self._loop.remove_writer(sock.fileno())
        sock.close()
        self._unsent.clear()
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(NetdUnavailable(why))
        self._waiting.clear()
        if self._connect is not None and self._loop is not None:
            _logger.warning("%s; it is connected to again", why)
            self._again = self._loop.call_later(CONNECT_SECONDS, self._reach)


def _expire(answer: asyncio.Future[Dialled | DialDenied], seconds: float) -> None:
    if not answer.done():
        answer.set_exception(NetdUnavailable(f"netd did not answer within {seconds:g} s"))


def _discard(answer: Dialled | DialDenied) -> None:
    if isinstance(answer, Dialled):
        answer.sock.close()
        os.close(answer.lease)


def _receive(sock: socket.socket) -> tuple[bytes, list[int]]:
    """One message and its descriptors, close-on-exec; all of them are the caller's to close."""
    size = array.array("i").itemsize
    # A descriptor for which we have no room left is dropped by the kernel (MSG_CTRUNC): the count then tells.
    data, ancillary, _, _ = sock.recvmsg(
        MAX_MESSAGE, socket.CMSG_SPACE(_MAX_FDS * size), socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT
    )
    fds = array.array("i")
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(content[: len(content) - len(content) % size])
    return data, list(fds)


def _close_all(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)
