"""Fragments, and what IPv6 puts before TCP, UDP and ICMPv6: ports and types are judged all the same."""

import struct

import pytest

from tests.net.families import datagram
from tests.net.flows import addresses, pair
from tests.net.packets import (
    DESTINATION_OPTIONS,
    FRAGMENT,
    ICMPV6,
    SYN,
    TCP,
    UDP,
    Ends,
    fragments,
    icmp,
    packet,
    sctp,
    tag,
    tcp,
    udp,
)
from tests.net.rig import Rig
from tests.net.worlds import VPC

HOP_BY_HOP, ROUTING, AUTHENTICATION, NO_NEXT = 0, 43, 51, 59
ALLOWED, REFUSED = 7000, 7001
WHOLE_HEADER = 24
"""Bytes of a fragment, a multiple of 8, that hold any header that is looked at."""
VERSIONS = pytest.mark.parametrize("version", [4, 6])


@pytest.fixture(scope="module", name="rig")
def _rig():
    made = Rig()
    yield made
    made.close()


def _world(version):
    """Machines that let one port in, and echo requests."""
    echo = ("icmp", (8, 0)) if version == 4 else ("icmpv6", (128, 0))
    inbound = [("in", "tcp", (ALLOWED, ALLOWED), "near"), ("in", "udp", (ALLOWED, ALLOWED), "near")]
    return pair(version, [("out", "-1", (-1, -1), "near")], [*inbound, ("in", *echo, "near")])


def _ends(version, port, source_port=4000):
    return Ends(*addresses(version), (source_port, port))


# -- fragments ---------------------------------------------------------------------------------------------------------


def _cut(whole, size, number, *, order=(0, 1, 2)):
    """A packet in three fragments, of which the first two carry `size` bytes each, in an order."""
    six = whole[0] >> 4 == 6
    body = whole[40:] if six else whole[20:]
    offsets = (0, size, 2 * size)
    parts = [body[:size], body[size : 2 * size], body[2 * size :]]
    made = []
    for place in order:
        more = place < 2
        if six:
            head = struct.pack("!BBHI", whole[6], 0, offsets[place] | more, number)
            made.append(packet6(whole, FRAGMENT, head + parts[place]))
        else:
            made.append(packet4(whole, parts[place], number, offsets[place], more=more))
    return made


def packet6(whole, next_header, body):
    """Another body behind an IPv6 packet's addresses."""
    return whole[:4] + struct.pack("!HB", len(body), next_header) + whole[7:40] + body


def packet4(whole, body, identification, offset, *, more):
    """A fragment of an IPv4 packet."""
    head = whole[:2] + struct.pack("!HHH", 20 + len(body), identification, 0x2000 * more | offset // 8) + whole[8:10]
    head += b"\0\0" + whole[12:20]
    total = sum(struct.unpack("!10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    return head[:10] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF) + head[12:] + body


@VERSIONS
@pytest.mark.parametrize("protocol", [TCP, UDP])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_fragments_are_judged_as_a_whole(rig, version, protocol, order):
    """Fragments without ports, in any order and of IPv4 as small as can be: the packet they are passes or not."""
    rig.apply(_world(version))
    size = 8 if version == 4 else WHOLE_HEADER

    def shot(port):
        ends = _ends(version, port, 5000 + 10 * order[0])

        def made(number):
            payload = bytes(2 * size) + tag(number)
            body = tcp(ends, SYN, 1000, 0, payload) if protocol == TCP else udp(ends, payload)
            return _cut(packet(ends.source, ends.destination, protocol, body), size, number, order=order)

        return made

    assert rig.fire([("a", shot(ALLOWED), "b"), ("a", shot(REFUSED), None)]) == [{"b"}, set()]


def test_headers_in_two_fragments(rig):
    """A first IPv6 fragment that ends before the TCP header does is dropped, and with it the packet (RFC 8200 4.5)."""
    rig.apply(_world(6))
    ends = _ends(6, ALLOWED)

    def made(number):
        whole = packet(ends.source, ends.destination, TCP, tcp(ends, SYN, 1000, 0, bytes(48) + tag(number)))
        return _cut(whole, WHOLE_HEADER - 8, number)

    assert rig.fire([("a", made, None)]) == [set()]


@VERSIONS
def test_fragments_of_a_ping(rig, version):
    """Type and code are of the whole, too."""
    rig.apply(_world(version))
    ends = _ends(version, 0)
    number, request, other = (1, 8, 13) if version == 4 else (ICMPV6, 128, 130)

    def shot(kind):
        def made(mark):
            whole = icmp(ends, kind, 0, struct.pack("!HH", kind, 1), bytes(12) + tag(mark))
            return _cut(packet(ends.source, ends.destination, number, whole), 8, mark)

        return made

    assert rig.fire([("a", shot(request), "b"), ("a", shot(other), None)]) == [{"b"}, set()]


@VERSIONS
def test_parts_alone_go_nowhere(rig, version):
    """A fragment whose others never come is no packet: neither the one with the ports nor the rest is let through."""
    rig.apply(_world(version))
    ends = _ends(version, ALLOWED)

    def part(which):
        return lambda number: [
            fragments(packet(ends.source, ends.destination, UDP, udp(ends, tag(number) * 5)), number)[which]
        ]

    assert rig.fire([("a", part(0), None), ("a", part(1), None)]) == [set(), set()]


@VERSIONS
def test_fragments_that_overlap(rig, version):
    """Another port written over the one that is allowed: nothing of it arrives (RFC 5722, and so Linux for IPv4)."""
    rig.apply(_world(version))
    ends, other = _ends(version, ALLOWED), _ends(version, REFUSED)

    def made(number):
        first = _cut(packet(ends.source, ends.destination, UDP, udp(ends, tag(number))), 8, number)
        second = _cut(packet(other.source, other.destination, UDP, udp(other, tag(number))), 16, number)
        return [first[0], second[0], *first[1:]]

    assert rig.fire([("a", made, None)]) == [set()]


def test_fragments_that_are_whole(rig):
    """IPv6 packets of one fragment (RFC 6946) are judged by their ports, and those about them are not confused."""
    rig.apply(_world(6))

    def shot(port):
        ends = _ends(6, port)

        def made(number):
            whole = packet(ends.source, ends.destination, UDP, udp(ends, tag(number)))
            return [packet6(whole, FRAGMENT, struct.pack("!BBHI", UDP, 0, 0, number) + whole[40:])]

        return made

    assert rig.fire([("a", shot(ALLOWED), "b"), ("a", shot(REFUSED), None)]) == [{"b"}, set()]


@VERSIONS
def test_large_datagrams(rig, version):
    """What a machine's own stack cuts into pieces arrives by a rule for its port, and no piece of it without one."""
    made = _world(version)
    rig.apply(made)
    source, target = addresses(version)
    with datagram(made.instances[0].id, source) as sender:
        for port, arrives in ((ALLOWED, {"b"}), (REFUSED, set())):

            def send(number, port=port):
                sender.sendto(tag(number) + bytes(6000), (target, port))
                return []

            assert rig.fire([("a", send, "b" if arrives else None)]) == [arrives]


# -- extension headers -------------------------------------------------------------------------------------------------


def _options(following):
    """Hop-by-hop or destination options: PadN (RFC 8200)."""
    return bytes((following, 0, 1, 4, 0, 0, 0, 0))


def _routing(following):
    """A routing header that is used up (RFC 8200), of a type for experiments (RFC 4727)."""
    return bytes((following, 0, 253, 0, 0, 0, 0, 0))


def _authentication(following):
    """An authentication header (RFC 4302)."""
    return bytes((following, 4, 0, 0)) + struct.pack("!II", 0x1000, 1) + bytes(12)


HEADERS = {
    HOP_BY_HOP: _options,
    DESTINATION_OPTIONS: _options,
    ROUTING: _routing,
    AUTHENTICATION: _authentication,
    FRAGMENT: lambda following: struct.pack("!BBHI", following, 0, 0, 77),
}
CHAINS = [
    (HOP_BY_HOP,),
    (DESTINATION_OPTIONS,),
    (ROUTING,),
    (HOP_BY_HOP, DESTINATION_OPTIONS, ROUTING, FRAGMENT, DESTINATION_OPTIONS),
    (DESTINATION_OPTIONS,) * 8,
]


def _extended(ends, chain, protocol, body):
    for header, following in zip(reversed(chain), (protocol, *reversed(chain)), strict=False):
        body = HEADERS[header](following) + body
    return packet(ends.source, ends.destination, chain[0], body)


def _content(ends, protocol, number, *, kind=128):
    if protocol == TCP:
        return tcp(ends, SYN, 1000, 0, tag(number))
    if protocol == UDP:
        return udp(ends, tag(number))
    return icmp(ends, kind, 0, struct.pack("!HH", ends.ports[0], 1), tag(number))


@pytest.mark.parametrize("chain", CHAINS, ids=lambda chain: "-".join(map(str, chain)))
@pytest.mark.parametrize("protocol", [TCP, UDP, ICMPV6])
def test_headers_before_the_ports(rig, chain, protocol):
    """Whatever comes before it, a rule for ports or types lets in what it names and nothing else."""
    rig.apply(_world(6))
    source_port = 6000 + 10 * CHAINS.index(chain)

    def shot(port, kind):
        ends = _ends(6, port, source_port)
        return lambda number: [_extended(ends, chain, protocol, _content(ends, protocol, number, kind=kind))]

    assert rig.fire([("a", shot(ALLOWED, 128), "b"), ("a", shot(REFUSED, 130), None)]) == [{"b"}, set()]


def test_headers_are_no_protocol(rig):
    """A rule for the number of an extension header lets nothing in that it carries; what ends the chain counts."""
    inbound = [("in", str(number), (-1, -1), "near") for number in (0, 43, 44, 60)]
    rig.apply(pair(6, [("out", "-1", (-1, -1), "near")], inbound))

    def shot(header):
        ends = _ends(6, ALLOWED, 6200 + header)
        return lambda number: [_extended(ends, (header,), UDP, _content(ends, UDP, number))]

    assert rig.fire([("a", shot(header), None) for header in HEADERS if header != AUTHENTICATION]) == [set()] * 4


def test_an_authentication_header_is_a_protocol(rig):
    """In IPv6 as in IPv4: what it protects is let in by a rule for its number and not by one for ports."""
    ends = _ends(6, ALLOWED, 6300)

    def shot(number):
        return [_extended(ends, (AUTHENTICATION,), UDP, _content(ends, UDP, number))]

    rig.apply(_world(6))
    assert rig.fire([("a", shot, None)]) == [set()]
    rig.apply(pair(6, [("out", "-1", (-1, -1), "near")], [("in", "51", (-1, -1), "near")]))
    assert rig.fire([("a", shot, "b")]) == [{"b"}]


def test_without_an_upper_layer(rig):
    """A packet of no next header belongs to no flow and asks for nothing: it is dropped, whatever the rules."""
    everything = [("in", "-1", (-1, -1), "any"), ("out", "-1", (-1, -1), "any"), ("in", "59", (-1, -1), "any")]
    made = pair(6, everything, everything)
    rig.apply(made)
    ends, before = _ends(6, 0), rig.counters(made)[VPC, "invalid"]
    assert rig.fire([("a", lambda number: [packet(*ends[:2], NO_NEXT, tag(number))], None)]) == [set()]
    assert rig.counters(made)[VPC, "invalid"] == before + 1


@VERSIONS
def test_any_number_is_a_protocol(rig, version):
    """Of all numbers of protocols those that a rule names pass and no others; IPv4 knows no extension headers."""
    named = [number for number in range(256) if number % 2 == version // 6 or number in MADE]
    rig.apply(pair(version, [("out", "-1", (-1, -1), "near")], [("in", *_whole(number), "near") for number in named]))
    never = NO_UPPER_LAYER | {1} if version == 6 else {ICMPV6}
    shots = []
    for number in sorted({*range(256)} - {0, 43, 44, 60} if version == 6 else range(256)):
        passes = number in named and number not in never
        shots.append(("a", _of_protocol(version, number), "b" if passes else None))
    seen = rig.fire(shots)
    assert seen == [{arrives} if arrives else set() for _, _, arrives in shots]
    assert sum(map(len, seen)) > 120


MADE = {1, 6, 17, 58}
"""Protocols for which rules say more than the number."""
NO_UPPER_LAYER = {HOP_BY_HOP, ROUTING, FRAGMENT, NO_NEXT, DESTINATION_OPTIONS}


def _whole(number):
    """Protocol and ports of a rule for the whole of a protocol."""
    return str(number), (0, 65535) if number in (TCP, UDP) else (-1, -1)


def _of_protocol(version, number):
    ends = _ends(version, ALLOWED)

    def made(mark):
        match number:
            case 6 | 17:
                body = _content(ends, number, mark)
            case 1 | 58:
                kind = 8 if number == 1 else 128
                body = icmp(ends, kind, 0, bytes(4), tag(mark))
            case 132:
                body = sctp(ends.ports, 0, 1, tag(mark))
            case 136:
                body = udp(ends, tag(mark), 136)
            case 47:
                body = struct.pack("!HH", 0, 0x0800) + tag(mark)
            case _:
                body = bytes((253, 1)) + bytes(14) + tag(mark)  # an authentication header says what follows it
        return [packet(ends.source, ends.destination, number, body)]

    return made


def test_forged_sources_behind_headers(rig):
    """The source check looks at the address, whatever follows: fragments and headers do not get round it."""
    made = _world(6)
    rig.apply(made)
    _, target = addresses(6)
    forged = Ends("2001:db8:0:1::10", target, (4000, ALLOWED))
    before = rig.counters(made)[VPC, "forged_source"]

    def chain(number):
        return [_extended(forged, (HOP_BY_HOP, DESTINATION_OPTIONS), UDP, _content(forged, UDP, number))]

    def parts(number):
        return _cut(packet(forged.source, forged.destination, UDP, udp(forged, tag(number))), 8, number)

    assert rig.fire([("a", chain, None), ("a", parts, None)]) == [set(), set()]
    assert rig.counters(made)[VPC, "forged_source"] >= before + 2
