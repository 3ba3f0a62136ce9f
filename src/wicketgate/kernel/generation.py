"""Which generation of a namespace's nftables ruleset is ours.

The kernel numbers the transactions of a namespace, whoever sends them (NFT_MSG_GETGEN). Where its number is not that of
our last one, somebody else has changed the ruleset: of that our own mark in it says nothing. The number is noted as the
alias of the namespace's loopback device: there a process without memory finds it, and it ends with the namespace.
"""

from __future__ import annotations

import socket
import struct
from typing import Final

from wicketgate.kernel import netns
from wicketgate.model import FabricError

RTM_GETLINK, RTM_SETLINK = 18, 19
NLMSG_ERROR = 2
NLM_F_REQUEST, NLM_F_ACK = 0x1, 0x4
IFLA_IFALIAS: Final = 20
LOOPBACK: Final = 1
"""Its index in every namespace."""
MODULUS: Final = 1 << 32
"""The kernel's number begins again after that many."""

_ALIAS: Final = "generation|"
_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")
_ATTRIBUTE = struct.Struct("=HH")


def note(namespace: str, number: int) -> None:
    """This generation of the namespace's ruleset is ours. Raises FabricError."""
    text = f"{_ALIAS}{number}".encode()
    alias = _ATTRIBUTE.pack(_ATTRIBUTE.size + len(text), IFLA_IFALIAS) + text + bytes(-len(text) % 4)
    _ask(namespace, RTM_SETLINK, NLM_F_ACK, _LINK.pack(socket.AF_UNSPEC, 0, LOOPBACK, 0, 0) + alias)


def noted(namespace: str) -> int | None:
    """The generation that was noted last; None when none was. Raises FabricError."""
    data = _ask(namespace, RTM_GETLINK, 0, _LINK.pack(socket.AF_UNSPEC, 0, LOOPBACK, 0, 0))
    data = data[_LINK.size :]
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        text = data[_ATTRIBUTE.size : length].rstrip(b"\0").decode(errors="replace")
        if kind == IFLA_IFALIAS and text.startswith(_ALIAS) and text.removeprefix(_ALIAS).isdecimal():
            return int(text.removeprefix(_ALIAS))
        data = data[(length + 3) & ~3 :]
    return None


def _ask(namespace: str, kind: int, flags: int, body: bytes) -> bytes:
    """The body of the answer; empty for an acknowledgement."""
    try:
        with netns.entered(namespace):
            netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        with netlink:
            netlink.send(_HEADER.pack(_HEADER.size + len(body), kind, NLM_F_REQUEST | flags, 1, 0) + body)
            answer = netlink.recv(1 << 16)
    except OSError as error:
        raise FabricError(f"generation of the rules in namespace {namespace}: {error.strerror}") from error
    length, kind, _, _, _ = _HEADER.unpack_from(answer)
    if kind != NLMSG_ERROR:
        return answer[_HEADER.size : length]
    (number,) = struct.unpack_from("=i", answer, _HEADER.size)
    if number:
        raise FabricError(f"generation of the rules in namespace {namespace}: errno {-number}")
    return b""
