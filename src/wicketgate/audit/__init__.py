"""The audit trail: CloudTrail-shaped lines about every attempt to open a tunnel and every tunnel's end."""

from wicketgate.audit.events import Attempt, Outcome, close_event, open_event, unexpected_end, user_identity
from wicketgate.audit.log import AuditError, AuditLog, Recovery

__all__ = [
    "Attempt",
    "AuditError",
    "AuditLog",
    "Outcome",
    "Recovery",
    "close_event",
    "open_event",
    "unexpected_end",
    "user_identity",
]
