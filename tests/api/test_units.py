"""The processes without `serve`, started as systemd would start them: each may end at any time, and nothing is lost."""

from __future__ import annotations

import json
import signal
import socket
import ssl
import subprocess
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError

from tests.api.deployment import REGION, ROOT
from tests.api.kernel import kernel_rules
from tests.api.units import RUN, Units, identity
from tests.api.worlds import endpoint, run, until
from tests.wire.gateway_harness import BINARY, RawWebSocket, frame, upgrade
from wicketgate.kernel import netns
from wicketgate.sigv4 import Credentials, presign

pytestmark = pytest.mark.root  # units have users of their own

ALL = ("netd", "api", "metadata", "gateway a0", "gateway a1")
PORT = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "CidrIp": "10.0.0.0/16"}


@pytest.fixture(scope="module")
def units(deployment):
    """All units of a host, started once; the session's own deployment stands aside."""
    deployment.stop()
    state = Path("/run/deployments") / f"units-{time.monotonic_ns()}"
    made = Units(state)
    made.start(*ALL)
    made.ready(*ALL)
    yield made
    codes = made.stop()
    assert set(codes.values()) <= {0}, codes
    deployment.start()


@pytest.fixture(autouse=True)
def all_there(request):
    """Every test finds all units running, and fails if one of them ended by itself."""
    units = request.getfixturevalue("units")
    missing = [name for name in ALL if name not in units.processes]
    units.start(*missing)
    units.ready(*missing)
    yield
    ended = {name: process.poll() for name, process in units.processes.items()}
    assert set(ended.values()) <= {None}, ended


class Place:
    """A VPC with an endpoint and a target that listens on port 22."""

    def __init__(self, units):
        self.units = units
        self.ec2 = units.client("ec2")
        self.vpc = self.ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        subnet = self.ec2.create_subnet(VpcId=self.vpc, CidrBlock="10.0.1.0/24")["Subnet"]["SubnetId"]
        self.group = self.ec2.create_security_group(GroupName="open", Description="d", VpcId=self.vpc)["GroupId"]
        self.ec2.authorize_security_group_ingress(GroupId=self.group, **PORT)
        self.target = run(self.ec2, SubnetId=subnet, SecurityGroupIds=[self.group])
        self.door = endpoint(self.ec2, SubnetId=subnet, SecurityGroupIds=[self.group])
        self.listen()

    def listen(self):
        """Listen on the target, whose namespace may be a new one."""
        with netns.entered(self.target["InstanceId"]):
            self.listener = socket.create_server(("0.0.0.0", 22), backlog=512)
        self.listener.settimeout(10)

    def connect(self, seconds=10):
        """A TLS connection and the request for a tunnel, sent."""
        host = self.door["DnsName"]
        parameters = {
            "instanceConnectEndpointId": self.door["InstanceConnectEndpointId"],
            "privateIpAddress": self.target["PrivateIpAddress"],
            "remotePort": "22",
        }
        url = presign(host, parameters, Credentials(*ROOT), region=REGION, now=time.time())
        context = ssl.create_default_context(cafile=str(self.units.bundle))
        sock = context.wrap_socket(socket.create_connection(("127.0.0.1", 443), seconds), server_hostname=host)
        sock.sendall(upgrade(f"/openTunnel?{urlsplit(url).query}", Host=host))
        return sock

    @contextmanager
    def tunnel(self):
        """The client's end, the target's end."""
        sock = self.connect()
        client = RawWebSocket(sock)
        peer, _ = self.listener.accept()
        with sock, peer:
            peer.settimeout(10)
            yield client, peer


@pytest.fixture(scope="module")
def place(units):
    """Made once: 5 VPCs are the quota."""
    return Place(units)


def carries(tunnel):
    """Assert that bytes pass both ways."""
    client, peer = tunnel
    client.send(frame(BINARY, b"ping"))
    assert peer.recv(16) == b"ping"
    peer.sendall(b"pong")
    assert client.receive_bytes(4) == b"pong"


def source(number):
    """An inbound rule, known in the kernel by its range."""
    return {**PORT, "CidrIp": f"192.0.2.{number}/32"}


def in_kernel(place, number):
    """Whether the kernel has it."""
    return f"192.0.2.{number}" in kernel_rules(place.vpc).replace("\n", " ").replace(",", " ").split()


def test_change_is_enforced_when_it_is_answered(place):
    """A rule is in the kernel when its call is answered, as with `serve`."""
    for number in range(1, 6):
        place.ec2.authorize_security_group_ingress(GroupId=place.group, **source(number))
        assert in_kernel(place, number)


def test_users(units):
    """Each process has the user of its own, no capability but netd's, leaves no core, and its sockets are its own."""
    for name, process in units.processes.items():
        status = Path(f"/proc/{process.pid}/status").read_text()
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        owner = "root" if name == "netd" else f"wicketgate-{name.split()[0]}"
        assert fields["Uid"].split() == [str(identity(owner))] * 4
        assert (int(fields["CapEff"], 16) == 0) is (name != "netd"), name
        limits = Path(f"/proc/{process.pid}/limits").read_text()
        assert "Max core file size        0                    0" in limits, name
        assert ROOT[1].encode() not in Path(f"/proc/{process.pid}/environ").read_bytes(), name


@pytest.mark.parametrize(
    ("file", "kind", "user"),
    [
        ("feed.sock", socket.SOCK_STREAM, "nobody"),
        ("dial.sock", socket.SOCK_SEQPACKET, "root"),
        ("dial.sock", socket.SOCK_SEQPACKET, "wicketgate-metadata"),
        ("listen.sock", socket.SOCK_SEQPACKET, "wicketgate-gateway"),
        ("api.sock", socket.SOCK_STREAM, "wicketgate-metadata"),
    ],
)
def test_wrong_users(units, file, kind, user):
    """Who has no business at a socket is not let in, or its connection ends without a word; root too at netd's."""
    code = f"""
import os, socket, sys
os.setresuid(*[{65534 if user == "nobody" else identity(user)}] * 3)
sock = socket.socket(socket.AF_UNIX, {int(kind)})
sock.settimeout(5)
try:
    sock.connect({str(RUN / file)!r})
    sock.send(b"x")
    print(sock.recv(100))
except (PermissionError, ConnectionError) as error:
    print(type(error).__name__)
"""
    said = subprocess.run([units.python, "-c", code], capture_output=True, text=True, timeout=20, check=True).stdout
    assert said.strip() in ("b''", "PermissionError", "ConnectionResetError", "BrokenPipeError"), said


def test_api_ends(units, place):
    """Killed, the API process takes no tunnel along; requests wait for the next one, and are then decided by it."""
    with place.tunnel() as tunnel:
        units.end("api")
        carries(tunnel)
        connected = []
        waiting = threading.Thread(target=lambda: connected.append(place.connect(30)))
        waiting.start()
        waiting.join(0.7)
        assert not connected
        units.start("api")
        waiting.join(20)
        with connected[0] as sock:
            client = RawWebSocket(sock)
            peer, _ = place.listener.accept()
            with peer:
                peer.settimeout(10)
                carries((client, peer))
        carries(tunnel)
        place.ec2.authorize_security_group_ingress(GroupId=place.group, **source(10))
        assert in_kernel(place, 10)


def test_api_ends_in_order(units, place):
    """SIGTERM ends the API process with 0, and the next one answers what was waiting for it."""
    assert units.end("api", number=signal.SIGTERM) == [0]
    answers = []
    calling = threading.Thread(target=lambda: answers.append(units.client("ec2").describe_vpcs()))
    calling.start()
    time.sleep(0.3)
    units.start("api")
    calling.join(20)
    assert [one["VpcId"] for one in answers[0]["Vpcs"]] == [place.vpc]


def test_netd_ends(units, place):
    """Killed, netd takes no tunnel along; the next one dials, enforces changes, and is found by everybody."""
    with place.tunnel() as tunnel:
        units.end("netd")
        carries(tunnel)
        units.start("netd")
        place.ec2.authorize_security_group_ingress(GroupId=place.group, **source(20))
        assert in_kernel(place, 20)

        def opens():
            with place.connect() as sock:
                client = RawWebSocket(sock)
                opcode, payload = client.receive() if not _accepted(place) else (BINARY, b"")
                return opcode == BINARY, payload

        until(lambda: opens()[0], 20)
        carries(tunnel)


def _accepted(place):
    """Whether the target gets a connection within a moment."""
    place.listener.settimeout(1)
    try:
        place.listener.accept()[0].close()
    except TimeoutError:
        return False
    finally:
        place.listener.settimeout(10)
    return True


def test_no_netd(units, place):
    """Without netd a change is refused in words after ten seconds, at once after that, and leaves nothing behind."""
    units.end("netd")
    began = time.monotonic()
    with pytest.raises(ClientError, match="netd does not follow, and without it nothing would be enforced"):
        place.ec2.authorize_security_group_ingress(GroupId=place.group, **source(30))
    assert 8 < time.monotonic() - began < 14
    with pytest.raises(ClientError, match="netd does not follow"):
        place.ec2.authorize_security_group_ingress(GroupId=place.group, **source(30))
    assert time.monotonic() - began < 16
    units.start("netd")

    def allowed():
        try:
            place.ec2.authorize_security_group_ingress(GroupId=place.group, **source(31))
        except ClientError:
            return False
        return True

    until(allowed, 20)
    assert in_kernel(place, 31)
    assert not in_kernel(place, 30)


class Hammer(threading.Thread):
    """Opens tunnels without a pause."""

    def __init__(self, place):
        super().__init__()
        self.place, self.ending = place, threading.Event()
        self.opened, self.failures = 0, []

    def run(self):
        while not self.ending.is_set():
            try:
                with self.place.tunnel() as tunnel:
                    carries(tunnel)
                self.opened += 1
            except (OSError, AssertionError, EOFError) as error:
                self.failures.append(repr(error))
            time.sleep(0.02)


def test_drained(units, place):
    """Two gateways are replaced by two others: no connection is refused, live tunnels stay until they end by
    themselves, and a drained gateway then ends with 0."""
    hammer = Hammer(place)
    with place.tunnel() as first, place.tunnel() as second:
        hammer.start()
        until(lambda: hammer.opened > 5)
        units.start("gateway b0", "gateway b1")
        units.ready("gateway b0", "gateway b1")
        for name in ("gateway a0", "gateway a1"):
            units.processes[name].send_signal(signal.SIGUSR1)
        counted = hammer.opened
        until(lambda: hammer.opened > counted + 20, 30)
        place.ec2.authorize_security_group_ingress(GroupId=place.group, **source(40))  # they still follow
        carries(first)
        carries(second)
        assert None in [units.processes[name].poll() for name in ("gateway a0", "gateway a1")]
    hammer.ending.set()
    hammer.join(20)
    assert not hammer.failures
    assert [units.processes.pop(name).wait(20) for name in ("gateway a0", "gateway a1")] == [0, 0]
    lines = (units.state / "audit" / "gateway" / "gateway-b0.jsonl").read_text()
    assert "OpenTunnel" in lines + (units.state / "audit" / "gateway" / "gateway-b1.jsonl").read_text()
    units.start("gateway a0", "gateway a1")
    units.ready("gateway a0", "gateway a1")
    for name in ("gateway b0", "gateway b1"):
        units.processes[name].send_signal(signal.SIGUSR1)
    assert [units.processes.pop(name).wait(20) for name in ("gateway b0", "gateway b1")] == [0, 0]


def test_audit_rotated(units, place):
    """Files renamed and signalled for under load: no line is lost or written twice, and LookupEvents finds all."""
    api, gateways = units.state / "audit" / "api", units.state / "audit" / "gateway"
    began = len(_events(api, gateways))
    hammer = Hammer(place)
    hammer.start()
    for number in range(3):
        until(lambda: hammer.opened > 4 * (number + 1))  # noqa: B023  # waited for here
        for directory in (api, gateways):
            for path in directory.glob("*.jsonl"):
                path.rename(f"{path}-2026112{number}")
        for name in ("api", "gateway a0", "gateway a1"):
            units.processes[name].send_signal(signal.SIGHUP)
        place.ec2.describe_vpcs()
    hammer.ending.set()
    hammer.join(20)
    assert not hammer.failures
    time.sleep(0.5)
    packed = [str(path) for path in (api / "api.jsonl-20261120", *gateways.glob("*-20261120"))]
    subprocess.run(["gzip", *packed], check=True)
    found = [event for event in _events(api, gateways)[began:] if event["eventName"] in ("OpenTunnel", "CloseTunnel")]
    opened = [event["requestID"] for event in found if event["eventName"] == "OpenTunnel"]
    assert len(opened) == len(set(opened)) == hammer.opened
    assert sorted(opened) == sorted(event["requestID"] for event in found if event["eventName"] == "CloseTunnel")
    pages = units.client("cloudtrail").get_paginator("lookup_events")
    asked = {"LookupAttributes": [{"AttributeKey": "EventName", "AttributeValue": "OpenTunnel"}]}
    shown = {
        json.loads(one["CloudTrailEvent"])["requestID"] for page in pages.paginate(**asked) for one in page["Events"]
    }
    assert set(opened) <= shown
    for path in gateways.iterdir():
        status = path.stat()
        assert (status.st_mode & 0o777, status.st_gid) == (0o640, identity("wicketgate-api")), path


def _events(*directories):
    """Every audit line in all files, packed ones too, oldest file first."""
    found = []
    for directory in directories:
        for path in sorted(directory.glob("*.jsonl*"), key=lambda path: (path.name.partition(".jsonl")[2] == "", path)):
            said = subprocess.run(["zcat", "-f", str(path)], capture_output=True, check=True).stdout
            found += [json.loads(line) for line in said.splitlines()]
    return sorted(found, key=lambda event: event["eventTime"])


def test_boot(units, place):
    """After a boot netd alone makes the kernel what it was, by its own copy; with the API process all goes on."""
    place.ec2.authorize_security_group_ingress(GroupId=place.group, **source(50))
    before = sorted(kernel_rules(place.vpc).splitlines())
    units.end(*list(units.processes))
    place.listener.close()
    for name in list(netns.names()):
        subprocess.run(["ip", "netns", "delete", name], check=True)
    units.start("netd")
    units.ready("netd")  # with nobody to tell it
    assert sorted(kernel_rules(place.vpc).splitlines()) == before
    units.start("api", "gateway a0", "gateway a1", "metadata")
    units.ready("gateway a0", "gateway a1")
    place.listen()
    with place.tunnel() as tunnel:
        carries(tunnel)


def test_second_netd(units):
    """Another netd in the same network namespace is refused in one line, and the first one is none the worse."""
    second = units.execute("netd", [], ["dial", "listen"])
    assert second.wait(20) == 1
    words = units.log("netd").read_text().splitlines()[-1]
    assert words.startswith("wicketgate netd: another netd runs in this network namespace")


def test_metadata(units, place):
    """Instance metadata answers inside the target, also after netd and the API process were started anew."""

    def token():
        with netns.entered(place.target["InstanceId"]):
            sock = socket.create_connection(("169.254.169.254", 80), 5)
        with sock:
            header = "Host: x\r\nX-aws-ec2-metadata-token-ttl-seconds: 60\r\nConnection: close\r\n"
            sock.sendall(f"PUT /latest/api/token HTTP/1.1\r\n{header}\r\n".encode())
            return sock.recv(4096).startswith(b"HTTP/1.1 200")

    until(lambda: _quietly(token), 20)
    units.end("netd", "api", "metadata")
    units.start("netd", "api", "metadata")
    until(lambda: _quietly(token), 20)


def _quietly(asked):
    try:
        return asked()
    except OSError:
        return False


@pytest.mark.parametrize(
    ("unit", "passed", "words"),
    [
        (["netd"], ["dial"], "it is passed no socket 'listen'"),
        (["gateway", "x0"], [], "it is passed no socket 'tls'"),
        (["api"], ["feed"], "it is passed no socket 'calls'"),
    ],
)
def test_started_wrongly(units, unit, passed, words):
    """A unit without its sockets says so in one line and ends with 1."""
    assert units.execute(unit[0], unit[1:], passed).wait(20) == 1
    assert words in units.log(*unit).read_text().splitlines()[-1]
