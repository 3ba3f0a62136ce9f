"""Logins as people do them, and what happens to them when processes die."""

import hashlib
import os
import signal
import subprocess
import time

import boto3
import pytest

from wicketgate.kernel import netns
from wicketgate.lab import sandbox
from wicketgate.lab.edits import endpoint_deleted, instance_started, instance_stopped, rules_set
from wicketgate.lab.machines import ACCOUNT, ROOT


def test_interactive_terminal(lab):
    """`ssh -tt` gets a terminal."""
    target = lab.address("plain", "web-1")
    command = [*lab.ssh_command(lab.tunnel_command("plain", target), target), "tty"]
    command.insert(1, "-tt")
    with netns.entered("office"):
        done = subprocess.run(command, env=lab.environment("admin"), capture_output=True, timeout=30, check=False)
    assert (done.returncode, done.stdout.strip()[:9]) == (0, b"/dev/pts/")


def test_large_file_both_ways(lab, tmp_path):
    """64 MiB up and down again arrive with the same checksum."""
    data = os.urandom(64 * 1024 * 1024)
    target = lab.address("kept", "web-1")
    command = [*lab.ssh_command(lab.tunnel_command("kept", target), target), "cat"]
    with netns.entered("office"):
        done = subprocess.run(
            command, input=data, env=lab.environment("admin"), capture_output=True, timeout=60, check=False
        )
    assert done.returncode == 0, done.stderr
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(data).digest()


def _long_login(lab, vpc="plain", name="web-1"):
    """An ssh session with `cat` at the far end."""
    target = lab.address(vpc, name)
    command = [*lab.ssh_command(lab.tunnel_command(vpc, target), target), "cat"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = lab.popen("office", "admin", command, **pipes)
    assert _echo(process, b"up\n") == b"up\n"
    return process


def _echo(process, line):
    process.stdin.write(line)
    process.stdin.flush()
    return process.stdout.readline()


def test_netd_killed(lab):
    """A killed netd: open tunnels go on, rules stay in force, and after its restart new tunnels open."""
    session = _long_login(lab)
    os.kill(lab.child("netd").process.pid, signal.SIGKILL)
    assert _echo(session, b"without netd\n") == b"without netd\n"
    assert lab.connect("plain", "db-1", lab.address("plain", "web-1")) == "timed out"
    lab.serve.wait_alive()
    assert lab.login("plain", "web-1").source == lab.source("plain")
    assert "no outbound rule" in lab.login("plain", "db-1").stderr
    assert _echo(session, b"after\n") == b"after\n"
    session.stdin.close()
    assert session.wait(20) == 0


def test_gateway_killed(lab):
    """A killed gateway: its tunnels end, it comes back, and the audit has the close line it could not write."""
    session = _long_login(lab)
    opened = [line for line in lab.audit() if line["eventName"] == "OpenTunnel"][-1]
    os.kill(lab.child("gateway-0").process.pid, signal.SIGKILL)
    assert session.wait(20) != 0
    lab.serve.wait_alive()
    assert lab.login("plain", "web-1").source == lab.source("plain")
    closed = [
        one for one in lab.audit() if one["eventName"] == "CloseTunnel" and one["requestID"] == opened["requestID"]
    ]
    assert len(closed) == 1
    assert "unexpectedly" in closed[0]["serviceEventDetails"]["closeReason"]
    for pipe in (session.stdin, session.stdout, session.stderr):
        pipe.close()


def test_no_process_no_connection(lab):
    """With netd and gateway stopped no login gets in, and the rules still hold between instances."""
    target = lab.address("plain", "web-1")
    command = [*lab.ssh_command(lab.tunnel_command("plain", target), target), "true"]
    for child in lab.serve.children:
        os.kill(child.process.pid, signal.SIGSTOP)
    try:
        login = lab.popen("office", "admin", command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with pytest.raises(subprocess.TimeoutExpired):
            login.wait(2)
        login.kill()
        login.wait()
        assert lab.connect("plain", "db-1", target) == "timed out"
    finally:
        for child in lab.serve.children:
            os.kill(child.process.pid, signal.SIGCONT)


def test_change_is_in_force_when_its_call_returns(lab):
    """Read your writes: 20 times in turn, the login right after a change follows the new rules."""
    for number in range(10):
        lab.change(rules_set("plain", "web", inbound=[]))
        done = lab.login("plain", "web-1", max_tunnel_duration=str(3000 + number))
        assert done.source is None
        lab.change(rules_set("plain", "web", inbound=["tcp 22 from group endpoint"]))
        done = lab.login("plain", "web-1", max_tunnel_duration=str(3100 + number))
        assert done.source == lab.source("plain"), done.stderr


def test_every_attempt_is_audited_once(lab, configured):
    """Granted, refused by IAM, by the limit, unreachable: each attempt is one OpenTunnel line, with its error
    if any; a tunnel that opened has one CloseTunnel line, and nothing else has."""
    configured(max_tunnels_per_endpoint=1)
    before = [line["eventID"] for line in lab.audit()]
    lab.login("plain", "web-1")
    lab.login("plain", "web-1", user="nobody")
    lab.login("plain", "db-1")
    with _long_login(lab, name="web-2") as session:
        lab.login("plain", "web-1", max_tunnel_duration="600")
        session.stdin.close()
        session.wait(20)

    def lines(name):
        return [line for line in lab.audit() if line["eventName"] == name and line["eventID"] not in before]

    opened = lines("OpenTunnel")
    codes = [None, "AccessDenied", "TargetUnreachable", None, "LimitExceeded"]
    assert [line.get("errorCode") for line in opened] == codes
    addresses = ["10.0.1.11", "10.0.1.11", "10.0.1.21", "10.0.1.12", "10.0.1.11"]
    assert [line["requestParameters"]["privateIpAddress"] for line in opened] == addresses
    assert "no outbound rule" in opened[2]["errorMessage"]
    ids = [line["requestID"] for line in opened]
    assert _eventually(lambda: len(lines("CloseTunnel")) >= 2)
    assert sorted(line["requestID"] for line in lines("CloseTunnel")) == sorted([ids[0], ids[3]])
    assert all(line["serviceEventDetails"]["bytesToClient"] > 1000 for line in lines("CloseTunnel"))


def test_caller_who_may_not_see_rules_is_not_told(lab):
    """A caller without ec2:DescribeSecurityGroupRules hears AWS's words and a general word, never a group's id."""
    lab.change(rules_set("plain", "web", inbound=[]))
    told = lab.login("plain", "web-1", user="operator", max_tunnel_duration="600").stderr
    assert "Unable to connect to target" in told
    assert "sg-" not in told


def test_twenty_tunnels_then_the_limit(lab):
    """The 21st tunnel of an endpoint is refused with 101 and a close, naming the limit; a freed slot is usable."""
    target = lab.address("plain", "web-1")
    command = lab.tunnel_command("plain", target)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    tunnels = [lab.popen("office", "admin", command, **pipes) for _ in range(20)]
    try:
        assert all(one.stdout.readline().startswith(b"SSH-2.0") for one in tunnels)
        done = lab.login("plain", "web-1")
        assert done.source is None
        assert "20 tunnels" in done.stderr
        tunnels[0].stdin.close()
        tunnels[0].wait(10)
        assert _eventually(lambda: lab.login("plain", "web-1").source == lab.source("plain"))
    finally:
        for one in tunnels:
            one.kill()
            one.wait()
            for pipe in (one.stdin, one.stdout, one.stderr):
                pipe.close()


def _eventually(holds, seconds=5.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if holds():
            return True
        time.sleep(0.05)
    return False


def _pair(tmp_path, name):
    """A new SSH key pair; the private key's path."""
    key = tmp_path / name
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    return key


def _accepted(lab, key):
    """Whether `web-2` of `plain` lets this key in."""
    target = lab.address("plain", "web-2")
    command = lab.ssh_command(lab.tunnel_command("plain", target), target)
    command[command.index("-i") + 1] = str(key)
    with netns.entered("office"):
        done = subprocess.run(
            [*command, "-o", "IdentitiesOnly=yes", "true"],
            env=lab.environment("admin"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            check=False,
        )
    return done.returncode == 0


def test_pushed_keys(lab, tmp_path):
    """A key lets in once SendSSHPublicKey has pushed it, to that machine's account; no other key does.

    Where every id is mapped sshd asks the AuthorizedKeysCommand, as on any host; where one is, it would not run it.
    """
    configuration = (lab.machine("plain", "web-2").directory / "sshd_config").read_text()
    assert ("AuthorizedKeysCommand " in configuration) is sandbox.all_ids()
    pushed, other = _pair(tmp_path, "pushed"), _pair(tmp_path, "other")
    assert not _accepted(lab, pushed)
    environment = lab.environment("admin")
    with netns.entered("office"):
        session = boto3.session.Session(*lab.keys["admin"], region_name=environment["AWS_REGION"])
        client = session.client(
            "ec2-instance-connect", endpoint_url=environment["AWS_ENDPOINT_URL"], verify=environment["AWS_CA_BUNDLE"]
        )
        answer = client.send_ssh_public_key(
            InstanceId=lab.instance("plain", "web-2").id,
            InstanceOSUser=ACCOUNT,
            SSHPublicKey=pushed.with_suffix(".pub").read_text(),
        )
    assert answer["Success"] is True
    assert _accepted(lab, pushed)
    assert not _accepted(lab, other)


def test_clients_reach_the_gateway_on_443_and_nothing_else(lab):
    """From a client only the gateway's port 443 answers; nothing else does, though it listens."""
    import socket
    from contextlib import ExitStack

    def attempt(client, address, port):
        with netns.entered(client):
            sock = socket.socket()
        with sock:
            sock.settimeout(0.5)
            try:
                sock.connect((address, port))
            except OSError as error:
                return type(error).__name__
            return "connected"

    with ExitStack() as stack:
        for place in ("gateway", "home"):
            with netns.entered(place):
                stack.enter_context(socket.create_server(("0.0.0.0", 22)))
        assert attempt("gateway", "192.0.2.10", 22) == "connected"
        assert attempt("home", "198.51.100.20", 22) == "connected"
        assert attempt("office", "192.0.2.10", 443) == "connected"
        for address in ("192.0.2.10", "198.51.100.20", "10.0.1.11", "10.1.1.11"):
            assert attempt("office", address, 22) == "TimeoutError", address


def test_deleted_endpoint_closes_its_tunnels(lab):
    """An endpoint that is gone from the World closes its live tunnels with a reason."""
    session = _long_login(lab)
    lab.change(endpoint_deleted("plain"))
    assert session.wait(10) != 0
    told = session.stderr.read().decode()
    assert "endpoint" in told.lower()
    for pipe in (session.stdin, session.stdout, session.stderr):
        pipe.close()


@pytest.mark.parametrize("vpc", ["plain", "kept"])
def test_logins_in_a_row(lab, vpc):
    """A second login right after the first works: nothing of a closed tunnel stands in its way."""
    for number in range(5):
        assert lab.login(vpc, "web-2", max_tunnel_duration=str(3200 + number)).exit_code == 0


def test_clients_that_vanish_before_a_stalled_target_free_their_slots(lab):
    """Clients killed while their target reads nothing: close lines within a minute, every slot free within two."""
    import socket

    from wicketgate.netd.slots import Slots

    lab.change(instance_stopped("plain", "web-2"))
    with netns.entered(lab.instance("plain", "web-2").id):
        deaf = socket.socket()
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    deaf.bind(("0.0.0.0", 22))
    deaf.listen()
    slots = Slots(ROOT / "state" / "netd" / "slots")

    def taken():
        return slots.taken(lab.endpoint("plain").id, 20)

    def closed():
        return sum(line["eventName"] == "CloseTunnel" for line in lab.audit())

    before = closed()
    command = lab.tunnel_command("plain", lab.address("plain", "web-2"))
    tunnels = []
    for size in (100_000, 400_000, 4_000_000):  # stalled at the target, in the gateway, and back to the client
        tunnel = lab.popen("office", "admin", command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        os.set_blocking(tunnel.stdin.fileno(), False)
        deadline, left = time.monotonic() + 3, size
        while left > 0 and time.monotonic() < deadline:
            try:
                left -= os.write(tunnel.stdin.fileno(), bytes(min(left, 16384)))
            except BlockingIOError:
                time.sleep(0.02)
        tunnels.append(tunnel)
    assert taken() == 3
    for tunnel in tunnels:
        tunnel.kill()
        tunnel.wait()
        tunnel.stdin.close()
    assert _eventually(lambda: closed() >= before + 3, 60)
    assert _eventually(lambda: taken() == 0, 60)
    deaf.close()
    lab.change(instance_started("plain", "web-2"))
    assert lab.login("plain", "web-2").exit_code == 0
