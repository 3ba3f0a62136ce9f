"""IPv6 in the fabric: who reaches whom, how fast a refusal is told, what a forger gains, and metadata's addresses."""

import itertools
import select
import socket
import time
from contextlib import closing

import msgspec
import pytest

from tests.net.families import (
    CLIENT6,
    client_of,
    datagram,
    dual,
    forged,
    hearing,
    knock,
    raw_icmp,
    reach,
    rule6,
    six,
)
from tests.net.test_fabric import EXPECTED, GROUPS, MEMBERS
from tests.net.test_modify import carries
from tests.net.worlds import ENDPOINT, VPC, preserving, rule, world
from wicketgate.kernel import ip, netns
from wicketgate.kernel.dial import dial, make_transparent
from wicketgate.kernel.fabric import Fabric
from wicketgate.kernel.nftables import Nftables

ANY6 = [rule6(rule(way, "-1", (-1, -1), "0.0.0.0/0"), "::/0") for way in ("in", "out")]
GROUPS6 = {**GROUPS, "db": [rule6(GROUPS["db"][0], "2001:db8:0:1::/64")]}
PORTS = (22, 80, 5432)


def namespace_of(made, eni):
    """Where an interface's machine is."""
    return made.instance_of_interface(eni.id).id


@pytest.mark.parametrize("preserve", [False, True])
def test_connectivity_matrix(fabric, preserve):
    """Over IPv6 exactly the pairs that the groups allow connect, in both modes; over IPv4 the range counts for IPv4."""
    made = dual(world(GROUPS6, MEMBERS, preserve=preserve))
    fabric.apply(made)
    seen = set()
    with hearing([one.id for one in made.instances], PORTS):
        for sender, receiver, port in itertools.product(made.interfaces, made.interfaces, PORTS):
            address = receiver.ipv6_addresses[0]
            if sender.link == receiver.link:
                continue
            if sender.link == "endpoint":
                ended = knock(ENDPOINT, address, port, client=CLIENT6 if preserve else None, wait=0.05)
            else:
                ended = reach(namespace_of(made, sender), address, port, wait=0.05)
            if ended == "connected":
                seen.add(f"{sender.link} {receiver.link} {port}")
        assert reach(made.instances[0].id, "10.0.1.13", 5432, wait=0.05) == "nothing"
    assert sorted(seen) == sorted(EXPECTED.split("\n")[1:-1])


@pytest.mark.parametrize("preserve", [False, True])
def test_refused_dial_answers_at_once(fabric, preserve):
    """500 of 500 refused dials fail within 50 ms, and so do those to addresses that nobody has."""
    made = dual(world(GROUPS, MEMBERS, preserve=preserve))
    fabric.apply(made)
    client = CLIENT6 if preserve else None
    slow = []
    for address in [six("10.0.1.13")] * 500 + ["2001:db8:0:1::99", "2001:db8:0:7::1"]:
        started = time.monotonic()
        ended = knock(ENDPOINT, address, 22, client=client, wait=1)
        took = time.monotonic() - started
        if (ended, took < 0.05) != ("EACCES", True):
            slow.append((address, ended, took))
    assert slow == []


@pytest.mark.parametrize("address", ["10.0.1.11", "2001:db8:0:1::11"])
def test_tunnels_outlive_a_switch_of_preservation(fabric, address):
    """What was opened under the client's address and under the endpoint's own goes on, in both families."""
    made = dual(world(GROUPS, MEMBERS, preserve=True))
    fabric.apply(made)
    own = {"10.0.1.11": "10.0.1.10", "2001:db8:0:1::11": "2001:db8:0:1::10"}[address]
    with hearing([made.instances[0].id], (22,)) as listeners:
        opened = []
        for revision, on in ((2, True), (3, False), (4, True)):
            fabric.apply(preserving(msgspec.structs.replace(made, revision=revision), on=on))
            sock, _ = dial(ENDPOINT, address, 22, client_of(address) if on else None, own)
            peer, (seen, *_) = listeners[made.instances[0].id, 22].accept()
            assert seen.removeprefix("::ffff:") == (client_of(address) if on else own)
            opened.append((sock, peer))
            assert all(carries(*ends) for ends in opened)
    for sock, peer in opened:
        sock.close()
        peer.close()


def test_a_netd_without_memory_writes_nothing(fabric, monkeypatch):
    """A fresh Fabric over what another has made: it reads, and runs neither ip nor nft commands that write."""
    made = dual(world(GROUPS, MEMBERS), only6=("db-1",))
    fabric.apply(made)
    assert written(made, monkeypatch) == []


def written(made, monkeypatch):
    """What a fresh Fabric writes when it applies a World: commands of ip(8) and of nft(8)."""
    lines = []
    batch, run = ip.batch, Nftables.run

    def seen_batch(namespace, commands, version=4):
        lines.extend((namespace, one) for one in commands)
        batch(namespace, commands, version)

    def seen_run(nft, commands):
        if not commands.startswith("list "):
            lines.append(("nft", commands))
        return run(nft, commands)

    monkeypatch.setattr(ip, "batch", seen_batch)
    monkeypatch.setattr(Nftables, "run", seen_run)
    monkeypatch.setattr(Nftables, "send", lambda _nft, message: lines.append(("nft", message)))
    with closing(Fabric()) as fresh:
        fresh.apply(made)
    monkeypatch.undo()
    return lines


def test_ipv6_comes_and_goes(fabric):
    """Addresses of IPv6 assigned to a running machine, and taken away again: new connections follow, IPv4 stays."""
    four = world(GROUPS, MEMBERS)
    made = dual(four)
    six_of_web = six("10.0.1.11")
    for revision, wanted, expected in ((1, four, False), (2, made, True), (3, four, False), (4, made, True)):
        fabric.apply(msgspec.structs.replace(wanted, revision=revision))
        with hearing([made.instances[0].id], (22,)):
            assert knock(ENDPOINT, "10.0.1.11", 22) == "connected"
            if expected:
                assert knock(ENDPOINT, six_of_web, 22) == "connected"
        there = [
            address["local"]
            for link in ip.read(made.instances[0].id, "-6", "address", "show", "dev", "eth0", "scope", "global")
            for address in link.get("addr_info", [])
            if address
        ]
        assert there == ([six_of_web] if expected else [])


def test_machines_without_ipv4(fabric):
    """An IPv6-only subnet with a machine and an endpoint of IPv6 alone: they reach each other."""
    made = dual(world(GROUPS, MEMBERS), only6=("endpoint", "web-1"))
    fabric.apply(made)
    with hearing([made.instances[0].id], (22, 80)):
        assert knock(ENDPOINT, six("10.0.1.11"), 22) == "connected"
        assert reach(made.instances[1].id, six("10.0.1.11"), 80) == "connected"
    only = msgspec.structs.replace(made.subnets[0], cidr_block="")
    interfaces = tuple(msgspec.structs.replace(one, private_ip_address="") for one in made.interfaces)
    endpoint = msgspec.structs.replace(made.endpoints[0], ip_address_type="ipv6")
    bare = msgspec.structs.replace(made, revision=2, subnets=(only,), interfaces=interfaces, endpoints=(endpoint,))
    bare.check()
    fabric.apply(bare)
    with hearing([made.instances[1].id], (22,)):
        assert knock(ENDPOINT, six("10.0.1.12"), 22) == "connected"
        assert reach(made.instances[0].id, six("10.0.1.12"), 80) == "ECONNREFUSED"


@pytest.mark.parametrize("source", [six("10.0.1.10"), six("10.0.1.11"), CLIENT6, "2001:db8:0:1::99", ""])
def test_forged_sources_are_dropped(fabric, source):
    """A neighbour's address, the endpoint's, a client's, nobody's and a link-local one gain nothing and are counted."""
    made = dual(world({**GROUPS, "closed": ANY6, "web": ANY6}, MEMBERS))
    fabric.apply(made)
    forger = made.instances[3].id
    if not source:
        there = ip.read(forger, "-6", "address", "show", "dev", "eth0", "scope", "link")
        (source,) = [one["local"] for link in there if link for one in link["addr_info"] if one]
    before = forged(fabric)
    with netns.entered(forger):
        scope = socket.if_nametoindex("eth0") if source.startswith("fe80") else 0
        sender = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    with sender, datagram(made.instances[1].id, "::", 9) as receiver:
        make_transparent(sender)
        sender.bind((source, 0, 0, scope))
        receiver.settimeout(0.2)
        sender.sendto(b"forged", (six("10.0.1.12"), 9))
        with pytest.raises(TimeoutError):
            receiver.recv(16)
    assert forged(fabric) == before + 1
    with datagram(forger, six("10.0.1.14")) as honest, datagram(made.instances[1].id, "::", 9) as hears:
        honest.sendto(b"true", (six("10.0.1.12"), 9))
        assert hears.recv(16) == b"true"


def test_router_does_not_answer_a_forged_source(fabric):
    """A forged packet that would expire at the router is dropped before routing; an honest one is answered."""
    made = dual(world({**GROUPS, "closed": ANY6}, MEMBERS))
    fabric.apply(made)
    victim, forger = made.instances[2].id, made.instances[3].id
    with closing(raw_icmp(victim, 6)) as victims, closing(raw_icmp(forger, 6)) as own:
        for source, heard in ((six("10.0.1.13"), None), (six("10.0.1.14"), 3)):
            with datagram(forger, source) as sock:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 1)
                sock.sendto(b"payload", (six("10.0.1.11"), 9))
            assert 3 not in _kinds(victims)
            assert (3 in _kinds(own)) is (heard == 3), "time exceeded (RFC 4443)"


def _kinds(sock):
    """Types of the ICMPv6 messages that come within a moment."""
    found = set()
    while select.select([sock], [], [], 0.2)[0]:
        found.add(sock.recv(512)[0])
    return found


@pytest.mark.parametrize("preserve", [False, True])
def test_icmp_error_about_a_reply_reaches_the_target(fabric, preserve):
    """What the router has to say about a target's packet is told to the target, not to the endpoint."""
    made = dual(world(GROUPS, MEMBERS, preserve=preserve))
    fabric.apply(made)
    target = made.instances[0].id
    with hearing([target], (22,)) as listeners, closing(raw_icmp(target, 6)) as heard:
        ours, _ = dial(ENDPOINT, six("10.0.1.11"), 22, CLIENT6 if preserve else None)
        peer, _ = listeners[target, 22].accept()
        with ours, peer:
            peer.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 1)
            peer.sendall(b"expires at the router")
            assert 3 in _kinds(heard)


def test_neighbour_discovery_takes_no_address(fabric):
    """A machine that claims a neighbour's addresses on its own link gains nothing: they are reached where they are."""
    made = dual(world({**GROUPS, "closed": ANY6}, MEMBERS))
    fabric.apply(made)
    thief, owner = made.instances[3].id, made.instances[0].id
    with hearing([owner], (22,)):
        for address in ("10.0.1.11", six("10.0.1.11")):
            assert knock(ENDPOINT, address, 22) == "connected"
            _claim(thief, address)
            assert knock(ENDPOINT, address, 22) == "connected"
            with netns.entered(thief):
                ear = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
            with ear:
                assert knock(ENDPOINT, address, 22) == "connected"
                assert [packet for packet in _packets(ear) if b"\x00\x16" in packet[20:44]] == []


def _packets(ear):
    """What has come so far."""
    ear.setblocking(False)
    while True:
        try:
            yield ear.recv(256)
        except BlockingIOError:
            return


def _claim(namespace, address):
    """Gratuitous ARP, or an unsolicited neighbour advertisement with the override flag (RFC 4861)."""
    (link,) = ip.read(namespace, "link", "show", "dev", "eth0")
    mac = bytes.fromhex(link["address"].replace(":", ""))
    everyone = b"\xff" * 6
    with netns.entered(namespace):
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    with sock:
        sock.bind(("eth0", 0))
        if ":" not in address:
            packed = socket.inet_aton(address)
            for operation in (b"\x00\x01", b"\x00\x02"):
                body = b"\x00\x01\x08\x00\x06\x04" + operation + mac + packed + everyone + packed
                sock.send(everyone + mac + b"\x08\x06" + body)
            return
        packed = socket.inet_pton(socket.AF_INET6, address)
        advertisement = b"\x88\x00" + b"\x00\x00" + b"\xa0\x00\x00\x00" + packed + b"\x02\x01" + mac
        for source in (packed, socket.inet_pton(socket.AF_INET6, "fe80::99")):
            for destination in ("ff02::1", "fe80::1"):
                to = socket.inet_pton(socket.AF_INET6, destination)
                pseudo = source + to + len(advertisement).to_bytes(4, "big") + b"\x00\x00\x00\x3a"
                checked = advertisement[:2] + _checksum(pseudo + advertisement) + advertisement[4:]
                head = b"\x60\x00\x00\x00" + len(checked).to_bytes(2, "big") + b"\x3a\xff" + source + to
                (router,) = ip.read(VPC, "link", "show", "dev", "closed-1")
                sock.send(bytes.fromhex(router["address"].replace(":", "")) + mac + b"\x86\xdd" + head + checked)


def _checksum(data):
    data += b"\x00" * (len(data) % 2)
    total = sum(int.from_bytes(data[place : place + 2], "big") for place in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return (~total & 0xFFFF).to_bytes(2, "big")


@pytest.mark.parametrize("server", ["10.0.0.2", "169.254.169.253", "fd00:ec2::253"])
def test_a_dns_server_of_the_operators_is_reached_without_rules(fabric, server):
    """No group allows anything, and a server in the VPC's namespace still hears and answers; other ports do not."""
    made = dual(world({name: [] for name in GROUPS}, MEMBERS))
    fabric.apply(made)
    asker = made.instances[0].id
    own = six("10.0.1.11") if ":" in server else "10.0.1.11"
    with datagram(VPC, server, 53) as dns, datagram(VPC, server, 54) as other, datagram(asker, own) as sock:
        sock.sendto(b"query", (server, 53))
        query, peer = dns.recvfrom(64)
        assert (query, peer[0]) == (b"query", own)
        dns.sendto(b"answer", peer)
        assert sock.recv(64) == b"answer"
        sock.sendto(b"query", (server, 54))
        other.settimeout(0.2)
        with pytest.raises(TimeoutError):
            other.recv(64)


def test_the_router_speaks_under_its_own_address(fabric):
    """Errors of the router come from the subnet's router address, never from a service's."""
    fabric.apply(dual(world(GROUPS, MEMBERS)))
    chosen = ip.read(VPC, "-6", "route", "get", six("10.0.1.11"))
    assert chosen[0]["prefsrc"] == "2001:db8:0:1::1"
