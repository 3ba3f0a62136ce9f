"""netd's own copy of the World, for boot: what is enforced before anybody says so.

A file of records: the Update that made the World, then one for each Change since, as on the feed. Each has its length
and CRC-32 before it. A record is on disk before its revision is acknowledged, so that a host that comes up again
enforces every Change that was ever acknowledged, with no API process. Behind the last one are zeros: where the file has
its size and blocks already, fdatasync(2) writes the record alone, and no journal of the file system's waits.

Where the copy cannot be kept (a full disk) there is none: it is removed, and the host then comes up with nothing open
until the API process says what is. An older World than was acknowledged would be worse.
"""

from __future__ import annotations

import contextlib
import logging
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from wicketgate import ipc
from wicketgate.model import FabricError, World, WorldError

_logger = logging.getLogger("wicketgate.netd")

FORMAT: Final = b"wicketgate world 1\n"
"""The first line. A file that begins otherwise was written by another wicketgate, or is none."""
GROWTH: Final = 1024 * 1024
"""Bytes of Changes beyond the size of the World itself after which the copy is made anew."""
_HEAD: Final = struct.Struct("!II")
"""Length and CRC-32 of a record."""


class _Torn(Exception):  # never leaves this module
    """The last record is not whole: power was lost while it was written. It was never acknowledged."""


class BootCopy:
    """The copy in one file, which is root's alone."""

    def __init__(self, path: Path) -> None:
        """Keep it in `path`, in a directory that is there."""
        self.path = path
        self._fd = -1
        self._end = 0
        """Where the next record goes."""
        self._size = 0
        """Of the file, zeros included."""

    def load(self) -> World | None:
        """What was enforced last; None when nobody knows. What cannot be read is moved aside, and said."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            _logger.error("the copy of the World %s cannot be read: %s", self.path, error.strerror)
            return None
        try:
            return _world(data)
        except (WorldError, ValueError) as error:
            aside = self.path.with_name(f"{self.path.name}.unreadable")
            _logger.error(
                "the copy of the World %s cannot be used (%s): it is now %s, and nothing opens until the API process "
                "says what is in force",
                self.path,
                error,
                aside.name,
            )
            with contextlib.suppress(OSError):
                self.path.replace(aside)
            return None

    def keep(self, world: World, update: bytes) -> None:
        """Bring to the disk that `world` is in force, to which `update` led from the World before.

        Raises FabricError when neither that can be written nor the copy before be removed.
        """
        try:
            if update[:1] == b"C" and self._fd >= 0 and self._end + _HEAD.size + len(update) <= self._size:
                self._append(update)
            else:
                self._begin(ipc.whole(world) if update[:1] == b"C" else update)
        except OSError as error:
            _logger.error("the copy of the World %s cannot be kept: %s", self.path, error.strerror)
            self._forget()

    def close(self) -> None:
        """Let go of the file; it stays."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _append(self, update: bytes) -> None:
        self._write(_record(update), self._end)
        os.fdatasync(self._fd)
        self._end += _HEAD.size + len(update)

    def _write(self, data: bytes, place: int) -> None:
        rest = memoryview(data)
        while rest:
            written = os.pwrite(self._fd, rest, place)
            rest, place = rest[written:], place + written

    def _begin(self, update: bytes) -> None:
        """A new file with this World, under its name once it is whole and on disk."""
        self.close()
        temporary = self.path.with_name(f".{self.path.name}.new")
        temporary.unlink(missing_ok=True)
        self._fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        data = FORMAT + _record(update)
        self._write(data + bytes(GROWTH), 0)
        self._end, self._size = len(data), len(data) + GROWTH
        os.fsync(self._fd)
        temporary.replace(self.path)
        self._sync_directory()

    def _forget(self) -> None:
        self.close()
        try:
            self.path.unlink(missing_ok=True)
            self._sync_directory()
        except OSError as error:
            raise FabricError(f"the copy of the World {self.path} is out of date: {error.strerror}") from error

    def _sync_directory(self) -> None:
        directory = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _record(update: bytes) -> bytes:
    return _HEAD.pack(len(update), zlib.crc32(update)) + update


def _world(data: bytes) -> World | None:
    """The World that a copy leads to. Raises ValueError and WorldError for what is none."""
    if not data.startswith(FORMAT):
        raise ValueError(f"it does not begin with {FORMAT.decode().strip()!r}: another version wrote it")
    world = None
    try:
        for update in _updates(memoryview(data)[len(FORMAT) :]):
            world = ipc.updated(world, update)
    except _Torn:
        _logger.warning("the copy of the World ends in half a record, which was never acknowledged: it is left out")
    return world


def _updates(data: memoryview) -> Iterator[bytes]:
    """The Updates in a copy. Raises _Torn at a last one that is not whole, ValueError at one that is damaged."""
    while data:
        if not any(data):
            return
        if len(data) < _HEAD.size:
            raise _Torn
        length, checksum = _HEAD.unpack_from(data)
        if length == 0:  # its beginning did not reach the disk, some of the rest did
            raise _Torn
        update = bytes(data[_HEAD.size : _HEAD.size + length])
        data = data[_HEAD.size + length :]
        if len(update) < length:
            raise _Torn
        if zlib.crc32(update) != checksum:
            if not any(data):  # a file may have its size before it has its data
                raise _Torn
            raise ValueError("a record in its middle is damaged")
        yield update
