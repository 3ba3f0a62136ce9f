"""Tracked connections in outline: read as far as the rules look, at a fraction of what a whole `conntrack.Entry` costs,
for those who ask about tens of thousands.

What differs in nothing but the source port, or ICMP's id, has one shape, so one answer will do for all of it.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Collection
from typing import Final, NamedTuple

from wicketgate.kernel import conntrack
from wicketgate.kernel.conntrack import Entry
from wicketgate.kernel.descriptors import out_of_the_way
from wicketgate.model import FabricError

EVENT_BUFFER: Final = 16 << 20
"""Bytes of events that wait for us, which the kernel doubles: 25,000 events, each of which takes 1.3 KiB. What comes
beyond is lost and counted."""
SO_MEMINFO, SK_MEMINFO_DROPS = 55, 8
"""How many messages found no room in a socket (linux/sock_diag.h)."""

_ATTRIBUTE: Final = struct.Struct("=HH")
_CUT_OUT: Final = frozenset({conntrack.CTA_PROTO_SRC_PORT, conntrack.CTA_PROTO_ICMP_ID, conntrack.CTA_PROTO_ICMPV6_ID})
_COUNTERS: Final = frozenset({conntrack.CTA_COUNTERS_ORIG, conntrack.CTA_COUNTERS_REPLY})
_NUMBER_SIZE: Final = 8
"""Bytes of the protocol's number, which comes first, with its header and padding."""


class Outline(NamedTuple):
    """A tracked connection, most of it unread."""

    shape: bytes
    """Addresses, protocol, destination port or ICMP type and code, mark: all that rules ask for, and no more."""
    id: bytes
    data: bytes
    """Every attribute."""

    @property
    def entry(self) -> Entry:
        """All of it, read."""
        return conntrack._entry(self.data)

    @property
    def counts(self) -> tuple[int, int]:
        """Packets and bytes of both directions so far; 0 unless nf_conntrack_acct is 1."""
        packets = octets = 0
        for kind, _, value in conntrack._attributes(self.data):
            if kind in _COUNTERS:
                there = {kind: value for kind, _, value in conntrack._attributes(value)}
                packets += int.from_bytes(there.get(conntrack.CTA_COUNTERS_PACKETS, b""), "big")
                octets += int.from_bytes(there.get(conntrack.CTA_COUNTERS_BYTES, b""), "big")
        return packets, octets


class Happening(NamedTuple):
    """A connection that has just begun, or ended."""

    ended: bool
    outline: Outline


def outline(data: bytes) -> Outline:
    """Read the attributes of a message of ctnetlink that far."""
    shape = identity = mark = b""
    place, size = 0, len(data)
    while place < size:
        length, kind = _ATTRIBUTE.unpack_from(data, place)
        kind &= conntrack.NLA_TYPE_MASK
        if kind == conntrack.CTA_TUPLE_ORIG:
            shape = _shape(data[place + 4 : place + length])
        elif kind == conntrack.CTA_MARK:
            mark = data[place + 4 : place + length]
        elif kind == conntrack.CTA_ID:
            identity = data[place + 4 : place + length]
        place += length + 3 & ~3
    return Outline(shape + mark, identity, data)


def _shape(original: bytes) -> bytes:
    """A tuple without its source port or id, which follows the protocol's number."""
    (addresses, _) = _ATTRIBUTE.unpack_from(original)
    start = addresses + _ATTRIBUTE.size + _NUMBER_SIZE
    if start >= len(original):
        return original
    length, kind = _ATTRIBUTE.unpack_from(original, start)
    if kind & conntrack.NLA_TYPE_MASK not in _CUT_OUT:
        return original
    return original[:start] + original[start + (length + 3 & ~3) :]


def outlines(namespace: str, addresses: Collection[str] | None = None) -> list[Outline]:
    """The connections of a namespace, both families; those in which one of some addresses occurs, or all.

    Raises FabricError.
    """
    wanted = None if addresses is None else [socket.inet_pton(_family(one), one) for one in addresses]
    with conntrack._netlink(namespace) as netlink:
        found = conntrack._dump(netlink)
        return [outline(data) for data in found if wanted is None or any(one in data for one in wanted)]


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


class Happenings:
    """What begins and ends in a namespace, from now on. Close it."""

    def __init__(self, namespace: str) -> None:
        """Raises FabricError."""
        groups = (conntrack.NFNLGRP_CONNTRACK_NEW, conntrack.NFNLGRP_CONNTRACK_DESTROY)
        self._netlink = out_of_the_way(conntrack._netlink(namespace, sum(1 << group - 1 for group in groups)))
        self._netlink.setblocking(False)
        try:
            self._netlink.setsockopt(socket.SOL_SOCKET, conntrack.SO_RCVBUFFORCE, EVENT_BUFFER)
        except PermissionError:  # inside a user namespace: as much as the host's net.core.rmem_max lets us
            self._netlink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, EVENT_BUFFER)

    def fileno(self) -> int:
        """For a selector: readable when there is something to read."""
        return self._netlink.fileno()

    @property
    def lost(self) -> int:
        """Events that found no room since the beginning."""
        values = self._netlink.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 4 * (SK_MEMINFO_DROPS + 1))
        return int(struct.unpack_from("=I", values, 4 * SK_MEMINFO_DROPS)[0])

    def read(self, most: int) -> list[Happening]:
        """What happened, in order, up to about `most` events; the rest can be read after. Raises FabricError."""
        found: list[Happening] = []
        while len(found) < most:
            try:
                data = self._netlink.recv(1 << 16)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno == errno.ENOBUFS:  # some were lost, as `lost` tells; those that had room are still there
                    continue
                raise FabricError(f"events of connection tracking: {os.strerror(error.errno or 0)}") from error
            for kind, body in conntrack._split(data):
                ended = kind & 0xFF == conntrack.IPCTNL_MSG_CT_DELETE
                found.append(Happening(ended, outline(body[conntrack._NFGEN.size :])))
        return found

    def close(self) -> None:
        """Hear no more."""
        self._netlink.close()
