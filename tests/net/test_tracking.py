"""What becomes of open flows when their rules go, and how long idle ones are kept: with real sockets."""

import errno
import select
import socket
import time

import msgspec
import pytest

from tests.net.families import family, six
from tests.net.flows import EVERYTHING, NAMES, PORT, TCP, UDP, B, arrives, flow, pair, without_rules
from tests.net.worlds import VPC
from wicketgate.kernel import conntrack, netns
from wicketgate.model import Change, ConnectionTracking, apply_change

pytestmark = pytest.mark.slow  # that a packet is dropped is told by silence


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
    made = pair(version, [("out", "-1", (-1, -1), "any")], server)
    fabric.apply(made)
    with flow(made, version, kind) as (one, other):
        fabric.apply(without_rules(made, "server"))
        assert (arrives(one, other), arrives(other, one)) == (survives, survives)
        fabric.apply(made)
        assert arrives(one, other, wait=3)  # TCP sends again after growing pauses


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("kind", [TCP, UDP])
@pytest.mark.parametrize(("client", "survives"), [(EVERYTHING, False), (EVERYTHING[1:], True)])
def test_at_the_initiator(fabric, version, kind, client, survives):
    """The same at the side that opened the flow, whatever the other side does."""
    made = pair(version, client, [("in", NAMES[kind], (PORT, PORT), "near")])
    fabric.apply(made)
    with flow(made, version, kind) as (one, other):
        fabric.apply(without_rules(made, "client"))
        assert (arrives(one, other), arrives(other, one)) == (survives, survives)


def test_a_flow_begins_as_it_is(fabric):
    """A flow that began as tracked is not untracked by a later rule, nor the other way round."""
    near, untracked = [("in", "tcp", (PORT, PORT), "near")], [("in", "tcp", (PORT, PORT), "any"), EVERYTHING[1]]
    client = [("out", "-1", (-1, -1), "near")]
    for first, second, survives in ((near, untracked, True), (untracked, near, False)):
        begun, changed = pair(4, client, first), pair(4, client, second)
        fabric.apply(begun)
        with flow(begun, 4, TCP) as (one, other):
            fabric.apply(changed)
            assert arrives(one, other), "it is allowed in either case"
            fabric.apply(without_rules(changed, "server"))
            assert arrives(one, other) is survives


def test_unanswered_flow_is_one(fabric):
    """Datagrams that nobody has answered go on without their rules, too; a new flow does not begin."""
    made = pair(4, [("out", "udp", (PORT, PORT), "near")], [("in", "udp", (PORT, PORT), "near")])
    fabric.apply(made)
    with netns.entered(made.instances[0].id):
        one, late = socket.socket(type=UDP), socket.socket(type=UDP)
    with netns.entered(made.instances[1].id):
        other = socket.socket(type=UDP)
    with one, late, other:
        other.bind((B, PORT))
        for sock in (one, late):
            sock.connect((B, PORT))
        assert arrives(one, other)
        fabric.apply(without_rules(without_rules(made, "server"), "client"))
        assert arrives(one, other)
        assert not arrives(late, other)


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
    made = pair(version, client, [("in", "udp", (PORT, PORT), "near")])
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
    made = pair(version, EVERYTHING, EVERYTHING)
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
    established, _, unanswered = wanted  # streams: the next test
    with flow(made, version, TCP):
        (entry,) = (found for found in conntrack.dump(VPC) if found.protocol == 6)
        assert established - 5 <= entry.timeout <= established
    with flow(made, version, UDP):
        (entry,) = (found for found in conntrack.dump(VPC) if found.protocol == 17)
        assert unanswered - 2 <= entry.timeout <= unanswered, "one exchange"


@pytest.mark.parametrize(("client", "server"), [(None, 77), (77, None), (150, 77), (77, 150)])
def test_idle_time_out_of_a_stream(fabric, client, server):
    """UDP that goes on for two seconds is a stream to Linux, and has that timer: the smaller of both interfaces'."""
    made = pair(4, EVERYTHING, EVERYTHING)
    asked = {"a": ConnectionTracking(udp_stream=client), "b": ConnectionTracking(udp_stream=server)}
    made = apply_change(
        made,
        Change(
            puts=tuple(
                msgspec.structs.replace(eni, connection_tracking=asked[eni.link])
                for eni in made.interfaces
                if eni.link in asked
            )
        ),
    )
    fabric.apply(made)
    with flow(made, 4, UDP) as (one, other):
        deadline = time.monotonic() + 4
        while time.monotonic() < deadline:
            assert arrives(one, other)
            assert arrives(other, one)
            (entry,) = (found for found in conntrack.dump(VPC) if found.protocol == 17)
            if entry.timeout > 30:
                break
            select.select([], [], [], 0.1)
        assert 75 <= entry.timeout <= 77
