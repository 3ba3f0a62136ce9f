"""Tracked connections as data: list them, forget them, hear of new and ended ones, by ctnetlink
(linux/netfilter/nfnetlink_conntrack.h).

    dump(namespace)            every entry there is
    delete(namespace, *entries)  what `conntrack -D` does
    forget(namespace, addresses)  all entries of some addresses; forget_ranges of some ranges
    events(namespace)          entries as they begin and end

All of it is per network namespace: a VPC has one table, which knows no zones.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, Literal

from wicketgate.kernel import netns
from wicketgate.model import FabricError
from wicketgate.model.resources import IPv4or6Network

NETLINK_NETFILTER = 12
NFNL_SUBSYS_CTNETLINK = 1
IPCTNL_MSG_CT_NEW, IPCTNL_MSG_CT_GET, IPCTNL_MSG_CT_DELETE = 0, 1, 2
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x1, 0x4, 0x300
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLA_TYPE_MASK = 0x3FFF
CTA_TUPLE_ORIG, CTA_TUPLE_REPLY, CTA_STATUS, CTA_TIMEOUT, CTA_MARK = 1, 2, 3, 7, 8
CTA_COUNTERS_ORIG, CTA_COUNTERS_REPLY, CTA_ID, CTA_FILTER = 9, 10, 12, 25
CTA_FILTER_ORIG_FLAGS, FILTER_SOURCE, FILTER_DESTINATION = 1, 1 << 0, 1 << 1
CTA_TUPLE_IP, CTA_TUPLE_PROTO = 1, 2
CTA_IP_V4_SRC, CTA_IP_V4_DST, CTA_IP_V6_SRC, CTA_IP_V6_DST = 1, 2, 3, 4
CTA_PROTO_NUM, CTA_PROTO_SRC_PORT, CTA_PROTO_DST_PORT = 1, 2, 3
CTA_PROTO_ICMP_ID, CTA_PROTO_ICMP_TYPE, CTA_PROTO_ICMP_CODE = 4, 5, 6
CTA_PROTO_ICMPV6_ID, CTA_PROTO_ICMPV6_TYPE, CTA_PROTO_ICMPV6_CODE = 7, 8, 9
CTA_COUNTERS_PACKETS, CTA_COUNTERS_BYTES = 1, 2
NFNLGRP_CONNTRACK_NEW, NFNLGRP_CONNTRACK_DESTROY = 1, 3

NLA_F_NESTED = 0x8000
SO_RCVBUFFORCE = 33

SEEN_REPLY, ASSURED = 1 << 1, 1 << 2
"""Bits of `Entry.status` (linux/netfilter/nf_conntrack_common.h)."""

EVENT_BUFFER: Final = 4 << 20
"""Bytes that wait for a slow reader of events; what comes beyond is lost, and `Events.read` says so."""

FEW_PER_ADDRESS = 500
"""Entries of an address that are deleted one by one; for more, the kernel goes through its table for us."""

_HEADER = struct.Struct("=IHHII")
_NFGEN = struct.Struct("=BBH")
_ATTRIBUTE = struct.Struct("=HH")


@dataclass(frozen=True, slots=True)
class Direction:
    """What the packets of one direction carry. Ports are 0 for protocols without, ICMP's fields are 0 for others."""

    source: str
    destination: str
    source_port: int = 0
    destination_port: int = 0
    icmp_type: int = 0
    icmp_code: int = 0
    icmp_id: int = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """A tracked connection."""

    id: int
    """The kernel's number for it. Only of entries that are there at the same time it is certain that theirs differ."""
    protocol: int
    """IANA's number."""
    original: Direction
    reply: Direction
    mark: int = 0
    status: int = 0
    """IPS_* bits, e.g. SEEN_REPLY."""
    timeout: int = 0
    """Seconds until it ends without a packet; 0 in an event of its end."""
    packets: int = 0
    """Of the original direction; all counts are 0 unless nf_conntrack_acct is 1."""
    octets: int = 0
    reply_packets: int = 0
    reply_octets: int = 0
    key: bytes = field(default=b"", repr=False)
    """The attributes by which the kernel finds it again."""

    @property
    def family(self) -> Literal[4, 6]:
        """The version of IP."""
        return 6 if ":" in self.original.source else 4


@dataclass(frozen=True, slots=True)
class Event:
    """An entry that has just begun, or ended."""

    kind: Literal["new", "destroy"]
    entry: Entry


def dump(namespace: str) -> list[Entry]:
    """Every entry of a namespace, both families. Raises FabricError."""
    with _netlink(namespace) as netlink:
        return [_entry(data) for data in _dump(netlink)]


def delete(namespace: str, *entries: Entry) -> int:
    """Delete these entries; those that ended meanwhile are left out of the count. Raises FabricError."""
    if not entries:
        return 0
    with _netlink(namespace) as netlink:
        return sum(_delete(netlink, entry) for entry in entries)


def forget(namespace: str, addresses: Iterable[str]) -> int:
    """Delete every connection from or to one of the addresses; returns how many, of very many about how many.

    Raises FabricError.
    """
    wanted = set(addresses)
    if not wanted:
        return 0
    packed = [socket.inet_pton(_family(one), one) for one in wanted]
    with _netlink(namespace) as netlink:
        # Bytes are looked for first, since reading an entry costs much more than that.
        near = [data for data in _dump(netlink) if any(one in data for one in packed)]
        # Who sends to every port of everybody must not keep others waiting when its address is given away.
        flushed = 0
        if len(near) > FEW_PER_ADDRESS * len(wanted):
            four = [one for one in wanted if ":" not in one]
            if all(_flush(netlink, one) for one in four):
                left = [data for data in near if any(len(one) > 4 and one in data for one in packed)]
                near, flushed = left, len(near) - len(left)
        doomed = [entry for entry in map(_entry, near) if not wanted.isdisjoint(_addresses(entry))]
        return flushed + sum(_delete(netlink, entry) for entry in doomed)


def forget_ranges(namespace: str, networks: Iterable[IPv4or6Network]) -> int:
    """Delete every connection from or into one of the ranges; returns how many. Raises FabricError."""
    wanted = list(networks)
    if not wanted:
        return 0
    with _netlink(namespace) as netlink:
        entries = [_entry(data) for data in _dump(netlink)]
        doomed = [entry for entry in entries if any(_within(one, wanted) for one in _addresses(entry))]
        return sum(_delete(netlink, entry) for entry in doomed)


def _within(text: str, networks: list[IPv4or6Network]) -> bool:
    address = ipaddress.ip_address(text)
    return any(address in network for network in networks)


class Events:
    """What begins and ends in a namespace, from now on. Close it."""

    def __init__(self, namespace: str) -> None:
        self._netlink = _netlink(namespace, 1 << NFNLGRP_CONNTRACK_NEW - 1 | 1 << NFNLGRP_CONNTRACK_DESTROY - 1)
        self._netlink.setblocking(False)
        try:
            self._netlink.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, EVENT_BUFFER)
        except PermissionError:  # inside a user namespace: as much as the host's net.core.rmem_max lets us
            self._netlink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, EVENT_BUFFER)

    def fileno(self) -> int:
        """For a selector: readable when there is something to read."""
        return self._netlink.fileno()

    def read(self) -> list[Event] | None:
        """What happened since the last call, in order; None when some of it was lost: read the table anew then.

        Raises FabricError.
        """
        found: list[Event] = []
        while True:
            try:
                data = self._netlink.recv(1 << 18)
            except BlockingIOError:
                return found
            except OSError as error:
                if error.errno == errno.ENOBUFS:
                    self._drain()
                    return None
                raise FabricError(f"events of connection tracking: {error.strerror}") from error
            for kind, body in _split(data):
                name: Literal["new", "destroy"] = "destroy" if kind & 0xFF == IPCTNL_MSG_CT_DELETE else "new"
                found.append(Event(name, _entry(body[_NFGEN.size :])))

    def _drain(self) -> None:
        """Throw away what is still queued: the table that is read next is newer than all of it."""
        while True:
            try:
                self._netlink.recv(1 << 18)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise FabricError(f"events of connection tracking: {error.strerror}") from error

    def close(self) -> None:
        """Hear no more."""
        self._netlink.close()


def events(namespace: str) -> Events:
    """A listener for new and ended connections of a namespace. Raises FabricError."""
    return Events(namespace)


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _addresses(entry: Entry) -> tuple[str, ...]:
    return (entry.original.source, entry.original.destination, entry.reply.source, entry.reply.destination)


# -- messages ----------------------------------------------------------------------------------------------------------


def _netlink(namespace: str, groups: int = 0) -> socket.socket:
    with netns.entered(namespace):
        netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
    try:
        netlink.bind((0, groups))
    except OSError as error:
        netlink.close()
        raise FabricError(f"connection tracking of {namespace}: {error.strerror}") from error
    return netlink


def _send(netlink: socket.socket, kind: int, flags: int, family: int, attributes: bytes = b"") -> None:
    body = _NFGEN.pack(family, 0, 0) + attributes
    message = NFNL_SUBSYS_CTNETLINK << 8 | kind
    netlink.send(_HEADER.pack(_HEADER.size + len(body), message, NLM_F_REQUEST | flags, 1, 0) + body)


def _split(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(type, body) of each message."""
    place = 0
    while place < len(data):
        length, kind, _, _, _ = _HEADER.unpack_from(data, place)
        yield kind, data[place + _HEADER.size : place + length]
        place += (length + 3) & ~3


def _dump(netlink: socket.socket) -> Iterator[bytes]:
    """The attributes of every entry. Raises FabricError for the kernel's errors."""
    _send(netlink, IPCTNL_MSG_CT_GET, NLM_F_DUMP, socket.AF_UNSPEC)
    while True:
        for kind, body in _split(netlink.recv(1 << 18)):
            if kind == NLMSG_DONE:
                return
            if kind == NLMSG_ERROR:
                raise FabricError(f"connection tracking: {os.strerror(_error(body))}")
            yield body[_NFGEN.size :]


def _delete(netlink: socket.socket, entry: Entry) -> bool:
    """Whether it was there."""
    _send(netlink, IPCTNL_MSG_CT_DELETE, NLM_F_ACK, _family(entry.original.source), entry.key)
    for kind, body in _split(netlink.recv(1 << 16)):
        number = _error(body) if kind == NLMSG_ERROR else errno.EPROTO
        if number not in (0, errno.ENOENT):  # one that ended meanwhile is what we want
            raise FabricError(f"connection tracking: {os.strerror(number)}")
        return number == 0
    return False


def _flush(netlink: socket.socket, address: str) -> bool:
    """Delete all entries from an IPv4 address and all to it, in the kernel; False where it is too old to do so and
    takes this for one entry that is not fully named.

    Not for IPv6, where the kernel compares the wrong way round (Linux 6.18): it deletes all the others.
    """
    packed = socket.inet_pton(socket.AF_INET, address)
    for kind, flag in ((CTA_IP_V4_SRC, FILTER_SOURCE), (CTA_IP_V4_DST, FILTER_DESTINATION)):
        ends = _attribute(CTA_TUPLE_IP | NLA_F_NESTED, _attribute(kind, packed))
        told = _attribute(CTA_TUPLE_ORIG | NLA_F_NESTED, ends)
        flags = _attribute(CTA_FILTER_ORIG_FLAGS, struct.pack("=I", flag))
        told += _attribute(CTA_FILTER | NLA_F_NESTED, flags)
        _send(netlink, IPCTNL_MSG_CT_DELETE, NLM_F_ACK, socket.AF_INET, told)
        if any(answer != NLMSG_ERROR or _error(body) for answer, body in _split(netlink.recv(1 << 16))):
            return False
    return True


def _error(body: bytes) -> int:
    return -int(struct.unpack_from("=i", body)[0])


# -- attributes --------------------------------------------------------------------------------------------------------


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def _attributes(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """(type, the attribute with its header and padding, its value) of each."""
    place = 0
    while place + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, place)
        end = place + ((length + 3) & ~3)
        yield kind & NLA_TYPE_MASK, data[place:end], data[place + _ATTRIBUTE.size : place + length]
        place = end


def _entry(data: bytes) -> Entry:
    there = {kind: (whole, value) for kind, whole, value in _attributes(data)}
    # With the id: else a later connection of the same addresses and ports would always be taken for this one.
    key = b"".join(there[kind][0] for kind in (CTA_TUPLE_ORIG, CTA_ID) if kind in there)
    protocol, original = _direction(there[CTA_TUPLE_ORIG][1])
    _, reply = _direction(there[CTA_TUPLE_REPLY][1])
    packets, octets = _counts(there.get(CTA_COUNTERS_ORIG))
    reply_packets, reply_octets = _counts(there.get(CTA_COUNTERS_REPLY))
    return Entry(
        id=_number(there.get(CTA_ID)),
        protocol=protocol,
        original=original,
        reply=reply,
        mark=_number(there.get(CTA_MARK)),
        status=_number(there.get(CTA_STATUS)),
        timeout=_number(there.get(CTA_TIMEOUT)),
        packets=packets,
        octets=octets,
        reply_packets=reply_packets,
        reply_octets=reply_octets,
        key=key,
    )


def _number(attribute: tuple[bytes, bytes] | None) -> int:
    return 0 if attribute is None else int.from_bytes(attribute[1], "big")


def _counts(attribute: tuple[bytes, bytes] | None) -> tuple[int, int]:
    """Packets and bytes."""
    there = {} if attribute is None else {kind: value for kind, _, value in _attributes(attribute[1])}
    packets, octets = (there.get(kind, b"") for kind in (CTA_COUNTERS_PACKETS, CTA_COUNTERS_BYTES))
    return int.from_bytes(packets, "big"), int.from_bytes(octets, "big")


def _direction(data: bytes) -> tuple[int, Direction]:
    """Protocol and addresses of a tuple."""
    parts = {kind: {k: v for k, _, v in _attributes(value)} for kind, _, value in _attributes(data)}
    ends, proto = parts[CTA_TUPLE_IP], parts[CTA_TUPLE_PROTO]

    def end(four: int, six: int) -> str:
        family, kind = (socket.AF_INET, four) if four in ends else (socket.AF_INET6, six)
        return socket.inet_ntop(family, ends[kind])

    def number(*kinds: int) -> int:
        return next((int.from_bytes(proto[kind], "big") for kind in kinds if kind in proto), 0)

    return number(CTA_PROTO_NUM), Direction(
        source=end(CTA_IP_V4_SRC, CTA_IP_V6_SRC),
        destination=end(CTA_IP_V4_DST, CTA_IP_V6_DST),
        source_port=number(CTA_PROTO_SRC_PORT),
        destination_port=number(CTA_PROTO_DST_PORT),
        icmp_type=number(CTA_PROTO_ICMP_TYPE, CTA_PROTO_ICMPV6_TYPE),
        icmp_code=number(CTA_PROTO_ICMP_CODE, CTA_PROTO_ICMPV6_CODE),
        icmp_id=number(CTA_PROTO_ICMP_ID, CTA_PROTO_ICMPV6_ID),
    )
