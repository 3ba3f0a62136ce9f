"""Tracked connections as data: what is listed, deleted, forgotten and heard of, with real flows."""

import ipaddress
import select
import socket
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.net.families import datagram, dual, hearing, rule6, six
from tests.net.worlds import VPC, attempt, listening, rule, world
from wicketgate.kernel import conntrack, netns
from wicketgate.kernel.dial import IP_TRANSPARENT

FREE = [rule("out", "-1", (-1, -1), "0.0.0.0/0"), rule("in", "-1", (-1, -1), "0.0.0.0/0")]
ONE, TWO, THREE = "10.0.1.11", "10.0.1.12", "10.0.1.13"


@pytest.fixture
def made(fabric):
    """Three machines that may do everything."""
    wanted = world({"endpoint": [], "free": FREE}, {"one": ["free"], "two": ["free"], "three": ["free"]})
    fabric.apply(wanted)
    return wanted


@contextmanager
def datagrams(namespace, port):
    """A UDP socket in a namespace."""
    with netns.entered(namespace):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with sock:
        sock.settimeout(1)
        sock.bind(("0.0.0.0", port))
        yield sock


def _udp(entries):
    return [entry for entry in entries if entry.protocol == 17]


def test_an_entry_says_what_the_flow_is(made):
    """Addresses, ports, both directions' counts, and whether it was answered."""
    one, two = (instance.id for instance in made.instances[:2])
    with datagrams(one, 4000) as client, datagrams(two, 9) as server:
        client.sendto(b"x" * 100, (TWO, 9))
        server.recv(200)
        (before,) = _udp(conntrack.dump(VPC))
        assert not before.status & conntrack.SEEN_REPLY
        server.sendto(b"y" * 50, (ONE, 4000))
        client.recv(200)
        (entry,) = _udp(conntrack.dump(VPC))
    assert (entry.id, entry.family, entry.key) == (before.id, 4, before.key)
    assert entry.original == conntrack.Direction(ONE, TWO, 4000, 9)
    assert entry.reply == conntrack.Direction(TWO, ONE, 9, 4000)
    assert entry.status & conntrack.SEEN_REPLY
    assert (entry.packets, entry.octets, entry.reply_packets, entry.reply_octets) == (1, 128, 1, 78)
    assert 0 < entry.timeout <= 30


def test_delete_takes_this_entry_alone(made):
    """One of two flows; one that is gone is no error."""
    with datagrams(made.instances[0].id, 4000) as client:
        client.sendto(b"x", (TWO, 9))
        client.sendto(b"x", (THREE, 9))
        doomed = next(one for one in _udp(conntrack.dump(VPC)) if one.original.destination == TWO)
        assert conntrack.delete(VPC, doomed) == 1
        assert [one.original.destination for one in _udp(conntrack.dump(VPC))] == [THREE]
        assert conntrack.delete(VPC, doomed) == 0
        client.sendto(b"x", (TWO, 9))
        assert {one.original.destination for one in _udp(conntrack.dump(VPC))} == {TWO, THREE}
        assert conntrack.delete(VPC, *_udp(conntrack.dump(VPC))) == 2
        assert conntrack.delete(VPC) == 0


def test_forget_takes_all_of_an_address(made):
    """From it or to it, and nobody else's, even where its bytes stand elsewhere in an entry."""
    with datagrams(made.instances[0].id, 4000) as one, datagrams(made.instances[1].id, 4001) as two:
        one.sendto(b"x", (TWO, 9))
        one.sendto(b"x", (THREE, 9))
        two.sendto(b"x", (THREE, 9))
        assert conntrack.forget(VPC, []) == 0
        assert conntrack.forget(VPC, ["192.0.2.1", "2001:db8::1"]) == 0
        assert conntrack.forget(VPC, {TWO, "2001:db8::1"}) == 2
        assert [one.original.destination for one in _udp(conntrack.dump(VPC))] == [THREE]


@pytest.mark.parametrize("old_kernel", [False, True])
@pytest.mark.parametrize("address", [TWO, six(TWO)])
def test_forget_takes_very_many(fabric, monkeypatch, address, old_kernel):
    """However many there are, all of the address go, from it and to it, and nobody else's; one by one where the kernel
    cannot be told of them all at once."""
    if old_kernel:  # for which the attribute has no meaning
        monkeypatch.setattr(conntrack, "CTA_FILTER", 99)
    both = [*FREE, *(rule6(one, "::/0") for one in FREE)]
    wanted = dual(world({"endpoint": [], "free": both}, {"one": ["free"], "two": ["free"], "three": ["free"]}))
    fabric.apply(wanted)
    one, two, _ = (instance.id for instance in wanted.instances)
    other, here = (six(ONE), six(THREE)) if ":" in address else (ONE, THREE)
    with datagram(one, other) as sender, datagram(two, address) as receiver:
        for port in range(1, conntrack.FEW_PER_ADDRESS + 10):
            sender.sendto(b"x", (address, port))
        receiver.sendto(b"x", (other, 9))
        sender.sendto(b"x", (here, 9))
        assert conntrack.forget(VPC, [address]) == conntrack.FEW_PER_ADDRESS + 10
        assert [entry.original.destination for entry in _udp(conntrack.dump(VPC))] == [here]


def test_events_tell_of_beginning_and_end(made):
    """NEW at the first packet that passes, with its mark; DESTROY with the final counts; nothing of other VPCs."""
    heard = conntrack.events(VPC)
    try:
        assert heard.read() == []
        with datagrams(made.instances[0].id, 4000) as client:
            client.sendto(b"x" * 10, (TWO, 9))
            assert select.select([heard], [], [], 1)[0] == [heard]
            (begun,) = [one for one in heard.read() if one.entry.protocol == 17]
            assert (begun.kind, begun.entry.original.destination_port) == ("new", 9)
            client.sendto(b"x" * 10, (TWO, 9))
            assert conntrack.forget(VPC, [TWO]) == 1
        ended = [one for one in heard.read() if one.kind == "destroy" and one.entry.protocol == 17]
        assert [(one.entry.id, one.entry.packets) for one in ended] == [(begun.entry.id, 2)]
    finally:
        heard.close()


def test_lost_events_are_told(made):
    """More than the buffer holds: None once, then it goes on."""
    heard = conntrack.events(VPC)
    try:
        heard._netlink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with netns.entered(made.instances[0].id):
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with sock:
            sock.setsockopt(socket.SOL_IP, IP_TRANSPARENT, 1)
            for port in range(1, 200):
                sock.sendto(b"x", (TWO, port))
            assert heard.read() is None
            assert heard.read() == []
            sock.sendto(b"x", (TWO, 999))
            assert [one.entry.original.destination_port for one in heard.read()] == [999]
    finally:
        heard.close()


def test_tcp_of_an_endpoint_bears_its_mark(made, fabric):
    """The mark of the endpoint is in the entry that dump and event show."""
    open_ = world({"endpoint": FREE, "free": FREE}, {"one": ["free"]}, revision=2)
    fabric.apply(open_)
    heard = conntrack.events(VPC)
    try:
        with listening(open_, (22,)):
            assert attempt(open_, open_.interfaces[0], ONE, 22) == "connected"
        marks = [one.mark & 0x0FFF0000 for one in conntrack.dump(VPC) if one.protocol == 6]
        assert marks == [1 << 16]
        assert 1 << 16 in [one.entry.mark & 0x0FFF0000 for one in heard.read()]
    finally:
        heard.close()


def test_both_families_are_listed_and_forgotten(fabric):
    """IPv6 entries, ICMPv6 among them, are listed and deleted by address and by range as IPv4's are."""
    both = [*FREE, *(rule6(one, "::/0") for one in FREE)]
    made = dual(world({"endpoint": [], "free": both}, {"one": ["free"], "two": ["free"]}))
    fabric.apply(made)
    with datagram(made.instances[0].id, six(ONE), 4000) as client, datagrams(made.instances[0].id, 4000) as four:
        client.sendto(b"x", (six(TWO), 9))
        four.sendto(b"x", (TWO, 9))
        with netns.entered(made.instances[0].id):
            echo = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        with echo:
            echo.sendto(b"\x80\x00\x00\x00\x00\x07\x00\x00", (six(TWO), 0))
        there = {entry.protocol: entry for entry in conntrack.dump(VPC) if entry.family == 6}
        assert there[17].original == conntrack.Direction(six(ONE), six(TWO), 4000, 9)
        assert (there[58].original.icmp_type, there[58].original.icmp_code) == (128, 0)
        assert there[58].original.icmp_id == 7
        assert conntrack.delete(VPC, there[58]) == 1
        assert conntrack.forget(VPC, [six(TWO)]) == 1
        assert [entry.family for entry in _udp(conntrack.dump(VPC))] == [4]
        client.sendto(b"x", (six(TWO), 9))
        assert conntrack.forget_ranges(VPC, [ipaddress.ip_network("2001:db8:1::/48")]) == 0
        assert conntrack.forget_ranges(VPC, [ipaddress.ip_network("2001:db8::/64")]) == 0
        assert conntrack.forget_ranges(VPC, [ipaddress.ip_network("2001:db8::/56")]) == 1
        assert conntrack.forget_ranges(VPC, [ipaddress.ip_network("10.0.1.12/31")]) == 1


def test_what_is_forgotten_stays_so(made):
    """An established TCP connection whose entry is deleted: no segment passes from either side, though the rules allow
    everything both ways, and a new connection passes."""
    one, two = (instance.id for instance in made.instances[:2])
    with hearing([two], (22,)) as listeners:
        with netns.entered(one):
            ours = socket.create_connection((TWO, 22), 2)
        peer, _ = listeners[two, 22].accept()
        with ours, peer:
            ours.sendall(b"before")
            assert peer.recv(16) == b"before"
            assert conntrack.forget(VPC, [TWO]) >= 1
            for sender, receiver in ((peer, ours), (ours, peer)):
                sender.sendall(b"after")
                receiver.settimeout(0.5)
                with pytest.raises(TimeoutError):
                    receiver.recv(16)
            assert [entry for entry in conntrack.dump(VPC) if entry.protocol == 6] == []
        with netns.entered(one):
            socket.create_connection((TWO, 22), 2).close()


INIT = bytes.fromhex("0fa00009 00000000 00000000 01000014 11111111 0000ffff 00010001 00000001")
"""An SCTP packet with an INIT chunk (RFC 9260), from port 4000 to port 9."""


@pytest.mark.parametrize(
    ("protocol", "body", "answered", "seconds"),
    [
        (socket.IPPROTO_GRE, bytes.fromhex("00000800"), False, 600),
        (socket.IPPROTO_GRE, bytes.fromhex("00000800"), True, 600),
        (socket.IPPROTO_SCTP, INIT, False, 600),
        (socket.IPPROTO_ESP, bytes(16), False, 600),
        (253, bytes(16), True, 600),
    ],
)
def test_idle_timeouts_of_other_protocols(made, protocol, body, answered, seconds):
    """600 s for all but TCP, UDP and ICMP (EC2 User Guide, connection tracking), whatever Linux has by default."""
    ends = [(made.instances[0].id, TWO), (made.instances[1].id, ONE)]
    for namespace, address in ends[: 2 if answered else 1]:
        with netns.entered(namespace):
            sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol)
        with sock:
            sock.sendto(body, (address, 0))
    (entry,) = [one for one in conntrack.dump(VPC) if one.protocol == protocol]
    assert seconds - 5 < entry.timeout <= seconds


def test_idle_timeouts_of_every_state(made):
    """Where Linux has a timer for each state of a protocol, none is left out, not even one that a newer kernel adds."""
    with netns.entered(VPC):
        there = {one.name: one.read_text() for one in Path("/proc/sys/net/netfilter").glob("nf_conntrack_*_timeout*")}
    timers = {name: text.strip() for name, text in there.items() if name.split("_")[2] in ("sctp", "gre", "dccp")}
    assert {"nf_conntrack_sctp_timeout_established", "nf_conntrack_gre_timeout_stream"} <= timers.keys()
    assert {name: seconds for name, seconds in timers.items() if seconds != "600"} == {}


def test_idle_timeouts_of_udp(made):
    """30 s for one packet or one exchange; 180 s once there is more, which Linux sees after two seconds."""
    with datagrams(made.instances[0].id, 4000) as client, datagrams(made.instances[1].id, 9) as server:
        for payload in (b"first", b"second"):
            client.sendto(payload, (TWO, 9))
            server.recv(16)
            server.sendto(payload, (ONE, 4000))
            client.recv(16)
            (entry,) = _udp(conntrack.dump(VPC))
            assert 25 < entry.timeout <= 30
        time.sleep(2.1)
        client.sendto(b"third", (TWO, 9))
        server.recv(16)
        (entry,) = _udp(conntrack.dump(VPC))
        assert 175 < entry.timeout <= 180
