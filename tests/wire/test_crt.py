"""The gateway met by the AWS CLI's own parts: awscrt's WebSocket, botocore's RequestSigner."""

from __future__ import annotations

import json

import pytest

from tests.crtclient import Connected, CrtTunnel, crt_url
from tests.wire.gateway_harness import ENDPOINT, HOST, SECRET, TARGET, GatewayProcess, Target


def connect(gateway: GatewayProcess, port: int, key: str = "AKIAALL", **more: str) -> tuple[CrtTunnel, Connected]:
    """A tunnel by awscrt, and how its handshake went."""
    parameters = {"instanceConnectEndpointId": ENDPOINT, "remotePort": str(port), "privateIpAddress": TARGET, **more}
    tunnel = CrtTunnel()
    return tunnel, tunnel.connect(crt_url(HOST, parameters, key, SECRET), gateway.port, gateway.files.ca)


def test_bytes_pass_both_ways_and_the_targets_end_is_close_1000(shared: GatewayProcess, target: Target) -> None:
    """101 with a request id, echo of more than one frame, then a clean end."""
    tunnel, connected = connect(shared, target.port, maxTunnelDuration="60")
    assert (connected.error, connected.status) == ("", 101)
    assert connected.headers["x-amzn-requestid"]
    with target.accept() as far:
        tunnel.send(b"a" * 65_000)
        tunnel.send(b"b" * 65_000)
        data = b""
        while len(data) < 130_000:
            data += far.recv(65536)
        far.sendall(data)
        assert tunnel.receive(130_000) == b"a" * 65_000 + b"b" * 65_000
    assert tunnel.close_frame()[0] == 1000


def test_empty_frames_are_the_end_of_input(shared: GatewayProcess, target: Target) -> None:
    """What the AWS CLI sends after its standard input has ended reaches the target as FIN."""
    tunnel, _ = connect(shared, target.port)
    with target.accept() as far:
        tunnel.send(b"last words")
        for _ in range(50):
            tunnel.send(b"")
        assert far.recv(100) == b"last words"
        assert far.recv(100) == b""
    assert tunnel.close_frame()[0] == 1000


@pytest.mark.parametrize(
    ("key", "more", "status", "code"),
    [
        ("AKIANONE", {}, 403, "AccessDeniedException"),
        ("AKIANOBODY", {}, 403, "InvalidClientTokenId"),
        ("AKIAALL", {"maxTunnelDuration": "4000"}, 400, "InvalidParameter"),
    ],
)
def test_refusals_arrive_whole(shared: GatewayProcess, key: str, more: dict[str, str], status: int, code: str) -> None:
    """Status, request id and JSON body get through awscrt, which is why the AWS CLI can show them."""
    _, connected = connect(shared, 22, key, **more)
    assert "AWS_ERROR_HTTP_WEBSOCKET_UPGRADE_FAILURE" in connected.error
    assert connected.status == status
    assert connected.headers["x-amzn-requestid"]
    said = json.loads(connected.body)
    assert said["ErrorCode"] == code
    assert said["Message"]


def test_an_unreachable_target_is_a_close_reason(shared: GatewayProcess) -> None:
    """101, then a code other than 1000 and AWS's words."""
    closed = Target()
    closed.close()
    tunnel, connected = connect(shared, closed.port)
    assert connected.status == 101
    code, reason = tunnel.close_frame()
    assert code != 1000
    assert reason.startswith("Unable to connect to target")
