"""The World feed: `serve` sends Worlds, we enforce them and say so."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable

from wicketgate import ipc
from wicketgate.model import World, WorldError

_logger = logging.getLogger("wicketgate.gateway")


async def follow(sock: socket.socket, enforce: Callable[[World], None]) -> None:
    """Enforce each World that arrives on `sock` and acknowledge its revision; returns when `serve` is gone.

    One that cannot be read is answered with the error; the one before stays in force.
    """
    sock.setblocking(False)
    reader, writer = await asyncio.open_unix_connection(sock=sock)
    try:
        while True:
            (length,) = ipc.LENGTH.unpack(await reader.readexactly(ipc.LENGTH.size))
            data = await reader.readexactly(length)
            writer.write(_answer(data, enforce))
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        return
    finally:
        writer.close()


def _answer(data: bytes, enforce: Callable[[World], None]) -> bytes:
    try:
        world = World.from_json(data)
    except WorldError as error:
        _logger.error("a World that cannot be enforced: %s", error)
        return ipc.failure(str(error))
    enforce(world)
    return ipc.acknowledgement(world.revision)
