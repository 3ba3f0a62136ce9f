"""Forget tracked connections, by ctnetlink (linux/netfilter/nfnetlink_conntrack.h).

Only what `conntrack -D` would do is needed: dump a namespace's table and delete the entries of some addresses.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator

from wicketgate.kernel import netns
from wicketgate.model import FabricError

NETLINK_NETFILTER = 12
NFNL_SUBSYS_CTNETLINK = 1
IPCTNL_MSG_CT_GET, IPCTNL_MSG_CT_DELETE = 1, 2
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x1, 0x4, 0x300
NLMSG_ERROR, NLMSG_DONE = 2, 3
CTA_TUPLE_ORIG, CTA_TUPLE_REPLY = 1, 2
CTA_TUPLE_IP, CTA_IP_V4_SRC, CTA_IP_V4_DST = 1, 1, 2
NLA_TYPE_MASK = 0x3FFF

_HEADER = struct.Struct("=IHHII")
_NFGEN = struct.Struct("=BBH")
_ATTRIBUTE = struct.Struct("=HH")


def forget(namespace: str, addresses: set[str]) -> int:
    """Delete every IPv4 connection from or to one of the addresses; returns how many. Raises FabricError."""
    if not addresses:
        return 0
    packed = {socket.inet_aton(address) for address in addresses}
    with netns.entered(namespace):
        netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
    with netlink:
        netlink.bind((0, 0))
        doomed = [entry for entry in _dump(netlink) if _addresses(entry) & packed]
        for entry in doomed:
            _delete(netlink, entry)
    return len(doomed)


def _send(netlink: socket.socket, kind: int, flags: int, attributes: bytes) -> None:
    body = _NFGEN.pack(socket.AF_INET, 0, 0) + attributes
    message = NFNL_SUBSYS_CTNETLINK << 8 | kind
    netlink.send(_HEADER.pack(_HEADER.size + len(body), message, NLM_F_REQUEST | flags, 1, 0) + body)


def _messages(netlink: socket.socket) -> Iterator[tuple[int, bytes]]:
    """(type, body) of each message up to the end of the answer. Raises FabricError for the kernel's errors."""
    while True:
        data = netlink.recv(1 << 18)
        while data:
            length, kind, _, _, _ = _HEADER.unpack_from(data)
            body, data = data[_HEADER.size : length], data[(length + 3) & ~3 :]
            if kind == NLMSG_DONE:
                return
            if kind == NLMSG_ERROR:
                number = -int(struct.unpack_from("=i", body)[0])
                if number not in (0, errno.ENOENT):  # an entry that ended meanwhile is what we want
                    raise FabricError(f"connection tracking: {os.strerror(number)}")
                return
            yield kind, body


def _dump(netlink: socket.socket) -> list[bytes]:
    """The attributes of every IPv4 entry."""
    _send(netlink, IPCTNL_MSG_CT_GET, NLM_F_DUMP, b"")
    return [body[_NFGEN.size :] for _, body in _messages(netlink)]


def _delete(netlink: socket.socket, entry: bytes) -> None:
    for kind, whole, _ in _attributes(entry):
        if kind == CTA_TUPLE_ORIG:
            _send(netlink, IPCTNL_MSG_CT_DELETE, NLM_F_ACK, whole)
            for _ in _messages(netlink):
                pass


def _attributes(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """(type, the attribute with its header and padding, its value) of each."""
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        padded = (length + 3) & ~3
        yield kind & NLA_TYPE_MASK, data[:padded], data[_ATTRIBUTE.size : length]
        data = data[padded:]


def _addresses(entry: bytes) -> set[bytes]:
    """Source and destination of both directions."""
    return {
        value
        for direction, _, tuple_ in _attributes(entry)
        if direction in (CTA_TUPLE_ORIG, CTA_TUPLE_REPLY)
        for part, _, endpoints in _attributes(tuple_)
        if part == CTA_TUPLE_IP
        for kind, _, value in _attributes(endpoints)
        if kind in (CTA_IP_V4_SRC, CTA_IP_V4_DST)
    }
