"""What there is to know about one network device, by rtnetlink: a tenth of a millisecond, where ip(8) takes two.

For what is looked at every second. (rtnetlink(7), linux/if_link.h)
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from wicketgate.kernel import netns
from wicketgate.model import FabricError

RTM_GETLINK, NLMSG_ERROR, NLM_F_REQUEST = 18, 2, 0x1
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER, IFLA_LINKINFO, IFLA_IFALIAS = 1, 3, 4, 5, 10, 18, 20
IFLA_INFO_KIND = 1
IFF_UP = 0x1
ARPHRD_ETHER = 1
NLA_TYPE_MASK = 0x3FFF

_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")
_ATTRIBUTE = struct.Struct("=HH")


@dataclass(frozen=True)
class Device:
    """A network device as it was when it was read."""

    name: str
    index: int
    kind: str
    """`bridge`, `veth`, `macvlan`, ...; empty for hardware."""
    up: bool
    ethernet: bool
    mac: str
    mtu: int
    master: int
    """Index of the bridge or bond that it is a part of; 0 for none."""
    lower: int
    """Index of the device that it is on, such as a macvlan's; 0 for none."""
    alias: str


def read(namespace: str, name: str) -> Device | None:
    """The device of a name in a namespace; None when there is none. Raises FabricError."""
    text = name.encode() + b"\0"
    body = _LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + _ATTRIBUTE.pack(_ATTRIBUTE.size + len(text), IFLA_IFNAME) + text
    body += bytes(-len(body) % 4)
    try:
        with netns.entered(namespace):
            netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        with netlink:
            netlink.send(_HEADER.pack(_HEADER.size + len(body), RTM_GETLINK, NLM_F_REQUEST, 1, 0) + body)
            answer = netlink.recv(1 << 16)
    except OSError as error:
        raise FabricError(f"link {name} in namespace {namespace}: {error.strerror}") from error
    length, kind, _, _, _ = _HEADER.unpack_from(answer)
    if kind != NLMSG_ERROR:
        return _device(answer[_HEADER.size : length])
    number = -int(struct.unpack_from("=i", answer, _HEADER.size)[0])
    if number == errno.ENODEV:
        return None
    raise FabricError(f"link {name} in namespace {namespace}: {os.strerror(number)}")


def _device(body: bytes) -> Device:
    _, hardware, index, flags, _ = _LINK.unpack_from(body)
    given = dict(_attributes(body[_LINK.size :]))
    kind = dict(_attributes(given.get(IFLA_LINKINFO, b""))).get(IFLA_INFO_KIND, b"")
    return Device(
        name=_text(given[IFLA_IFNAME]),
        index=index,
        kind=_text(kind),
        up=bool(flags & IFF_UP),
        ethernet=hardware == ARPHRD_ETHER,
        mac=given.get(IFLA_ADDRESS, b"").hex(":"),
        mtu=_number(given.get(IFLA_MTU, bytes(4))),
        master=_number(given.get(IFLA_MASTER, bytes(4))),
        lower=_number(given.get(IFLA_LINK, bytes(4))),
        alias=_text(given.get(IFLA_IFALIAS, b"")),
    )


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")


def _number(value: bytes) -> int:
    return int(struct.unpack("=I", value)[0])


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        yield kind & NLA_TYPE_MASK, data[_ATTRIBUTE.size : length]
        data = data[(length + 3) & ~3 :]
