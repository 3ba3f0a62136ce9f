"""Frames by which hosts of one link know each other, packed and read: ARP (RFC 826, RFC 5227), IPv6 neighbour discovery
(RFC 4861, RFC 4862), and the echo requests that are sent beside them (RFC 792, RFC 4443).

Pure: sockets are in `neighbours.py`. A link-layer address is text here as ip-link(8) shows it.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from typing import Final

ETH_P_IP, ETH_P_ARP, ETH_P_IPV6 = 0x0800, 0x0806, 0x86DD
EVERYBODY: Final = "ff:ff:ff:ff:ff:ff"

ICMP, ICMPV6 = 1, 58
ECHO_REPLY, ECHO_REQUEST, ECHO_REQUEST6, ECHO_REPLY6 = 0, 8, 128, 129
SOLICITATION, ADVERTISEMENT = 135, 136
SOURCE_LINK_LAYER, TARGET_LINK_LAYER = 1, 2
OVERRIDE = 0x20
"""A flag of an advertisement, in the first of their four bytes (RFC 4861, 4.4)."""

ECHO_MARK: Final = b"wicketga"
"""How the data of our own echo requests begins, so that answers to them can be told from answers to others' pings."""

_ETHERNET = struct.Struct("!6s6sH")
_ARP = struct.Struct("!HHBBH6s4s6s4s")
_ARP_REQUEST, _ARP_REPLY = 1, 2
_IPV4 = struct.Struct("!BBHHHBBH4s4s")
_IPV6 = struct.Struct("!IHBB16s16s")
_HOPS: Final = 64
_ND_HOPS: Final = 255
"""What neighbour discovery bears, so that nothing from beyond the link is taken for it (RFC 4861, 3.1)."""
_ICMP_AT: Final = _ETHERNET.size + _IPV6.size
_ANY4, _ANY6 = bytes(4), bytes(16)
_ALL_NODES: Final = socket.inet_pton(socket.AF_INET6, "ff02::1")


@dataclass(frozen=True)
class Claim:
    """Somebody says that an address is at a link-layer address."""

    address: str
    mac: str


@dataclass(frozen=True)
class Wish:
    """Somebody asks whether an address is free, because it is about to take it (RFC 5227 2.1.1, RFC 4862 5.4.3)."""

    address: str
    mac: str


@dataclass(frozen=True)
class Echo:
    """An answer to an echo request."""

    source: str
    destination: str
    sequence: int
    data: bytes


def arp_request(mac: str, address: str, sender: str | None = None, to: str = EVERYBODY) -> bytes:
    """Ask who has an IPv4 address. Without a sender's address it is a probe, by which nobody learns anything
    (RFC 5227, 1.1); with one that is the address itself an announcement."""
    source = _ANY4 if sender is None else _packed(sender)
    body = _ARP.pack(1, ETH_P_IP, 6, 4, _ARP_REQUEST, _bytes(mac), source, bytes(6), _packed(address))
    return _ethernet(to, mac, ETH_P_ARP) + body


def arp_reply(mac: str, address: str, to: str) -> bytes:
    """Tell one who probed for an IPv4 address that it is ours. It gave no address of its own."""
    body = _ARP.pack(1, ETH_P_IP, 6, 4, _ARP_REPLY, _bytes(mac), _packed(address), _bytes(to), _ANY4)
    return _ethernet(to, mac, ETH_P_ARP) + body


def solicitation(mac: str, address: str, sender: str | None = None, to: str | None = None) -> bytes:
    """Ask who has an IPv6 address (RFC 4861, 4.3). Without a sender's address it is what duplicate address detection
    sends (RFC 4862, 5.4.2). `to`: the neighbour's link-layer address, if it is known already."""
    target = _packed(address)
    group = socket.inet_pton(socket.AF_INET6, "ff02::1:ff00:0")[:13] + target[13:]
    option = b"" if sender is None else _option(SOURCE_LINK_LAYER, mac)
    source, destination = _ANY6 if sender is None else _packed(sender), group if to is None else target
    body = struct.pack("!BBHI", SOLICITATION, 0, 0, 0) + target + option
    link = to or (b"\x33\x33" + group[12:]).hex(":")
    return _ethernet(link, mac, ETH_P_IPV6) + _ipv6(source, destination, body, _ND_HOPS)


def advertisement(mac: str, address: str) -> bytes:
    """Tell everybody that an IPv6 address is ours (RFC 4861, 7.2.6)."""
    body = struct.pack("!BBHI", ADVERTISEMENT, 0, 0, OVERRIDE << 24) + _packed(address)
    packet = _ipv6(_packed(address), _ALL_NODES, body + _option(TARGET_LINK_LAYER, mac), _ND_HOPS)
    return _ethernet("33:33:00:00:00:01", mac, ETH_P_IPV6) + packet


def echo_request(source: str, destination: str, identifier: int, sequence: int, data: bytes) -> bytes:
    """An echo request as an IP packet of the addresses' family."""
    version6 = ":" in destination
    head = struct.pack("!BBHHH", ECHO_REQUEST6 if version6 else ECHO_REQUEST, 0, 0, identifier, sequence)
    if version6:
        return _ipv6(_packed(source), _packed(destination), head + data, _HOPS)
    body = _with_checksum(head + data, b"")
    length = _IPV4.size + len(body)
    header = _IPV4.pack(0x45, 0, length, 0, 0, _HOPS, ICMP, 0, _packed(source), _packed(destination))
    return header[:10] + _checksum(header) + header[12:] + body


def framed(packet: bytes, mac: str, to: str) -> bytes:
    """An IP packet as a frame from one link-layer address to another."""
    return _ethernet(to, mac, ETH_P_IPV6 if packet[0] >> 4 == 6 else ETH_P_IP) + packet


def read(frame: bytes) -> Claim | Wish | Echo | None:
    """What a frame says; None for anything else, and for what is not as the RFCs have it."""
    if len(frame) < _ETHERNET.size:
        return None
    kind = int.from_bytes(frame[12:14], "big")
    try:
        if kind == ETH_P_ARP:
            return _read_arp(frame)
        if kind == ETH_P_IP:
            return _read_echo4(frame)
        return _read_icmp6(frame) if kind == ETH_P_IPV6 else None
    except struct.error:  # it ends too early
        return None


def _read_arp(frame: bytes) -> Claim | Wish | None:
    hardware, protocol, size, length, operation, mac, sender, _, target = _ARP.unpack_from(frame, _ETHERNET.size)
    if (hardware, protocol, size, length) != (1, ETH_P_IP, 6, 4) or not _is_somebody(mac):
        return None
    if sender != _ANY4:
        return Claim(socket.inet_ntop(socket.AF_INET, sender), mac.hex(":"))
    if operation != _ARP_REQUEST:
        return None
    return Wish(socket.inet_ntop(socket.AF_INET, target), mac.hex(":"))


def _read_echo4(frame: bytes) -> Echo | None:
    head = _IPV4.unpack_from(frame, _ETHERNET.size)
    at, end = _ETHERNET.size + (head[0] & 0xF) * 4, _ETHERNET.size + head[2]
    kind, _, _, _, sequence = struct.unpack_from("!BBHHH", frame, at)
    if head[6] != ICMP or kind != ECHO_REPLY:
        return None
    source, destination = (socket.inet_ntop(socket.AF_INET, one) for one in head[8:10])
    return Echo(source, destination, sequence, frame[at + 8 : end])


def _read_icmp6(frame: bytes) -> Claim | Wish | Echo | None:
    _, length, protocol, hops, source, destination = _IPV6.unpack_from(frame, _ETHERNET.size)
    kind, code, _, _, sequence = struct.unpack_from("!BBHHH", frame, _ICMP_AT)
    body = frame[_ICMP_AT + 8 : _ICMP_AT + length]
    if protocol != ICMPV6:
        return None
    if kind == ECHO_REPLY6:
        ends = [socket.inet_ntop(socket.AF_INET6, one) for one in (source, destination)]
        return Echo(ends[0], ends[1], sequence, body)
    if kind not in (SOLICITATION, ADVERTISEMENT) or code or hops != _ND_HOPS or len(body) < 16:
        return None
    mac = _link_layer(body[16:], TARGET_LINK_LAYER if kind == ADVERTISEMENT else SOURCE_LINK_LAYER)
    if kind == ADVERTISEMENT:
        return _claim6(body[:16], mac or frame[6:12])
    if source == _ANY6:
        sender = frame[6:12]
        return Wish(socket.inet_ntop(socket.AF_INET6, body[:16]), sender.hex(":")) if _is_somebody(sender) else None
    return None if mac is None else _claim6(source, mac)


def _claim6(address: bytes, mac: bytes) -> Claim | None:
    if not _is_somebody(mac) or address == _ANY6 or address[0] == 0xFF:
        return None
    return Claim(socket.inet_ntop(socket.AF_INET6, address), mac.hex(":"))


def _link_layer(options: bytes, wanted: int) -> bytes | None:
    """The link-layer address among the options of neighbour discovery (RFC 4861, 4.6)."""
    while len(options) >= 8:
        kind, size = options[0], options[1] * 8
        if size == 0:
            return None
        if kind == wanted and size == 8:
            return options[2:8]
        options = options[size:]
    return None


# -- parts -------------------------------------------------------------------------------------------------------------


def _is_somebody(mac: bytes) -> bool:
    return not mac[0] & 1 and mac != bytes(6)


def _bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def _packed(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def _ethernet(to: str, mac: str, kind: int) -> bytes:
    return _ETHERNET.pack(_bytes(to), _bytes(mac), kind)


def _option(kind: int, mac: str) -> bytes:
    return bytes((kind, 1)) + _bytes(mac)


def _ipv6(source: bytes, destination: bytes, body: bytes, hops: int) -> bytes:
    """An IPv6 packet of ICMPv6, its checksum filled in (RFC 4443, 2.3)."""
    pseudo = source + destination + struct.pack("!II", len(body), ICMPV6)
    return _IPV6.pack(6 << 28, len(body), ICMPV6, hops, source, destination) + _with_checksum(body, pseudo)


def _with_checksum(body: bytes, pseudo: bytes) -> bytes:
    return body[:2] + _checksum(pseudo + body) + body[4:]


def _checksum(data: bytes) -> bytes:
    """The Internet checksum (RFC 1071)."""
    data += bytes(len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", ~total & 0xFFFF)
