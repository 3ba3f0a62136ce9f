"""cloudtrail:LookupEvents: the audit files as CloudTrail's event history shows them, the newest event first.

It reads files, so it is no action of `control`. Source: CloudTrail API Reference, LookupEvents; AWS publishes the
errors' codes and when they occur, the messages follow the descriptions there.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Final

from wicketgate.audit.events import Event
from wicketgate.audit.reading import events, seconds_of
from wicketgate.model import ApiError

MAX_RESULTS: Final = 50
HISTORY: Final = 90 * 86_400
"""Seconds that the event history goes back (CloudTrail User Guide, "Working with CloudTrail event history")."""


def lookup_events(parameters: Mapping[str, Any], paths: Iterable[Path], now: float) -> dict[str, Any]:
    """The answer to LookupEvents, by member names. `parameters` are validated, `now` is seconds since the epoch.

    A NextToken goes on after the last event of its page, whatever has been written since; it is good for the
    parameters it was made with. Raises ApiError, and AuditError for files that cannot be read.
    """
    size = _page_size(parameters)
    since, until = _range(parameters, now)
    attribute = _attribute(parameters)
    asked = _fingerprint(parameters)
    found: Iterator[Event]
    if token := parameters.get("NextToken"):
        moment, event_id = _read_token(token, asked)
        until = min(until, moment)
        found = _after(events(paths, since=since, until=until, newest=True), moment, event_id)
    else:
        found = events(paths, since=since, until=until, newest=True)
    page = list(islice(filter(attribute, found), size + 1))
    answer: dict[str, Any] = {"Events": [_shown(event) for event in page[:size]]}
    if len(page) > size:
        answer["NextToken"] = _token(page[size - 1], asked)
    return answer


# -- parameters --------------------------------------------------------------------------------------------------------


def _page_size(parameters: Mapping[str, Any]) -> int:
    size: int = parameters.get("MaxResults") or MAX_RESULTS
    if not 1 <= size <= MAX_RESULTS or parameters.get("MaxResults") == 0:
        raise ApiError("InvalidMaxResultsException", f"Max results must be between 1 and {MAX_RESULTS}.")
    return size


def _range(parameters: Mapping[str, Any], now: float) -> tuple[float, float]:
    start, end = parameters.get("StartTime"), parameters.get("EndTime")
    since = start.timestamp() if start is not None else now - HISTORY
    until = end.timestamp() if end is not None else math.inf
    if start is not None and since > (until if end is not None else now):
        raise ApiError("InvalidTimeRangeException", "Start time must occur before end time.")
    return max(since, now - HISTORY), min(until, now + 86_400)


def _attribute(parameters: Mapping[str, Any]) -> Callable[[Event], bool]:
    """What an event must be to be shown."""
    attributes = parameters.get("LookupAttributes") or []
    if len(attributes) > 1:
        raise ApiError("InvalidLookupAttributesException", "Only one lookup attribute can be specified.")
    category = parameters.get("EventCategory")
    if category:  # the model knows `insight` alone, and nothing here writes such events
        return lambda event: False
    if not attributes:
        return lambda event: True
    key, value = attributes[0]["AttributeKey"], attributes[0]["AttributeValue"]
    if key == "ReadOnly" and value not in ("true", "false"):
        raise ApiError("InvalidLookupAttributesException", "The value of ReadOnly must be true or false.")
    values = _ATTRIBUTES[key]
    return lambda event: value in values(event)


def _username(event: Event) -> str:
    """A user's name, the session's name of an assumed role, or `root`."""
    identity = event.get("userIdentity") or {}
    if identity.get("type") == "Root":
        return "root"
    if identity.get("type") == "AssumedRole":
        return str(identity.get("arn", "")).rpartition("/")[2]
    return str(identity.get("userName", ""))


def _resources(event: Event) -> list[dict[str, str]]:
    found = []
    for resource in event.get("resources") or []:
        arn = str(resource.get("ARN", ""))
        name = arn if arn.split(":")[2:3] == ["iam"] and ":policy/" in arn else arn.rpartition("/")[2]
        found.append({"ResourceType": str(resource.get("type", "")), "ResourceName": name})
    return found


def _resource_names(event: Event) -> set[str]:
    """What a resource may be looked up by: the name that is shown, or its ARN."""
    arns = {str(resource.get("ARN", "")) for resource in event.get("resources") or []}
    return arns | {resource["ResourceName"] for resource in _resources(event)}


_ATTRIBUTES: Final[Mapping[str, Callable[[Event], Iterable[str]]]] = {
    "EventId": lambda event: {event.get("eventID", "")},
    "EventName": lambda event: {event.get("eventName", "")},
    "ReadOnly": lambda event: {_read_only(event)},
    "Username": lambda event: {_username(event)},
    "ResourceType": lambda event: {resource["ResourceType"] for resource in _resources(event)},
    "ResourceName": _resource_names,
    "EventSource": lambda event: {event.get("eventSource", "")},
    "AccessKeyId": lambda event: {(event.get("userIdentity") or {}).get("accessKeyId", "")},
}


def _read_only(event: Event) -> str:
    return "true" if event.get("readOnly") else "false"


def _shown(event: Event) -> dict[str, Any]:
    shown = {
        "EventId": event.get("eventID", ""),
        "EventName": event.get("eventName", ""),
        "ReadOnly": _read_only(event),
        "AccessKeyId": (event.get("userIdentity") or {}).get("accessKeyId"),
        "EventTime": datetime.fromtimestamp(seconds_of(event), UTC),
        "EventSource": event.get("eventSource", ""),
        "Username": _username(event) or None,
        "Resources": _resources(event),
        "CloudTrailEvent": json.dumps(event, separators=(",", ":")),
    }
    return {name: value for name, value in shown.items() if value is not None}


# -- pages -------------------------------------------------------------------------------------------------------------


def _fingerprint(parameters: Mapping[str, Any]) -> str:
    """What a token must be used with again: everything but the token and the size of a page."""
    asked = {name: value for name, value in sorted(parameters.items()) if name not in ("NextToken", "MaxResults")}
    return hashlib.sha256(json.dumps(asked, default=str, sort_keys=True).encode()).hexdigest()[:16]


def _token(event: Event, asked: str) -> str:
    content = json.dumps([seconds_of(event), event.get("eventID", ""), asked])
    return base64.urlsafe_b64encode(content.encode()).decode()


def _read_token(token: str, asked: str) -> tuple[float, str]:
    try:
        moment, event_id, made_for = json.loads(base64.urlsafe_b64decode(token.encode("ascii")))
        position = float(moment), str(event_id)
    except (ValueError, TypeError, binascii.Error):
        raise ApiError("InvalidNextTokenException", "The token is not valid.") from None
    if made_for != asked or not math.isfinite(position[0]):
        text = "The token is not valid, or was previously used in a request with different parameters."
        raise ApiError("InvalidNextTokenException", text)
    return position


def _after(found: Iterator[Event], moment: float, event_id: str) -> Iterator[Event]:
    """The events behind the one that a page ended with; those of its second are skipped up to it."""
    passed = False
    for event in found:
        if passed or seconds_of(event) < moment:
            yield event
        elif event.get("eventID") == event_id:
            passed = True
