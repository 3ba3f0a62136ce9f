"""Whoever stalls, vanishes or dawdles gives its slot and its place back. In this process, with shorter times."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import select
import socket
import ssl
import struct
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvloop

from tests.wire.gateway_harness import (
    BINARY,
    CLOSE,
    HOST,
    LoopbackNetd,
    RawWebSocket,
    Target,
    frame,
    make_world,
    read_answer,
    signed_path,
    upgrade,
)
from wicketgate import pki
from wicketgate.admit import admit, review
from wicketgate.audit import AuditLog
from wicketgate.explain import why_not
from wicketgate.gateway import drain, server, tunnel, ws
from wicketgate.gateway.config import tls_context
from wicketgate.gateway.netd_client import NetdChannel
from wicketgate.gateway.server import Gateway
from wicketgate.tunnel import reasons


class Bench:
    """A gateway and what a client of it needs. `run` plays a client in a thread beside the gateway's loop."""

    def __init__(self, directory: Path) -> None:
        self.files = pki.ensure(directory / "pki", [HOST])
        self.audit_file = directory / "audit"
        self.audit = AuditLog(self.audit_file)
        self.netd = LoopbackNetd()
        self.target = Target()
        self.target.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.gateway: Gateway
        self.loop: asyncio.AbstractEventLoop

    def run(self, client: Callable[[], None]) -> None:
        """Serve until the client has played its part."""
        uvloop.run(self._run(client))

    async def _run(self, client: Callable[[], None]) -> None:
        self.loop = asyncio.get_running_loop()
        self.audit.start()
        channel = NetdChannel(self.netd.gateway_end.dup())
        channel.start()
        tls = tls_context(self.files.certificate, self.files.key)
        self.gateway = Gateway(
            make_world(), dialer=channel, audit=self.audit, admit=admit, why_not=why_not, review=review, tls=tls
        )
        self.gateway.start([self.listener])
        try:
            await asyncio.to_thread(client)
        finally:
            await self.gateway.stop()
            channel.close()
            self.audit.stop()

    def tls(self, receive_buffer: int = 0) -> ssl.SSLSocket:
        """A TLS connection."""
        raw = self.raw(receive_buffer)
        return ssl.create_default_context(cafile=str(self.files.ca)).wrap_socket(raw, server_hostname=HOST)

    def raw(self, receive_buffer: int = 0) -> socket.socket:
        """A TCP connection."""
        raw = socket.socket()
        raw.settimeout(10)
        if receive_buffer:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        raw.connect(self.listener.getsockname())
        return raw

    def open(self, receive_buffer: int = 0) -> tuple[RawWebSocket, socket.socket]:
        """A tunnel and the target's end of it."""
        sock = self.tls(receive_buffer)
        sock.sendall(upgrade(signed_path(self.target.port)))
        return RawWebSocket(sock), self.target.accept()

    def overwhelm(self, peer: socket.socket) -> None:
        """Send as a target to a client that does not keep up, until the gateway no longer reads the target."""

        async def behind() -> bool:
            (only,) = self.gateway._tunnels
            return only._link.behind()

        while not asyncio.run_coroutine_threadsafe(behind(), self.loop).result(5):
            peer.sendall(b"x" * 32_000)

    def fill(self, client: RawWebSocket, size: int) -> None:
        """Send to a target that does not read until the gateway holds `size` bytes for it."""

        async def held() -> int:
            (only,) = self.gateway._tunnels
            return only._target.get_write_buffer_size()

        while asyncio.run_coroutine_threadsafe(held(), self.loop).result(5) < size:
            client.send(frame(BINARY, b"x" * 32_000))

    def slot_is_free(self, seconds: float) -> bool:
        """Whether the first tunnel's slot comes back in time."""
        return bool(select.select([self.netd.leases[0]], [], [], seconds)[0])

    def close(self) -> None:
        """Clean up."""
        self.netd.close()
        self.target.close()
        self.listener.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A gateway in this process."""
    made = Bench(tmp_path)
    yield made
    made.close()


def eventually(holds: Callable[[], bool], seconds: float = 5.0) -> bool:
    """Whether it comes true in time."""
    deadline = time.monotonic() + seconds
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.01)
    return holds()


def unsent(sock: socket.socket) -> int:
    """Bytes that the peer's kernel has not acknowledged."""
    return int(struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0"))[0])


def fill_up(sock: ssl.SSLSocket) -> None:
    """Send until the kernels on both sides take no more."""
    sock.settimeout(0.5)
    data = frame(BINARY, b"x" * 65_000)
    with contextlib.suppress(TimeoutError, ssl.SSLWantWriteError):
        while True:
            sock.sendall(data)


def test_target_that_does_not_take_the_rest_loses_the_slot(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    """A client closes in order while its target reads nothing: the slot comes back when the time to flush is over."""
    monkeypatch.setattr(tunnel, "_FLUSH_SECONDS", 1.0)

    def play() -> None:
        client, peer = bench.open()
        with peer:
            bench.fill(client, 1)  # the kernel takes no more, the gateway still reads
            client.send(frame(CLOSE))
            assert client.receive_close()[0] == 1000
            assert not bench.slot_is_free(0.5), "the target has a second to take the rest"
            assert bench.slot_is_free(5)

    bench.run(play)


@pytest.mark.parametrize("how", ["reset", "end", "end behind data"])
def test_vanished_client_of_a_stalled_target(bench: Bench, monkeypatch: pytest.MonkeyPatch, how: str):
    """A client that goes while its target takes nothing is noticed although it is not read: by reset, by FIN, or by
    the reset that answers our PING when the FIN cannot come because there is no room for what is before it."""
    monkeypatch.setattr(tunnel, "_WATCH_SECONDS", 0.2)

    def play() -> None:
        client, peer = bench.open()
        with peer:
            bench.fill(client, tunnel.WRITE_HIGH)  # the gateway reads no more
            if how == "end behind data":
                fill_up(client.sock)
            else:
                assert eventually(lambda: unsent(client.sock) == 0), "the gateway's kernel has it all"
            assert not bench.slot_is_free(1.5), (
                "a client that is there keeps its tunnel, however long the target stalls"
            )
            if how == "reset":
                client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            assert bench.slot_is_free(5)

    bench.run(play)


def test_client_that_trickles_after_the_close(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    """A client that never answers our close frame, and reads a little now and then, is dropped in the end."""
    monkeypatch.setattr(ws, "_DRAIN_TICK", 0.1)
    monkeypatch.setattr(drain, "GRACE_SECONDS", 2.0)
    monkeypatch.setattr(drain, "SLOWEST", 10**9)
    monkeypatch.setattr(drain, "STALLED_SECONDS", 1.0)

    def play() -> None:
        client, peer = bench.open(receive_buffer=4096)
        with peer:  # more than the client's kernel takes, little enough for the gateway to see the target's end
            peer.sendall(b"x" * 600_000)
        raw = socket.socket(fileno=client.sock.detach())
        start = time.monotonic()

        def ended() -> bool:
            with contextlib.suppress(OSError):
                raw.recv(2048)
            time.sleep(0.05)  # the client's own slowness
            return not bench.gateway._tunnels

        assert eventually(ended, 8)
        assert time.monotonic() - start > 1.5, "reading counts as progress for a while"
        raw.close()

    bench.run(play)


def test_slow_client_gets_everything(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    """A client that takes longer than the grace, but more than the least a second, loses nothing."""
    monkeypatch.setattr(ws, "_DRAIN_TICK", 0.1)
    monkeypatch.setattr(drain, "GRACE_SECONDS", 0.2)
    monkeypatch.setattr(drain, "SLOWEST", 60_000)

    def play() -> None:
        client, peer = bench.open(receive_buffer=4096)
        with peer:
            peer.sendall(b"x" * 600_000)
        start = time.monotonic()
        left = 600_000
        while left:
            opcode, payload = client.receive()
            assert opcode == BINARY
            left -= len(payload)
            time.sleep(len(payload) / 300_000)
        assert time.monotonic() - start > 1
        assert client.receive_close()[0] == 1000
        client.close()

    bench.run(play)


@pytest.mark.parametrize("client_reads", [False, True])
def test_client_that_is_too_slow_for_what_an_ended_target_left(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, client_reads: bool
):
    """The target's end lies unread behind data for which there is no room: the tunnel must not wait for it for ever.

    A client that reads nothing is dropped for that, one that reads a little now and then for being too slow.
    """
    monkeypatch.setattr(tunnel, "_WATCH_SECONDS", 0.1)
    monkeypatch.setattr(drain, "GRACE_SECONDS", 1.0 if client_reads else 60.0)
    monkeypatch.setattr(drain, "STALLED_SECONDS", 60.0 if client_reads else 1.0)
    monkeypatch.setattr(drain, "SLOWEST", 10**9)

    def play() -> None:
        client, peer = bench.open(receive_buffer=4096)
        raw = socket.socket(fileno=client.sock.detach())

        def free(seconds: float) -> bool:
            deadline = time.monotonic() + seconds
            while not bench.slot_is_free(0.05) and time.monotonic() < deadline:
                if client_reads:
                    raw.recv(2048)
            return bench.slot_is_free(0)

        with raw:
            with peer:
                bench.overwhelm(peer)
                assert not free(2.5), "while the target lives, its client may take its time"
            start = time.monotonic()
            assert free(8)
            assert time.monotonic() - start > 0.7, "what is left gets its time too"

    bench.run(play)
    ends = [event for event in map(json.loads, bench.audit_file.read_text().splitlines()) if event["readOnly"]]
    assert [end["serviceEventDetails"]["closeReason"] for end in ends] == [reasons.CLIENT_STALLED]


def test_strangers_wait(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    """With so many connections that have not asked for anything, the next one waits for room and is then served."""
    monkeypatch.setattr(server, "MAX_STRANGERS", 3)

    def play() -> None:
        tunnels = [bench.open() for _ in range(4)]  # tunnels are no strangers
        silent = [bench.raw(), bench.tls(), bench.tls()]
        late = bench.raw()
        late.settimeout(0.5)
        context = ssl.create_default_context(cafile=str(bench.files.ca))
        waiting = context.wrap_socket(late, server_hostname=HOST, do_handshake_on_connect=False)
        with pytest.raises(TimeoutError):
            waiting.do_handshake()
        for client, peer in tunnels:
            peer.sendall(b"alive")
            assert client.receive_bytes(5) == b"alive"
        silent.pop().close()
        waiting.settimeout(10)
        waiting.do_handshake()
        waiting.sendall(upgrade("/elsewhere"))
        assert read_answer(waiting).status == 404
        for sock in (*silent, waiting, *(peer for _, peer in tunnels)):
            sock.close()
        with bench.tls() as again:
            again.sendall(upgrade("/elsewhere"))
            assert read_answer(again).status == 404
        for client, _ in tunnels:
            client.close()

    bench.run(play)
