"""The store's directory: nobody else's to read, one process's to open."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from pathlib import Path

from wicketgate.store.errors import StoreError


def private_directory(path: Path) -> None:
    """Make sure of a directory that only its owner may enter; raises StoreError."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = path.stat().st_mode
    except FileExistsError:
        raise StoreError(f"state directory {path} is a file; name a directory") from None
    except OSError as error:
        raise StoreError(f"state directory {path} cannot be made: {error.strerror} ({error.filename})") from error
    if mode & 0o077:
        raise StoreError(
            f"state directory {path} has mode {stat.S_IMODE(mode):04o}: others may enter it; run: chmod 700 {path}"
        )


def private_file(path: Path) -> None:
    """Raise StoreError when others may read or write a file that exists."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        raise StoreError(f"{path} is not a regular file")
    if mode & 0o077:
        raise StoreError(
            f"{path} has mode {stat.S_IMODE(mode):04o}: others may read or write it; run: chmod 600 {path}"
        )


def lock(directory: Path) -> int:
    """Take the directory for this process, for as long as the returned descriptor is open; raises StoreError."""
    path = directory / "lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise StoreError(
            f"state directory {directory} cannot be written: {error.strerror}; "
            "its owner must be the user that the API runs as, on a file system mounted for writing"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with contextlib.suppress(OSError):  # for messages only: a full disk is no reason not to start
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    except BlockingIOError:
        holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
        os.close(descriptor)
        raise StoreError(
            f"state directory {directory} is in use by process {holder or '(unknown)'}: "
            "one process at a time may open it; stop that one first"
        ) from None
    except OSError as error:
        os.close(descriptor)
        raise StoreError(f"{path} cannot be locked: {error.strerror}") from error
    return descriptor


def put_in_place(temporary: Path, path: Path) -> None:
    """Give a finished file its name, its content and its name both on disk."""
    _sync(temporary, os.O_RDONLY)
    temporary.rename(path)
    _sync(path.parent, os.O_RDONLY | os.O_DIRECTORY)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
