"""The World feed as netd reads it: never waiting for the other side, and connecting again where it can."""

from __future__ import annotations

import logging
import selectors
import socket
from collections.abc import Callable
from typing import Final

from wicketgate import ipc

_logger = logging.getLogger("wicketgate.netd")

CONNECT_SECONDS: Final = 0.2
"""Between two attempts to reach the API process."""


class Feeding:
    """Our end of the feed. `answer` makes of each Update what is answered to it."""

    def __init__(self, selector: selectors.BaseSelector, answer: Callable[[bytes], bytes]) -> None:
        self._selector = selector
        self._answer = answer
        self._sock: socket.socket | None = None
        self._data = bytearray()
        self._path = ""
        self._owner = -1
        self._next = 0.0
        self._last_words = ""

    def inherit(self, sock: socket.socket) -> None:
        """Read this one; its end is `ended`."""
        self._take(sock)

    def connect_to(self, path: str, user_id: int) -> None:
        """Read what the process listening there, which has to be root's or this user's, says; again when it ends."""
        self._path, self._owner = path, user_id

    @property
    def ended(self) -> bool:
        """Whether an inherited feed is over."""
        return self._sock is None and not self._path

    def timeout(self, now: float) -> float | None:
        """Seconds until `look` has something to do, of the monotonic clock; None when it has not."""
        return None if self._sock is not None or not self._path else max(self._next - now, 0.0)

    def look(self, now: float) -> None:
        """Connect if it is time to."""
        if self._sock is not None or not self._path or now < self._next:
            return
        self._next = now + CONNECT_SECONDS
        try:
            self._take(ipc.connect(self._path, socket.SOCK_STREAM, self._owner))
        except OSError as error:
            words = f"{error.strerror or error}"
            if words != self._last_words:
                _logger.warning("the API process cannot be reached at %s: %s", self._path, words)
            self._last_words = words
        else:
            self._last_words = ""

    def _take(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._data.clear()
        self._selector.register(sock, selectors.EVENT_READ, self._read)

    def _read(self) -> None:
        assert self._sock is not None, "registered"
        try:
            chunk = self._sock.recv(1 << 20)
        except BlockingIOError:
            return
        except OSError as error:
            self._drop(error.strerror or str(error))
            return
        if not chunk:
            self._drop("it ended")
            return
        self._data += chunk
        while (update := ipc.take_frame(self._data)) is not None:
            if update == ipc.CURRENT:
                continue
            try:
                self._sock.sendall(self._answer(update))
            except OSError as error:  # one that does not read what it is answered, too
                self._drop(error.strerror or str(error))
                return

    def _drop(self, why: str) -> None:
        if self._sock is None:
            return
        self._selector.unregister(self._sock)
        self._sock.close()
        self._sock = None
        self._data.clear()
        if self._path:
            _logger.warning("the feed of the API process is lost: %s", why)
