"""What a packet costs in the VPC's router: the ruleset beside accept-all and beside one linear rule per group rule.

    instance i0 ── router of the VPC ── the last instance

`Fabric` makes routers with 10, 100 and 1,000 network interfaces. In each the ruleset is exchanged round by round, and
what is reported is the difference to accept-all with connection tracking, in the same router and round. A packet that
i0 sends is routed, judged and received inside its system call: the time of a sendmmsg(2) of thousands of them is the
kernel's whole work on their way.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import rules_world
from wicketgate import rules
from wicketgate.kernel import netns
from wicketgate.kernel.fabric import Fabric
from wicketgate.kernel.nftables import Nftables
from wicketgate.model import World

SIZES = (10, 100, 1000)
"""Network interfaces in a VPC."""
MANY_GROUPS = 16
ESTABLISHED_PORT = rules_world.PORTS[0]
"""The destination of the one flow that is established; fresh ones go to the ports behind it."""
LOADS = {"60": (60, 1, False), "1000": (1000, MANY_GROUPS, False), "1000 near": (1000, MANY_GROUPS, True)}
"""Effective inbound rules of the receiver -> rules, groups, and whether all rules let the packet's source in."""
RECEIVER_RULES = f"""
table inet receiver {{
  chain prerouting {{
    type filter hook prerouting priority -400;
    udp dport {ESTABLISHED_PORT + 1}-{rules_world.PORTS[1]} drop
  }}
}}
"""
"""Without connection tracking and without an answer: what the receiver does is little, and always the same."""

_libc = ctypes.CDLL(None, use_errno=True)


# -- sending -----------------------------------------------------------------------------------------------------------


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_char_p), ("length", ctypes.c_size_t))


class _Header(ctypes.Structure):
    """struct msghdr (sendmsg(2))."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("name_length", ctypes.c_uint32),
        ("vectors", ctypes.POINTER(_Vector)),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Message(ctypes.Structure):
    """struct mmsghdr (sendmmsg(2))."""

    _fields_ = (("header", _Header), ("sent", ctypes.c_uint))


class Burst:
    """Datagrams of 64 bytes to one address, each to the next port, ready to be sent."""

    def __init__(self, address: str, ports: list[int]) -> None:
        self._vector = _Vector(bytes(64), 64)
        self.count = len(ports)
        self._messages = (_Message * self.count)()
        self._kept = [struct.pack("=H", socket.AF_INET) + struct.pack("!H", one) for one in ports]
        self._kept = [one + socket.inet_aton(address) + bytes(8) for one in self._kept]
        for message, name in zip(self._messages, self._kept, strict=True):
            message.header = _Header(name, len(name), ctypes.pointer(self._vector), 1)

    def send(self, sock: socket.socket) -> float:
        """Send all; returns seconds per datagram."""
        sent = 0
        started = time.perf_counter()
        while sent < self.count:
            number = min(1024, self.count - sent)
            done = _libc.sendmmsg(sock.fileno(), ctypes.byref(self._messages[sent]), number, 0)
            if done < 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            sent += done
        return (time.perf_counter() - started) / self.count


# -- rulesets ----------------------------------------------------------------------------------------------------------


def accept_all() -> str:
    """Connection tracking and nothing else."""
    return f"""
    add table inet {rules.TABLE}
    delete table inet {rules.TABLE}
    add table inet {rules.TABLE}
    add chain inet {rules.TABLE} forward {{ type filter hook forward priority 0; policy accept; }}
    add rule inet {rules.TABLE} forward ct state {{ established, related }} accept
    """


def linear(world: World) -> list[str]:
    """The straightforward translation: for each interface and each of its groups' rules, one rule."""
    table = f"inet {rules.TABLE}"
    lines = [f"add table {table}", f"delete table {table}", f"add table {table}", f"add chain {table} receive"]
    lines.append(f"add chain {table} forward {{ type filter hook forward priority 0; policy drop; }}")
    lines.append(f"add rule {table} forward ct state {{ established, related }} accept")
    for eni in world.interfaces:
        for group_id in eni.group_ids:
            group = world.group(group_id)
            assert group is not None
            lines += [f'add rule {table} forward iifname "{eni.link}" goto receive' for _ in group.outbound]
            lines += [
                f'add rule {table} receive oifname "{eni.link}" ip saddr {one.cidr_ipv4} '
                f"{one.ip_protocol} dport {one.from_port}-{one.to_port} accept"
                for one in group.inbound
            ]
    return lines


# -- a router ----------------------------------------------------------------------------------------------------------


@dataclass
class Router:
    """One VPC whose ruleset is exchanged, with the socket that sends through it."""

    size: int
    worlds: dict[str, World]
    """Effective rules -> the World."""
    nft: Nftables
    sender: socket.socket
    receiver: socket.socket
    sender_namespace: str
    receiver_namespace: str
    address: str

    @property
    def vpc(self) -> str:
        """The VPC."""
        return next(iter(self.worlds.values())).vpcs[0].id

    def load(self, variant: str) -> None:
        """Put a ruleset into force: `accept`, `ours N` or `linear N`, N being the effective rules."""
        kind, _, load = variant.partition(" ")
        if kind == "accept":
            self.nft.run(accept_all())
        elif kind == "linear":
            lines = linear(self.worlds[load])
            for first in range(0, len(lines), 300):  # so much fits whatever a socket sends at once
                self.nft.run("\n".join(lines[first : first + 300]))
        else:
            self.nft.carry_out(rules.loading(rules.compile_vpc(self.worlds[load], self.vpc)))

    def forget(self) -> None:
        """Empty the connection table (ctnetlink, IPCTNL_MSG_CT_DELETE without a tuple)."""
        with netns.entered(self.vpc):
            netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
        with netlink:
            netlink.send(struct.pack("=IHHIIBBH", 20, 1 << 8 | 2, 0x5, 1, 0, 0, 0, 0))
            netlink.recv(4096)

    def fresh(self, burst: Burst) -> float:
        """Microseconds of a flow's first packet."""
        self.forget()
        return burst.send(self.sender) * 1e6

    def established(self, burst: Burst) -> float:
        """Microseconds of a packet of a flow that was answered."""
        self.receiver.setblocking(False)
        while True:
            try:
                self.receiver.recvfrom(100)
            except BlockingIOError:
                break
        self.receiver.settimeout(2)
        self.sender.sendto(b"ask", (self.address, ESTABLISHED_PORT))
        _, asker = self.receiver.recvfrom(100)
        self.receiver.sendto(b"answer", asker)
        self.sender.settimeout(2)
        self.sender.recv(100)
        return burst.send(self.sender) * 1e6

    def throughput(self, seconds: int) -> float:
        """Gbit/s of one TCP stream, as iperf3 receives it."""
        server = ["iperf3", "-s", "-1", "-B", self.address]
        with netns.entered(self.receiver_namespace):
            listening = subprocess.Popen(server, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        with listening:
            time.sleep(0.2)
            command = ["iperf3", "-c", self.address, "-t", str(seconds), "-J"]
            with netns.entered(self.sender_namespace):
                done = subprocess.run(command, capture_output=True, text=True, check=False)
            listening.wait(10)
        try:
            return float(json.loads(done.stdout)["end"]["sum_received"]["bits_per_second"]) / 1e9
        except (KeyError, ValueError):
            raise RuntimeError(f"iperf3: {done.stdout[-500:]}{done.stderr}") from None


@contextmanager
def routers(sizes: tuple[int, ...]) -> Iterator[list[Router]]:
    """The VPCs, plugged in by Fabric, and gone again afterwards."""
    plans = {
        size: {
            load: rules_world.Vpcs(number).guarded(count, groups, size, near=near)
            for load, (count, groups, near) in LOADS.items()
        }
        for number, size in enumerate(sizes, start=1)
    }
    fabric = Fabric()
    fabric.apply(rules_world.together(worlds["60"] for worlds in plans.values()))
    made = [_router(size, worlds) for size, worlds in plans.items()]
    try:
        yield made
    finally:
        for one in made:
            one.nft.close()
            one.sender.close()
            one.receiver.close()
        fabric.apply(World())
        fabric.close()


def _router(size: int, worlds: dict[str, World]) -> Router:
    plan = worlds["60"]
    first, last = plan.instances[0].id, plan.instances[-1].id
    address = plan.interfaces[-1].private_ip_address
    with netns.entered(first):
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with netns.entered(last):
        receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)  # as small as can be: what comes is soon dropped
    receiver.bind((address, ESTABLISHED_PORT))
    nft = Nftables(last)
    nft.run(RECEIVER_RULES)
    nft.close()
    return Router(size, worlds, Nftables(plan.vpcs[0].id), sender, receiver, first, last, address)


# -- rounds ------------------------------------------------------------------------------------------------------------

Figures = dict[str, dict[str, list[float]]]
"""`SIZE VARIANT` -> `first`, `established` (microseconds) or `gbit` -> one value a round."""

TRIES = 10
"""Short bursts in a round, of which the quickest counts: what else the machine does only ever adds."""


def variants(size: int) -> list[str]:
    """The rulesets that are compared in a VPC of this size; a million linear rules are not tried."""
    found = ["accept", "ours 60", "ours 1000", "linear 60"]
    return [*found, "ours 1000 near", "linear 1000"] if size == SIZES[0] else found


def measure(rounds: int, packets: int, sizes: tuple[int, ...] = SIZES, *, seconds: int = 1) -> Figures:
    """All figures, interleaved. Packets are sent on one processor; TCP has all. `seconds` of TCP, 0 for none."""
    figures: Figures = {}
    processors = os.sched_getaffinity(0)
    with routers(sizes) as there:
        for _ in range(rounds):
            for router in there:
                for variant in variants(router.size):
                    router.load(variant)
                    found = figures.setdefault(f"{router.size} {variant}", {})
                    os.sched_setaffinity(0, {max(processors)})
                    for name, value in _packets(router, packets).items():
                        found.setdefault(name, []).append(value)
                    os.sched_setaffinity(0, processors)
                    if seconds and variant in TCP_VARIANTS and router.size in (sizes[0], sizes[-1]):
                        runs = [router.throughput(seconds) for _ in range(TCP_TRIES)]
                        found.setdefault("gbit", []).append(max(runs))
    return figures


TCP_VARIANTS = ("accept", "ours 60", "ours 1000")
TCP_TRIES = 2
"""Runs in a round, of which the quickest counts."""


def _packets(router: Router, packets: int) -> dict[str, float]:
    """First and established packet. Fewer are sent where each takes long."""
    gc.disable()
    slow = router.fresh(_bursts(router.address, 200)[0])
    first, same = _bursts(router.address, max(200, min(packets, int(packets * 50 / max(slow, 50)))))
    found = {
        "first": min(router.fresh(first) for _ in range(TRIES)),
        "established": min(router.established(same) for _ in range(TRIES)),
    }
    gc.enable()
    return found


def _bursts(address: str, count: int) -> tuple[Burst, Burst]:
    """Fresh flows, and one flow again and again."""
    ports = [ESTABLISHED_PORT + 1 + number for number in range(count)]
    return Burst(address, ports), Burst(address, [ESTABLISHED_PORT] * count)
