"""The tunnel: its life as a state machine, the words it ends with, and what the gateway and netd say to each other."""

from wicketgate.tunnel.dial import DialReply, DialRequest, RefusalKind
from wicketgate.tunnel.reasons import UNABLE, CloseCode, cut, dial_failure
from wicketgate.tunnel.session import Session, State

__all__ = [
    "UNABLE",
    "CloseCode",
    "DialReply",
    "DialRequest",
    "RefusalKind",
    "Session",
    "State",
    "cut",
    "dial_failure",
]
