"""A gateway worker: takes connections, decides, and keeps the tunnels."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from typing import Final, Protocol

import aiofastnet

from wicketgate.admit import Admission, TunnelCall
from wicketgate.audit import Attempt, AuditLog, open_event
from wicketgate.audit.events import Event as AuditEvent
from wicketgate.gateway import handover
from wicketgate.gateway.front import HeadProtocol
from wicketgate.gateway.head import Head
from wicketgate.gateway.netd_client import Dialer
from wicketgate.gateway.reviews import Reviewing, Reviews
from wicketgate.gateway.tunnel import Admitted, Tunnel, WhyNot
from wicketgate.model import World
from wicketgate.tunnel import session as machine

_logger = logging.getLogger("wicketgate.gateway")

_DELETED_STATES: Final = frozenset({"delete-in-progress", "delete-complete"})
_ACCEPT_AT_ONCE: Final = 64
_ACCEPT_RETRY: Final = 0.5
MAX_STRANGERS: Final = 1024
"""Connections of a worker without a tunnel: in their TLS handshake, sending their request head, or being refused.

With so many, further ones wait in the kernel's queue: an answer at once would need a TLS handshake, and cutting them
would hang the stock AWS CLI for ever. Each has `head_timeout` for either step, so there is room again soon.
"""
_PING_SECONDS: Final = 20.0
_DRAIN_SECONDS: Final = 0.1
"""Between two looks at whether the last connection has ended."""
_CLOSE_SECONDS: Final = 5.0
"""How long clients get to answer our close frames when the worker stops, and TLS to end a connection."""


class Admit(Protocol):
    """`wicketgate.admit.admit`: everything decided before dialling."""

    def __call__(self, world: World, call: TunnelCall, now: float) -> Admission:
        """Admit or refuse; pure."""
        ...


class Gateway:
    """A worker's state. `start` begins to accept, `stop` ends everything in order."""

    def __init__(
        self,
        world: World,
        *,
        dialer: Dialer,
        audit: AuditLog,
        admit: Admit,
        why_not: WhyNot,
        review: Reviewing,
        tls: ssl.SSLContext,
        head_timeout: float = 10.0,
        api_socket: str = "",
    ) -> None:
        self.world = world
        self.dialer = dialer
        self.audit = audit
        self.why_not = why_not
        self.head_timeout = head_timeout
        self._api_socket = api_socket
        self._api_places = handover.Places()
        self._handed_on: set[handover.ClientSide] = set()
        self._admit = admit
        self._tls = tls
        self._listeners: list[socket.socket] = []
        self._accepting: set[socket.socket] = set()
        self._held: list[tuple[HeadProtocol, Head, bytes]] = []
        """Requests that wait for a World that is known to be the last."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._tunnels: set[Tunnel] = set()
        self._reviews = Reviews(self._tunnels, review)
        self._strangers: set[HeadProtocol] = set()
        self._full = False
        self._current = True
        self._draining = False
        self._all_closed = asyncio.Event()
        self._ping_timer: asyncio.TimerHandle | None = None
        self._stopping = False

    # -- starting and stopping -----------------------------------------------------------------------------------------

    def start(self, listeners: list[socket.socket]) -> None:
        """Begin, with connections on sockets that already listen."""
        self._ping_timer = asyncio.get_running_loop().call_later(_PING_SECONDS, self._ping_idle)
        self._reviews.start(self.world)
        self.listen(listeners)

    def listen(self, listeners: list[socket.socket]) -> None:
        """Accept connections on these, and decide on those that waited (`hold`)."""
        self._listeners = listeners
        for listener in listeners:
            listener.setblocking(False)
        self._current = True
        self._decide_held()
        for listener in listeners:
            self._accept_again(listener)

    async def stop(self) -> None:
        """Accept no more, close every tunnel with a reason, wait a little for the clients to take note."""
        self._stopping = True
        self._accept_no_more()
        self._current = True
        self._decide_held()  # they are told so
        if self._ping_timer is not None:
            self._ping_timer.cancel()
        self._reviews.stop()
        for tunnel in list(self._tunnels):
            tunnel.handle(machine.Shutdown())
        if self._tunnels:
            self._all_closed.clear()
            try:
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await self._all_closed.wait()
            except TimeoutError:
                _logger.warning("%d clients did not answer the close of their tunnels", len(self._tunnels))

    def hold(self) -> None:
        """Decide nothing: what is in force may change without our knowing. Tunnels go on, connections wait."""
        self._current = False
        self._accept_no_more()

    def _decide_held(self) -> None:
        held, self._held = self._held, []
        for connection, request, early in held:
            if not connection.transport.is_closing():
                self.decide(connection, request, early)

    async def drain(self) -> None:
        """Accept no more, and return when the last connection has ended by itself."""
        self._draining = True
        self._accept_no_more()
        while self._tunnels or self._strangers or self._tasks:
            for client in self._handed_on:
                client.end_when_answered()
            await asyncio.sleep(_DRAIN_SECONDS)

    def renew_tls(self, tls: ssl.SSLContext) -> None:
        """Use this context for connections from now on."""
        self._tls = tls

    def enforce(self, world: World) -> Awaitable[None] | None:
        """Decide by `world` from now on; tunnels through endpoints that are gone in it end.

        A deactivated key or a changed policy ends no open tunnel, as at AWS; nor does a modified endpoint. Where
        revocation is immediate they do, all once the awaitable is done, if there is one.
        """
        self.world = world
        for tunnel in list(self._tunnels):
            endpoint = world.endpoint(tunnel.grant.endpoint_id)
            if endpoint is None or endpoint.state in _DELETED_STATES:
                tunnel.handle(machine.EndpointDeleted(tunnel.grant.endpoint_id))
        return self._reviews.after(world)

    # -- accepting -----------------------------------------------------------------------------------------------------

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(_ACCEPT_AT_ONCE):
            if len(self._strangers) >= MAX_STRANGERS:
                self._stop_accepting()
                return
            try:
                sock, _ = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                self._accept_later(listener, error)
                return
            connection = HeadProtocol(self)
            self._strangers.add(connection)
            self._spawn(self._handshake(connection, sock))

    def _stop_accepting(self) -> None:
        if not self._full:
            self._full = True
            _logger.warning("%d connections without a tunnel: further ones wait", len(self._strangers))
            self._accept_no_more()

    def no_stranger(self, connection: HeadProtocol) -> None:
        """A connection has become a tunnel, or is over: there is room for another."""
        self._strangers.discard(connection)
        if self._full and len(self._strangers) < MAX_STRANGERS:
            self._full = False
            for listener in self._listeners:
                self._accept_again(listener)

    def _accept_later(self, listener: socket.socket, error: OSError) -> None:
        """Out of descriptors or memory: let the queue in the kernel wait instead of spinning on it."""
        _logger.error("cannot accept a connection: %s", error.strerror)
        if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
            return
        self._accept_no_more()
        loop = asyncio.get_running_loop()
        for waiting in self._listeners:
            loop.call_later(_ACCEPT_RETRY, self._accept_again, waiting)

    def _accept_again(self, listener: socket.socket) -> None:
        may = self._current and not (self._stopping or self._draining or self._full)
        if may and listener not in self._accepting:
            self._accepting.add(listener)
            asyncio.get_running_loop().add_reader(listener.fileno(), self._accept, listener)

    def _accept_no_more(self) -> None:
        for listener in self._accepting:
            asyncio.get_running_loop().remove_reader(listener.fileno())
        self._accepting.clear()

    async def _handshake(self, connection: HeadProtocol, sock: socket.socket) -> None:
        try:
            await aiofastnet.connect_accepted_socket(
                asyncio.get_running_loop(),
                lambda: connection,
                sock,
                ssl=self._tls,
                ssl_handshake_timeout=self.head_timeout,
                ssl_shutdown_timeout=_CLOSE_SECONDS,
            )
        except (OSError, ssl.SSLError) as error:
            _logger.debug("no TLS with a client: %s", error)
            sock.close()
        finally:
            if connection.transport is None:
                self.no_stranger(connection)

    def _spawn(self, coroutine: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- deciding (Decider) --------------------------------------------------------------------------------------------

    def new_request_id(self) -> str:
        """An id for one request: in its answer, in the log, in the audit trail."""
        return str(uuid.uuid4())

    def hand_on(self, connection: HeadProtocol, data: bytes) -> bool:
        """Carry a connection that is for the APIs to them, `data` being what was read; False when there are none."""
        if not self._api_socket:
            return False
        self.no_stranger(connection)
        if not self._api_places.take(connection.source_ip):
            connection.refuse_bare(503)
            return True
        connection.transport.pause_reading()
        self._spawn(self._carry(connection, data))
        return True

    async def _carry(self, connection: HeadProtocol, data: bytes) -> None:
        transport = connection.transport
        secured = transport.get_extra_info("ssl_object")
        version = (secured.version() or "") if secured is not None else ""
        client = handover.ClientSide(transport)
        self._handed_on.add(client)
        try:
            await handover.hand_on(client, self._api_socket, connection.source_ip, version, data)
        except OSError as error:
            _logger.error("the API process cannot be reached: %s", error)
            connection.refuse_bare(503)
        finally:
            self._handed_on.discard(client)
            self._api_places.give_back(connection.source_ip)

    def decide(self, connection: HeadProtocol, request: Head, early: bytes) -> None:
        """Admit or refuse one request; the answer follows once its audit record is on disk."""
        if not self._current:
            self._held.append((connection, request, early))
            return
        try:
            self._decide(connection, request, early)
        except Exception:  # a request that breaks us must still be answered, and break no other
            _logger.exception("request %s: no decision", connection.request_id)
            connection.refuse(500, "InternalError", "The gateway failed to decide on this request; it is in its log")

    def _decide(self, connection: HeadProtocol, request: Head, early: bytes) -> None:
        if self._stopping:
            connection.refuse(503, "ServiceUnavailable", "The gateway is shutting down; connect again")
            return
        now = time.time()
        user_agent = request.get("user-agent")
        call = TunnelCall(
            query=request.query,
            host=request.host,
            source_ip=connection.source_ip,
            user_agent=user_agent,
            headers=dict(request.headers),
        )
        admission = self._admit(self.world, call, now)
        error = admission.error
        attempt = Attempt(
            request_id=connection.request_id,
            source_ip=connection.source_ip,
            user_agent=user_agent,
            access_key_id=admission.access_key_id,
            principal=admission.principal,
            parameters=admission.parameters,
            error_code=error.code if error is not None else "",
            error_message=str(error) if error is not None else "",
        )
        if error is not None or admission.grant is None:
            refused = open_event(self.world, attempt, event_id=str(uuid.uuid4()), now=now)
            code = error.code if error is not None else "InternalError"
            status = error.http_status if error is not None else 500
            self.record(refused, lambda failed: connection.refuse(status, code, str(error)))
            return
        tunnel = Tunnel(self, Admitted(connection, request, early, admission.grant, attempt))
        self._tunnels.add(tunnel)
        self.no_stranger(connection)
        tunnel.dial()

    # -- tunnels (Host) ------------------------------------------------------------------------------------------------

    def record(self, event: AuditEvent, then: Callable[[Exception | None], None]) -> None:
        """Write an audit line and go on with `then` in the event loop."""
        loop = asyncio.get_running_loop()
        self.audit.append(event, lambda failed: _call_soon(loop, then, failed))

    def closed(self, tunnel: Tunnel) -> None:
        """A tunnel's client connection is over."""
        self._tunnels.discard(tunnel)
        if not self._tunnels:
            self._all_closed.set()

    def _ping_idle(self) -> None:
        for tunnel in self._tunnels:
            tunnel.ping_if_idle()
        self._ping_timer = asyncio.get_running_loop().call_later(_PING_SECONDS, self._ping_idle)


def _call_soon(
    loop: asyncio.AbstractEventLoop, then: Callable[[Exception | None], None], failed: Exception | None
) -> None:
    """From the audit thread into the loop; a loop that is closed has nobody left to tell."""
    try:
        loop.call_soon_threadsafe(then, failed)
    except RuntimeError:
        _logger.debug("an audit line was written after the end of the event loop")
