"""Connections that stand, and changes that would not let them begin: by default tracked ones go on, as at AWS; where
revocation is immediate they are cut when the change is acknowledged."""

import os
import select
import socket
import time
from contextlib import contextmanager

import msgspec
import pytest

from tests.net.families import BLOCK6, SUBNET6, dual, family, rule6, six
from tests.net.test_netd import Process
from tests.net.test_peering import A1, B1, TO_B1, TO_B1_6, A, peered
from tests.net.worlds import CLIENT, VPC, rule, sg, world
from wicketgate import ipc
from wicketgate.kernel import conntrack, netns
from wicketgate.model import Change, Settings, apply_change
from wicketgate.model.resources import REVOCATION_TAG

GROUPS = {
    "endpoint": [rule("out", "tcp", (22, 22), "sg:server")],
    "client": [rule("out", "-1", (-1, -1), "10.0.0.0/16")],
    "server": [
        rule("in", "tcp", (22, 22), "sg:endpoint"),
        rule("in", "tcp", (80, 80), "sg:client"),
        rule("in", "tcp", (8080, 8080), "sg:client"),
        rule("in", "udp", (53, 53), "10.0.1.0/24"),
    ],
    "other": [rule("in", "tcp", (9, 9), "10.0.0.0/8")],
}
MEMBERS = {"a": ["client"], "b": ["server"], "c": ["client"]}
SERVER = "10.0.1.12"


def revoking(made, revocation="immediate", **changes):
    """The World with this setting."""
    return msgspec.structs.replace(made, settings=Settings(revocation=revocation), **changes)


class Live:
    """A netd, its present World, and connections between its instances."""

    def __init__(self, process, made):
        self.process, self.world = process, made
        self.enforce(made)

    def restart(self, directory):
        """Kill netd and start another one, which has no World yet."""
        self.process.process.kill()
        self.process.stop()
        self.process.__init__(directory)

    def enforce(self, made):
        """Apply the next World."""
        self.world = msgspec.structs.replace(made, revision=self.world.revision + 1)
        assert self.process.apply(self.world) == self.world.revision

    def change(self, *puts):
        """Apply a Change, which touches no more than it must."""
        change = Change(puts=puts)
        self.world = apply_change(self.world, change)
        self.process.feed.sendall(ipc.frame(ipc.step(self.world.revision, change)))
        assert ipc.read_answer(self.process.feed) == self.world.revision

    def rules(self, name, *rules):
        """Other rules in a group."""
        self.change(msgspec.structs.replace(self.world.group(sg(name)), rules=rules))

    def groups_of(self, link, *names):
        """Other groups for an interface."""
        (eni,) = (one for one in self.world.interfaces if one.link == link)
        self.change(msgspec.structs.replace(eni, group_ids=tuple(sg(one) for one in names)))

    def without_rules(self, name):
        """The World with an empty group."""
        groups = (msgspec.structs.replace(one, rules=()) if one.name == name else one for one in self.world.groups)
        return msgspec.structs.replace(self.world, groups=tuple(groups))

    def preserve(self, on):
        """Switch client IP preservation."""
        self.change(msgspec.structs.replace(self.world.endpoints[0], preserve_client_ip=on))

    def stream(self, sender="a", port=80, server=SERVER):
        """A TCP connection between two instances: both ends."""
        return connection(self._namespace(sender), self._namespace("b"), server, port)

    @contextmanager
    def tunnel(self):
        """An endpoint's connection, as the gateway has it: both ends and the lease."""
        with netns.entered(self._namespace("b")):
            listener = socket.create_server(("0.0.0.0", 22))
        with listener:
            reply, (target, lease) = self.process.dial(address=SERVER)
            assert reply.refused is None, reply.message
            listener.settimeout(2)
            theirs, _ = listener.accept()
            with socket.socket(fileno=target) as ours, theirs:
                yield ours, theirs
            os.close(lease)

    def _namespace(self, name):
        return next(one.id for one in self.world.instances if one.name == name)


@contextmanager
def connection(sender, receiver, address, port):
    """A TCP connection between two namespaces: both ends."""
    kind = family(address)
    with netns.entered(receiver):
        listener = socket.create_server(("::" if kind == socket.AF_INET6 else "0.0.0.0", port), family=kind)
    with netns.entered(sender):
        ours = socket.socket(kind)
    with listener, ours:
        ours.settimeout(2)
        ours.connect((address, port))
        listener.settimeout(2)
        theirs, _ = listener.accept()
        with theirs:
            yield ours, theirs


@pytest.fixture
def live(tmp_path, fabric):
    """A netd over the World of this module, with immediate revocation."""
    process = Process(tmp_path)
    try:
        yield Live(process, revoking(world(GROUPS, MEMBERS)))
    finally:
        process.stop()


def carries(ours, theirs):
    """Whether bytes pass both ways, each within a quarter of a second."""
    for sender, receiver in ((ours, theirs), (theirs, ours)):
        data = os.urandom(4)
        sender.settimeout(1)
        sender.sendall(data)
        if not select.select([receiver], [], [], 0.25)[0]:
            return False
        assert receiver.recv(16) == data
    return True


def hears(sender, receiver, wait=0.4):
    """Whether something that one end sends arrives, retransmissions included."""
    sender.setblocking(False)
    sender.send(b"after all")
    return bool(select.select([receiver], [], [], wait)[0])


REMOVED = {
    "rule removed": lambda live: live.rules("server", rule("in", "tcp", (22, 22), "sg:endpoint")),
    "rule narrowed": lambda live: live.rules("server", rule("in", "tcp", (80, 80), "10.0.1.13/32")),
    "sender's rule removed": lambda live: live.rules("client"),
    "sender's groups swapped": lambda live: live.groups_of("a", "other"),
    "receiver's groups swapped": lambda live: live.groups_of("b", "other"),
}


@pytest.mark.parametrize("change", REMOVED)
def test_a_tracked_stream_outlives_changes_by_default(live, change):
    """As at AWS, and so after another second too."""
    live.enforce(revoking(live.world, "aws"))
    with live.stream() as (ours, theirs):
        REMOVED[change](live)
        assert carries(ours, theirs)
        time.sleep(1.2)
        assert carries(ours, theirs)


@pytest.mark.parametrize("change", REMOVED)
def test_a_stream_is_cut_at_once(live, change):
    """When the change is acknowledged nothing passes any more in either direction, nor does it come back."""
    with live.stream() as (ours, theirs):
        assert carries(ours, theirs)
        REMOVED[change](live)
        assert not hears(ours, theirs)
        assert not hears(theirs, ours)
        assert not [one for one in conntrack.dump(VPC) if one.original.destination_port == 80 and one.status & 2]


def test_a_stream_does_not_come_back_by_the_other_directions_rules(live):
    """What the server sends in the middle of it is no new connection to the client, although one would be allowed."""
    everything = rule("in", "-1", (-1, -1), "10.0.0.0/16"), rule("out", "-1", (-1, -1), "10.0.0.0/16")
    live.rules("client", *everything)
    live.rules("server", *GROUPS["server"], everything[1])
    with live.stream() as (ours, theirs):
        live.rules("server", everything[1])
        assert not hears(theirs, ours)
        assert not hears(ours, theirs)


def test_unrelated_changes_cut_nothing(live):
    """Another group's rules, another interface's groups, a rule beside, the same by another rule."""
    with live.stream() as (ours, theirs), live.tunnel() as (mine, target):
        both = (rule("in", "tcp", (22, 22), "10.0.0.0/16"), rule("in", "tcp", (80, 80), "10.0.0.0/16"))
        for change in (
            lambda: live.rules("other"),
            lambda: live.groups_of("c", "other"),
            lambda: live.rules("server", *GROUPS["server"], rule("in", "udp", (1, 1), "0.0.0.0/0")),
            lambda: live.rules("server", *both),
            lambda: live.groups_of("b", "server", "other"),
        ):
            change()
            assert carries(ours, theirs)
            assert carries(mine, target)
        time.sleep(1.2)
        assert carries(ours, theirs)
        assert carries(mine, target)


def test_only_what_is_not_allowed_is_cut(live):
    """Of two senders to one port the one that left the group."""
    with live.stream("a") as (ours, theirs), live.stream("c", port=8080) as (second, other):
        live.groups_of("c", "other")
        assert carries(ours, theirs)
        assert not hears(second, other)


def test_ipv6_is_cut_by_its_own_rules(live):
    """Of a stream of either family the one whose family's rule goes."""
    four, sixth = rule("in", "tcp", (80, 80), "10.0.1.0/24"), rule6(rule("in", "tcp", (80, 81), "10.0.1.0/24"), SUBNET6)
    out = rule("out", "-1", (-1, -1), "10.0.0.0/16")
    live.enforce(dual(live.world))
    live.rules("server", four, sixth)
    live.rules("client", out, rule6(out, BLOCK6))
    with live.stream() as (ours, theirs), live.stream(port=81, server=six(SERVER)) as (second, other):
        live.rules("server", four)
        assert carries(ours, theirs)
        assert not hears(second, other)


@pytest.mark.parametrize("side", ["a", "b"])
@pytest.mark.parametrize("immediate", [True, False])
def test_across_a_peering(tmp_path, fabric, side, immediate):
    """The rules of both sides let a stream across: with either's gone, the VPC with the tag cuts it."""
    process = Process(tmp_path)
    try:
        live = Live(process, peered())
        live.change(msgspec.structs.replace(live.world.vpc(A), tags={REVOCATION_TAG: "immediate"} if immediate else {}))
        for one in ("sg-a", "sg-b"):
            live.change(tracked(live.world.group(one)))
        with connection(A1, B1, TO_B1, 80) as (ours, theirs), connection(A1, B1, TO_B1_6, 81) as (second, other):
            group = live.world.group(f"sg-{side}")
            live.change(msgspec.structs.replace(group, rules=tuple(one for one in group.rules if one.cidr_ipv4)))
            assert carries(ours, theirs)
            assert hears(second, other) is not immediate
    finally:
        process.stop()


def tracked(group):
    """The group with ranges in place of any address: what those let through is tracked."""
    ranges = {"0.0.0.0/0": "10.0.0.0/8", "::/0": "2001:db8::/32", None: None}
    rules = (
        msgspec.structs.replace(one, cidr_ipv4=ranges[one.cidr_ipv4], cidr_ipv6=ranges[one.cidr_ipv6])
        for one in group.rules
    )
    return msgspec.structs.replace(group, rules=tuple(rules))


def test_udp_is_cut(live):
    """A datagram exchange whose rule is gone ends, replies included."""
    with netns.entered(live._namespace("b")):
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with netns.entered(live._namespace("a")):
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with server, client:
        server.bind(("0.0.0.0", 53))
        client.bind(("10.0.1.11", 0))
        client.connect((SERVER, 53))
        client.send(b"question")
        assert select.select([server], [], [], 1)[0]
        _, address = server.recvfrom(64)
        server.sendto(b"answer", address)
        assert select.select([client], [], [], 1)[0]
        live.rules("server", rule("in", "tcp", (22, 22), "sg:endpoint"))
        server.sendto(b"late answer", address)
        client.recv(64)
        assert not select.select([client], [], [], 0.2)[0]
        client.send(b"another question")
        assert not select.select([server], [], [], 0.2)[0]


def test_turning_it_on_cuts_what_is_left_of_earlier_changes(live):
    """By the tag of the VPC, which is stronger than the setting; taking it away brings AWS's behaviour back."""
    live.enforce(revoking(live.world, "aws"))
    with live.stream() as (ours, theirs):
        live.rules("server")
        assert carries(ours, theirs)
        (vpc,) = live.world.vpcs
        live.change(msgspec.structs.replace(vpc, tags={REVOCATION_TAG: "immediate"}))
        assert not hears(ours, theirs)


@pytest.mark.parametrize("group", ["server", "endpoint"])
@pytest.mark.parametrize("preserve", [False, True])
def test_a_tunnels_connection_is_cut_after_the_gateways_had_their_time(live, preserve, group):
    """At first it goes on, so that a gateway's reset reaches the target; within two seconds it is gone."""
    live.preserve(preserve)
    with live.tunnel() as (ours, theirs):
        assert theirs.getpeername()[0] == (CLIENT if preserve else "10.0.1.10")
        assert carries(ours, theirs)
        time.sleep(1.1)  # the second look after the World before, which is at everything
        live.rules(group)
        assert carries(ours, theirs)
        time.sleep(1.3)
        assert not hears(ours, theirs)
        assert not hears(theirs, ours)


def test_a_gateways_reset_reaches_the_target(live):
    """A tunnel that is closed within the second leaves no half-open connection behind."""
    with live.tunnel() as (ours, theirs):
        live.rules("server")
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        ours.close()
        theirs.settimeout(0.5)
        with pytest.raises(ConnectionResetError):
            theirs.recv(1)


def test_a_tunnel_outlives_a_switch_of_preservation(live):
    """The address it came from is no question of the rules."""
    live.preserve(True)
    with live.tunnel() as (ours, theirs):
        live.preserve(False)
        live.rules("other")
        time.sleep(1.3)
        assert carries(ours, theirs)


def test_after_a_restart_everything_is_looked_at(live, tmp_path):
    """A restart cuts nothing; what changed while netd was down is cut when the first World is acknowledged."""
    with live.stream() as (ours, theirs):
        live.restart(tmp_path)
        live.enforce(live.world)
        assert carries(ours, theirs)
        live.restart(tmp_path)
        live.enforce(live.without_rules("client"))
        assert not hears(ours, theirs)
