"""A real gateway process on loopback: real TLS, signatures and dial channel, with a netd that dials 127.0.0.1.

`LoopbackNetd` is an honest stand-in for netd: it speaks the same protocol over the same kind of socketpair and opens
real TCP connections, only always to loopback, whatever the private address.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from wicketgate import ipc, pki
from wicketgate.model import (
    AccessKey,
    Endpoint,
    Instance,
    NetworkInterface,
    Policy,
    SecurityGroup,
    SecurityGroupRule,
    Settings,
    Subnet,
    User,
    Vpc,
    World,
)
from wicketgate.tunnel import DialReply, DialRequest

ENDPOINT = "eice-0123456789abcdef0"
TARGET = "10.0.1.11"
ENDPOINT_ADDRESS = "10.0.1.10"
HOST = f"{ENDPOINT}.0123abcd.ec2-instance-connect-endpoint.us-east-1.example.test"
SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"


def statement(action: str, effect: str = "Allow", **more: object) -> dict[str, object]:
    """One statement of an identity-based policy."""
    return {"Effect": effect, "Action": action, "Resource": "*", **more}


def policy(*statements: dict[str, object]) -> tuple[Policy, ...]:
    """An identity-based policy of these statements."""
    return (Policy(name="p", document={"Version": "2012-10-17", "Statement": list(statements)}),)


def make_world(
    revision: int = 1, *, settings: Settings | None = None, endpoints: bool = True, dns_name: str = HOST
) -> World:
    """A VPC with one endpoint and one target; `all` may do everything, `open` only open tunnels, `none` nothing."""
    open_tunnel = statement("ec2-instance-connect:OpenTunnel")
    return World(
        revision=revision,
        settings=settings or Settings(allowed_ports=()),
        vpcs=(Vpc(id="vpc-1", cidr_block="10.0.0.0/16"),),
        subnets=(Subnet(id="subnet-1", vpc_id="vpc-1", cidr_block="10.0.1.0/24"),),
        groups=(
            SecurityGroup(id="sg-e", vpc_id="vpc-1", name="endpoint"),
            SecurityGroup(
                id="sg-t",
                vpc_id="vpc-1",
                name="target",
                rules=(SecurityGroupRule(id="sgr-1", is_egress=False, ip_protocol="-1", cidr_ipv4="0.0.0.0/0"),),
            ),
        ),
        interfaces=(
            NetworkInterface(
                id="eni-e", subnet_id="subnet-1", private_ip_address=ENDPOINT_ADDRESS, group_ids=("sg-e",), link="e0"
            ),
            NetworkInterface(
                id="eni-t", subnet_id="subnet-1", private_ip_address=TARGET, group_ids=("sg-t",), link="t0"
            ),
        ),
        instances=(Instance(id="i-1", interface_id="eni-t"),),
        endpoints=(Endpoint(id=ENDPOINT, subnet_id="subnet-1", interface_id="eni-e", dns_name=dns_name),)
        if endpoints
        else (),
        users=(
            User(name="all", id="AIDAALL", policies=policy(statement("*"))),
            User(name="open", id="AIDAOPEN", policies=policy(open_tunnel)),
            User(name="none", id="AIDANONE"),
        ),
        access_keys=(
            AccessKey(id="AKIAALL", secret=SECRET, user_name="all"),
            AccessKey(id="AKIAOPEN", secret=SECRET, user_name="open"),
            AccessKey(id="AKIANONE", secret=SECRET, user_name="none"),
        ),
    )


def signed_path(port: int, *, key: str = "AKIAALL", expires: int = 60, **parameters: str) -> str:
    """Path and query of a presigned openTunnel URL, signed by botocore as the AWS CLI does."""
    query = {"instanceConnectEndpointId": ENDPOINT, "remotePort": str(port), "privateIpAddress": TARGET, **parameters}
    text = "&".join(f"{name}={value}" for name, value in query.items())
    request = AWSRequest("GET", f"wss://{HOST}/openTunnel?{text}", headers={"host": HOST})
    SigV4QueryAuth(Credentials(key, SECRET), "ec2-instance-connect", "us-east-1", expires=expires).add_auth(request)
    return str(request.url).removeprefix(f"wss://{HOST}")


class LoopbackNetd:
    """netd for one gateway: answers every dial with a connection to 127.0.0.1 and the port asked for."""

    def __init__(self) -> None:
        self.sock, self.gateway_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.requests: list[DialRequest] = []
        self.answer: Callable[[DialRequest], DialReply | None] | None = None
        """Set to refuse: the reply to send instead of dialling, or None for no reply at all."""
        self.leases: list[socket.socket] = []
        """Our ends of the leases; readable (EOF) once the gateway has closed its own."""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while data := self.sock.recv(ipc.MAX_MESSAGE):
                self._serve(msgspec.json.decode(data, type=DialRequest))

    def _serve(self, request: DialRequest) -> None:
        self.requests.append(request)
        if self.answer is not None:
            reply = self.answer(request)
            if reply is not None:
                self.sock.send(msgspec.json.encode(reply))
            return
        target = socket.socket()
        target.setblocking(False)
        target.connect_ex(("127.0.0.1", request.port))
        ours, theirs = socket.socketpair()
        self.leases.append(ours)
        reply = DialReply(id=request.id, revision=1, source_address=ENDPOINT_ADDRESS)
        with target, theirs:
            socket.send_fds(self.sock, [msgspec.json.encode(reply)], [target.fileno(), theirs.fileno()])

    def open_leases(self) -> int:
        """Slots in use."""
        return sum(not select.select([lease], [], [], 0)[0] for lease in self.leases)

    def close(self) -> None:
        """Stop."""
        self.sock.close()
        self.gateway_end.close()
        for lease in self.leases:
            lease.close()


class GatewayProcess:
    """`python -m wicketgate.gateway` with everything it needs, started and fed as `serve` does it."""

    def __init__(self, directory: Path, *, prefix: tuple[str, ...] = (), head_timeout: float = 10.0) -> None:
        self.directory = directory
        self.prefix = prefix
        self.head_timeout = head_timeout
        self.audit_file = directory / "audit.jsonl"
        self.files = pki.ensure(directory / "pki", [HOST])
        self.netd = LoopbackNetd()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port: int = self.listener.getsockname()[1]
        self.log = directory / "gateway.log"
        self.client_tls = ssl.create_default_context(cafile=str(self.files.ca))

    def start(self, world: World | None = None) -> GatewayProcess:
        """Start the process and wait until it enforces the World."""
        self.feed, feed_end = socket.socketpair()
        self.feed.settimeout(10)
        config = {
            "feed_fd": feed_end.fileno(),
            "netd_fd": self.netd.gateway_end.fileno(),
            "listen_fds": [self.listener.fileno()],
            "certificate": str(self.files.certificate),
            "key": str(self.files.key),
            "audit_file": str(self.audit_file),
            "head_timeout": self.head_timeout,
            "allow_capabilities": True,
        }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.prefix, sys.executable, "-m", "wicketgate.gateway", json.dumps(config)],
                pass_fds=[feed_end.fileno(), self.netd.gateway_end.fileno(), self.listener.fileno()],
                stdout=log,
                stderr=log,
            )
        feed_end.close()
        self.enforce(world or make_world())
        return self

    def enforce(self, world: World) -> None:
        """Feed a World and wait for its acknowledgement."""
        self.feed.sendall(ipc.frame(ipc.whole(world)))
        assert ipc.read_answer(self.feed) == world.revision

    def stop(self) -> int:
        """End the feed, as when `serve` goes; the exit code."""
        self.feed.close()
        return self.process.wait(15)

    def kill(self) -> None:
        """SIGKILL, as a power cut for the process."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)
        self.feed.close()

    def close(self) -> None:
        """Clean up whatever state a test left."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        self.feed.close()
        self.netd.close()
        self.listener.close()

    def audit(self) -> list[dict[str, object]]:
        """The whole lines of the audit file; the process may be writing another one."""
        text = self.audit_file.read_text()
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def wait_audit(self, name: str, count: int = 1) -> list[dict[str, object]]:
        """Wait until the file holds `count` events of this name; those events."""
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline:
            found = [event for event in self.audit() if event["eventName"] == name]
            if len(found) >= count:
                return found
            time.sleep(0.01)
        raise AssertionError(f"no {count} {name} lines in {self.audit_file.read_text()!r}")

    def rss(self) -> int:
        """The process's resident memory in bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))) * 1024

    def descriptors(self) -> int:
        """How many descriptors the process has open."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def cpu_seconds(self) -> float:
        """CPU seconds used by the process so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    # -- clients -------------------------------------------------------------------------------------------------------

    def tls(self, context: ssl.SSLContext | None = None, *, receive_buffer: int = 0) -> ssl.SSLSocket:
        """A TLS connection by the standard library, name checked against our CA."""
        raw = socket.socket()
        raw.settimeout(15)
        if receive_buffer:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        raw.connect(("127.0.0.1", self.port))
        return (context or self.client_tls).wrap_socket(raw, server_hostname=HOST)

    def open(
        self, path: str, *, context: ssl.SSLContext | None = None, early: bytes = b"", receive_buffer: int = 0
    ) -> RawWebSocket:
        """A tunnel by hand-made frames; raises AssertionError with the answer when it is not 101."""
        sock = self.tls(context, receive_buffer=receive_buffer)
        sock.sendall(upgrade(path) + early)
        return RawWebSocket(sock)

    def refused(self, data: bytes) -> Answer:
        """Send bytes, read the whole answer until the server ends the connection."""
        with self.tls() as sock:
            sock.sendall(data)
            return read_answer(sock)


class Answer:
    """An HTTP answer, read to the end of the connection."""

    def __init__(self, data: bytes) -> None:
        head, _, self.body = data.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        self.status = int(lines[0].split()[1])
        self.headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines[1:])]

    def all(self, name: str) -> list[str]:
        """Every value of a header."""
        return [value for key, value in self.headers if key == name]

    @property
    def error(self) -> dict[str, str]:
        """The JSON body."""
        return json.loads(self.body)


def read_answer(sock: ssl.SSLSocket) -> Answer:
    """Everything until the server's close_notify; a reset or a bare FIN is an error."""
    data = b""
    while chunk := sock.recv(65536):
        data += chunk
    return Answer(data)


def upgrade(path: str, **changes: str | None) -> bytes:
    """The handshake as the stock CLI sends it; a header set to None is left out, another is replaced or added."""
    headers: dict[str, str | None] = {
        "Host": HOST,
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version": "13",
        "User-Agent": "test/1",
        **{name.replace("_", "-"): value for name, value in changes.items()},
    }
    lines = [f"{name}: {value}" for name, value in headers.items() if value is not None]
    return "\r\n".join([f"GET {path} HTTP/1.1", *lines, "", ""]).encode()


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, masked: bool = True) -> bytes:
    """One WebSocket frame (RFC 6455 section 5.2), well-formed or not; the mask is zero."""
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    mask_bit = 0x80 if masked else 0
    size = len(payload)
    if size < 126:
        header = struct.pack("!BB", first, mask_bit | size)
    elif size < 65536:
        header = struct.pack("!BBH", first, mask_bit | 126, size)
    else:
        header = struct.pack("!BBQ", first, mask_bit | 127, size)
    return header + (bytes(4) if masked else b"") + payload


CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


class RawWebSocket:
    """A WebSocket client that does exactly what it is told, and answers nothing by itself."""

    def __init__(self, sock: ssl.SSLSocket) -> None:
        self.sock = sock
        self._data = bytearray()
        while b"\r\n\r\n" not in self._data:
            chunk = sock.recv(65536)
            assert chunk, f"the connection ended inside the head: {bytes(self._data)!r}"
            self._data += chunk
        head, _, rest = bytes(self._data).partition(b"\r\n\r\n")
        self.head = Answer(head + b"\r\n\r\n")
        assert self.head.status == 101, bytes(self._data)
        self._data = bytearray(rest)

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.sock.sendall(data)

    def _need(self, size: int) -> None:
        while len(self._data) < size:
            chunk = self.sock.recv(262144)
            if not chunk:
                raise EOFError
            self._data += chunk

    def receive(self) -> tuple[int, bytes]:
        """The next frame: opcode and payload. Raises EOFError when the server has ended TLS."""
        self._need(2)
        assert self._data[0] & 0x70 == 0, "the server set reserved bits"
        assert self._data[1] & 0x80 == 0, "the server masked a frame"
        opcode, size, at = self._data[0] & 15, self._data[1] & 127, 2
        if size >= 126:
            width = 2 if size == 126 else 8
            self._need(at + width)
            size = int.from_bytes(self._data[at : at + width])
            at += width
        self._need(at + size)
        payload = bytes(self._data[at : at + size])
        del self._data[: at + size]
        return opcode, payload

    def receive_bytes(self, size: int) -> bytes:
        """Payload of binary frames until there are `size` bytes."""
        data = b""
        while len(data) < size:
            opcode, payload = self.receive()
            assert opcode == BINARY, (opcode, payload)
            assert payload, "the server sent an empty binary frame"
            data += payload
        return data

    def receive_close(self) -> tuple[int, str]:
        """Skip data until the close frame; its code and reason."""
        while True:
            opcode, payload = self.receive()
            if opcode == CLOSE:
                assert len(payload) <= 125
                return int.from_bytes(payload[:2]), payload[2:].decode()

    def close(self) -> None:
        """End the connection without a word."""
        self.sock.close()


class Target:
    """A TCP server for one connection at a time."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(15)
        self.port: int = self.listener.getsockname()[1]

    def accept(self) -> socket.socket:
        """The gateway's connection."""
        sock, _ = self.listener.accept()
        sock.settimeout(15)
        return sock

    def close(self) -> None:
        """Stop listening."""
        self.listener.close()
