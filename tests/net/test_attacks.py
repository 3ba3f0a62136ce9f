"""What a hostile machine with a packet socket tries: to ride on flows of others, and to forge errors about them."""

import socket
import struct

import msgspec
import pytest

from tests.net.families import dual, rule6, six
from tests.net.packets import (
    ETH_P_ALL,
    ETH_P_IP,
    ETH_P_IPV6,
    ICMP,
    ICMPV6,
    UDP,
    Ends,
    checksum,
    fragments,
    icmp,
    packet,
    quoted,
    tag,
    udp,
)
from tests.net.rig import Rig
from tests.net.worlds import VPC, rule, world
from wicketgate.kernel import ip, netns
from wicketgate.model import Change, apply_change

VERSIONS = pytest.mark.parametrize("version", [4, 6])
NEAR = {4: "10.0.1.0/24", 6: "2001:db8:0:1::/64"}
A, B, C = "10.0.1.11", "10.0.1.12", "10.0.1.13"
PORTS = (4000, 9)
LOOSE_SOURCE_ROUTE = 131
"""An IPv4 option (RFC 791)."""
ETH_P_ARP = 0x0806
MANY = 1500
"""More than the neighbour table of a host holds by default (net.ipv4.neigh.default.gc_thresh3)."""


@pytest.fixture(name="rig")
def _rig():
    made = Rig()
    yield made
    made.close()


def _world(version, *, intruder=(), client=None, checked=True):
    """a may send UDP to port 9, b takes it, and c is in a group of its own with rules of (direction, protocol)."""

    def written(direction, protocol, ports=(-1, -1)):
        one = rule(direction, protocol, ports, NEAR[4])
        return one if version == 4 else rule6(one, NEAR[6])

    groups = {
        "endpoint": [],
        "client": [written("out", "udp", (9, 9))] if client is None else client,
        "server": [written("in", "udp", (9, 9))],
        "intruder": [written(*one) for one in intruder],
    }
    made = dual(world(groups, {"a": ["client"], "b": ["server"], "c": ["intruder"]}))
    eni = made.interface(made.instances[2].interface_id)
    return apply_change(made, Change(puts=(msgspec.structs.replace(eni, source_dest_check=checked),)))


def _address(text, version):
    return text if version == 4 else six(text)


def _ends(version, *, reply=False):
    ends = Ends(_address(A, version), _address(B, version), PORTS)
    return ends.swapped if reply else ends


def _says(version, *, reply=False):
    ends = _ends(version, reply=reply)
    return lambda number: [packet(ends.source, ends.destination, UDP, udp(ends, tag(number)))]


def _complains(version, source, *, reply):
    """An ICMP error, port unreachable, from `source` to whom opened the flow (`reply`) or to the other end."""

    def made(number):
        about = _ends(version, reply=not reply)
        (whole,) = _says(version, reply=not reply)(number)
        outer = Ends(_address(source, version), about.source)
        protocol, kind, code = (ICMP, 3, 3) if version == 4 else (ICMPV6, 1, 4)
        body = icmp(outer, kind, code, struct.pack("!I", 0), quoted(whole) + tag(number))
        return [packet(outer.source, outer.destination, protocol, body)]

    return made


@VERSIONS
def test_nobody_rides_on_a_flow_of_others(rig, version):
    """An interface without source check that may send nothing gets nothing into a flow of two others, in neither
    direction; with a rule of its own it does, as the receiver's side is tracked."""
    flow = [("a", _says(version), "b"), ("b", _says(version, reply=True), "a")]
    rig.apply(_world(version, checked=False))
    assert rig.fire(flow) == [{"b"}, {"a"}]
    assert rig.fire([("c", _says(version), None), ("c", _says(version, reply=True), None)]) == [set(), set()]
    assert rig.fire(flow) == [{"b"}, {"a"}]
    rig.apply(_world(version, checked=False, intruder=[("out", "-1")]))
    assert rig.fire([("c", _says(version), "b"), ("c", _says(version, reply=True), "a")]) == [{"b"}, {"a"}]


@VERSIONS
def test_nobody_opens_a_flow_for_others(rig, version):
    """What an interface without source check opens under another one's address is no flow of that one's: it may
    neither send in it nor hear the answers, which its own rules forbid."""
    made = _world(version, checked=False, intruder=[("out", "-1")], client=[])
    rig.apply(made)
    assert rig.fire([("a", _says(version), None)]) == [set()]
    assert rig.fire([("c", _says(version), "b")]) == [{"b"}]
    assert rig.fire([("b", _says(version, reply=True), None), ("a", _says(version), None)]) == [set(), set()]


@VERSIONS
def test_nobody_spoils_a_flow_of_others(rig, version):
    """What it sends under the initiator's address before there is an answer changes nothing for the initiator."""
    rig.apply(_world(version, checked=False, intruder=[("out", "-1")]))
    assert rig.fire([("a", _says(version), "b"), ("c", _says(version), "b")]) == [{"b"}, {"b"}]
    assert rig.fire([("b", _says(version, reply=True), "a")]) == [{"a"}]


@VERSIONS
def test_errors_are_of_the_ends(rig, version):
    """An ICMP error about a flow passes from its ends; from anybody else its sender's rules have to allow it."""
    flow = [("a", _says(version), "b"), ("b", _says(version, reply=True), "a")]
    rig.apply(_world(version))
    assert rig.fire(flow) == [{"b"}, {"a"}]
    assert rig.fire([("b", _complains(version, B, reply=True), "a")]) == [{"a"}]
    assert rig.fire([("a", _complains(version, A, reply=False), "b")]) == [{"b"}]
    forged = [("c", _complains(version, C, reply=True), None), ("c", _complains(version, C, reply=False), None)]
    assert rig.fire(forged) == [set(), set()]
    rig.apply(_world(version, intruder=[("out", "icmp" if version == 4 else "icmpv6")]))
    assert rig.fire([("c", _complains(version, C, reply=True), "a")]) == [{"a"}]


@VERSIONS
def test_fragments_of_others(rig, version):
    """A fragment under another one's address is forged by itself: it does not become part of a datagram of that one's
    when the rest of it comes from there."""
    made = _world(version)
    rig.apply(made)
    ends = _ends(version)

    def part(place, ahead):
        def made(number):  # the whole carries the number of the shot with its last part
            whole = packet(ends.source, ends.destination, UDP, udp(ends, tag(number + ahead) + bytes(40)))
            return fragments(whole, 0x1234)[place : place + 1]

        return made

    shots = [("c", part(0, 1), None), ("a", part(1, 0), None)]
    before = rig.counters(made)[VPC, "forged_source"]
    assert rig.fire(shots) == [set(), set()]
    assert rig.counters(made)[VPC, "forged_source"] == before + 1


HOP_BY_HOP = 0
UNKNOWN, JUMBO = b"\x80\x04\0\0\0\0", b"\xc2\x04\0\0\0\x64"
"""Options that Linux answers: one that it does not know, and too small a jumbogram (RFC 8200, RFC 2675)."""


@pytest.mark.parametrize("option", [UNKNOWN, JUMBO])
def test_options_under_a_false_address(rig, option):
    """What is wrong with a packet's options the router tells nobody, since it reads them before the source check."""
    rig.apply(_world(6))
    source = _ends(6).source
    ends = Ends(source, _ends(6).destination, PORTS)
    for sender in (source, _address(C, 6)):

        def forged(number, sender=sender):
            body = bytes((UDP, 0)) + option + udp(ends, tag(number))
            return [packet(sender, ends.destination, HOP_BY_HOP, body)]

        assert rig.fire([("c", forged, None)]) == [set()]


def test_source_routes(rig):
    """Rules are asked about the address that a packet bears, so by a source route none goes on elsewhere: also where
    the host takes such, whose settings a new namespace has."""
    router = "10.0.1.1"
    netns.create(VPC)
    ip.sysctl(VPC, {f"net/ipv4/conf/{one}/accept_source_route": "1" for one in ("all", "default")})
    rig.apply(_world(4, client=[rule("out", "udp", (9, 9), f"{router}/32")]))
    ends = Ends(A, router, PORTS)
    option = bytes((LOOSE_SOURCE_ROUTE, 7, 4)) + socket.inet_aton(B) + b"\0"

    def routed(number):
        whole = packet(A, router, UDP, udp(ends, tag(number)))
        head = bytes((0x47,)) + whole[1:2] + struct.pack("!H", len(whole) + len(option)) + whole[4:10] + bytes(2)
        head += whole[12:20] + option
        return [head[:10] + struct.pack("!H", checksum(head)) + head[12:] + whole[20:]]

    assert rig.fire([("a", routed, None)]) == [set()]


def _neighbours(version):
    return len(ip.read(VPC, f"-{version}", "neigh", "show", "nud", "all"))


def _flood(made, frame):
    """Send so many frames, made from a number and c's hardware address, from c's own end."""
    with netns.entered(made.instances[2].id):
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    with wire:
        wire.bind(("eth0", ETH_P_ALL))
        for number in range(MANY):
            wire.send(frame(number, wire.getsockname()[4]))


@pytest.mark.parametrize("operation", [1, 2])
def test_arp_under_false_addresses(rig, operation):
    """It makes no entries in the neighbour table, of which a host has one for all VPCs; others find each other.

    Requests (1), and replies that nobody asked for (2) and that tell of the sender itself.
    """
    made = _world(4)
    rig.apply(made)

    def frame(number, mac):
        source, target = socket.inet_aton(f"10.0.{2 + number // 250}.{number % 250 + 1}"), socket.inet_aton(A)
        target = socket.inet_aton("10.0.1.1") if number % 2 else target  # the router's own address, and a proxied one
        target = source if operation == 2 else target
        says = struct.pack("!HHBBH", 1, ETH_P_IP, 6, 4, operation) + mac + source + bytes(6) + target
        return b"\xff" * 6 + mac + struct.pack("!H", ETH_P_ARP) + says

    _flood(made, frame)
    assert rig.fire([("a", _says(4), "b")]) == [{"b"}]
    assert _neighbours(4) < 10


@pytest.mark.parametrize("kind", ["neighbour", "router", "dhcp"])
def test_link_local_addresses_without_end(rig, kind):
    """The router gets to know few of them at a time; others find each other."""
    made = _world(6)
    rig.apply(made)
    before = _neighbours(6)
    (link,) = ip.read(VPC, "link", "show", "dev", "c")
    router = bytes.fromhex(link["address"].replace(":", ""))

    def frame(number, mac):
        ends = Ends(f"fe80::{0x1000 + number:x}", "fe80::1", (546, 547))
        if kind == "dhcp":
            whole = packet(ends.source, ends.destination, UDP, udp(ends, b"solicit"))
        else:
            target = socket.inet_pton(socket.AF_INET6, ends.destination) if kind == "neighbour" else b""
            asks = icmp(ends, 135 if kind == "neighbour" else 133, 0, bytes(4), target + b"\1\1" + mac)
            whole = packet(ends.source, ends.destination, ICMPV6, asks, hops=255)
        return router + mac + struct.pack("!H", ETH_P_IPV6) + whole

    _flood(made, frame)
    assert rig.fire([("a", _says(6), "b")]) == [{"b"}]
    assert _neighbours(6) < before + 150
