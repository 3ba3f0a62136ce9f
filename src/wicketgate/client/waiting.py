"""Waiting until a descriptor can move: `poll` where there is one, `select` (sockets only) on Windows."""

from __future__ import annotations

import select

if hasattr(select, "poll"):
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

    def wait(interest: dict[int, int], timeout: float | None = None) -> dict[int, int]:
        """See above. GONE is never seen: a closed sink shows with the next write."""
        readable, writable, _ = select.select(
            [fd for fd, events in interest.items() if events & READ],
            [fd for fd, events in interest.items() if events & WRITE],
            [],
            timeout,
        )
        return {fd: (READ if fd in readable else 0) | (WRITE if fd in writable else 0) for fd in interest}
