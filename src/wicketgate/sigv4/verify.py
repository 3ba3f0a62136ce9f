"""Was this request signed by whom it says?

Error codes are those that AWS's services document for all actions (EC2 API Reference, "Common client errors"; IAM API
Reference, "Common Errors"): MissingAuthenticationToken, IncompleteSignature, InvalidClientTokenId,
SignatureDoesNotMatch, RequestExpired, ExpiredToken. openTunnel's own codes for these are not published.

Invariants: nothing about a key is told before its signature holds, but for whether the key exists, which AWS tells
too; an unknown key costs the same work as a known one with a wrong signature.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from urllib.parse import unquote_to_bytes

import msgspec

from wicketgate.model import AccessKey, AuthFailure, InvalidParameter
from wicketgate.sigv4.canonical import (
    ALGORITHM,
    EMPTY_SHA256,
    TERMINATOR,
    canonical_query,
    canonical_request,
    credential_scope,
    signature,
    signing_key,
    string_to_sign,
)

MAX_PARAMETERS = 32
"""A query has at most eleven that mean something; more is refused before any work is done on it."""
MAX_EXPIRES = 604_800
"""Seconds, one week: AWS's upper bound of X-Amz-Expires."""

_NEEDED = ("X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-SignedHeaders", "X-Amz-Signature")
_DECISIVE = ("x-amz-target",)
"""Headers that say what is asked: without them a signature would be good for any action of its service."""
_UNKNOWN_SECRET = "no access key has this secret: it is not base64"
_INVALID_TOKEN = "The security token included in the request is invalid."

_is_percent_encoded = re.compile(r"(?:[^%]|%[0-9A-Fa-f]{2})*").fullmatch
_is_signature = re.compile(r"[0-9a-f]{64}").fullmatch
_is_seconds = re.compile(r"[0-9]{1,9}").fullmatch
_date_parts = re.compile(r"([0-9]{4})([0-9]{2})([0-9]{2})T([0-9]{2})([0-9]{2})([0-9]{2})Z").fullmatch


class SignedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of an HTTP request that a signature covers, decoded."""

    method: str
    path: str
    """Canonical, that is percent-encoded, as it stands in the request line."""
    query: dict[str, str]
    headers: dict[str, str]
    """By lower-case name; `host` exactly as the Host header says it, with the port if that has one."""
    payload_hash: str = EMPTY_SHA256


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """What a signature must be made for."""

    region: str
    service: str
    window: int
    """Seconds that a presigned URL is good for when it says nothing, and at most."""
    clock_skew: int
    """Seconds by which the signer's clock may be ahead."""


class Proof(msgspec.Struct, frozen=True):
    """A signature that holds."""

    key: AccessKey
    signature: str
    expires: float
    """Seconds since the epoch."""


def parse_query(query: str) -> dict[str, str]:
    """The decoded parameters of a raw query string.

    Raises InvalidParameter for what two readers could understand differently: a name given twice, broken percent
    encoding, bytes that are not UTF-8. A plus sign is a plus sign (RFC 3986), as SigV4 has it.
    """
    if not query.isascii():
        raise InvalidParameter("The query is not percent-encoded; it holds characters beyond ASCII.")
    pairs = [pair for pair in query.split("&") if pair]
    if len(pairs) > MAX_PARAMETERS:
        raise InvalidParameter(f"The query has {len(pairs)} parameters; at most {MAX_PARAMETERS} are read.")
    parameters: dict[str, str] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        if "%" in pair:
            name, value = _decode(name), _decode(value)
        if name in parameters:
            raise InvalidParameter(f"The query parameter {quoted(name)} is given twice; give it once.")
        parameters[name] = value
    return parameters


def _decode(text: str) -> str:
    if not _is_percent_encoded(text):
        raise InvalidParameter(f"The query part {quoted(text)} is not percent-encoded; write '%' as %25.")
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        raise InvalidParameter(f"The query part {quoted(text)} does not decode to UTF-8.") from None


def quoted(text: str) -> str:
    """A caller's text for use in a message: quoted, control characters escaped, cut at 64 characters."""
    return ascii(text if len(text) <= 64 else f"{text[:63]}…")


def verify_presigned(
    request: SignedRequest, expected: Expected, find_key: Callable[[str], AccessKey | None], now: float
) -> Proof:
    """Check a presigned request at `now`, seconds since the epoch; raises AuthFailure that says what does not hold.

    Without X-Amz-Expires the URL is good for `expected.window` seconds from X-Amz-Date; a longer time is cut to that.
    A signature date may be ahead of `now` by `expected.clock_skew`. A clock that is behind gets no such leave, at AWS
    neither: from here a new URL by a slow clock and an old URL look the same, and an old one must stay useless.
    """
    fields = request.query
    _check_present(fields)
    expires = _check_time(fields, expected, now)
    key = _prove(request, expected, fields, find_key)
    check_key(key, fields.get("X-Amz-Security-Token"), now)
    return Proof(key, fields["X-Amz-Signature"], expires)


def verify_header(
    request: SignedRequest, expected: Expected, find_key: Callable[[str], AccessKey | None], now: float
) -> Proof:
    """Check a request signed by its Authorization header at `now`, seconds since the epoch; raises AuthFailure.

    `expected.clock_skew` counts in both directions, and is also how long the request is good for. The caller computes
    `request.payload_hash` from the body it read.
    """
    fields = _header_fields(request.headers)
    _check_present(fields)
    signed_at = _signed_at(fields, expected, now)
    if now > signed_at + expected.clock_skew:
        raise AuthFailure(
            "RequestExpired",
            f"Request has expired: signed {now - signed_at:.0f} s ago by our clock, good for {expected.clock_skew} s.",
        )
    key = _prove(request, expected, fields, find_key)
    check_key(key, fields.get("X-Amz-Security-Token"), now)
    return Proof(key, fields["X-Amz-Signature"], signed_at + expected.clock_skew)


def _header_fields(headers: Mapping[str, str]) -> dict[str, str]:
    """The Authorization header's parts under the names that a presigned URL has them by."""
    authorization = headers.get("authorization", "")
    algorithm, _, rest = authorization.partition(" ")
    parts = dict(part.strip().partition("=")[::2] for part in rest.split(",") if part.strip())
    unknown = sorted(set(parts) - {"Credential", "SignedHeaders", "Signature"})
    if unknown:
        raise AuthFailure("IncompleteSignature", f"The Authorization header has an unknown part {quoted(unknown[0])}.")
    fields = {f"X-Amz-{name}": value for name, value in parts.items()}
    if authorization:
        fields["X-Amz-Algorithm"] = algorithm
        fields["X-Amz-Date"] = headers.get("x-amz-date", "")
    if "x-amz-security-token" in headers:
        fields["X-Amz-Security-Token"] = headers["x-amz-security-token"]
    return fields


def _prove(
    request: SignedRequest,
    expected: Expected,
    fields: Mapping[str, str],
    find_key: Callable[[str], AccessKey | None],
) -> AccessKey:
    """The key whose signature over the request holds; raises AuthFailure. `fields`: what the signer says of it."""
    key_id, scope = _check_credential(fields, expected)
    headers = _signed_headers(fields["X-Amz-SignedHeaders"], request.headers)
    claimed = fields["X-Amz-Signature"]
    if not _is_signature(claimed):
        raise AuthFailure("IncompleteSignature", "X-Amz-Signature must be 64 lower-case hexadecimal digits.")
    key = find_key(key_id)
    query = canonical_query([item for item in request.query.items() if item[0] != "X-Amz-Signature"])
    to_sign = canonical_request(request.method, request.path, query, headers, request.payload_hash)
    secret = key.secret if key is not None else _UNKNOWN_SECRET
    derived = signing_key(secret, scope[:8], expected.region, expected.service)
    holds = hmac.compare_digest(signature(derived, string_to_sign(fields["X-Amz-Date"], scope, to_sign)), claimed)
    if key is None:
        raise AuthFailure("InvalidClientTokenId", _INVALID_TOKEN)
    if not holds:
        raise AuthFailure(
            "SignatureDoesNotMatch",
            "The request signature we calculated does not match the signature you provided. "
            "Check the secret access key, and that the request is sent unchanged and to the host it was signed for.",
        )
    return key


def check_key(key: AccessKey, session_token: str | None, now: float) -> None:
    """Whether a key whose signature holds may be used at `now` with this session token; raises AuthFailure."""
    if not key.active:
        raise AuthFailure("InvalidClientTokenId", f"{_INVALID_TOKEN} The access key {key.id} is inactive.")
    if key.session_token is None and session_token is not None:
        raise AuthFailure(
            "InvalidClientTokenId", f"{_INVALID_TOKEN} The access key {key.id} is not temporary: send no session token."
        )
    if key.session_token is not None:
        if session_token is None:
            raise AuthFailure(
                "InvalidClientTokenId",
                f"{_INVALID_TOKEN} The access key {key.id} is temporary: send its session token.",
            )
        if not hmac.compare_digest(key.session_token.encode(), session_token.encode()):
            raise AuthFailure("InvalidClientTokenId", _INVALID_TOKEN)
    if key.expires is not None and now >= key.expires:
        raise AuthFailure("ExpiredToken", "The security token included in the request is expired.")


def _check_present(query: Mapping[str, str]) -> None:
    missing = [name for name in _NEEDED if not query.get(name)]
    if len(missing) == len(_NEEDED):
        raise AuthFailure(
            "MissingAuthenticationToken", "Missing Authentication Token: the URL is not signed (Signature Version 4)."
        )
    if missing:
        raise AuthFailure("IncompleteSignature", f"The signed URL must contain {' and '.join(missing)}.")
    if query["X-Amz-Algorithm"] != ALGORITHM:
        raise AuthFailure(
            "IncompleteSignature",
            f"Unsupported X-Amz-Algorithm {quoted(query['X-Amz-Algorithm'])}; sign with {ALGORITHM}.",
        )


def _check_credential(query: Mapping[str, str], expected: Expected) -> tuple[str, str]:
    """The access key id and the scope; the wording of scope errors is AWS's."""
    credential = query["X-Amz-Credential"]
    parts = credential.rsplit("/", 4)
    if len(parts) != 5 or not parts[0]:
        raise AuthFailure(
            "IncompleteSignature",
            f"X-Amz-Credential {quoted(credential)} must have the form "
            f"<access key id>/<YYYYMMDD>/<region>/<service>/{TERMINATOR}.",
        )
    key_id, day, region, service, terminator = parts
    if day != query["X-Amz-Date"][:8]:
        problem = f"Date in Credential scope does not match YYYYMMDD of X-Amz-Date: {quoted(day)}."
    elif region != expected.region:
        problem = (
            f"Credential should be scoped to a valid region, not {quoted(region)}: it is {expected.region!r} here."
        )
    elif service != expected.service:
        problem = f"Credential should be scoped to correct service: {expected.service!r}, not {quoted(service)}."
    elif terminator != TERMINATOR:
        problem = f"Credential should be scoped with a valid terminator: {TERMINATOR!r}, not {quoted(terminator)}."
    else:
        return key_id, credential_scope(day, region, service)
    raise AuthFailure("SignatureDoesNotMatch", problem)


def _check_time(query: Mapping[str, str], expected: Expected, now: float) -> float:
    """When the URL ends, seconds since the epoch."""
    seconds = query.get("X-Amz-Expires", str(expected.window))
    if not _is_seconds(seconds) or not 1 <= int(seconds) <= MAX_EXPIRES:
        raise AuthFailure(
            "IncompleteSignature",
            f"X-Amz-Expires {quoted(seconds)} must be a whole number of seconds from 1 to {MAX_EXPIRES}.",
        )
    signed_at = _signed_at(query, expected, now)
    good_for = min(int(seconds), expected.window)
    if now > signed_at + good_for:
        age = f"{now - signed_at:.0f} s"
        raise AuthFailure(
            "RequestExpired",
            f"The request has expired: signed {age} ago by our clock, good for {good_for} s. Sign a new one; if it was "
            f"new, the clock of the machine that signs is {age} behind ours: set that clock.",
        )
    return signed_at + good_for


def _signed_at(fields: Mapping[str, str], expected: Expected, now: float) -> float:
    """X-Amz-Date as seconds since the epoch; raises AuthFailure when it is none or too far ahead of `now`."""
    date = fields["X-Amz-Date"]
    signed_at = timestamp(date)
    if signed_at is None:
        raise AuthFailure(
            "IncompleteSignature", f"X-Amz-Date {quoted(date)} must have ISO 8601's basic format, as 20260131T235959Z."
        )
    if signed_at > now + expected.clock_skew:
        raise AuthFailure(
            "RequestExpired",
            f"The request was signed {signed_at - now:.0f} s in the future by our clock, and at most "
            f"{expected.clock_skew} s are accepted: set the clock of the machine that signs.",
        )
    return signed_at


@lru_cache(maxsize=1024)
def timestamp(date: str) -> float | None:
    """An X-Amz-Date as seconds since the epoch, None if it is not one."""
    parts = _date_parts(date)
    if parts is None:
        return None
    try:
        year, month, day, hour, minute, second = map(int, parts.groups())
        return datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp()
    except ValueError:
        return None


def _signed_headers(names: str, headers: Mapping[str, str]) -> dict[str, str]:
    """The headers that the signature covers: at least `host`, and only such as the request has."""
    signed = names.split(";")
    if "host" not in signed:
        raise AuthFailure("IncompleteSignature", "X-Amz-SignedHeaders must name 'host'.")
    if signed != sorted(set(signed)):
        raise AuthFailure(
            "IncompleteSignature",
            f"X-Amz-SignedHeaders {quoted(names)} must be sorted lower-case names, each once, separated by ';'.",
        )
    decisive = [name for name in _DECISIVE if name in headers and name not in signed]
    if decisive:
        raise AuthFailure("IncompleteSignature", f"The request has a header {decisive[0]} that is not signed; sign it.")
    absent = [name for name in signed if name not in headers]
    if absent:
        raise AuthFailure(
            "IncompleteSignature",
            f"X-Amz-SignedHeaders names {quoted(absent[0])}, which the request has not; sign 'host' alone.",
        )
    values = {name: headers[name] for name in signed}
    odd = [name for name, value in values.items() if not value.isascii()]
    if odd:
        raise AuthFailure("IncompleteSignature", f"The signed header {quoted(odd[0])} must be ASCII.")
    return values
