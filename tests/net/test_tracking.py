"""What becomes of open flows when their rules go, and how long idle ones are kept: with real sockets."""

import contextlib
import errno
import select
import socket
import time

import msgspec
import pytest

from tests.net.families import dual, family, rule6, six
from tests.net.worlds import VPC, rule, sg, world
from wicketgate.kernel import conntrack, netns
from wicketgate.model import Change, ConnectionTracking, apply_change

pytestmark = pytest.mark.slow  # that a packet is dropped is told by silence

PORT = 7000
A, B = "10.0.1.11", "10.0.1.12"
TCP, UDP = socket.SOCK_STREAM, socket.SOCK_DGRAM
FAMILIES = {4: ("0.0.0.0/0", "10.0.1.0/24"), 6: ("::/0", "2001:db8:0:1::/64")}
NAMES = {TCP: "tcp", UDP: "udp"}


def _made(version, client, server):
    """Two instances with a group each; rules as (direction, protocol, ports, "any" or "near")."""
    any_address, near = FAMILIES[version]

    def written(direction, protocol, ports, peer):
        one = rule(direction, protocol, ports, "0.0.0.0/0" if peer == "any" else "10.0.1.0/24")
        return one if version == 4 else rule6(one, any_address if peer == "any" else near)

    groups = {"client": [written(*one) for one in client], "server": [written(*one) for one in server]}
    return dual(world({"endpoint": [], **groups}, {"a": ["client"], "b": ["server"]}))


def _without_rules(made, name):
    group = made.group(sg(name))
    return apply_change(made, Change(puts=(msgspec.structs.replace(group, rules=()),)))


@contextlib.contextmanager
def _flow(made, version, kind):
    """A flow from a to b that has carried something both ways: the sockets of both ends."""
    source, target = (A, B) if version == 4 else (six(A), six(B))
    with contextlib.ExitStack() as stack:
        ends = []
        for instance, address in zip(made.instances, (source, target), strict=True):
            with netns.entered(instance.id):
                ends.append(stack.enter_context(socket.socket(family(address), kind)))
        client, server = ends
        for end in ends:
            end.settimeout(1)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((target, PORT))
        client.bind((source, 0))
        if kind == TCP:
            server.listen()
            client.connect((target, PORT))
            server = stack.enter_context(server.accept()[0])
            server.settimeout(1)
        else:
            client.connect((target, PORT))
            server.connect(client.getsockname())
        assert _arrives(client, server)
        assert _arrives(server, client)
        yield client, server


def _arrives(sender, receiver, *, wait=0.25):
    receiver.settimeout(wait)
    sender.send(b"something")
    try:
        return receiver.recv(64).startswith(b"something")
    except TimeoutError:
        return False


EVERYTHING = [("in", "-1", (-1, -1), "any"), ("out", "-1", (-1, -1), "any")]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("kind", [TCP, UDP])
@pytest.mark.parametrize(
    "peers", [("near", "any", True), ("any", "near", True), ("any", None, True), ("any", "any", False)]
)
def test_at_the_responder(fabric, version, kind, peers):
    """Without its rules a flow goes on where the receiver tracked it; untracked, it is cut both ways, and goes on once
    the rules are there again."""
    inbound, outbound, survives = peers
    server = [("in", NAMES[kind], (PORT, PORT), inbound)]
    server += [("out", "-1", (-1, -1), outbound)] if outbound else []
    made = _made(version, [("out", "-1", (-1, -1), "any")], server)
    fabric.apply(made)
    with _flow(made, version, kind) as (one, other):
        fabric.apply(_without_rules(made, "server"))
        assert (_arrives(one, other), _arrives(other, one)) == (survives, survives)
        fabric.apply(made)
        assert _arrives(one, other, wait=3)  # TCP sends again after growing pauses


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("kind", [TCP, UDP])
@pytest.mark.parametrize(("client", "survives"), [(EVERYTHING, False), (EVERYTHING[1:], True)])
def test_at_the_initiator(fabric, version, kind, client, survives):
    """The same at the side that opened the flow, whatever the other side does."""
    made = _made(version, client, [("in", NAMES[kind], (PORT, PORT), "near")])
    fabric.apply(made)
    with _flow(made, version, kind) as (one, other):
        fabric.apply(_without_rules(made, "client"))
        assert (_arrives(one, other), _arrives(other, one)) == (survives, survives)


def test_a_flow_begins_as_it_is(fabric):
    """A flow that began as tracked is not untracked by a later rule, nor the other way round."""
    near, untracked = [("in", "tcp", (PORT, PORT), "near")], [("in", "tcp", (PORT, PORT), "any"), EVERYTHING[1]]
    client = [("out", "-1", (-1, -1), "near")]
    for first, second, survives in ((near, untracked, True), (untracked, near, False)):
        begun, changed = _made(4, client, first), _made(4, client, second)
        fabric.apply(begun)
        with _flow(begun, 4, TCP) as (one, other):
            fabric.apply(changed)
            assert _arrives(one, other), "it is allowed in either case"
            fabric.apply(_without_rules(changed, "server"))
            assert _arrives(one, other) is survives


def test_unanswered_flow_is_one(fabric):
    """Datagrams that nobody has answered go on without their rules, too; a new flow does not begin."""
    made = _made(4, [("out", "udp", (PORT, PORT), "near")], [("in", "udp", (PORT, PORT), "near")])
    fabric.apply(made)
    with netns.entered(made.instances[0].id):
        one, late = socket.socket(type=UDP), socket.socket(type=UDP)
    with netns.entered(made.instances[1].id):
        other = socket.socket(type=UDP)
    with one, late, other:
        other.bind((B, PORT))
        for sock in (one, late):
            sock.connect((B, PORT))
        assert _arrives(one, other)
        fabric.apply(_without_rules(_without_rules(made, "server"), "client"))
        assert _arrives(one, other)
        assert not _arrives(late, other)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(
    ("client", "told"),
    [
        ([("out", "udp", (PORT, PORT), "near")], True),
        ([("out", "udp", (PORT, PORT), "any"), ("in", "udp", (0, 65535), "any")], False),
        ([("out", "udp", (PORT, PORT), "any"), ("in", "-1", (-1, -1), "any")], True),
    ],
)
def test_icmp_errors(fabric, version, client, told):
    """An error about a flow arrives where the flow is tracked; elsewhere a rule has to allow it like any ICMP."""
    made = _made(version, client, [("in", "udp", (PORT, PORT), "near")])
    fabric.apply(made)
    target = B if version == 4 else six(B)
    with netns.entered(made.instances[0].id):
        sock = socket.socket(family(target), UDP)
    with sock:
        sock.connect((target, PORT))
        sock.settimeout(0.3)
        sock.send(b"nobody listens")
        with pytest.raises(OSError) as raised:
            sock.recv(16)
        assert (raised.value.errno == errno.ECONNREFUSED) is told


TIMES = [
    ((350, None, None), (None, None, None), (350, 180, 30)),
    ((350, 120, None), (70, 60, None), (70, 60, 30)),
    ((None, 120, 45), (None, None, 60), (432000, 120, 45)),
    ((None, None, 60), (None, 90, None), (432000, 90, 30)),
    ((None, None, 60), (600, None, 60), (600, 180, 60)),
    ((None, None, None), (None, None, None), (432000, 180, 30)),
]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(("one", "other", "wanted"), TIMES)
def test_idle_time_outs(fabric, version, one, other, wanted):
    """Each timer is the smaller of both interfaces' (EC2 API, ConnectionTrackingSpecification)."""
    made = _made(version, EVERYTHING, EVERYTHING)
    tracked = {"a": one, "b": other}
    interfaces = (
        msgspec.structs.replace(
            eni,
            connection_tracking=ConnectionTracking(
                tcp_established=tracked[eni.link][0], udp_stream=tracked[eni.link][1], udp=tracked[eni.link][2]
            ),
        )
        for eni in made.interfaces
        if eni.link in tracked
    )
    made = apply_change(made, Change(puts=tuple(interfaces)))
    fabric.apply(made)
    established, _, unanswered = wanted
    with _flow(made, version, TCP):
        (entry,) = (found for found in conntrack.dump(VPC) if found.protocol == 6)
        assert established - 5 <= entry.timeout <= established
    with _flow(made, version, UDP):
        (entry,) = (found for found in conntrack.dump(VPC) if found.protocol == 17)
        assert unanswered - 2 <= entry.timeout <= unanswered, "one exchange"


def test_idle_time_out_of_a_stream(fabric):
    """UDP that goes on for two seconds is a stream to Linux, and has that timer."""
    made = _made(4, EVERYTHING, EVERYTHING)
    tracking = ConnectionTracking(udp_stream=77)
    made = apply_change(made, Change(puts=(msgspec.structs.replace(made.interfaces[1], connection_tracking=tracking),)))
    fabric.apply(made)
    with _flow(made, 4, UDP) as (one, other):
        deadline = time.monotonic() + 4
        while time.monotonic() < deadline:
            assert _arrives(one, other)
            assert _arrives(other, one)
            (entry,) = (found for found in conntrack.dump(VPC) if found.protocol == 17)
            if entry.timeout > 30:
                break
            select.select([], [], [], 0.1)
        assert 75 <= entry.timeout <= 77
