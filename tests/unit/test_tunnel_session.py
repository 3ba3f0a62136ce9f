"""The tunnel's state machine, played through without I/O. `>>` is what arrives, `<<` what the machine must answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wicketgate.tunnel import UNABLE, Session, State, reasons
from wicketgate.tunnel.session import (
    TABLE,
    Accept,
    CancelDial,
    ClientClosed,
    ClientEnded,
    ClientGone,
    ClientStalled,
    ClientViolated,
    CloseClient,
    Command,
    DialRefused,
    DialUnavailable,
    DropTarget,
    DurationOver,
    EndpointDeleted,
    EndTarget,
    Event,
    Finish,
    Record,
    Recorded,
    RecordFailed,
    Refuse,
    Relay,
    Revoked,
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


def dialling() -> Playbook:
    """A tunnel whose dial is under way."""
    return Playbook()


def recording() -> Playbook:
    """A tunnel whose target has answered."""
    return dialling() >> TargetConnected() << Record()


def opened() -> Playbook:
    """An open tunnel."""
    return recording() >> Recorded() << Accept() << Relay()


def refusing(event: Event, code: str, message: str, *answer: Command) -> Playbook:
    """An attempt that failed by `event`, with its record on disk and the client answered."""
    play = dialling() >> event
    if isinstance(event, Shutdown | EndpointDeleted):
        play << CancelDial()
    play << Record(code, message, answer)
    play >> Recorded(answer)
    for command in answer:
        play << command
    return play


def half_closed() -> Playbook:
    """An open tunnel whose client has ended its input."""
    return opened() >> ClientEnded() << EndTarget()


def test_ordinary_life():
    """Dial, record, 101, relay; the target ends; the close is answered."""
    play = opened() >> TargetEnded()
    play << CloseClient(1000, reasons.TARGET_CLOSED) << DropTarget(False) << Finish(1000, reasons.TARGET_CLOSED)
    (play >> ClientGone()).ends_in(State.CLOSED)


def test_nothing_is_said_before_the_record_is_on_disk():
    """Until Recorded neither an answer nor a byte: whatever ends an attempt, its record comes first."""
    for state in (State.DIALLING, State.REFUSING):
        for event, (_, commands) in TABLE[state].items():
            if event not in (Recorded, RecordFailed):
                said = {type(command) for command in commands(EXAMPLES[event])}
                assert not said & {Accept, Refuse, Relay, CloseClient}, (state, event)
    recording().ends_in(State.RECORDING)


@pytest.mark.parametrize("event", [TargetConnected(), TargetFailed("secret"), DialRefused("limit", "secret")])
def test_unwritable_record_refuses(event: Event):
    """Without a record: 503, whatever the dial brought and without a word of it, and no close line either."""
    play = dialling() >> event
    assert [type(command) for command in play.pending] == [Record]
    play.pending.clear()
    play >> RecordFailed()
    (refuse,) = play.pending
    assert isinstance(refuse, Refuse) and refuse.http_status == 503
    assert "secret" not in refuse.message


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
    play = refusing(DialRefused(kind, "why"), code, "why", Refuse(status, code, "why"))
    play.ends_in(State.CLOSING)


@pytest.mark.parametrize(
    ("kind", "close", "code"),
    [("limit", 1013, "LimitExceeded"), ("url-reused", 1008, "RequestExpired"), ("connect", 1011, "TargetUnreachable")],
)
def test_transient_refusal(kind, close: int, code: str):
    """netd's transient refusals are 101 and a close frame that begins with AWS's words."""
    words = f"{UNABLE}: why"
    play = refusing(DialRefused(kind, "why"), code, words, Accept(), CloseClient(close, words))
    play.ends_in(State.CLOSING)


def test_unreachable_target():
    """A failed connect is 101 and 1011; words that already begin with AWS's are not doubled."""
    words = f"{UNABLE}: timed out"
    play = refusing(TargetFailed(words), "TargetUnreachable", words, Accept(), CloseClient(1011, words))
    play.ends_in(State.CLOSING)


def test_absent_netd():
    """netd not answering is 1013: trying again can succeed."""
    words = f"{UNABLE}: netd is not running"
    event = DialUnavailable("netd is not running")
    play = refusing(event, "ServiceUnavailable", words, Accept(), CloseClient(1013, words))
    play.ends_in(State.CLOSING)


def test_client_gone_while_dialling():
    """A client that goes away takes its dial with it; the attempt is on record as one that came to nothing."""
    play = dialling() >> ClientGone() << CancelDial() << Record("RequestCanceled", reasons.CLIENT_GONE)
    (play >> Recorded()).ends_in(State.CLOSED)


def test_client_gone_while_recording():
    """The record then says that all is well, so the tunnel has a close line too."""
    play = recording() >> ClientGone() << CancelDial() << Finish(1006, reasons.CLIENT_GONE)
    (play >> Recorded()).ends_in(State.CLOSED)


def test_fault_after_the_record():
    """A connection that stood and is on record, but cannot be used: 101, a close frame, and a close line."""
    words = f"{UNABLE}: the gateway failed"
    play = recording() >> DialUnavailable("the gateway failed") << Accept() << CloseClient(1013, words)
    (play << Finish(1013, words, "ServiceUnavailable")).ends_in(State.CLOSING)


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


@pytest.mark.parametrize(
    ("early", "status", "code", "words"),
    [
        (Shutdown(), 503, "ServiceUnavailable", reasons.SHUTDOWN),
        (
            EndpointDeleted("eice-1"),
            404,
            "InvalidInstanceConnectEndpointId.NotFound",
            "The EC2 Instance Connect Endpoint eice-1 was deleted",
        ),
    ],
)
def test_ends_before_the_answer_are_http_errors(early: Event, status: int, code: str, words: str):
    """What ends a tunnel before its 101 is an HTTP error, and a dial under way is given up."""
    refusing(early, code, words, Refuse(status, code, words)).ends_in(State.CLOSING)
    play = recording() >> early << CancelDial() << Refuse(status, code, words) << Finish(1006, words, code)
    (play >> Recorded()).ends_in(State.CLOSING)


REVOKED = Revoked("Access revoked: why", "why exactly")


@pytest.mark.parametrize("start", [opened, half_closed])
def test_a_revoked_tunnel_tells_the_client_less_than_the_record(start):
    """4403 with the words for the client; the target is cut off at once; the record says all."""
    play = start() >> REVOKED << CloseClient(4403, "Access revoked: why") << DropTarget(True)
    play << Finish(4403, "why exactly")
    (play >> ClientGone()).ends_in(State.CLOSED)


def test_revoked_before_the_answer():
    """403 in place of the 101, and no dial goes on; the record, written or about to be, says all."""
    refusal = Refuse(403, "AccessDeniedException", "Access revoked: why")
    play = dialling() >> REVOKED << CancelDial() << Record("AccessDeniedException", "why exactly", (refusal,))
    (play >> Recorded((refusal,)) << refusal).ends_in(State.CLOSING)
    play = recording() >> REVOKED << CancelDial() << refusal << Finish(1006, "why exactly", "AccessDeniedException")
    (play >> Recorded()).ends_in(State.CLOSING)


def test_a_client_that_stalls_gets_no_close_frame():
    """What it did not read is in the way of one."""
    play = opened() >> ClientStalled() << DropTarget(True) << Finish(1006, reasons.CLIENT_STALLED)
    (play >> ClientGone()).ends_in(State.CLOSED)


def test_the_first_end_decides():
    """Ends that cross on the way change nothing any more."""
    play = opened() >> ClientClosed(1000)
    play.pending.clear()
    (play >> TargetReset() >> TargetEnded() >> Shutdown() >> DurationOver(1)).ends_in(State.CLOSING)


EXAMPLES: dict[type, Event] = {
    type(event): event
    for event in (
        Recorded((Refuse(400, "X", "why"),)),
        RecordFailed(),
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
        ClientStalled(),
        DurationOver(1),
        EndpointDeleted("eice-1"),
        Revoked("why", "why exactly"),
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
    """Whatever happens in whatever order: one record, one answer, one close frame at most, nothing relayed after,
    and a close line exactly for the tunnels whose record says no error and is on disk."""
    session = Session()
    said: list[Command] = []
    failed_record = False
    for event in (*sequence, ClientGone()):
        before = session.state
        if isinstance(event, Recorded):  # as the gateway does: the answer is that of the command
            event = Recorded(next((one.answer for one in said if isinstance(one, Record)), ()))
        failed_record |= isinstance(event, RecordFailed) and before in (State.RECORDING, State.REFUSING)
        said += session.receive(event)
    assert session.state is State.CLOSED
    kinds = [type(command) for command in said]
    (record,) = [command for command in said if isinstance(command, Record)]
    assert kinds.count(Accept) + kinds.count(Refuse) <= 1
    assert kinds.count(CloseClient) <= 1
    assert kinds.count(CloseClient) <= kinds.count(Accept), "a close frame needs a 101 before"
    assert kinds.count(DropTarget) == kinds.count(Relay), "a connected target is dropped exactly once"
    assert kinds.count(Finish) == (0 if record.error_code or failed_record else 1)
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
    assert {state for rows in TABLE.values() for state, _ in rows.values()} == set(State) - {State.DIALLING}
