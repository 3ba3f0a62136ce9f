"""What each process of a running `wicketgate serve` may do and how it is watched, seen from outside."""

import os
import signal
import sys
import time
from pathlib import Path

import botocore.exceptions
import pytest

from tests.api.deployment import ROOT
from tests.api.test_serve import arguments, client, refused, serving

GIVEN = {"WICKETGATE_ROOT_ACCESS_KEY_ID": ROOT[0], "WICKETGATE_ROOT_SECRET_ACCESS_KEY": ROOT[1]}


@pytest.fixture
def place(alone):
    """A state directory."""
    path = Path("/run/deployments") / f"processes-{time.monotonic_ns()}"
    path.parent.mkdir(exist_ok=True)
    return path


def children(parent):
    """The name of each process of ours that `serve` started -> its id."""
    found = {}
    for path in Path("/proc").iterdir():
        try:
            ours = path.name.isdigit() and int((path / "stat").read_text().rsplit(")", 1)[1].split()[1]) == parent
            words = (path / "cmdline").read_bytes().split(b"\0") if ours else []
        except OSError:
            continue
        if b"-m" in words:
            found[words[-3 if words[-1] == b"" else -2].decode()] = int(path.name)
    return found


NONSENSE = """
import socket, struct, sys, time
data = sys.argv[2].encode()
socket.socket(fileno=int(sys.argv[1])).sendall(struct.pack("!I", len(data)) + data)
time.sleep(600)
"""


@pytest.mark.parametrize("first", ["[]", "{", ""])
def test_an_api_process_that_says_nonsense(deployment, ec2, first):
    """One that begins with what is no Opening, and does not end over it, is ended and started again."""
    api = deployment.serve.api
    right = api.command
    api.command = lambda feed: [sys.executable, "-c", NONSENSE, str(feed), first]
    try:
        api.kill()
        time.sleep(2.5)
    finally:
        api.command = right
    deadline = time.monotonic() + 20
    while "wicketgate.api" not in children(os.getpid()):
        assert time.monotonic() < deadline, "it does not come back"
        time.sleep(0.1)
    deployment.serve.wait_alive(20)
    ec2.describe_vpcs()


def has_in_memory(pid, data):
    """Whether these bytes stand anywhere in what a process can write to."""
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            place, rights, *_ = line.split()
            start, end = (int(one, 16) for one in place.split("-"))
            if rights.startswith("rw"):
                memory.seek(start)
                if data in (memory.read(end - start) or b""):
                    return True
    return False


def test_no_core_dumps_and_no_secrets_in_sight(place):
    """What has secrets in its memory leaves no core; none stands on a command line. netd and metadata know none."""
    with serving(place, **GIVEN) as process:
        found = children(process.pid)
        assert set(found) == {f"wicketgate.{name}" for name in ("api", "netd", "gateway", "metadata")}
        for name, pid in found.items():
            lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
            limits = {line[:26].strip(): line[26:].split()[:2] for line in lines}
            assert limits["Max core file size"] == ["0", "0"], name
            assert ROOT[1].encode() not in Path(f"/proc/{pid}/cmdline").read_bytes(), name
            if name != "wicketgate.api":
                assert ROOT[1].encode() not in Path(f"/proc/{pid}/environ").read_bytes(), name
            knows = name in ("wicketgate.api", "wicketgate.gateway")
            assert has_in_memory(pid, ROOT[1].encode()) is knows, name
            if knows:
                soft, hard = limits["Max open files"]
                assert soft == hard, name


@pytest.mark.parametrize("kind", ["link", "pipe", "second name"])
def test_what_a_gateway_put_in_place_of_its_audit_file(place, kind):
    """The gateway owns that directory: root neither follows a link there, nor waits at a pipe, nor shows a file of
    another name to the API process."""
    with serving(place, **GIVEN):
        pass
    file, other = place / "audit" / "gateway" / "gateway-0.jsonl", place / "elsewhere"
    file.unlink()
    if kind == "link":
        file.symlink_to(other)
    elif kind == "pipe":
        os.mkfifo(file, 0o600)
    else:
        file.hardlink_to(place / "store" / "seal.key")
    assert "gateway-0.jsonl" in refused(*arguments(place), **GIVEN)
    assert not other.exists()


def test_watching_goes_on(place):
    """A process that cannot be started for a while is started when it can be."""
    with serving(place, **GIVEN) as process:
        log = place / "logs" / "netd.log"
        kept = log.rename(place / "logs" / "kept.log")
        log.mkdir()
        os.kill(children(process.pid)["wicketgate.netd"], signal.SIGKILL)
        time.sleep(1.5)
        log.rmdir()
        kept.rename(log)
        ec2 = client(place, "ec2", *ROOT)
        deadline = time.monotonic() + 20
        while True:
            try:
                ec2.create_vpc(CidrBlock="10.8.0.0/16")
                break
            except botocore.exceptions.ClientError:
                assert time.monotonic() < deadline, "it does not come back"
                time.sleep(0.2)
        assert "wicketgate.netd" in children(process.pid)
