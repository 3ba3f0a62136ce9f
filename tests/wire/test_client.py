"""`wicketgate open-tunnel` as a process: against a real gateway, and against servers that misbehave on purpose."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import re
import select
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.wire.gateway_harness import (
    BINARY,
    CLOSE,
    CONTINUATION,
    ENDPOINT,
    PING,
    SECRET,
    TARGET,
    TEXT,
    GatewayProcess,
    Target,
    frame,
    make_world,
)
from wicketgate import pki
from wicketgate.client import TunnelFailed, handshake
from wicketgate.client.ends import pumped_streams
from wicketgate.client.handshake import open_websocket, trust
from wicketgate.client.relay import Ended, Relay

TIMEOUT = 20


class LocalGateway(GatewayProcess):
    """A gateway whose certificate is for `localhost`, which every machine resolves."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.files = pki.ensure(directory / "pki-localhost", ["localhost"])


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalGateway]:
    """A gateway for tests that leave it as they found it."""
    process = LocalGateway(tmp_path_factory.mktemp("gateway"))
    process.start(make_world(dns_name="localhost"))
    yield process
    process.close()


def command(port: int, remote_port: int, *more: str) -> list[str]:
    """The command line of a client."""
    return [
        *(sys.executable, "-m", "wicketgate.cli", "open-tunnel"),
        *("--instance-connect-endpoint-id", ENDPOINT, "--instance-connect-endpoint-dns-name", f"localhost:{port}"),
        *("--private-ip-address", TARGET, "--remote-port", str(remote_port), *more),
    ]


def environment(ca: Path | None, key: str = "AKIAALL") -> dict[str, str]:
    """Credentials, and whom to trust: nothing else of this process's environment that a client reads."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "SSL_CERT"))}
    env |= {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "us-east-1"}
    return env | ({"SSL_CERT_FILE": str(ca)} if ca else {})


def run(gateway: LocalGateway, target: int, *, key: str = "AKIAALL") -> subprocess.CompletedProcess[str]:
    """A client with empty input, to its end."""
    return subprocess.run(
        command(gateway.port, target),
        env=environment(gateway.files.ca, key),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


def start(gateway: LocalGateway, target: int, *more: str, **streams: object) -> subprocess.Popen[bytes]:
    """A client with its streams as given, pipes otherwise."""
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
    return subprocess.Popen(command(gateway.port, target, *more), env=environment(gateway.files.ca), **streams)


def read_all(sock: socket.socket) -> bytes:
    """Everything until the peer's FIN."""
    data = bytearray()
    while chunk := sock.recv(65536):
        data += chunk
    return bytes(data)


# -- with a gateway ----------------------------------------------------------------------------------------------------

DATA = os.urandom(300_000)


@pytest.mark.parametrize("kind", ["pipe", "file", "socket", "non-blocking pipe"])
def test_input_reaches_the_target_and_its_end_too(local: LocalGateway, target: Target, kind: str) -> None:
    """Whatever standard input is: all of it arrives, then FIN; the answer sent after that comes back; exit 0."""
    with tempfile.TemporaryFile() as file, contextlib.ExitStack() as stack:
        feed: Callable[[], None] = lambda: None  # noqa: E731
        if kind == "file":
            file.write(DATA)
            file.seek(0)
            stdin = file.fileno()
        elif kind == "socket":
            ours, theirs = socket.socketpair()
            stack.enter_context(theirs)
            stdin = theirs.fileno()

            def feed() -> None:
                with ours:
                    ours.sendall(DATA)
        else:
            stdin, write = os.pipe()
            stack.callback(os.close, stdin)
            os.set_blocking(stdin, kind == "pipe")

            def feed() -> None:
                with os.fdopen(write, "wb") as pipe:
                    pipe.write(DATA)

        client = start(local, target.port, stdin=stdin)
        threading.Thread(target=feed, daemon=True).start()
        with target.accept() as far:
            assert read_all(far) == DATA
            far.sendall(b"answer after the end of input")
        out, err = client.communicate(timeout=TIMEOUT)
    assert (out, err, client.returncode) == (b"answer after the end of input", b"", 0)


@pytest.mark.parametrize("kind", ["pipe", "file", "socket"])
def test_what_the_target_sends_reaches_the_output_whole(local: LocalGateway, target: Target, kind: str) -> None:
    """Whatever standard output is; the target's close ends the client, exit 0, though input is still open."""
    with tempfile.TemporaryFile() as file, contextlib.ExitStack() as stack:
        ours, theirs = map(stack.enter_context, socket.socketpair())
        stdout = {"pipe": subprocess.PIPE, "file": file.fileno(), "socket": theirs.fileno()}[kind]
        client = start(local, target.port, stdout=stdout)
        theirs.close()
        with target.accept() as far:
            sender = threading.Thread(target=far.sendall, args=(DATA,))
            sender.start()
            if kind == "socket":
                got = b""
                while len(got) < len(DATA):
                    got += ours.recv(65536)
            elif kind == "pipe":
                assert client.stdout is not None
                got = client.stdout.read(len(DATA))
            sender.join()
        assert client.wait(TIMEOUT) == 0
        if kind == "file":
            file.seek(0)
            got = file.read()
    assert got == DATA


def test_the_blocking_mode_of_shared_streams_is_put_back(local: LocalGateway, target: Target) -> None:
    """A descriptor that other processes share is left as it was found."""
    read, write = os.pipe()
    client = start(local, target.port, stdin=read)
    target.accept().close()
    assert client.wait(TIMEOUT) == 0
    assert os.get_blocking(read)
    os.close(read)
    os.close(write)


def test_a_closed_output_ends_the_client(local: LocalGateway, target: Target) -> None:
    """Nobody reads: the client ends although input is open and the target says nothing."""
    client = start(local, target.port)
    with target.accept() as far:
        assert client.stdout is not None
        client.stdout.close()
        assert client.wait(TIMEOUT) == 0
        assert read_all(far) == b""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_end_the_tunnel_in_good_order(local: LocalGateway, target: Target, number: signal.Signals) -> None:
    """128 + n, nothing on standard error, and the target's connection is closed."""
    client = start(local, target.port)
    with target.accept() as far:
        far.sendall(b"banner")
        assert client.stdout is not None
        assert client.stdout.read(6) == b"banner"
        client.send_signal(number)
        assert client.wait(TIMEOUT) == 128 + number
        assert read_all(far) == b""
    assert client.stderr is not None
    assert client.stderr.read() == b""


def test_a_refusal_is_one_line_with_code_message_and_request_id(local: LocalGateway) -> None:
    """What the service says about a refused request is what the person sees."""
    done = run(local, 22, key="AKIANONE")
    assert re.fullmatch(
        r"wicketgate: AccessDeniedException: User: \S+ is not authorized to perform: "
        r"ec2-instance-connect:OpenTunnel .*\(HTTP 403, request id \S+\)\n",
        done.stderr,
    )
    assert done.returncode == 255


def test_an_unreachable_target_shows_the_close_reason(local: LocalGateway) -> None:
    """A port where nobody listens: the handshake succeeds, the close frame says why."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    done = run(local, port)
    assert done.stderr.startswith("wicketgate: Websocket Closure Reason: Unable to connect to target")
    assert done.returncode == 255


def resident(pid: int) -> int:
    """A process's peak resident memory in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) * 1024


@pytest.mark.slow
def test_a_reader_that_stops_stops_the_target(local: LocalGateway, target: Target) -> None:
    """With nobody taking output, what the target can send is bounded, and so is the client's memory."""
    client = start(local, target.port)
    with target.accept() as far:
        far.sendall(b"x" * 4096)
        before = resident(client.pid)
        far.settimeout(2)
        sent = 0
        with pytest.raises(TimeoutError):
            while sent < 256 * 2**20:
                sent += far.send(b"x" * 65536)
        assert resident(client.pid) - before < 4 * 2**20
        # and it flows again, without loss
        assert client.stdout is not None
        left = sent + 4096
        while left:
            left -= len(client.stdout.read(min(left, 2**20)))
    assert client.wait(TIMEOUT) == 0


@pytest.mark.slow
def test_a_target_that_stops_reading_stops_the_input(local: LocalGateway, target: Target) -> None:
    """Input is taken only as fast as the target takes it; the client's memory is bounded."""
    read, write = os.pipe()
    client = start(local, target.port, stdin=read)
    os.close(read)
    with target.accept() as far:
        os.write(write, b"x" * 4096)
        assert far.recv(1)
        before = resident(client.pid)
        os.set_blocking(write, False)
        sent = 0
        while sent < 256 * 2**20 and wait_writable(write):
            sent += os.write(write, b"x" * 65536)
        assert sent < 256 * 2**20
        assert resident(client.pid) - before < 4 * 2**20
        os.close(write)
        total = 1
        while chunk := far.recv(2**20):
            total += len(chunk)
        assert total == sent + 4096
    assert client.wait(TIMEOUT) == 0


def wait_writable(fd: int) -> bool:
    """Whether a descriptor takes more within two seconds."""
    return bool(select.select([], [fd], [], 2)[1])


# -- a local port ------------------------------------------------------------------------------------------------------


def listen(gateway: LocalGateway, target: int, *more: str, key: str = "AKIAALL") -> tuple[subprocess.Popen[str], int]:
    """A client behind a local port, and the port."""
    client = subprocess.Popen(
        command(gateway.port, target, "--local-port", "0", *more),
        env=environment(gateway.files.ca, key),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert client.stdout is not None
    said = re.fullmatch(r"Listening for connections on port (\d+)\.\n", client.stdout.readline())
    assert said
    return client, int(said[1])


def test_a_local_port_serves_connection_after_connection(local: LocalGateway, target: Target) -> None:
    """Each connection gets a tunnel and the AWS CLI's lines; SIGTERM ends those that are open."""
    client, port = listen(local, target.port)
    assert client.stdout is not None
    for number in (1, 2):
        with socket.create_connection(("127.0.0.1", port)) as near, target.accept() as far:
            near.sendall(b"ping")
            near.shutdown(socket.SHUT_WR)
            assert read_all(far) == b"ping"
            far.sendall(b"pong")
            far.close()
            assert read_all(near) == b"pong"
        assert client.stdout.readline() == f"[{number}] Accepted new tcp connection, opening websocket tunnel.\n"
        assert client.stdout.readline() == f"[{number}] Closing tcp connection.\n"
    with socket.create_connection(("127.0.0.1", port)) as near, target.accept() as far:
        client.terminate()
        assert read_all(far) == b""
        assert near.recv(1) == b""
    assert client.wait(TIMEOUT) == 143


def test_more_connections_than_allowed_wait_for_their_turn(local: LocalGateway, target: Target) -> None:
    """With one tunnel at a time the second connection is served when the first has ended."""
    client, port = listen(local, target.port, "--max-websocket-connections", "1")
    with (
        socket.create_connection(("127.0.0.1", port)) as first,
        socket.create_connection(("127.0.0.1", port)) as second,
    ):
        far = target.accept()
        second.sendall(b"second")
        first.sendall(b"first")
        first.shutdown(socket.SHUT_WR)
        assert read_all(far) == b"first"
        far.close()
        with target.accept() as far:
            assert far.recv(6) == b"second"
    client.terminate()
    assert client.wait(TIMEOUT) == 143


def test_a_failed_tunnel_ends_its_connection_and_not_the_listener(local: LocalGateway, target: Target) -> None:
    """A target that is down may come up again."""
    closed = Target()
    closed.close()
    client, port = listen(local, closed.port)
    for _ in range(2):
        with socket.create_connection(("127.0.0.1", port)) as near:
            assert near.recv(1) == b""
    client.terminate()
    assert client.wait(TIMEOUT) == 143
    assert client.stderr is not None
    assert re.fullmatch(
        r"wicketgate: \[1\] Websocket Closure Reason: Unable to connect.*\nwicketgate: \[2\] .*\n", client.stderr.read()
    )


def test_a_refusal_ends_the_listener(local: LocalGateway) -> None:
    """The next connection would be refused alike, so the person sees it now."""
    client, port = listen(local, 22, key="AKIANONE")
    with socket.create_connection(("127.0.0.1", port)):
        assert client.wait(TIMEOUT) == 255
    assert client.stderr is not None
    assert client.stderr.read().startswith("wicketgate: AccessDeniedException: ")


def test_a_taken_port_is_named(local: LocalGateway) -> None:
    """Exit 252, as for every option that cannot be used."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            command(local.port, 22, "--local-port", str(port)),
            env=environment(local.files.ca),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    assert done.stderr.startswith(f"wicketgate: Cannot listen on port {port} of localhost")
    assert done.returncode == 252


# -- trust -------------------------------------------------------------------------------------------------------------


def test_an_untrusted_certificate_is_an_answer_and_not_a_hang(local: LocalGateway) -> None:
    """Without our CA: one line that names the three ways to trust it; the URL is not sent."""
    done = subprocess.run(
        command(local.port, 22),
        env=environment(None),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert re.fullmatch(
        r"wicketgate: The certificate of localhost is not trusted: .* --ca-bundle, AWS_CA_BUNDLE or SSL_CERT_FILE\.\n",
        done.stderr,
    )
    assert done.returncode == 255


@pytest.mark.parametrize("way", ["--ca-bundle", "AWS_CA_BUNDLE", "SSL_CERT_FILE", "both variables"])
def test_every_way_to_name_the_ca_works(local: LocalGateway, target: Target, way: str, tmp_path: Path) -> None:
    """An option, either variable, and both when only one of the two files has the CA."""
    ca = str(local.files.ca)
    other = pki.ensure(tmp_path / "other", ["other.test"]).ca
    env = environment(None)
    env |= {
        "--ca-bundle": {},
        "AWS_CA_BUNDLE": {"AWS_CA_BUNDLE": ca},
        "SSL_CERT_FILE": {"SSL_CERT_FILE": ca},
        "both variables": {"SSL_CERT_FILE": ca, "AWS_CA_BUNDLE": str(other)},
    }[way]
    more = ["--ca-bundle", ca] if way == "--ca-bundle" else []
    client = subprocess.Popen(command(local.port, target.port, *more), env=env, stdin=subprocess.DEVNULL)
    target.accept().close()
    assert client.wait(TIMEOUT) == 0


# -- servers that misbehave --------------------------------------------------------------------------------------------

Script = Callable[[socket.socket], None]


class Scripted:
    """A TLS server for one connection: `script` gets it after the handshake."""

    def __init__(self, directory: Path) -> None:
        self.files = pki.ensure(directory, ["localhost"])
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(self.files.certificate, self.files.key)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]

    @contextlib.contextmanager
    def serving(self, script: Script) -> Iterator[None]:
        """Serve one connection during the block; what the script raises is raised here."""
        failed: list[BaseException] = []

        def serve() -> None:
            try:
                plain, _ = self.listener.accept()
                plain.settimeout(TIMEOUT)
                with self.context.wrap_socket(plain, server_side=True) as connection:
                    script(connection)
            except (AssertionError, OSError) as error:
                failed.append(error)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield
        thread.join(TIMEOUT)
        assert not failed, failed


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scripted]:
    """A server that does as told."""
    server = Scripted(tmp_path_factory.mktemp("scripted"))
    yield server
    server.listener.close()


def read_head(connection: socket.socket) -> bytes:
    """The client's request."""
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = connection.recv(4096)
        assert chunk
        data += chunk
    return data


def accepted(head: bytes) -> bytes:
    """The 101 that belongs to a request."""
    key = re.search(rb"Sec-WebSocket-Key: (\S+)", head)
    assert key
    accept = base64.b64encode(hashlib.sha1(key[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )


def upgraded(*frames: bytes) -> Script:
    """A script that accepts the tunnel and sends frames in the same breath, then waits for the client's end."""

    def script(connection: socket.socket) -> None:
        connection.sendall(accepted(read_head(connection)) + b"".join(frames))
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            read_all(connection)

    return script


def meet(server: Scripted, script: Script) -> tuple[bytes, str, int]:
    """A client with open input meets a script: output, error output, exit code."""
    with server.serving(script):
        client = subprocess.Popen(
            command(server.port, 22),
            env=environment(server.files.ca),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert client.stdin is not None
        assert client.stdout is not None
        assert client.stderr is not None
        out, err = client.stdout.read(), client.stderr.read()
        code = client.wait(TIMEOUT)
        client.stdin.close()
    return out, err.decode(), code


def plain(opcode: int, payload: bytes = b"", **more: object) -> bytes:
    """A frame as servers send it."""
    return frame(opcode, payload, masked=False, **more)  # type: ignore[arg-type]


OK = plain(CLOSE, b"\x03\xe8")


@pytest.mark.parametrize(
    ("frames", "out", "err", "code"),
    [
        pytest.param([plain(BINARY, b"data"), OK], b"data", "", 0, id="data and close 1000 behind the head"),
        pytest.param([plain(CLOSE)], b"", "", 0, id="close without status"),
        pytest.param(
            [plain(BINARY, b"d"), plain(CLOSE, b"\x0f\xa3no \x1b[2Jmore")],
            b"d",
            "wicketgate: Websocket Closure Reason: no \\x1b[2Jmore\n",
            255,
            id="a reason with an escape sequence",
        ),
        pytest.param(
            [plain(CLOSE, b"\x03\xf3")], b"", "wicketgate: Websocket Closure Reason: (code 1011)\n", 255, id="no reason"
        ),
        pytest.param([plain(BINARY, b"x" * 1_000_000), OK], b"x" * 1_000_000, "", 0, id="one frame of 1,000,000 bytes"),
        pytest.param(
            [plain(BINARY, b"a", fin=False), plain(PING, b"!"), plain(CONTINUATION, b"b"), OK],
            b"ab",
            "",
            0,
            id="fragments around a ping",
        ),
        pytest.param([plain(TEXT, b"x")], b"", "a text frame", 255, id="text"),
        pytest.param([frame(BINARY, b"x")], b"", "a masked frame came from the server", 255, id="masked"),
        pytest.param([plain(BINARY, b"x", rsv=4)], b"", "reserved bits", 255, id="reserved bits"),
        pytest.param([plain(11, b"x")], b"", "unknown opcode 11", 255, id="unknown opcode"),
    ],
)
def test_frames_of_every_kind(scripted: Scripted, frames: list[bytes], out: bytes, err: str, code: int) -> None:
    """What a server may send is taken, what it may not is named; the client always ends."""
    got, said, exit_code = meet(scripted, upgraded(*frames))
    assert (got, exit_code) == (out, code)
    assert err in said
    assert bool(err) == bool(said)


def test_pings_are_answered_with_their_payload(scripted: Scripted) -> None:
    """RFC 6455 section 5.5.3, masked as everything from a client is."""

    def script(connection: socket.socket) -> None:
        connection.sendall(accepted(read_head(connection)) + plain(PING, b"are you there"))
        pong = b""
        while len(pong) < 2 + 4 + 13:
            pong += connection.recv(100)
        assert pong[:2] == b"\x8a\x8d"
        assert bytes(byte ^ pong[2 + index % 4] for index, byte in enumerate(pong[6:])) == b"are you there"
        connection.sendall(OK)
        read_all(connection)

    assert meet(scripted, script) == (b"", "", 0)


def answering(answer: bytes) -> Script:
    """A script that answers the request with these bytes and closes."""

    def script(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(answer)

    return script


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "closed the connection without an HTTP answer"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "no HTTP answer: 'SSH-2.0-OpenSSH_9.2'"),
        (b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: x\r\n\r\n", "wrong Sec-WebSocket-Accept"),
        (b'HTTP/1.1 403 No\r\n\r\n{"ErrorCode": "E", "Message": "M\\nN"}', "wicketgate: E: M N (HTTP 403)\n"),
        (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 5\r\n\r\nproxy???", "wicketgate: proxy (HTTP 502)\n"),
        (b"HTTP/1.1 400 Bad\r\nContent-Length: 500\r\n\r\n[]", "[] (HTTP 400)"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "without saying why (HTTP 404)"),
    ],
)
def test_answers_that_are_no_upgrade(scripted: Scripted, answer: bytes, words: str) -> None:
    """One line and exit 255, whatever comes instead of a tunnel."""
    out, err, code = meet(scripted, answering(answer))
    assert (out, code) == (b"", 255)
    assert words in err
    assert err.count("\n") == 1


def test_a_tunnel_cut_without_a_close_frame_is_an_error(scripted: Scripted) -> None:
    """What came before is delivered; that the end is missing is said."""

    def script(connection: socket.socket) -> None:
        connection.sendall(accepted(read_head(connection)) + plain(BINARY, b"half"))

    assert meet(scripted, script) == (
        b"half",
        "wicketgate: The service ended the connection without a close frame.\n",
        255,
    )


def test_a_server_that_says_nothing_is_given_up(scripted: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trickle of header bytes does not prolong the limit."""
    monkeypatch.setattr(handshake, "CONNECT_TIMEOUT", 0.3)
    done = threading.Event()

    def script(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 ")
        done.wait(TIMEOUT)

    context = trust(str(scripted.files.ca), {})
    with scripted.serving(script), pytest.raises(TunnelFailed, match=r"gave no answer"):
        try:
            open_websocket("wss://localhost/openTunnel?x", ("localhost", scripted.port), context)
        finally:
            done.set()


def test_a_listener_that_never_speaks_tls_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """TCP is accepted, TLS is not: one line that says so."""
    monkeypatch.setattr(handshake, "CONNECT_TIMEOUT", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(TunnelFailed, match="did not finish TLS"):
        open_websocket("wss://localhost/openTunnel?x", ("localhost", silent.getsockname()[1]), trust(None, {}))


def test_a_closed_port_and_an_unknown_name_are_told_apart() -> None:
    """Two ways not to get there, two sentences."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(TunnelFailed, match=rf"Cannot connect to localhost port {port}: Connection refused"):
        open_websocket("wss://localhost/openTunnel?x", ("localhost", port), trust(None, {}))
    with pytest.raises(TunnelFailed, match=r"name no-such-host\.invalid cannot be resolved"):
        open_websocket("wss://x/openTunnel?x", ("no-such-host.invalid", 443), trust(None, {}))


def test_streams_that_cannot_be_waited_for_are_pumped(scripted: Scripted) -> None:
    """The way taken on Windows, where only sockets can be waited for, carries the same bytes to the same end."""

    def script(connection: socket.socket) -> None:
        connection.sendall(accepted(read_head(connection)) + plain(BINARY, b"down"))
        data = b""
        while len(data) < 2 + 4 + 2 + 2 + 4:  # "up" and the empty frame, both masked
            data += connection.recv(100)
        connection.sendall(OK)
        read_all(connection)

    (in_read, in_write), (out_read, out_write) = os.pipe(), os.pipe()
    os.write(in_write, b"up")
    os.close(in_write)
    with scripted.serving(script), pumped_streams(in_read, out_write) as (source, sink):
        opened = open_websocket(
            "wss://localhost/openTunnel?x", ("localhost", scripted.port), trust(str(scripted.files.ca), {})
        )
        assert Relay(opened.socket, opened.leftover, source, sink).run() == Ended(1000)
    assert os.read(out_read, 10) == b"down"
    for fd in (in_read, out_read, out_write):
        os.close(fd)
