"""The local end of a tunnel: standard input and output, or one accepted connection.

Both sides of an end are non-blocking: `read` and `write` raise BlockingIOError instead of waiting. `read` gives b"" at
the end of input.

Standard streams may be shared with other processes, so their blocking mode is put back on leaving. Where the system
cannot wait for them (Windows), two threads pump them through a pair of sockets.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

PUMP_SIZE = 64 * 1024


class Source(Protocol):
    """Where bytes for the target come from."""

    def fileno(self) -> int:
        """The descriptor to wait on."""

    def read(self, size: int) -> bytes:
        """At most `size` bytes, b"" at the end; raises BlockingIOError when there are none yet."""


class Sink(Protocol):
    """Where bytes from the target go to."""

    def fileno(self) -> int:
        """The descriptor to wait on."""

    def write(self, data: memoryview) -> int:
        """Write a part of `data`: how many bytes; raises BlockingIOError when there is no room, OSError when closed."""


class Descriptor:
    """An end over a file descriptor: pipe, socket, file or device."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self._fd

    def read(self, size: int) -> bytes:
        """See Source."""
        return os.read(self._fd, size)

    def write(self, data: memoryview) -> int:
        """See Sink."""
        return os.write(self._fd, data)


class SocketEnd:
    """An end over a connected stream socket, which becomes non-blocking."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self._socket.fileno()

    def read(self, size: int) -> bytes:
        """See Source. A connection that was reset has ended."""
        try:
            return self._socket.recv(size)
        except ConnectionError:
            return b""

    def write(self, data: memoryview) -> int:
        """See Sink."""
        return self._socket.send(data)


@contextmanager
def standard_streams() -> Iterator[tuple[Source, Sink]]:
    """Standard input and output as an end, for the time of the block."""
    if sys.platform == "win32":
        opened = pumped_streams(0, 1)
    else:
        opened = polled_streams(0, 1)
    with opened as ends:
        yield ends


if sys.platform != "win32":

    @contextmanager
    def polled_streams(read_fd: int, write_fd: int) -> Iterator[tuple[Source, Sink]]:
        """Two descriptors the system can wait on."""
        before = {fd: os.get_blocking(fd) for fd in (read_fd, write_fd)}
        try:
            for fd in before:
                os.set_blocking(fd, False)
            yield Descriptor(read_fd), Descriptor(write_fd)
        finally:
            for fd, blocking in before.items():
                os.set_blocking(fd, blocking)


@contextmanager
def pumped_streams(read_fd: int, write_fd: int) -> Iterator[tuple[Source, Sink]]:
    """Two descriptors that only blocking calls work on. Leaving waits until all is written; input is abandoned."""
    source, feed = socket.socketpair()
    drain, sink = socket.socketpair()
    threading.Thread(target=_pump_in, args=(read_fd, feed), name="stdin", daemon=True).start()
    writer = threading.Thread(target=_pump_out, args=(drain, write_fd), name="stdout", daemon=True)
    writer.start()
    try:
        yield SocketEnd(source), SocketEnd(sink)
    finally:
        source.close()
        sink.close()
        writer.join()


def _pump_in(fd: int, feed: socket.socket) -> None:
    with feed:
        try:
            while data := os.read(fd, PUMP_SIZE):
                feed.sendall(data)
        except OSError:  # input failed, or the tunnel has ended: both end the input
            return


def _pump_out(drain: socket.socket, fd: int) -> None:
    with drain:
        try:
            while data := drain.recv(PUMP_SIZE):
                view = memoryview(data)
                while view:
                    view = view[os.write(fd, view) :]
        except OSError:  # closing `drain` tells the relay
            return
