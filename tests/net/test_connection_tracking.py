"""Connection tracking as AWS describes it, behaviour by behaviour, with real packets.

One test, or a few, for each way in which security groups are stateful (EC2 User Guide, "Amazon EC2 security group
connection tracking"): replies; rules that go, of tracked and of untracked flows; what each side has decided for itself;
VPCs with the same addresses; idle time-outs; protocols without ports; ICMP errors; segments out of the blue; the cut at
once, which is ours; and how many connections there may be.
"""

import errno
import socket
import struct
from pathlib import Path

import msgspec
import pytest

from tests.net.families import datagram, family, hearing, knock, reach
from tests.net.flows import EVERYTHING, NAMES, OUT, PORT, TCP, UDP, addresses, arrives, flow, pair, without_rules
from tests.net.packets import ACK, PUSH, SYN, Ends, icmp, packet, sctp, tag, tcp, udp
from tests.net.rig import Rig
from tests.net.worlds import ENDPOINT, VPC, rule, world
from wicketgate import rules
from wicketgate.kernel import conntrack, netns
from wicketgate.kernel.nftables import Nftables
from wicketgate.model import Change, ConnectionTracking, apply_change

pytestmark = pytest.mark.slow  # that a packet is dropped is told by silence

VERSIONS = pytest.mark.parametrize("version", [4, 6])
KINDS = pytest.mark.parametrize("kind", [TCP, UDP])
OTHER_VPC = "vpc-00000000000000002"


@pytest.fixture
def rig():
    """Where packets are made by hand."""
    made = Rig()
    yield made
    made.close()


def entries(protocol, vpc=VPC):
    """What is tracked of a protocol."""
    return [one for one in conntrack.dump(vpc) if one.protocol == protocol]


# -- replies pass ------------------------------------------------------------------------------------------------------


@VERSIONS
@KINDS
def test_replies_pass(fabric, version, kind):
    """One rule out on one side and one rule in on the other are enough; the same the other way round begins nothing."""
    ports = (PORT, PORT)
    made = pair(version, [("out", NAMES[kind], ports, "near")], [("in", NAMES[kind], ports, "near")])
    fabric.apply(made)
    with flow(made, version, kind) as (client, server):
        assert arrives(server, client)
    a, b = (instance.id for instance in made.instances)
    source, target = addresses(version)
    assert reach(b, source, PORT) == "nothing"
    with datagram(b, target) as sender, datagram(a, source, PORT) as receiver:
        sender.connect((source, PORT))
        assert not arrives(sender, receiver)


@VERSIONS
def test_replies_to_a_ping_pass(rig, version):
    """ICMP is tracked by identifier and always, even where every rule is for any address: its answers need no rule."""
    kind, answer, number = (8, 0, 1) if version == 4 else (128, 129, 58)
    name = "icmp" if version == 4 else "icmpv6"
    made = pair(version, [("out", name, (kind, -1), "any")], [("in", name, (kind, -1), "any")])
    rig.apply(made)
    source, target = addresses(version)

    def echo(ends, sort, identifier):
        rest = struct.pack("!HH", identifier, 1)
        return lambda mark: [packet(ends.source, ends.destination, number, icmp(ends, sort, 0, rest, tag(mark)))]

    there = Ends(source, target)
    assert rig.fire([("a", echo(there, kind, 7), "b")]) == [{"b"}]
    assert rig.fire([("b", echo(there.swapped, answer, 7), "a"), ("b", echo(there.swapped, answer, 8), None)]) == [
        {"a"},
        set(),
    ]


# -- a tracked flow survives the removal of its rule -------------------------------------------------------------------


@VERSIONS
@KINDS
def test_a_tracked_flow_survives_its_rules(fabric, version, kind):
    """All rules of both sides go: what is open goes on both ways, a new flow does not begin."""
    made = pair(version, [("out", "-1", (-1, -1), "near")], [("in", NAMES[kind], (PORT, PORT), "near")])
    fabric.apply(made)
    with flow(made, version, kind) as (client, server):
        fabric.apply(without_rules(without_rules(made, "server"), "client"))
        assert arrives(client, server)
        assert arrives(server, client)
        assert reach(made.instances[0].id, addresses(version)[1], PORT) == "nothing"


# -- an untracked flow is cut at once ----------------------------------------------------------------------------------


@VERSIONS
@pytest.mark.parametrize(
    ("inbound", "outbound", "survives"),
    [("near", "any", True), ("any", "any", False), ("any", None, True)],
    ids=["a narrow rule", "any address both ways", "any address in, nothing out"],
)
def test_what_is_cut_by_the_removal_of_a_rule(fabric, version, inbound, outbound, survives):
    """TCP that a rule for any address lets in, while all ports are open to any address the other way, is cut with the
    rule and takes up again when the rule is back; with either of the two narrower, or missing, it goes on."""
    server = [("in", "tcp", (PORT, PORT), inbound)] + ([("out", "tcp", (0, 65535), outbound)] if outbound else [])
    made = pair(version, [("out", "-1", (-1, -1), "near")], server)
    fabric.apply(made)
    with flow(made, version, TCP) as (client, server_end):
        fabric.apply(without_rules(made, "server"))
        assert (arrives(client, server_end), arrives(server_end, client)) == (survives, survives)
        fabric.apply(made)
        assert arrives(client, server_end, wait=3)


@pytest.mark.parametrize(("kept", "cut"), [(4, 6), (6, 4)])
def test_families_are_untracked_apart(fabric, kept, cut):
    """What makes a flow untracked in one family says nothing about the other (EC2 User Guide)."""
    near, untracked = ("in", "tcp", (PORT, PORT), "near"), [("in", "tcp", (PORT, PORT), "any"), OUT]
    halves = pair(kept, EVERYTHING, [near, OUT]), pair(cut, EVERYTHING, untracked)
    groups = tuple(
        msgspec.structs.replace(one, rules=(*one.rules, *(halves[1].group(one.id).rules))) for one in halves[0].groups
    )
    made = msgspec.structs.replace(halves[0], groups=groups)
    fabric.apply(made)
    with flow(made, kept, TCP) as stays, flow(made, cut, TCP) as goes:
        fabric.apply(without_rules(made, "server"))
        assert (arrives(*stays), arrives(*goes)) == (True, False)


@VERSIONS
def test_untracked_flows_are_in_the_table(rig, version):
    """No ruleset says `notrack`: without an entry an ICMP error about an untracked flow would be of no flow, and could
    not be let in by a rule for its type."""
    inbound = ("in", "icmp" if version == 4 else "icmpv6", (3, 3) if version == 4 else (1, 4), "near")
    made = pair(version, [OUT, ("in", "udp", (0, 65535), "any"), inbound], [("in", "udp", (PORT, PORT), "near")])
    assert "notrack" not in rules.render(rules.compile_vpc(made, VPC))
    rig.apply(made)
    nft = Nftables(VPC)
    try:
        assert "notrack" not in nft.run("list ruleset")
    finally:
        nft.close()
    ends = Ends(*addresses(version), (4000, PORT))
    assert rig.fire([("a", _datagram(ends), "b")]) == [{"b"}]
    (entry,) = entries(17)
    assert entry.mark & 0x3 == 0x1
    assert rig.fire([("b", _unreachable(ends), "a")]) == [{"a"}]
    rig.apply(without_rules(made, "client"))
    assert rig.fire([("b", _unreachable(ends), None)]) == [set()]


def _datagram(ends):
    return lambda mark: [packet(ends.source, ends.destination, 17, udp(ends, tag(mark)))]


def _unreachable(ends):
    """What the far end says when nobody listens."""

    def made(mark):
        about = packet(ends.source, ends.destination, 17, udp(ends, b"some more bytes"))
        back = ends.swapped
        six = ":" in ends.source
        kind, code = (1, 4) if six else (3, 3)
        return [
            packet(back.source, back.destination, 58 if six else 1, icmp(back, kind, code, bytes(4), about + tag(mark)))
        ]

    return made


# -- each side decides for itself --------------------------------------------------------------------------------------


@VERSIONS
@KINDS
@pytest.mark.parametrize("client", [False, True])
@pytest.mark.parametrize("server", [False, True])
def test_a_bit_for_each_side(fabric, version, kind, client, server):
    """Both interfaces are on one router, so the connection mark says for each whether the flow is untracked there."""
    one = EVERYTHING if client else [("out", NAMES[kind], (PORT, PORT), "near")]
    other = EVERYTHING if server else [("in", NAMES[kind], (PORT, PORT), "near")]
    made = pair(version, one, other)
    fabric.apply(made)
    with flow(made, version, kind) as ends:
        (entry,) = entries({TCP: 6, UDP: 17}[kind])
        assert entry.mark == client * 0x1 + server * 0x2
        fabric.apply(without_rules(made, "client"))
        assert arrives(*ends) is not client
        fabric.apply(without_rules(made, "server"))
        assert arrives(*ends) is not server


# -- VPCs with the same addresses --------------------------------------------------------------------------------------


def test_vpcs_with_the_same_addresses(fabric):
    """The same addresses and ports in two VPCs are two flows: each VPC has its own table, so that one's rules, marks
    and ends are nothing to the other."""
    made = _twice(pair(4, EVERYTHING, EVERYTHING))
    fabric.apply(made)
    source, target = addresses(4)
    sockets = []
    ids = [one.id for one in made.instances]
    for a, b in (ids[:2], ids[2:]):
        client, server = datagram(a, source, 4000), datagram(b, target, PORT)
        client.connect((target, PORT))
        server.connect((source, 4000))
        sockets.append((client, server))
    try:
        for number, (client, server) in enumerate(sockets):
            client.send(b"%d" % number)
            assert server.recv(8) == b"%d" % number
            server.send(b"%d" % number)
            assert client.recv(8) == b"%d" % number
        assert [len(entries(17, vpc)) for vpc in (VPC, OTHER_VPC)] == [1, 1]
        assert conntrack.forget(VPC, [target]) == 1
        assert [len(entries(17, vpc)) for vpc in (VPC, OTHER_VPC)] == [0, 1]
        fabric.apply(_without_second(made))
        assert [arrives(*ends) for ends in sockets] == [True, False]
    finally:
        for ends in sockets:
            for end in ends:
                end.close()


def _twice(made):
    """The World with another VPC just like it."""
    other = {one.id: one.id.replace("sg-", "sg-2")[:20] for one in made.groups}
    subnet = "subnet-00000000000000002"
    groups = tuple(
        msgspec.structs.replace(
            one,
            id=other[one.id],
            vpc_id=OTHER_VPC,
            rules=tuple(msgspec.structs.replace(each, id=each.id.replace("sgr-", "sgr-2")[:21]) for each in one.rules),
        )
        for one in made.groups
    )
    machines = [eni for eni in made.interfaces if eni.link != "endpoint"]
    interfaces = tuple(
        msgspec.structs.replace(
            eni,
            id=eni.id.replace("eni-0", "eni-2"),
            subnet_id=subnet,
            link=f"{eni.link}-2",
            group_ids=tuple(other[one] for one in eni.group_ids),
        )
        for eni in machines
    )
    instances = tuple(
        msgspec.structs.replace(one, id=one.id.replace("i-", "i-2")[:19], interface_id=eni.id)
        for one, eni in zip(made.instances, interfaces, strict=True)
    )
    twice = msgspec.structs.replace(
        made,
        vpcs=(*made.vpcs, msgspec.structs.replace(made.vpcs[0], id=OTHER_VPC)),
        subnets=(*made.subnets, msgspec.structs.replace(made.subnets[0], id=subnet, vpc_id=OTHER_VPC)),
        groups=(*made.groups, *groups),
        interfaces=(*made.interfaces, *interfaces),
        instances=(*made.instances, *instances),
    )
    twice.check()
    return twice


def _without_second(made):
    """No group of the second VPC has rules."""
    groups = (msgspec.structs.replace(one, rules=() if one.vpc_id == OTHER_VPC else one.rules) for one in made.groups)
    return msgspec.structs.replace(made, groups=tuple(groups))


# -- idle time-outs of an interface ------------------------------------------------------------------------------------


@VERSIONS
@KINDS
@pytest.mark.parametrize("link", ["a", "b"])
def test_time_outs_of_an_interface(fabric, version, kind, link):
    """What an interface asks for holds for flows that it opens and that are opened to it; others keep the defaults."""
    made = pair(version, EVERYTHING, EVERYTHING)
    asked = ConnectionTracking(tcp_established=350, udp_stream=90, udp=45)
    eni = next(one for one in made.interfaces if one.link == link)
    other = next(one for one in made.interfaces if one.link in {"a", "b"} - {link})
    longer = ConnectionTracking(udp=60)  # by default an interface has the shortest that may be asked for
    asking = (
        msgspec.structs.replace(eni, connection_tracking=asked),
        msgspec.structs.replace(other, connection_tracking=longer),
    )
    for puts, established, unanswered in (((), 432_000, 30), (asking, 350, 45)):
        now = apply_change(made, Change(puts=puts))
        fabric.apply(now)
        with flow(now, version, kind):
            (entry,) = entries({TCP: 6, UDP: 17}[kind])
            wanted = established if kind == TCP else unanswered
            assert wanted - 5 <= entry.timeout <= wanted
        conntrack.forget(VPC, addresses(version))


# -- other protocols ---------------------------------------------------------------------------------------------------


@VERSIONS
@pytest.mark.parametrize("number", [253, 50, 47, 33, 132])
def test_other_protocols_are_tracked_by_addresses(rig, version, number):
    """A packet back between the same addresses is a reply for 600 seconds; of another protocol it is none.

    GRE and SCTP have trackers of their own in Linux, with 600 seconds as well; DCCP (33) has none any more.
    """
    made = pair(version, [("out", str(number), (-1, -1), "any")], [("in", str(number), (-1, -1), "any")])
    rig.apply(made)
    ends = Ends(*addresses(version), (4000, 9))
    assert rig.fire([("a", _of(ends, number), "b")]) == [{"b"}]
    (entry,) = entries(number)
    assert 595 <= entry.timeout <= 600
    back = ends.swapped
    answers = [("b", _of(back, number, answer=True), "a"), ("b", _of(back, 254), None)]
    assert rig.fire(answers) == [{"a"}, set()]
    (entry,) = entries(number)
    assert entry.status & conntrack.SEEN_REPLY
    assert 595 <= entry.timeout <= 600


def _of(ends, number, *, answer=False):
    def made(mark):
        body = {
            47: struct.pack("!HH", 0, 0x0800) + tag(mark),
            132: sctp(ends.ports, 0x11111111 if answer else 0, 2 if answer else 1, tag(mark)),
        }.get(number, struct.pack("!II", 0x1000, 1) + tag(mark))
        return [packet(ends.source, ends.destination, number, body)]

    return made


@VERSIONS
def test_udp_lite_is_timed_as_udp(rig, version):
    """Linux tracks it by ports and has no time-out of its own for it: those of UDP count, 30 and 180 seconds."""
    made = pair(version, [("out", "136", (-1, -1), "near")], [("in", "136", (-1, -1), "near")])
    rig.apply(made)
    ends = Ends(*addresses(version), (4000, 9))
    shot = [packet(ends.source, ends.destination, 136, udp(ends, tag(1), 136))]
    assert rig.fire([("a", lambda mark: [shot[0].replace(tag(1), tag(mark))], "b")]) == [{"b"}]
    (entry,) = entries(136)
    assert (entry.original.source_port, entry.original.destination_port) == (4000, 9)
    assert 25 <= entry.timeout <= 30


# -- ICMP errors of tracked flows --------------------------------------------------------------------------------------


@VERSIONS
@pytest.mark.parametrize("tracked", [True, False])
def test_icmp_errors_of_flows(fabric, version, tracked):
    """Without any rule for ICMP the error about a tracked flow arrives, that about an untracked one does not."""
    client = [OUT] if tracked else [OUT, ("in", "udp", (0, 65535), "any")]
    made = pair(version, client, [("in", "udp", (PORT, PORT), "near")])
    fabric.apply(made)
    target = addresses(version)[1]
    with netns.entered(made.instances[0].id):
        sock = socket.socket(family(target), UDP)
    with sock:
        sock.connect((target, PORT))
        sock.settimeout(0.3)
        sock.send(b"nobody listens")
        with pytest.raises(OSError) as raised:
            sock.recv(16)
        assert (raised.value.errno == errno.ECONNREFUSED) is tracked


# -- segments in the middle of a connection ----------------------------------------------------------------------------


@VERSIONS
@pytest.mark.parametrize(
    "flags", [ACK, ACK | PUSH, SYN | ACK, 0x01 | ACK, 0x04], ids=["ack", "data", "syn-ack", "fin", "rst"]
)
def test_segments_out_of_the_blue(rig, version, flags):
    """Only a SYN begins a connection, whatever the rules allow; everything else of an unknown one is dropped."""
    made = pair(version, EVERYTHING, EVERYTHING)
    rig.apply(made)
    ends = Ends(*addresses(version), (4000, PORT))

    def segment(what):
        return lambda mark: [packet(ends.source, ends.destination, 6, tcp(ends, what, 1000, 5000, tag(mark)))]

    assert rig.fire([("a", segment(flags), None)]) == [set()]
    assert rig.counters(made)[VPC, "invalid"] == 1
    assert entries(6) == []
    assert rig.fire([("a", segment(SYN), "b")]) == [{"b"}]


@VERSIONS
@pytest.mark.parametrize("open_", [False, True], ids=["tracked", "untracked"])
def test_segments_outside_of_the_window(rig, version, open_):
    """What cannot be of the connection, by its sequence number (RFC 9293), is dropped, whatever the rules allow."""
    made = pair(version, EVERYTHING, EVERYTHING if open_ else [("in", "tcp", (PORT, PORT), "near")])
    rig.apply(made)
    there = Ends(*addresses(version), (4000, PORT))

    def segment(ends, flags, sequence, acknowledged, payload=True):
        def made(mark):
            data = tag(mark) if payload else b""
            return [packet(ends.source, ends.destination, 6, tcp(ends, flags, sequence, acknowledged, data))]

        return made

    taken = len(tag(0))
    opened = [("a", segment(there, SYN, 1000, 0), "b")]
    opened += [("b", segment(there.swapped, SYN | ACK, 5000, 1001 + taken), "a")]
    for shot in opened:
        assert rig.fire([shot]) == [{shot[2]}]
    data = ACK | PUSH
    assert rig.fire([("a", segment(there, data, 1001 + taken, 5001 + taken), "b")]) == [{"b"}]
    assert rig.fire([("a", segment(there, data, 1001 + taken + 10_000_000, 5001 + taken), None)]) == [set()]
    assert rig.fire([("a", segment(there, data, 1001 + 2 * taken, 5001 + taken), "b")]) == [{"b"}]


# -- the cut at once, beyond AWS ---------------------------------------------------------------------------------------


@VERSIONS
def test_what_is_deleted_from_the_table_is_cut(fabric, version):
    """The means of `revocation = "immediate"`: without its entry a connection that the rules allow is dead both ways,
    since it cannot begin in its middle; a new one begins."""
    made = pair(version, EVERYTHING, EVERYTHING)
    fabric.apply(made)
    with flow(made, version, TCP) as (client, server):
        (entry,) = entries(6)
        assert conntrack.delete(VPC, entry) == 1
        assert (arrives(client, server), arrives(server, client)) == (False, False)
    with flow(made, version, TCP, PORT + 1):
        pass


# -- how many ----------------------------------------------------------------------------------------------------------


def test_the_number_of_connections_is_the_kernels():
    """AWS counts per instance; here each VPC may have as many as the kernel's nf_conntrack_max, which only the host's
    root sets: inside a network namespace it cannot be written, so no VPC changes it for others."""
    maximum = Path("/proc/sys/net/netfilter/nf_conntrack_max")
    assert int(maximum.read_text()) > 0
    assert not maximum.stat().st_mode & 0o222


def test_endpoints_are_always_tracked(fabric):
    """Even with everything open to any address both ways no flow of theirs is marked as untracked."""
    free = [rule("out", "-1", (-1, -1), "0.0.0.0/0"), rule("in", "-1", (-1, -1), "0.0.0.0/0")]
    made = world({"endpoint": free, "near": [rule("in", "tcp", (22, 22), "10.0.1.0/24")]}, {"a": ["near"]})
    fabric.apply(made)
    with hearing([made.instances[0].id], (22,)):
        assert knock(ENDPOINT, "10.0.1.11", 22) == "connected"
    (entry,) = entries(6)
    assert entry.mark & 0x3 == 0
