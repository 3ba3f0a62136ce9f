"""Instance metadata in a real kernel: netd and the metadata process, machines that ask, sshd's command at the end."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from tests.net.families import dual, six
from tests.net.worlds import ENDPOINT, VPC, resource_id, world
from tests.unit.test_control_instance_connect import KEY, SEND, SIGNER, call
from wicketgate import ipc
from wicketgate.kernel import ip, netns
from wicketgate.kernel.dial import IP_TRANSPARENT, make_transparent
from wicketgate.kernel.listen import ListenReply
from wicketgate.lab.machines import readable_python
from wicketgate.model import Instance, NetworkInterface, SecurityGroup, Subnet, Vpc, World, apply_change
from wicketgate.netd import listeners

KEYCOMMAND = Path(__file__).parents[2] / "keycommand" / "wicketgate_keycommand.py"
OTHER_VPC = "vpc-00000000000000002"
METADATA_UID = 64914
IP_MINTTL, IPV6_MINHOPCOUNT = 21, 73
WEB, DB, FAR = (resource_id("i", name) for name in ("web", "db", "far"))


def made(revision=1):
    """Two VPCs with the same addresses. No group has a single rule. `db` may send under any address."""
    first = world({"endpoint": [], "none": []}, {"web": ["none"], "db": ["none"]}, revision=revision)
    free = (*first.interfaces[:2], msgspec.structs.replace(first.interfaces[2], source_dest_check=False))
    far = Instance(id=FAR, interface_id="eni-00000000000000099", tags={"secret": "x"})
    both = msgspec.structs.replace(
        first,
        vpcs=(*first.vpcs, Vpc(id=OTHER_VPC, cidr_block="10.0.0.0/16")),
        subnets=(*first.subnets, Subnet(id="subnet-00000000000000002", vpc_id=OTHER_VPC, cidr_block="10.0.1.0/24")),
        groups=(*first.groups, SecurityGroup(id="sg-00000000000000002", vpc_id=OTHER_VPC, name="other")),
        instances=(*first.instances, far),
        interfaces=(
            *free,
            NetworkInterface(
                id="eni-00000000000000099",
                subnet_id="subnet-00000000000000002",
                private_ip_address="10.0.1.11",
                group_ids=("sg-00000000000000002",),
                link="far",
            ),
        ),
    )
    both.check()
    return both


class Processes:
    """netd and metadata, with our ends of their feeds."""

    def __init__(self, directory, python, environment):
        self.directory, self.python, self.environment = directory, python, environment
        self.netd_end, self.metadata_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # Where the process may not walk to is reached through a descriptor: pytest's directories are its owner's alone.
        chain = directory / "chain"
        chain.mkdir(mode=0o755)
        (chain / "signer.pem").write_bytes(SIGNER.chain)
        self.chain = os.open(chain, os.O_PATH | os.O_DIRECTORY)
        self.start_netd()
        self.start_metadata()

    def start_netd(self):
        """Start netd with a new feed."""
        self.netd_feed, feed = socket.socketpair()
        descriptors = [feed.fileno(), self.netd_end.fileno()]
        config = {
            "feed_fd": descriptors[0],
            "gateway_fds": [],
            "metadata_fds": descriptors[1:],
            "state_directory": str(self.directory),
        }
        self.netd = subprocess.Popen(
            [sys.executable, "-m", "wicketgate.netd", json.dumps(config)], pass_fds=descriptors
        )
        feed.close()

    def start_metadata(self):
        """Start metadata, confined, with a new feed."""
        self.feed, feed = socket.socketpair()
        config = {
            "feed_fd": feed.fileno(),
            "netd_fd": self.metadata_end.fileno(),
            "domain": "wicketgate.test",
            "signer_chain": f"/proc/self/fd/{self.chain}/signer.pem",
        }
        confined = [self.python, "-m", "wicketgate.kernel.confine", str(METADATA_UID)]
        self.metadata = subprocess.Popen(
            [*confined, self.python, "-m", "wicketgate.metadata", json.dumps(config)],
            pass_fds=[feed.fileno(), self.metadata_end.fileno(), self.chain],
            env=self.environment,
        )
        feed.close()

    def apply(self, wanted):
        """Have both enforce a World."""
        for feed in (self.netd_feed, self.feed):
            feed.settimeout(20)
            feed.sendall(ipc.frame(ipc.whole(wanted)))
            assert ipc.read_answer(feed) == wanted.revision

    def stop(self):
        """End both by their feeds."""
        for feed, process in ((self.feed, self.metadata), (self.netd_feed, self.netd)):
            feed.close()
            assert process.wait(5) == 0
        self.netd_end.close()
        self.metadata_end.close()
        os.close(self.chain)


@pytest.fixture(scope="module")
def interpreter():
    """An interpreter that every id can read."""
    return readable_python()


@pytest.fixture
def running(tmp_path, fabric, interpreter):
    """Both processes over the World above, ready; `fabric` cleans the kernel afterwards."""
    started = Processes(tmp_path, *interpreter)
    started.apply(made())
    for machine in (WEB, FAR):
        wait_ready(machine)
    yield started
    started.stop()


def wait_ready(machine):
    """Wait until metadata answers a machine."""
    deadline = time.monotonic() + 5
    while True:
        try:
            return ask(machine, "GET", "/latest/meta-data/instance-id")
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def connect(machine, *, source=None, ttl=None, address="169.254.169.254", timeout=2.0):
    """A connection to metadata from inside a machine."""
    with netns.entered(machine):
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.settimeout(timeout)
    if ttl is not None:
        sock.setsockopt(socket.SOL_IP, IP_MINTTL, ttl)
    if source is not None:
        sock.setsockopt(socket.SOL_IP, IP_TRANSPARENT, 1)
        sock.bind((source, 0))
    try:
        sock.connect((address, 80))
    except OSError:
        sock.close()
        raise
    return sock


def connect6(machine, *, source=None, hops=None, timeout=2.0):
    """The same over IPv6."""
    with netns.entered(machine):
        sock = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    sock.settimeout(timeout)
    if hops is not None:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_MINHOPCOUNT, hops)
    if source is not None:
        make_transparent(sock)
        sock.bind((source, 0))
    try:
        sock.connect(("fd00:ec2::254", 80))
    except OSError:
        sock.close()
        raise
    return sock


def talk(sock, method, path, **headers):
    """One request on a connection: (status, headers, body)."""
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    sock.sendall(f"{method} {path} HTTP/1.1\r\nHost: 169.254.169.254\r\n{lines}\r\n".encode())
    return read(sock, method)


def read(sock, method="GET"):
    """One answer."""
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = sock.recv(65536)
        if not chunk:
            return None
        data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    line, *fields = head.decode().split("\r\n")
    found = dict(field.lower().split(": ", 1) for field in fields)
    while method != "HEAD" and len(body) < int(found["content-length"]):
        body += sock.recv(65536)
    return int(line.split()[1]), found, body.decode()


def closed(sock):
    """Whether the other side has ended the connection."""
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


def ask(machine, method, path, **headers):
    """One request by a machine."""
    with connect(machine) as sock:
        return talk(sock, method, path, **headers)


def token(machine, seconds=60):
    """A session token."""
    status, headers, body = ask(machine, "PUT", "/latest/api/token", X_aws_ec2_metadata_token_ttl_seconds=seconds)
    assert (status, headers["x-aws-ec2-metadata-token-ttl-seconds"]) == (200, str(seconds))
    return body


def get(machine, path, held=None, method="GET"):
    """(status, body) of a path below meta-data, with a token."""
    answer = ask(machine, method, f"/latest/meta-data/{path}", X_aws_ec2_metadata_token=held or token(machine))
    return answer[0], answer[2]


def test_each_machine_sees_itself(running):
    """Three machines, two with the same address in two VPCs; no group allows anything."""
    for machine, address, vpc in ((WEB, "10.0.1.11", VPC), (DB, "10.0.1.12", VPC), (FAR, "10.0.1.11", OTHER_VPC)):
        held = token(machine)
        _, mac = get(machine, "mac", held)
        seen = [
            get(machine, path, held) for path in ("instance-id", "local-ipv4", f"network/interfaces/macs/{mac}/vpc-id")
        ]
        assert seen == [(200, machine), (200, address), (200, vpc)]


def test_what_is_there(running):
    """The paths that tools read, with and without a slash at the end, and the listings that lead to them."""
    held = token(WEB)
    _, mac = get(WEB, "mac", held)
    assert get(WEB, "", held)[1].split("\n") == [
        "ami-id",
        "hostname",
        "instance-id",
        "instance-type",
        "local-hostname",
        "local-ipv4",
        "mac",
        "managed-ssh-keys/",
        "network/",
        "placement/",
        "security-groups",
        "services/",
    ]
    expected = {
        "ami-id": "ami-00000000000000001",
        "hostname": "ip-10-0-1-11.ec2.internal",
        "instance-id/": WEB,
        "instance-type": "wicketgate.namespace",
        "placement/": "availability-zone\nregion",
        "placement/availability-zone/": "us-east-1a",
        "placement/region": "us-east-1",
        "services/domain/": "wicketgate.test",
        "services/partition": "aws",
        "security-groups": "none",
        "network/interfaces/macs/": f"{mac}/",
        f"network/interfaces/macs/{mac}/local-ipv4s": "10.0.1.11",
        f"network/interfaces/macs/{mac}/device-number": "0",
        f"network/interfaces/macs/{mac}/interface-id": "eni-00000000000000011",
        f"network/interfaces/macs/{mac}/subnet-id": "subnet-00000000000000001",
        f"network/interfaces/macs/{mac}/security-group-ids": resource_id("sg", "none"),
        f"network/interfaces/macs/{mac}/subnet-ipv4-cidr-block": "10.0.1.0/24",
        f"network/interfaces/macs/{mac}/vpc-ipv4-cidr-block": "10.0.0.0/16",
        "managed-ssh-keys/signer-cert/": SIGNER.chain.decode(),
    }
    assert {path: get(WEB, path, held) for path in expected} == {path: (200, text) for path, text in expected.items()}
    for path in ("tags/instance", "../user-data", "managed-ssh-keys/active-keys/ec2-user/", "hostname/x", "no"):
        assert get(WEB, path, held)[0] == 404
    for path, names in (
        ("/", "latest"),
        ("/latest/", "dynamic/\nmeta-data/"),
        ("/2021-03-23/dynamic", "instance-identity/"),
    ):
        assert ask(WEB, "GET", path, X_aws_ec2_metadata_token=held)[::2] == (200, names)
    _, _, document = ask(WEB, "GET", "/latest/dynamic/instance-identity/document", X_aws_ec2_metadata_token=held)
    assert json.loads(document)["instanceId"] == WEB
    assert ask(WEB, "GET", "/latest/user-data", X_aws_ec2_metadata_token=held)[0] == 404


def test_tokens(running):
    """Needed, the machine's own, in time, made anew by PUT alone within AWS's bounds, and through no proxy."""
    held = token(WEB, 1)
    status, headers, _ = ask(WEB, "GET", "/latest/meta-data/mac", X_aws_ec2_metadata_token=held)
    assert (status, headers["x-aws-ec2-metadata-token-ttl-seconds"]) == (200, "0")
    assert ask(WEB, "GET", "/latest/meta-data/mac")[0] == 401
    assert get(DB, "mac", held)[0] == 401, "another machine's token"
    assert get(FAR, "mac", held)[0] == 401, "even with the same address, in another VPC"
    assert get(WEB, "mac", held[:-4] + "AA==")[0] == 401
    assert get(WEB, "mac", "x")[0] == 401
    assert get(WEB, "no-such-path", "x")[0] == 401, "without a token nobody learns what is there"
    for seconds in (0, 21601, "x", "-1", "", "1 ", "99999999999"):
        status = ask(WEB, "PUT", "/latest/api/token", X_aws_ec2_metadata_token_ttl_seconds=seconds)[0]
        assert status == (200 if seconds == "1 " else 400)
    assert ask(WEB, "PUT", "/latest/api/token")[0] == 400
    assert ask(WEB, "PUT", "/latest/meta-data/mac", X_aws_ec2_metadata_token_ttl_seconds=60)[0] == 404
    proxied = {"X_Forwarded_For": "192.0.2.1"}
    assert ask(WEB, "PUT", "/latest/api/token", X_aws_ec2_metadata_token_ttl_seconds=60, **proxied)[0] == 403
    assert ask(WEB, "GET", "/latest/meta-data/mac", X_aws_ec2_metadata_token=token(WEB), **proxied)[0] == 403
    assert ask(WEB, "POST", "/latest/api/token", X_aws_ec2_metadata_token_ttl_seconds=60)[0] == 405
    time.sleep(1)
    assert get(WEB, "mac", held)[0] == 401, "over"


def test_a_token_travels_one_hop(running):
    """Its packets have a TTL of 1; other answers, on the same connection too, travel on."""
    with connect(WEB, ttl=2, timeout=0.5) as far, connect(WEB, ttl=1) as near:
        assert talk(far, "GET", "/latest/meta-data/mac")[0] == 401
        with pytest.raises(TimeoutError):
            talk(far, "PUT", "/latest/api/token", X_aws_ec2_metadata_token_ttl_seconds=60)
        assert talk(near, "PUT", "/latest/api/token", X_aws_ec2_metadata_token_ttl_seconds=60)[0] == 200
        near.setsockopt(socket.SOL_IP, IP_MINTTL, 2)
        assert talk(near, "GET", "/latest/meta-data/mac")[0] == 401


def test_nobody_else_gets_in(running):
    """Forged addresses, an endpoint, other ports and the router's own address: no connection at all."""
    with pytest.raises(TimeoutError):
        connect(DB, source="10.0.1.11", timeout=0.3)
    with pytest.raises(TimeoutError):
        connect(ENDPOINT, timeout=0.3)
    with pytest.raises(TimeoutError):
        connect(WEB, address="10.0.1.1", timeout=0.3)
    with connect(WEB) as sock:
        assert talk(sock, "GET", "/latest/meta-data/mac")[0] == 401, "while who may still can"


def test_an_address_without_instance_is_not_answered(running):
    """An interface that no instance has any more: what runs behind it learns nothing, on old connections or new."""
    held = token(DB)
    with connect(DB) as old:
        assert talk(old, "GET", "/latest/meta-data/mac", X_aws_ec2_metadata_token=held)[0] == 200
        # Only metadata is told: netd would take the namespace, from which we ask, out of the kernel.
        before = made(revision=2)
        without = msgspec.structs.replace(before, instances=tuple(one for one in before.instances if one.id != DB))
        running.feed.sendall(ipc.frame(ipc.whole(without)))
        assert ipc.read_answer(running.feed) == 2
        assert talk(old, "GET", "/latest/meta-data/mac", X_aws_ec2_metadata_token=held) is None
    with connect(DB) as new:
        assert read(new) is None


@pytest.mark.parametrize(
    "sent",
    [
        b"\r\n\r\n",
        b"GET / HTTP/2.0\r\n\r\n",
        b"GET http://169.254.169.254/ HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nA : b\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\r\na: c\r\n\r\n",
        b"\x16\x03\x01\x00\r\n\r\n",
    ],
)
def test_what_is_no_request(running, sent):
    """400 and the end of the connection."""
    with connect(WEB) as sock:
        sock.sendall(sent)
        assert read(sock)[0] == 400
        assert sock.recv(1) == b""


def test_limits(running):
    """A head without end, a body, and more connections than one machine needs are cut; others notice nothing."""
    with connect(WEB) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nA: " + b"b" * 40000)
        assert closed(sock)
    with connect(WEB) as sock:
        assert talk(sock, "PUT", "/latest/api/token", Content_Length=5)[0] == 400
        assert sock.recv(1) == b""
    held = [connect(WEB) for _ in range(32)]
    try:
        with connect(WEB) as sock:
            assert read(sock) is None
        assert ask(DB, "GET", "/latest/meta-data/mac")[0] == 401
    finally:
        for sock in held:
            sock.close()


def test_pushed_keys_from_end_to_end(running, tmp_path):
    """SendSSHPublicKey, the feed, metadata, sshd's command on the instance: there, and there alone, for its time."""
    before = made(revision=1)
    user = "root"
    change = SEND.run(call(before, InstanceId=WEB, InstanceOSUser=user, now=time.time() - 57)).change
    running.apply(apply_change(before, change))
    path = f"managed-ssh-keys/active-keys/{user}/"
    assert get(WEB, path, method="HEAD") == (200, "")
    assert get(WEB, path) == (200, change.puts[0].blob + "\n")
    assert get(WEB, "managed-ssh-keys/active-keys/") == (200, user)
    assert get(DB, path)[0] == get(FAR, path)[0] == get(WEB, path.replace(user, "admin"))[0] == 404
    (tmp_path / "root.pem").write_bytes(SIGNER.root)

    def command(machine):
        with netns.entered(machine):
            return subprocess.run(
                [
                    shutil.which("python3", path="/usr/bin"),
                    "-I",
                    "-S",
                    KEYCOMMAND,
                    "--root",
                    tmp_path / "root.pem",
                    user,
                ],
                capture_output=True,
                text=True,
                check=False,
                env={},
            )

    done = command(WEB)
    assert (done.returncode, done.stdout) == (0, f"{KEY}\n")
    assert "request req-1, by arn:aws:iam::123456789012:root" in done.stderr
    assert (command(DB).returncode, command(FAR).stdout) == (255, "")
    time.sleep(3)
    assert get(WEB, path)[0] == 404, "over, although the World still has it"
    assert (command(WEB).returncode, command(WEB).stdout) == (255, "")


def descriptors(pid):
    """How many a process has open, once connections that were just closed are gone."""
    seen, now = -1, len(list(Path(f"/proc/{pid}/fd").iterdir()))
    while seen != now:
        time.sleep(0.1)
        seen, now = now, len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return now


def test_a_deleted_vpc_is_let_go(running):
    """Its sockets are closed, so that the kernel removes the namespace; a new one is served without a restart."""
    both = made(revision=2)
    only = msgspec.structs.replace(
        both,
        vpcs=both.vpcs[:1],
        subnets=both.subnets[:1],
        groups=tuple(one for one in both.groups if one.vpc_id == VPC),
        interfaces=both.interfaces[:-1],
        instances=both.instances[:-1],
    )
    before = descriptors(running.metadata.pid)
    running.apply(only)
    assert OTHER_VPC not in netns.names()
    assert descriptors(running.metadata.pid) == before - 2
    running.apply(msgspec.structs.replace(both, revision=3))
    assert wait_ready(FAR)[0] == 401


def test_restarts(running):
    """Metadata killed and started again, and netd: sockets come back, and machines are answered as before."""
    running.metadata.kill()
    running.metadata.wait()
    running.feed.close()
    running.start_metadata()
    running.netd.send_signal(signal.SIGKILL)
    running.netd.wait()
    running.netd_feed.close()
    running.start_netd()
    running.apply(made(revision=2))
    assert wait_ready(WEB)[0] == 401
    assert wait_ready(FAR)[0] == 401
    assert get(WEB, "instance-id") == (200, WEB)


def test_netd_opens_sockets_in_vpcs_alone(running):
    """A namespace of another kind, one that is not there and a path are no VPC; nonsense is not answered."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.settimeout(2)
        for name in (WEB, ENDPOINT, "vpc-ffffffffffffffff", "../../run/netns/" + VPC, ""):
            ours.send(json.dumps({"op": "listen", "vpc_id": name}).encode())
            listeners.serve(theirs, made())
            data, descriptors, _, _ = socket.recv_fds(ours, 4096, 1)
            assert "there is no VPC" in msgspec.json.decode(data, type=ListenReply).error
            assert descriptors == []
        for nonsense in (b"{}", b'{"op": "dial", "vpc_id": "x"}', b"[" * 9000, b"\xff"):
            ours.send(nonsense)
            listeners.serve(theirs, World())
        ours.setblocking(False)
        with pytest.raises(BlockingIOError):
            ours.recv(1)


def test_the_router_speaks_under_its_own_address(running):
    """ICMP errors of the router do not come from the metadata address, which is nobody's to talk from."""
    chosen = ip.read(VPC, "route", "get", "10.0.1.11")
    assert chosen[0].get("prefsrc") != "169.254.169.254"


# -- IPv6, further addresses and interfaces ----------------------------------------------------------------------------

SECOND_SUBNET = "subnet-00000000000000003"


def manifold(revision=2):
    """`web` with three addresses on its first interface and two on a second one, `db` with IPv6 alone."""
    both = dual(
        world({"endpoint": [], "none": []}, {"web": ["none"], "db": ["none"]}, revision=revision), only6=("db",)
    )
    web = msgspec.structs.replace(both.interfaces[1], secondary_ip_addresses=("10.0.1.21",))
    second = NetworkInterface(
        id="eni-00000000000000021",
        subnet_id=SECOND_SUBNET,
        private_ip_address="10.0.2.11",
        ipv6_addresses=("2001:db8:0:2::11",),
        group_ids=web.group_ids,
        link="web-second",
        attached_to=WEB,
        device_index=1,
    )
    subnet = Subnet(id=SECOND_SUBNET, vpc_id=VPC, cidr_block="10.0.2.0/24", ipv6_cidr_block="2001:db8:0:2::/64")
    wanted = msgspec.structs.replace(
        both,
        subnets=(*both.subnets, subnet),
        interfaces=(both.interfaces[0], web, both.interfaces[2], second),
    )
    wanted.check()
    return wanted


def get6(machine, path, source=None):
    """(status, body) of a path below meta-data, asked for over IPv6."""
    with connect6(machine, source=source) as sock:
        status, _, held = talk(sock, "PUT", "/latest/api/token", X_aws_ec2_metadata_token_ttl_seconds=60)
        assert status == 200
        answer = talk(sock, "GET", f"/latest/meta-data/{path}", X_aws_ec2_metadata_token=held)
        return answer[0], answer[2]


def test_metadata_over_ipv6(running):
    """At fd00:ec2::254, from every IPv6 address of a machine, with no rule of any group; a token is good for both."""
    running.apply(manifold())
    wait_ready(WEB)
    for machine, source in ((WEB, six("10.0.1.11")), (WEB, "2001:db8:0:2::11"), (DB, six("10.0.1.12"))):
        assert get6(machine, "instance-id", source) == (200, machine)
    assert get6(DB, "instance-id") == (200, DB)
    with connect6(WEB) as sock:
        answer = talk(sock, "GET", "/latest/meta-data/instance-id", X_aws_ec2_metadata_token=token(WEB))
    assert answer[::2] == (200, WEB)
    for source in (six("10.0.1.12"), "2001:db8:0:1::99", "2001:db8:ffff::1"):
        with pytest.raises(TimeoutError):
            connect6(WEB, source=source, timeout=0.3)
    with pytest.raises(TimeoutError):
        connect6(ENDPOINT, timeout=0.3)


def test_a_token_travels_one_hop_over_ipv6(running):
    """Its packets have a hop limit of 1; other answers, on the same connection too, travel on."""
    running.apply(manifold())
    wait_ready(WEB)
    with connect6(WEB, hops=2, timeout=0.5) as far, connect6(WEB, hops=1) as near:
        assert talk(far, "GET", "/latest/meta-data/mac")[0] == 401
        with pytest.raises(TimeoutError):
            talk(far, "PUT", "/latest/api/token", X_aws_ec2_metadata_token_ttl_seconds=60)
        assert talk(near, "PUT", "/latest/api/token", X_aws_ec2_metadata_token_ttl_seconds=60)[0] == 200
        near.setsockopt(socket.IPPROTO_IPV6, IPV6_MINHOPCOUNT, 2)
        assert talk(near, "GET", "/latest/meta-data/mac")[0] == 401


def test_every_interface_is_told(running):
    """What is there of addresses, of each interface by its MAC address, asked for from any address of the machine."""
    running.apply(manifold())
    wait_ready(WEB)
    for source in ("10.0.1.11", "10.0.1.21", "10.0.2.11"):
        with connect(WEB, source=source) as sock:
            assert talk(sock, "GET", "/latest/meta-data/mac")[0] == 401, "heard, and asked for a token"
    held = token(WEB)
    assert get(WEB, "ipv6", held) == (200, six("10.0.1.11"))
    macs = get(WEB, "network/interfaces/macs/", held)[1].replace("/", "").split("\n")
    first = get(WEB, "mac", held)[1]
    assert len(macs) == 2
    (second,) = {*macs} - {first}
    expected = {
        f"{first}/device-number": "0",
        f"{first}/local-ipv4s": "10.0.1.11\n10.0.1.21",
        f"{first}/ipv6s": six("10.0.1.11"),
        f"{first}/subnet-ipv6-cidr-blocks": "2001:db8:0:1::/64",
        f"{first}/vpc-ipv4-cidr-blocks": "10.0.0.0/16",
        f"{first}/vpc-ipv6-cidr-blocks": "2001:db8::/56",
        f"{second}/device-number": "1",
        f"{second}/interface-id": "eni-00000000000000021",
        f"{second}/local-ipv4s": "10.0.2.11",
        f"{second}/local-hostname": "ip-10-0-2-11.ec2.internal",
        f"{second}/ipv6s": "2001:db8:0:2::11",
        f"{second}/subnet-id": SECOND_SUBNET,
        f"{second}/subnet-ipv4-cidr-block": "10.0.2.0/24",
    }
    assert {path: get(WEB, f"network/interfaces/macs/{path}", held) for path in expected} == {
        path: (200, text) for path, text in expected.items()
    }


def test_a_machine_without_ipv4_is_told_so(running):
    """Nothing of IPv4 is there, and the host name is the instance's."""
    running.apply(manifold())
    wait_ready(WEB)
    _, mac = get6(DB, "mac")
    assert get6(DB, "hostname") == (200, f"{DB}.ec2.internal")
    assert get6(DB, "ipv6") == (200, six("10.0.1.12"))
    assert get6(DB, "local-ipv4")[0] == 404
    assert get6(DB, f"network/interfaces/macs/{mac}/local-ipv4s")[0] == 404
    assert get6(DB, f"network/interfaces/macs/{mac}/ipv6s") == (200, six("10.0.1.12"))
