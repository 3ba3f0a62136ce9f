"""The World feed in an event loop: whoever is at its other end sends Updates, we enforce them and say so."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from wicketgate import ipc
from wicketgate.model import World, WorldError

_logger = logging.getLogger("wicketgate.feed")

CONNECT_SECONDS: Final = 0.2
"""Between two attempts to reach the API process."""

Enforce = Callable[[World], Awaitable[None] | None]


class Follower:
    """What follows: `enforce` each World. The rest is for feeds without `serve`, which end and begin again."""

    def __init__(
        self,
        enforce: Enforce,
        *,
        opened: Callable[[ipc.Opening], None] = lambda _opening: None,
        current: Callable[[], None] = lambda: None,
        lost: Callable[[], None] = lambda: None,
    ) -> None:
        """`opened` is told what the API process says first, `current` that nothing is acknowledged from now on that we
        have not followed, `lost` that it may be again.
        """
        self.enforce, self.opened, self.current, self.lost = enforce, opened, current, lost


async def follow(sock: socket.socket, enforce: Enforce) -> None:
    """Enforce each World that arrives on `sock`, whole or as a Change, and acknowledge its revision.

    What takes `enforce` longer than a moment it returns as an awaitable: the acknowledgement waits for that, the next
    World too.
    Returns when `serve` is gone. An Update that cannot be read is answered with the error; the World before stays in
    force.
    """
    await _follow(sock, Follower(enforce))


async def keep_following(path: str, owner: int, follower: Follower) -> None:
    """Follow who listens at `path`, a process of user `owner`; again whenever that ends, until cancelled."""
    said = ""
    while True:
        try:
            sock = ipc.connect(path, socket.SOCK_STREAM, owner)
        except OSError as error:
            if str(error) != said:
                _logger.warning("the API process cannot be reached at %s: %s", path, error.strerror or error)
            said = str(error)
        else:
            said = ""
            try:
                await _follow(sock, follower)
            finally:
                follower.lost()
            _logger.warning("the feed of the API process is lost")
        await asyncio.sleep(CONNECT_SECONDS)


async def _follow(sock: socket.socket, follower: Follower) -> None:
    world: World | None = None
    sock.setblocking(False)
    reader, writer = await asyncio.open_unix_connection(sock=sock)
    try:
        while True:
            (length,) = ipc.LENGTH.unpack(await reader.readexactly(ipc.LENGTH.size))
            data = await reader.readexactly(length)
            if data == ipc.CURRENT:
                follower.current()
                continue
            try:
                if data[:1] == b"O":
                    follower.opened(msgspec.json.decode(data[1:], type=ipc.Opening))
                    writer.write(ipc.acknowledgement(0))
                    continue
                world = ipc.updated(world, data)
            except (WorldError, msgspec.DecodeError) as error:
                _logger.error("an update that cannot be enforced: %s", error)
                writer.write(ipc.failure(str(error)))
            else:
                if (rest := follower.enforce(world)) is not None:
                    await rest
                writer.write(ipc.acknowledgement(world.revision))
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        return
    finally:
        writer.close()
