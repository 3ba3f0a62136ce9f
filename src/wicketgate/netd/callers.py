"""Who asks netd: processes at the other ends of SOCK_SEQPACKET sockets, inherited or accepted."""

from __future__ import annotations

import logging
import selectors
import socket
from collections.abc import Callable
from functools import partial
from typing import Final

from wicketgate import ipc

_logger = logging.getLogger("wicketgate.netd")

MOST: Final = 256
"""Connections to one listening socket at a time; more are closed."""


class Callers:
    """Sockets that are all served in the same way."""

    def __init__(self, selector: selectors.BaseSelector, serve: Callable[[socket.socket], bool]) -> None:
        """`serve` answers one request from a socket that has one; False when who asked is gone."""
        self._selector = selector
        self._serve = serve
        self._callers: set[socket.socket] = set()

    def inherit(self, sock: socket.socket) -> None:
        """Serve this one, whoever is at its other end: `serve` gives that to the next process when one ends."""
        sock.setblocking(False)
        self._selector.register(sock, selectors.EVENT_READ, partial(self._serve, sock))

    def listen(self, listener: socket.socket, user_id: int) -> None:
        """Serve who connects here, if it is a process of this user."""
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ, partial(self._accept, listener, user_id))

    def _accept(self, listener: socket.socket, user_id: int) -> None:
        try:
            sock, _ = listener.accept()
        except OSError:  # gone again, or no descriptor left: the selector tells again
            return
        found = ipc.peer_uid(sock)
        if found != user_id or len(self._callers) >= MOST:
            _logger.warning("a connection of user %d to %s is closed", found, listener.getsockname())
            sock.close()
            return
        sock.setblocking(False)
        self._callers.add(sock)
        self._selector.register(sock, selectors.EVENT_READ, partial(self._asked, sock))

    def _asked(self, sock: socket.socket) -> None:
        if not self._serve(sock):
            self._selector.unregister(sock)
            self._callers.discard(sock)
            sock.close()
