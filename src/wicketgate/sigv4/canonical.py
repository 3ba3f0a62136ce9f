"""What signer and verifier share: canonical request, string to sign, signing key, signature.

Source: IAM User Guide, "Create a signed AWS API request". Imports stay light: the client starts with this file.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final
from urllib.parse import quote

ALGORITHM: Final = "AWS4-HMAC-SHA256"
TERMINATOR: Final = "aws4_request"
TUNNEL_SERVICE: Final = "ec2-instance-connect"
TUNNEL_PATH: Final = "/openTunnel"
TUNNEL_PARAMETERS: Final = ("instanceConnectEndpointId", "maxTunnelDuration", "remotePort", "privateIpAddress")
"""What openTunnel takes besides its signature, in the order of AWS's CloudTrail example. The stock clients send them in
another one, which no signature minds: the canonical query is sorted."""
EMPTY_SHA256: Final = hashlib.sha256(b"").hexdigest()
"""Payload hash of a request without a body; the stock clients sign it, not UNSIGNED-PAYLOAD."""

_unreserved = re.compile(r"[A-Za-z0-9\-._~]*").fullmatch
_credential_like = re.compile(r"[A-Za-z0-9\-._~/]*").fullmatch


def uri_encode(text: str) -> str:
    """Percent-encode everything but RFC 3986's unreserved characters, in upper-case hex."""
    if _unreserved(text):
        return text
    return text.replace("/", "%2F") if _credential_like(text) else quote(text, safe="-._~")


def amz_date(now: float) -> str:
    """Seconds since the epoch as X-Amz-Date writes them: `20200101T010101Z`."""
    return datetime.fromtimestamp(int(now), UTC).strftime("%Y%m%dT%H%M%SZ")


def credential_scope(date: str, region: str, service: str) -> str:
    """`20200101/us-west-2/ec2-instance-connect/aws4_request`; `date` is an X-Amz-Date or its first eight digits."""
    return f"{date[:8]}/{region}/{service}/{TERMINATOR}"


def canonical_query(parameters: Iterable[tuple[str, str]]) -> str:
    """The query of a canonical request from decoded names and values: encoded, then sorted."""
    encoded = sorted([(uri_encode(name), uri_encode(value)) for name, value in parameters])
    return "&".join([f"{name}={value}" for name, value in encoded])


def canonical_request(method: str, path: str, query: str, headers: Mapping[str, str], payload_hash: str) -> str:
    """The canonical request. `path` and `query` are canonical already; `headers` are those to sign, in lower case."""
    names = sorted(headers)
    lines = "".join([f"{name}:{' '.join(headers[name].split())}\n" for name in names])
    return f"{method}\n{path}\n{query}\n{lines}\n{';'.join(names)}\n{payload_hash}"


def string_to_sign(date: str, scope: str, request: str) -> str:
    """The string to sign for a canonical request made at `date` (X-Amz-Date)."""
    return f"{ALGORITHM}\n{date}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"


@lru_cache(maxsize=4096)
def signing_key(secret: str, day: str, region: str, service: str) -> bytes:
    """The key derived for one day (`20200101`), region and service. Remembered: it is four HMACs."""
    key = f"AWS4{secret}".encode()
    for part in (day, region, service, TERMINATOR):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def signature(key: bytes, to_sign: str) -> str:
    """The signature in lower-case hex."""
    return hmac.digest(key, to_sign.encode(), "sha256").hex()
