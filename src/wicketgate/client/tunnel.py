"""The two ways to use a tunnel: as ssh's ProxyCommand, or behind a local port."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from wicketgate.client.ends import Sink, SocketEnd, Source, standard_streams
from wicketgate.client.errors import InvalidUse, Refused, TunnelFailed, printable
from wicketgate.client.handshake import open_websocket
from wicketgate.client.relay import Relay
from wicketgate.client.request import TunnelRequest
from wicketgate.client.waiting import READ, wait
from wicketgate.sigv4.presign import Credentials

MAX_CONNECTIONS = 10
"""Connections served at once behind a local port, the AWS CLI's default."""
STOP_TIMEOUT = 2.0
"""Seconds that open tunnels get for their goodbyes when the listener is stopped."""


class Opener(NamedTuple):
    """All that is needed to open tunnels, one after the other: each is signed anew."""

    request: TunnelRequest
    credentials: Credentials
    region: str
    context: ssl.SSLContext

    def carry(self, source: Source, sink: Sink) -> None:
        """Open a tunnel and carry its bytes until it ends well; raises Refused or TunnelFailed."""
        url = self.request.url(self.credentials, region=self.region, now=time.time())
        opened = open_websocket(url, self.request.address, self.context)
        ended = Relay(opened.socket, opened.leftover, source, sink).run()
        if not ended.well:
            raise TunnelFailed(f"Websocket Closure Reason: {printable(ended.reason) or f'(code {ended.code})'}")


def carry_standard_streams(opener: Opener) -> None:
    """One tunnel between standard input and output; raises Refused or TunnelFailed."""
    with standard_streams() as (source, sink):
        opener.carry(source, sink)


class Listener:
    """A port on localhost; each connection to it gets a tunnel of its own, and a thread.

    `say` gets the lines for people, `complain` those about what failed, both from several threads. A refusal ends the
    listener, because the next connection would be refused alike; a tunnel that fails ends its own connection only.
    """

    def __init__(
        self,
        opener: Opener,
        port: int,
        max_connections: int,
        say: Callable[[str], None],
        complain: Callable[[str], None],
    ) -> None:
        self._opener = opener
        self._port = port
        self._slots = threading.Semaphore(max_connections)
        self._say = say
        self._complain = complain
        self._refused: Refused | None = None
        self._wake, self._woken = socket.socketpair()
        self._open: dict[int, tuple[threading.Thread, socket.socket]] = {}

    def run(self) -> None:
        """Listen until a refusal, which is raised, or until a signal's exception passes through."""
        with self._listen() as listening, self._wake, self._woken:
            self._say(f"Listening for connections on port {listening.getsockname()[1]}.")
            try:
                self._accept(listening)
            finally:
                self._stop()
        if self._refused:
            raise self._refused

    def _listen(self) -> socket.socket:
        try:
            return socket.create_server(("127.0.0.1", self._port))
        except (OSError, OverflowError) as error:
            raise InvalidUse(f"Cannot listen on port {self._port} of localhost: {error}.") from error

    def _accept(self, listening: socket.socket) -> None:
        """Take connections while there are free slots; the others wait in the listening socket's queue."""
        number = 0
        while True:
            self._slots.acquire()
            wait({listening.fileno(): READ, self._woken.fileno(): READ})
            if self._refused:
                return
            connection, _ = listening.accept()
            number += 1
            thread = threading.Thread(target=self._serve, args=(number, connection), daemon=True)
            self._open[number] = (thread, connection)
            thread.start()

    def _serve(self, number: int, connection: socket.socket) -> None:
        self._say(f"[{number}] Accepted new tcp connection, opening websocket tunnel.")
        end = SocketEnd(connection)
        try:
            self._opener.carry(end, end)
        except Refused as error:
            self._refused = error
            self._wake.send(b"!")
        except TunnelFailed as error:
            self._complain(f"[{number}] {error}")
        finally:
            connection.close()
            self._say(f"[{number}] Closing tcp connection.")
            self._slots.release()
            del self._open[number]  # last: `_stop` waits for what is still listed

    def _stop(self) -> None:
        """End what is open: to a relay it looks as if its peer had hung up, so it says goodbye to the service."""
        deadline = time.monotonic() + STOP_TIMEOUT
        for thread, connection in list(self._open.values()):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            thread.join(max(0.0, deadline - time.monotonic()))
