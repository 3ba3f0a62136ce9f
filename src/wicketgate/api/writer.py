"""The one writer: what is decided is kept, then enforced, then acknowledged.

    decide ──> store (on disk) ──> followers: netd, gateways, ... ──> the World in force
                                     |
                                     +-- cannot be enforced ──> the inverse Change, and an error

The followers are told by `Serve`, or by us where there is none (`followers.py`).

One Change at a time. A crash between store and enforcement heals itself: the next start publishes what the store has.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, NoReturn, Protocol

import msgspec

from wicketgate import ipc
from wicketgate.control import endpoints, instances, peering
from wicketgate.model import AccessKey, AddressInUse, ApiError, Change, World, WorldError, apply_change
from wicketgate.model.change import inverse
from wicketgate.store import Store, StoreError, TokenUse

_logger = logging.getLogger("wicketgate.api")

_ON_THE_WAY: Final = frozenset({"pending", "stopping", "shutting-down"})
TICK_SECONDS: Final = 30.0
"""How often what has run out is forgotten: pushed keys, sessions, instances that ended."""
USE_SECONDS: Final = 900.0
"""How old AccessKeyLastUsed may be; each new one is a Change."""
SESSIONS_KEPT: Final = 600.0
"""Seconds after its end for which a temporary access key is known, so that its use is told to be expired."""


class Enforcing(Protocol):
    """`ipc.Feed` to `Serve`, or `followers.Followers`."""

    def enforce(self, world: World, change: Change | None) -> None:
        """Have a World enforced, to which `change` leads from the one before; None: from whatever.

        Raises FeedRefusal when it cannot be, and the one before is in force; FeedError when nobody can tell.
        """
        ...


class Writer:
    """The World in force, and the only way to another one."""

    def __init__(self, store: Store, feed: Enforcing, world: World) -> None:
        self.world = world
        self.store = store
        self.lock = asyncio.Lock()
        """Held while something is decided that is to be committed."""
        self._feed = feed
        self._thread = ThreadPoolExecutor(1, "writer")
        self._tasks: set[asyncio.Task[None]] = set()
        self._noted: list[int] = []
        self._used: dict[str, tuple[float, str]] = {}

    async def commit(self, change: Change, token: TokenUse | None = None, note: str = "") -> int:
        """Keep a Change and have it enforced; the caller holds `lock`. Returns the World's revision after it.

        `note` is the Change's audit line, kept with it until `noted` is told that it stands in the audit file: a
        process that is killed between the two writes it when it starts again.

        Raises ApiError: InternalError when it could not be enforced (it was undone), InvalidIPAddress.InUse when a host
        of a bound network has an address, ServiceUnavailable when it could not be kept (nothing was changed).
        """
        try:
            after = apply_change(self.world, change)
        except WorldError as error:
            _logger.error("a Change that contradicts the World: %s", error)
            raise ApiError("InternalError", f"The change would leave a contradiction: {error}", 500) from error
        loop = asyncio.get_running_loop()
        noted, self._noted = self._noted, []
        kept = partial(self.store.commit, token=token, note=note, noted=noted)
        self.world, failed = await loop.run_in_executor(self._thread, self._commit, change, after, token, kept)
        if failed is not None:
            self._noted += noted
            raise failed
        if _begins(change):
            self._later(self.settle())
        return after.revision

    def noted(self, revision: int) -> None:
        """The note of a Change is written where it belongs."""
        self._noted.append(revision)

    def _commit(
        self, change: Change, after: World, token: TokenUse | None, keep: Callable[[Change, int], int]
    ) -> tuple[World, ApiError | None]:
        """In the writing thread. Returns the World then in force, and what went wrong."""
        before = self.world
        try:
            keep(change, before.revision)
        except StoreError as error:
            _logger.error("a Change could not be kept: %s", error)
            return before, ApiError("ServiceUnavailable", f"The change could not be kept: {error}", 503)
        try:
            self._feed.enforce(after, change)
        except ipc.FeedRefusal as refusal:
            _logger.error("a Change could not be enforced: %s", refusal)
            undone = self._undo(change, before, after, token)
            if taken := AddressInUse.told(str(refusal)):
                return undone, ApiError(AddressInUse.code, f"Address {taken}.")
            return undone, ApiError("InternalError", f"The change could not be enforced and was undone: {refusal}", 500)
        except ipc.FeedError as error:
            self._give_up(error)
        return after, None

    def _undo(self, change: Change, before: World, after: World, token: TokenUse | None) -> World:
        undo = inverse(before, change)
        try:
            self.store.commit(undo, after.revision, forget=token, noted=(after.revision,))
            restored = apply_change(after, undo)
            self._feed.enforce(restored, None)
        except (StoreError, WorldError, ipc.FeedError) as error:
            self._give_up(error)
        return restored

    def _give_up(self, error: Exception) -> NoReturn:
        """What is in force is unknown: end, so that the next start begins from what the store has."""
        _logger.critical("the API process ends, for nobody could tell what is in force: %s", error)
        logging.shutdown()
        os._exit(1)

    # -- what follows --------------------------------------------------------------------------------------------------

    async def settle(self) -> None:
        """End the transitions that everything has followed, until there is none."""
        async with self.lock:
            while not (change := self._settled()).empty:
                try:
                    await self.commit(change)
                except ApiError as error:
                    _logger.error("a transition cannot be ended: %s", error)
                    return

    def _settled(self) -> Change:
        now = time.time()
        ended = [family.settle(self.world, now) for family in (endpoints, instances, peering)]
        return Change(
            puts=tuple(put for change in ended for put in change.puts),
            deletes=tuple(key for change in ended for key in change.deletes),
            time=now,
        )

    async def tick(self) -> None:
        """Forget what has run out and note which keys were used, again and again."""
        while True:
            await self.settle()
            async with self.lock:
                change = self._run_out(time.time())
                if not change.empty:
                    try:
                        await self.commit(change)
                    except ApiError as error:
                        _logger.error("what has run out cannot be forgotten: %s", error)
            await asyncio.sleep(TICK_SECONDS)

    def used(self, key_id: str, service: str, now: float) -> None:
        """An access key proved itself; AccessKeyLastUsed will say so."""
        self._used[key_id] = (now, service)

    def _uses(self) -> list[AccessKey]:
        """The access keys whose AccessKeyLastUsed is too old."""
        used, self._used = self._used, {}
        keys = [(key, used[key.id]) for key in self.world.access_keys if key.id in used]
        return [
            msgspec.structs.replace(key, last_used=use)
            for key, use in keys
            if key.last_used is None or use[0] - key.last_used[0] >= USE_SECONDS
        ]

    def _run_out(self, now: float) -> Change:
        keys = [("pushed-key", key.id) for key in self.world.pushed_keys if key.expires <= now]
        sessions = [
            ("access-key", key.id)
            for key in self.world.access_keys
            if key.expires is not None and key.expires + SESSIONS_KEPT <= now
        ]
        gone = {key_id for _, key_id in sessions}
        uses = [key for key in self._uses() if key.id not in gone]
        return Change(puts=tuple(uses), deletes=(*keys, *sessions), time=now)

    def _later(self, coroutine: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Let what is under way come to its end."""
        async with self.lock:
            self._thread.shutdown()


def _begins(change: Change) -> bool:
    """Whether a Change puts something on its way that has to be ended."""
    states = (getattr(put, "state", "") for put in change.puts)
    return any(state in _ON_THE_WAY or state.endswith("-in-progress") for state in states)
