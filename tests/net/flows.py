"""Two machines, and flows between them that real sockets have opened."""

import contextlib
import socket

import msgspec

from tests.net.families import dual, family, rule6, six
from tests.net.worlds import rule, sg, world
from wicketgate.kernel import netns
from wicketgate.model import Change, apply_change

PORT = 7000
A, B = "10.0.1.11", "10.0.1.12"
TCP, UDP = socket.SOCK_STREAM, socket.SOCK_DGRAM
FAMILIES = {4: ("0.0.0.0/0", "10.0.1.0/24"), 6: ("::/0", "2001:db8:0:1::/64")}
NAMES = {TCP: "tcp", UDP: "udp"}
OUT, IN = ("out", "-1", (-1, -1), "any"), ("in", "-1", (-1, -1), "any")
EVERYTHING = [IN, OUT]


def pair(version, client, server):
    """Two instances, a and b, in the groups client and server; rules as (direction, protocol, ports, "any" or "near")
    for ranges of the family."""
    any_address, near = FAMILIES[version]

    def written(direction, protocol, ports, peer):
        one = rule(direction, protocol, ports, "0.0.0.0/0" if peer == "any" else "10.0.1.0/24")
        return one if version == 4 else rule6(one, any_address if peer == "any" else near)

    groups = {"client": [written(*one) for one in client], "server": [written(*one) for one in server]}
    return dual(world({"endpoint": [], **groups, "none": []}, {"a": ["client"], "b": ["server"]}))


def addresses(version):
    """Those of a and b."""
    return (A, B) if version == 4 else (six(A), six(B))


def without_rules(made, name):
    """The World once a group has no rules."""
    group = made.group(sg(name))
    return apply_change(made, Change(puts=(msgspec.structs.replace(group, rules=()),)))


@contextlib.contextmanager
def flow(made, version, kind, port=PORT):
    """A flow from a to b that has carried something both ways: the sockets of both ends."""
    source, target = addresses(version)
    with contextlib.ExitStack() as stack:
        ends = []
        for instance, address in zip(made.instances, (source, target), strict=False):
            with netns.entered(instance.id):
                ends.append(stack.enter_context(socket.socket(family(address), kind)))
        client, server = ends
        for end in ends:
            end.settimeout(3)  # on a busy host the first packet may have to be sent again
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((target, port))
        client.bind((source, 0))
        if kind == TCP:
            server.listen()
            client.connect((target, port))
            server = stack.enter_context(server.accept()[0])
        else:
            client.connect((target, port))
            server.connect(client.getsockname())
        assert arrives(client, server, wait=3)
        assert arrives(server, client, wait=3)
        yield client, server


def arrives(sender, receiver, *, wait=0.25):
    """Whether what one end sends gets to the other within a moment."""
    receiver.settimeout(wait)
    sender.send(b"something")
    try:
        return receiver.recv(64).startswith(b"something")
    except TimeoutError:
        return False
