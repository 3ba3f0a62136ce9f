"""An independent client of openTunnel: awscrt's WebSocket and botocore's signer, as the AWS CLI uses them.

It shares no line with wicketgate's client or gateway, so what both sides misread alike would show.
"""

from __future__ import annotations

import queue
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import botocore.session
from awscrt import io, websocket
from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.model import ServiceId
from botocore.signers import RequestSigner

TIMEOUT = 20.0
"""Seconds for any one thing to happen; far beyond what anything here takes."""


def botocore_url(
    host: str,
    parameters: dict[str, str],
    access_key: str,
    secret_key: str,
    *,
    token: str | None = None,
    region: str = "us-east-1",
) -> str:
    """The presigned URL as the AWS CLI's own copy of botocore makes it: its signer in Python."""
    request = AWSRequest("GET", f"wss://{host}/openTunnel", params=parameters)
    SigV4QueryAuth(Credentials(access_key, secret_key, token), "ec2-instance-connect", region, expires=60).add_auth(
        request
    )
    return str(request.url)


def crt_url(
    host: str,
    parameters: dict[str, str],
    access_key: str,
    secret_key: str,
    *,
    token: str | None = None,
    region: str = "us-east-1",
    expires: int = 60,
) -> str:
    """The presigned URL of RequestSigner, which signs by awscrt: two parameters change places, the signature stays."""
    session = botocore.session.get_session()
    signer = RequestSigner(
        ServiceId("ec2-instance-connect"),
        region,
        "ec2-instance-connect",
        "v4",
        Credentials(access_key, secret_key, token),
        session.get_component("event_emitter"),
    )
    request = AWSRequest("GET", f"wss://{host}/openTunnel", params=parameters).prepare()
    url: str = signer.generate_presigned_url(
        {"method": "GET", "url": request.url, "headers": {}, "body": {}, "context": {}},
        operation_name="openTunnel",
        region_name=region,
        expires_in=expires,
        signing_name="ec2-instance-connect",
    )
    return url


@dataclass
class Connected:
    """The outcome of a handshake."""

    error: str
    """awscrt's words when it failed, else ""."""
    status: int
    """HTTP status; 0 when there was no HTTP answer."""
    headers: dict[str, str]
    """By lower-case name."""
    body: bytes


@dataclass
class CrtTunnel:
    """One WebSocket of awscrt. Everything it reports arrives in queues."""

    frames: queue.Queue[tuple[int, bytes]] = field(default_factory=queue.Queue)
    """Whole incoming frames: opcode and payload."""
    connected: queue.Queue[Connected] = field(default_factory=queue.Queue)
    shut_down: queue.Queue[str] = field(default_factory=queue.Queue)
    """awscrt's words for the end; "" when it was clean."""
    socket: Any = None
    _partial: bytearray = field(default_factory=bytearray)

    def connect(self, url: str, port: int, ca_bundle: Path, address: str = "127.0.0.1") -> Connected:
        """Open `url` at an address and port; the name in the URL is for SNI, Host and the certificate."""
        parts = urlsplit(url)
        options = io.TlsContextOptions()
        options.override_default_trust_store_from_path(None, str(ca_bundle))
        tls = io.ClientTlsContext(options).new_connection_options()
        tls.set_server_name(str(parts.hostname))
        request = websocket.create_handshake_request(host=parts.netloc, path=f"{parts.path}?{parts.query}")
        websocket.connect(
            host=address,
            port=port,
            handshake_request=request,
            tls_connection_options=tls,
            on_connection_setup=self._on_setup,
            on_connection_shutdown=self._on_shutdown,
            on_incoming_frame_begin=self._on_frame_begin,
            on_incoming_frame_payload=self._on_frame_payload,
            on_incoming_frame_complete=self._on_frame_complete,
        )
        return self.connected.get(timeout=TIMEOUT)

    def send(self, data: bytes) -> None:
        """Send one binary frame and wait until it is written."""
        sent: queue.Queue[Exception | None] = queue.Queue()
        self.socket.send_frame(websocket.Opcode.BINARY, data, on_complete=lambda result: sent.put(result.exception))
        error = sent.get(timeout=TIMEOUT)
        if error is not None:
            raise error

    def receive(self, size: int) -> bytes:
        """At least `size` bytes of payload of binary frames."""
        data = b""
        while len(data) < size:
            opcode, payload = self.frames.get(timeout=TIMEOUT)
            assert opcode in (websocket.Opcode.BINARY, websocket.Opcode.CONTINUATION), (opcode, payload)
            data += payload
        return data

    def close_frame(self) -> tuple[int, str]:
        """Code and reason of the close frame, 1005 if it has none; data before it is dropped."""
        deadline = time.monotonic() + TIMEOUT
        while True:
            opcode, payload = self.frames.get(timeout=max(0.0, deadline - time.monotonic()))
            if opcode == websocket.Opcode.CLOSE:
                return (int.from_bytes(payload[:2], "big"), payload[2:].decode()) if payload else (1005, "")

    def close(self) -> str:
        """Close from this side, without a status as the AWS CLI does; awscrt's words for how that went."""
        self.socket.close()
        return self.shut_down.get(timeout=TIMEOUT)

    # -- awscrt's callbacks, on its own thread -------------------------------------------------------------------------

    def _on_setup(self, data: websocket.OnConnectionSetupData) -> None:
        self.socket = data.websocket
        headers = {name.lower(): value for name, value in data.handshake_response_headers or ()}
        error = str(data.exception) if data.exception else ""
        self.connected.put(
            Connected(error, data.handshake_response_status or 0, headers, data.handshake_response_body or b"")
        )

    def _on_shutdown(self, data: websocket.OnConnectionShutdownData) -> None:
        self.shut_down.put(str(data.exception) if data.exception else "")

    def _on_frame_begin(self, _data: websocket.OnIncomingFrameBeginData) -> None:
        self._partial.clear()

    def _on_frame_payload(self, data: websocket.OnIncomingFramePayloadData) -> None:
        self._partial += data.data

    def _on_frame_complete(self, data: websocket.OnIncomingFrameCompleteData) -> None:
        self.frames.put((int(data.frame.opcode), bytes(self._partial)))
