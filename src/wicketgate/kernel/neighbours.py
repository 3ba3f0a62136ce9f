"""Sockets on a link that hosts share: who is there, under which link-layer address, and who claims what.

A `Tap` sees a device before any rule does, ARP, neighbour discovery and answers to its own echo requests alone: the
kernel filters all else away, at some 100 ns a packet, and whatever the link sends, what waits to be read is bounded.
What is sent by it makes no entry in the kernel's neighbour table, of which the whole host has one with room for 1024
by default.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import socket
import struct
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Final

from wicketgate.kernel import netns
from wicketgate.kernel.descriptors import out_of_the_way
from wicketgate.kernel.neighbour_frames import (
    ADVERTISEMENT,
    ECHO_REPLY,
    ECHO_REPLY6,
    ETH_P_ARP,
    ETH_P_IP,
    ETH_P_IPV6,
    ICMP,
    ICMPV6,
    SOLICITATION,
    Echo,
    arp_request,
    read,
    solicitation,
)
from wicketgate.model import FabricError

PROBES: Final = 3
"""How often an address is asked for before it is taken (RFC 5227, PROBE_NUM)."""

_ETH_P_ALL = 0x0003
_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, _PACKET_STATISTICS, _PACKET_IGNORE_OUTGOING = 263, 1, 6, 23
_PACKET_MR_MULTICAST = 0
_SO_ATTACH_FILTER = 26
_ALL_NODES: Final = bytes.fromhex("333300000001")
"""Where answers to duplicate address detection of IPv6 go (RFC 4861, 7.2.4)."""
_WAITING: Final = 256 << 10
"""Bytes of frames that wait to be read, which the kernel doubles: some 600 of them. What comes beyond is lost."""
_SNAP: Final = 256
"""Bytes read of a frame: more than any that is of interest has."""


class Tap:
    """A packet socket (packet(7)) on a device of a namespace. Close it."""

    def __init__(self, namespace: str, device: str, identifier: int) -> None:
        """`identifier`: of the echo requests whose answers are of interest. Raises FabricError."""
        self.lost = 0
        """Frames that found no room since the beginning, as far as they are known."""
        with _worded(f"cannot listen to {device} in namespace {namespace}"):
            kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
            with netns.entered(namespace):
                index = socket.if_nametoindex(device)
                self._socket = out_of_the_way(socket.socket(socket.AF_PACKET, kind, 0))
            try:
                self._prepare(device, index, identifier)
            except OSError:
                self._socket.close()
                raise

    def _prepare(self, device: str, index: int, identifier: int) -> None:
        self._socket.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)  # what we send passes it without a copy
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _WAITING)
        _attach(self._socket, identifier)
        self._socket.bind((device, _ETH_P_ALL))  # after the filter, so that nothing else ever waits to be read
        wanted = struct.pack("=iHH8s", index, _PACKET_MR_MULTICAST, len(_ALL_NODES), _ALL_NODES)
        self._socket.setsockopt(_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, wanted)

    def fileno(self) -> int:
        """For a selector: readable when there is something to read."""
        return self._socket.fileno()

    @property
    def mac(self) -> str:
        """The device's link-layer address at the moment. Raises FabricError."""
        with _worded("cannot read a link-layer address"):
            name = self._socket.getsockname()
        hardware = name[4]
        assert isinstance(hardware, bytes), "of a packet socket"
        return hardware.hex(":")

    def send(self, frame: bytes) -> bool:
        """Send a frame; False when it could not be: the device is down, or its queue full."""
        try:
            return self._socket.send(frame) == len(frame)
        except OSError:
            return False

    def read(self, most: int) -> list[bytes]:
        """Up to that many frames; the rest can be read after. Raises FabricError when the device is gone or down."""
        found: list[bytes] = []
        while len(found) < most:
            try:
                found.append(self._socket.recv(_SNAP))
            except BlockingIOError:
                break
            except OSError as error:
                raise FabricError(f"a link that was listened to: {os.strerror(error.errno or 0)}") from error
        self._count_lost()
        return found

    def _count_lost(self) -> None:
        told = self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)  # counts from the last time it was asked
        self.lost += struct.unpack("=II", told)[1]

    def close(self) -> None:
        """Hear no more."""
        self._socket.close()


class Sender:
    """Sends whole IP packets by a namespace's own routes, under whatever source (raw(7), IPPROTO_RAW). Close it."""

    def __init__(self, namespace: str) -> None:
        """Raises FabricError."""
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        with _worded(f"cannot send from namespace {namespace}"), netns.entered(namespace):
            self._four = socket.socket(socket.AF_INET, kind, socket.IPPROTO_RAW)
            self._six = socket.socket(socket.AF_INET6, kind, socket.IPPROTO_RAW)

    def send(self, packet: bytes, destination: str) -> bool:
        """Whether it could be sent."""
        sock = self._six if ":" in destination else self._four
        try:
            return sock.sendto(packet, (destination, 0)) == len(packet)
        except OSError:
            return False

    def close(self) -> None:
        """Send no more."""
        self._four.close()
        self._six.close()


def in_use(namespace: str, device: str, addresses: Collection[str], seconds: float) -> dict[str, str]:
    """Which of some addresses somebody on the link has, each with the link-layer address of who says so.

    Asked for three times within `seconds`, all at once (RFC 5227 2.1.1, RFC 4862 5.4, which wait for seconds). Who is
    about to take one counts as having it. The device's own link-layer address never counts. Raises FabricError.
    """
    found: dict[str, str] = {}
    if not addresses:
        return found
    tap = Tap(namespace, device, 0)
    try:
        started = time.monotonic()
        for turn in range(PROBES):
            own = tap.mac
            for address in sorted(set(addresses) - found.keys()):
                tap.send(solicitation(own, address) if ":" in address else arp_request(own, address))
            _gather(tap, own, addresses, found, started + seconds * (turn + 1) / PROBES)
    finally:
        tap.close()
    return found


def _gather(tap: Tap, own: str, addresses: Collection[str], found: dict[str, str], until: float) -> None:
    """Note who has which, up to a time of the monotonic clock or until all are known."""
    poll = select.poll()
    poll.register(tap, select.POLLIN)
    while len(found) < len(set(addresses)) and (left := until - time.monotonic()) > 0:
        if not poll.poll(left * 1000):
            return
        for frame in tap.read(100):
            said = read(frame)
            if said is not None and not isinstance(said, Echo) and said.mac != own and said.address in addresses:
                found.setdefault(said.address, said.mac)


# -- the filter --------------------------------------------------------------------------------------------------------

_LDH, _LDB, _LDH_X, _LDB_X, _LDX_HEADER = 0x28, 0x30, 0x48, 0x50, 0xB1
_JEQ, _JSET, _RET = 0x15, 0x45, 0x06
_ACCEPT, _REFUSE = "accept", "refuse"

Step = tuple[int, int, str | None, str | None]
"""Code, operand, and where a jump leads: if so, if not; None = on."""


def _program(identifier: int) -> list[tuple[str | None, Step]]:
    """What passes, as classic BPF (Documentation/networking/filter.rst): (label, step)."""
    return [
        (None, (_LDH, 12, None, None)),
        (None, (_JEQ, ETH_P_ARP, _ACCEPT, None)),
        (None, (_JEQ, ETH_P_IP, "four", None)),
        (None, (_JEQ, ETH_P_IPV6, "six", _REFUSE)),
        ("four", (_LDB, 23, None, None)),
        (None, (_JEQ, ICMP, None, _REFUSE)),
        (None, (_LDH, 20, None, None)),
        (None, (_JSET, 0x3FFF, _REFUSE, None)),  # no fragments
        (None, (_LDX_HEADER, 14, None, None)),
        (None, (_LDB_X, 14, None, None)),
        (None, (_JEQ, ECHO_REPLY, None, _REFUSE)),
        (None, (_LDH_X, 18, None, None)),
        (None, (_JEQ, identifier, _ACCEPT, _REFUSE)),
        ("six", (_LDB, 20, None, None)),
        (None, (_JEQ, ICMPV6, None, _REFUSE)),
        (None, (_LDB, 54, None, None)),
        (None, (_JEQ, SOLICITATION, _ACCEPT, None)),
        (None, (_JEQ, ADVERTISEMENT, _ACCEPT, None)),
        (None, (_JEQ, ECHO_REPLY6, None, _REFUSE)),
        (None, (_LDH, 58, None, None)),
        (None, (_JEQ, identifier, _ACCEPT, _REFUSE)),
        (_ACCEPT, (_RET, _SNAP, None, None)),
        (_REFUSE, (_RET, 0, None, None)),
    ]


def assembled(identifier: int) -> list[tuple[int, int, int, int]]:
    """The filter as `struct sock_filter` has it: code, how far to jump if so and if not, operand."""
    program = _program(identifier)
    places = {label: at for at, (label, _) in enumerate(program) if label is not None}

    def far(at: int, label: str | None) -> int:
        return 0 if label is None else places[label] - at - 1

    return [(code, far(at, so), far(at, no), k) for at, (_, (code, k, so, no)) in enumerate(program)]


def _attach(sock: socket.socket, identifier: int) -> None:
    steps = assembled(identifier)
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(steps), ctypes.addressof(code)))


@contextmanager
def _worded(what: str) -> Iterator[None]:
    """OSError as FabricError. It bears no number when there is no device of a name."""
    try:
        yield
    except OSError as error:
        raise FabricError(f"{what}: {os.strerror(error.errno or errno.ENODEV)}") from error
