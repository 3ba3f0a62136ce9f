"""The client as `pip install wicketgate` leaves it: the wheel with its two packages, and nothing of the server's."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import wicketgate
from tests.wire.gateway_harness import ENDPOINT, SECRET, TARGET, Target, make_world
from tests.wire.test_client import LocalGateway
from wicketgate.cli import VERBS

CHECKOUT = Path(__file__).parent.parent.parent
NEEDS_SERVER = "pip install 'wicketgate[server]'"


class Installed:
    """A virtual environment of its own, made from the wheel."""

    def __init__(self, directory: Path) -> None:
        source = directory / "source"
        shutil.copytree(CHECKOUT / "src", source / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        for name in ("pyproject.toml", "README.md"):
            shutil.copy(CHECKOUT / name, source)
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
        offline = ["--quiet", "--no-index", "--no-deps"]
        build = [*pip, "wheel", *offline, "--no-build-isolation", "--wheel-dir", str(directory), str(source)]
        subprocess.run(build, check=True)
        (self.wheel,) = directory.glob("wicketgate-*.whl")
        environment = directory / "venv"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
        python = environment / "bin" / "python"
        subprocess.run([*pip, "--python", str(python), "install", *offline, str(self.wheel)], check=True)
        packages = next(environment.glob("lib/python*/site-packages"))
        for name in ("click", "websockets"):  # what pip would fetch
            (packages / name).symlink_to(Path(sysconfig.get_path("purelib")) / name)
        self.program = environment / "bin" / "wicketgate"
        self.home = directory

    def run(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """The installed program to its end, with nothing of this process's environment."""
        return subprocess.run(
            [str(self.program), *words],
            env={"HOME": str(self.home), "PATH": os.environ["PATH"], **environment},
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """One for all tests here."""
    return Installed(tmp_path_factory.mktemp("installed"))


def test_the_version_is_told_from_one_place(installed: Installed) -> None:
    """The wheel's name, `--version`, the package and the changelog's newest release agree."""
    newest = re.search(r"^## ([0-9][^ ]*)", (CHECKOUT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest
    assert installed.run("--version").stdout == f"wicketgate {wicketgate.__version__}\n"
    assert installed.wheel.name.split("-")[1] == wicketgate.__version__ == newest[1]


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_no_verb_ends_in_a_traceback(installed: Installed, verb: str) -> None:
    """`--help` of every verb works, or says in one line what has to be installed."""
    done = installed.run(verb, "--help")
    if done.returncode == 0:
        assert done.stdout.startswith(f"Usage: wicketgate {verb} ")
    else:
        assert done.returncode == 253
        assert done.stderr.count("\n") == 1
        assert NEEDS_SERVER in done.stderr


@pytest.mark.parametrize("verb", ["serve", "rules", "audit", "env", "lab"])
def test_what_needs_the_server_says_so(installed: Installed, verb: str) -> None:
    """One line with the command that installs it."""
    done = installed.run(verb)
    assert (done.returncode, done.stderr.count("\n")) == (253, 1)
    assert done.stderr.startswith(f"Error: `wicketgate {verb}` needs the server's packages for this (")
    assert NEEDS_SERVER in done.stderr
    assert ("give --endpoint-url, --region and --ca-bundle" in done.stderr) == (verb == "env")


@pytest.mark.parametrize(
    "words",
    [
        ("explain", "--to", "i-0123456789abcdef0"),
        ("reach",),
        ("lint",),
        ("check", "/dev/null"),
        ("open-tunnel", "--instance-id", "i-0123456789abcdef0"),
        ("proxy", "--", "i-0123456789abcdef0", "22", "me"),
        ("ssh", "i-0123456789abcdef0"),
    ],
)
def test_what_asks_a_deployment_gets_as_far_as_asking(installed: Installed, words: tuple[str, ...]) -> None:
    """Nothing is missing before the first packet."""
    environment = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "us-east-1"}
    done = installed.run(*words, AWS_ENDPOINT_URL="https://127.0.0.1:9", **environment)
    assert "Cannot reach 127.0.0.1:9: Connection refused." in done.stderr


def test_env_and_ssh_config_work(installed: Installed) -> None:
    """The two verbs that ask nobody."""
    bundle = installed.home / "ca.pem"
    bundle.write_text("x")
    done = installed.run("env", "--endpoint-url", "https://x.test", "--region", "r", "--ca-bundle", str(bundle))
    assert done.stdout.startswith("export AWS_ENDPOINT_URL=https://x.test\n")
    done = installed.run("ssh-config", "--key", str(installed.home / "key"))
    assert f"ProxyCommand {installed.program.parent}/python" in done.stdout


def test_a_world_in_a_file_needs_the_server(installed: Installed) -> None:
    """To reason, not to ask: the model's package is missing."""
    world = installed.home / "world.json"
    world.write_text("{}")
    for words in (("explain", "--to", "i-1", "--world"), ("reach", "--world"), ("lint", "--world")):
        done = installed.run(*words, str(world))
        assert (done.returncode, done.stderr.count("\n")) == (253, 1), done.stderr
        assert NEEDS_SERVER in done.stderr


def test_a_tunnel_opens(installed: Installed, tmp_path: Path, target: Target) -> None:
    """Down to the bytes, with frames large enough for the compiled masking."""
    gateway = LocalGateway(tmp_path)
    gateway.start(make_world(dns_name="localhost"))
    data = os.urandom(200_000)
    words = ["open-tunnel", "--instance-connect-endpoint-id", ENDPOINT, "--private-ip-address", TARGET]
    words += ["--instance-connect-endpoint-dns-name", f"localhost:{gateway.port}", "--remote-port", str(target.port)]
    environment = {"AWS_ACCESS_KEY_ID": "AKIAALL", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "us-east-1"}
    try:
        with subprocess.Popen(
            [str(installed.program), *words],
            env=environment | {"SSL_CERT_FILE": str(gateway.files.ca)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as process:
            with target.accept() as far:
                assert process.stdin
                assert process.stdout
                process.stdin.write(data)
                process.stdin.close()
                received = b""
                while chunk := far.recv(65536):
                    received += chunk
                assert received == data
                far.sendall(b"all of it")
            assert process.stdout.read() == b"all of it"
        assert process.returncode == 0
    finally:
        gateway.close()
