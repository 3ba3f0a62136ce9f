"""The setting `log_level` reaches the processes whose logs it is about."""

import socket
import time

import pytest

from tests.api.deployment import Deployment


def _said(deployment, process, words):
    """Whether a process's log says something within a moment."""
    log = deployment.serve.directory / "logs" / f"{process}.log"
    deadline = time.monotonic() + 1
    while words not in log.read_text() and time.monotonic() < deadline:
        time.sleep(0.02)
    return words in log.read_text()


@pytest.mark.parametrize(
    ("level", "debug", "warnings"), [("debug", True, True), ("info", False, True), ("error", False, False)]
)
def test_level(level, debug, warnings):
    """Of a client without TLS the gateway speaks at `debug`; of an audit file with half a line both warn."""
    deployment = Deployment(f"logs-{level}", log_level=level)
    deployment.start()
    deployment.client("sts").get_caller_identity()
    deployment.stop()
    for path in deployment.serve.audit_files:
        with path.open("ab") as file:
            file.write(b'{"eventVersion"')
    deployment.start()
    try:
        with socket.create_connection(("127.0.0.1", 443), timeout=5) as client:
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            client.recv(100)
        assert _said(deployment, "gateway-0", "no TLS with a client") is debug
        assert [_said(deployment, name, "half line") for name in ("gateway-0", "api")] == [warnings, warnings]
    finally:
        deployment.stop()
