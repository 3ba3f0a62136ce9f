"""Path MTU discovery: what the router and a machine say of too long packets, of tracked and untracked flows."""

import errno
import socket
import struct
import time

import pytest

from tests.net.families import family, raw_icmp
from tests.net.flows import EVERYTHING, NAMES, PORT, TCP, UDP, addresses, flow, pair
from tests.net.packets import Ends, icmp, packet, udp
from tests.net.worlds import VPC
from wicketgate.kernel import ip, netns

pytestmark = pytest.mark.slow

VERSIONS = pytest.mark.parametrize("version", [4, 6])
TRACKED = pytest.mark.parametrize("tracked", [True, False], ids=["tracked", "untracked"])
NARROW = 1300
LEVELS = {4: socket.IPPROTO_IP, 6: socket.IPPROTO_IPV6}
MTU_DISCOVER, MTU = {4: 10, 6: 23}, {4: 14, 6: 24}
"""Socket options IP_MTU_DISCOVER and IP_MTU, and IPv6's (ip(7), ipv6(7))."""
DO = 2
"""Never to fragment."""


def _narrow():
    """Make the router's way to b a narrow one."""
    ip.batch(VPC, [f"link set dev b mtu {NARROW}"])


def _unfragmented(made, version):
    """A UDP socket of a's, connected to b's port, that sends whole packets or none."""
    source, target = addresses(version)
    with netns.entered(made.instances[0].id):
        sock = socket.socket(family(target), UDP)
    sock.setsockopt(LEVELS[version], MTU_DISCOVER[version], DO)
    sock.bind((source, 0))
    sock.connect((target, PORT))
    return sock


def _mtu(sock, version, wanted, seconds=1.0):
    """What a socket takes for the path's MTU, once it is what is wanted or after a while."""
    deadline = time.monotonic() + seconds
    while (found := sock.getsockopt(LEVELS[version], MTU[version])) != wanted and time.monotonic() < deadline:
        time.sleep(0.01)
    return found


@VERSIONS
@TRACKED
def test_the_router_is_heard(fabric, version, tracked):
    """What the router says of a packet that is too long for the next link arrives, whatever the rules."""
    ports = (PORT, PORT)
    made = pair(
        version,
        [("out", "udp", ports, "near")]
        if tracked
        else [("out", "udp", ports, "any"), ("in", "udp", (0, 65535), "any")],
        [("in", "udp", ports, "near")],
    )
    fabric.apply(made)
    _narrow()
    with _unfragmented(made, version) as sock:
        assert _mtu(sock, version, 1500) == 1500
        sock.send(bytes(1400))
        assert _mtu(sock, version, NARROW) == NARROW
        with pytest.raises(OSError) as raised:
            sock.send(bytes(1400))
        assert raised.value.errno == errno.EMSGSIZE


@VERSIONS
@TRACKED
def test_streams_find_their_segments(fabric, version, tracked):
    """TCP through a narrow link: all of it arrives, in segments that fit."""
    made = pair(version, EVERYTHING if not tracked else [("out", "tcp", (PORT, PORT), "near")], EVERYTHING)
    fabric.apply(made)
    _narrow()
    with flow(made, version, TCP) as (client, server):
        data = bytes(range(256)) * 2000
        client.sendall(data)
        server.settimeout(5)
        received = bytearray()
        while len(received) < len(data):
            received += server.recv(1 << 16)
        assert received == data
        assert _mtu(client, version, NARROW) == NARROW


@VERSIONS
@pytest.mark.parametrize(
    ("tracked", "let_in", "heard"),
    [(True, False, True), (False, False, False), (False, True, True)],
    ids=["tracked", "untracked", "untracked, with a rule"],
)
def test_a_machine_is_heard(fabric, version, tracked, let_in, heard):
    """What a machine, such as one that tunnels on, says of a packet: of a tracked flow it arrives, of an untracked one
    only by a rule for destination unreachable (3, 4) or packet too big (2)."""
    name, kind, code = ("icmp", 3, 4) if version == 4 else ("icmpv6", 2, 0)
    client = [("out", "udp", (PORT, PORT), "near" if tracked else "any")]
    client += [] if tracked else [("in", "udp", (0, 65535), "any")]
    client += [("in", name, (kind, code), "near")] if let_in else []
    made = pair(version, client, [("in", NAMES[UDP], (PORT, PORT), "near"), ("out", "-1", (-1, -1), "near")])
    fabric.apply(made)
    with _unfragmented(made, version) as sock, raw_icmp(made.instances[1].id, version) as far_end:
        sock.send(bytes(1400))
        source, target = addresses(version)
        ends = Ends(source, target, (sock.getsockname()[1], PORT))
        about = packet(source, target, 17, udp(ends, bytes(64)))
        said = icmp(ends.swapped, kind, code, struct.pack("!I", NARROW), about)
        far_end.sendto(said, (source, 0))
        assert _mtu(sock, version, NARROW, 0.5) == (NARROW if heard else 1500)
