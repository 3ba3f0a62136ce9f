"""The HTTP/1.1 head of an openTunnel handshake: reading one, and wording the answers that are not 101. Pure.

Stricter than RFC 9112 asks of a server where leniency only helps an attacker: no folded lines, no bare LF or CR, no
body, exactly one Host. Every refusal is a complete HTTP response with exactly one Content-Length: the stock AWS CLI
shows the body only then, and hangs for ever on a second Content-Length or on none at all.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

import msgspec

from wicketgate.sigv4.canonical import TUNNEL_PATH

MAX_HEAD: Final = 32 * 1024
"""Bytes of request line and headers. An STS session token alone may take 2-4 KiB of the query."""
MAX_HEADERS: Final = 128

_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_TARGET: Final = re.compile(rb"/[!-~]*")
_HOST: Final = re.compile(r"[0-9A-Za-z.\-_]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?")


class HeadRefused(Exception):
    """The request cannot become a tunnel, whoever sent it; carries the HTTP answer."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = headers or {}


class Head(msgspec.Struct, frozen=True):
    """A well-formed openTunnel handshake."""

    query: str
    """The raw query string, percent-encoding untouched."""
    host: str
    headers: tuple[tuple[str, str], ...]
    """Names in lower case, in the order sent."""
    websocket_key: str

    def get(self, name: str) -> str:
        """The first value of a header, empty when there is none."""
        return next((value for key, value in self.headers if key == name), "")


def _malformed(message: str) -> HeadRefused:
    return HeadRefused(400, "MalformedRequest", message)


def too_large() -> HeadRefused:
    """The answer to a head over the limit."""
    return HeadRefused(431, "RequestHeaderFieldsTooLarge", f"The request head is larger than {MAX_HEAD} bytes")


def too_slow(seconds: float) -> HeadRefused:
    """The answer to a head that does not come to its end."""
    return HeadRefused(408, "RequestTimeout", f"The request head was not complete within {seconds:g} seconds")


def parse(data: bytes) -> Head:
    """Read a head, without the blank line at its end; raises HeadRefused."""
    lines = data.split(b"\r\n")
    method, target, version = _request_line(lines[0])
    headers = _headers(lines[1:])
    if version != b"HTTP/1.1":
        raise HeadRefused(505, "HttpVersionNotSupported", "openTunnel is a WebSocket handshake over HTTP/1.1")
    host = _host(headers)
    path, _, query = target.decode("ascii").partition("?")
    if path != TUNNEL_PATH:
        raise HeadRefused(404, "UnknownOperation", f"There is nothing at {path[:100]}; tunnels open at {TUNNEL_PATH}")
    if method != b"GET":
        raise HeadRefused(405, "MethodNotAllowed", "openTunnel is a GET request", {"Allow": "GET"})
    _no_body(headers)
    return Head(query, host, headers, _websocket_key(headers))


def is_tunnel(data: bytes) -> bool:
    """Whether a head asks for the tunnels' path, well-formed or not."""
    line = data.partition(b"\r\n")[0]
    target = line.partition(b" ")[2].partition(b" ")[0]
    return target.partition(b"?")[0] == TUNNEL_PATH.encode()


def _request_line(line: bytes) -> tuple[bytes, bytes, bytes]:
    parts = line.split(b" ")
    if len(parts) != 3 or not _TOKEN.fullmatch(parts[0]) or not re.fullmatch(rb"HTTP/\d\.\d", parts[2]):
        raise _malformed(f"The request line is not `GET {TUNNEL_PATH}?... HTTP/1.1`")
    if not _TARGET.fullmatch(parts[1]):
        raise _malformed("The request target is not a path that begins with / and holds printable ASCII only")
    return parts[0], parts[1], parts[2]


def _headers(lines: list[bytes]) -> tuple[tuple[str, str], ...]:
    if len(lines) > MAX_HEADERS:
        raise HeadRefused(431, "RequestHeaderFieldsTooLarge", f"The request has more than {MAX_HEADERS} headers")
    found = []
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not _TOKEN.fullmatch(name):
            raise _malformed("A header line is not `Name: value`")
        if any(byte < 0x20 and byte != 0x09 for byte in value) or 0x7F in value:
            raise _malformed(f"The value of header {name.decode('ascii')} holds a control character")
        found.append((name.decode("ascii").lower(), value.strip(b" \t").decode("latin-1")))
    return tuple(found)


def _all(headers: tuple[tuple[str, str], ...], name: str) -> list[str]:
    return [value for key, value in headers if key == name]


def _host(headers: tuple[tuple[str, str], ...]) -> str:
    hosts = _all(headers, "host")
    if len(hosts) != 1:
        raise _malformed(f"The request has {len(hosts)} Host headers; exactly one is needed")
    if not _HOST.fullmatch(hosts[0]):
        raise _malformed("The Host header is not a DNS name or address, with or without a port")
    return hosts[0]


def _no_body(headers: tuple[tuple[str, str], ...]) -> None:
    if _all(headers, "transfer-encoding") or any(value != "0" for value in _all(headers, "content-length")):
        raise _malformed("An openTunnel request has no body")


def _tokens(headers: tuple[tuple[str, str], ...], name: str) -> set[str]:
    return {token.strip().lower() for value in _all(headers, name) for token in value.split(",")}


def _websocket_key(headers: tuple[tuple[str, str], ...]) -> str:
    if "websocket" not in _tokens(headers, "upgrade") or "upgrade" not in _tokens(headers, "connection"):
        raise HeadRefused(
            426,
            "UpgradeRequired",
            "openTunnel is a WebSocket handshake: `Upgrade: websocket` and `Connection: Upgrade` are needed",
            {"Upgrade": "websocket", "Sec-WebSocket-Version": "13"},
        )
    if _all(headers, "sec-websocket-version") != ["13"]:
        raise HeadRefused(
            426,
            "UpgradeRequired",
            "`Sec-WebSocket-Version: 13` is needed (RFC 6455)",
            {"Upgrade": "websocket", "Sec-WebSocket-Version": "13"},
        )
    keys = _all(headers, "sec-websocket-key")
    if len(keys) != 1 or not _is_key(keys[0]):
        raise _malformed("Exactly one Sec-WebSocket-Key of 16 bytes in base64 is needed (RFC 6455 section 4.1)")
    return keys[0]


def _is_key(value: str) -> bool:
    try:
        return len(base64.b64decode(value, validate=True)) == 16
    except (binascii.Error, ValueError):
        return False


def response(status: int, code: str, message: str, request_id: str, headers: Mapping[str, str] | None = None) -> bytes:
    """A complete HTTP error response, in the shape of the live service: `{"ErrorCode": ..., "Message": ...}`."""
    body = json.dumps({"ErrorCode": code, "Message": message}).encode()
    fields = {
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "x-amzn-requestid": request_id,
        **(headers or {}),
        "Connection": "close",
    }
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def bare_response(status: int, request_id: str) -> bytes:
    """A complete HTTP error response without a body."""
    fields = ("Content-Length: 0", f"x-amzn-requestid: {request_id}", "Connection: close")
    return "\r\n".join([f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *fields, "", ""]).encode("latin-1")
