"""What netd has found outside becomes part of the World: its file is read time and again, what differs is committed."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path
from typing import Final

import msgspec

from wicketgate.api.writer import Writer
from wicketgate.control.observed import observed_change
from wicketgate.model import ApiError
from wicketgate.model.observed import Observations

_logger = logging.getLogger("wicketgate.api")

OBSERVED_SECONDS: Final = 2.0
"""How often the file is looked at."""


async def observe(writer: Writer, path: Path) -> None:
    """Have the World show what the file says, whenever one of both is another; never ends by itself."""
    file, shown = ObservationsFile(path), (-1, -1)
    while True:
        await asyncio.sleep(OBSERVED_SECONDS)
        found = file.read()
        if found is not None and shown != (file.versions, writer.world.revision):
            await _show(writer, found)
            # Also what could not be committed: once more when something is another, not every time.
            shown = file.versions, writer.world.revision


async def _show(writer: Writer, found: Observations) -> None:
    async with writer.lock:
        change = observed_change(writer.world, found, time.time())
        if change.empty:
            return
        try:
            await writer.commit(change)
        except ApiError as error:
            _logger.error("what was found outside cannot be shown: %s", error)


class ObservationsFile:
    """The file that netd writes, whole each time and by another file's taking its name."""

    def __init__(self, path: Path) -> None:
        self.versions = 0
        """How many contents it has had that could be read."""
        self._path = path
        self._seen: tuple[int, int] | None = None
        self._last: Observations | None = None

    def read(self) -> Observations | None:
        """What it says, or said before it went or was spoilt; None before there is anything."""
        try:
            there = self._path.stat()
            if self._seen != (there.st_ino, there.st_mtime_ns):
                self._seen = there.st_ino, there.st_mtime_ns
                self._last = msgspec.json.decode(self._path.read_bytes(), type=Observations)
                self.versions += 1
        except FileNotFoundError:
            pass
        except (OSError, msgspec.DecodeError) as error:
            _logger.error("what was found outside cannot be read from %s: %s", self._path, error)
        return self._last
