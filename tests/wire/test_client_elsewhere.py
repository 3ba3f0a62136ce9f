"""The client without what Linux alone has. Nothing here is Windows: `elsewhere` says what is like it, and what not."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.wire.gateway_harness import Target, make_world
from tests.wire.test_client import LocalGateway, command, environment

CLIENT_VERBS = ("ssh", "open-tunnel", "ssh-config", "proxy", "env", "explain", "reach", "check", "lint", "audit")
CLIENT_VERBS += ("machines", "host-setup")
DATA = os.urandom(300_000)


def elsewhere(argv: list[str]) -> list[str]:
    """The same command line, where there is no Linux."""
    return [argv[0], "-m", "tests.wire.elsewhere", *argv[argv.index("wicketgate.cli") + 1 :]]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """A verb to its end."""
    argv = [sys.executable, "-m", "tests.wire.elsewhere", *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalGateway]:
    """A gateway on localhost."""
    process = LocalGateway(tmp_path_factory.mktemp("gateway"))
    process.start(make_world(dns_name="localhost"))
    yield process
    process.close()


@pytest.mark.parametrize("verb", CLIENT_VERBS)
def test_verbs_of_the_client_load(verb: str) -> None:
    """`--help` imports the verb and shows its options."""
    done = run(verb, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"Usage: wicketgate {verb} ")


def test_every_module_of_the_client_loads() -> None:
    """All of the room."""
    room = Path(__file__).parent.parent.parent / "src" / "wicketgate" / "client"
    names = [f"wicketgate.client.{path.stem}" for path in sorted(room.glob("*.py")) if path.stem != "__init__"]
    code = "import importlib; from tests.wire.elsewhere import move; move()\n"
    code += "\n".join(f"importlib.import_module({name!r})" for name in names)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_is_taken_away_is_missed() -> None:
    """The harness works: the host's verbs are refused in words, and a module that needs fcntl cannot be imported."""
    for verb in ("serve", "rules", "lab"):
        done = run(verb, "--help")
        assert (done.returncode, done.stderr) == (253, f"Error: `wicketgate {verb}` works on Linux alone.\n")
    code = "from tests.wire.elsewhere import move; move()\nimport select\nselect.select([0], [], [], 0)"
    done = subprocess.run(
        [sys.executable, "-c", code], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert "not a socket" in done.stderr
    done = subprocess.run(
        [sys.executable, "-c", "from tests.wire.elsewhere import move; move()\nimport fcntl"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "No module named 'fcntl'" in done.stderr


def test_pipes_carry_a_tunnel(local: LocalGateway, target: Target) -> None:
    """As ssh's ProxyCommand: both ways, with the end of the input told, though nothing can wait for a pipe."""
    argv = elsewhere(command(local.port, target.port))
    client = subprocess.Popen(
        argv,
        env=environment(local.files.ca),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    result: list[tuple[bytes, bytes]] = []
    talk = threading.Thread(target=lambda: result.append(client.communicate(DATA, timeout=30)))
    talk.start()
    with target.accept() as far:
        received = bytearray()
        while chunk := far.recv(65536):
            received += chunk
        assert bytes(received) == DATA
        far.sendall(DATA[::-1])
    talk.join(30)
    assert result == [(DATA[::-1], b"")]
    assert client.returncode == 0


def test_a_local_port_carries_tunnels_and_stops(local: LocalGateway, target: Target) -> None:
    """A listener on localhost, by sockets alone; an interrupt ends it while nobody is connected."""
    argv = elsewhere(command(local.port, target.port, "--local-port", "0"))
    client = subprocess.Popen(argv, env=environment(local.files.ca), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert client.stdout
    port = int(client.stdout.readline().split()[-1].rstrip(b"."))
    with socket.create_connection(("127.0.0.1", port), timeout=20) as near:
        near.sendall(DATA[:70_000])
        with target.accept() as far:
            received = bytearray()
            while len(received) < 70_000:
                received += far.recv(65536)
            far.sendall(b"back")
        assert near.recv(10) == b"back"
    client.send_signal(signal.SIGINT)
    out, err = client.communicate(timeout=20)
    assert client.returncode == 130, (out, err)
    assert b"Traceback" not in err
