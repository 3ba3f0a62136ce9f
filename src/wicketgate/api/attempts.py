"""Attempts to open a tunnel, as the audit trail has them, and why each went as it did.

An attempt is told by its request id. The World that decided it is told by its revision in the audit line; a line
without one (of an earlier version) is taken to be of the end of its second.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from wicketgate.api.cloudtrail import HISTORY
from wicketgate.audit.events import CLOSE, OPEN, Event
from wicketgate.audit.reading import events, seconds_of
from wicketgate.explain import Explanation, Line, Question, Say, Unanswerable, explain
from wicketgate.model import World
from wicketgate.tunnel import CloseCode

_STEPS: Final = {
    "Principal": "credentials",
    "SourceIp": "source-address",
    "EndpointId": "endpoint",
    "Target": "target",
    "Port": "limits",
}
"""Part of a question that means nothing in the World of its moment -> the step that failed by it."""


_NOT_ALLOWED: Final = frozenset({CloseCode.REVOKED, CloseCode.ENDPOINT_DELETED})


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """What the audit trail has under one request id."""

    opened: Event
    """The OpenTunnel line, or the line of another call."""
    closed: Event | None = None

    @property
    def decisive(self) -> Event:
        """What is to be explained: the end of a tunnel that was no longer allowed, else the beginning."""
        ended = (
            self.closed is not None and _mapping(self.closed, "serviceEventDetails").get("closeCode") in _NOT_ALLOWED
        )
        return self.closed if ended and self.closed is not None else self.opened

    @property
    def principal_arn(self) -> str:
        """Who it was; empty for a caller who was not proven."""
        return str(_mapping(self.opened, "userIdentity").get("arn", ""))

    @property
    def revision(self) -> int | None:
        """Of the World that decided; None if the line does not say."""
        found = _mapping(self.decisive, "additionalEventData").get("worldRevision")
        return found if isinstance(found, int) else None

    @property
    def until(self) -> float:
        """The end of the second of what is to be explained, in seconds since the epoch."""
        return seconds_of(self.decisive) + 0.999_999

    def shown(self) -> dict[str, str]:
        """What was recorded, for the explanation."""
        last = self.opened if self.closed is None else self.closed
        found = {"requestId": last.get("requestID"), "event": last.get("eventName"), "time": last.get("eventTime")}
        if self.closed is not None:
            details = _mapping(self.closed, "serviceEventDetails")
            found |= {"closeCode": details.get("closeCode"), "closeReason": details.get("closeReason")}
        if last.get("errorCode"):
            found |= {"errorCode": last["errorCode"], "errorMessage": last.get("errorMessage")}
        return {name: "" if value is None else str(value) for name, value in found.items()}


def find_attempt(paths: Iterable[Path], request_id: str, now: float) -> Attempt | None:
    """The attempt of a request id, or the call that has it; None when the trail has neither.

    Looked for from `now` (seconds since the epoch) backwards, as far as the event history goes. Raises AuditError.
    """
    closed: Event | None = None
    for event in events(paths, since=now - HISTORY, newest=True, match=lambda one: one.get("requestID") == request_id):
        if event.get("eventName") != CLOSE:
            return Attempt(opened=event, closed=closed)
        closed = event
    return None if closed is None else Attempt(opened=closed, closed=closed)


def explain_attempt(world: World, attempt: Attempt) -> Explanation:
    """Why it went as it did, by the World of its moment. Raises Unanswerable for what is no readable attempt."""
    opened = attempt.opened
    request_id = str(opened.get("requestID"))
    answer = f"{opened.get('errorCode', 'ok')}: {opened.get('errorMessage', '')}".removesuffix(": ")
    if opened.get("eventName") not in (OPEN, CLOSE):
        event = str(opened.get("eventName"))
        raise Unanswerable("RequestId", "ask-not-a-tunnel", given=request_id, event=event, answer=answer)
    question = _question(attempt)
    if question is None:
        raise Unanswerable("RequestId", "ask-not-read", given=request_id, answer=answer)
    unproven = _unproven(opened)
    try:
        explanation = explain(world, question)
    except Unanswerable as error:
        line = Line(step=_STEPS.get(error.place, "limits"), outcome="fail", say=error.say)
        explanation = Explanation(asked={}, lines=(line,), revision=world.revision)
    lines = explanation.lines
    if unproven is not None:
        lines = (unproven, *(line for line in lines if line.step != "credentials"))
    if attempt.closed is None and opened.get("errorCode") and all(line.outcome == "pass" for line in lines):
        lines = (*lines, Line(step="recorded", outcome="unknown", say=Say("recorded-beyond", {"answer": answer})))
    remedies = explanation.remedies if unproven is None else ()
    return msgspec.structs.replace(explanation, lines=lines, remedies=remedies, recorded=attempt.shown())


def _question(attempt: Attempt) -> Question | None:
    """What was asked for; None when the parameters are not those of a tunnel."""
    given = _mapping(attempt.opened, "requestParameters")
    identity = _mapping(attempt.opened, "userIdentity")
    try:
        duration = given.get("maxTunnelDuration")
        return Question(
            principal=str(identity.get("accessKeyId") or identity.get("arn") or ""),
            source_ip=str(attempt.opened.get("sourceIPAddress")),
            target=given["privateIpAddress"],
            endpoint_id=given["instanceConnectEndpointId"],
            port=int(given["remotePort"]),
            duration=None if duration is None else int(duration),
            at=seconds_of(attempt.decisive),
        )
    except (KeyError, ValueError):
        return None


def _unproven(opened: Event) -> Line | None:
    """The step of a caller who did not prove who he is."""
    identity = _mapping(opened, "userIdentity")
    if identity.get("type") != "Unknown":
        return None
    facts = {"key": str(identity.get("accessKeyId", "")), "code": str(opened.get("errorCode", ""))}
    return Line(step="credentials", outcome="fail", say=Say("key-unproven", facts), decided_by=facts["key"])


def _mapping(event: Event, name: str) -> Mapping[str, Any]:
    value = event.get(name)
    return value if isinstance(value, Mapping) else {}
