"""Whose an abstract Unix socket is: by sock_diag(7), without connecting to it."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from typing import Final

NETLINK_SOCK_DIAG: Final = 4
SOCK_DIAG_BY_FAMILY: Final = 20
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_DUMP = 0x1, 0x300
UDIAG_SHOW_NAME, UDIAG_SHOW_UID = 0x01, 0x40
UNIX_DIAG_NAME, UNIX_DIAG_UID = 0, 7
CLOSE, LISTEN = 7, 10
"""States of a socket that is bound alone, and of one that listens (linux/include/net/tcp_states.h). A connection that
nobody has accepted yet has the name, too, but no owner."""

_HEADER = struct.Struct("=IHHII")
_REQUEST = struct.Struct("=BBxxIIIII")
_ATTRIBUTE = struct.Struct("=HH")
_HEAD_OF_SOCKET: Final = 16
"""Bytes of `struct unix_diag_msg`."""


def owner_of(name: str) -> int | None:
    """The user who has bound the abstract name (unix(7)) in our network namespace; None when nobody has.

    Raises OSError, also where the kernel does not tell.
    """
    wanted = name.encode()
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_SOCK_DIAG) as netlink:
        shown = UDIAG_SHOW_NAME | UDIAG_SHOW_UID
        body = _REQUEST.pack(socket.AF_UNIX, 0, 1 << CLOSE | 1 << LISTEN, 0, shown, 0, 0)
        flags = NLM_F_REQUEST | NLM_F_DUMP
        netlink.send(_HEADER.pack(_HEADER.size + len(body), SOCK_DIAG_BY_FAMILY, flags, 1, 0) + body)
        found = [_owner(attributes) for attributes in _sockets(netlink) if attributes.get(UNIX_DIAG_NAME) == wanted]
    return found[0] if found else None


def _owner(attributes: dict[int, bytes]) -> int:
    if UNIX_DIAG_UID not in attributes:  # before Linux 5.3
        raise OSError("the kernel does not tell whose a socket is")
    return int(struct.unpack("=I", attributes[UNIX_DIAG_UID])[0])


def _sockets(netlink: socket.socket) -> Iterator[dict[int, bytes]]:
    """What is told of each socket, by attribute."""
    while True:
        data = netlink.recv(1 << 16)
        while data:
            length, kind, _, _, _ = _HEADER.unpack_from(data)
            body, data = data[_HEADER.size : length], data[(length + 3) & ~3 :]
            if kind == NLMSG_DONE:
                return
            if kind == NLMSG_ERROR:
                number = -int(struct.unpack_from("=i", body)[0])
                raise OSError(number, os.strerror(number))
            yield dict(_attributes(body[_HEAD_OF_SOCKET:]))


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        yield kind, data[_ATTRIBUTE.size : length]
        data = data[(length + 3) & ~3 :]
