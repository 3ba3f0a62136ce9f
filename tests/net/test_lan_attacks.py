"""A host of the network that means harm, registered or not: what it sends to the gateway, and what comes of it.

All frames are for the gateway's own link-layer address, or for everybody, so nothing but rules stands in their way.
"""

import json
import random
import socket
import struct
import time

import pytest

from tests.net.lan_rig import ip
from tests.net.packets import Ends, icmp, packet, tcp, udp
from tests.net.test_lan import LAN, OURS, OURS6, SUBNET, VPC, lan, made, through
from wicketgate.kernel import neighbour_frames as frames
from wicketgate.kernel import netns

__all__ = ["lan"]

EVERYBODY = "ff:ff:ff:ff:ff:ff"
INNER, INNER6 = "10.9.1.11", "fd09:0:0:1::11"
SYN = 2


class Attacker:
    """Raw frames from a host, and what comes back from the gateway."""

    def __init__(self, name, site):
        self.mac = site.mac(name)
        device = json.loads(ip("-j link show lan0", namespace=LAN))[0]
        self.gateway, self.index = device["address"], device["ifindex"]
        with netns.entered(name):
            self.sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self.sock.bind(("eth0", 3))
        self.sock.setblocking(False)

    def send(self, body, kind=None, to=None, tags=b""):
        """One frame; its type is that of the IP packet in it if nothing is said."""
        kind = kind or (0x0800 if body[0] >> 4 == 4 else 0x86DD)
        head = bytes.fromhex((to or self.gateway).replace(":", "") + self.mac.replace(":", ""))
        self.sock.send((head + tags + struct.pack("!H", kind) + body).ljust(60, b"\0"))

    def answers(self, seconds=0.2):
        """Frames of the gateway that came meanwhile, but for reports of multicast listeners, which nobody asks for."""
        time.sleep(seconds)
        found = []
        while True:
            try:
                frame, address = self.sock.recvfrom(2000)
            except BlockingIOError:
                return found
            ours = frame[6:12].hex(":") == self.gateway and address[2] != socket.PACKET_OUTGOING
            if ours and frame[:6] != bytes.fromhex("333300000016"):
                found.append(frame)

    def close(self):
        """End it."""
        self.sock.close()


def entered():
    """How many packets have come from machines' links into the VPC."""
    links = json.loads(ip("-j -s link show", namespace=VPC))
    return sum(one["stats64"]["rx"]["packets"] for one in links if one["ifname"] in ("m1", "m2"))


def state():
    """Addresses and routes of the namespace that is on the network."""
    found = [ip(*words.split(), namespace=LAN) for words in ("addr", "route show table all", "-6 route show table all")]
    return [[line for line in text.splitlines() if "expires" not in line] for text in found]


def syn(source, destination=None):
    """The first packet of a connection that the groups allow a machine of `web`."""
    destination = destination or (INNER6 if ":" in source else INNER)
    ends = Ends(source, destination, (4000, 80))
    return packet(source, destination, 6, tcp(ends, SYN, 1, 0, b""))


def advertisement(source="fe80::99"):
    """A router's, with a prefix and a life of half an hour."""
    prefix = struct.pack("!BBBBIII16s", 3, 4, 64, 0xC0, 1800, 1800, 0, socket.inet_pton(socket.AF_INET6, "2001:db8::"))
    ends = Ends(source, "ff02::1")
    return packet(*ends[:2], 58, icmp(ends, 134, 0, struct.pack("!BBH", 64, 0, 1800), bytes(8) + prefix), hops=255)


def redirect6():
    """That the endpoint's neighbour is elsewhere."""
    ends = Ends("fe80::1", OURS6)
    target = socket.inet_pton(socket.AF_INET6, "fe80::99") + socket.inet_pton(socket.AF_INET6, "fd09::11")
    return packet(*ends[:2], 58, icmp(ends, 137, 0, bytes(4), target), hops=255)


def redirect4():
    """The same of IPv4."""
    ends = Ends("10.9.0.3", OURS)
    quoted = packet(OURS, "10.9.0.11", 17, udp(Ends(OURS, "10.9.0.11", (1, 2)), b""))
    return packet(*ends[:2], 1, icmp(ends, 5, 1, socket.inet_aton("10.9.0.99"), quoted))


@pytest.fixture
def scene(lan):
    """A site whose machines' router is the gateway, and a host of it that is nobody's."""
    site, fabric, _ = lan("bridge", True, made(preserve=False))
    time.sleep(0.3)  # announcements
    attacker = Attacker("pc", site)
    yield site, fabric, attacker
    attacker.close()


SOURCES = (
    *("10.9.0.99", OURS, "10.9.0.1", INNER, "0.0.0.0", "255.255.255.255", "224.0.0.1", "10.9.0.255", "127.0.0.1"),
    *("169.254.169.254", "fe80::99", "fe80::1", OURS6, "fd09::1", INNER6, "::", "::1", "ff02::1", "fd00:ec2::254"),
)


def test_nothing_under_an_address_of_no_machine(scene):
    """Whoever's address is given, and whatever is carried, nothing comes into the VPC and nothing is answered."""
    _, fabric, attacker = scene
    before, was = entered(), state()
    sent = [syn(source) for source in SOURCES]
    sent += [syn(source, OURS6 if ":" in source else OURS) for source in SOURCES]
    for one in sent:
        attacker.send(one)
    for one in (redirect4(), redirect6(), advertisement()):
        attacker.send(one)
    attacker.send(advertisement(), to="33:33:00:00:00:01")
    dhcp = Ends("0.0.0.0", "255.255.255.255", (68, 67))
    attacker.send(packet(*dhcp[:2], 17, udp(dhcp, bytes(300))), to=EVERYBODY)
    assert (entered(), state(), attacker.answers()) == (before, was, [])
    assert fabric.lans[SUBNET].counters()["strangers"] >= len(sent)
    attacker.send(syn("10.9.0.11"))  # documented: under a machine's address anybody on its link can send
    attacker.send(syn("fd09::11"))
    assert entered() == before + 2


def test_nothing_in_other_frames(scene):
    """A machine's address in tagged, doubly tagged and other frames, for others and for everybody, leads nowhere."""
    _, _, attacker = scene
    before = entered()
    for body in (syn("10.9.0.11"), syn("fd09::11")):
        for tags in ("8100 0000", "8100 0001", "88a8 0001 8100 0001"):
            attacker.send(body, tags=bytes.fromhex(tags))
        attacker.send(b"\x11\0\0\1" + struct.pack("!HH", len(body) + 2, 0x21) + body, kind=0x8864)
        for to in (EVERYBODY, "01:00:5e:00:00:01", "33:33:00:00:00:01", "02:00:00:00:77:77"):
            attacker.send(body, to=to)
        attacker.send(body, kind=0x88CC)
        attacker.send(body[:12])
        attacker.send(body, kind=0x0800 if body[0] >> 4 == 6 else 0x86DD)
    assert (entered(), attacker.answers()) == (before, [])


def test_the_device_itself_answers_nothing(scene):
    """Neither ping nor any port of the device's own address, nor all nodes', by a stranger or by a machine."""
    site, _, attacker = scene
    own = json.loads(ip("-j -6 addr show dev lan0", namespace=LAN))[0]["addr_info"][0]["local"]
    machine = Attacker("m1", site)
    for host, sources in ((attacker, ("fe80::99", "fd09::99")), (machine, ("fe80::11", "fd09::11"))):
        for source in sources:
            for target, to in ((own, None), ("ff02::1", "33:33:00:00:00:01")):
                ends = Ends(source, target, (4000, 22))
                host.send(packet(source, target, 58, icmp(ends, 128, 0, bytes(4), b"")), to=to)
                host.send(packet(source, target, 6, tcp(ends, SYN, 1, 0, b"")), to=to)
                host.send(packet(source, target, 17, udp(ends, b"?")), to=to)
    # A machine may be told by the VPC's router that there is no way: under that router's address, not the device's.
    own_words = [
        one
        for one in machine.answers()
        if one[12:14] == b"\x86\xdd" and one[22:38] == socket.inet_pton(socket.AF_INET6, own)
    ]
    machine.close()
    assert (attacker.answers(), [one for one in own_words if one[54] not in (135, 136)]) == ([], [])


def test_floods_of_questions_take_no_places(scene):
    """3,000 who ask for the endpoint, each under another address: the neighbour table of the host stays as it is, and
    machines are reached meanwhile."""
    _, _, attacker = scene
    chance = random.Random(4)
    for number in range(3000):
        four = f"10.9.{chance.randrange(256)}.{chance.randrange(256)}"
        attacker.sock.send(frames.arp_request(attacker.mac, OURS, four))
        six = f"fe80::{chance.randrange(1 << 16):x}:{chance.randrange(1 << 16):x}"
        attacker.sock.send(frames.solicitation(attacker.mac, OURS6, six))
        if number % 1000 == 500:
            assert (through("10.9.0.11"), through("fd09::11")) == (OURS, OURS6)
    found = [one for one in json.loads(ip("-j neigh show nud all dev lan0", namespace=LAN)) if "lladdr" in one]
    assert len(found) < 150
    assert (through("10.9.0.11"), through("fd09::11")) == (OURS, OURS6)


def test_bounced_and_to_the_world(scene):
    """A machine sends to its neighbours, to the host, to the Internet and to itself by way of the gateway: nothing
    comes out again on the network."""
    site, _, _ = scene
    machine, witness = Attacker("m1", site), Attacker("m2", site)
    for target in ("10.9.0.12", "10.9.0.99", "10.9.0.3", "198.51.100.9", "10.9.0.11", OURS, "10.9.0.1", "10.9.0.255"):
        machine.send(syn("10.9.0.11", target))
    for target in ("fd09::12", "fd09::99", "2001:db8::9", "fd09::11", OURS6, "fd09::1", "ff02::1", "ff0e::1"):
        machine.send(syn("fd09::11", target))
    out = [one for one in witness.answers() + machine.answers(0) if _is_syn(one)]
    machine.close()
    witness.close()
    assert out == []


def _is_syn(frame):
    at = {b"\x08\0": 34, b"\x86\xdd": 54}.get(frame[12:14])
    protocol = frame[23] if at == 34 else frame[20]
    return at is not None and protocol == 6 and frame[at + 13] == SYN
