"""One tunnel: executes the session machine's commands on the client's connection and the target's socket.

    client --TLS--> picows --ClientLink.sink--> target transport --> target
    client <--TLS-- picows <--ClientLink.send-- TargetProtocol <---- target

Backpressure, both ways, without a queue of our own: a side whose transport holds more than its limit pauses reading on
the other side, and each side knows the other from the first byte on (`connection_made` wires them before any read): a
pause that came before the peer was known would be lost, and the tunnel would buffer without bound.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import struct
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import aiofastnet
import msgspec

from wicketgate.admit import Grant, Opened
from wicketgate.audit import Attempt, AuditLog, Outcome, close_event, open_event
from wicketgate.audit.events import Event as AuditEvent
from wicketgate.gateway import ws
from wicketgate.gateway.drain import Patience, peer_ended, unread
from wicketgate.gateway.front import HeadProtocol, keep_alive
from wicketgate.gateway.head import Head
from wicketgate.gateway.netd_client import DialDenied, Dialer, NetdUnavailable
from wicketgate.model import World
from wicketgate.tunnel import DialRequest, Session, State, dial_failure
from wicketgate.tunnel import session as machine
from wicketgate.tunnel.reasons import revoked

_logger = logging.getLogger("wicketgate.gateway")

WRITE_HIGH: Final = 256 * 1024
"""Bytes waiting for the target above which the client is no longer read."""
_WATCH_SECONDS: Final = 5.0
_GONE_FOR: Final = 3
"""So many looks in a row at a client that has sent its FIN, with nothing passed on meanwhile, and it is gone."""
_FLUSH_SECONDS: Final = 30.0
"""How long a target gets to take what the client sent before it ended the tunnel."""
_SLOW_SECONDS: Final = 0.5
"""Pause for a client that repeats its end of input."""

_STANDING: Final = frozenset({State.DIALLING, State.RECORDING, State.OPEN, State.CLIENT_EOF})

_BUFFER: Final = memoryview(bytearray(256 * 1024))
"""Where every target's bytes are read to. One for all tunnels: a read is handed on, and copied if it cannot be sent at
once, before the next read starts."""


class WhyNot(Protocol):
    """`wicketgate.explain.why_not`: which step of this tunnel's connection fails?"""

    def __call__(self, world: World, *, endpoint_id: str, address: str, port: int, client_address: str) -> str:
        """The step, for words only: the kernel has already judged. Empty when none fails."""
        ...


class Host(Protocol):
    """What a tunnel needs of its gateway."""

    dialer: Dialer
    audit: AuditLog
    why_not: WhyNot

    @property
    def world(self) -> World:
        """The World in force."""

    def record(self, event: AuditEvent, then: Callable[[Exception | None], None]) -> None:
        """Write an audit line; `then` runs in the event loop once it is on disk, or could not be written."""

    def closed(self, tunnel: Tunnel) -> None:
        """The tunnel's client connection is over."""


@dataclass(frozen=True)
class Admitted:
    """An admitted request with the connection it came on."""

    connection: HeadProtocol
    request: Head
    early: bytes
    """What the client sent after its head."""
    grant: Grant
    attempt: Attempt
    """What its OpenTunnel record will say, but for an error."""


class Tunnel:
    """A tunnel from its admission to its end."""

    def __init__(self, host: Host, admitted: Admitted) -> None:
        self.grant = admitted.grant
        self._host = host
        self._connection = admitted.connection
        self._request = admitted.request
        self._early = admitted.early
        self._attempt = admitted.attempt
        self._open_event: AuditEvent = {}
        self._session = Session()
        self._events: deque[machine.Event] = deque()
        self._running = False
        self._link: ws.ClientLink | None = None
        self._target: Any = None
        self._lease = -1
        self._flush_timer: asyncio.TimerHandle | None = None
        self._flush_seconds = _FLUSH_SECONDS
        self._received_before = -1
        self._client_paused = False
        self._gone_for = 0
        self._patience: Patience | None = None
        self._source_address = ""
        self._dialling: asyncio.Task[None] | None = None
        self._timers: list[asyncio.TimerHandle] = []
        self._relaying_since: float | None = None
        self._slowed = False
        self._on_disk: asyncio.Future[Exception | None] | None = None
        self._audited = False
        self._owed_end: AuditEvent | None = None
        self._bytes_seen = -1
        self._connection.on_lost = self.client_gone

    # -- events in, commands out ---------------------------------------------------------------------------------------

    def handle(self, event: machine.Event) -> None:
        """Take an event. One that arises while commands are being executed waits until they are done."""
        self._events.append(event)
        if self._running:
            return
        self._running = True
        try:
            while self._events:
                for command in self._session.receive(self._events.popleft()):
                    self._execute(command)
        except Exception:  # our own fault must end this tunnel and no other
            _logger.exception("tunnel %s: given up", self._connection.request_id)
            self._give_up()
        finally:
            self._running = False

    def _give_up(self) -> None:
        """Cut both sides. The client's going then leads the machine to its end, close line included."""
        self._events.clear()
        self._connection.transport.abort()
        if self._target is not None:
            self._target.abort()

    def _execute(self, command: machine.Command) -> None:
        match command:
            case machine.Record(error_code, message, answer):
                self._record(error_code, message, answer)
            case machine.CancelDial():
                if self._dialling is not None:
                    self._dialling.cancel()
            case machine.Refuse(http_status, code, message):
                self._connection.refuse(http_status, code, message)
            case machine.Accept():
                self._accept()
            case machine.Relay():
                self._relay()
            case machine.EndTarget():
                self._end_target()
            case machine.SlowClient():
                self._slow_client()
            case machine.CloseClient(code, reason):
                if self._link is not None:
                    self._link.close(code, reason)
            case machine.DropTarget(at_once):
                self._drop_target(at_once=at_once)
            case machine.Finish(code, reason, error_code):
                self._finish(code, reason, error_code)

    # -- asked again ---------------------------------------------------------------------------------------------------

    @property
    def request_id(self) -> str:
        """Its id in log and audit trail."""
        return self._connection.request_id

    @property
    def stands(self) -> bool:
        """Whether it is open or being opened, and neither refused nor ended."""
        return self._session.state in _STANDING

    @property
    def opened(self) -> Opened:
        """What it was admitted by."""
        attempt = self._attempt
        return Opened(
            access_key_id=attempt.access_key_id,
            source_ip=attempt.source_ip,
            user_agent=attempt.user_agent,
            grant=self.grant,
            source_address=self._source_address,
        )

    def revoke(self, told: str, record: str) -> None:
        """End it: it would not be admitted now. `told` is for the client, `record` for the audit trail."""
        self.handle(machine.Revoked(revoked(told), record))

    # -- opening -------------------------------------------------------------------------------------------------------

    def dial(self) -> None:
        """Begin."""
        self._dialling = asyncio.get_running_loop().create_task(self._dial_or_say_why())

    def _record(self, error_code: str, message: str, answer: tuple[machine.Command, ...]) -> None:
        attempt = msgspec.structs.replace(self._attempt, error_code=error_code, error_message=message)
        self._open_event = open_event(self._host.world, attempt, event_id=str(uuid.uuid4()), now=time.time())

        def done(failed: Exception | None) -> None:
            if not error_code:
                self._opened_on_disk(failed)
            else:
                self.handle(machine.RecordFailed() if failed else machine.Recorded(answer))

        self._host.record(self._open_event, done)

    def _opened_on_disk(self, failed: Exception | None) -> None:
        """The record of a dial that succeeded; the dial waits for it, unless it was given up meanwhile."""
        self._audited = failed is None
        self._write_owed_end()
        if self._on_disk is not None and not self._on_disk.done():
            self._on_disk.set_result(failed)

    async def _dial_or_say_why(self) -> None:
        try:
            await self._dial()
        except Exception:  # a client must not wait for ever for an answer that our fault has swallowed
            _logger.exception("tunnel %s: the dial failed", self._connection.request_id)
            self.handle(machine.DialUnavailable("the gateway failed; it is in its log under this request's id"))

    async def _dial(self) -> None:
        """netd's answer and then the target's, within one connect_timeout."""
        grant, world = self.grant, self._host.world
        deadline = time.monotonic() + world.settings.connect_timeout
        request = DialRequest(
            id=0,
            endpoint_id=grant.endpoint_id,
            address=grant.address,
            port=grant.port,
            client_address=self._connection.source_ip,
            signature=grant.signature,
            signature_expires=grant.signature_expires,
        )
        try:
            answer = await self._host.dialer.dial(request, world.settings.connect_timeout)
        except NetdUnavailable as unavailable:
            self.handle(machine.DialUnavailable(str(unavailable)))
            return
        if isinstance(answer, DialDenied):
            if answer.kind == "connect" and answer.errno:
                self.handle(machine.TargetFailed(self._words(answer.errno)))
            else:
                self.handle(machine.DialRefused(answer.kind, answer.message))
            return
        self._lease, self._source_address = answer.lease, answer.source_address
        try:
            failure = await self._connect(answer.sock, deadline)
        finally:
            if self._target is None:
                answer.sock.close()
                self._release()
        if failure is not None:  # told only now: a client that tries again at once finds its slot free
            self.handle(failure)

    async def _connect(self, sock: socket.socket, deadline: float) -> machine.Event | None:
        """Wait for the target, then for the record, then make the transport; or the event that tells the failure.

        No transport before the record: what the target says at once waits in the kernel.
        """
        loop = asyncio.get_running_loop()
        error = await connected(sock, deadline - time.monotonic())
        if error:
            return machine.TargetFailed(self._words(error))
        self._on_disk = loop.create_future()
        self.handle(machine.TargetConnected())
        if await self._on_disk is not None:
            return machine.RecordFailed()
        keep_alive(sock)
        await aiofastnet.create_connection(loop, lambda: TargetProtocol(self), sock=sock)
        return None

    def _words(self, error: int) -> str:
        grant, world = self.grant, self._host.world
        failed_step = self._host.why_not(
            world,
            endpoint_id=grant.endpoint_id,
            address=grant.address,
            port=grant.port,
            client_address=self._connection.source_ip,
        )
        return dial_failure(
            error,
            address=grant.address,
            port=grant.port,
            timeout=world.settings.connect_timeout,
            may_see_rules=grant.may_see_rules,
            failed_step=failed_step,
            request_id=self._connection.request_id,
        )

    def target_connected(self, transport: Any) -> None:
        """The target's transport exists and the record is on disk; nothing is read from the target yet."""
        self._target = transport
        transport.set_write_buffer_limits(high=WRITE_HIGH, low=WRITE_HIGH // 4)
        self.handle(machine.Recorded())
        if self._relaying_since is None:
            transport.abort()  # the tunnel ended in this very moment

    def _accept(self) -> None:
        sink = _discard if self._target is None else self._target.write
        self._connection.on_lost = None
        self._link = ws.ClientLink(self, self._connection.transport, sink)
        early, self._early = self._early, b""
        ws.hand_over(
            self._connection.transport,
            self._link,
            websocket_key=self._request.websocket_key,
            request_id=self._connection.request_id,
            early=early,
        )

    def _relay(self) -> None:
        assert self._link is not None
        self._relaying_since = time.monotonic()
        self._after(self.grant.duration, lambda: self.handle(machine.DurationOver(self.grant.duration)))
        self._after(_WATCH_SECONDS, self._watch_client)
        self._link.resume()

    def _watch_client(self) -> None:
        """Notice a client for whose sake nothing moves any more: it is gone, or too slow over what is left for it."""
        assert self._link is not None
        if self._dawdles(self._link):
            self.handle(machine.ClientStalled())
        elif self._is_gone(self._link):
            self._flush_seconds = 0  # the target has had its time
        else:
            self._after(_WATCH_SECONDS, self._watch_client)
            return
        self._link.abort()

    def _is_gone(self, link: ws.ClientLink) -> bool:
        """Whether the client is gone while its target stalls: it is not read then, so its end is not either.

        A FIN may wait behind data for which we have no room, for as long as we have none. Hence the PING: the kernel of
        a client whose process is gone answers data with a reset (RFC 1122 section 4.2.2.13).
        """
        stalled = self._client_paused and link.received == self._received_before
        self._received_before = link.received
        self._gone_for = self._gone_for + 1 if stalled and link.hung_up() else 0
        if self._gone_for >= _GONE_FOR or (stalled and link.broken()):
            return True
        if stalled:
            link.ping()
        return False

    def _dawdles(self, link: ws.ClientLink) -> bool:
        """Whether the client takes too long over what an ended target has left for it.

        The target is not read while the client is behind, so its end lies unread behind the rest: without this look
        such a tunnel would last until its duration is over.
        """
        if not link.behind() or not peer_ended(self._target):
            return False
        owed, now = unread(self._target) + link.owed(), time.monotonic()
        if self._patience is None:
            self._patience = Patience(owed, now)
        return self._patience.over(owed, now)

    # -- the client's side (LinkOwner) ---------------------------------------------------------------------------------

    def client_ended(self) -> None:
        """An empty message."""
        self.handle(machine.ClientEnded())

    def client_closed(self, code: int) -> None:
        """A close frame."""
        self.handle(machine.ClientClosed(code))

    def client_violated(self, code: int, reason: str) -> None:
        """A frame that must not be sent."""
        self.handle(machine.ClientViolated(code, reason))

    def client_gone(self) -> None:
        """The connection is over."""
        self.handle(machine.ClientGone())
        self._host.closed(self)

    def pause_target(self) -> None:
        """The client does not keep up."""
        if self._target is not None:
            self._target.pause_reading()

    def resume_target(self) -> None:
        """The client has caught up."""
        if self._target is not None:
            self._target.resume_reading()

    def ping_if_idle(self) -> None:
        """Send a PING if nothing has passed since the last call, for proxies on the way that count silence."""
        if self._link is None:
            return
        seen = self._link.received + self._link.sent
        if seen == self._bytes_seen:
            self._link.ping()
        self._bytes_seen = seen

    def _slow_client(self) -> None:
        if self._link is not None and not self._slowed:  # one read brings thousands of empty frames
            self._slowed = True
            self._link.pause()
            self._after(_SLOW_SECONDS, self._unslow_client)

    def _unslow_client(self) -> None:
        self._slowed = False
        self.resume_client()

    # -- the target's side ---------------------------------------------------------------------------------------------

    def to_client(self, data: memoryview) -> None:
        """Bytes from the target."""
        if self._link is not None:
            self._link.send(data)

    def pause_client(self) -> None:
        """The target does not keep up."""
        self._client_paused = True
        if self._link is not None:
            self._link.pause()

    def resume_client(self) -> None:
        """The target has caught up."""
        self._client_paused = False
        if self._link is not None:
            self._link.resume()

    def target_lost(self, error: Exception | None) -> None:
        """The target's socket is closed, by us or by an error."""
        if self._flush_timer is not None:
            self._flush_timer.cancel()
        if error is not None:
            self.handle(machine.TargetReset())
        self._release()

    def _end_target(self) -> None:
        if self._link is not None:
            self._link.refuse_more()
        if self._target is not None:
            self._target.write_eof()

    def _drop_target(self, *, at_once: bool) -> None:
        if self._target is None:
            return
        if at_once:
            sock = self._target.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._target.abort()
        else:
            self._target.close()
            # Apart from the tunnel's other timers, which end with the tunnel: a target that does not read would else
            # keep its socket, and with it the tunnel's slot, for good.
            self._flush_timer = asyncio.get_running_loop().call_later(self._flush_seconds, self._target.abort)

    def _release(self) -> None:
        if self._lease >= 0:
            os.close(self._lease)
            self._lease = -1

    # -- the end -------------------------------------------------------------------------------------------------------

    def _after(self, seconds: float, call: Any) -> None:
        loop = asyncio.get_running_loop()
        self._timers = [timer for timer in self._timers if timer.when() > loop.time() and not timer.cancelled()]
        self._timers.append(loop.call_later(seconds, call))

    def _finish(self, code: int, reason: str, error_code: str) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        since = self._relaying_since
        outcome = Outcome(
            close_code=code,
            close_reason=reason,
            bytes_from_client=self._link.received if self._link is not None else 0,
            bytes_to_client=self._link.sent if self._link is not None else 0,
            duration=0.0 if since is None else time.monotonic() - since,
            source_address=self._source_address,
            error_code=error_code,
            world_revision=self._host.world.revision,
        )
        self._owed_end = close_event(self._open_event, outcome, event_id=str(uuid.uuid4()), now=time.time())
        self._write_owed_end()

    def _write_owed_end(self) -> None:
        """A close line follows its open line, and none that is not there."""
        if self._audited and self._owed_end is not None:
            self._host.audit.append(self._owed_end)
            self._owed_end = None


class TargetProtocol(asyncio.BufferedProtocol):
    """The target's side of one tunnel."""

    def __init__(self, tunnel: Tunnel) -> None:
        self._tunnel = tunnel
        self._to_client = tunnel.to_client

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wire both sides before the first read."""
        self._tunnel.target_connected(transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where to read to."""
        return _BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        """Hand on what was read."""
        self._to_client(_BUFFER[:nbytes])

    def eof_received(self) -> bool:
        """The target has said everything; the machine decides what becomes of the socket."""
        self._tunnel.handle(machine.TargetEnded())
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is closed."""
        self._tunnel.target_lost(exc)

    def pause_writing(self) -> None:
        """The target does not keep up."""
        self._tunnel.pause_client()

    def resume_writing(self) -> None:
        """The target has caught up."""
        self._tunnel.resume_client()


def _discard(data: bytes | memoryview) -> None:
    pass


def _settle(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)


async def connected(sock: socket.socket, seconds: float) -> int:
    """Wait until a connect under way has ended; 0, or the errno it failed with (ETIMEDOUT after `seconds`).

    A transport must not be made before: it would report the connection as made while the SYN is still unanswered.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    loop.add_writer(sock.fileno(), _settle, done)
    try:
        async with asyncio.timeout(max(seconds, 0)):
            await done
    except TimeoutError:
        return errno.ETIMEDOUT
    finally:
        loop.remove_writer(sock.fileno())
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
