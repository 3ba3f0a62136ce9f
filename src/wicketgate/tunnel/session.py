"""The life of one tunnel as a state machine without I/O: events in, commands out.

    DIALLING --TargetConnected--> RECORDING --Recorded--> OPEN --ClientEnded--> CLIENT_EOF
        |                             |                     |                       |
        |                             +------ any end ------+------- any end -------+--> CLOSING --ClientGone--> CLOSED
        +-- no connection, any end --> REFUSING --Recorded (or not)----------------------->

Three rules:
- Every attempt has one OpenTunnel record, written when its outcome is known and on disk before the client has an
  answer, let alone a byte: nothing is handed on in DIALLING and RECORDING. Should the process be killed between dial
  and record, the target sees a connection that ends without a byte, the client no answer, and there was no tunnel.
- Everything that decides on order and state lives here; the gateway executes commands, in the order given, and keeps
  no state of its own about what a tunnel may do next.
- The bytes themselves do not pass through. Between `Relay` and `CloseClient` the gateway hands every payload straight
  to the other side: with a call per chunk into this machine a worker would relay at half its speed, and no chunk can
  change the state. What can (an empty frame, a wrong frame, an end) is an event.

What the table does not list is ignored: events cross each other on the way (the target resets while the client
closes), and the first one decides. Output depends on state and event only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Final

import msgspec

from wicketgate.model.errors import AccessDenied, EndpointNotFound, EndpointNotReady, InvalidParameter
from wicketgate.tunnel import reasons
from wicketgate.tunnel.dial import RefusalKind
from wicketgate.tunnel.reasons import UNABLE, CloseCode, cut


class State(Enum):
    """Where a tunnel is in its life."""

    DIALLING = "dialling"
    """Admitted; netd is asked, or the target's answer awaited. The client has no answer yet."""
    RECORDING = "recording"
    """The target answered; the OpenTunnel record is on its way to the disk."""
    REFUSING = "refusing"
    """No tunnel came about; the record of that is on its way to the disk, the client's answer after it."""
    OPEN = "open"
    CLIENT_EOF = "client-eof"
    """The client has said all it had to say; the target may go on."""
    CLOSING = "closing"
    """Our close frame is sent, or the client's answered; nothing but its delivery is left to do."""
    CLOSED = "closed"


class _Value(msgspec.Struct, frozen=True):
    """Base of events and commands: values, compared by content."""


# -- events: what happened ---------------------------------------------------------------------------------------------


class Recorded(_Value, frozen=True):
    """The OpenTunnel record is on disk; `answer` is that of the Record command."""

    answer: tuple[Any, ...] = ()


class RecordFailed(_Value, frozen=True):
    """The OpenTunnel record could not be written."""


class DialRefused(_Value, frozen=True):
    """netd does not dial."""

    kind: RefusalKind
    message: str


class DialUnavailable(_Value, frozen=True):
    """netd does not answer."""

    message: str


class TargetConnected(_Value, frozen=True):
    """The TCP connection to the target stands."""


class TargetFailed(_Value, frozen=True):
    """The TCP connection to the target did not come about; `reason` is ready for the client."""

    reason: str


class TargetEnded(_Value, frozen=True):
    """The target has closed its sending side; everything it sent before is handed on."""


class TargetReset(_Value, frozen=True):
    """The connection to the target broke."""


class ClientEnded(_Value, frozen=True):
    """An empty binary frame: the client's end of input."""


class ClientViolated(_Value, frozen=True):
    """The client sent a frame that it must not send."""

    code: int
    reason: str


class ClientClosed(_Value, frozen=True):
    """The client's close frame; 1005 when it carried no code."""

    code: int


class ClientGone(_Value, frozen=True):
    """The client's connection is gone."""


class ClientStalled(_Value, frozen=True):
    """The client does not take what a target that has ended left for it; its connection will be cut."""


class DurationOver(_Value, frozen=True):
    """maxTunnelDuration has passed."""

    seconds: float


class EndpointDeleted(_Value, frozen=True):
    """The endpoint is no longer in the World, or being deleted."""

    endpoint_id: str


class Revoked(_Value, frozen=True):
    """The tunnel would no longer be admitted, and revocation is immediate."""

    reason: str
    """One line for the client."""
    record: str
    """What the audit trail says: it may know more than the client."""


class Shutdown(_Value, frozen=True):
    """The gateway stops."""


Event = (
    Recorded
    | RecordFailed
    | DialRefused
    | DialUnavailable
    | TargetConnected
    | TargetFailed
    | TargetEnded
    | TargetReset
    | ClientEnded
    | ClientViolated
    | ClientClosed
    | ClientGone
    | ClientStalled
    | DurationOver
    | EndpointDeleted
    | Revoked
    | Shutdown
)

# -- commands: what to do ----------------------------------------------------------------------------------------------


class Record(_Value, frozen=True):
    """Write the attempt's OpenTunnel record, with an error if there is one. Recorded with this answer follows, or
    RecordFailed. Given exactly once for every tunnel."""

    error_code: str = ""
    message: str = ""
    answer: tuple[Any, ...] = ()
    """The commands to give once the record is on disk."""


class CancelDial(_Value, frozen=True):
    """Give up the dial under way and whatever it has brought."""


class Refuse(_Value, frozen=True):
    """Answer the handshake with an HTTP error."""

    http_status: int
    code: str
    message: str


class Accept(_Value, frozen=True):
    """Answer the handshake with 101."""


class Relay(_Value, frozen=True):
    """Hand bytes on in both directions, from now until told otherwise."""


class EndTarget(_Value, frozen=True):
    """Shut down the sending side towards the target, after all that was sent."""


class SlowClient(_Value, frozen=True):
    """Do not read from the client for a moment: it repeats itself."""


class CloseClient(_Value, frozen=True):
    """Stop handing bytes on and send a close frame, after all that was sent; then drain and end the connection."""

    code: int
    reason: str


class DropTarget(_Value, frozen=True):
    """Stop handing bytes on and close the target's socket: at once (a reset), or after all that was sent."""

    at_once: bool


class Finish(_Value, frozen=True):
    """Write the CloseTunnel record. Given exactly once for every tunnel whose OpenTunnel record says no error; it must
    not reach the disk before that one, nor without it."""

    code: int
    reason: str
    error_code: str = ""
    """Set when the tunnel ended before its 101."""


Command = Record | CancelDial | Refuse | Accept | Relay | EndTarget | SlowClient | CloseClient | DropTarget | Finish

# -- the table ---------------------------------------------------------------------------------------------------------

_Row = tuple[State, Callable[[Any], tuple[Command, ...]]]

_PERMANENT: Final[Mapping[str, tuple[int, str]]] = {
    "endpoint": (EndpointNotReady.http_status, EndpointNotReady.code),
    "target": (InvalidParameter.http_status, InvalidParameter.code),
    "client-address": (400, "UnsupportedOperation"),
}
"""netd's refusals that trying again cannot change: HTTP errors. The others are 101 and a close frame, because an HTTP
error ends the stock CLI's whole listener (`--local-port`) and a close frame only the one connection."""

_TRANSIENT: Final[Mapping[str, tuple[CloseCode, str]]] = {
    "limit": (CloseCode.TRY_AGAIN_LATER, "LimitExceeded"),
    "url-reused": (CloseCode.POLICY_VIOLATION, "RequestExpired"),
    "connect": (CloseCode.TARGET_FAILED, "TargetUnreachable"),
}


def _says_nothing(event: Any) -> tuple[Command, ...]:
    return ()


def _refused(status: int, code: str, message: str) -> tuple[Command, ...]:
    """No tunnel, told by an HTTP error."""
    return (Record(code, message, (Refuse(status, code, message),)),)


def _not_opened(code: CloseCode, reason: str, error_code: str) -> tuple[Command, ...]:
    """No tunnel, told by 101 and a close frame."""
    return (Record(error_code, reason, (Accept(), CloseClient(code, reason))),)


def _ended(code: int, reason: str, *, at_once: bool) -> tuple[Command, ...]:
    return (CloseClient(code, reason), DropTarget(at_once=at_once), Finish(code, reason))


def _dial_refused(event: DialRefused) -> tuple[Command, ...]:
    if event.kind in _PERMANENT:
        return _refused(*_PERMANENT[event.kind], event.message)
    code, error_code = _TRANSIENT[event.kind]
    return _not_opened(code, cut(_after_unable(event.message)), error_code)


def _unavailable(event: DialUnavailable) -> tuple[CloseCode, str, str]:
    return CloseCode.TRY_AGAIN_LATER, cut(_after_unable(event.message)), "ServiceUnavailable"


def _after_unable(message: str) -> str:
    return message if message.startswith(UNABLE) else f"{UNABLE}: {message}"


def _deleted(event: EndpointDeleted) -> tuple[int, str, str]:
    return EndpointNotFound.http_status, EndpointNotFound.code, reasons.endpoint_deleted(event.endpoint_id)


def _broken_off(status: int, code: str, message: str, record: str = "") -> tuple[Command, ...]:
    """An end while the record is being written, which says that all is well: the CloseTunnel record says the rest."""
    return (CancelDial(), Refuse(status, code, message), Finish(CloseCode.ABNORMAL, record or cut(message), code))


def _revoked_early(event: Revoked) -> tuple[Command, ...]:
    """The client is told what it may know, the record everything."""
    answer = Refuse(AccessDenied.http_status, AccessDenied.code, event.reason)
    return (CancelDial(), Record(AccessDenied.code, event.record, (answer,)))


def _revoked(event: Revoked) -> tuple[Command, ...]:
    # At once: what the target has left to say is for nobody any more, and its reset must not wait for a slow client.
    close = CloseClient(CloseCode.REVOKED, event.reason)
    return (close, DropTarget(at_once=True), Finish(CloseCode.REVOKED, event.record))


def _never_relayed(code: CloseCode, reason: str, error_code: str) -> tuple[Command, ...]:
    return (Accept(), CloseClient(code, reason), Finish(code, reason, error_code))


def _client_closed(event: ClientClosed) -> tuple[Command, ...]:
    # RFC 6455 section 5.5.1: answer with the code received. 1005 stands for none, and cannot be sent.
    answer = CloseCode.OK if event.code == CloseCode.NO_STATUS else event.code
    return (
        CloseClient(answer, ""),
        DropTarget(at_once=False),
        Finish(event.code, reasons.CLIENT_CLOSED),
    )


def _gone(*before: Command) -> Callable[[ClientGone], tuple[Command, ...]]:
    end = Finish(CloseCode.ABNORMAL, reasons.CLIENT_GONE)
    return lambda event: (*before, end)


_NO_RECORD: Final = Refuse(
    503, "ServiceUnavailable", "The audit record of this tunnel could not be written; no tunnel opens without one"
)
"""The answer whatever the dial brought: what is not on record is not told either."""
_STOPPING: Final = (503, "ServiceUnavailable", reasons.SHUTDOWN)

_RELAYING: Final[Mapping[type, _Row]] = {
    TargetEnded: (State.CLOSING, lambda _: _ended(CloseCode.OK, reasons.TARGET_CLOSED, at_once=False)),
    TargetReset: (State.CLOSING, lambda _: _ended(CloseCode.TARGET_FAILED, reasons.TARGET_RESET, at_once=True)),
    ClientViolated: (State.CLOSING, lambda e: _ended(e.code, cut(e.reason), at_once=True)),
    ClientClosed: (State.CLOSING, _client_closed),
    ClientGone: (State.CLOSED, _gone(DropTarget(at_once=False))),
    # No close frame: it could not be delivered either.
    ClientStalled: (
        State.CLOSING,
        lambda _: (DropTarget(at_once=True), Finish(CloseCode.ABNORMAL, reasons.CLIENT_STALLED)),
    ),
    DurationOver: (
        State.CLOSING,
        lambda e: _ended(CloseCode.DURATION_OVER, reasons.duration_over(e.seconds), at_once=True),
    ),
    EndpointDeleted: (
        State.CLOSING,
        lambda e: _ended(CloseCode.ENDPOINT_DELETED, reasons.endpoint_deleted(e.endpoint_id), at_once=True),
    ),
    Revoked: (State.CLOSING, _revoked),
    Shutdown: (State.CLOSING, lambda _: _ended(CloseCode.GOING_AWAY, reasons.SHUTDOWN, at_once=False)),
}
"""What OPEN and CLIENT_EOF have in common."""

TABLE: Final[Mapping[State, Mapping[type, _Row]]] = {
    State.DIALLING: {
        TargetConnected: (State.RECORDING, lambda _: (Record(),)),
        DialRefused: (State.REFUSING, _dial_refused),
        DialUnavailable: (State.REFUSING, lambda e: _not_opened(*_unavailable(e))),
        TargetFailed: (
            State.REFUSING,
            lambda e: _not_opened(CloseCode.TARGET_FAILED, cut(_after_unable(e.reason)), "TargetUnreachable"),
        ),
        Shutdown: (State.REFUSING, lambda _: (CancelDial(), *_refused(*_STOPPING))),
        EndpointDeleted: (State.REFUSING, lambda e: (CancelDial(), *_refused(*_deleted(e)))),
        Revoked: (State.REFUSING, _revoked_early),
        ClientGone: (State.CLOSED, lambda _: (CancelDial(), Record("RequestCanceled", reasons.CLIENT_GONE))),
    },
    State.RECORDING: {
        Recorded: (State.OPEN, lambda _: (Accept(), Relay())),
        RecordFailed: (State.CLOSING, lambda _: (_NO_RECORD,)),
        DialUnavailable: (State.CLOSING, lambda e: _never_relayed(*_unavailable(e))),
        Shutdown: (State.CLOSING, lambda _: _broken_off(*_STOPPING)),
        EndpointDeleted: (State.CLOSING, lambda e: _broken_off(*_deleted(e))),
        Revoked: (
            State.CLOSING,
            lambda e: _broken_off(AccessDenied.http_status, AccessDenied.code, e.reason, e.record),
        ),
        ClientGone: (State.CLOSED, _gone(CancelDial())),
    },
    State.REFUSING: {
        Recorded: (State.CLOSING, lambda e: e.answer),
        RecordFailed: (State.CLOSING, lambda _: (_NO_RECORD,)),
        ClientGone: (State.CLOSED, _says_nothing),
    },
    State.OPEN: {
        **_RELAYING,
        ClientEnded: (State.CLIENT_EOF, lambda _: (EndTarget(),)),
    },
    State.CLIENT_EOF: {
        **_RELAYING,
        # The stock CLI sends empty frames as fast as it can once its input has ended: only the first one counts.
        ClientEnded: (State.CLIENT_EOF, lambda _: (SlowClient(),)),
    },
    State.CLOSING: {
        ClientGone: (State.CLOSED, _says_nothing),
    },
    State.CLOSED: {},
}


class Session:
    """One admitted tunnel's state: its dial is under way. Feed it events; do what it says."""

    def __init__(self) -> None:
        self.state = State.DIALLING

    def receive(self, event: Event) -> tuple[Command, ...]:
        """Take one event; return the commands it leads to, in the order in which to execute them."""
        row = TABLE[self.state].get(type(event))
        if row is None:
            return ()
        self.state, commands = row
        return commands(event)
