"""Who sent this request, and may he do that? The API's two questions before an action runs. Pure but for nothing: the
time comes in.

Signatures: AWS Signature Version 4 in the Authorization header or in the query (IAM User Guide, "Signing AWS API
requests"). IAM and, if its client likes, STS are signed for us-east-1, whatever the region (AWS General Reference).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Final
from urllib.parse import unquote

from wicketgate import iam
from wicketgate.api.http import Request
from wicketgate.control.call import Ask
from wicketgate.model import AccessKey, ApiError, AuthFailure, Principal, World
from wicketgate.sigv4.verify import Expected, SignedRequest, verify_header, verify_presigned

PRESIGNED_SECONDS: Final = 900
"""For how long a presigned request is good, at most."""
MAX_ASKED: Final = 2048
"""Characters of what IAM is asked about: the longest ARN (IAM API Reference, arnType), and longer than any value."""
GLOBAL_REGION: Final = "us-east-1"
_GLOBAL: Final = frozenset({"iam", "sts"})
_JSON_CODES: Final = {
    "InvalidClientTokenId": "UnrecognizedClientException",
    "SignatureDoesNotMatch": "InvalidSignatureException",
    "IncompleteSignature": "IncompleteSignatureException",
    "MissingAuthenticationToken": "MissingAuthenticationTokenException",
    "RequestExpired": "InvalidSignatureException",
    "ExpiredToken": "ExpiredTokenException",
}
"""What the JSON services call them (AWS JSON 1.1 services, "Common errors")."""
_EC2_CODES: Final = {"SignatureDoesNotMatch": ("AuthFailure", 401), "InvalidClientTokenId": ("AuthFailure", 401)}
_EC2_WORDS: Final = "AWS was not able to validate the provided access credentials"


def authenticate(world: World, request: Request, service: str, now: float) -> tuple[AccessKey, Principal]:
    """Whose signature the request bears; `service`: the signing name. Raises AuthFailure."""
    signed = SignedRequest(
        method=request.method,
        path=request.path,
        query=query_parameters(request.query),
        headers=request.headers,
        payload_hash=hashlib.sha256(request.body).hexdigest(),
    )
    expected = Expected(
        region=_region(world, request, service),
        service=service,
        window=PRESIGNED_SECONDS,
        clock_skew=world.settings.clock_skew,
    )
    in_query = "X-Amz-Signature" in signed.query and "authorization" not in request.headers
    verify = verify_presigned if in_query else verify_header
    key = verify(signed, expected, world.access_key, now).key
    principal = world.principal(key)
    if principal is None:
        raise AuthFailure("InvalidClientTokenId", f"The access key {key.id} belongs to nobody that exists.")
    return key, principal


def query_parameters(query: str) -> dict[str, str]:
    """The decoded query, a plus sign being one (SigV4). Names that come twice are refused when it is read as a call."""
    pairs = (pair.partition("=") for pair in query.split("&") if pair)
    return {unquote(name): unquote(value) for name, _, value in pairs}


def claimed_key(request: Request) -> str:
    """The access key id that a request names, proven or not; for the record."""
    text = request.headers.get("authorization", "").partition("Credential=")[2]
    if not text:
        text = query_parameters(request.query).get("X-Amz-Credential", "")
    return text.partition("/")[0][:128]


def worded(failure: AuthFailure, service: str, *, json: bool) -> ApiError:
    """An AuthFailure under the code by which clients of this service know it."""
    if json:
        return ApiError(_JSON_CODES.get(failure.code, failure.code), str(failure), 400)
    if service == "ec2" and failure.code in _EC2_CODES:
        code, status = _EC2_CODES[failure.code]
        return ApiError(code, f"{_EC2_WORDS}: {failure}", status)
    return ApiError(failure.code, str(failure), failure.http_status)


def authorize(
    asks: Iterable[Ask], principal: Principal, context: Mapping[str, str | tuple[str, ...]], service: str, *, json: bool
) -> None:
    """Raise ApiError in the service's words for the first question that IAM does not answer with yes.

    `context`: the condition keys of every request of this caller, by lower-case name.
    """
    for ask in asks:
        _check_size(ask, service, json=json)
        asked = iam.Request(
            principal_arn=principal.arn,
            action=ask.action,
            resource=ask.resource,
            context={**context, **_context(ask.context)},
        )
        decision = iam.decide(asked, principal)
        if not decision.allowed:
            raise _denied(service, decision.message, json=json)


def _check_size(ask: Ask, service: str, *, json: bool) -> None:
    """Refuse what no resource can be called: IAM is asked before parameters are looked at, by policies of any shape."""
    given = [(values,) if isinstance(values, str) else values for values in ask.context.values()]
    longest = max(map(len, (ask.resource, *(value for values in given for value in values))))
    if longest > MAX_ASKED:
        text = f"A name or value in the request has {longest} characters. At most {MAX_ASKED} are possible."
        code = "InvalidParameterValue" if service == "ec2" else "ValidationException" if json else "ValidationError"
        raise ApiError(code, text)


def _denied(service: str, message: str, *, json: bool) -> ApiError:
    if service == "ec2":
        return ApiError("UnauthorizedOperation", f"You are not authorized to perform this operation. {message}", 403)
    return ApiError("AccessDeniedException", message, 400) if json else ApiError("AccessDenied", message, 403)


def _context(given: Mapping[str, Sequence[str]]) -> dict[str, str | tuple[str, ...]]:
    """A question's condition keys as the IAM engine looks them up: see `iam.patterns.Context`."""
    found: dict[str, str | tuple[str, ...]] = {}
    for name, values in given.items():
        value: str | tuple[str, ...] = values if isinstance(values, str) else tuple(values)
        if not isinstance(value, str) and len(value) == 1 and name.lower() != "aws:tagkeys":
            value = value[0]
        prefix, slash, tag = name.partition("/")
        found.setdefault(name.lower(), value)
        if slash:
            found[f"{prefix.lower()}/{tag}"] = value
    return found


def _region(world: World, request: Request, service: str) -> str:
    """The region that the signature has to be for."""
    if service not in _GLOBAL:
        return world.region
    credential = request.headers.get("authorization", "").partition("Credential=")[2].partition(",")[0]
    if not credential:
        credential = query_parameters(request.query).get("X-Amz-Credential", "")
    parts = credential.split("/")
    claimed = parts[2] if len(parts) > 2 else ""
    return claimed if claimed in (GLOBAL_REGION, world.region) else GLOBAL_REGION
