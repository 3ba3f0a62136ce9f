"""The World feed in an event loop: `serve` sends Updates, we enforce them and say so."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable

from wicketgate import ipc
from wicketgate.model import World, WorldError

_logger = logging.getLogger("wicketgate.feed")


async def follow(sock: socket.socket, enforce: Callable[[World], Awaitable[None] | None]) -> None:
    """Enforce each World that arrives on `sock`, whole or as a Change, and acknowledge its revision.

    What takes `enforce` longer than a moment it returns as an awaitable: the acknowledgement waits for that, the next
    World too.
    Returns when `serve` is gone. An Update that cannot be read is answered with the error; the World before stays in
    force.
    """
    world: World | None = None
    sock.setblocking(False)
    reader, writer = await asyncio.open_unix_connection(sock=sock)
    try:
        while True:
            (length,) = ipc.LENGTH.unpack(await reader.readexactly(ipc.LENGTH.size))
            data = await reader.readexactly(length)
            try:
                world = ipc.updated(world, data)
            except WorldError as error:
                _logger.error("an update that cannot be enforced: %s", error)
                writer.write(ipc.failure(str(error)))
            else:
                if (rest := enforce(world)) is not None:
                    await rest
                writer.write(ipc.acknowledgement(world.revision))
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        return
    finally:
        writer.close()
