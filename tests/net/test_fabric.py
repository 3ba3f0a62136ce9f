"""The fabric in a real kernel: who reaches whom, what is refused and how fast, and what reconcile leaves alone."""

import errno
import itertools
import socket
import time

import msgspec
import pytest

from tests.net.worlds import CLIENT, ENDPOINT, VPC, attempt, listening, preserving, rule, world
from wicketgate import rules
from wicketgate.kernel import ip, netns
from wicketgate.kernel.dial import IP_TRANSPARENT, dial
from wicketgate.kernel.fabric import Fabric
from wicketgate.kernel.nftables import Nftables
from wicketgate.model import FabricError, World

GROUPS = {
    "endpoint": [rule("out", "tcp", (22, 22), "sg:web")],
    "web": [
        rule("in", "tcp", (22, 22), "sg:endpoint"),
        rule("in", "tcp", (80, 80), "sg:web"),
        rule("out", "tcp", (80, 80), "sg:web"),
        rule("out", "tcp", (5432, 5432), "sg:db"),
    ],
    "db": [rule("in", "tcp", (5432, 5432), "10.0.1.0/24")],
    "closed": [],
}
MEMBERS = {"web-1": ["web"], "web-2": ["web"], "db-1": ["db"], "closed-1": ["closed"]}
PORTS = (22, 80, 5432)

EXPECTED = """
endpoint web-1 22
endpoint web-2 22
web-1 web-2 80
web-2 web-1 80
web-1 db-1 5432
web-2 db-1 5432
"""


@pytest.mark.parametrize("preserve", [False, True])
def test_connectivity_matrix(fabric, preserve):
    """Exactly the pairs that the groups allow connect, all others do not, in both modes."""
    made = world(GROUPS, MEMBERS, preserve=preserve)
    fabric.apply(made)
    seen = set()
    with listening(made, PORTS):
        for sender, receiver, port in itertools.product(made.interfaces, made.interfaces, PORTS):
            if sender.link != receiver.link:
                outcome = attempt(made, sender, receiver.private_ip_address, port, wait=0.02)
                if outcome == "connected":
                    seen.add(f"{sender.link} {receiver.link} {port}")
    assert sorted(seen) == sorted(EXPECTED.split("\n")[1:-1])


@pytest.mark.parametrize("preserve", [False, True])
def test_refused_dial_answers_at_once(fabric, preserve):
    """200 of 200 dials that the rules refuse fail within 50 ms, and so does one to an address without a machine."""
    made = world(GROUPS, MEMBERS, preserve=preserve)
    fabric.apply(made)
    for address in ["10.0.1.13"] * 200 + ["10.0.1.99", "10.0.200.1"]:
        started = time.monotonic()
        outcome = attempt(made, made.interfaces[0], address, 22, wait=1.0)
        took = time.monotonic() - started
        assert (outcome, took < 0.05) == ("EHOSTUNREACH", True), (address, took)


def test_forged_source_gains_nothing(fabric):
    """An instance that sends with the endpoint's or a client's address is dropped by the source check, and counted."""
    for preserve, forged in ((False, "10.0.1.10"), (True, CLIENT)):
        made = world({**GROUPS, "db": [rule("out", "-1", (-1, -1), "0.0.0.0/0")]}, MEMBERS, preserve=preserve)
        fabric.apply(made)
        before = fabric.counters(VPC)["forged_source"]
        with listening(made, (22,)):
            assert attempt(made, made.interfaces[3], "10.0.1.11", 22, source=forged) == "nothing"
        assert fabric.counters(VPC)["forged_source"] > before


def test_nobody_connects_to_an_endpoint(fabric):
    """A new packet towards the endpoint's interface is dropped and counted, whatever the inbound rules say."""
    for inbound in ([], [rule("in", "-1", (-1, -1), "0.0.0.0/0")]):
        groups = {**GROUPS, "endpoint": inbound, "web": [rule("out", "-1", (-1, -1), "0.0.0.0/0")]}
        made = world(groups, MEMBERS)
        fabric.apply(made)
        before = fabric.counters(VPC)["to_endpoint"]
        assert attempt(made, made.interfaces[1], "10.0.1.10", 22) == "nothing"
        assert fabric.counters(VPC)["to_endpoint"] > before


def test_tracked_flow_survives_its_rule(fabric):
    """Taking a rule away refuses new connections and leaves an established one alone (EC2 User Guide, tracking)."""
    made = world(GROUPS, MEMBERS)
    fabric.apply(made)
    with netns.entered(made.instances[0].id):
        listener = socket.create_server(("0.0.0.0", 22))
    with listener:
        sock, _ = dial(ENDPOINT, "10.0.1.11", 22, None)
        peer, _ = listener.accept()
        fabric.apply(msgspec.structs.replace(made, revision=2, groups=tuple(_emptied(made, "web"))))
        assert attempt(made, made.interfaces[0], "10.0.1.11", 22) == "EHOSTUNREACH"
        sock.setblocking(True)
        sock.sendall(b"still here")
        assert peer.recv(32) == b"still here"
        sock.close()
        peer.close()


def _emptied(made, name):
    return (msgspec.structs.replace(one, rules=()) if one.name == name else one for one in made.groups)


def test_incremental_equals_whole(fabric):
    """Every way to a World gives the same ruleset in the kernel as building it whole."""
    worlds = [
        world(GROUPS, MEMBERS, revision=1),
        world(GROUPS, {**MEMBERS, "closed-1": ["closed", "web"]}, revision=2),
        world({**GROUPS, "extra": [rule("in", "udp", (53, 53), "0.0.0.0/0")]}, MEMBERS, preserve=True, revision=3),
        world({"endpoint": [], "web": []}, {"web-1": ["web"]}, revision=4),
    ]
    netns.create("whole")
    nft = Nftables("whole")
    for made in [*worlds, *reversed(worlds), worlds[2]]:
        fabric.apply(made)
        nft.run(rules.render(rules.compile_vpc(made, VPC)))
        assert _normal(VPC) == _normal("whole")
    nft.close()
    netns.delete("whole")


def _normal(namespace):
    """The ruleset as the kernel lists it, without counts, handles and order of declaration."""
    nft = Nftables(namespace)
    try:
        listed = nft.run(f"list table inet {rules.TABLE}")
    finally:
        nft.close()
    blocks, current = [], []
    for line in listed.splitlines()[1:-1]:
        line = " ".join(word for word in line.split())
        if not line or line.startswith("packets"):
            continue
        if "counter packets" in line:
            line = 'counter comment "' + line.split('"')[1]
        current.append(line)
        if line == "}":
            blocks.append("\n".join(sorted(current) if "elements" in " ".join(current) else current))
            current = []
    return sorted(blocks)


def test_foreign_tables_untouched(fabric):
    """A table that somebody else put into the VPC's namespace is there, unchanged, after every kind of apply."""
    made = world(GROUPS, MEMBERS)
    fabric.apply(made)
    nft = Nftables(VPC)
    nft.run("add table ip foreign\nadd chain ip foreign c\nadd rule ip foreign c tcp dport 1 drop")
    before = nft.run("list table ip foreign")
    fabric.apply(preserving(msgspec.structs.replace(made, revision=2), on=True))
    fresh = Fabric()
    fresh.apply(made)
    fresh.close()
    assert nft.run("list table ip foreign") == before
    nft.close()


def test_reconcile_leaves_a_matching_ruleset_alone(fabric):
    """A restarted netd that finds its own fingerprint changes nothing: counters keep their values."""
    made = world(GROUPS, MEMBERS)
    fabric.apply(made)
    attempt(made, made.interfaces[0], "10.0.1.13", 22)
    before = fabric.counters(VPC)
    assert before["snd_stop_endpoint"] == 1
    fresh = Fabric()
    fresh.apply(made)
    assert fresh.counters(VPC) == before
    fresh.close()


def test_removed_things_leave_nothing(fabric):
    """An empty World removes every namespace of ours and no other."""
    netns.create("somebody-elses")
    fabric.apply(world(GROUPS, MEMBERS, preserve=True))
    assert VPC in netns.names()
    fabric.apply(World(revision=2))
    assert netns.names() == {"somebody-elses"}
    netns.delete("somebody-elses")


def test_failed_change_says_why(fabric):
    """A World the kernel cannot take raises FabricError with the kernel's words."""
    made = world(GROUPS, MEMBERS)
    bad = msgspec.structs.replace(
        made,
        interfaces=tuple(msgspec.structs.replace(one, link=one.link + "-much-too-long") for one in made.interfaces),
    )
    with pytest.raises(FabricError, match=r"(?i)name|string|too long|exceed"):
        fabric.apply(bad)


def test_dial_refuses_addresses_the_kernel_replaces(fabric):
    """Broadcast and 0.0.0.0 as client address are an error, never a silent use of another address."""
    made = world(GROUPS, MEMBERS, preserve=True)
    fabric.apply(made)
    for address in ("0.0.0.0", "255.255.255.255"):
        with pytest.raises(OSError) as caught:
            dial(ENDPOINT, "10.0.1.11", 22, address)[0].close()
        assert caught.value.errno in (errno.EADDRNOTAVAIL, errno.EACCES, errno.EINVAL)


@pytest.mark.parametrize("preserve", [False, True])
def test_return_route_is_the_endpoint(fabric, preserve):
    """Replies to flows of an endpoint go back by mark and table, through its address, whatever address they bear."""
    fabric.apply(world(GROUPS, MEMBERS, preserve=preserve))
    routes = ip.read(VPC, "route", "show", "table", "1001")
    assert [(one["gateway"], one["dev"]) for one in routes] == [("10.0.1.10", "endpoint")]
    marks = [(one["fwmark"], one["table"]) for one in ip.read(VPC, "rule", "show") if "fwmark" in one]
    assert marks == [("0x10000", "1001")]


@pytest.mark.parametrize("preserve", [False, True])
def test_icmp_error_about_a_reply_reaches_the_target(fabric, preserve):
    """What the router has to say about a target's packet is told to the target, not to the endpoint."""
    made = world(GROUPS, MEMBERS, preserve=preserve)
    fabric.apply(made)
    with netns.entered(made.instances[0].id):
        listener = socket.create_server(("0.0.0.0", 22))
        heard = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    ours, _ = dial(ENDPOINT, "10.0.1.11", 22, CLIENT if preserve else None)
    with listener, heard, ours:
        heard.settimeout(2)
        peer, _ = listener.accept()
        with peer:
            peer.setsockopt(socket.SOL_IP, socket.IP_TTL, 1)
            peer.sendall(b"expires at the router")
            assert heard.recv(256)[20] == 11, "time exceeded (RFC 792)"


@pytest.mark.parametrize("name", ["a", "n", "d", "up", "dev", "type", "mtu", "peer"])
def test_links_that_are_called_like_words_of_ip(fabric, name):
    """A link whose name is a word of ip(8), or the beginning of one, is made, used and removed as any other."""
    made = world(GROUPS, {name: ["web"]})
    for _ in range(2):
        fabric.apply(made)
        with listening(made, (22,)):
            assert attempt(made, made.interfaces[0], "10.0.1.11", 22, wait=2) == "connected"
        fabric.apply(world(GROUPS, {}, revision=2))
        assert name not in {one["ifname"] for one in ip.read(VPC, "link", "show")}


def test_router_does_not_answer_a_forged_source(fabric):
    """A forged packet that would expire at the router is dropped and counted before routing: nobody hears of it."""
    made = world({**GROUPS, "closed": []}, MEMBERS)
    fabric.apply(made)
    before = fabric.counters(VPC)
    victim, forger = made.instances[2].id, made.instances[3].id
    with netns.entered(victim):
        heard = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    with netns.entered(forger):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with heard, sock:
        heard.settimeout(0.2)
        sock.setsockopt(socket.SOL_IP, IP_TRANSPARENT, 1)
        sock.setsockopt(socket.SOL_IP, socket.IP_TTL, 1)
        sock.bind(("10.0.1.13", 0))  # the victim's address
        sock.sendto(b"payload", ("10.0.1.11", 9))
        with pytest.raises(TimeoutError):
            heard.recv(256)
    assert fabric.counters(VPC)["forged_source"] == before["forged_source"] + 1


def test_new_owner_of_an_address_inherits_no_flow(fabric):
    """An instance that takes over an address gets nothing of the connections of the one that had it."""
    free = [rule("out", "-1", (-1, -1), "0.0.0.0/0"), rule("in", "udp", (9, 9), "0.0.0.0/0")]
    groups = {"endpoint": [], "free": free, "closed": []}
    made = world(groups, {"one": ["free"], "two": ["free"]})
    fabric.apply(made)
    with netns.entered(made.instances[0].id):
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with netns.entered(made.instances[1].id):
        receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with sender, receiver:
        receiver.bind(("0.0.0.0", 9))
        receiver.settimeout(1)
        sender.sendto(b"hello", ("10.0.1.12", 9))
        _, peer = receiver.recvfrom(64)
        receiver.sendto(b"hello", peer)
        fabric.apply(world(groups, {"one": ["free"], "fresh": ["closed"]}, revision=2))
        again = world(groups, {"one": ["free"], "fresh": ["closed"]}, revision=2)
        with netns.entered(again.instances[1].id):
            heir = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with heir:
            heir.bind(("0.0.0.0", 9))
            heir.settimeout(0.2)
            sender.sendto(b"still there?", ("10.0.1.12", 9))
            with pytest.raises(TimeoutError):
                heir.recv(64)


def test_link_taken_over_by_another_interface(fabric):
    """Links swapped between instances, and an address changed: a Fabric without memory makes exactly the new World."""
    made = world(GROUPS, {"web-1": ["web"], "db-1": ["db"]})
    fabric.apply(made)
    swapped = msgspec.structs.replace(
        made,
        revision=2,
        interfaces=(
            made.interfaces[0],
            msgspec.structs.replace(made.interfaces[1], link="db-1", private_ip_address="10.0.1.77"),
            msgspec.structs.replace(made.interfaces[2], link="web-1"),
        ),
    )
    fresh = Fabric()
    fresh.apply(swapped)
    fresh.close()
    with listening(swapped, (22,)):
        assert attempt(swapped, swapped.interfaces[0], "10.0.1.77", 22) == "connected"
        assert attempt(swapped, swapped.interfaces[0], "10.0.1.11", 22) == "EHOSTUNREACH"
    addresses = [
        one["local"]
        for link in ip.read(made.instances[0].id, "-4", "address", "show", "eth0")
        for one in link["addr_info"]
    ]
    assert addresses == ["10.0.1.77"]
