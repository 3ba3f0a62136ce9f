"""Fixtures of the wire tests."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.wire.gateway_harness import GatewayProcess, RawWebSocket, Target, signed_path


@pytest.fixture
def gateway(tmp_path) -> Iterator[GatewayProcess]:
    """A gateway process of this test's own."""
    process = GatewayProcess(tmp_path)
    process.start()
    yield process
    process.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Iterator[GatewayProcess]:
    """A gateway process for tests that leave it as they found it."""
    process = GatewayProcess(tmp_path_factory.mktemp("gateway"))
    process.start()
    yield process
    process.close()


@pytest.fixture
def target() -> Iterator[Target]:
    """A TCP server."""
    server = Target()
    yield server
    server.close()


def open_tunnel(
    gateway: GatewayProcess, target: Target, *, receive_buffer: int = 0
) -> tuple[RawWebSocket, socket.socket]:
    """A tunnel and the target's end of it. A fixed receive buffer keeps the kernel from taking ever more by itself."""
    if receive_buffer:
        target.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    client = gateway.open(signed_path(target.port), receive_buffer=receive_buffer)
    return client, target.accept()
