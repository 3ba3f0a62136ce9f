"""The tunnel's state machine, played through without I/O. `>>` is what arrives, `<<` what the machine must answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wicketgate.tunnel import UNABLE, CloseCode, Session, State, reasons
from wicketgate.tunnel.session import (
    TABLE,
    Accept,
    Audited,
    AuditFailed,
    CancelDial,
    ClientClosed,
    ClientEnded,
    ClientGone,
    ClientViolated,
    CloseClient,
    Command,
    Dial,
    DialRefused,
    DialUnavailable,
    DropTarget,
    DurationOver,
    EndpointDeleted,
    EndTarget,
    Event,
    Finish,
    Refuse,
    Relay,
    Shutdown,
    SlowClient,
    TargetConnected,
    TargetEnded,
    TargetFailed,
    TargetReset,
)


class Playbook:
    """A dialogue with one session: `>> event` feeds it, `<< command` is the next command it must have given."""

    def __init__(self) -> None:
        self.session = Session()
        self.pending: list[Command] = []

    def __rshift__(self, event: Event) -> Playbook:
        assert not self.pending, f"not expected: {self.pending}"
        self.pending = list(self.session.receive(event))
        return self

    def __lshift__(self, command: Command) -> Playbook:
        assert self.pending, f"{command} expected, but nothing came"
        assert self.pending.pop(0) == command
        return self

    def ends_in(self, state: State) -> None:
        """Nothing more was said, and this is where it stands."""
        assert not self.pending, f"not expected: {self.pending}"
        assert self.session.state is state


def admitted() -> Playbook:
    """A tunnel that was just admitted."""
    return Playbook()


def dialling() -> Playbook:
    """A tunnel whose dial is under way."""
    return admitted() >> Audited() << Dial()


def opened() -> Playbook:
    """An open tunnel."""
    return dialling() >> TargetConnected() << Accept() << Relay()


def half_closed() -> Playbook:
    """An open tunnel whose client has ended its input."""
    return opened() >> ClientEnded() << EndTarget()


def test_ordinary_life():
    """Audit, dial, 101, relay; the target ends; the close is answered."""
    play = opened() >> TargetEnded()
    play << CloseClient(1000, reasons.TARGET_CLOSED) << DropTarget(False) << Finish(1000, reasons.TARGET_CLOSED)
    (play >> ClientGone()).ends_in(State.CLOSED)


def test_nothing_is_dialled_before_the_audit_record_is_on_disk():
    """An admitted tunnel does nothing at all until Audited."""
    assert [type(event) for event in TABLE[State.ADMITTED] if event is Audited]
    for state, rows in TABLE.items():
        for event, (_, commands) in rows.items():
            if state is State.ADMITTED and event is not Audited:
                assert Dial() not in commands(EXAMPLES[event])


def test_unwritable_audit_refuses():
    """Without an audit record: 503, no dial, and no close line either."""
    play = admitted() >> AuditFailed()
    (refuse,) = play.pending
    assert isinstance(refuse, Refuse) and refuse.http_status == 503


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        ("endpoint", 400, "InvalidState"),
        ("target", 400, "InvalidParameter"),
        ("client-address", 400, "UnsupportedOperation"),
    ],
)
def test_permanent_refusal(kind, status: int, code: str):
    """netd's permanent refusals are HTTP errors with its own words."""
    play = dialling() >> DialRefused(kind, "why")
    play << Refuse(status, code, "why") << Finish(CloseCode.ABNORMAL, "why", code)
    play.ends_in(State.CLOSING)


@pytest.mark.parametrize(
    ("kind", "close", "code"),
    [("limit", 1013, "LimitExceeded"), ("url-reused", 1008, "RequestExpired"), ("connect", 1011, "TargetUnreachable")],
)
def test_transient_refusal(kind, close: int, code: str):
    """netd's transient refusals are 101 and a close frame that begins with AWS's words."""
    words = f"{UNABLE}: why"
    play = dialling() >> DialRefused(kind, "why") << Accept() << CloseClient(close, words) << Finish(close, words, code)
    play.ends_in(State.CLOSING)


def test_unreachable_target():
    """A failed connect is 101 and 1011; words that already begin with AWS's are not doubled."""
    words = f"{UNABLE}: timed out"
    play = dialling() >> TargetFailed(words) << Accept() << CloseClient(1011, words)
    play << Finish(1011, words, "TargetUnreachable")
    play.ends_in(State.CLOSING)


def test_absent_netd():
    """netd not answering is 1013: trying again can succeed."""
    words = f"{UNABLE}: netd is not running"
    play = dialling() >> DialUnavailable("netd is not running") << Accept() << CloseClient(1013, words)
    play << Finish(1013, words, "ServiceUnavailable")
    play.ends_in(State.CLOSING)


def test_client_gone_while_dialling():
    """A client that goes away takes its dial with it."""
    play = dialling() >> ClientGone() << CancelDial() << Finish(1006, reasons.CLIENT_GONE)
    play.ends_in(State.CLOSED)


def test_half_close():
    """The first empty frame ends the target's input; the target goes on and has the last word."""
    play = half_closed() >> ClientEnded() << SlowClient() >> ClientEnded() << SlowClient() >> TargetEnded()
    play << CloseClient(1000, reasons.TARGET_CLOSED) << DropTarget(False) << Finish(1000, reasons.TARGET_CLOSED)
    play.ends_in(State.CLOSING)


@pytest.mark.parametrize(("received", "answer"), [(1000, 1000), (1001, 1001), (1005, 1000), (4000, 4000)])
def test_client_closes(received: int, answer: int):
    """A close frame is answered in kind; one without a code with 1000. What it sent before still reaches the target."""
    play = opened() >> ClientClosed(received) << CloseClient(answer, "") << DropTarget(False)
    play << Finish(received, reasons.CLIENT_CLOSED)
    play.ends_in(State.CLOSING)


@pytest.mark.parametrize("start", [opened, half_closed])
@pytest.mark.parametrize(
    ("event", "code", "reason", "at_once"),
    [
        (TargetReset(), 1011, reasons.TARGET_RESET, True),
        (ClientViolated(1003, reasons.TEXT_FRAME), 1003, reasons.TEXT_FRAME, True),
        (DurationOver(600), 4408, "Tunnel duration limit of 600 seconds reached", True),
        (EndpointDeleted("eice-1"), 4404, "The EC2 Instance Connect Endpoint eice-1 was deleted", True),
        (Shutdown(), 1001, reasons.SHUTDOWN, False),
    ],
)
def test_ends_of_an_open_tunnel(start, event: Event, code: int, reason: str, at_once: bool):
    """Every end has its code and words, with and without the client's end of input before."""
    play = start() >> event << CloseClient(code, reason) << DropTarget(at_once) << Finish(code, reason)
    play.ends_in(State.CLOSING)


@pytest.mark.parametrize("early", [Shutdown(), EndpointDeleted("eice-1")])
def test_ends_before_the_answer_are_http_errors(early: Event):
    """What ends a tunnel before its 101 is an HTTP error, and a dial under way is given up."""
    play = dialling() >> early << CancelDial()
    assert [type(command) for command in play.pending] == [Refuse, Finish]


def test_the_first_end_decides():
    """Ends that cross on the way change nothing any more."""
    play = opened() >> ClientClosed(1000)
    play.pending.clear()
    (play >> TargetReset() >> TargetEnded() >> Shutdown() >> DurationOver(1)).ends_in(State.CLOSING)


EXAMPLES: dict[type, Event] = {
    type(event): event
    for event in (
        Audited(),
        AuditFailed(),
        DialRefused("limit", "why"),
        DialUnavailable("why"),
        TargetConnected(),
        TargetFailed("why"),
        TargetEnded(),
        TargetReset(),
        ClientEnded(),
        ClientViolated(1002, "why"),
        ClientClosed(1000),
        ClientGone(),
        DurationOver(1),
        EndpointDeleted("eice-1"),
        Shutdown(),
    )
}

events = st.one_of(
    st.sampled_from(list(EXAMPLES.values())),
    st.builds(
        DialRefused,
        st.sampled_from(["endpoint", "limit", "url-reused", "target", "client-address", "connect"]),
        st.text(),
    ),
    st.builds(ClientViolated, st.sampled_from([1002, 1003, 1009]), st.text()),
    st.builds(TargetFailed, st.text()),
)


@given(st.lists(events, max_size=30))
def test_any_sequence_of_events(sequence: list[Event]):
    """Whatever happens in whatever order: one answer, one close at most, nothing relayed after it, one close line."""
    session = Session()
    said: list[Command] = []
    for event in (*sequence, ClientGone()):
        said += session.receive(event)
    assert session.state is State.CLOSED
    kinds = [type(command) for command in said]
    assert kinds.count(Accept) + kinds.count(Refuse) <= 1
    assert kinds.count(CloseClient) <= 1
    assert kinds.count(CloseClient) <= kinds.count(Accept), "a close frame needs a 101 before"
    assert kinds.count(DropTarget) == kinds.count(Relay), "a connected target is dropped exactly once"
    failed_audit = Refuse in kinds and Finish not in kinds
    assert kinds.count(Finish) == (0 if failed_audit else 1)
    after = kinds[kinds.index(Finish) + 1 :] if Finish in kinds else []
    assert not after, f"after the close line came {after}"
    for command in said:
        if isinstance(command, CloseClient):
            assert len(command.reason.encode()) <= 123
            assert command.code not in (1005, 1006), "codes that must not be sent (RFC 6455 section 7.4.1)"


def test_every_state_is_reachable_and_leads_out():
    """From every state but CLOSED the client's going leads to CLOSED: no tunnel outlives its connection."""
    for state, rows in TABLE.items():
        if state is not State.CLOSED:
            assert rows[ClientGone][0] is State.CLOSED
    assert {state for rows in TABLE.values() for state, _ in rows.values()} == set(State) - {State.ADMITTED}
