"""ARP, neighbour discovery and echo requests: bytes as the RFCs have them, and what is read of other people's."""

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wicketgate.kernel import neighbour_frames as frames
from wicketgate.kernel.neighbour_frames import Claim, Echo, Wish

OURS, THEIRS = "02:00:00:00:00:01", "02:00:00:00:00:aa"
EVERYBODY = "ff:ff:ff:ff:ff:ff"


def checksum_holds(data):
    """RFC 1071: with the checksum in its place the sum is all ones."""
    data += bytes(len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total == 0xFFFF


def holds6(packet):
    """The checksum of an ICMPv6 packet, over its pseudo-header (RFC 8200, 8.1)."""
    return checksum_holds(packet[8:40] + struct.pack("!II", len(packet) - 40, 58) + packet[40:])


def test_an_arp_probe_is_byte_for_byte_what_rfc_5227_has():
    """Sender's address 0, target hardware address 0, to everybody."""
    expected = "ffffffffffff 020000000001 0806  0001 0800 06 04 0001  020000000001 00000000  000000000000 0a09000b"
    assert frames.arp_request(OURS, "10.9.0.11") == bytes.fromhex(expected.replace(" ", ""))


def test_what_is_asked_reads_as_what_it_is():
    """A probe is a wish, a question with an address of its own is a claim of that, a reply is a claim."""
    assert frames.read(frames.arp_request(THEIRS, "10.9.0.11")) == Wish("10.9.0.11", THEIRS)
    assert frames.read(frames.arp_request(THEIRS, "10.9.0.11", "10.9.0.5", OURS)) == Claim("10.9.0.5", THEIRS)
    assert frames.read(frames.arp_reply(THEIRS, "10.9.0.5", OURS)) == Claim("10.9.0.5", THEIRS)
    assert frames.read(frames.solicitation(THEIRS, "fd09::11")) == Wish("fd09::11", THEIRS)
    assert frames.read(frames.solicitation(THEIRS, "fd09::11", "fd09::5")) == Claim("fd09::5", THEIRS)
    assert frames.read(frames.advertisement(THEIRS, "fd09::5")) == Claim("fd09::5", THEIRS)


def test_solicitations_go_to_the_group_of_the_address():
    """ff02::1:ffXX:XXXX and 33:33:ff:XX:XX:XX (RFC 4291 2.7.1, RFC 2464 7); straight to a neighbour that is known."""
    frame = frames.solicitation(OURS, "fd09::12:3456:789a")
    assert frame[:6].hex(":") == "33:33:ff:56:78:9a"
    assert socket.inet_ntop(socket.AF_INET6, frame[38:54]) == "ff02::1:ff56:789a"
    assert (frame[21], holds6(frame[14:])) == (255, True)
    frame = frames.solicitation(OURS, "fd09::11", "fe80::1", THEIRS)
    assert (frame[:6].hex(":"), socket.inet_ntop(socket.AF_INET6, frame[38:54])) == (THEIRS, "fd09::11")
    assert holds6(frame[14:])


@given(
    st.binary(max_size=41),
    st.integers(0, 0xFFFF),
    st.sampled_from([("10.9.0.5", "10.9.0.11"), ("fd09::5", "fd09::11")]),
)
def test_echo_requests_have_right_checksums_and_their_answers_are_read(data, sequence, ends):
    """Of both families, with data of any length; the padding of short frames is not taken for data."""
    packet = frames.echo_request(*ends, 7, sequence, data)
    if packet[0] >> 4 == 4:
        assert checksum_holds(packet[:20]) and checksum_holds(packet[20:])
        answer = packet[:12] + packet[16:20] + packet[12:16] + b"\0" + packet[21:]
    else:
        assert holds6(packet)
        answer = packet[:8] + packet[24:40] + packet[8:24] + b"\x81" + packet[41:]
    assert frames.read(frames.framed(packet, OURS, THEIRS)) is None, "a request is no answer"
    padded = frames.framed(answer, THEIRS, OURS) + bytes(46)
    assert frames.read(padded) == Echo(ends[1], ends[0], sequence, data)


def test_nobody_claims_for_nobody():
    """Broadcast, multicast and zero link-layer addresses, unspecified and multicast addresses."""
    for mac in (EVERYBODY, "01:00:5e:00:00:01", "00:00:00:00:00:00"):
        assert frames.read(frames.arp_reply(mac, "10.9.0.5", OURS)) is None
        assert frames.read(frames.solicitation(mac, "fd09::5")) is None
        assert frames.read(frames.advertisement(mac, "fd09::5")) is None
    assert frames.read(frames.advertisement(THEIRS, "ff02::5")) is None
    assert frames.read(frames.advertisement(THEIRS, "::")) is None


def test_neighbour_discovery_from_beyond_the_link_is_none():
    """A hop limit below 255 has passed a router (RFC 4861, 7.1)."""
    frame = bytearray(frames.advertisement(THEIRS, "fd09::5"))
    frame[21] = 254
    assert frames.read(bytes(frame)) is None


@pytest.mark.parametrize(
    "whole",
    [
        frames.arp_request(THEIRS, "10.9.0.11", "10.9.0.5"),
        frames.solicitation(THEIRS, "fd09::11", "fd09::5"),
        frames.advertisement(THEIRS, "fd09::5"),
        frames.framed(frames.echo_request("10.9.0.5", "10.9.0.11", 7, 1, b"data"), OURS, THEIRS),
    ],
)
def test_what_ends_too_early_is_nothing_or_less(whole):
    """No prefix of a frame raises anything; an advertisement without its option is the sender's own."""
    for length in range(len(whole)):
        assert frames.read(whole[:length]) in (None, Claim("fd09::5", THEIRS))


@given(st.binary(max_size=128), st.sampled_from([0x0806, 0x0800, 0x86DD]))
def test_nonsense_is_read_without_an_error(body, kind):
    """Whatever somebody sends."""
    frames.read(bytes(12) + kind.to_bytes(2, "big") + body)
