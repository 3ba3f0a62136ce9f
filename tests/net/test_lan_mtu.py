"""A machine behind a narrow way: the host's routes lead by a VPN whose MTU is less than the link's."""

import errno
import hashlib
import os
import socket
import struct
import subprocess
import sys
import time

import msgspec
import pytest

from tests.net import lan_rig
from tests.net.lan_rig import ip
from tests.net.packets import Ends, icmp, packet, tcp
from tests.net.test_lan import ENDPOINT, OURS, OURS6, VPC, lan, made
from wicketgate.kernel import netns
from wicketgate.kernel.dial import dial

__all__ = ["lan"]

FAR, FAR6 = "10.9.0.140", "fd09::1:140"
SIZE = 10 << 20
# Reads so much, tells its digest, and sends as much back.
SINK = """
import hashlib, socket, sys
with socket.create_server(("::", 22), family=socket.AF_INET6, dualstack_ipv6=True) as listener:
    print("ready", flush=True)
    while True:
        with listener.accept()[0] as peer:
            data = b""
            while len(data) < int(sys.argv[1]):
                data += peer.recv(1 << 20)
            peer.sendall(hashlib.sha256(data).digest() + data)
"""


@pytest.fixture
def vpn():
    """Makes two routers with a narrow link between them: `vpn` beside home, `exit` beside the machine `far`."""
    servers = []

    def make(mtu):
        for name in ("vpn", "exit", "far"):
            ip("netns add", name)
            ip("link set lo up", namespace=name)
        ip("link add up0 type veth peer name down0 netns vpn")
        ip("link add tun0 netns vpn type veth peer name tun0 netns exit")
        ip("link add lan0 netns exit type veth peer name eth0 netns far")
        for device, namespace, four, six in (
            ("up0", None, "192.0.2.1/30", "2001:db8:1::1/64"),
            ("down0", "vpn", "192.0.2.2/30", "2001:db8:1::2/64"),
            ("tun0", "vpn", "192.0.2.5/30", "2001:db8:2::1/64"),
            ("tun0", "exit", "192.0.2.6/30", "2001:db8:2::2/64"),
            ("lan0", "exit", "192.0.2.9/30", "2001:db8:3::1/64"),
            ("eth0", "far", "192.0.2.10/30", "2001:db8:3::2/64"),
        ):
            ip("link set", device, "up", *([f"mtu {mtu}"] if device == "tun0" else []), namespace=namespace)
            ip("addr add", four, "dev", device, namespace=namespace)
            ip("addr add", six, "dev", device, "nodad", namespace=namespace)
        for name in ("vpn", "exit"):
            lan_rig.inside(name, "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        for address, home in ((f"{FAR}/32", "192.0.2.2"), (f"{FAR6}/128", "2001:db8:1::2")):
            ip("addr add", address, "dev lo", namespace="far")
            ip("route add", address, "via", home)
        for name, four, six in (("vpn", "192.0.2.6", "2001:db8:2::2"), ("exit", "192.0.2.10", "2001:db8:3::2")):
            ip("route add", FAR, "via", four, namespace=name)
            ip("route add", FAR6, "via", six, namespace=name)
        for name, four, six in (
            ("vpn", "192.0.2.1", "2001:db8:1::1"),
            ("exit", "192.0.2.5", "2001:db8:2::1"),
            ("far", f"192.0.2.9 src {FAR}", f"2001:db8:3::1 src {FAR6}"),
        ):
            ip("route add default via", four, namespace=name)
            ip("route add default via", six, namespace=name)
        command = ["ip", "netns", "exec", "far", sys.executable, "-c", SINK, str(SIZE)]
        servers.append(subprocess.Popen(command, stdout=subprocess.PIPE))
        assert servers[0].stdout.readline() == b"ready\n"

    yield make
    for server in servers:
        server.kill()
        server.wait()
        server.stdout.close()
    for name in ("vpn", "exit", "far"):
        ip("netns del", name)


def registered():
    """The World with the machine behind the narrow way, at addresses of the subnet."""
    found = made([("far", 140, "web")])
    eni = next(one for one in found.interfaces if one.link == "far")
    moved = msgspec.structs.replace(eni, ipv6_addresses=(FAR6,))
    return msgspec.structs.replace(found, interfaces=tuple(moved if one is eni else one for one in found.interfaces))


@pytest.mark.parametrize("mtu", [1280, 1420])
@pytest.mark.parametrize("address", [FAR, FAR6])
def test_a_large_transfer(lan, vpn, mtu, address):
    """10 MB go both ways, for what the VPN's router says of too long packets is heard."""
    lan("routed", world=registered())
    vpn(mtu)
    data = os.urandom(SIZE)
    sock, number = dial(ENDPOINT, address, 22, None, OURS6 if ":" in address else OURS)
    with sock:
        assert number in (0, errno.EINPROGRESS)
        sock.setblocking(True)
        sock.settimeout(5)
        sock.sendall(data)
        got = b""
        while len(got) < SIZE + 32:
            got += sock.recv(1 << 20)
        mss = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
    assert (got[:32], got[32:]) == (hashlib.sha256(data).digest(), data)
    assert mss < mtu


def listening(link):
    """A socket that sees what the VPC's router sends to a link."""
    with netns.entered(VPC):
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    tap.bind((link, 3))
    tap.setblocking(False)
    return tap


def seen(tap, part):
    """How many of the frames that it has seen have this part."""
    count = 0
    with tap:
        while True:
            try:
                count += part in tap.recv(2000)
            except BlockingIOError:
                return count


@pytest.mark.parametrize("address", [FAR, FAR6])
def test_a_forged_error_ends_nothing(lan, vpn, address):
    """Whoever knows addresses and ports of a connection, but not what it has just sent, can neither end nor narrow it;
    and an error about no connection, or for another member of the VPC than the packet's sender, leads nowhere."""
    lan("routed", world=registered())
    vpn(1420)
    six = ":" in address
    own = OURS6 if six else OURS
    sock, _ = dial(ENDPOINT, address, 22, None, own)
    with netns.entered("vpn"):
        raw = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    with sock, raw:
        sock.setblocking(True)
        sock.settimeout(5)
        sock.sendall(b"x")
        port, size = sock.getsockname()[1], sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
        router = "2001:db8:1::2" if six else "192.0.2.2"
        inner = "fd09:0:0:1::11" if six else "10.9.1.11"
        ip("route add", inner, "dev to-gate")
        taps = [listening("inner"), listening("endpoint")]
        for target in (own, inner):
            for ports in ((port, 22), (1, 2)):
                about = Ends(own, address, ports)
                quoted = packet(own, address, 6, tcp(about, 16, 0x7000_0000, 0, b""))
                kinds = ((1, 4, 0), (1, 1, 0), (2, 0, 1280)) if six else ((3, 3, 0), (3, 13, 0), (3, 4, 600))
                for kind, code, mtu in kinds:
                    ends = Ends(router, target)
                    said = icmp(ends, kind, code, struct.pack("!I", mtu), quoted)
                    raw.sendto(packet(router, target, 58 if six else 1, said), (target, 0))
        time.sleep(0.2)
        assert [seen(tap, struct.pack("!I", 0x7000_0000)) for tap in taps] == [0, 3], "those of the connection"
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) == size
        sock.sendall(bytes(SIZE - 1))
        assert sock.recv(32) == hashlib.sha256(b"x" + bytes(SIZE - 1)).digest()
