"""The fast way for clients' frames: cut anywhere and mixed in any order, nothing is lost, changed or reordered."""

from __future__ import annotations

import contextlib
import os
import random
import struct
import threading
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wire.conftest import open_tunnel
from tests.wire.gateway_harness import BINARY, CLOSE, CONTINUATION, PING, TEXT, GatewayProcess, RawWebSocket, Target
from tests.wire.gateway_harness import frame as unmasked_frame
from wicketgate.gateway.unmask import Unmasker, apply_mask

LARGEST = 70_000


def frame(opcode: int, payload: bytes, mask: bytes, *, fin: bool = True, rsv: int = 0) -> bytes:
    """A frame with a real mask, unmasked by nothing that the gateway uses."""
    plain = unmasked_frame(opcode, payload, fin=fin, rsv=rsv)
    head = plain[: len(plain) - len(payload) - 4]
    wide = (mask * (len(payload) // 4 + 1))[: len(payload)]
    masked = int.from_bytes(payload) ^ int.from_bytes(wide)
    return head + mask + masked.to_bytes(len(payload))


@dataclass
class Recorder:
    """What comes out on both ways, in its order. As picows it lends a buffer with little room."""

    came: list[tuple[str, bytes]] = field(default_factory=list)
    room: bytearray = field(default_factory=lambda: bytearray(300))
    takes: bool = True

    def takes_messages(self) -> bool:
        """The link's answer."""
        return self.takes

    def payload(self, data: bytes) -> None:
        """The fast way."""
        self._add("payload", data)

    def get_buffer(self, hint: int) -> memoryview:
        """As picows."""
        return memoryview(self.room)

    def buffer_updated(self, size: int) -> None:
        """As picows."""
        self._add("picows", bytes(self.room[:size]))

    def _add(self, way: str, data: bytes) -> None:
        if self.came and self.came[-1][0] == way:
            data = self.came.pop()[1] + data
        self.came.append((way, data))


seeds = st.integers(0, 2**32)
"""Of what hypothesis need not shrink: payloads, and where the stream is cut."""

Sent = tuple[str, bytes, bytes]
"""Which way a frame has to take, what has to come out there, the frame."""


@st.composite
def frames(draw: st.DrawFn) -> Sent:
    """A frame of any kind."""
    size = draw(st.sampled_from([0, 1, 5, 125, 126, 1000, 16_000, 65_000, 65_535, 65_536, LARGEST, LARGEST + 1]))
    kind = draw(st.sampled_from(["data", "data", "data", "fragment", "end", "text", "ping", "reserved"]))
    payload, mask = random.Random(draw(seeds)).randbytes(size), draw(st.binary(min_size=4, max_size=4))
    match kind:
        case "data":
            data = frame(BINARY, payload, mask)
            fast = 0 < size <= LARGEST
            return ("payload", payload, data) if fast else ("picows", data, data)
        case "fragment":
            data = frame(BINARY, payload, mask, fin=False)
        case "end":
            data = frame(CONTINUATION, payload, mask)
        case "text":
            data = frame(TEXT, payload, mask)
        case "ping":
            data = frame(PING, payload[:125], mask)
        case _:
            data = frame(BINARY, payload, mask, rsv=4)
    return "picows", data, data


@settings(max_examples=60, deadline=None)
@given(st.lists(frames(), max_size=12), seeds)
def test_every_byte_takes_its_way(sent: list[Sent], seed: int) -> None:
    """Whole binary frames come out unmasked, all others as they were, in order, however the stream is cut."""
    assert apply_mask is not None, "websockets is installed with its compiled part"
    recorder, expected, chance = Recorder(), Recorder(), random.Random(seed)
    unmasker = Unmasker(recorder, recorder, LARGEST)
    for way, out, _ in sent:
        expected._add(way, out)
    stream = memoryview(b"".join(data for _, _, data in sent))
    while stream:
        room = unmasker.get_buffer(-1)
        size = min(len(room), len(stream), chance.choice([1, 2, 3, 7, 100, 5000, 70_000, 1_000_000]))
        room[:size] = stream[:size]
        stream = stream[size:]
        unmasker.buffer_updated(size)
    assert recorder.came == expected.came


def test_lengths_that_are_too_long_for_what_they_say() -> None:
    """A length not written in the shortest way (RFC 6455 section 5.2) is picows' to refuse, and so is no mask."""
    for head in (struct.pack("!BBH", 0x82, 0xFE, 125), struct.pack("!BBQ", 0x82, 0xFF, 65_535), b"\x82\x05"):
        recorder = Recorder()
        unmasker = Unmasker(recorder, recorder, LARGEST)
        unmasker.feed(head + bytes(200))
        assert recorder.came == [("picows", (head + bytes(200))[: len(recorder.came[0][1])])]
        assert len(recorder.came[0][1]) >= len(head)


def test_nothing_passes_that_may_not_come() -> None:
    """After an end, or inside a fragmented message, even a frame without a fault is left to picows and the link."""
    recorder = Recorder(takes=False)
    data = frame(BINARY, b"x" * 1000, b"mask")
    Unmasker(recorder, recorder, LARGEST).feed(data)
    assert recorder.came == [("picows", data)]


# -- through a gateway -------------------------------------------------------------------------------------------------


def test_masked_frames_of_all_sizes_reach_the_target(shared: GatewayProcess, target: Target) -> None:
    """Frames of all sizes and cuts, fragments and PINGs among them, with masks: the target gets their payloads."""
    chance = random.Random(20261126)
    client, peer = open_tunnel(shared, target)
    payloads, stream, pings = [], [], 0
    for _ in range(150):
        payload = chance.randbytes(chance.choice([1, 60, 125, 126, 4000, 65_000, 65_536, 200_000, 256 * 1024]))
        payloads.append(payload)
        cut = chance.randrange(len(payload) + 1)
        match chance.choice(["whole", "whole", "parts", "ping"]):
            case "parts":
                stream.append(frame(BINARY, payload[:cut], os.urandom(4), fin=False))
                stream.append(frame(PING, b"between", os.urandom(4)))
                stream.append(frame(CONTINUATION, payload[cut:], os.urandom(4)))
                pings += 1
            case "ping":
                stream.append(frame(PING, b"before", os.urandom(4)) + frame(BINARY, payload, os.urandom(4)))
                pings += 1
            case _:
                stream.append(frame(BINARY, payload, os.urandom(4)))
    data, expected = b"".join(stream), b"".join(payloads)
    sender = threading.Thread(target=_send_in_pieces, args=(client, data, chance))
    sender.start()
    with peer:
        got = bytearray()
        while len(got) < len(expected):
            got += peer.recv(262_144)
        assert got == expected
    sender.join()
    opcodes = []
    while (received := client.receive())[0] != CLOSE:
        opcodes.append(received[0])
    assert len(opcodes) == pings
    client.close()


def _send_in_pieces(client: RawWebSocket, data: bytes, chance: random.Random) -> None:
    view = memoryview(data)
    while view:
        size = chance.choice([3, 1000, 16_384, 300_000])
        client.send(view[:size])
        view = view[size:]


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(frame(3, b"?", b"mask"), id="unknown opcode"),
        pytest.param(frame(BINARY, b"?", b"mask", rsv=4), id="reserved bit"),
        pytest.param(frame(CONTINUATION, b"?", b"mask"), id="nothing to continue"),
        pytest.param(struct.pack("!BBH", 0x82, 0xFE, 5) + b"mask" + b"short", id="length in a long form"),
        pytest.param(unmasked_frame(BINARY, b"?" * 70_000, masked=False), id="no mask"),
    ],
)
def test_good_frames_behind_a_bad_one(shared: GatewayProcess, target: Target, bad: bytes) -> None:
    """What follows a violation does not reach the target, in the same read or in the next."""
    client, peer = open_tunnel(shared, target)
    good = frame(BINARY, b"must not arrive", b"mask")
    client.send(frame(BINARY, b"arrives", b"mask") + bad + good)
    assert client.receive_close()[0] == 1002
    client.send(good)
    got = b""
    with peer, contextlib.suppress(TimeoutError, ConnectionResetError):
        peer.settimeout(0.3)  # what picows finds wrong ends the target's connection seconds later
        while chunk := peer.recv(100):
            got += chunk
    assert got in (b"arrives", b""), "a reset may have overtaken what came before"
    client.close()
