"""From a presigned URL to an open WebSocket, or one clear line about what went wrong on the way.

Every step has a time limit: TCP and TLS together, then the HTTP answer. An HTTP error is read whole and worded as the
service worded it (`{"ErrorCode": ..., "Message": ...}`).
"""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import ssl
import time
from collections.abc import Mapping
from typing import NamedTuple

from wicketgate import __version__
from wicketgate.client.errors import ClientError, ConfigurationError, Refused, TunnelFailed, printable

CONNECT_TIMEOUT = 10.0
"""Seconds for TCP and TLS together, and again for the HTTP answer."""
MAX_HEAD = 64 * 1024
MAX_BODY = 64 * 1024
_ACCEPT_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3
_TRY_AGAIN = frozenset({408, 425, 429})


class Opened(NamedTuple):
    """An open WebSocket."""

    socket: ssl.SSLSocket
    leftover: bytes
    """What the server sent right behind its answer."""
    request_id: str


class _Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    """By lower-case name."""
    rest: bytes


def trust(ca_bundle: str | None, environment: Mapping[str, str]) -> ssl.SSLContext:
    """Whom to believe: `--ca-bundle` alone, else AWS_CA_BUNDLE and SSL_CERT_FILE, else the system's roots.

    SSL_CERT_FILE is what the AWS CLI's tunnel obeys, AWS_CA_BUNDLE what the rest of it does: a person who set both
    gets both. There is no way to turn verification off: the URL is a credential. Raises ConfigurationError.
    """
    bundle = ca_bundle or environment.get("AWS_CA_BUNDLE")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION  # so that sending never waits for reading
    try:
        if bundle:
            context.load_verify_locations(bundle)
        if not bundle or (not ca_bundle and environment.get("SSL_CERT_FILE")):
            context.load_default_certs()
    except (OSError, ssl.SSLError) as error:
        source = "--ca-bundle" if ca_bundle else "AWS_CA_BUNDLE"
        raise ConfigurationError(f"{source}: no certificates can be read from {bundle}: {error}") from error
    return context


def open_websocket(url: str, address: tuple[str, int], context: ssl.SSLContext) -> Opened:
    """Connect to `address` and ask for `url`; raises Refused or TunnelFailed. The socket comes back blocking."""
    host, target = url.removeprefix("wss://").split("/", 1)
    connection = _connect(address, context)
    try:
        key = base64.b64encode(os.urandom(16))
        deadline = time.monotonic() + CONNECT_TIMEOUT
        connection.settimeout(CONNECT_TIMEOUT)
        connection.sendall(_request(host, f"/{target}", key))
        answer = _read_answer(connection, deadline)
        if answer.status != 101:
            raise _refusal(answer.status, answer.headers, _read_body(connection, answer, deadline))
        accept = base64.b64encode(hashlib.sha1(key + _ACCEPT_GUID, usedforsecurity=False).digest()).decode()
        if answer.headers.get("sec-websocket-accept") != accept:
            raise TunnelFailed(f"{host} answered the WebSocket handshake with a wrong Sec-WebSocket-Accept.")
        connection.settimeout(None)
        return Opened(connection, answer.rest, answer.headers.get("x-amzn-requestid", ""))
    except TimeoutError as error:
        connection.close()
        raise TunnelFailed(f"{host} accepted the connection but gave no answer for {CONNECT_TIMEOUT:.0f} s.") from error
    except OSError as error:
        connection.close()
        raise TunnelFailed(f"The connection to {host} broke during the handshake: {error}.") from error
    except ClientError:
        connection.close()
        raise


def _connect(address: tuple[str, int], context: ssl.SSLContext) -> ssl.SSLSocket:
    host, port = address
    deadline = time.monotonic() + CONNECT_TIMEOUT
    try:
        # As bytes, in all three places: for str the codec of international names would be loaded, 3 ms.
        plain = socket.create_connection((host.encode("ascii"), port), CONNECT_TIMEOUT)  # type: ignore[arg-type]
    except TimeoutError as error:
        raise TunnelFailed(f"No answer from {host} port {port} for {CONNECT_TIMEOUT:.0f} s.") from error
    except socket.gaierror as error:
        raise TunnelFailed(f"The name {host} cannot be resolved: {error.strerror}.") from error
    except OSError as error:
        raise TunnelFailed(f"Cannot connect to {host} port {port}: {error.strerror or error}.") from error
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    _keep_alive(plain)
    plain.settimeout(max(0.1, deadline - time.monotonic()))
    try:
        return context.wrap_socket(plain, server_hostname=host.encode("ascii"))
    except ssl.SSLCertVerificationError as error:
        plain.close()
        raise TunnelFailed(
            f"The certificate of {host} is not trusted: {error.verify_message}. Name the gateway's CA with "
            "--ca-bundle, AWS_CA_BUNDLE or SSL_CERT_FILE."
        ) from error
    except TimeoutError as error:
        plain.close()
        raise TunnelFailed(f"{host} port {port} did not finish TLS within {CONNECT_TIMEOUT:.0f} s.") from error
    except OSError as error:
        plain.close()
        raise TunnelFailed(f"TLS with {host} port {port} failed: {error.strerror or error}.") from error


def _keep_alive(plain: socket.socket) -> None:
    """Notice within two minutes that the network is gone, instead of waiting for ever."""
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 6)):
        if hasattr(socket, name):  # not every system has all three
            plain.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _request(host: str, target: str, key: bytes) -> bytes:
    return (
        f"GET {target} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key.decode()}\r\nSec-WebSocket-Version: 13\r\n"
        f"User-Agent: wicketgate/{__version__} md/command#open-tunnel\r\n\r\n"
    ).encode("ascii")


def _receive(connection: ssl.SSLSocket, deadline: float) -> bytes:
    """Some bytes, b"" at the end; raises TimeoutError at `deadline` (time.monotonic), however slow the trickle."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    connection.settimeout(left)
    return connection.recv(16 * 1024)


def _read_answer(connection: ssl.SSLSocket, deadline: float) -> _Answer:
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = _receive(connection, deadline)
        if not chunk:
            raise TunnelFailed("The service closed the connection without an HTTP answer.")
        data += chunk
        if len(data) > MAX_HEAD:
            raise TunnelFailed("The service's answer is no HTTP answer: its head does not end.")
    head, rest = data.split(b"\r\n\r\n", 1)
    lines = head.decode("latin-1").split("\r\n")
    version, _, status = lines[0].partition(" ")
    if not version.startswith("HTTP/1.") or not status[:3].isdecimal():
        raise TunnelFailed(f"The service's answer is no HTTP answer: {printable(lines[0][:80])!r}.")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    return _Answer(int(status[:3]), headers, rest)


def _read_body(connection: ssl.SSLSocket, answer: _Answer, deadline: float) -> bytes:
    """The body as far as it comes: an error cut short is worth more than none."""
    length = answer.headers.get("content-length", "")
    wanted = min(int(length), MAX_BODY) if length.isdecimal() else MAX_BODY
    body = answer.rest
    try:
        while len(body) < wanted and (chunk := _receive(connection, deadline)):
            body += chunk
    except OSError:  # a time-out included
        pass
    return body[:wanted]


def _refusal(status: int, headers: Mapping[str, str], body: bytes) -> ClientError:
    """The HTTP error as one line: `ErrorCode: Message (HTTP 403, request id ...)`."""
    import json

    try:
        said = json.loads(body)
        text = f"{said['ErrorCode']}: {said['Message']}"
    except (ValueError, KeyError, TypeError):
        text = body[:300].decode(errors="replace").strip() or "the service refused the tunnel without saying why"
    request_id = headers.get("x-amzn-requestid")
    where = f"HTTP {status}, request id {request_id}" if request_id else f"HTTP {status}"
    kind = Refused if 400 <= status < 500 and status not in _TRY_AGAIN else TunnelFailed
    return kind(printable(f"{' '.join(text.split())} ({where})"))
