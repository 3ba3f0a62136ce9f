"""Numbers of descriptors: libnftables waits with select(2), and glibc ends a process that gives it 1024 or more.

So our own sockets, of which each namespace has some, are moved out of the way, and contexts of libnftables are few.
"""

from __future__ import annotations

import fcntl
import resource
import socket
from typing import Final

FD_SETSIZE: Final = 1024


def allow_many() -> None:
    """Raise the limit on open descriptors as far as it goes: each namespace takes some."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def out_of_the_way(sock: socket.socket) -> socket.socket:
    """The same socket under a number that select(2) cannot take; as it is where the limit is not above that."""
    try:
        number = fcntl.fcntl(sock.fileno(), fcntl.F_DUPFD_CLOEXEC, FD_SETSIZE)
    except OSError:
        return sock
    sock.close()
    return socket.socket(fileno=number)
