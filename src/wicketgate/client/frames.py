"""WebSocket frames as a client sends and receives them (RFC 6455 section 5). Pure: bytes in, bytes out.

Payload passes through as slices of what was read; only the few bytes of headers and control frames are copied.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from enum import IntEnum

_Masker = Callable[[bytes, bytes], bytes]


class Opcode(IntEnum):
    """Kinds of frames (RFC 6455 section 5.2)."""

    CONTINUATION = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA


class FrameError(Exception):
    """The server broke the protocol; `code` is the close code to answer with."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


LARGE = 4096
"""Bytes from which a frame is worth loading the compiled masking for (about 25 ms, once)."""

_fast_mask: _Masker | None = None


def _mask(payload: bytes, key: bytes) -> bytes:
    """`payload` XOR the repeated key. In C for bulk; 30 times slower, but at once, for a terminal's few bytes."""
    global _fast_mask  # noqa: PLW0603  # loaded at most once
    if len(payload) >= LARGE and _fast_mask is None:
        try:
            from websockets.speedups import apply_mask

            _fast_mask = apply_mask
        except ImportError:  # a platform without a compiled wheel
            _fast_mask = _mask_slowly
    return (_fast_mask or _mask_slowly)(payload, key)


def _mask_slowly(payload: bytes, key: bytes) -> bytes:
    size = len(payload)
    repeated = key * (size // 4) + key[: size % 4]
    return (int.from_bytes(payload, "little") ^ int.from_bytes(repeated, "little")).to_bytes(size, "little")


def encode(opcode: Opcode, payload: bytes = b"") -> bytes:
    """One whole frame, masked with a fresh key (RFC 6455 section 5.3)."""
    size = len(payload)
    key = os.urandom(4)
    if size < 126:
        head = bytes((0x80 | opcode, 0x80 | size))
    elif size < 65536:
        head = bytes((0x80 | opcode, 0x80 | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((0x80 | opcode, 0x80 | 127)) + size.to_bytes(8, "big")
    return head + key + _mask(payload, key)


def encode_close(code: int, reason: str = "") -> bytes:
    """A close frame."""
    return encode(Opcode.CLOSE, code.to_bytes(2, "big") + reason.encode()[:123])


def decode_close(payload: bytes) -> tuple[int, str]:
    """Code and reason of a close frame; 1005 when it has none (RFC 6455 section 7.1.5)."""
    if len(payload) < 2:
        return 1005, ""
    return int.from_bytes(payload[:2], "big"), payload[2:].decode(errors="replace")


class Decoder:
    """Takes what arrives and gives back payload; control frames gather in `controls`."""

    def __init__(self) -> None:
        self.controls: list[tuple[Opcode, bytes]] = []
        """Whole PING, PONG and CLOSE frames since the caller last emptied the list. Nothing is read after a CLOSE."""
        self._head = bytearray()
        self._left = 0
        self._control: Opcode | None = None
        self._control_payload = bytearray()
        self._in_message = False
        self._closed = False

    def feed(self, data: memoryview) -> list[memoryview]:
        """The payload of data frames within `data`, in order; raises FrameError for a broken frame."""
        payload: list[memoryview] = []
        position, end = 0, len(data)
        while position < end and not self._closed:
            if self._left == 0:
                position += self._feed_head(data[position : position + 10])
                continue
            chunk = data[position : position + self._left]
            position += len(chunk)
            self._left -= len(chunk)
            if self._control is None:
                payload.append(chunk)
            else:
                self._control_payload += chunk
                self._end_control()
        return payload

    def _feed_head(self, data: memoryview) -> int:
        """Take header bytes; how many."""
        taken = 0
        while (missing := self._head_size() - len(self._head)) > 0:
            chunk = data[taken : taken + missing]
            if not chunk:
                return taken
            self._head += chunk
            taken += len(chunk)
        self._start(self._head[0], int.from_bytes(self._head[2:] or self._head[1:2], "big"))
        self._head.clear()
        return taken

    def _head_size(self) -> int:
        if len(self._head) < 2:
            return 2
        if self._head[1] & 0x80:
            raise FrameError(1002, "a masked frame came from the server")
        return 2 + {126: 2, 127: 8}.get(self._head[1], 0)

    def _start(self, first: int, size: int) -> None:
        """A header is complete: check it against what may come now."""
        if first & 0x70:
            raise FrameError(1002, "a frame with reserved bits, though no extension was agreed")
        final, code = bool(first & 0x80), first & 0x0F
        try:
            opcode = Opcode(code)
        except ValueError:
            raise FrameError(1002, f"a frame with the unknown opcode {code}") from None
        self._left = size
        if opcode >= Opcode.CLOSE:
            if size > 125 or not final:
                raise FrameError(1002, "a control frame that is fragmented or longer than 125 bytes")
            self._control = opcode
            self._end_control()
        elif opcode is Opcode.TEXT:
            raise FrameError(1003, "a text frame; tunnels carry binary frames")
        elif (opcode is Opcode.CONTINUATION) != self._in_message:
            raise FrameError(1002, "a continuation without a beginning, or a message inside another")
        else:
            self._in_message = not final

    def _end_control(self) -> None:
        """Hand over the control frame if it is whole."""
        if self._left == 0 and self._control is not None:
            self.controls.append((self._control, bytes(self._control_payload)))
            self._closed = self._control is Opcode.CLOSE
            self._control = None
            self._control_payload.clear()
