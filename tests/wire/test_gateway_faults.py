"""Our own faults: whatever breaks inside while a request is decided or dialled, the client gets an answer."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from pathlib import Path

import uvloop

from tests.wire.gateway_harness import HOST, Answer, make_world, signed_path, upgrade
from wicketgate import pki
from wicketgate.admit import admit, review
from wicketgate.audit import AuditLog
from wicketgate.explain import why_not
from wicketgate.gateway.config import tls_context
from wicketgate.gateway.server import Gateway


class Broken:
    """Raises whatever it is asked for."""

    async def dial(self, request, seconds: float):
        raise ZeroDivisionError

    def __call__(self, *arguments, **named):
        raise ZeroDivisionError


async def ask(directory: Path, **parts) -> bytes:
    """What a client of a gateway with these parts reads until the end of the connection."""
    files = pki.ensure(directory / "pki", [HOST])
    audit = AuditLog(directory / "audit")
    audit.start()
    usual = {"dialer": Broken(), "admit": admit, "why_not": why_not, "review": review, "audit": audit}
    gateway = Gateway(make_world(), tls=tls_context(files.certificate, files.key), **(usual | parts))
    listener = socket.create_server(("127.0.0.1", 0))
    gateway.start([listener])
    try:
        context = ssl.create_default_context(cafile=str(files.ca))
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", listener.getsockname()[1], ssl=context, server_hostname=HOST
        )
        writer.write(upgrade(signed_path(22)))
        data = await reader.readuntil(b"\r\n\r\n")
        if Answer(data).status == 101:
            _, size = await reader.readexactly(2)
            return await reader.readexactly(size)
        return data + await reader.read()
    finally:
        writer.close()
        await gateway.stop()
        audit.stop()
        listener.close()


def test_broken_decision(tmp_path: Path):
    """A decision that raises is a 500 in JSON, and the connection ends cleanly."""
    answer = Answer(uvloop.run(ask(tmp_path, admit=Broken())))
    assert (answer.status, answer.error["ErrorCode"]) == (500, "InternalError")


def test_broken_dial(tmp_path: Path):
    """A dial that raises is 101 and a close frame, not silence."""
    assert b"Unable to connect to target: the gateway failed" in uvloop.run(ask(tmp_path, dialer=Broken()))


def test_audit_of_a_broken_dial(tmp_path: Path):
    """It is one line with an error, and no close line."""
    uvloop.run(ask(tmp_path, dialer=Broken()))
    (event,) = [json.loads(line) for line in (tmp_path / "audit").read_text().splitlines()]
    assert (event["eventName"], event["errorCode"]) == ("OpenTunnel", "ServiceUnavailable")
