"""The AWS APIs on loopback: real TLS, signatures, wire formats and actions, over one World in memory.

No policies, no store, no audit: what the client's verbs need to be asked and answered as by the real server.
"""

from __future__ import annotations

import hashlib
import ssl
import threading
import time
import uuid
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from wicketgate import pki
from wicketgate.api import ApiError, Catalogue, Message, Reply
from wicketgate.api.offers import offered
from wicketgate.control.call import Call, Caller
from wicketgate.model import AuthFailure, World, apply_change
from wicketgate.sigv4.verify import Expected, SignedRequest, verify_header

CATALOGUE = Catalogue.load()
OPERATIONS = offered()


class ApiServer:
    """Serves until `close`. `calls` is what was asked for, in order; `on_change` is told every new World."""

    def __init__(self, directory: Path, world: World) -> None:
        self.world = world
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.on_change: Callable[[World], None] = lambda world: None
        self.override: Callable[[str], Reply | None] = lambda action: None
        """Action -> what to answer in place of the right answer."""
        self.hang_up = False
        """Whether to close every connection behind its first answer, without saying so."""
        self.files = pki.ensure(directory / "pki-api", ["localhost"])
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.files.certificate, self.files.key)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://localhost:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, headers: dict[str, str], body: bytes) -> Reply:
        """Answer one POST to `/`."""
        message = Message(headers=headers, body=body)
        request_id = str(uuid.uuid4())
        try:
            wire = CATALOGUE.identify(message)
            self._prove(wire.service.name, headers, body)
            parameters = wire.parse()
            self.calls.append((wire.operation, parameters))
            if (reply := self.override(wire.operation)) is not None:
                return reply
            call = Call(
                world=self.world,
                action=wire.operation,
                parameters=parameters,
                caller=Caller(arn="arn:aws:iam::123456789012:user/all", account_id="123456789012"),
                now=time.time(),
                request_id=request_id,
                new_id=lambda prefix: f"{prefix}-{uuid.uuid4().hex[:17]}",
                sign=lambda blob: hashlib.sha256(blob).digest(),
            )
            outcome = OPERATIONS[wire.service.name, wire.operation].run(call)
        except ApiError as error:
            return CATALOGUE.speaker(message).error(error, request_id)
        except AuthFailure as failure:
            return CATALOGUE.speaker(message).error(ApiError(failure.code, str(failure), 403), request_id)
        if not outcome.change.empty:
            self.world = apply_change(self.world, outcome.change)
            self.on_change(self.world)
        return wire.answer(dict(outcome.answer), request_id)

    def _prove(self, service: str, headers: dict[str, str], body: bytes) -> None:
        digest = hashlib.sha256(body).hexdigest()
        request = SignedRequest(method="POST", path="/", query={}, headers=headers, payload_hash=digest)
        expected = Expected(region="us-east-1", service=service, window=60, clock_skew=300)
        verify_header(request, expected, self.world.access_key, time.time())


def _handler(server: ApiServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:  # http.server's name
            headers = {name.lower(): value for name, value in self.headers.items()}
            body = self.rfile.read(int(headers.get("content-length", "0")))
            reply = server.answer(headers, body)
            self.send_response(reply.status)
            for name, value in reply.headers:
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)
            self.close_connection = server.hang_up

        def log_message(self, *_args: object) -> None:
            """Nothing: tests read `calls`."""

    return Handler
