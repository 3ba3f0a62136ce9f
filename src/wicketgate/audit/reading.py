"""Reading the audit trail: several files, one per writing process, as one sequence of events.

    events(paths)                  oldest first; since, until and match narrow
    events(paths, newest=True)     the other way round
    follow(directory, sizes)       what is appended after these sizes, for ever

A file continues those that logrotate made of it (`chain.py`). Nothing is held in memory but a block of each
file. Each file is in time order but for the seconds by which two threads may hand in their lines the wrong way round
(`SLACK`). A line without its end is being written: it is not there yet. Lines that are no JSON objects are passed over.
"""

from __future__ import annotations

import heapq
import io
import json
import math
import os
import re
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Final

from wicketgate.audit.chain import chains, is_audit_file, is_rotated, open_audit_file
from wicketgate.audit.events import Event
from wicketgate.audit.log import AuditError

BLOCK: Final = 64 * 1024
SLACK: Final = 15.0
"""Seconds by which a line may be out of order in its file: a tunnel's line waits for its dial."""
LONGEST: Final = 16 * 1024 * 1024
"""Bytes of a line; the longest calls make far shorter ones. A file that has a longer one is read no further: a file
can take no room on a disk and all memory."""
POLL: Final = 0.5
"""Seconds between two looks at files that are followed."""

Match = Callable[[Event], bool]

_descriptor = re.compile(r"/proc/self/fd/([0-9]+)").fullmatch


def audit_files(directory: Path) -> list[Path]:
    """The audit files in a directory and in those directly below it, sorted; raises AuditError if it cannot list one.

    Every kind of process has a directory of its own there, because each runs as a user of its own.
    """
    found = []
    try:
        for path in directory.iterdir():
            inner = path.iterdir() if path.is_dir() else (path,)
            found += [file for file in inner if is_audit_file(file.name)]
    except OSError as error:
        raise AuditError(f"audit directory {error.filename or directory}: {error.strerror}") from error
    return sorted(found)


class AuditDirectories:
    """The audit files of some directories as they are whenever they are asked for: others come with each rotation.

    Each directory is one kind of process's, which may not have files of others shown through it: a file counts if it
    belongs to whom its directory belongs, under that one name.
    """

    def __init__(self, *directories: Path) -> None:
        self._directories = directories

    def __iter__(self) -> Iterator[Path]:
        """The files. Raises AuditError for a directory that cannot be listed."""
        for directory in self._directories:
            try:
                owner = directory.stat().st_uid
                for path in sorted(directory.iterdir()):
                    if is_audit_file(path.name) and _is_own(path, owner):
                        yield path
            except OSError as error:
                raise AuditError(f"audit directory {directory}: {error.strerror}") from error


def _is_own(path: Path, owner: int) -> bool:
    try:
        status = path.lstat()
    except FileNotFoundError:  # renamed in between
        return False
    return stat.S_ISREG(status.st_mode) and status.st_uid == owner and status.st_nlink == 1


def sizes_of(paths: Iterable[Path]) -> dict[Path, int]:
    """How many bytes each file holds now; raises AuditError."""
    try:
        return {path: path.stat().st_size for path in paths}
    except OSError as error:
        raise AuditError(f"audit file {error.filename}: {error.strerror}") from error


def events(
    paths: Iterable[Path],
    *,
    since: float | None = None,
    until: float | None = None,
    match: Match | None = None,
    newest: bool = False,
    sizes: Mapping[Path, int] | None = None,
) -> Iterator[Event]:
    """The events of all files merged by time, oldest first or `newest` first.

    `since` and `until` are seconds since the epoch, both included, to the second. `sizes` bounds how far files are
    read. Within one second the order is that of the files' names, and within a file that of its lines: what is there
    keeps its order whatever is added. Raises AuditError for a file that cannot be read.
    """
    least = math.floor(since) if since is not None else 0
    most = math.floor(until) if until is not None else math.inf
    streams = [_in_order(_chain(chain, since, until, newest, sizes), newest) for chain in chains(paths)]
    for moment, _, event in heapq.merge(*streams, key=_moment, reverse=newest):
        if least <= moment <= most and (match is None or match(event)):
            yield event


_Found = tuple[float, int, Event]
"""When, its number in its file, what."""


def _moment(found: _Found) -> float:
    return found[0]


def seconds_of(event: Event) -> float:
    """When an event happened, seconds since the epoch; 0 for one that does not say."""
    text = event.get("eventTime")
    try:
        return datetime.fromisoformat(text).timestamp() if isinstance(text, str) and text.endswith("Z") else 0.0
    except ValueError:
        return 0.0


def _in_order(stream: Iterator[Event], newest: bool) -> Iterator[_Found]:
    """Events in the order of their times: each is held back until none can come that belongs before it."""
    sign = -1 if newest else 1
    held: list[tuple[float, int, Event]] = []
    for number, event in enumerate(stream):
        moment = sign * seconds_of(event)
        heapq.heappush(held, (moment, number, event))
        while held[0][0] < moment - SLACK:
            early, place, first = heapq.heappop(held)
            yield sign * early, place, first
    for early, place, first in sorted(held, key=lambda found: found[:2]):
        yield sign * early, place, first


def _chain(
    chain: list[Path], since: float | None, until: float | None, newest: bool, sizes: Mapping[Path, int] | None
) -> Iterator[Event]:
    """One process's events as they stand in its files, as far as they can be within the bounds."""
    early = since - SLACK if since is not None else 0.0
    late = until + SLACK if until is not None else math.inf
    for listed in reversed(chain) if newest else chain:
        path = listed if listed.exists() else listed.with_name(f"{listed.name}.gz")  # packed in between
        try:
            if path.stat().st_mtime < early:
                continue
            with _opened(path) as file:
                bound = None if path.suffix == ".gz" else (sizes or {}).get(path)  # a packed one grows no more
                size = min(file.seek(0, os.SEEK_END), bound if bound is not None else 2**63)
                lines = _backward(file, size, until) if newest else _forward(file, size, since)
                for event in filter(None, map(parsed, lines)):
                    moment = seconds_of(event)
                    if moment < early if newest else moment > late:
                        break
                    yield event
        except FileNotFoundError:
            continue  # rotated away in between
        except OSError as error:
            raise AuditError(f"audit file {path}: {error.strerror}") from error


def parsed(line: bytes) -> Event | None:
    """The event of a line; None for what is none."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and seconds_of(event) else None


class _Inherited(io.RawIOBase):
    """A file by a descriptor that this process was given, with a place of its own: others read by the same one."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._place = 0

    def readable(self) -> bool:
        """It is, and nothing else."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """To an absolute place, or to the end."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: os.fstat(self._fd).st_size}[whence]
        self._place = base + offset
        return self._place

    def readinto(self, buffer: Any) -> int:
        """At the place, without moving the descriptor's own."""
        count = os.preadv(self._fd, [buffer], self._place)
        self._place += count
        return count


def _opened(path: Path) -> BinaryIO:
    """Open a file. `/proc/self/fd/N` is read by the descriptor: opening it anew would ask for a permission of our own,
    which the API's process has not for the files of the gateways.
    """
    inherited = _descriptor(str(path))
    return open_audit_file(path) if inherited is None else io.BufferedReader(_Inherited(int(inherited[1])))


# -- one file ----------------------------------------------------------------------------------------------------------


def _forward(file: BinaryIO, size: int, since: float | None) -> Iterator[bytes]:
    """Whole lines within the first `size` bytes, from about `since` on."""
    place = _seek(file, size, since - SLACK) if since is not None else 0
    file.seek(place)
    for line in _lines(file):
        place += len(line)
        if place > size:
            return
        yield line


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Whole lines, up to the first that is none or is too long."""
    while (line := file.readline(LONGEST)).endswith(b"\n"):
        yield line


def _backward(file: BinaryIO, size: int, until: float | None) -> Iterator[bytes]:
    """Whole lines within the first `size` bytes, the last one first, from about `until` on."""
    end = _seek(file, size, until + SLACK + 1) if until is not None else size
    rest = b""
    complete = False  # whether the end of `rest` is the end of a line
    while end > 0:
        start = max(0, end - BLOCK)
        file.seek(start)
        lines = (file.read(end - start) + rest).split(b"\n")
        rest = lines[0]
        if len(rest) > LONGEST:
            return
        for line in reversed(lines[1:]):
            if complete:
                yield line
            complete = True  # what follows the last newline is no line yet
        end = start
    if complete:
        yield rest


def _seek(file: BinaryIO, size: int, moment: float) -> int:
    """Where the first line of `moment` or later starts, by bisection; `size` when there is none."""
    low, high = 0, size
    while high - low > BLOCK:
        middle = (low + high) // 2
        file.seek(middle)
        start = middle + len(file.readline(LONGEST))
        event = parsed(file.readline(LONGEST)) if start < high else None
        if event is not None and seconds_of(event) < moment:
            low = start
        else:
            high = middle
    return _scan(file, low, size, moment)


def _scan(file: BinaryIO, place: int, size: int, moment: float) -> int:
    file.seek(place)
    for line in _lines(file):
        event = parsed(line)
        if place >= size or (event is not None and seconds_of(event) >= moment):
            return min(place, size)
        place += len(line)
    return size


# -- following ---------------------------------------------------------------------------------------------------------


def follow(
    directory: Path,
    sizes: Mapping[Path, int] | None = None,
    *,
    match: Match | None = None,
    pause: Callable[[], bool] | None = None,
) -> Iterator[Event]:
    """What is appended to a directory's files after these sizes; new and rotated files are followed as well.

    `pause` waits between two looks and tells whether to go on; without it that is POLL seconds, for ever. Raises
    AuditError for a directory or file that cannot be read.
    """
    tails: dict[Path, _Tail] = {}
    known = dict(sizes or {})
    while True:
        for path in audit_files(directory):
            if is_rotated(path.name):
                continue  # what it holds was read while it had its first name
            if path not in tails:
                tails[path] = _Tail(path, known.pop(path, 0))
        fresh = [event for path in sorted(tails) for event in tails[path].read()]
        for event in sorted(fresh, key=seconds_of):
            if match is None or match(event):
                yield event
        if not (pause or _sleep)():
            return


def _sleep() -> bool:
    time.sleep(POLL)
    return True


class _Tail:
    """The end of one file, across rotation."""

    def __init__(self, path: Path, place: int) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._place = place

    def read(self) -> list[Event]:
        """What is new since the last time."""
        try:
            found = self._read_open()
            if self._is_another():
                if self._file is not None:
                    found += self._read_open()  # written between reading and renaming
                    self._file.close()
                    self._place = 0
                self._file = open_audit_file(self._path)
                found += self._read_open()
        except FileNotFoundError:  # renamed, and not made again yet
            return found
        except OSError as error:
            raise AuditError(f"audit file {self._path}: {error.strerror}") from error
        return found

    def _is_another(self) -> bool:
        if self._file is None:
            return True
        there, here = self._path.stat(), os.fstat(self._file.fileno())
        return (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino)

    def _read_open(self) -> list[Event]:
        if self._file is None:
            return []
        size = os.fstat(self._file.fileno()).st_size
        self._place = min(self._place, size)  # a half line at the end may have been taken back
        self._file.seek(self._place)
        whole = self._file.read(size - self._place).rpartition(b"\n")[:2]
        self._place += sum(map(len, whole))
        events = [parsed(line) for line in whole[0].split(b"\n")] if whole[1] else []
        return [event for event in events if event is not None]


def text_in(value: Any, wanted: str) -> bool:
    """Whether a text, or an ARN that ends in it, stands anywhere in a value."""
    if isinstance(value, str):
        return value == wanted or value.endswith((f"/{wanted}", f":{wanted}"))
    if isinstance(value, Mapping):
        return any(text_in(item, wanted) for item in value.values())
    return isinstance(value, list) and any(text_in(item, wanted) for item in value)
