"""Endpoints modified under open tunnels: what netd and the kernel do to flows that exist, and to new ones."""

import os
import select
import socket
from contextlib import ExitStack, closing, contextmanager

import msgspec
import pytest

from tests.net.test_fabric import GROUPS, MEMBERS
from tests.net.test_netd import Process
from tests.net.worlds import CLIENT, ENDPOINT, VPC, attempt, listening, preserving, rule, sg, world
from wicketgate.control.endpoints import settle
from wicketgate.kernel import netns
from wicketgate.kernel.dial import IP_TRANSPARENT, dial
from wicketgate.kernel.fabric import Fabric
from wicketgate.model import apply_change
from wicketgate.model.resources import EndpointSettings

OWN = "10.0.1.10"
WEB_1, WEB_2 = "10.0.1.11", "10.0.1.12"
TARGET = WEB_1


class Live:
    """A netd with its World, and a listener at the target; what `ModifyInstanceConnectEndpoint` does, step by step."""

    def __init__(self, process, made, listener):
        self.process, self.world, self.listener = process, made, listener

    def begin(self, **wish):
        """update-in-progress."""
        (endpoint,) = self.world.endpoints
        updating = msgspec.structs.replace(endpoint, state="update-in-progress", pending=EndpointSettings(**wish))
        self._apply(msgspec.structs.replace(self.world, endpoints=(updating,)))

    def complete(self):
        """update-complete."""
        self._apply(apply_change(self.world, settle(self.world, 0.0)))
        assert self.world.endpoints[0].state == "update-complete"

    def modify(self, **wish):
        """Both."""
        self.begin(**wish)
        self.complete()

    def _apply(self, made):
        self.world = msgspec.structs.replace(made, revision=self.world.revision + 1)
        assert self.process.apply(self.world) == self.world.revision

    @contextmanager
    def tunnel(self):
        """(the gateway's socket, the target's, the address that the target sees)."""
        reply, descriptors = self.process.dial()
        assert reply.refused is None, reply.message
        target, lease = descriptors
        with socket.socket(fileno=target) as ours:
            peer, address = self.listener.accept()
            with peer:
                ours.settimeout(2)
                peer.settimeout(2)
                assert address[0] == reply.source_address
                yield ours, peer, address[0]
        os.close(lease)

    def dial_fails(self):
        """Whether the rules refuse a new tunnel, which the endpoint is told at once."""
        _, (target, lease) = self.process.dial()
        os.close(lease)
        with socket.socket(fileno=target) as ours:
            select.select([], [ours], [], 2)
            return ours.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0


@pytest.fixture
def live(tmp_path, fabric):
    """The standard World in a netd of its own."""
    process = Process(tmp_path)
    try:
        made = world({**GROUPS, "mute": []}, MEMBERS)
        assert process.apply(made) == 1
        with netns.entered(made.instances[0].id), socket.create_server(("0.0.0.0", 22)) as listener:
            listener.settimeout(2)
            yield Live(process, made, listener)
    finally:
        process.stop()


def carries(ours, peer):
    """More than a window's worth of bytes arrives, in both directions."""
    for end in (ours, peer):
        end.settimeout(2)
    for sender, receiver in ((ours, peer), (peer, ours)):
        data, rest = os.urandom(300_000), b""
        sent = 0
        while len(rest) < len(data):
            readable, writable, _ = select.select([receiver], [sender] if sent < len(data) else [], [], 2)
            assert readable or writable, f"stalled after {len(rest)} bytes"
            if writable:
                sent += sender.send(data[sent : sent + 20_000])
            if readable:
                rest += receiver.recv(1 << 20)
        assert rest == data
    return True


@pytest.mark.parametrize("before", [False, True])
def test_open_tunnels_outlive_every_switch_of_preservation(live, before):
    """Opened with preservation on or off, a tunnel carries on while it is switched to and fro; new ones are as it is
    at the time."""
    live.modify(preserve_client_ip=before)
    with ExitStack() as opened:
        tunnels = [opened.enter_context(live.tunnel())]
        assert tunnels[0][2] == (CLIENT if before else OWN)
        for on in (not before, before, not before):
            live.modify(preserve_client_ip=on)
            tunnels.append(opened.enter_context(live.tunnel()))
            assert tunnels[-1][2] == (CLIENT if on else OWN)
            assert all(carries(ours, peer) for ours, peer, _ in tunnels)


def test_a_tunnel_ends_in_order_after_a_switch(live):
    """FIN in both directions finds its way as well."""
    live.modify(preserve_client_ip=True)
    with live.tunnel() as (ours, peer, _):
        live.modify(preserve_client_ip=False)
        ours.shutdown(socket.SHUT_WR)
        assert peer.recv(1) == b""
        peer.sendall(b"last words")
        peer.close()
        assert ours.recv(16) == b"last words"
        assert ours.recv(1) == b""


@pytest.mark.parametrize("preserve", [False, True])
def test_open_tunnels_outlive_a_change_of_groups(live, preserve):
    """With groups that allow nothing new tunnels are refused and open ones go on; with the old groups all is well."""
    live.modify(preserve_client_ip=preserve)
    with live.tunnel() as (ours, peer, _):
        live.modify(group_ids=(sg("mute"),))
        assert live.dial_fails()
        assert carries(ours, peer)
        live.modify(group_ids=(sg("endpoint"),), preserve_client_ip=not preserve)
        with live.tunnel() as (second, other, source):
            assert source == (OWN if preserve else CLIENT)
            assert carries(second, other)
        assert carries(ours, peer)


def test_old_configuration_until_the_update_is_complete(live):
    """update-in-progress: new tunnels are as before; update-complete: as asked for."""
    live.begin(preserve_client_ip=True, group_ids=(sg("mute"),))
    with live.tunnel() as (ours, peer, source):
        assert source == OWN
        live.complete()
        assert live.dial_fails()
        assert carries(ours, peer)
    live.begin(preserve_client_ip=False, group_ids=(sg("endpoint"),))
    assert live.dial_fails()
    live.complete()
    with live.tunnel() as (ours, peer, source):
        assert source == OWN


def test_a_netd_without_memory_keeps_the_tunnels(fabric):
    """Switched while netd was down: its successor finds the kernel otherwise than wanted, and leaves flows alone."""
    made = world(GROUPS, MEMBERS, preserve=True)
    fabric.apply(made)
    with netns.entered(made.instances[0].id):
        listener = socket.create_server(("0.0.0.0", 22))
    with listener:
        ours, _ = dial(ENDPOINT, TARGET, 22, CLIENT)
        peer, address = listener.accept()
        with ours, peer:
            assert address[0] == CLIENT
            for revision, on in ((2, False), (3, False), (4, True)):
                with closing(Fabric()) as fresh:
                    fresh.apply(preserving(msgspec.structs.replace(made, revision=revision), on=on))
                assert carries(ours, peer)


# -- what the source check lets an endpoint send -----------------------------------------------------------------------


def _udp(namespace, source, port, ttl=64):
    """A datagram socket that sends under any address."""
    with netns.entered(namespace):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_IP, IP_TRANSPARENT, 1)
    sock.setsockopt(socket.SOL_IP, socket.IP_TTL, ttl)
    sock.bind((source, port))
    return sock


def _forged(fabric):
    return fabric.counters(VPC)["forged_source"]


def test_switched_off_no_new_flow_has_a_clients_address(fabric):
    """While an old flow under the client's address goes on, a new one of the same client is dropped and counted."""
    made = world(GROUPS, MEMBERS, preserve=True)
    fabric.apply(made)
    with listening(made, (22,)):
        ours, _ = dial(ENDPOINT, TARGET, 22, CLIENT)
        with ours:
            fabric.apply(preserving(msgspec.structs.replace(made, revision=2), on=False))
            before = _forged(fabric)
            late, _ = dial(ENDPOINT, TARGET, 22, CLIENT)
            with late:
                assert select.select([], [late], [], 0.1)[1] == []
            assert _forged(fabric) > before
            before = _forged(fabric)
            ours.send(b"of a flow that was there")
            assert attempt(made, made.interfaces[0], TARGET, 22, client=OWN, wait=2) == "connected"
            assert _forged(fabric) == before


@pytest.mark.parametrize(("preserve", "source"), [(False, CLIENT), (False, WEB_2), (True, WEB_2), (True, "10.0.200.7")])
def test_router_does_not_answer_what_an_endpoint_forges(fabric, preserve, source):
    """What would expire at the router, under a client's or another member's address, is dropped before routing."""
    everything = [rule("out", "-1", (-1, -1), "0.0.0.0/0")]
    made = world({**GROUPS, "endpoint": everything}, MEMBERS, preserve=preserve)
    fabric.apply(made)
    ears = []
    for namespace in (ENDPOINT, *(one.id for one in made.instances)):
        with netns.entered(namespace):
            ears.append(socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP))
    before = _forged(fabric)
    with ExitStack() as stack:
        for one in ears:
            stack.enter_context(one)
        stack.enter_context(_udp(ENDPOINT, source, 0, ttl=1)).sendto(b"payload", (WEB_1, 9))
        assert select.select(ears, [], [], 0.2)[0] == []
    assert _forged(fabric) == before + 1


@pytest.mark.parametrize("preserve", [False, True])
@pytest.mark.parametrize("source", [WEB_2, CLIENT])
def test_endpoint_adds_nothing_to_a_flow_of_others(fabric, preserve, source):
    """A tracked flow that an instance opened, under its own address or (without source check) under a client's: the
    endpoint's packet with the very same addresses and ports does not arrive."""
    groups = {**GROUPS, "web": [rule(way, "udp", (9, 9), "0.0.0.0/0") for way in ("in", "out")]}
    made = world(groups, MEMBERS, preserve=preserve)
    free = tuple(
        msgspec.structs.replace(one, source_dest_check=one.link != "web-2" or source == WEB_2)
        for one in made.interfaces
    )
    made = msgspec.structs.replace(made, interfaces=free)
    fabric.apply(made)
    with netns.entered(made.instances[0].id):
        receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with receiver, _udp(made.instances[1].id, source, 4000) as sender, _udp(ENDPOINT, source, 4000) as forger:
        receiver.bind(("0.0.0.0", 9))
        receiver.settimeout(1)
        sender.sendto(b"mine", (WEB_1, 9))
        assert receiver.recv(16) == b"mine"
        receiver.sendto(b"answer", (source, 4000))  # now it is established; with a client's address it leads nowhere
        if source == WEB_2:
            sender.settimeout(1)
            assert sender.recv(16) == b"answer"
        before = _forged(fabric)
        forger.sendto(b"forged", (WEB_1, 9))
        sender.sendto(b"mine again", (WEB_1, 9))
        assert receiver.recv(16) == b"mine again"
        assert _forged(fabric) == before + 1
