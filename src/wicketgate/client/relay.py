"""One tunnel's bytes, both ways, until either side ends it.

        source --read--> [one frame] --TLS--> service
          sink <-write-- [one buffer] <-TLS-- service

Invariants: at most one unsent frame and one unwritten buffer exist, and nothing is read while the way out is full, so
memory is bounded and a slow reader slows the other side down. A frame begun is sent to its end before the next.

How it ends: the service's close frame is the usual end. The end of `source` is told to the service by one empty binary
frame, and the relay goes on receiving. A closed `sink` ends the tunnel: nobody is left to read.
"""

from __future__ import annotations

import ssl
import time
from typing import NamedTuple

from wicketgate.client.ends import Sink, Source
from wicketgate.client.errors import TunnelFailed
from wicketgate.client.frames import Decoder, FrameError, Opcode, decode_close, encode, encode_close
from wicketgate.client.waiting import GONE, READ, WRITE, wait

MAX_PAYLOAD = 65_000
"""Bytes of payload in a frame, the AWS CLI's figure: what every implementation of the service must take."""
BUFFER_SIZE = 128 * 1024
"""Bytes read from TLS before they are written; OpenSSL gives at most 16 KiB at a time."""
GOODBYE_TIMEOUT = 1.0
"""Seconds for the closing handshake when the end is ours."""

_WAITING = (ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Ended(NamedTuple):
    """How a tunnel ended."""

    code: int
    """The service's close code, 1005 if it gave none; 1000 too when this side ended it in good order."""
    reason: str = ""

    @property
    def well(self) -> bool:
        """Whether this is how a tunnel should end."""
        return self.code in (1000, 1005)


class Relay:
    """One open WebSocket and one local end. `run` once."""

    def __init__(self, connection: ssl.SSLSocket, leftover: bytes, source: Source, sink: Sink) -> None:
        self._connection = connection
        self._leftover = leftover
        self._source = source
        self._sink = sink
        self._decoder = Decoder()
        self._buffer = memoryview(bytearray(BUFFER_SIZE))
        self._to_service = memoryview(b"")
        self._to_sink = memoryview(b"")
        self._pong: bytes | None = None
        self._source_open = True
        self._sink_hung_up = False
        self._sink_gone = False
        self._ended: Ended | None = None

    def run(self) -> Ended:
        """Carry until the end; raises TunnelFailed when the connection breaks or the service breaks the protocol."""
        self._connection.setblocking(False)
        try:
            if self._leftover:
                self._decode(memoryview(self._leftover))
            while self._ended is None and not self._nobody_reads():
                if not (self._take_from_source() | self._send() | self._receive() | self._write()):
                    self._wait()
            if self._ended is None:
                self._say_goodbye(1000)
                return Ended(1000)
            self._send_last(1000)
            self._flush_sink()
            return self._ended
        except FrameError as error:
            self._say_goodbye(error.code)
            raise TunnelFailed(f"The service broke the WebSocket protocol: {error}.") from error
        except (KeyboardInterrupt, SystemExit):
            self._say_goodbye(1000)
            raise
        finally:
            self._connection.close()

    # -- towards the service: each step says whether something moved ---------------------------------------------------

    def _take_from_source(self) -> bool:
        if not self._source_open or self._to_service:
            return False
        try:
            data = self._source.read(MAX_PAYLOAD)
        except BlockingIOError:
            return False
        except OSError as error:
            raise TunnelFailed(f"The input cannot be read: {error.strerror}.") from error
        self._source_open = bool(data)
        self._to_service = memoryview(encode(Opcode.BINARY, data))  # an empty frame: the end of the input
        return True

    def _send(self) -> bool:
        if not self._to_service:
            if self._pong is None:
                return False
            self._to_service, self._pong = memoryview(encode(Opcode.PONG, self._pong)), None
        try:
            sent = self._connection.send(self._to_service)
        except _WAITING:
            return False
        except OSError:
            # What the service said before it closed is still to be read, and that reading finds the end.
            self._to_service, self._source_open = memoryview(b""), False
            return True
        self._to_service = self._to_service[sent:]
        return True

    # -- towards the sink ----------------------------------------------------------------------------------------------

    def _receive(self) -> bool:
        if self._to_sink or self._ended:
            return False
        filled, broken = self._fill()
        if filled:
            self._decode(self._buffer[:filled])
        if broken and self._ended is None:
            self._flush_sink()
            raise TunnelFailed(broken)
        return filled > 0

    def _fill(self) -> tuple[int, str]:
        """Read until there is no more or the buffer is full: how many bytes, and why there will be no others."""
        filled = 0
        try:
            while filled < BUFFER_SIZE:
                size = self._connection.recv_into(self._buffer[filled:])
                if size == 0:
                    return filled, "The service ended the connection without a close frame."
                filled += size
        except _WAITING:
            pass
        except OSError as error:
            return filled, f"The connection to the service broke: {error.strerror or error}."
        return filled, ""

    def _decode(self, data: memoryview) -> None:
        payload = self._decoder.feed(data)
        self._to_sink = payload[0] if len(payload) == 1 else memoryview(b"".join(payload))
        for opcode, content in self._decoder.controls:
            if opcode is Opcode.PING:
                self._pong = content  # only the latest needs an answer (RFC 6455 section 5.5.3)
            elif opcode is Opcode.CLOSE:
                self._ended = Ended(*decode_close(content))
        self._decoder.controls.clear()

    def _write(self) -> bool:
        if not self._to_sink:
            return False
        try:
            written = self._sink.write(self._to_sink)
        except BlockingIOError:
            return False
        except OSError:
            self._sink_gone = True
            return True
        self._to_sink = self._to_sink[written:]
        return True

    # -- waiting -------------------------------------------------------------------------------------------------------

    def _wait(self) -> None:
        """Sleep until something can move. That the sink is gone shows even when there is nothing to write."""
        interest = {self._connection.fileno(): (0 if self._to_sink else READ) | (WRITE if self._to_service else 0)}
        sink, source = self._sink.fileno(), self._source.fileno()
        if not self._sink_hung_up:
            interest[sink] = WRITE if self._to_sink else 0
        if self._source_open and not self._to_service:
            interest[source] = interest.get(source, 0) | READ
        if wait(interest).get(sink, 0) & GONE:
            # One socket for both ways: its peer may have left bytes to send on. Otherwise nobody is there.
            self._sink_hung_up = True
            self._sink_gone = self._sink_gone or sink != source

    def _nobody_reads(self) -> bool:
        return self._sink_gone or (self._sink_hung_up and not self._source_open and not self._to_service)

    # -- the end -------------------------------------------------------------------------------------------------------

    def _flush_sink(self) -> None:
        while self._to_sink and not self._sink_gone:
            if not self._write() and wait({self._sink.fileno(): WRITE}).get(self._sink.fileno(), 0) & GONE:
                return

    def _send_last(self, code: int) -> None:
        """Finish the frame begun and send a close frame; a service that no longer listens is no error now."""
        try:
            self._connection.settimeout(GOODBYE_TIMEOUT)
            if self._to_service:
                self._connection.sendall(self._to_service)
            self._connection.sendall(encode_close(code))
        except OSError:
            return

    def _say_goodbye(self, code: int) -> None:
        """Close from this side: a close frame, then wait for the service's, or the frame is lost in a reset."""
        deadline = time.monotonic() + GOODBYE_TIMEOUT
        self._send_last(code)
        try:
            while (left := deadline - time.monotonic()) > 0:
                self._connection.settimeout(left)
                if not self._connection.recv_into(self._buffer):
                    return
        except OSError:
            return
