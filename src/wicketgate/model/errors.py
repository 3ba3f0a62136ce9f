"""The exception tree.

    WicketgateError
    |-- CallerError            the caller's fault: says what was wrong and what would be right
    |   |-- AuthFailure        nobody we know signed this (HTTP 403)
    |   |-- AccessDenied       IAM says no (HTTP 403)
    |   |-- InvalidParameter   a parameter is missing, malformed or not offered (HTTP 400)
    |   |-- EndpointNotFound   no such endpoint (HTTP 404)
    |   |-- EndpointNotReady   the endpoint's state admits no tunnel (HTTP 400)
    |   `-- LimitExceeded      transient: 101, then a close frame (close code 1013)
    |-- TargetUnreachable      transient: 101, then a close frame (close code 1011)
    |-- ApiError               an API action refused: any of the EC2, IAM and STS APIs' own codes
    |-- WorldError             the state we were given contradicts itself
    `-- FabricError            the kernel did not do as told: our bug or the host's
        `-- AddressInUse       or a host of a bound network has an address that was to be taken

AWS publishes no list of openTunnel errors; ErrorCode values follow what clients reported (`AccessDeniedException`,
`InvalidParameter`) and otherwise the EC2 API's own names. HTTP status by analogy with other AWS JSON services.
"""

from __future__ import annotations

import re
from typing import ClassVar


class WicketgateError(Exception):
    """Anything wicketgate raises on purpose. `str(error)` is one line for people."""

    code: ClassVar[str] = "InternalError"
    """The ErrorCode a client sees, in AWS's words where AWS has them."""
    http_status: ClassVar[int] = 500
    close_code: ClassVar[int] = 1011
    """The WebSocket close code (RFC 6455 section 7.4) where the answer has to be a close frame."""


class CallerError(WicketgateError):
    """The request could not be granted as it was made."""

    code = "InvalidRequest"
    http_status = 400
    close_code = 1008


class AuthFailure(CallerError):
    """The signature, key, session token or time of the request does not hold."""

    http_status = 403

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code  # type: ignore[misc]  # SignatureDoesNotMatch, ExpiredToken, ...: one class, AWS's several codes


class AccessDenied(CallerError):
    """IAM does not allow the action for this principal, resource and context."""

    code = "AccessDeniedException"
    http_status = 403


class InvalidParameter(CallerError):
    """A parameter is missing, malformed or out of the offered range."""

    code = "InvalidParameter"


class EndpointNotFound(CallerError):
    """The named EC2 Instance Connect Endpoint does not exist."""

    code = "InvalidInstanceConnectEndpointId.NotFound"
    http_status = 404


class EndpointNotReady(CallerError):
    """The endpoint exists but its state admits no tunnels."""

    code = "InvalidState"


class LimitExceeded(CallerError):
    """A limit on tunnels is reached; trying again later can succeed."""

    code = "LimitExceeded"
    http_status = 429
    close_code = 1013


class TargetUnreachable(WicketgateError):
    """The tunnel was admitted but no TCP connection to the target came about."""

    code = "TargetUnreachable"
    http_status = 502


class ApiError(CallerError):
    """An API action is refused in its API's own code and words (EC2 API Reference, Error codes)."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code = code  # type: ignore[misc]  # hundreds of codes, one class: clients compare the text
        self.message = message
        self.http_status = status  # type: ignore[misc]


class WorldError(WicketgateError):
    """The World contradicts itself, or its file cannot be read."""

    code = "InvalidState"


class FabricError(WicketgateError):
    """The kernel refused a namespace, link, route or ruleset."""


class AddressInUse(FabricError):
    """A host of the network that a subnet is bound to has an address that was to be taken."""

    code = "InvalidIPAddress.InUse"
    WORDS: ClassVar[re.Pattern[str]] = re.compile(r"\S+ is in use on the network of subnet-\w+, by [0-9a-f:]+")

    def __init__(self, address: str, subnet_id: str, mac: str) -> None:
        super().__init__(f"{address} is in use on the network of {subnet_id}, by {mac}")

    @classmethod
    def told(cls, words: str) -> str:
        """What one process says to another is words alone: those of such an error, if they are among them, else ""."""
        found = cls.WORDS.search(words)
        return "" if found is None else found[0]
