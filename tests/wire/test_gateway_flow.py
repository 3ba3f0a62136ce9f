"""Bytes in bulk: both ends of input, the last bytes before a close, and a bounded memory when one side stalls."""

from __future__ import annotations

import hashlib
import os
import select
import socket
import ssl
import threading
import time

import pytest

from tests.wire.conftest import open_tunnel
from tests.wire.gateway_harness import BINARY, CLOSE, HOST, PING, GatewayProcess, Target, frame, signed_path, upgrade

MIB = 1024 * 1024


def test_target_eof_flushes_everything(shared: GatewayProcess, target: Target):
    """50 MB and then EOF from the target: every byte arrives, then close 1000."""
    client, peer = open_tunnel(shared, target)
    block = os.urandom(MIB)
    sent = hashlib.sha256()

    def serve() -> None:
        with peer:
            for _ in range(50):
                peer.sendall(block)
                sent.update(block)

    thread = threading.Thread(target=serve)
    thread.start()
    received, size = hashlib.sha256(), 0
    while True:
        opcode, payload = client.receive()
        if opcode == CLOSE:
            break
        received.update(payload)
        size += len(payload)
    thread.join()
    assert size == 50 * MIB
    assert received.digest() == sent.digest()
    assert int.from_bytes(payload[:2]) == 1000


@pytest.mark.slow
def test_flush_outlasts_a_slow_client_that_still_sends(shared: GatewayProcess, target: Target):
    """The target is long gone, the client reads late and floods empty frames as the stock CLI does: nothing is lost."""
    client, peer = open_tunnel(shared, target, receive_buffer=65536)
    sent = MIB  # more than the client's kernel takes, less than the gateway's: the gateway sees the target's end
    with peer:
        peer.sendall(b"x" * sent)
    stop = threading.Event()

    def flood() -> None:
        empty = frame(BINARY) * 100
        while not stop.is_set():
            try:
                client.sock.sendall(empty)
            except (OSError, ssl.SSLError):
                return

    thread = threading.Thread(target=flood, daemon=True)
    thread.start()
    time.sleep(6)  # longer than a TLS shutdown may take: a gateway that just closes would reset the connection by now
    received = 0
    while True:
        opcode, payload = client.receive()
        if opcode == CLOSE:
            break
        received += len(payload)
    stop.set()
    assert received == sent
    assert int.from_bytes(payload[:2]) == 1000
    thread.join(5)


def test_client_eof_is_a_half_close(shared: GatewayProcess, target: Target):
    """One empty frame: the target reads EOF, goes on sending, and its own end closes the tunnel with 1000."""
    client, peer = open_tunnel(shared, target)
    with peer:
        client.send(frame(BINARY, b"question") + frame(BINARY))
        assert peer.recv(100) == b"question"
        assert peer.recv(100) == b""
        peer.sendall(b"a long answer")
        assert client.receive_bytes(13) == b"a long answer"
        peer.sendall(b"and more")
        assert client.receive_bytes(8) == b"and more"
    assert client.receive_close()[0] == 1000


def test_flood_of_empty_frames_is_slowed(shared: GatewayProcess, target: Target):
    """The stock CLI's endless run of empty frames costs next to no CPU, and does not keep answers from coming back."""
    client, peer = open_tunnel(shared, target)
    with peer:
        stop = threading.Event()

        def flood() -> None:
            empty = frame(BINARY) * 1000
            while not stop.is_set():
                try:
                    client.sock.sendall(empty)
                except (OSError, ssl.SSLError):
                    return

        thread = threading.Thread(target=flood, daemon=True)
        thread.start()
        assert peer.recv(100) == b""
        before = shared.cpu_seconds()
        time.sleep(2)  # the interval over which the cost is measured
        assert shared.cpu_seconds() - before < 0.4
        peer.sendall(b"answer")
        assert client.receive_bytes(6) == b"answer"
    assert client.receive_close()[0] == 1000
    stop.set()
    client.close()
    thread.join(5)


class BurstClient:
    """Encrypts as much as it likes before it sends a byte, so that many TLS records arrive in one read."""

    def __init__(self, gateway: GatewayProcess, path: str) -> None:
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = gateway.client_tls.wrap_bio(self._in, self._out, server_hostname=HOST)
        self._sock = socket.create_connection(("127.0.0.1", gateway.port), timeout=10)
        self._wait(self._tls.do_handshake)
        self.send(upgrade(path))
        assert b" 101 " in self.read()

    def _wait(self, action) -> bytes:
        while True:
            try:
                result = action()
            except ssl.SSLWantReadError:
                self._sock.sendall(self._out.read())
                self._in.write(self._sock.recv(65536))
            else:
                self._sock.sendall(self._out.read())
                return result

    def send(self, data: bytes) -> None:
        """All of `data` in one write to the socket."""
        while data:
            data = data[self._tls.write(data) :]
        self._sock.sendall(self._out.read())

    def read(self) -> bytes:
        """Some plaintext; empty at the end of TLS."""
        return self._wait(lambda: self._tls.read(65536))


def test_paused_reading_leaves_nothing_behind(shared: GatewayProcess, target: Target):
    """What the gateway had already taken from the socket when it paused is read after the pause, without more coming.

    Two empty frames make it pause; the close frame is 25 KB behind them, in the same read from the socket, but beyond
    what is decrypted at once. A transport that looks only at the socket when resumed would never see it.
    """
    client = BurstClient(shared, signed_path(target.port))
    with target.accept():
        client.send(frame(BINARY) + frame(BINARY) + frame(PING, b"p" * 100) * 240 + frame(CLOSE, b"\x03\xe8"))
        answers = b""
        while chunk := client.read():
            answers += chunk
        assert answers.endswith(b"\x88\x02\x03\xe8")


def offer(sock: socket.socket, data: bytes) -> int:
    """Offer up to 1 GiB until nothing has been taken for half a second; the bytes taken."""
    sock.setblocking(False)
    taken = 0
    last = time.monotonic()
    while taken < 1024 * MIB and time.monotonic() - last < 0.5:
        try:
            taken += sock.send(data)
            last = time.monotonic()
        except (ssl.SSLWantWriteError, BlockingIOError):
            select.select([], [sock], [], 0.1)
    return taken


def warmed_up(gateway: GatewayProcess, target: Target) -> int:
    """The process's memory once it has carried a tunnel."""
    client, peer = open_tunnel(gateway, target)
    peer.close()
    client.receive_close()
    return gateway.rss()


def test_stalled_target_costs_little_memory(gateway: GatewayProcess, target: Target):
    """1 GiB offered to targets that do not read: far less is taken, the process grows by less than 4 MiB a tunnel."""
    before = warmed_up(gateway, target)
    pairs = [open_tunnel(gateway, target, receive_buffer=65536) for _ in range(4)]
    data = frame(BINARY, b"x" * 65_000)
    for client, _ in pairs:
        assert offer(client.sock, data) < 64 * MIB
    assert (gateway.rss() - before) / len(pairs) < 4 * MIB
    for client, peer in pairs:
        client.close()
        peer.close()


def test_stalled_client_costs_little_memory(gateway: GatewayProcess, target: Target):
    """1 GiB offered by targets to clients that do not read: the same bound in the other direction."""
    before = warmed_up(gateway, target)
    pairs = [open_tunnel(gateway, target, receive_buffer=65536) for _ in range(4)]
    for _, peer in pairs:
        assert offer(peer, b"x" * 65536) < 64 * MIB
    assert (gateway.rss() - before) / len(pairs) < 4 * MIB
    for client, peer in pairs:
        client.close()
        peer.close()


def test_pings_of_a_client_that_does_not_read(gateway: GatewayProcess, target: Target):
    """PINGs are answered one by one only as long as the client takes the answers: 60 MB of them leave no trace."""
    client, peer = open_tunnel(gateway, target)
    with peer:
        peer.settimeout(1)
        with pytest.raises(TimeoutError):
            while True:
                peer.send(b"x" * 65536)
        before = gateway.rss()
        pings = frame(PING, b"p" * 125) * 500
        for _ in range(60 * MIB // len(pings)):
            client.send(pings)
        time.sleep(0.5)
        assert gateway.rss() - before < 4 * MIB
    client.close()


def test_stall_and_recovery_loses_nothing(shared: GatewayProcess, target: Target):
    """A target that reads in fits and starts gets every byte in order."""
    client, peer = open_tunnel(shared, target)
    data = os.urandom(24 * MIB)

    def send() -> None:
        for start in range(0, len(data), 65_000):
            client.send(frame(BINARY, data[start : start + 65_000]))

    thread = threading.Thread(target=send)
    thread.start()
    received = hashlib.sha256()
    size = 0
    with peer:
        while size < len(data):
            if size % (4 * MIB) < 65536:
                time.sleep(0.05)  # let everything on the way fill up
            chunk = peer.recv(65536)
            received.update(chunk)
            size += len(chunk)
    thread.join()
    assert received.digest() == hashlib.sha256(data).digest()
