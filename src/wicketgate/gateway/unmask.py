"""The fast way for what clients send: whole binary frames, unmasked here; every other frame goes to picows.

    transport --> Unmasker --whole binary frames--> link.payload --> target
                      +-----everything else-------> picows --> link.on_ws_frame

picows 2.3.1 unmasks with stores that bypass the processor's cache, so that whoever reads the result next, here the
kernel, fetches it from memory again: a third of the gateway's time for what goes up. websockets' masking writes to the
cache. What is right about a frame and what is not stays picows' and the link's business: taken here are only frames
with nothing to say about, in a state in which they may come.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, Protocol

apply_mask: Callable[[Any, Any], bytes] | None
try:
    from websockets.speedups import apply_mask
except ImportError:  # websockets was installed without its compiled part: everything goes to picows
    apply_mask = None

_FIRST_BUFFER: Final = 16 * 1024
_LONGEST_HEADER: Final = 14
_WHOLE_BINARY: Final = 0x82
"""First byte of a frame (RFC 6455 section 5.2): FIN, no reserved bits, opcode 2."""
_MASKED: Final = 0x80
_WIDTH: Final = {126: 2, 127: 8}
"""Length marker -> bytes of the length behind it."""
_LEAST: Final = {126: 126, 127: 65536}
"""Length marker -> the least length that may be written so."""


class Link(Protocol):
    """The client's side of a tunnel, as far as it is asked here."""

    def payload(self, data: bytes) -> None:
        """The payload of a whole binary frame."""

    def takes_messages(self) -> bool:
        """Whether a whole binary frame may come now; if not, picows and the link know what is wrong with it."""


class Unmasker(asyncio.BufferedProtocol):
    """The protocol of a client's transport after the 101, with picows' protocol behind it."""

    def __init__(self, picows: Any, link: Link, largest: int) -> None:
        """`largest` is the limit for a frame's payload in bytes; the buffer grows as far as frames need it."""
        self._picows = picows
        self._link = link
        self._largest = largest
        self._buffer = memoryview(bytearray(_FIRST_BUFFER))
        self._end = 0
        self._raw = 0

    # -- called by the transport ---------------------------------------------------------------------------------------

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where to read to; never empty."""
        return self._buffer[self._end :]

    def buffer_updated(self, nbytes: int) -> None:
        """Take what was read; keep a frame that is not whole yet."""
        at, end = 0, self._end + nbytes
        while at < end and (taken := self._take(at, end)):
            at += taken
        self._end = end - at
        if at and self._end:
            self._buffer[: self._end] = self._buffer[at:end]
        if self._end == len(self._buffer):
            self._grow()

    def eof_received(self) -> bool | None:
        """The client has ended its side."""
        return self._picows.eof_received()  # type: ignore[no-any-return]

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over."""
        self._picows.connection_lost(exc)

    def pause_writing(self) -> None:
        """The client does not keep up."""
        self._picows.pause_writing()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._picows.resume_writing()

    # -- inside --------------------------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Take bytes that were read before this was the transport's protocol."""
        while data:
            room = self.get_buffer(-1)
            size = min(len(room), len(data))
            room[:size] = data[:size]
            data = data[size:]
            self.buffer_updated(size)

    def _take(self, at: int, end: int) -> int:
        """Take a frame, or what is here of one that goes to picows; returns its bytes, 0 if more are needed to tell."""
        if self._raw:
            return self._hand_on(at, end)
        buffer = self._buffer
        if end - at < 2:
            return 0
        second = buffer[at + 1]
        marker = second & 0x7F
        width = _WIDTH.get(marker, 0)
        start = at + 2 + width + (4 if second & _MASKED else 0)
        if end < start:
            return 0
        size = int.from_bytes(buffer[at + 2 : at + 2 + width]) if width else marker
        plain = buffer[at] == _WHOLE_BINARY and second & _MASKED and _LEAST.get(marker, 1) <= size <= self._largest
        if not plain or apply_mask is None or not self._link.takes_messages():
            self._raw = start + size - at
            return self._hand_on(at, end)
        if end < start + size:
            return 0
        self._link.payload(apply_mask(buffer[start : start + size], buffer[start - 4 : start]))
        return start + size - at

    def _hand_on(self, at: int, end: int) -> int:
        """Give picows what is here of the frame that it is to have."""
        whole = min(self._raw, end - at)
        self._raw -= whole
        left = self._buffer[at : at + whole]
        while left:
            room = self._picows.get_buffer(-1)
            size = min(len(room), len(left))
            room[:size] = left[:size]
            left = left[size:]
            self._picows.buffer_updated(size)
        return whole

    def _grow(self) -> None:
        larger = memoryview(bytearray(min(2 * len(self._buffer), self._largest + _LONGEST_HEADER)))
        larger[: self._end] = self._buffer
        self._buffer = larger
