"""The audit file: one per gateway process, append-only, on disk before it counts.

Invariants:
- A line is written whole or taken back: after a failed write (disk full) the file is cut to its last whole line, so no
  later line is ever appended to half a line.
- `done` is called only after fdatasync covered the line.
- A close line that could not be written is owed: it goes first into the next write. If the process dies before, the
  next start writes it.
- A file that was renamed is written to until `reopen`; then a new one is begun under the name. No line is lost between,
  and none is split. A start looks for tunnels without a close line in the renamed ones too.

Writers hand lines to one thread, which writes everything that has gathered while the last fdatasync ran as one batch
(group commit): the event loop never waits for a disk, and a burst of tunnels costs one fdatasync.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import stat
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Final

import msgspec

from wicketgate.audit.chain import chain_of, open_audit_file
from wicketgate.audit.events import CLOSE, OPEN, Event, close_event, line, unexpected_end
from wicketgate.model import WicketgateError

_logger = logging.getLogger("wicketgate.audit")

LONGEST_SECONDS: Final = 8 * 86_400.0
"""A tunnel that was opened before that is over: a week is the most that `max_tunnel_duration` allows."""

Done = Callable[[Exception | None], None]


class AuditError(WicketgateError):
    """The audit file cannot be used: says which file, and what would be right."""


class Recovery(msgspec.Struct, frozen=True):
    """What an earlier process left behind in the file."""

    torn: bytes = b""
    """The half line at its end, taken out (power loss in the middle of a write). It never counted."""
    unreadable: int = 0
    """Whole lines that are no JSON object; left as they are."""
    closed: tuple[str, ...] = ()
    """Request ids of tunnels whose close lines were missing and are now written."""


class _Entry(msgspec.Struct, frozen=True):
    data: bytes
    done: Done | None


_REOPEN: Final = _Entry(b"", None)
"""In the place of a line: see `AuditLog.reopen`."""


class AuditLog:
    """An append-only file of audit lines. `start` opens and repairs it, `stop` writes what is left."""

    def __init__(self, path: Path, *, descriptor: int | None = None, shared: bool = False) -> None:
        """Keep the audit lines in `path`; `descriptor`, if given, is that file, open for reading and appending.

        The descriptor is for a process that may not open the file itself. `shared`: the file's group may read it.
        """
        self.path = path
        self._mode = 0o640 if shared else 0o600
        self._fd = -1 if descriptor is None else descriptor
        self._size = 0
        self._queue: SimpleQueue[_Entry | None] = SimpleQueue()
        self._owed: list[_Entry] = []
        self._thread: threading.Thread | None = None

    # -- starting and stopping -----------------------------------------------------------------------------------------

    def start(self) -> Recovery:
        """Open the file, write what an earlier process owed, and begin to take lines; raises AuditError."""
        try:
            if self._fd < 0:
                self._fd = self._open()
            self._check()
            recovery = self._recover()
        except OSError as error:
            raise AuditError(f"audit file {self.path}: {error.strerror}") from error
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
        self._thread.start()
        return recovery

    def stop(self) -> None:
        """Write what was handed in so far and close the file."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def reopen(self) -> None:
        """Go on with the file that has the name then, made if there is none: the one before was renamed."""
        self._queue.put(_REOPEN)

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        fd = os.open(self.path, flags, self._mode)
        directory = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)  # a new file's name must survive as well
        finally:
            os.close(directory)
        return fd

    def _check(self) -> None:
        status = os.fstat(self._fd)
        if not stat.S_ISREG(status.st_mode):
            raise AuditError(f"audit file {self.path} is not a regular file")
        if status.st_mode & 0o077 & ~self._mode:
            raise AuditError(
                f"audit file {self.path} has mode {status.st_mode & 0o7777:04o}: "
                f"others could read or write it; run: chmod {self._mode:o} {self.path}"
            )
        if not fcntl.fcntl(self._fd, fcntl.F_GETFL) & os.O_APPEND:
            raise AuditError(f"audit file {self.path} was opened without O_APPEND")
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AuditError(
                f"audit file {self.path} is in use by another process; every gateway process needs one of its own"
            ) from None

    # -- what an earlier process left ----------------------------------------------------------------------------------

    def _recover(self) -> Recovery:
        opened = self._left_open()
        unreadable = 0
        tail = b""
        whole = 0
        with os.fdopen(os.dup(self._fd), "rb") as file:
            file.seek(0)
            for data in file:
                if not data.endswith(b"\n"):
                    tail = data
                    break
                whole += len(data)
                unreadable += not _remember(data, opened)
        if tail:
            os.ftruncate(self._fd, whole)
            _logger.warning("audit file %s: took out a half line of %d bytes at its end", self.path, len(tail))
        if unreadable:
            _logger.warning("audit file %s: %d lines are not JSON objects", self.path, unreadable)
        self._size = whole
        now = time.time()
        missing = [close_event(one, unexpected_end(), event_id=str(uuid.uuid4()), now=now) for one in opened.values()]
        if missing or tail:
            self._commit(b"".join(map(line, missing)))
        return Recovery(torn=tail, unreadable=unreadable, closed=tuple(opened))

    def _left_open(self) -> dict[str, Event]:
        """Tunnels whose close lines do not stand in the renamed files, oldest first; those too old to be open apart."""
        opened: dict[str, Event] = {}
        oldest = time.time() - LONGEST_SECONDS
        for path in chain_of(self.path)[:-1]:
            try:
                if path.stat().st_mtime >= oldest:
                    with open_audit_file(path) as file:
                        for data in file:
                            _remember(data, opened)
            except OSError as error:  # what is told by it is not worth the start
                _logger.warning("audit file %s: it cannot be read for tunnels without a close line: %s", path, error)
        return opened

    # -- writing -------------------------------------------------------------------------------------------------------

    def append(self, event: Event, done: Done | None = None) -> None:
        """Hand in one event, from any thread.

        `done(None)` is called from the writing thread once the line is on disk, `done(error)` when it cannot be
        written and is dropped. Without `done` the line is owed: it is tried again with every later write.
        """
        self._queue.put(_Entry(line(event), done))

    def _run(self) -> None:
        running = True
        while running:
            batch = [self._queue.get()]
            while not self._queue.empty():
                batch.append(self._queue.get())
            entries = [entry for entry in batch if entry is not None]
            running = len(entries) == len(batch)
            self._write_batch([entry for entry in entries if entry is not _REOPEN])
            if _REOPEN in batch:
                self._change_files()

    def _change_files(self) -> None:
        """Go on with the file of our name, if that is another; one that cannot be used changes nothing."""
        before, size = self._fd, self._size
        try:
            self._fd = self._open()
            if os.path.samestat(os.fstat(self._fd), os.fstat(before)):
                os.close(self._fd)
                self._fd = before
                return
            self._check()
            self._size = os.fstat(self._fd).st_size
        except (OSError, AuditError) as error:
            _logger.error("audit file %s cannot be opened anew, so the one before is written to: %s", self.path, error)
            if self._fd != before:
                os.close(self._fd)
            self._fd, self._size = before, size
        else:
            os.close(before)

    def _write_batch(self, entries: list[_Entry]) -> None:
        entries = self._owed + entries
        self._owed = []
        failure: OSError | None = None
        try:
            self._commit(b"".join(entry.data for entry in entries))
        except OSError as error:
            failure = error
            self._owed = [entry for entry in entries if entry.done is None]
            _logger.error("audit file %s cannot be written: %s", self.path, error.strerror)
        for entry in entries:
            if entry.done is not None:
                entry.done(failure)

    def _commit(self, data: bytes) -> None:
        """Append `data` and bring it to the disk, or leave the file as it was and raise OSError."""
        if os.fstat(self._fd).st_size != self._size:
            os.ftruncate(self._fd, self._size)  # an earlier attempt failed and could not be taken back then
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._fd, rest) :]
            os.fdatasync(self._fd)
        except OSError:
            os.ftruncate(self._fd, self._size)
            raise
        self._size += len(data)


def _remember(data: bytes, opened: dict[str, Event]) -> bool:
    """Note an OpenTunnel that succeeded, forget it at its CloseTunnel; False when the line is no JSON object."""
    try:
        event = json.loads(data)
    except ValueError:
        return False
    if not isinstance(event, dict):
        return False
    request_id = event.get("requestID")
    if not isinstance(request_id, str):
        return True
    if event.get("eventName") == OPEN and "errorCode" not in event:
        opened[request_id] = event
    elif event.get("eventName") == CLOSE:
        opened.pop(request_id, None)
    return True
