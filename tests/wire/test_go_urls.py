"""Tunnel URLs as programs with aws-sdk-go-v2 make them, whose signer adds no X-Amz-Expires and sorts all parameters.

Signed here by hand from the AWS Signature Version 4 documentation, with neither botocore's code nor ours; the handshake
is that of gorilla/websocket, which takes the Host header from the URL, its port included.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from urllib.parse import quote

import msgspec
import pytest

from tests.wire.gateway_harness import (
    ENDPOINT,
    HOST,
    SECRET,
    TARGET,
    GatewayProcess,
    RawWebSocket,
    Target,
    make_world,
)

SCOPE = ("us-east-1", "ec2-instance-connect", "aws4_request")


def go_path(host: str, port: int, *, age: int = 0, token: str = "") -> str:
    """Path and query of a URL for this Host, signed `age` seconds ago; the signature comes after the sorted rest."""
    date = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(time.time() - age))
    query = {
        "instanceConnectEndpointId": ENDPOINT,
        "maxTunnelDuration": "3600",
        "privateIpAddress": TARGET,
        "remotePort": str(port),
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
        "X-Amz-Credential": "/".join(["AKIAALL", date[:8], *SCOPE]),
        "X-Amz-Date": date,
        "X-Amz-SignedHeaders": "host",
        **({"X-Amz-Security-Token": token} if token else {}),
    }
    text = "&".join(f"{quote(name, safe='~')}={quote(value, safe='~')}" for name, value in sorted(query.items()))
    request = f"GET\n/openTunnel\n{text}\nhost:{host}\n\nhost\n{hashlib.sha256().hexdigest()}"
    scope = "/".join([date[:8], *SCOPE])
    message = f"AWS4-HMAC-SHA256\n{date}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    signing_key = f"AWS4{SECRET}".encode()
    for part in [date[:8], *SCOPE, message]:
        signing_key = hmac.digest(signing_key, part.encode(), "sha256")
    return f"/openTunnel?{text}&X-Amz-Signature={signing_key.hex()}"


def go_upgrade(path: str, host: str) -> bytes:
    """gorilla/websocket's handshake."""
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: {host}",
        "User-Agent: Go-http-client/1.1",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
        "Upgrade: websocket",
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def tunnel_works(gateway: GatewayProcess, target: Target, path: str, host: str) -> bool:
    """Whether bytes arrive; raises AssertionError with the answer when it is not 101."""
    with gateway.tls() as sock:
        sock.sendall(go_upgrade(path, host))
        client = RawWebSocket(sock)
        with target.accept() as peer:
            peer.sendall(b"SSH-2.0-here")
            return bool(client.receive()[1] == b"SSH-2.0-here")


@pytest.mark.parametrize("form", ["{name}", "{name}:{port}"])
def test_opens(shared: GatewayProcess, target: Target, form: str):
    """Sorted, without X-Amz-Expires, Host with a port or without: the tunnel opens, with a URL of 30 s ago too."""
    host = form.format(name=HOST, port=shared.port)
    assert tunnel_works(shared, target, go_path(host, target.port), host)
    assert tunnel_works(shared, target, go_path(host, target.port, age=30), host)


def test_with_a_session_token(gateway: GatewayProcess, target: Target):
    """Temporary credentials, as Go programs mostly have: the token is one of the sorted parameters."""
    token = "IQoJb3JpZ2luX2VjE+//w==/with+plus"
    first, *others = make_world().access_keys
    temporary = msgspec.structs.replace(first, session_token=token)
    gateway.enforce(msgspec.structs.replace(make_world(2), access_keys=(temporary, *others)))
    assert tunnel_works(gateway, target, go_path(HOST, target.port, token=token), HOST)
    answer = gateway.refused(go_upgrade(go_path(HOST, target.port), HOST))
    assert (answer.status, answer.error["ErrorCode"]) == (403, "InvalidClientTokenId")


def test_over_after_our_window(shared: GatewayProcess):
    """A URL that names no end is good for as long as AWS CLI's is: 60 s."""
    answer = shared.refused(go_upgrade(go_path(HOST, 22, age=62), HOST))
    assert (answer.status, answer.error["ErrorCode"]) == (403, "RequestExpired")


def test_signed_for_another_host(shared: GatewayProcess):
    """Host is what is signed, port included: a URL with the port does not do for a Host without, nor the reverse."""
    with_port = f"{HOST}:{shared.port}"
    for signed, sent in ((HOST, with_port), (with_port, HOST)):
        answer = shared.refused(go_upgrade(go_path(signed, 22), sent))
        assert (answer.status, answer.error["ErrorCode"]) == (403, "SignatureDoesNotMatch")
