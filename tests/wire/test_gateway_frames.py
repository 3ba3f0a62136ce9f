"""Frames: what is relayed, what is answered, what is refused. Attacks by hand-made bytes."""

from __future__ import annotations

import asyncio
import os

import pytest
import websockets

from tests.wire.conftest import open_tunnel
from tests.wire.gateway_harness import (
    BINARY,
    CLOSE,
    CONTINUATION,
    HOST,
    PING,
    PONG,
    TEXT,
    GatewayProcess,
    Target,
    frame,
    signed_path,
)

VIOLATIONS = [
    pytest.param(frame(TEXT, b"hello"), 1003, id="text"),
    pytest.param(frame(BINARY, b"x", rsv=4), 1002, id="rsv1"),
    pytest.param(frame(BINARY, b"x", rsv=2), 1002, id="rsv2"),
    pytest.param(frame(BINARY, b"x", rsv=1), 1002, id="rsv3"),
    pytest.param(frame(PING, b"x", rsv=4), 1002, id="rsv1 on a ping"),
    pytest.param(frame(CONTINUATION, b"x"), 1002, id="continuation of nothing"),
    pytest.param(frame(BINARY, b"x", fin=False) + frame(BINARY, b"y"), 1002, id="new message inside a message"),
    pytest.param(frame(3, b"x"), 1002, id="reserved opcode"),
    pytest.param(frame(BINARY, b"x", masked=False), 1002, id="unmasked"),
    pytest.param(frame(PING, b"x", fin=False), 1002, id="fragmented ping"),
    pytest.param(frame(PING, b"x" * 126), 1002, id="long ping"),
    pytest.param(frame(BINARY, b"x" * (256 * 1024 + 1)), 1009, id="more than 256 KiB"),
    pytest.param(frame(CLOSE, b"\x03"), 1002, id="half a close code"),
    pytest.param(frame(BINARY) + frame(BINARY, b"x"), 1002, id="data after the end of input"),
]


@pytest.mark.parametrize(("data", "code"), VIOLATIONS)
def test_violation(shared: GatewayProcess, target: Target, data: bytes, code: int):
    """A frame against the protocol closes the tunnel with its own code and a reason, and the close line has it."""
    client, peer = open_tunnel(shared, target)
    with peer:
        client.send(data)
        closed, reason = client.receive_close()
        assert (closed, bool(reason)) == (code, True)
        request_id = client.head.all("x-amzn-requestid")[0]
        client.close()
        count = len([one for one in shared.audit() if one["eventName"] == "CloseTunnel"])
        for _ in range(100):
            events = shared.wait_audit("CloseTunnel", count)
            ours = [one for one in events if one["requestID"] == request_id]
            if ours:
                break
            count += 1
        assert ours[0]["serviceEventDetails"]["closeCode"] == code


def test_bytes_both_ways(shared: GatewayProcess, target: Target):
    """Payload is relayed unchanged in both directions, whatever the frame boundaries were."""
    client, peer = open_tunnel(shared, target)
    with peer:
        data = os.urandom(300_000)
        for start in range(0, len(data), 65_000):
            client.send(frame(BINARY, data[start : start + 65_000]))
        received = b""
        while len(received) < len(data):
            received += peer.recv(65536)
        assert received == data
        peer.sendall(data)
        assert client.receive_bytes(len(data)) == data


def test_fragments_are_one_stream(shared: GatewayProcess, target: Target):
    """Fragments are handed on as they come, a PING between them is answered, empty fragments are nothing."""
    client, peer = open_tunnel(shared, target)
    with peer:
        client.send(frame(BINARY, b"ab", fin=False) + frame(PING, b"now") + frame(CONTINUATION, b"", fin=False))
        assert client.receive() == (PONG, b"now")
        assert peer.recv(2) == b"ab"
        client.send(frame(CONTINUATION, b"cd"))
        assert peer.recv(2) == b"cd"
        client.send(frame(BINARY, b"", fin=False) + frame(CONTINUATION, b""))
        client.send(frame(BINARY, b"ef"))
        assert peer.recv(2) == b"ef", "a fragmented empty message is not the end of input"


def test_largest_frame(shared: GatewayProcess, target: Target):
    """A frame of exactly 256 KiB passes."""
    client, peer = open_tunnel(shared, target)
    with peer:
        client.send(frame(BINARY, b"z" * 262_144))
        received = 0
        while received < 262_144:
            received += len(peer.recv(65536))


def test_frames_sent_before_the_101(shared: GatewayProcess, target: Target):
    """What a client sends right behind its head, without waiting, reaches the target."""
    client = shared.open(signed_path(target.port), early=frame(BINARY, b"early") + frame(PING, b"bird"))
    with target.accept() as peer:
        assert peer.recv(5) == b"early"
        assert client.receive() == (PONG, b"bird")


@pytest.mark.parametrize(("payload", "answer"), [(b"", 1000), (b"\x03\xe8", 1000), (b"\x03\xe9bye", 1001)])
def test_close_from_the_client(shared: GatewayProcess, target: Target, payload: bytes, answer: int):
    """A close frame is answered, with or without a status, and the target sees the end."""
    client, peer = open_tunnel(shared, target)
    with peer:
        client.send(frame(BINARY, b"last words") + frame(CLOSE, payload))
        assert client.receive_close()[0] == answer
        with pytest.raises(EOFError):
            client.receive()
        assert peer.recv(10) == b"last words"
        assert peer.recv(1) == b""


def test_pong_is_ignored(shared: GatewayProcess, target: Target):
    """An unasked PONG is a heartbeat (RFC 6455 section 5.5.3) and changes nothing."""
    client, peer = open_tunnel(shared, target)
    with peer:
        client.send(frame(PONG, b"still here") + frame(BINARY, b"x"))
        assert peer.recv(1) == b"x"


def test_independent_client(shared: GatewayProcess, target: Target):
    """The `websockets` library, which checks our every frame, connects, exchanges data and closes cleanly."""

    async def talk() -> None:
        uri = f"wss://{HOST}{signed_path(target.port)}"
        async with websockets.connect(uri, ssl=shared.client_tls, host="127.0.0.1", port=shared.port) as client:
            peer = await asyncio.to_thread(target.accept)
            peer.sendall(b"SSH-2.0-test\r\n")
            assert await client.recv() == b"SSH-2.0-test\r\n"
            await client.send(b"x" * 200_000)
            received = 0
            while received < 200_000:
                received += len(await asyncio.to_thread(peer.recv, 65536))
            await (await client.ping())
            peer.close()
            with pytest.raises(websockets.ConnectionClosedOK):
                await client.recv()

    asyncio.run(talk())
