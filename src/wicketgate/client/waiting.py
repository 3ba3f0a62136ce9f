"""Waiting until a descriptor can move: `poll` where there is one, `select` (sockets only) on Windows."""

from __future__ import annotations

import select
import sys

if sys.platform != "win32" and hasattr(select, "poll"):
    READ, WRITE = select.POLLIN, select.POLLOUT
    GONE = select.POLLERR | select.POLLHUP | select.POLLNVAL

    def wait(interest: dict[int, int], timeout: float | None = None) -> dict[int, int]:
        """What came of `interest` (descriptor -> READ | WRITE, 0 for GONE alone) within `timeout` seconds."""
        poll = select.poll()
        for fd, events in interest.items():
            poll.register(fd, events)
        return dict(poll.poll(None if timeout is None else timeout * 1000))

else:
    READ, WRITE, GONE = 1, 4, 0
    _SLICE = 0.5
    """Seconds: Windows interrupts no `select` for Ctrl-C, so no single one is long."""

    def wait(interest: dict[int, int], timeout: float | None = None) -> dict[int, int]:
        """See above. GONE is never seen: a closed sink shows with the next write."""
        reads = [fd for fd, events in interest.items() if events & READ]
        writes = [fd for fd, events in interest.items() if events & WRITE]
        while True:
            readable, writable, _ = select.select(reads, writes, [], _SLICE if timeout is None else timeout)
            if readable or writable or timeout is not None:
                return {fd: (READ if fd in readable else 0) | (WRITE if fd in writable else 0) for fd in interest}
