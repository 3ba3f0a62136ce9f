"""The client's frames: what it sends is what RFC 6455 asks for, and what it reads survives any cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wicketgate.client import frames
from wicketgate.client.frames import Decoder, FrameError, Opcode, decode_close, encode, encode_close


def unmask(frame: bytes) -> tuple[int, bytes]:
    """First byte and payload of a masked frame, read by the letter of RFC 6455 section 5.2."""
    assert frame[1] & 0x80, "a client masks every frame"
    size, at = frame[1] & 0x7F, 2
    if size >= 126:
        width = 2 if size == 126 else 8
        size, at = int.from_bytes(frame[2 : 2 + width], "big"), 2 + width
    key, payload = frame[at : at + 4], frame[at + 4 :]
    assert len(payload) == size
    return frame[0], bytes(byte ^ key[index % 4] for index, byte in enumerate(payload))


def server_frame(opcode: int, payload: bytes, *, fin: bool = True) -> bytes:
    """A frame as a server sends it."""
    first = (0x80 if fin else 0) | opcode
    if len(payload) < 126:
        return bytes((first, len(payload))) + payload
    if len(payload) < 65536:
        return bytes((first, 126)) + len(payload).to_bytes(2, "big") + payload
    return bytes((first, 127)) + len(payload).to_bytes(8, "big") + payload


@pytest.mark.parametrize("size", [0, 1, 125, 126, 4095, 4096, 65_000, 65_535, 65_536])
def test_payloads_of_every_length_form_arrive_whole(size: int) -> None:
    """The three length forms and both ways of masking give the payload back."""
    payload = bytes(range(256)) * (size // 256 + 1)
    assert unmask(encode(Opcode.BINARY, payload[:size])) == (0x82, payload[:size])


def test_every_frame_has_a_key_of_its_own() -> None:
    """Two equal frames differ on the wire (RFC 6455 section 5.3: unpredictable keys)."""
    assert len({encode(Opcode.BINARY, b"12345678") for _ in range(16)}) > 1


def test_without_the_compiled_masking_large_frames_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no compiled wheel the slow way takes over."""
    monkeypatch.setattr(frames, "_fast_mask", frames._mask_slowly)
    assert unmask(encode(Opcode.BINARY, b"abc" * 5000)) == (0x82, b"abc" * 5000)


@given(
    pieces=st.lists(st.binary(max_size=300), min_size=1, max_size=5),
    cuts=st.lists(st.integers(1, 7), min_size=1, max_size=20),
    ping=st.booleans(),
)
def test_a_fragmented_message_with_a_ping_inside_survives_any_cut(
    pieces: list[bytes], cuts: list[int], ping: bool
) -> None:
    """Payload and control frames come out the same however the bytes are cut."""
    wire = b""
    for index, piece in enumerate(pieces):
        opcode = Opcode.CONTINUATION if index else Opcode.BINARY
        wire += server_frame(opcode, piece, fin=index == len(pieces) - 1)
        if ping and index == 0:
            wire += server_frame(Opcode.PING, b"are you there")
    wire += server_frame(Opcode.CLOSE, (1000).to_bytes(2, "big") + b"bye")
    decoder, payload, position, turn = Decoder(), b"", 0, 0
    while position < len(wire):
        step = cuts[turn % len(cuts)]
        payload += b"".join(decoder.feed(memoryview(wire[position : position + step])))
        position, turn = position + step, turn + 1
    assert payload == b"".join(pieces)
    pings = [(Opcode.PING, b"are you there")] if ping else []
    assert decoder.controls == [*pings, (Opcode.CLOSE, b"\x03\xe8bye")]


@pytest.mark.parametrize(
    ("wire", "code", "words"),
    [
        (b"\x81\x01x", 1003, "text frame"),
        (b"\xc2\x01x", 1002, "reserved bits"),
        (b"\x82\x81\0\0\0\0x", 1002, "masked"),
        (b"\x83\x01x", 1002, "unknown opcode 3"),
        (b"\x80\x01x", 1002, "continuation without a beginning"),
        (b"\x02\x01x\x82\x01y", 1002, "inside another"),
        (b"\x89\x7e\x00\x7e", 1002, "longer than 125"),
        (b"\x09\x00", 1002, "fragmented"),
    ],
)
def test_broken_frames_are_named_with_the_code_to_close_with(wire: bytes, code: int, words: str) -> None:
    """Each rule of RFC 6455 section 5 that a server can break has its own words."""
    with pytest.raises(FrameError, match=words) as caught:
        Decoder().feed(memoryview(wire))
    assert caught.value.code == code


def test_nothing_is_read_behind_a_close_frame() -> None:
    """What follows a close frame is not payload (RFC 6455 section 5.5.1)."""
    decoder = Decoder()
    assert decoder.feed(memoryview(b"\x88\x00" + server_frame(Opcode.BINARY, b"late"))) == []
    assert decoder.controls == [(Opcode.CLOSE, b"")]


@pytest.mark.parametrize(
    ("payload", "expected"), [(b"", (1005, "")), (b"\x03\xe8", (1000, "")), (b"\x03\xf3no \xff", (1011, "no \ufffd"))]
)
def test_close_frames_are_read_with_and_without_their_parts(payload: bytes, expected: tuple[int, str]) -> None:
    """No status is 1005, a reason that is not UTF-8 is shown as far as it is."""
    assert decode_close(payload) == expected


def test_a_close_reason_is_cut_to_what_a_control_frame_holds() -> None:
    """125 bytes less the code (RFC 6455 section 5.5)."""
    _, payload = unmask(encode_close(1000, "x" * 200))
    assert payload == b"\x03\xe8" + b"x" * 123
