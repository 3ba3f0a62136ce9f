"""API calls: handed on to the API process, byte by byte, once TLS has ended here.

    client ==TLS==> gateway ──Unix socket──> api

Whatever is asked at another path than the tunnel's is no business of the gateway's: it adds a preamble that says from
whom the connection is and carries bytes both ways, with bounded buffers. An API process that starts again loses no
connection that waits: `serve` keeps its listening socket.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import struct
from collections import Counter
from typing import Any, Final

_LENGTH: Final = struct.Struct("!H")
MAX_API_CONNECTIONS: Final = 1024
"""Of one worker. More are answered 503, so that they cannot keep anybody from a tunnel."""
MAX_PER_SOURCE: Final = 128
"""Of one worker, from one IPv4 address or one IPv6 /64: nobody alone keeps the others from the APIs."""


QUIET_SECONDS: Final = 1.0
"""A client from which so long nothing came is not in the middle of a request."""


class Places:
    """Who has how many of the connections that are handed on."""

    def __init__(self) -> None:
        self._taken: Counter[str] = Counter()

    def take(self, source_ip: str) -> bool:
        """Take a place for a client; False when it, or everybody together, has as many as there may be."""
        source = _network(source_ip)
        if self._taken.total() >= MAX_API_CONNECTIONS or self._taken[source] >= MAX_PER_SOURCE:
            return False
        self._taken[source] += 1
        return True

    def give_back(self, source_ip: str) -> None:
        """A connection is over."""
        source = _network(source_ip)
        self._taken[source] -= 1
        if not self._taken[source]:
            del self._taken[source]


def _network(source_ip: str) -> str:
    """What counts as one client: an IPv6 host has a whole /64 to call from."""
    return str(ipaddress.ip_network(f"{source_ip}/64", strict=False)) if ":" in source_ip else source_ip


class _Side(asyncio.Protocol):
    """One side of a connection that was handed on."""

    def __init__(self) -> None:
        self.transport: Any = None
        self.other: _Side | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.write(data)

    def pause_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()


class ClientSide(_Side):
    """The client's side, after its first request head was read."""

    def __init__(self, transport: Any) -> None:
        super().__init__()
        self.transport = transport
        self.lost = asyncio.Event()
        self._heard = asyncio.get_running_loop().time()

    def data_received(self, data: bytes) -> None:
        self._heard = asyncio.get_running_loop().time()
        super().data_received(data)

    def end_when_answered(self) -> None:
        """Have the API process close the connection after what was asked on it, unless something just came."""
        quiet = asyncio.get_running_loop().time() - self._heard
        if quiet >= QUIET_SECONDS and self.other is not None and self.other.transport is not None:
            self.other.transport.write_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.lost.set()


async def hand_on(client: ClientSide, path: str, source_ip: str, tls_version: str, data: bytes) -> None:
    """Carry a client's connection, whose first bytes were `data`, to the API process, until either side ends it.

    The client's transport is paused when this is called. Raises OSError when the API process cannot be reached.
    """
    transport = client.transport
    if transport.is_closing():  # nobody would tell us of its end any more
        return
    transport.set_protocol(client)
    loop = asyncio.get_running_loop()
    api_transport, api = await loop.create_unix_connection(_Side, path)
    api.other, client.other = client, api
    if client.lost.is_set():
        api_transport.close()
        return
    peer = json.dumps({"source_ip": source_ip, "tls_version": tls_version}).encode()
    api_transport.write(_LENGTH.pack(len(peer)) + peer + data)
    transport.resume_reading()
    await client.lost.wait()
