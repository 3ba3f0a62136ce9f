"""What comes to any open port: it ends quietly, and nobody else notices."""

import contextlib
import socket
import ssl

import pytest

from tests.wire.gateway_harness import GatewayProcess


def connected(gateway: GatewayProcess) -> socket.socket:
    return socket.create_connection(gateway.listener.getsockname(), 5)


@pytest.mark.parametrize(
    "noise",
    [
        b"GET / HTTP/1.1\r\nHost: example\r\n\r\n",
        b"SSH-2.0-scanner\r\n",
        b"\x16\x03\x01\x00\x05hello",  # a handshake record without a handshake
        b"\0" * 600,
        b"",
    ],
)
def test_no_tls(gateway: GatewayProcess, noise: bytes) -> None:
    """Scanners: not a word in the log for each of them."""
    for _ in range(3):
        with connected(gateway) as sock:
            sock.sendall(noise)
            sock.shutdown(socket.SHUT_WR)
            with contextlib.suppress(OSError):
                while sock.recv(4096):
                    pass
    with gateway.tls():
        pass
    assert gateway.log.read_text() == ""


def test_no_trust(gateway: GatewayProcess) -> None:
    """A client that does not know our certificate, as each client without the bundle."""
    with connected(gateway) as sock, pytest.raises(ssl.SSLError):
        ssl.create_default_context().wrap_socket(sock, server_hostname="example.test")
    with gateway.tls():
        pass
    assert gateway.log.read_text() == ""
