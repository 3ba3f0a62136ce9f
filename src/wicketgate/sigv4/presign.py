"""The presigned openTunnel URL, byte for byte as botocore and the AWS CLI make it.

Tunnel parameters come first in the order given, then the authentication parameters, the signature last.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from wicketgate.sigv4.canonical import (
    ALGORITHM,
    EMPTY_SHA256,
    TUNNEL_PATH,
    TUNNEL_SERVICE,
    amz_date,
    canonical_request,
    credential_scope,
    signature,
    signing_key,
    string_to_sign,
    uri_encode,
)


class Credentials(NamedTuple):
    """What a caller signs with."""

    access_key_id: str
    secret_access_key: str
    session_token: str | None = None
    """Of temporary credentials; None for a user's own access key."""


def tunnel_parameters(
    endpoint_id: str, remote_port: int, private_ip_address: str, max_tunnel_duration: int | None = None
) -> dict[str, str]:
    """The parameters of openTunnel in the AWS CLI's order; no duration (None or 0) leaves that one out, as there."""
    parameters = {
        "instanceConnectEndpointId": endpoint_id,
        "remotePort": str(remote_port),
        "privateIpAddress": private_ip_address,
    }
    if max_tunnel_duration:
        parameters["maxTunnelDuration"] = str(max_tunnel_duration)
    return parameters


def presign(
    host: str, parameters: Mapping[str, str], credentials: Credentials, *, region: str, now: float, expires: int = 60
) -> str:
    """The `wss://` URL that opens a tunnel until `expires` seconds after `now` (seconds since the epoch).

    `host` is signed as it stands and must be what the Host header will say: with a port exactly if that has one.
    """
    date = amz_date(now)
    scope = credential_scope(date, region, TUNNEL_SERVICE)
    query = {
        **parameters,
        "X-Amz-Algorithm": ALGORITHM,
        "X-Amz-Credential": f"{credentials.access_key_id}/{scope}",
        "X-Amz-Date": date,
        "X-Amz-Expires": str(expires),
        "X-Amz-SignedHeaders": "host",
    }
    if credentials.session_token is not None:
        query["X-Amz-Security-Token"] = credentials.session_token
    encoded = [(uri_encode(name), uri_encode(value)) for name, value in query.items()]
    canonical = "&".join([f"{name}={value}" for name, value in sorted(encoded)])
    request = canonical_request("GET", TUNNEL_PATH, canonical, {"host": host}, EMPTY_SHA256)
    key = signing_key(credentials.secret_access_key, date[:8], region, TUNNEL_SERVICE)
    signed = signature(key, string_to_sign(date, scope, request))
    sent = "&".join([f"{name}={value}" for name, value in encoded])
    return f"wss://{host}{TUNNEL_PATH}?{sent}&X-Amz-Signature={signed}"
