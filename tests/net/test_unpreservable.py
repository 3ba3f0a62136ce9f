"""Clients whose address cannot be preserved (`unpreservable_client`), through a real netd and a real connection."""

import os
import socket
from contextlib import contextmanager

import msgspec
import pytest

from tests.net.test_fabric import GROUPS, MEMBERS
from tests.net.test_netd import Process
from tests.net.worlds import CLIENT, preserving, world
from wicketgate.kernel import netns
from wicketgate.model import Settings

ENDPOINT_ADDRESS = "10.0.1.10"
UNPRESERVABLE = [
    ("10.0.1.12", "inside"),  # a neighbour of the VPC: its own machine would get the replies
    ("10.0.200.7", "inside"),  # nobody's address yet, but of the VPC's range
    ("127.0.0.1", "loopback"),
    ("169.254.7.7", "link-local"),
    ("224.0.0.5", "multicast"),
    ("0.0.0.7", "0.0.0.0/8"),
    ("255.255.255.255", "broadcast"),
    ("2001:db8::7", "IPv6"),
    ("nonsense", "not an IP address"),
]
"""An address and a word of the reason."""


@contextmanager
def preserving_netd(tmp_path, policy):
    """A netd whose endpoint preserves client addresses, under one policy for those that cannot be."""
    settings = Settings(unpreservable_client=policy)
    made = preserving(msgspec.structs.replace(world(GROUPS, MEMBERS), settings=settings), on=True)
    started = Process(tmp_path)
    try:
        assert started.apply(made) == 1
        with netns.entered(made.instances[0].id):
            listener = socket.create_server(("0.0.0.0", 22))
        with listener:
            listener.settimeout(5)
            yield started, listener
    finally:
        started.stop()


def seen(netd, listener, client):
    """What netd says the target will see, what our end is bound to, and what the target saw."""
    reply, descriptors = netd.dial(client_address=client)
    assert reply.refused is None, reply.message
    target, lease = descriptors
    os.close(lease)
    with socket.socket(fileno=target) as ours:
        ours.settimeout(5)
        peer, address = listener.accept()
        with peer:
            ours.setblocking(True)
            ours.sendall(b"there")
            peer.sendall(b"and back")
            assert (peer.recv(16), ours.recv(16)) == (b"there", b"and back")
            return reply.source_address, ours.getsockname()[0], address[0]


@pytest.mark.parametrize(("client", "word"), UNPRESERVABLE)
def test_refused_with_the_reason(tmp_path, fabric, client, word):
    """`refuse`: no socket, no SYN at the target, and the reason in words. Other clients are not affected."""
    with preserving_netd(tmp_path, "refuse") as (netd, listener):
        reply, descriptors = netd.dial(client_address=client)
        assert (reply.refused, descriptors) == ("client-address", [])
        assert word in reply.message
        listener.settimeout(0.2)
        with pytest.raises(TimeoutError):
            listener.accept()
        listener.settimeout(5)
        assert seen(netd, listener, CLIENT) == (CLIENT, CLIENT, CLIENT)


@pytest.mark.parametrize(("client", "word"), UNPRESERVABLE)
def test_connects_from_the_endpoints_own_address(tmp_path, fabric, client, word):
    """`endpoint-address`: the connection is the endpoint's own; what can be preserved still is."""
    with preserving_netd(tmp_path, "endpoint-address") as (netd, listener):
        assert seen(netd, listener, client) == (ENDPOINT_ADDRESS,) * 3
        assert seen(netd, listener, CLIENT) == (CLIENT, CLIENT, CLIENT)
