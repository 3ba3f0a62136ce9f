"""A fabric in the kernel with a packet socket at every machine's interface: what tests send and see by hand."""

import errno
import select
import socket
import struct
import time
from contextlib import ExitStack
from itertools import count

import msgspec

from tests.net.packets import Wire
from wicketgate import rules
from wicketgate.kernel import ip, netns
from wicketgate.kernel.conntrack import NETLINK_NETFILTER
from wicketgate.kernel.dial import dial
from wicketgate.kernel.fabric import Fabric
from wicketgate.kernel.nftables import Nftables
from wicketgate.model import World

AT_ONCE = 40
"""Packets to send before reading what came: no socket's buffer holds many more."""
SETTLE, PATIENCE = 0.02, 2.0
"""Seconds to wait for what should not come, and at most for what should."""

DIAL_SETTLE = 0.06
"""The same for connections: within that time one between two namespaces is there, or the host is busy."""
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER with no time: closing sends a reset and leaves nothing behind."""

SILENCE = """
table inet silence
delete table inet silence
table inet silence {
  chain input {
    type filter hook input priority 0; policy drop;
    icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
    meta l4proto tcp th sport 32768-65535 accept
    ct state established tcp dport 32768-65535 accept
  }
}
"""
"""The machines hear neighbour discovery and what sockets send, so that nobody answers packets made by hand."""

NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_DELETE = 1, 2
NLM_F_REQUEST, NLM_F_ACK = 0x1, 0x4


class Rig:
    """Puts Worlds in force, sends packets and tells where they arrived."""

    def __init__(self, compile_vpc=rules.compile_vpc):
        self._compile_vpc = compile_vpc
        self._fabric = Fabric(compile_vpc)
        self._revisions = count(1)
        self._numbers = count(1)
        self._wires = {}
        self._places = None

    def close(self):
        """Remove everything from the kernel."""
        self._unplug()
        self._fabric.close()
        cleaner = Fabric()
        cleaner.apply(World())
        cleaner.close()

    def apply(self, made):
        """Put a World in force; returns its rulesets by VPC."""
        made = msgspec.structs.replace(made, revision=next(self._revisions))
        self._fabric.apply(made)
        places = [(eni.link, eni.addresses, namespace_of(made, eni), eni.subnet_id) for eni in made.interfaces]
        if places != self._places:
            self._unplug()
            for vpc in made.vpcs:
                self._plug(made, vpc.id)
            self._places = places
        return {vpc.id: rules.compile_vpc(made, vpc.id) for vpc in made.vpcs}

    def _plug(self, made, vpc_id):
        macs = {link["ifname"]: link["address"] for link in ip.read(vpc_id, "link", "show") if "address" in link}
        for eni in made.interfaces_of_vpc(vpc_id):
            namespace = namespace_of(made, eni)
            if made.endpoint_of_interface(eni.id) is None:
                _silence(namespace)
            self._wires[eni.link] = Wire(namespace, f"eth{eni.device_index}", macs[eni.link])

    def _unplug(self):
        for wire in self._wires.values():
            wire.close()
        self._wires.clear()

    def counters(self, made):
        """All counters by (VPC, name)."""
        return {(vpc.id, name): n for vpc in made.vpcs for name, n in self._fabric.counters(vpc.id).items()}

    def fire(self, shots):
        """Send the packets of (link, packets made from a number, link where it should arrive or None) in order.

        Returns for each the set of links where it was seen; the sender's among them when it got an ICMP error.
        """
        seen = {}
        expected = {}
        numbers = []
        for link, packets, arrives in shots:
            numbers.append(next(self._numbers))
            if arrives:
                expected[numbers[-1]] = arrives
            for packet in packets(numbers[-1]):
                self._wires[link].send(packet)
            if len(numbers) % AT_ONCE == 0:
                self._wait(seen, {}, settle=0)
        self._wait(seen, expected, settle=SETTLE)
        return [seen.get(number, set()) for number in numbers]

    def _wait(self, seen, expected, settle):
        """Note in `seen`, number -> links, what has come: until all that is expected has, and nothing more comes."""
        links = {wire.fileno(): link for link, wire in self._wires.items()}
        poll = select.poll()
        for descriptor in links:
            poll.register(descriptor, select.POLLIN)
        missing = {number: link for number, link in expected.items() if link not in seen.get(number, ())}
        deadline = time.monotonic() + PATIENCE
        while True:
            wait = settle if not missing else max(0.0, deadline - time.monotonic())
            ready = poll.poll(wait * 1000)
            if not ready:
                return
            for descriptor, _ in ready:
                link = links[descriptor]
                for number in self._wires[link].received():
                    seen.setdefault(number, set()).add(link)
                    if missing.get(number) == link:
                        del missing[number]


def connect(made, attempts):
    """Connect with real sockets, all at once: (sender, source address, borrowed or not, destination, port, whether
    there should be an answer) each.

    Returns for each "connected", the name of an errno, or "nothing" within the wait. Nothing is left of them.
    """
    with ExitStack() as stack:
        _listen(stack, made, {port for *_, port, _ in attempts})
        socks = []
        for sender, source, borrowed, destination, port, _ in attempts:
            addresses = (source, None) if borrowed else (None, source)
            sock, number = dial(namespace_of(made, sender), destination, port, *addresses)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            socks.append((stack.enter_context(sock), number))
        poll = select.poll()
        waiting = {sock.fileno() for sock, number in socks if number == errno.EINPROGRESS}
        answered = {sock.fileno() for (sock, _), (*_, answer) in zip(socks, attempts, strict=True) if answer}
        for descriptor in waiting:
            poll.register(descriptor, select.POLLOUT)
        started = time.monotonic()
        while waiting and (left := started + (PATIENCE if waiting & answered else DIAL_SETTLE) - time.monotonic()) > 0:
            for descriptor, _ in poll.poll(min(left, DIAL_SETTLE) * 1000):
                poll.unregister(descriptor)
                waiting.discard(descriptor)
        return [_outcome(sock, number, sock.fileno() in waiting) for sock, number in socks]


def _outcome(sock, number, waiting):
    if waiting:
        return "nothing"
    number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) if number in (0, errno.EINPROGRESS) else number
    return errno.errorcode[number] if number else "connected"


def _listen(stack, made, ports):
    """TCP listeners for both families in every instance's namespace."""
    for instance in made.instances:
        with netns.entered(instance.id):
            for port in sorted(ports):
                listener = stack.enter_context(socket.socket(socket.AF_INET6, socket.SOCK_STREAM))
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind(("::", port))
                listener.listen(512)


def namespace_of(made, eni):
    """The namespace at the other end of an interface's link."""
    owner = made.endpoint_of_interface(eni.id) or made.instance_of_interface(eni.id)
    return eni.id.replace("eni-", "i-") if owner is None else owner.id


def _silence(namespace):
    nft = Nftables(namespace)
    try:
        nft.run(SILENCE)
    finally:
        nft.close()


def forget_flows(made):
    """Empty connection tracking in every VPC, so that a World's flows meet none of the World before."""
    message = struct.pack(
        "=IHHII", 20, NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE, NLM_F_REQUEST | NLM_F_ACK, 1, 0
    )
    for vpc in made.vpcs:
        with netns.entered(vpc.id), socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as netlink:
            netlink.send(message + struct.pack("=BBH", socket.AF_UNSPEC, 0, 0))
            (answer,) = struct.unpack_from("=i", netlink.recv(4096), 16)
            assert answer == 0, f"connection tracking of {vpc.id} cannot be emptied: errno {-answer}"
