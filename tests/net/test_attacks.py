"""What a hostile machine with a packet socket tries: to ride on flows of others, and to forge errors about them."""

import struct

import msgspec
import pytest

from tests.net.families import dual, rule6, six
from tests.net.packets import ICMP, ICMPV6, UDP, Ends, fragments, icmp, packet, quoted, tag, udp
from tests.net.rig import Rig
from tests.net.worlds import VPC, rule, world
from wicketgate.model import Change, apply_change

VERSIONS = pytest.mark.parametrize("version", [4, 6])
NEAR = {4: "10.0.1.0/24", 6: "2001:db8:0:1::/64"}
A, B, C = "10.0.1.11", "10.0.1.12", "10.0.1.13"
PORTS = (4000, 9)


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
