"""Our side of netd's listening sockets: two for each VPC there is, one a family, asked for until they come."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from wicketgate import ipc
from wicketgate.kernel.listen import ListenReply, ListenRequest, Version

ASK_AGAIN = 1.0
"""Seconds after which an unanswered or refused request is repeated: netd may have been on its way to that World, or
have been restarted."""

_logger = logging.getLogger("wicketgate.metadata")
Place = tuple[str, Version]
"""VPC and family."""
_VERSIONS: Final[tuple[Version, ...]] = (4, 6)


class Listeners:
    """Keeps a server on the listening sockets of every VPC wanted."""

    def __init__(
        self, connect: Callable[[], socket.socket], serve: Callable[[str, socket.socket], Awaitable[asyncio.Server]]
    ) -> None:
        """`connect` makes a socket to netd, again when that is lost; until it does not raise OSError. `serve` starts a
        server on a VPC's socket.
        """
        self._connect = connect
        self._netd: socket.socket | None = None
        self._arrived = asyncio.Event()
        self._serve = serve
        self._wanted: frozenset[Place] = frozenset()
        self._asked: dict[Place, float] = {}
        self._servers: dict[Place, asyncio.Server] = {}
        self._changed = asyncio.Event()

    def want(self, vpc_ids: frozenset[str]) -> None:
        """Serve these VPCs, and no longer others: a socket left open would keep a deleted VPC's namespace alive."""
        self._wanted = frozenset((vpc_id, version) for vpc_id in vpc_ids for version in _VERSIONS)
        for gone in self._servers.keys() - self._wanted:
            self._servers.pop(gone).close()
        self._changed.set()

    async def run(self) -> None:
        """Ask and take in until cancelled."""
        try:
            while True:
                self._reach()
                self._ask()
                waits = [asyncio.ensure_future(event.wait()) for event in (self._arrived, self._changed)]
                await asyncio.wait(waits, timeout=ASK_AGAIN, return_when=asyncio.FIRST_COMPLETED)
                for wait in waits:
                    wait.cancel()
                self._arrived.clear()
                self._changed.clear()
                await self._take_in()
        finally:
            self._lose()
            for server in self._servers.values():
                server.close()

    def _reach(self) -> None:
        """Connect to netd, if it is there."""
        if self._netd is None:
            with contextlib.suppress(OSError):  # the next round tries again
                self._netd = self._connect()
                self._netd.setblocking(False)
                asyncio.get_running_loop().add_reader(self._netd, self._arrived.set)
                self._asked.clear()

    def _lose(self) -> None:
        if self._netd is not None:
            asyncio.get_running_loop().remove_reader(self._netd)
            self._netd.close()
            self._netd = None

    def _ask(self) -> None:
        now = time.monotonic()
        for vpc_id, version in sorted(self._wanted - self._servers.keys()):
            if self._netd is not None and now - self._asked.get((vpc_id, version), -ASK_AGAIN) >= ASK_AGAIN:
                with contextlib.suppress(OSError):  # netd is busy, or gone: the next round asks
                    self._netd.send(msgspec.json.encode(ListenRequest(vpc_id=vpc_id, version=version)))
                    self._asked[vpc_id, version] = now

    async def _take_in(self) -> None:
        while self._netd is not None:
            try:
                data, descriptors, _, _ = socket.recv_fds(self._netd, ipc.MAX_MESSAGE, 1)
            except BlockingIOError:
                return
            except OSError:
                data, descriptors = b"", []
            if not data:
                self._lose()
                return
            reply = msgspec.json.decode(data, type=ListenReply)
            place = reply.vpc_id, reply.version
            if not descriptors:
                _logger.warning("no IPv%s socket for %s yet: %s", reply.version, reply.vpc_id, reply.error)
                continue
            if place not in self._wanted or place in self._servers:
                os.close(descriptors[0])
                continue
            listener = socket.socket(fileno=descriptors[0])
            self._servers[place] = await self._serve(reply.vpc_id, listener)
            self._asked.pop(place, None)
