"""Open one tunnel to see whether it opens, and what answers at its end.

A PING is sent as soon as the WebSocket stands. A gateway answers it when the target is connected; of a dial that failed
it tells first, by its close frame. So nothing is concluded from silence.
"""

from __future__ import annotations

import contextlib
import ssl
import time
from collections.abc import Callable
from typing import NamedTuple

from wicketgate.client.errors import Refused, TunnelFailed, printable
from wicketgate.client.frames import Decoder, FrameError, Opcode, decode_close, encode, encode_close
from wicketgate.client.handshake import Opened, open_websocket

OPEN_SECONDS = 15.0
"""How long a gateway may take to say whether the target is connected: above its own connect_timeout."""
BANNER_SECONDS = 5.0
"""How long what is connected may take to say its first line."""
MAX_BANNER = 255
"""Bytes of an SSH server's identification string (RFC 4253 section 4.2)."""
UNABLE = "Unable to connect to target"
"""How every close reason begins of a tunnel that did not reach its target."""


class Happened(NamedTuple):
    """What became of one attempt to open a tunnel."""

    opened: bool
    """Whether the target was connected."""
    told: str = ""
    """What the service said of a tunnel that did not open, or that ended at once."""
    code: int = 0
    """The close code; 0 when the service refused by HTTP, or when the tunnel stood."""
    banner: str = ""
    """The first line of what answers, made printable; empty when it was not waited for, or nothing was said."""
    request_id: str = ""


def attempt(url: str, address: tuple[str, int], context: ssl.SSLContext, *, banner: bool) -> Happened:
    """Open a tunnel by its presigned URL, look, and close it. `banner`: wait for the first line of what answers.

    Raises TunnelFailed when the service cannot be reached or does not speak as one: then nothing is known.
    """
    try:
        opened = open_websocket(url, address, context)
    except Refused as refused:
        return Happened(False, told=str(refused))
    try:
        return _Look(opened).run(banner=banner)
    except FrameError as error:
        raise TunnelFailed(f"The service broke the WebSocket protocol: {error}.") from error
    except TimeoutError as error:
        raise TunnelFailed(f"The service did not say within {OPEN_SECONDS:.0f} s whether the tunnel stands.") from error
    except OSError as error:
        raise TunnelFailed(f"The connection to the service broke: {error}.") from error
    finally:
        opened.socket.close()


_OF_THE_TARGET = ("connection refused", "connection reset", "timed out", "no answer from")
"""What a close reason goes on with when the packets passed and the target, or what is on it, did not take them."""


def compared(explained: str, happened: Happened) -> tuple[str, str]:
    """An explanation's outcome against what happened: what to say (a key of `cli.explain_words`), and the outcome.

    `mismatch`: both cannot be true of one World.
    """
    if happened.opened:
        return ("mismatch", "unknown") if explained == "fail" else ("opened", "pass")
    if explained == "fail":
        return "not-opened", "fail"
    words = happened.told.removeprefix(f"{UNABLE}: ")
    if happened.code == 1013:
        return "limit", "unknown"
    if words.startswith(_OF_THE_TARGET) or "although routes and rules pass" in words:
        return "beyond", "fail"
    if explained == "unknown" or words.startswith("no route"):  # all that a caller is told who may not see the rules
        return "unclear", "unknown"
    return "mismatch", "unknown"


class _Look:
    """One open WebSocket, read until enough is known."""

    def __init__(self, opened: Opened) -> None:
        self._socket, self._rest, self._request_id = opened
        self._decoder = Decoder()
        self._said = b""
        self._stands = False
        self._close: tuple[int, str] | None = None

    def run(self, *, banner: bool) -> Happened:
        self._socket.sendall(encode(Opcode.PING, b"?"))
        self._feed(self._rest)
        self._read_until(lambda: self._stands or bool(self._said), OPEN_SECONDS)
        if banner and self._close is None:
            with contextlib.suppress(TimeoutError):
                self._read_until(lambda: b"\n" in self._said or len(self._said) > MAX_BANNER, BANNER_SECONDS)
        code, reason = self._close or (0, "")
        if self._close is None:
            with contextlib.suppress(OSError):
                self._socket.sendall(encode_close(1000))
        line = self._said[:MAX_BANNER].split(b"\n")[0].decode(errors="replace").rstrip("\r") if banner else ""
        opened = self._stands or bool(self._said) or not (reason.startswith(UNABLE) or code == 1006)
        return Happened(opened, printable(reason), code, printable(line), self._request_id)

    def _read_until(self, enough: Callable[[], bool], seconds: float) -> None:
        """Read until it is enough or the service closes. Raises TimeoutError."""
        deadline = time.monotonic() + seconds
        while not enough() and self._close is None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._socket.settimeout(left)
            data = self._socket.recv(16 * 1024)
            if not data:
                self._close = (1006, "")  # RFC 6455 section 7.1.5: without a close frame
            self._feed(data)

    def _feed(self, data: bytes) -> None:
        for chunk in self._decoder.feed(memoryview(data)):
            self._said += bytes(chunk[: MAX_BANNER + 1])
        for opcode, payload in self._decoder.controls:
            if opcode is Opcode.CLOSE:
                self._close = decode_close(payload)
            elif opcode is Opcode.PONG:
                self._stands = True
        self._decoder.controls.clear()
