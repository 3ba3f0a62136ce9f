"""What no security group filters (VPC User Guide): with no rule at all it works, and nothing beside it does."""

import select
import socket
import struct

import msgspec
import pytest

from tests.net.families import datagram, family, raw_icmp, reach, six
from tests.net.flows import TCP, UDP, A, pair
from tests.net.packets import Ends, icmp, packet, udp
from tests.net.worlds import VPC
from wicketgate.kernel import ip, netns

pytestmark = pytest.mark.slow

ROUTER, ROUTER6, LINK_LOCAL = "10.0.1.1", "2001:db8:0:1::1", "fe80::1"
SERVICES = [
    ("169.254.169.254", TCP, 80),
    ("fd00:ec2::254", TCP, 80),
    ("10.0.0.2", UDP, 53),
    ("10.0.0.2", TCP, 53),
    ("169.254.169.253", UDP, 53),
    ("169.254.169.253", TCP, 53),
    ("fd00:ec2::253", UDP, 53),
    ("fd00:ec2::253", TCP, 53),
    ("169.254.169.123", UDP, 123),
    ("fd00:ec2::123", UDP, 123),
]


@pytest.fixture
def made(fabric):
    """Two machines whose groups allow nothing."""
    wanted = pair(4, [], [])
    fabric.apply(wanted)
    return wanted


def _wire(made, device="eth0"):
    """A's own end, to send and to see whole frames, and both hardware addresses."""
    a = made.instances[0].id
    with netns.entered(a):
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    sock.bind((device, 3))
    (own,) = ip.read(a, "link", "show", "dev", device)
    (router,) = ip.read(VPC, "link", "show", "dev", "a")
    return sock, *(bytes.fromhex(one["address"].replace(":", "")) for one in (own, router))


def _link_local(made):
    """A's own link-local address."""
    there = ip.read(made.instances[0].id, "-6", "address", "show", "dev", "eth0", "scope", "link")
    (address,) = (one["local"] for link in there if link for one in link["addr_info"] if one)
    return address


def _comes(sock, wanted, seconds=0.5):
    """Whether something that is wanted comes within a moment."""
    while select.select([sock], [], [], seconds)[0]:
        if wanted(sock.recv(2048)):
            return True
    return False


# -- services ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("address", "kind", "port"), SERVICES)
def test_services_are_reached(made, address, kind, port):
    """A server at the service's address in the VPC hears and is heard; at the port beside it, nobody is."""
    own = six(A) if ":" in address else A
    if kind == UDP:
        with datagram(VPC, address, port) as server, datagram(made.instances[0].id, own) as sock:
            sock.connect((address, port))
            sock.send(b"question")
            question, peer = server.recvfrom(64)
            assert (question, peer[0]) == (b"question", own)
            server.sendto(b"answer", peer)
            assert sock.recv(64) == b"answer"
        with datagram(VPC, address, port + 1) as server, datagram(made.instances[0].id, own) as sock:
            sock.sendto(b"question", (address, port + 1))
            server.settimeout(0.2)
            with pytest.raises(TimeoutError):
                server.recv(64)
        return
    with netns.entered(VPC):
        servers = [socket.create_server((address, number), family=family(address)) for number in (port, port + 1)]
    with servers[0], servers[1]:
        assert reach(made.instances[0].id, address, port) == "connected"
        assert reach(made.instances[0].id, address, port + 1) == "nothing"


def test_the_router_itself_says_nothing(made):
    """Its addresses take no connection and answer no ping, though somebody listens: they are there to be routed by."""
    for address in (ROUTER, ROUTER6):
        with netns.entered(VPC):
            server = socket.create_server((address, 22), family=family(address))
        with server:
            assert reach(made.instances[0].id, address, 22) == "nothing"
        version = 6 if ":" in address else 4
        kind, answer = (128, 129) if version == 6 else (8, 0)
        own = six(A) if version == 6 else A
        with raw_icmp(made.instances[0].id, version) as sock:
            sock.sendto(icmp(Ends(own, address), kind, 0, bytes(4), b"ping"), (address, 0))
            assert not _comes(sock, lambda heard, place=0 if version == 6 else 20, kind=answer: heard[place] == kind)


# -- DHCP --------------------------------------------------------------------------------------------------------------


def test_dhcp(made):
    """A machine without an address asks everybody, and one with an address the router (RFC 2131); no other port."""
    with netns.entered(VPC):
        server, other = (socket.socket(type=socket.SOCK_DGRAM) for _ in range(2))
    wire, own, router = _wire(made)
    with server, other, wire:
        server.bind(("", 67))
        other.bind(("", 68))
        everyone = Ends("0.0.0.0", "255.255.255.255", (68, 67))
        for ends, mac in ((everyone, b"\xff" * 6), (Ends(A, ROUTER, (68, 67)), router)):
            whole = packet(ends.source, ends.destination, 17, udp(ends, b"discover"))
            wire.send(mac + own + b"\x08\x00" + whole)
            server.settimeout(1)
            assert server.recv(64) == b"discover"
        beside = Ends(everyone.source, everyone.destination, (67, 68))
        wire.send(b"\xff" * 6 + own + b"\x08\x00" + packet(beside.source, beside.destination, 17, udp(beside, b"x")))
        other.settimeout(0.2)
        with pytest.raises(TimeoutError):
            other.recv(64)


def test_dhcpv6(made):
    """The same by multicast from a link-local address (RFC 8415)."""
    with netns.entered(VPC):
        server, other = (socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) for _ in range(2))
        index = socket.if_nametoindex("a")
    group = struct.pack("16sI", socket.inet_pton(socket.AF_INET6, "ff02::1:2"), index)
    with server, other:
        for sock, port in ((server, 547), (other, 548)):
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group)
            sock.bind(("::", port))
        with netns.entered(made.instances[0].id):
            client = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
            scope = socket.if_nametoindex("eth0")
        with client:
            client.bind((_link_local(made), 546, 0, scope))
            for port in (547, 548):
                client.sendto(b"solicit", ("ff02::1:2", port, 0, scope))
        server.settimeout(1)
        assert server.recv(64) == b"solicit"
        other.settimeout(0.2)
        with pytest.raises(TimeoutError):
            other.recv(64)


# -- neighbours and routers --------------------------------------------------------------------------------------------


def _solicitation(source, target, mac):
    """A neighbour solicitation to the target's multicast address (RFC 4861)."""
    packed = socket.inet_pton(socket.AF_INET6, target)
    destination = socket.inet_ntop(socket.AF_INET6, bytes.fromhex("ff0200000000000000000001ff") + packed[13:])
    body = icmp(Ends(source, destination), 135, 0, bytes(4), packed + b"\x01\x01" + mac)
    return packet(source, destination, 58, body, hops=255)


def test_the_router_is_found_by_its_address(made):
    """A neighbour solicitation is answered with the router's hardware address, from any of a's addresses."""
    wire, own, router = _wire(made)
    with wire:
        for source in (six(A), _link_local(made)):
            wire.send(b"\x33\x33\xff\x00\x00\x01" + own + b"\x86\xdd" + _solicitation(source, LINK_LOCAL, own))
            packed = socket.inet_pton(socket.AF_INET6, LINK_LOCAL)
            found = []

            def advertises(frame, packed=packed, found=found):
                return frame[54:55] == b"\x88" and frame[62:78] == packed and not found.append(frame[80:86])

            assert _comes(wire, advertises)
            assert found == [router]


@pytest.mark.parametrize("target", [ROUTER, "10.0.1.12", "10.0.1.99"])
def test_arp_is_answered_by_the_router(made, target):
    """For itself and for everything else of the subnet: whoever asks sends to the router, which judges."""
    wire, own, router = _wire(made)
    ask = b"\x00\x01\x08\x00\x06\x04\x00\x01" + own + socket.inet_aton(A) + bytes(6) + socket.inet_aton(target)
    with wire:
        wire.send(b"\xff" * 6 + own + b"\x08\x06" + ask)

        def answers(frame):
            return (
                frame[12:14] == b"\x08\x06" and frame[20:22] == b"\x00\x02" and frame[28:32] == socket.inet_aton(target)
            )

        found = []
        assert _comes(wire, lambda frame: answers(frame) and not found.append(frame[22:28]))
        assert found == [router]


@pytest.mark.parametrize("kind", [133, 135, 136, 143, 131])
def test_the_router_hears(made, kind):
    """Router solicitations, neighbour discovery and reports of multicast listeners come in without a rule."""
    source = _link_local(made)
    destination = "ff02::2" if kind == 133 else "ff02::16" if kind == 143 else LINK_LOCAL
    body = bytes(4) + bytes(16)
    with raw_icmp(VPC, 6) as router, raw_icmp(made.instances[0].id, 6) as sock:
        with netns.entered(VPC):
            index = socket.if_nametoindex("a")
        if destination.startswith("ff"):
            group = struct.pack("16sI", socket.inet_pton(socket.AF_INET6, destination), index)
            router.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group)
        with netns.entered(made.instances[0].id):
            scope = socket.if_nametoindex("eth0")
        sock.bind((source, 0, 0, scope))
        for option in (socket.IPV6_UNICAST_HOPS, socket.IPV6_MULTICAST_HOPS):
            sock.setsockopt(socket.IPPROTO_IPV6, option, 255)
        sock.sendto(icmp(Ends(source, destination), kind, 0, body[:4], body[4:]), (destination, 0, 0, scope))
        assert _comes(router, lambda heard: heard[0] == kind)


def test_router_advertisements_arrive(made):
    """An operator's router advertisements reach the machines, whatever their rules; another machine's do not."""
    body = struct.pack("!BBH", 64, 0, 0) + bytes(8)  # no default router: nothing changes
    a, b = (one.id for one in made.instances)
    with raw_icmp(a, 6) as heard, raw_icmp(VPC, 6) as router, raw_icmp(b, 6) as neighbour:
        with netns.entered(VPC):
            scope = socket.if_nametoindex("a")
        router.bind((LINK_LOCAL, 0, 0, scope))
        router.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        router.sendto(icmp(Ends(LINK_LOCAL, "ff02::1"), 134, 0, body[:4], body[4:]), ("ff02::1", 0, 0, scope))
        assert _comes(heard, lambda message: message[0] == 134)
        with netns.entered(b):
            scope = socket.if_nametoindex("eth0")
        neighbour.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        for destination in ("ff02::1", six(A)):
            neighbour.sendto(
                icmp(Ends(six("10.0.1.12"), destination), 134, 0, body[:4], body[4:]), (destination, 0, 0, scope)
            )
        assert not _comes(heard, lambda message: message[0] == 134)


# -- and nothing else --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["169.254.170.2", "169.254.169.250", "169.254.169.1", "fd00:ec2::1"])
def test_other_link_local_services_are_nobodys(made, address):
    """AWS has task metadata and licence activation there; here nobody is, and rules do not open the way to it."""
    with datagram(VPC, address, 80) as server, datagram(made.instances[0].id, six(A) if ":" in address else A) as sock:
        sock.sendto(b"question", (address, 80))
        server.settimeout(0.2)
        with pytest.raises(TimeoutError):
            server.recv(64)


@pytest.mark.parametrize("checked", [True, False])
@pytest.mark.parametrize("address", ["10.0.1.99", "2001:db8:0:1::99"])
def test_destinations_are_checked(fabric, address, checked):
    """What is for an address that nobody has is given to nobody, whatever the groups say and though an interface has
    its source/destination check off: there are no routes to interfaces."""
    made = pair(6 if ":" in address else 4, [("out", "-1", (-1, -1), "any")], [("in", "-1", (-1, -1), "any")])
    interfaces = (msgspec.structs.replace(one, source_dest_check=checked) for one in made.interfaces)
    fabric.apply(msgspec.structs.replace(made, interfaces=tuple(interfaces)))
    with netns.entered(made.instances[1].id):
        ear = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
    with ear, datagram(made.instances[0].id, six(A) if ":" in address else A) as sock:
        sock.sendto(b"for nobody", (address, 9))
        assert not _comes(ear, lambda heard: b"for nobody" in heard)
        sock.sendto(b"for b", (six("10.0.1.12") if ":" in address else "10.0.1.12", 9))
        assert _comes(ear, lambda heard: b"for b" in heard)
