"""The audit line of one API call, as CloudTrail writes it. Pure: ids and times are passed in.

Source: CloudTrail User Guide, "CloudTrail record contents", and records of EC2, IAM, STS and EC2 Instance Connect that
users published. A refused call is written as an answered one, with errorCode and errorMessage.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from wicketgate.audit.events import MAX_MESSAGE, MAX_TEXT, Event, event_time, user_identity
from wicketgate.audit.resources import resources
from wicketgate.audit.spelling import request_parameters, response_elements, shortened
from wicketgate.model import ApiError, Principal, World

_READS: Final = ("Describe", "Get", "List", "Lookup", "Simulate", "Search", "Head", "Explain", "Reach", "Lint", "Check")
_READS_WITH_ANSWER: Final = frozenset({"AssumeRole"})
"""Read-only at AWS, for they change no resource; their answer is written down all the same."""

_ERROR_CODES: Final[Mapping[str, str]] = {
    "AccessDeniedException": "AccessDenied",
    "DeleteConflict": "DeleteConflictException",
    "EntityAlreadyExists": "EntityAlreadyExistsException",
    "EntityTemporarilyUnmodifiable": "EntityTemporarilyUnmodifiableException",
    "InvalidInput": "InvalidInputException",
    "LimitExceeded": "LimitExceededException",
    "MalformedPolicyDocument": "MalformedPolicyDocumentException",
    "NoSuchEntity": "NoSuchEntityException",
    "ValidationError": "ValidationException",
}
"""CloudTrail's errorCode where it differs from the code that the caller got (EC2's have rules of their own)."""


class ApiCall(msgspec.Struct, frozen=True, kw_only=True):
    """One API call, as far as it was understood, and how it was answered."""

    service: str
    """As botocore names it: `ec2`, `iam`, `sts`, `ec2-instance-connect`, `cloudtrail`."""
    action: str
    request_id: str
    source_ip: str
    user_agent: str = ""
    access_key_id: str = ""
    """As claimed; with no principal, by somebody who could not prove it."""
    principal: Principal | None = None
    parameters: Mapping[str, Any] | None = None
    """By the service model's member names; None when the request did not parse or its caller was not proven."""
    answer: Mapping[str, Any] | None = None
    """By member names; None when `error` is what was answered."""
    error: ApiError | None = None
    output_shape: Any = None
    """Botocore's model of the answer, for the names that EC2 gives its members on the wire."""
    api_version: str = ""
    tls: Mapping[str, str] = {}
    """tlsVersion, cipherSuite and clientProvidedHostHeader, as far as known."""


def is_read_only(action: str) -> bool:
    """Whether CloudTrail calls an action of the services that are spoken read-only."""
    return action.startswith(_READS) or action in _READS_WITH_ANSWER


def error_code(service: str, error: ApiError) -> str:
    """An error's code in CloudTrail's words: `Client.UnauthorizedOperation` of EC2, `AccessDenied` elsewhere."""
    if service == "ec2":
        return f"{'Server' if error.http_status >= 500 else 'Client'}.{error.code}"
    return _ERROR_CODES.get(error.code, error.code)


def api_event(world: World, call: ApiCall, *, event_id: str, now: float) -> Event:
    """The record of one API call. `now` is seconds since the epoch; `event_id` a UUID.

    Like CloudTrail it has no request parameters where access was denied, EC2 excepted, and no answer of read-only
    actions; `resources` names what was asked for in any case.
    """
    event: Event = {
        "eventVersion": "1.08",
        "userIdentity": user_identity(world, call.principal, call.access_key_id),
        "eventTime": event_time(now),
        "eventSource": f"{call.service}.amazonaws.com",
        "eventName": shortened(call.action, MAX_TEXT),
        "awsRegion": world.region,
        "sourceIPAddress": call.source_ip,
        "userAgent": shortened(call.user_agent, MAX_TEXT),
    }
    code = error_code(call.service, call.error) if call.error is not None else ""
    if call.error is not None:
        event["errorCode"] = shortened(code, MAX_TEXT)
        event["errorMessage"] = shortened(call.error.message, MAX_MESSAGE)
    parameters = call.parameters if code != "AccessDenied" else None
    event |= {
        "requestParameters": request_parameters(call.service, parameters) if parameters is not None else None,
        "responseElements": _answer(call),
        "requestID": call.request_id,
        "eventID": event_id,
        "readOnly": is_read_only(call.action),
        "resources": resources(world, call.service, call.parameters, _written(call)),
        "eventType": "AwsApiCall",
    }
    if call.api_version:
        event["apiVersion"] = call.api_version
    event |= {"managementEvent": True, "recipientAccountId": world.account_id, "eventCategory": "Management"}
    if call.tls:
        event["tlsDetails"] = {name: shortened(value, MAX_TEXT) for name, value in call.tls.items()}
    return event


def _written(call: ApiCall) -> Mapping[str, Any] | None:
    """The answer, if it is one that is written down."""
    if call.error is not None or (is_read_only(call.action) and call.action not in _READS_WITH_ANSWER):
        return None
    return call.answer


def _answer(call: ApiCall) -> dict[str, Any] | None:
    answer = _written(call)
    if answer is None:
        return None
    if call.service == "ec2":
        answer = {"RequestId": call.request_id, **answer}
    return response_elements(call.service, answer, call.output_shape)
