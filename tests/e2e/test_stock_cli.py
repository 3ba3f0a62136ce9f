"""The stock AWS CLI v2, unmodified, and a second independent client: logins, listeners, every refusal."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from wicketgate.kernel import netns
from wicketgate.lab import sshd
from wicketgate.lab.edits import instance_started, instance_stopped, rules_set
from wicketgate.lab.lab import wicketgate_command

LIMIT = 10.0
"""Seconds: the CLI's own limits are 10 s; nothing of ours may run into one."""


def _tunnel(*args, **options):
    """Run the CLI's open-tunnel with an stdin that stays open: (exit code, stdout, stderr, seconds).

    The CLI's own libraries abort (SIGABRT) now and then while it exits; that is not ours to fail.
    """
    for _ in range(3):
        ended = _tunnel_once(*args, **options)
        if ended[0] != -signal.SIGABRT:
            break
    return ended


def _tunnel_once(lab, aws, vpc, address, port=22, *, user="admin", client="office", environment=None, **options):
    command = lab.tunnel_command(vpc, address, port, aws=aws, **options)
    started = time.monotonic()
    with netns.entered(client):
        process = subprocess.Popen(
            command,
            env={**lab.environment(user), **(environment or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    try:
        code = process.wait(30)
        return code, process.stdout.read(), process.stderr.read().decode(), time.monotonic() - started
    finally:
        process.kill()
        for pipe in (process.stdin, process.stdout, process.stderr):
            pipe.close()


@pytest.mark.parametrize(("vpc", "client"), [("plain", "office"), ("kept", "home")])
def test_proxy_command(lab, aws, vpc, client):
    """The CLI as OpenSSH's ProxyCommand logs in, preservation off and on."""
    done = lab.login(vpc, "web-1", aws=aws, client=client, command="echo hello")
    source = {"plain": lab.interface(lab.endpoint("plain")).private_ip_address, "kept": "198.51.100.20"}[vpc]
    assert (done.exit_code, done.stdout, done.source) == (0, "hello\n", source)


def test_proxy_command_over_ipv6(lab, aws):
    """The CLI's open-tunnel takes an IPv6 address; what the groups refuse is told as over IPv4."""
    addresses = {name: lab.address("dual", name, ipv6=True) for name in ("web-1", "db-1")}
    done = lab.login("dual", "web-1", aws=aws, address=addresses["web-1"], command="echo hello")
    assert (done.exit_code, done.stdout, done.source) == (0, "hello\n", lab.source("dual", ipv6=True))
    code, _, said, seconds = _tunnel(lab, aws, "dual", addresses["db-1"])
    assert code != 0
    assert "Unable to connect to target: no outbound rule of" in said
    assert seconds < LIMIT


def test_eight_in_the_same_second(lab, aws):
    """Eight tunnels opened at once with one key, and so with one URL, all log in."""
    target = lab.address("plain", "web-1")
    command = [*lab.ssh_command(lab.tunnel_command("plain", target, aws=aws), target), "echo hello"]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    running = [lab.popen("office", "admin", command, **pipes) for _ in range(8)]
    ended = [process.communicate(timeout=60) for process in running]
    assert [out for out, _ in ended] == [b"hello\n"] * 8, ended


@contextmanager
def _listener(lab, aws, port, **options):
    """The CLI with --local-port, once it listens."""
    target = lab.address("plain", "web-1")
    command = lab.tunnel_command("plain", target, aws=aws, local_port=str(port), **options)
    process = lab.popen("office", "admin", command, stdout=subprocess.DEVNULL)
    look = ["ss", "-Hltn", "sport", "=", f":{port}"]
    try:
        deadline = time.monotonic() + 20
        while True:  # the CLI buffers its line "Listening for connections", so the socket is what tells
            with netns.entered("office"):
                if subprocess.run(look, capture_output=True, check=True).stdout:
                    break
            assert process.poll() is None, "the CLI ended"
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield process
    finally:
        process.kill()
        process.wait()


def test_local_port_with_eight_logins(lab, aws):
    """`--local-port`: eight logins in the same second through one listener, each a tunnel of its own."""
    with _listener(lab, aws, 2222):
        command = [*lab.ssh_command(["none"], "127.0.0.1"), "echo hello"]
        command = [part if not part.startswith("ProxyCommand=") else "Port=2222" for part in command]
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        running = [lab.popen("office", "admin", command, **pipes) for _ in range(8)]
        ended = [process.communicate(timeout=60) for process in running]
        assert [out for out, _ in ended] == [b"hello\n"] * 8, ended


def test_listener_survives_an_unreachable_target(lab, aws):
    """A transient failure closes its own connection only: the CLI's listener goes on and the next login works."""
    with _listener(lab, aws, 2223):
        command = [*lab.ssh_command(["none"], "127.0.0.1"), "echo hello"]
        command = [part if not part.startswith("ProxyCommand=") else "Port=2223" for part in command]
        lab.change(rules_set("plain", "web", inbound=[]))
        refused = lab.popen("office", "admin", command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        refused.communicate(timeout=30)
        assert refused.returncode != 0
        lab.change(rules_set("plain", "web", inbound=["tcp 22 from group endpoint"]))
        again = lab.popen("office", "admin", command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        assert again.communicate(timeout=30)[0] == b"hello\n"


REFUSED = {
    # name: (options of _tunnel, ErrorCode, part of the Message)
    "no policy": (
        {"user": "nobody"},
        "AccessDeniedException",
        "not authorized to perform: ec2-instance-connect:OpenTunnel",
    ),
    "port not offered": (
        {"port": 8080},
        "InvalidParameter",
        "The specified RemotePort is not valid. Specify either 22 or 3389",
    ),
    "loopback target": ({"address": "127.0.0.1"}, "InvalidParameter", "127.0.0.1"),
    "metadata target": ({"address": "169.254.169.254"}, "InvalidParameter", "169.254.169.254"),
    "router target": ({"address": "10.0.1.1"}, "InvalidParameter", "10.0.1.1"),
    "target elsewhere": ({"address": "192.0.2.10"}, "InvalidParameter", "192.0.2.10"),
    "wrong secret": ({"environment": {"AWS_SECRET_ACCESS_KEY": "wrong"}}, "SignatureDoesNotMatch", "signature"),
    "unknown key": (
        {"environment": {"AWS_ACCESS_KEY_ID": "AKIAUNKNOWNUNKNOWN00"}},
        "InvalidClientTokenId",
        "security token",
    ),
    "unasked session token": ({"environment": {"AWS_SESSION_TOKEN": "x"}}, "InvalidClientTokenId", "token"),
    "wrong region": ({"environment": {"AWS_REGION": "eu-west-1"}}, "SignatureDoesNotMatch", "us-east-1"),
    "unknown endpoint": (
        {"instance_connect_endpoint_id": "eice-0123456789abcdef0"},
        "InvalidInstanceConnectEndpointId.NotFound",
        "eice-0123456789abcdef0",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_permanent_refusals(lab, aws, name):
    """Every permanent refusal reaches the CLI's user as JSON with AWS's code and words, well below the CLI's limits."""
    options, code, words = REFUSED[name]
    options = dict(options)
    address = options.pop("address", lab.address("plain", "web-1"))
    exit_code, _, stderr, took = _tunnel(lab, aws, "plain", address, options.pop("port", 22), **options)
    body = json.loads(re.search(r"\{.*\}", stderr)[0])
    assert (exit_code, body["ErrorCode"]) == (255, code)
    assert words in body["Message"]
    assert took < LIMIT


@contextmanager
def _stopped(lab, name):
    """An instance that is stopped: its interface is there, and nothing listens."""
    lab.change(instance_stopped("plain", name))
    try:
        yield
    finally:
        lab.change(instance_started("plain", name))


@contextmanager
def _nothing_listening(lab, name):
    """An instance that runs, and whose sshd does not: what starts it again is held."""
    machine, agent = lab.machine("plain", name).id, lab.child("machines").process.pid
    os.kill(agent, signal.SIGSTOP)
    try:
        os.kill(sshd.running()[machine], signal.SIGKILL)
        while machine in sshd.running():
            time.sleep(0.01)
        yield
    finally:
        os.kill(agent, signal.SIGCONT)
        deadline = time.monotonic() + 10
        while lab.login("plain", name).exit_code != 0:
            assert time.monotonic() < deadline


@contextmanager
def _silent(lab, name):
    """An instance that answers nothing, as one that is off."""
    instance = lab.instance("plain", name).id
    subprocess.run(["ip", "-n", instance, "link", "set", "eth0", "down"], check=True)
    try:
        yield
    finally:
        address = lab.address("plain", name)
        router = address.rpartition(".")[0] + ".1"
        subprocess.run(["ip", "-n", instance, "link", "set", "eth0", "up"], check=True)
        subprocess.run(["ip", "-n", instance, "route", "replace", "default", "via", router], check=True)


def _closed(lab, aws, **options):
    """The close reason that the CLI shows, without the request's id, which is there if it has room."""
    exit_code, _, stderr, took = _tunnel(lab, aws, "plain", options.pop("address", "10.0.1.11"), **options)
    assert exit_code == 255
    assert took < LIMIT
    return re.search(r"Websocket Closure Reason: (.*?)(?: \(request id [0-9a-f-]{36}\))?$", stderr, re.MULTILINE)[1]


def test_close_reasons_name_the_step(lab, aws):
    """Outbound, inbound, no machine, stopped, nothing listening, no answer: each failure has words of its own."""
    told = _closed(lab, aws, address="10.0.1.21")
    group = lab.group("plain", "endpoint").id
    assert told.startswith(f"Unable to connect to target: no outbound rule of {group} allows tcp 22 to 10.0.1.21")
    lab.change(rules_set("plain", "web", inbound=[]))
    told, source, group = _closed(lab, aws), lab.source("plain"), lab.group("plain", "web").id
    assert told.startswith(f"Unable to connect to target: no inbound rule of {group} allows tcp 22 from {source}")
    lab.restore()
    lab.change(rules_set("plain", "endpoint", outbound=["tcp 22 to 10.0.0.0/16"]))
    assert "10.0.1.99" in _closed(lab, aws, address="10.0.1.99")
    with _stopped(lab, "web-1"):
        assert _closed(lab, aws).endswith(f"{lab.instance('plain', 'web-1').id} is stopped")
    with _nothing_listening(lab, "web-1"):
        assert "refused" in _closed(lab, aws).lower()
    with _silent(lab, "web-1"):
        told = _closed(lab, aws).lower()
        assert "unable to connect to target" in told
        assert "no route" in told or "timed out" in told or "answer" in told


def test_duration_ends_the_tunnel(lab, aws):
    """A tunnel ends when its duration is over, with a reason, and not before."""
    exit_code, _, stderr, took = _tunnel(lab, aws, "plain", "10.0.1.11", max_tunnel_duration="2")
    assert exit_code == 255
    assert re.search(r"Websocket Closure Reason: .*2 s", stderr), stderr
    assert 2.0 <= took < LIMIT


def test_duration_beyond_the_limit(lab, configured, aws):
    """The service checks the duration itself: what the CLI lets through but a setting forbids is refused in words."""
    configured(max_tunnel_duration=600)
    exit_code, _, stderr, _ = _tunnel(lab, aws, "plain", "10.0.1.11", max_tunnel_duration="601")
    assert exit_code == 255
    assert "600" in stderr


def test_stdin_end_ends_the_cli(lab, aws):
    """When its stdin ends the CLI floods empty frames; we take them as end of file and it exits with 0."""
    command = lab.tunnel_command("plain", "10.0.1.11", aws=aws)
    for _ in range(3):  # the CLI's own libraries abort (SIGABRT) now and then while it exits; that is not ours to fail
        with netns.entered("office"):
            done = subprocess.run(
                command, env=lab.environment("admin"), input=b"", capture_output=True, timeout=LIMIT, check=False
            )
        if done.returncode != -signal.SIGABRT:
            break
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"SSH-2.0-")


@pytest.mark.parametrize("program", ["aws", "wicketgate"])
@pytest.mark.parametrize(("vpc", "name"), [("plain", "web-1"), ("kept", "web-1"), ("dual", "web-1"), ("dual", "six-1")])
def test_ssh_by_instance_id(lab, aws, program, vpc, name):
    """`aws ec2-instance-connect ssh` and `wicketgate ssh` need an instance's id alone to log in, IPv6-only or not."""
    instance = lab.instance(vpc, name).id
    stock = [aws, "ec2-instance-connect", "ssh", "--connection-type", "eice", "--os-user", "ec2-user"]
    commands = {"aws": [*stock, "--instance-id", instance], "wicketgate": [*wicketgate_command(), "ssh", instance]}
    with netns.entered("office"):
        done = subprocess.run(
            commands[program],
            env=lab.environment("admin"),
            input="hostname >/dev/null && echo $SSH_CONNECTION\n",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    source, _, target, port = done.stdout.split()[-4:]
    assert (source, target, port) == (lab.source(vpc, ipv6=name == "six-1"), lab.address(vpc, name), "22")


CRT = """
import json, sys
from pathlib import Path
from tests.crtclient import CrtTunnel, botocore_url, crt_url
host, bundle, url_of, parameters, key, secret = json.loads(sys.argv[1])
tunnel = CrtTunnel()
make = {"botocore": botocore_url, "crt": crt_url}[url_of]
answer = tunnel.connect(make(host, parameters, key, secret), 443, Path(bundle), host)
seen = {"error": answer.error, "status": answer.status, "body": answer.body.decode(), "headers": answer.headers}
if not answer.error:
    seen["banner"] = tunnel.receive(8).decode()
    seen["end"] = tunnel.close()
print(json.dumps(seen))
"""


@pytest.mark.parametrize("url_of", ["botocore", "crt"])
def test_awscrt_and_botocore(lab, url_of):
    """awscrt's WebSocket with botocore's signature, either signer: opens, carries bytes, is refused in JSON."""
    seen = {}
    for port in ("22", "8080"):
        endpoint = lab.endpoint("plain")
        parameters = {
            "instanceConnectEndpointId": endpoint.id,
            "remotePort": port,
            "privateIpAddress": lab.address("plain", "web-1"),
        }
        argument = json.dumps([endpoint.dns_name, str(lab.serve.bundle), url_of, parameters, *lab.keys["admin"]])
        with netns.entered("office"):
            done = subprocess.run(
                [sys.executable, "-c", CRT, argument], capture_output=True, text=True, timeout=60, check=False
            )
        assert done.returncode == 0, done.stderr
        seen[port] = json.loads(done.stdout)
    assert (seen["22"]["status"], seen["22"]["banner"][:8]) == (101, "SSH-2.0-")
    assert "x-amzn-requestid" in seen["22"]["headers"]
    assert seen["8080"]["status"] == 400
    assert json.loads(seen["8080"]["body"])["ErrorCode"] == "InvalidParameter"
