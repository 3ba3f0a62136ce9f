"""Packets made by hand, of every protocol, sent and seen at a network interface's own end.

They go out by packet sockets (packet(7)), past the machine's own stack and routes: so a test chooses source address,
header chain and fragments freely, and sees what arrives before the machine's stack does. Checksums are right, because
connection tracking looks at them.
"""

import ipaddress
import socket
import struct
from functools import lru_cache
from typing import NamedTuple

from wicketgate.kernel import netns

ETH_P_ALL, ETH_P_IP, ETH_P_IPV6 = 0x0003, 0x0800, 0x86DD
SOL_PACKET, PACKET_IGNORE_OUTGOING = 263, 23

TCP, UDP, ICMP, ICMPV6, GRE, SCTP, UDPLITE = 6, 17, 1, 58, 47, 132, 136
SYN, ACK, PUSH = 0x02, 0x10, 0x08
DESTINATION_OPTIONS, FRAGMENT = 60, 44
INIT, INIT_ACK, COOKIE_ECHO, DATA = 1, 2, 10, 0

_address = lru_cache(maxsize=4096)(ipaddress.ip_address)
"""Tests send between the same few addresses again and again."""

TAG = b"wgtag"
TAG_LENGTH = len(TAG) + 8


def tag(number):
    """What a packet carries so that it is known again."""
    return TAG + f"{number:08x}".encode()


def number_of(frame):
    """The number that a frame carries in its tag; None if it is none of ours."""
    at = frame.find(TAG)
    return None if at < 0 else int(frame[at + len(TAG) : at + TAG_LENGTH], 16)


class Wire:
    """A network interface's own end: what is sent there goes to the VPC's router."""

    def __init__(self, namespace, device, router_mac):
        with netns.entered(namespace):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        self._socket.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        self._socket.bind((device, ETH_P_ALL))
        mac = bytes.fromhex(router_mac.replace(":", ""))
        self._headers = {
            4: mac + self._socket.getsockname()[4] + struct.pack("!H", ETH_P_IP),
            6: mac + self._socket.getsockname()[4] + struct.pack("!H", ETH_P_IPV6),
        }

    def fileno(self):
        """To wait for it."""
        return self._socket.fileno()

    def send(self, packet):
        """Send one IP packet to the router."""
        self._socket.send(self._headers[packet[0] >> 4] + packet)

    def received(self):
        """The tags that have come since, as numbers; other people's packets are left out."""
        found = []
        while True:
            try:
                frame = self._socket.recv(4096)
            except BlockingIOError:
                return found
            number = number_of(frame)
            if number is not None:
                found.append(number)

    def close(self):
        """Free the socket."""
        self._socket.close()


# -- IP ----------------------------------------------------------------------------------------------------------------


def packet(source, destination, protocol, body, *, extended=False, hops=64):
    """An IP packet of the addresses' family; `extended` puts a destination options header before the body (IPv6).

    `hops`: one less is the number of routers that pass it on.
    """
    source, destination = _address(source), _address(destination)
    if source.version == 4:
        return _header4(source, destination, protocol, len(body), hops=hops) + body
    if extended:
        protocol, body = DESTINATION_OPTIONS, bytes((protocol, 0, 1, 4, 0, 0, 0, 0)) + body  # PadN (RFC 8200 4.6)
    return _header6(source, destination, protocol, len(body), hops=hops) + body


def fragments(whole, identification):
    """An IP packet in two fragments; whoever judges ports has to put them together first."""
    size = 32  # of the first one's body: ports and tag are in it
    if whole[0] >> 4 == 4:
        source, destination = whole[12:16], whole[16:20]
        parts = ((0, whole[20 : 20 + size], True), (size // 8, whole[20 + size :], False))
        return [
            _header4(
                source, destination, whole[9], len(part), identification=identification, offset=0x2000 * more | offset
            )
            + part
            for offset, part, more in parts
        ]
    source, destination = whole[8:24], whole[24:40]
    parts = ((0, whole[40 : 40 + size], 1), (size, whole[40 + size :], 0))
    return [
        _header6(source, destination, FRAGMENT, 8 + len(part))
        + struct.pack("!BBHI", whole[6], 0, offset | more, identification)
        + part
        for offset, part, more in parts
    ]


def _header4(source, destination, protocol, length, *, identification=0, offset=0, hops=64):
    source, destination = (_address(one).packed for one in (source, destination))
    header = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 20 + length, identification, offset, hops, protocol, 0, source, destination
    )
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:]


def _header6(source, destination, next_header, length, *, hops=64):
    source, destination = (_address(one).packed for one in (source, destination))
    return struct.pack("!IHBB16s16s", 6 << 28, length, next_header, hops, source, destination)


def checksum(data):
    """The Internet checksum (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _over_pseudo_header(ends, protocol, body):
    source, destination = (_address(one).packed for one in (ends.source, ends.destination))
    if len(source) == 4:
        return checksum(source + destination + struct.pack("!BBH", 0, protocol, len(body)) + body)
    return checksum(source + destination + struct.pack("!II", len(body), protocol) + body)


# -- what is in it -----------------------------------------------------------------------------------------------------


class Ends(NamedTuple):
    """Addresses and ports of a packet."""

    source: str
    destination: str
    ports: tuple[int, int] = (0, 0)

    @property
    def swapped(self):
        """Those of a packet the other way."""
        return Ends(self.destination, self.source, self.ports[::-1])


def tcp(ends, flags, sequence, acknowledged, payload):
    """A TCP segment (RFC 9293)."""
    head = struct.pack("!HHIIBBHHH", *ends.ports, sequence, acknowledged, 5 << 4, flags, 65535, 0, 0)
    total = _over_pseudo_header(ends, TCP, head + payload)
    return head[:16] + struct.pack("!H", total) + head[18:] + payload


def udp(ends, payload, protocol=UDP):
    """A UDP datagram (RFC 768), or one of UDP-Lite whose checksum covers it whole (RFC 3828)."""
    length = 8 + len(payload) if protocol == UDP else 0
    head = struct.pack("!HHHH", *ends.ports, length, 0)
    total = _over_pseudo_header(ends, protocol, head + payload)
    return head[:6] + struct.pack("!H", total or 0xFFFF) + payload


def icmp(ends, kind, code, rest, payload):
    """An ICMP message of the addresses' family (RFC 792, RFC 4443); `rest`: the four bytes after the checksum."""
    head = struct.pack("!BBH4s", kind, code, 0, rest)
    total = _over_pseudo_header(ends, ICMPV6, head + payload) if ":" in ends.source else checksum(head + payload)
    return head[:2] + struct.pack("!H", total) + rest + payload


def sctp(ports, verification_tag, kind, payload):
    """An SCTP packet of one chunk (RFC 9260)."""
    if kind in (INIT, INIT_ACK):
        # initiate tag, window, streams, first TSN; then a parameter that whoever does not know it skips
        payload = struct.pack("!IIHHI", SCTP_TAGS[kind], 65535, 1, 1, 1) + _padded(0xC0FE, payload)
        chunk = struct.pack("!BBH", kind, 0, 4 + len(payload)) + payload
    else:
        payload = struct.pack("!IHHI", 1, 0, 0, 0) + payload if kind == DATA else payload
        chunk = struct.pack("!BBH", kind, 3 if kind == DATA else 0, 4 + len(payload)) + payload
        chunk += b"\0" * (-len(chunk) % 4)
    head = struct.pack("!HHI", *ports, verification_tag)
    total = crc32c(head + b"\0\0\0\0" + chunk)
    return head + struct.pack("<I", total) + chunk


SCTP_TAGS = {INIT: 0x11111111, INIT_ACK: 0x22222222}
"""The initiate tags of both ends."""


def _padded(kind, value):
    return struct.pack("!HH", kind, 4 + len(value)) + value + b"\0" * (-len(value) % 4)


def _crc_table():
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


_CRC = _crc_table()


def crc32c(data):
    """The checksum of SCTP (RFC 9260 appendix A)."""
    value = 0xFFFFFFFF
    for byte in data:
        value = value >> 8 ^ _CRC[(value ^ byte) & 0xFF]
    return value ^ 0xFFFFFFFF


def quoted(whole):
    """What an ICMP error says of a packet: its IP header and the eight bytes after it."""
    return whole[: (20 if whole[0] >> 4 == 4 else 40) + 8]
