"""The audit lines' content. Pure: ids and times are passed in.

`OpenTunnel` has the fields of AWS's own example (EC2 User Guide, log-ec2-instance-connect-endpoint-using-cloudtrail),
request parameters as strings. AWS writes nothing when a tunnel ends; `CloseTunnel` is ours, shaped like CloudTrail's
service events (eventType AwsServiceEvent, details under serviceEventDetails) and joined to its OpenTunnel by requestID.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from wicketgate.model import Principal, World
from wicketgate.sigv4.canonical import TUNNEL_PARAMETERS
from wicketgate.tunnel.targets import parse_address

EVENT_SOURCE: Final = "ec2-instance-connect.amazonaws.com"
OPEN: Final = "OpenTunnel"
CLOSE: Final = "CloseTunnel"
UNEXPECTED_END: Final = "gateway ended unexpectedly"

_ERROR_CODES: Final = {"AccessDeniedException": "AccessDenied"}
"""CloudTrail's errorCode where it differs from the API's ErrorCode."""

MAX_TEXT: Final = 256
"""Characters of a caller's text that are written down: nobody may fill the disk with a few long headers."""
MAX_MESSAGE: Final = 1024
"""Characters of an error message; ours, but it may quote the caller."""

Event = dict[str, Any]


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One openTunnel request, as far as it was understood."""

    request_id: str
    source_ip: str
    user_agent: str = ""
    access_key_id: str = ""
    principal: Principal | None = None
    """Who signed, once that is proven."""
    parameters: Mapping[str, str] = {}
    """The tunnel's parameters as sent: instanceConnectEndpointId, remotePort, privateIpAddress, maxTunnelDuration."""
    error_code: str = ""
    error_message: str = ""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a tunnel ended. None stands for what nobody knows."""

    close_code: int | None
    close_reason: str
    bytes_from_client: int | None
    bytes_to_client: int | None
    duration: float | None
    """Seconds from the 101 to the end."""
    source_address: str = ""
    """The address the target saw; empty when no connection was made."""
    error_code: str = ""
    """Set when the target was reached, but the tunnel ended before its 101."""
    world_revision: int | None = None
    """Of the World in force then."""


def event_time(now: float) -> str:
    """Seconds since the epoch as CloudTrail writes a time: UTC, to the second."""
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _bounded(text: str, size: int = MAX_TEXT) -> str:
    return text if len(text) <= size else f"{text[: size - 1]}…"


def user_identity(world: World, principal: Principal | None, access_key_id: str) -> dict[str, Any]:
    """CloudTrail's userIdentity of who made a request; None is a caller that is not proven.

    Source: CloudTrail User Guide, cloudtrail-event-reference-user-identity.
    """
    key = {"accessKeyId": _bounded(access_key_id)} if access_key_id else {}
    if principal is None:
        return {"type": "Unknown", **key}
    identity: dict[str, Any] = {
        "type": principal.type,
        "principalId": principal.id,
        "arn": principal.arn,
        "accountId": world.account_id,
        **key,
    }
    if principal.type == "IAMUser":
        identity["userName"] = principal.name
    if principal.type == "AssumedRole":
        identity["sessionContext"] = _session_context(world, principal)
    return identity


def _session_context(world: World, principal: Principal) -> dict[str, Any]:
    name = principal.name.partition("/")[0]
    role = world.role(name)
    return {
        "sessionIssuer": {
            "type": "Role",
            "principalId": principal.id.partition(":")[0],
            "arn": world.role_arn(role) if role is not None else "",
            "accountId": world.account_id,
            "userName": name,
        },
        "attributes": {"creationDate": event_time(principal.issued_at or 0.0), "mfaAuthenticated": "false"},
    }


def _resources(world: World, parameters: Mapping[str, str]) -> list[dict[str, str]]:
    """The endpoint, as at AWS, and what holds the target's address: who asks by an instance's id finds its tunnels."""
    endpoint_id = parameters.get("instanceConnectEndpointId")
    if not endpoint_id:
        return []
    found = [_resource(world, "AWS::EC2::InstanceConnectEndpoint", world.endpoint_arn(endpoint_id))]
    endpoint, address = world.endpoint(endpoint_id), parse_address(parameters.get("privateIpAddress", ""))
    if endpoint is None or address is None:
        return found
    interface = world.interface_at(world.vpc_of_subnet(endpoint.subnet_id).id, str(address))
    if interface is None:
        return found
    arn = f"arn:{world.partition}:ec2:{world.region}:{world.account_id}"
    found.append(_resource(world, "AWS::EC2::NetworkInterface", f"{arn}:network-interface/{interface.id}"))
    if instance := world.instance_of_interface(interface.id):
        found.append(_resource(world, "AWS::EC2::Instance", f"{arn}:instance/{instance.id}"))
    return found


def _resource(world: World, type_name: str, arn: str) -> dict[str, str]:
    return {"accountId": world.account_id, "type": type_name, "ARN": arn}


def open_event(world: World, attempt: Attempt, *, event_id: str, now: float) -> Event:
    """The OpenTunnel record of one attempt; with errorCode and errorMessage when no tunnel came of it.

    Only the tunnel's own parameters are written down: the rest of the query holds the signature and session token.
    `now` is seconds since the epoch; `event_id` a UUID.
    """
    asked = attempt.parameters
    parameters = {name: _bounded(asked[name]) for name in TUNNEL_PARAMETERS if name in asked}
    event: Event = {
        "eventVersion": "1.08",
        "userIdentity": user_identity(world, attempt.principal, attempt.access_key_id),
        "eventTime": event_time(now),
        "eventSource": EVENT_SOURCE,
        "eventName": OPEN,
        "awsRegion": world.region,
        "sourceIPAddress": attempt.source_ip,
        "userAgent": _bounded(attempt.user_agent),
    }
    if attempt.error_code:
        event["errorCode"] = _ERROR_CODES.get(attempt.error_code, attempt.error_code)
        event["errorMessage"] = _bounded(attempt.error_message, MAX_MESSAGE)
    event |= {
        "requestParameters": parameters or None,
        "responseElements": None,
        "requestID": attempt.request_id,
        "eventID": event_id,
        "readOnly": False,
        "resources": _resources(world, parameters),
        "eventType": "AwsApiCall",
        "additionalEventData": {"worldRevision": world.revision},
        "managementEvent": True,
        "recipientAccountId": world.account_id,
        "eventCategory": "Management",
    }
    return event


def close_event(opened: Mapping[str, Any], outcome: Outcome, *, event_id: str, now: float) -> Event:
    """The CloseTunnel record that belongs to an OpenTunnel record, read back or just made."""
    event: Event = {
        "eventVersion": "1.08",
        "userIdentity": opened.get("userIdentity"),
        "eventTime": event_time(now),
        "eventSource": EVENT_SOURCE,
        "eventName": CLOSE,
        "awsRegion": opened.get("awsRegion"),
        "sourceIPAddress": opened.get("sourceIPAddress"),
        "userAgent": opened.get("userAgent"),
    }
    if outcome.error_code:
        event["errorCode"] = _ERROR_CODES.get(outcome.error_code, outcome.error_code)
        event["errorMessage"] = _bounded(outcome.close_reason, MAX_MESSAGE)
    event |= {
        "requestParameters": opened.get("requestParameters"),
        "responseElements": None,
        "requestID": opened.get("requestID"),
        "eventID": event_id,
        "readOnly": True,
        "resources": opened.get("resources"),
        "eventType": "AwsServiceEvent",
        "additionalEventData": {"worldRevision": outcome.world_revision},
        "managementEvent": True,
        "recipientAccountId": opened.get("recipientAccountId"),
        "serviceEventDetails": {
            "bytesFromClient": outcome.bytes_from_client,
            "bytesToClient": outcome.bytes_to_client,
            "durationSeconds": None if outcome.duration is None else round(outcome.duration, 3),
            "closeCode": outcome.close_code,
            "closeReason": _bounded(outcome.close_reason, MAX_MESSAGE),
            "targetSawAddress": outcome.source_address or None,
        },
        "eventCategory": "Management",
    }
    return event


def unexpected_end() -> Outcome:
    """What can be said of a tunnel whose gateway process died."""
    return Outcome(
        close_code=None,
        close_reason=UNEXPECTED_END,
        bytes_from_client=None,
        bytes_to_client=None,
        duration=None,
    )


def line(event: Mapping[str, Any]) -> bytes:
    """One event as one line of JSON, ASCII only, so that nothing a client sends can start a line of its own."""
    return json.dumps(event, separators=(",", ":")).encode() + b"\n"
