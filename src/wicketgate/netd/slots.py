"""Tunnel slots: a limit that is exact across workers and needs no book-keeping.

A slot is one byte of a file, held by an open file description lock (fcntl(2), F_OFD_SETLK). The description travels to
the gateway as the tunnel's lease and the lock lives exactly as long as it does: a dead worker's slots are free at once,
and a restarted netd finds every slot as it was, because it never knew.
"""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path

_FLOCK = struct.Struct("hhqqi")  # l_type, l_whence, l_start, l_len, l_pid, with C alignment


class Slots:
    """Leases, a file per endpoint in a directory that only netd can enter."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def take(self, endpoint_id: str, limit: int) -> int | None:
        """Take a slot and return its lease, a descriptor to hand on; None when all `limit` slots are taken."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lease = os.open(self.directory / endpoint_id, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        for slot in range(limit):
            if _try_lock(lease, slot):
                return lease
        os.close(lease)
        return None

    def taken(self, endpoint_id: str, limit: int) -> int:
        """How many of the first `limit` slots are taken now."""
        try:
            probe = os.open(self.directory / endpoint_id, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return 0
        try:
            return sum(not _try_lock(probe, slot) for slot in range(limit))
        finally:
            os.close(probe)


def _try_lock(descriptor: int, slot: int) -> bool:
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, slot, 1, 0))
    except OSError:
        return False
    return True
