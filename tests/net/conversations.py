"""What both ends of a flow say: its first packet, answers, later packets, and ICMP errors about them."""

import struct

from tests.net.packets import (
    ACK,
    COOKIE_ECHO,
    DATA,
    ICMP,
    ICMPV6,
    INIT,
    INIT_ACK,
    PUSH,
    SCTP,
    SCTP_TAGS,
    SYN,
    TAG_LENGTH,
    Ends,
    icmp,
    packet,
    quoted,
    sctp,
    tag,
    tcp,
    udp,
)

ANSWERS = {(ICMP, 8): 0, (ICMP, 13): 14, (ICMPV6, 128): 129}
"""ICMP requests that connection tracking knows, and what answers them (RFC 792, RFC 4443)."""

ERRORS = {4: ((3, 1), (3, 3), (3, 4), (11, 0)), 6: ((1, 0), (1, 4), (2, 0), (3, 0))}
"""ICMP errors: type and code (RFC 792, RFC 4443)."""


def ends_of(flow, reply):
    """Addresses and ports of a flow's packets in a direction."""
    ends = Ends(flow.source_address, flow.destination, (flow.source_port, flow.port))
    return ends.swapped if reply else ends


def says(flow, number, *, reply=False, later=False, extended=False, hops=64):
    """A packet of a flow in a direction: its first one, the answer to it, or a later one."""
    ends = ends_of(flow, reply)
    body = _body(flow, ends, tag(number), reply=reply, later=later)
    return packet(
        ends.source, ends.destination, flow.protocol, body, extended=extended and flow.protocol != SCTP, hops=hops
    )


def complains(flow, number, kind, code, *, reply):
    """The ICMP error that an end of a flow sends about a packet that came to it; `reply`: to whom opened the flow."""
    ends = ends_of(flow, reply)
    about = quoted(says(flow, number, reply=not reply, later=True))
    rest = struct.pack("!I", 1300 if (kind, code) in ((3, 4), (2, 0)) else 0)
    protocol = ICMPV6 if ":" in ends.source else ICMP
    return packet(ends.source, ends.destination, protocol, icmp(ends, kind, code, rest, about + tag(number)))


def _body(flow, ends, payload, *, reply, later):
    match flow.protocol:
        case 6:
            return _tcp(ends, payload, reply=reply, later=later)
        case 17 | 136:
            return udp(ends, payload + bytes(32), flow.protocol)
        case 132:
            return _sctp(ends, payload, reply=reply, later=later)
        case 47:
            return struct.pack("!HH", 0, 0x0800) + payload
        case 1 | 58 if (flow.protocol == ICMPV6) is (":" in ends.source):
            return _icmp(flow, ends, payload, reply=reply)
    return struct.pack("!II", 0x1000, 1) + payload


def _tcp(ends, payload, *, reply, later):
    first, answer = 1000, 5000
    taken = 1 + TAG_LENGTH  # the SYN and its data
    if later:
        sequences = (answer + taken, first + taken) if reply else (first + taken, answer + taken)
        return tcp(ends, ACK | PUSH, *sequences, payload)
    return tcp(ends, SYN | ACK, answer, first + taken, payload) if reply else tcp(ends, SYN, first, 0, payload)


def _sctp(ends, payload, *, reply, later):
    if later:
        return sctp(ends.ports, SCTP_TAGS[INIT if reply else INIT_ACK], DATA if reply else COOKIE_ECHO, payload)
    return sctp(ends.ports, SCTP_TAGS[INIT], INIT_ACK, payload) if reply else sctp(ends.ports, 0, INIT, payload)


def _icmp(flow, ends, payload, *, reply):
    kind = ANSWERS.get((flow.protocol, flow.port), flow.port) if reply else flow.port
    rest = struct.pack("!HH", flow.source_port, 1)
    stamps = bytes(12) if (flow.protocol, flow.port) == (ICMP, 13) else b""
    return icmp(ends, kind, flow.code, rest, stamps + payload)
