"""A tunnel's life against the World, netd, the audit file and the process's own end."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import resource
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from tests.wire.conftest import open_tunnel
from tests.wire.gateway_harness import (
    BINARY,
    CLOSE,
    ENDPOINT,
    GatewayProcess,
    RawWebSocket,
    Target,
    frame,
    make_world,
    signed_path,
    upgrade,
)
from wicketgate.model import Settings, World
from wicketgate.model.resources import EndpointSettings
from wicketgate.tunnel import UNABLE, DialReply


def test_duration_limit(gateway: GatewayProcess, target: Target):
    """maxTunnelDuration closes the tunnel with 4408 and says so, busy or not; the target is cut off."""
    client = gateway.open(signed_path(target.port, maxTunnelDuration="1"))
    start = time.monotonic()
    with target.accept() as peer:
        assert client.receive_close() == (4408, "Tunnel duration limit of 1 seconds reached")
        assert 0.9 < time.monotonic() - start < 3
        with contextlib.suppress(ConnectionResetError):
            assert peer.recv(1) == b""
    (event,) = gateway.wait_audit("CloseTunnel")
    assert 0.9 < event["serviceEventDetails"]["durationSeconds"] < 3


def test_deleted_endpoint_closes_its_tunnels(gateway: GatewayProcess, target: Target):
    """When the World no longer has the endpoint, its tunnels end with 4404 and its name; new ones are refused."""
    client, peer = open_tunnel(gateway, target)
    with peer:
        gateway.enforce(make_world(2, endpoints=False))
        assert client.receive_close() == (4404, f"The EC2 Instance Connect Endpoint {ENDPOINT} was deleted")
    assert gateway.refused(upgrade(signed_path(target.port))).status == 404


def test_endpoint_being_deleted_closes_its_tunnels(gateway: GatewayProcess, target: Target):
    """delete-in-progress ends tunnels too: the network interface is about to go."""
    client, peer = open_tunnel(gateway, target)
    world = make_world(2)
    (endpoint,) = world.endpoints
    going = msgspec.structs.replace(endpoint, state="delete-in-progress")
    with peer:
        gateway.enforce(msgspec.structs.replace(world, endpoints=(going,)))
        assert client.receive_close()[0] == 4404


def change_endpoint(world: World, **changes: object) -> World:
    """The World with another endpoint of the same id."""
    (endpoint,) = world.endpoints
    return msgspec.structs.replace(world, endpoints=(msgspec.structs.replace(endpoint, **changes),))


def test_modified_endpoint_keeps_its_tunnels(gateway: GatewayProcess, target: Target):
    """Whatever a Modify changes, and in whatever state the endpoint is meanwhile, open tunnels go on."""
    client, peer = open_tunnel(gateway, target)
    groups = EndpointSettings(group_ids=("sg-00000000000000099",))
    changes: list[dict[str, object]] = [
        {"tags": {"a": "b"}},
        {"state": "update-in-progress", "pending": EndpointSettings(preserve_client_ip=True)},
        {"state": "update-complete", "preserve_client_ip": True},
        {"state": "update-in-progress", "preserve_client_ip": True, "pending": groups},
        {"state": "update-failed", "preserve_client_ip": True, "state_message": "no such group"},
        {"state": "update-complete", "preserve_client_ip": False},
    ]
    with peer:
        for revision, change in enumerate(changes, start=2):
            gateway.enforce(change_endpoint(make_world(revision), **change))
            peer.sendall(b"still here")
            assert client.receive_bytes(10) == b"still here"
        client.send(frame(BINARY, b"and back"))
        assert peer.recv(16) == b"and back"


def test_tunnel_outlives_its_key(gateway: GatewayProcess, target: Target):
    """A deactivated key opens no new tunnel and ends no open one."""
    client, peer = open_tunnel(gateway, target)
    world = make_world(2)
    keys = tuple(msgspec.structs.replace(key, active=False) for key in world.access_keys)
    with peer:
        gateway.enforce(msgspec.structs.replace(world, access_keys=keys))
        assert gateway.refused(upgrade(signed_path(target.port))).status == 403
        peer.sendall(b"still here")
        assert client.receive_bytes(10) == b"still here"


def test_bad_world_changes_nothing(gateway: GatewayProcess, target: Target):
    """A World that cannot be read is answered with the error; the one before stays in force."""
    data = b'W{"revision": 7, "vpcs": 1}'
    gateway.feed.sendall(len(data).to_bytes(4) + data)
    with pytest.raises(RuntimeError, match="not a World"):
        from wicketgate import ipc

        ipc.read_answer(gateway.feed)
    client, peer = open_tunnel(gateway, target)
    peer.close()
    assert client.receive_close()[0] == 1000


# -- netd --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "code", "reason"),
    [
        ({"refused": "limit", "message": "20 tunnels are open, the endpoint's limit"}, 1013, "20 tunnels"),
        ({"refused": "url-reused", "message": "the URL was used by another address"}, 1008, "the URL was used"),
        ({"refused": "connect", "message": "no", "errno": errno.ENETUNREACH}, 1011, "no outbound rule"),
        ({"refused": "connect", "message": "no socket"}, 1011, "no socket"),
    ],
)
def test_transient_refusal(gateway: GatewayProcess, reply, code: int, reason: str):
    """What may pass on another try is 101 and a close frame in AWS's words, so that the CLI's listener lives on."""
    gateway.netd.answer = lambda request: DialReply(id=request.id, **reply)
    client = gateway.open(signed_path(22))
    closed, words = client.receive_close()
    assert closed == code
    assert words.startswith(f"{UNABLE}: ") and reason in words
    (event,) = gateway.wait_audit("OpenTunnel")
    assert event["errorCode"] in {"LimitExceeded", "RequestExpired", "TargetUnreachable"}
    assert event["errorMessage"] == words
    assert len(gateway.audit()) == 1, "an attempt that failed has no close line"


def test_refused_by_the_target(gateway: GatewayProcess):
    """A closed port is told apart: who may see the rules reads the failing step, others the kind of failure."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    code, words = gateway.open(signed_path(port)).receive_close()
    assert (code, words.startswith(f"{UNABLE}: ")) == (1011, True)
    assert "outbound" in words, "this World's endpoint has no outbound rule, and the caller may know"
    code, words = gateway.open(signed_path(port, key="AKIAOPEN")).receive_close()
    request_id = gateway.audit()[-1]["requestID"]
    assert (code, words) == (1011, f"{UNABLE}: connection refused (request id {request_id})")
    assert gateway.netd.open_leases() == 0, "a failed dial gives its slot back"
    assert [event["errorCode"] for event in gateway.audit()] == ["TargetUnreachable", "TargetUnreachable"]


def test_silent_target_times_out(gateway: GatewayProcess):
    """No answer within connect_timeout is a close frame, well before the stock CLI's own 10 s."""
    gateway.enforce(make_world(2, settings=Settings(allowed_ports=(), connect_timeout=0.5)))
    with socket.socket() as full:
        # A listener whose queue is full does not answer a SYN: the nearest thing to a dropped packet on loopback.
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
            fillers.append(filler)
        start = time.monotonic()
        code, words = gateway.open(signed_path(full.getsockname()[1], key="AKIAOPEN")).receive_close()
        assert (code, words) == (1011, f"{UNABLE}: timed out (request id {gateway.audit()[-1]['requestID']})")
        assert time.monotonic() - start < 3
        for filler in fillers:
            filler.close()


def test_silent_netd(gateway: GatewayProcess):
    """A netd that does not answer is 101 and 1013 after its timer; its late answer opens and leaks nothing."""
    late = []

    def wait(request):
        late.append(request)

    gateway.netd.answer = wait
    gateway.enforce(make_world(2, settings=Settings(allowed_ports=(), connect_timeout=0.5)))
    code, words = gateway.open(signed_path(22)).receive_close()
    assert (code, "netd did not answer" in words) == (1013, True)
    before = gateway.descriptors()
    ours, theirs = socket.socketpair()
    socket.send_fds(
        gateway.netd.sock, [msgspec.json.encode(DialReply(id=late[0].id))], [theirs.fileno(), theirs.fileno()]
    )
    theirs.close()
    ours.settimeout(5)
    assert ours.recv(1) == b"", "both descriptors of the late answer are closed"
    assert gateway.descriptors() <= before
    ours.close()


def test_lease_lives_as_long_as_the_tunnel(gateway: GatewayProcess, target: Target):
    """The slot is held while the tunnel is open and given back when it ends, whoever ends it."""
    client, peer = open_tunnel(gateway, target)
    assert gateway.netd.open_leases() == 1
    client.send(frame(CLOSE))
    client.receive_close()
    assert peer.recv(1) == b""
    peer.close()
    gateway.wait_audit("CloseTunnel")
    assert gateway.netd.leases[0].recv(1) == b""
    client, peer = open_tunnel(gateway, target)
    client.close()
    assert gateway.netd.leases[1].recv(1) == b"", "the client vanished"
    peer.close()


def test_nothing_leaks(gateway: GatewayProcess, target: Target):
    """100 tunnels, ended in four ways: as many descriptors as before."""

    def cycle(kind: int) -> None:
        client, peer = open_tunnel(gateway, target)
        if kind == 0:
            client.send(frame(CLOSE))
            client.receive_close()
        elif kind == 1:
            peer.close()
            client.receive_close()
            client.send(frame(CLOSE))
        elif kind == 2:
            client.send(frame(1, b"text"))
            client.receive_close()
        client.close()
        peer.close()

    for kind in range(4):
        cycle(kind)
    gateway.wait_audit("CloseTunnel", 4)
    before = gateway.descriptors()
    for number in range(100):
        cycle(number % 4)
    gateway.wait_audit("CloseTunnel", 104)
    deadline = time.monotonic() + 8
    while gateway.descriptors() > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert gateway.descriptors() <= before


def test_vanished_client_ends_the_target(gateway: GatewayProcess, target: Target):
    """A client that breaks off is noticed: the target gets everything sent and then the end."""
    client, peer = open_tunnel(gateway, target)
    client.send(frame(BINARY, b"goodb"))
    client.close()
    with peer:
        assert peer.recv(10) == b"goodb"
        assert peer.recv(10) == b""
    (event,) = gateway.wait_audit("CloseTunnel")
    assert event["serviceEventDetails"]["closeCode"] == 1006


def test_target_reset(gateway: GatewayProcess, target: Target):
    """A reset by the target is no clean end: 1011 and a reason."""
    client, peer = open_tunnel(gateway, target)
    client.send(frame(BINARY, b"x"))
    peer.recv(1)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    peer.close()
    assert client.receive_close() == (1011, "The target reset the connection")


# -- audit -------------------------------------------------------------------------------------------------------------


def test_audit_lines_of_one_tunnel(gateway: GatewayProcess, target: Target):
    """One OpenTunnel with AWS's fields, one CloseTunnel with bytes, duration, code and reason, joined by id."""
    client, peer = open_tunnel(gateway, target)
    client.send(frame(BINARY, b"12345"))
    assert peer.recv(5) == b"12345"
    peer.sendall(b"123")
    client.receive_bytes(3)
    peer.close()
    client.receive_close()
    (closed,) = gateway.wait_audit("CloseTunnel")
    (opened,) = gateway.wait_audit("OpenTunnel")
    assert opened["requestParameters"] == {
        "instanceConnectEndpointId": ENDPOINT,
        "remotePort": str(target.port),
        "privateIpAddress": "10.0.1.11",
    }
    assert (opened["sourceIPAddress"], opened["userAgent"], "errorCode" in opened) == ("127.0.0.1", "test/1", False)
    assert opened["requestID"] == closed["requestID"] == client.head.all("x-amzn-requestid")[0]
    details = closed["serviceEventDetails"]
    assert (details["bytesFromClient"], details["bytesToClient"]) == (5, 3)
    assert (details["closeCode"], details["closeReason"]) == (1000, "The target closed the connection")
    assert gateway.audit_file.stat().st_mode & 0o777 == 0o600


def test_audit_line_is_there_before_the_first_byte(gateway: GatewayProcess, target: Target):
    """When the 101 is read, the OpenTunnel line is in the file, and so it is when a banner comes at once."""
    for _ in range(20):
        client = gateway.open(signed_path(target.port))
        request_id = client.head.all("x-amzn-requestid")[0]
        assert request_id in gateway.audit_file.read_text()
        with target.accept() as peer:
            peer.sendall(b"SSH-2.0-banner\r\n")
            assert client.receive_bytes(16)
        client.close()


def test_fdatasync_precedes_the_first_payload(tmp_path, target: Target):
    """By strace: fdatasync of the audit file has returned before the first TLS application data goes to the client."""
    strace = shutil.which("strace")
    assert strace, "strace is needed for this test (Debian package strace)"
    trace = tmp_path / "trace"
    calls = "trace=fdatasync,write,writev,sendto,sendmsg,connect,recvmsg"
    prefix = (strace, "-f", "-tt", "-y", "-xx", "-s", "4", "-e", calls, "-o", str(trace))
    gateway = GatewayProcess(tmp_path, prefix=prefix)
    gateway.start()
    try:
        # TLS 1.2 shows the kind of each record in clear: 0x17 is application data, the handshake is 0x16.
        context = ssl.create_default_context(cafile=str(gateway.files.ca))
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        client = gateway.open(signed_path(target.port), context=context)
        with target.accept() as peer:
            peer.sendall(b"banner")
            assert client.receive_bytes(6) == b"banner"
        client.close()
        gateway.wait_audit("CloseTunnel")
        gateway.stop()
    finally:
        gateway.close()
    lines = trace.read_text().splitlines()
    name = re.escape("".join(f"\\x{byte:02x}" for byte in b"audit.jsonl"))  # strace -xx writes paths in hex as well
    dialled = _first(lines, r"sendto\(.*\\x7b\\x22")
    synced = _first(lines, rf"fdatasync\(.*{name}>\)\s*=\s*0|fdatasync resumed.*=\s*0")
    payload = _first(lines, r'(write|sendto|sendmsg|writev)\(.*"\\x17\\x03\\x03')
    assert dialled < synced < payload, (lines[dialled], lines[synced], lines[payload])


def _first(lines: list[str], pattern: str) -> int:
    for number, line in enumerate(lines):
        if re.search(pattern, line):
            return number
    raise AssertionError(f"nothing in the trace matches {pattern}:\n" + "\n".join(lines))


def test_full_disk_opens_no_tunnel(gateway: GatewayProcess, target: Target):
    """When the audit file cannot grow: 503 whatever the dial brought, no byte for the target, no half line. With room
    again tunnels open; nothing is lost."""
    client, peer = open_tunnel(gateway, target)
    size = gateway.audit_file.stat().st_size
    unlimited = resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE, (size + 100, unlimited[1]))
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed_port = server.getsockname()[1]
    for port in (target.port, closed_port):
        answer = gateway.refused(upgrade(signed_path(port)) + frame(BINARY, b"early"))
        assert (answer.status, answer.error["ErrorCode"]) == (503, "ServiceUnavailable")
        assert "audit" in answer.error["Message"]
    with target.accept() as unheard:
        assert unheard.recv(10) == b"", "the target sees a connection that ends without a byte"
    assert gateway.netd.open_leases() == 1, "only the open tunnel holds a slot"
    assert gateway.audit_file.stat().st_size == size, "the half line was taken back"
    peer.close()
    client.receive_close()
    assert gateway.refused(upgrade("/openTunnel?x=y")).status == 403, "a refusal stays a refusal"
    resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE, unlimited)
    client, peer = open_tunnel(gateway, target)
    events = gateway.wait_audit("CloseTunnel")
    assert events[0]["requestID"] == gateway.audit()[0]["requestID"], "the close line that was owed"
    peer.close()


def test_killed_between_dial_and_record(tmp_path, target: Target):
    """SIGKILL while the record is on its way: the target got no byte, the client no answer, and nothing is owed.

    strace makes the disk slow: it holds every fdatasync up.
    """
    strace = shutil.which("strace")
    assert strace, "strace is needed for this test (Debian package strace)"
    hold = "inject=fdatasync:delay_enter=60000000"
    prefix = (strace, "-f", "-e", "trace=fdatasync", "-e", hold, "-o", str(tmp_path / "trace"))
    gateway = GatewayProcess(tmp_path, prefix=prefix)
    gateway.start()
    try:
        with gateway.tls() as sock:
            sock.sendall(upgrade(signed_path(target.port)) + frame(BINARY, b"early"))
            with target.accept() as peer:
                peer.sendall(b"banner")
                peer.settimeout(0.5)
                with pytest.raises(TimeoutError):
                    peer.recv(1)
                sock.settimeout(0.5)
                with pytest.raises(TimeoutError):
                    sock.recv(1)
                tracer = gateway.process.pid
                worker = int(Path(f"/proc/{tracer}/task/{tracer}/children").read_text())
                os.kill(worker, signal.SIGKILL)
                gateway.process.kill()
                peer.settimeout(10)
                with contextlib.suppress(ConnectionResetError):
                    assert peer.recv(1) == b""
    finally:
        gateway.close()


def test_killed_gateway_owes_close_lines(gateway: GatewayProcess, target: Target):
    """After SIGKILL the next start writes the missing close lines, once, and takes out half a line."""
    client, peer = open_tunnel(gateway, target)
    ended, other = open_tunnel(gateway, target)
    other.close()
    ended.receive_close()
    gateway.wait_audit("CloseTunnel")
    gateway.kill()
    peer.close()
    with gateway.audit_file.open("ab") as file:
        file.write(b'{"eventVersion":"1.08","eventNa')
    gateway.start()
    events = gateway.wait_audit("CloseTunnel", 2)
    assert events[1]["requestID"] == client.head.all("x-amzn-requestid")[0]
    assert events[1]["serviceEventDetails"] == {
        "bytesFromClient": None,
        "bytesToClient": None,
        "durationSeconds": None,
        "closeCode": None,
        "closeReason": "gateway ended unexpectedly",
        "targetSawAddress": None,
    }
    client, peer = open_tunnel(gateway, target)
    peer.close()
    client.receive_close()
    gateway.kill()
    gateway.start()
    assert len(gateway.wait_audit("CloseTunnel", 3)) == 3


# -- the process -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["feed", "SIGTERM"])
def test_shutdown(gateway: GatewayProcess, target: Target, how: str):
    """When `serve` goes or SIGTERM comes: tunnels close with 1001 and a reason, close lines are written, exit 0."""
    client, peer = open_tunnel(gateway, target)
    if how == "feed":
        gateway.feed.close()
    else:
        gateway.process.send_signal(signal.SIGTERM)
    assert client.receive_close() == (1001, "The gateway is shutting down; connect again")
    client.close()
    assert gateway.process.wait(10) == 0
    assert gateway.audit()[-1]["serviceEventDetails"]["closeCode"] == 1001
    peer.close()


def test_refuses_to_run_with_capabilities(tmp_path):
    """A gateway that holds capabilities says which and does not start; without any it starts (to the next error)."""
    config = {
        "feed_fd": 0,
        "netd_fd": 0,
        "listen_fds": [],
        "certificate": "/nonexistent.pem",
        "key": "/nonexistent.key",
        "audit_file": str(tmp_path / "audit"),
    }
    command = [sys.executable, "-m", "wicketgate.gateway", json.dumps(config)]
    inside = ["unshare", "--user", "--map-root-user", *command]  # root of a user namespace holds every capability
    done = subprocess.run(inside, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 1
    assert "must hold no capability" in done.stderr
    dropped = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", *command]
    without = ["unshare", "--user", "--map-root-user", *dropped]
    done = subprocess.run(without, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 1
    assert "must hold no capability" not in done.stderr
    assert "/nonexistent.pem" in done.stderr


@pytest.mark.parametrize(
    ("argument", "words"),
    [(None, "is missing"), ("{}", "listen_fds"), ('{"feed": 1}', "feed"), ("nonsense", "cannot be read")],
)
def test_bad_configuration(argument: str | None, words: str):
    """A configuration that cannot be read is one line that names the place, and exit 1."""
    command = [sys.executable, "-m", "wicketgate.gateway", *([argument] if argument is not None else [])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 1
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_many_tunnels_at_once(shared: GatewayProcess, target: Target):
    """60 tunnels opened by one burst of connections all work, and each talks to its own target connection."""
    target.listener.listen(128)
    clients = [shared.tls() for _ in range(60)]
    for number, client in enumerate(clients):
        client.sendall(upgrade(signed_path(target.port)) + frame(BINARY, b"%3d" % number))
    peers = {}
    for _ in clients:
        peer = target.accept()
        peers[int(peer.recv(3))] = peer
    for number, client in enumerate(clients):
        peers[number].sendall(b"%3d" % number)
        assert RawWebSocket(client).receive_bytes(3) == b"%3d" % number
        peers[number].close()
        client.close()
