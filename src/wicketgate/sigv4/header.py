"""Sign a request by its Authorization header, as botocore signs API calls."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from wicketgate.sigv4.canonical import (
    ALGORITHM,
    amz_date,
    canonical_request,
    credential_scope,
    signature,
    signing_key,
    string_to_sign,
)
from wicketgate.sigv4.presign import Credentials


def signed_headers(
    headers: Mapping[str, str],
    body: bytes,
    credentials: Credentials,
    *,
    region: str,
    service: str,
    now: float,
    method: str = "POST",
    path: str = "/",
) -> dict[str, str]:
    """`headers` (names in lower case, `host` among them) and those that sign them and the body.

    All of them are signed. `path` is percent-encoded, the request has no query; `now` is seconds since the epoch.
    """
    date = amz_date(now)
    signed = {**headers, "x-amz-date": date}
    if credentials.session_token is not None:
        signed["x-amz-security-token"] = credentials.session_token
    scope = credential_scope(date, region, service)
    request = canonical_request(method, path, "", signed, hashlib.sha256(body).hexdigest())
    key = signing_key(credentials.secret_access_key, date[:8], region, service)
    authorization = (
        f"{ALGORITHM} Credential={credentials.access_key_id}/{scope}, SignedHeaders={';'.join(sorted(signed))}, "
        f"Signature={signature(key, string_to_sign(date, scope, request))}"
    )
    return {**signed, "authorization": authorization}
