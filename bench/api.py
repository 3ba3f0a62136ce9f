"""The API beside moto's server: AuthorizeSecurityGroupIngress and DescribeSecurityGroups with 10 and 1,000 groups.

    client ── loopback ─┬─ wicketgate: TLS, gateway, API process (one worker each), SQLite on disk, netd, the kernel
                        └─ moto_server: plain HTTP, everything in memory, no signature checked, nothing enforced

One client, one connection, one call after the other; requests are signed before the clock starts, answers are read to
their end and not parsed. Rounds are interleaved. Authorize of wicketgate returns when the kernel enforces the rule and
its audit line is on disk; moto stores it. `bench/api.py [--json] [--quick]`; enters the lab's sandbox by itself.
"""

from __future__ import annotations

import argparse
import gc
import http.client
import importlib.metadata
import json
import os
import platform
import ssl
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import botocore.auth
import botocore.awsrequest
import botocore.credentials

from wicketgate.lab import sandbox

CHECKOUT = Path(__file__).resolve().parent.parent
SIZES = (10, 1000)
MOTO_PORT = 5005
RULES = 5
"""Rules of each group, beside its egress rule."""


class Server:
    """One API under test: where it is and a connection that is kept."""

    def __init__(self, name: str, host: str, port: int, key: tuple[str, str], tls: ssl.SSLContext | None) -> None:
        self.name, self.host, self.port, self.key = name, host, port, key
        self.connection: http.client.HTTPConnection = (
            http.client.HTTPSConnection(host, port, context=tls) if tls else http.client.HTTPConnection(host, port)
        )

    def signed(self, **parameters: Any) -> tuple[bytes, dict[str, str]]:
        """Body and headers of one call, signed now."""
        body = urlencode({"Version": "2016-11-15", **parameters}).encode()
        url = f"{'https' if self.port == 443 else 'http'}://{self.host}{'' if self.port == 443 else f':{self.port}'}/"
        headers = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
        request = botocore.awsrequest.AWSRequest("POST", url, headers=headers, data=body)
        botocore.auth.SigV4Auth(botocore.credentials.Credentials(*self.key), "ec2", "us-east-1").add_auth(request)
        return body, dict(request.headers.items())

    def send(self, body: bytes, headers: dict[str, str]) -> bytes:
        """The answer's body; raises RuntimeError for an error."""
        self.connection.request("POST", "/", body, headers)
        answer = self.connection.getresponse()
        data = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{self.name}: {answer.status} {data[:300]!r}")
        return data

    def call(self, **parameters: Any) -> bytes:
        """Sign and send."""
        return self.send(*self.signed(**parameters))

    def timed(self, calls: list[dict[str, Any]]) -> list[float]:
        """Seconds of each call, signed beforehand."""
        ready = [self.signed(**call) for call in calls]
        found = []
        gc.disable()
        for body, headers in ready:
            started = time.perf_counter()
            self.send(body, headers)
            found.append(time.perf_counter() - started)
        gc.enable()
        return found


def _id(answer: bytes, tag: str) -> str:
    return answer.split(f"<{tag}>".encode(), 1)[1].split(b"<", 1)[0].decode()


class Load:
    """The groups of one server, grown from one size to the next."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.vpc = _id(server.call(Action="CreateVpc", CidrBlock="10.0.0.0/16"), "vpcId")
        self.groups: list[str] = []
        self.ports = iter(range(1, 60000))

    def grow(self, size: int) -> None:
        """Make groups with rules until there are `size`."""
        while len(self.groups) < size:
            name = f"group-{len(self.groups)}"
            made = self.server.call(
                Action="CreateSecurityGroup", GroupName=name, GroupDescription="bench", VpcId=self.vpc
            )
            self.groups.append(_id(made, "groupId"))
            self.server.call(**self._authorize(self.groups[-1], RULES))

    def _authorize(self, group: str, count: int = 1) -> dict[str, Any]:
        call = {"Action": "AuthorizeSecurityGroupIngress", "GroupId": group}
        for number in range(1, count + 1):
            port = next(self.ports)
            prefix = f"IpPermissions.{number}"
            call |= {f"{prefix}.IpProtocol": "tcp", f"{prefix}.FromPort": port, f"{prefix}.ToPort": port}
            call[f"{prefix}.IpRanges.1.CidrIp"] = "10.0.0.0/8"
        return call

    def authorize(self, calls: int) -> list[float]:
        """Seconds of calls that add one rule each, spread over the first ten groups. The rules are revoked again."""
        asked = [self._authorize(self.groups[number % 10]) for number in range(calls)]
        seconds = self.server.timed(asked)
        for one in asked:
            self.server.call(**{**one, "Action": "RevokeSecurityGroupIngress"})
        return seconds

    def describe(self, calls: int) -> list[float]:
        """Seconds of calls that list all groups."""
        return self.server.timed([{"Action": "DescribeSecurityGroups"} for _ in range(calls)])


@contextmanager
def moto() -> Iterator[Server]:
    """moto's server, as its command starts it."""
    command = [str(Path(sys.executable).parent / "moto_server"), "-H", "127.0.0.1", "-p", str(MOTO_PORT)]
    environment = {
        **os.environ,
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "MOTO_EC2_LOAD_DEFAULT_AMIS": "false",
    }
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            server = Server("moto", "127.0.0.1", MOTO_PORT, ("AKIAMOTOMOTOMOTOMOTO", "x" * 40), None)
            deadline = time.monotonic() + 60
            while True:
                try:
                    server.call(Action="DescribeVpcs")
                    break
                except OSError:
                    if time.monotonic() > deadline:
                        raise
                    server.connection.close()
                    time.sleep(0.1)
            yield server
        finally:
            process.terminate()


@contextmanager
def wicketgate() -> Iterator[Server]:
    """A deployment with one worker, in the sandbox."""
    from tests.api.deployment import API, ROOT, deployed

    limits = {"groups_per_region": 10_000, "rules_per_group": 1000, "groups_per_interface": 1}
    with deployed("bench", **limits) as made:
        context = ssl.create_default_context(cafile=str(made.serve.bundle))
        yield Server("wicketgate", API, 443, ROOT, context)


def summary(seconds: list[float]) -> dict[str, float]:
    """p50 and p99 in milliseconds, and calls per second."""
    ordered = sorted(seconds)
    return {
        "p50_ms": statistics.median(ordered) * 1000,
        "p99_ms": ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] * 1000,
        "calls_per_second": len(ordered) / sum(ordered),
    }


def measure(calls: int, rounds: int) -> dict[str, Any]:
    """All figures, rounds interleaved between the servers."""
    times: dict[tuple[str, str, int], list[float]] = {}
    with moto() as other, wicketgate() as ours:
        loads = [Load(ours), Load(other)]
        for size in SIZES:
            for load in loads:
                load.grow(size)
                load.authorize(5)
                load.describe(2)
            for _ in range(rounds):
                for load in loads:
                    times.setdefault((load.server.name, "authorize", size), []).extend(load.authorize(calls))
                    times.setdefault((load.server.name, "describe", size), []).extend(
                        load.describe(max(3, calls // (1 if size < 100 else 5)))
                    )
    figures = {"/".join(map(str, key)): summary(seconds) for key, seconds in times.items()}
    small, large = SIZES
    rate = {name: figures[f"{name}/describe/{large}"]["calls_per_second"] for name in ("wicketgate", "moto")}
    grown = {
        name: figures[f"{name}/authorize/{large}"]["p50_ms"] / figures[f"{name}/authorize/{small}"]["p50_ms"]
        for name in ("wicketgate", "moto")
    }
    return {
        "figures": figures,
        "describe_rate_over_moto": rate["wicketgate"] / rate["moto"],
        "authorize_growth": grown,
        "versions": {
            "python": platform.python_version(),
            "kernel": platform.release(),
            "moto": importlib.metadata.version("moto"),
            "flask": importlib.metadata.version("flask"),
        },
    }


def show(found: dict[str, Any]) -> None:
    """The table."""
    print(f"{'server':12} {'call':10} {'groups':>6} {'p50 ms':>9} {'p99 ms':>9} {'calls/s':>9}")
    for key, one in found["figures"].items():
        server, call, size = key.split("/")
        row = f"{one['p50_ms']:9.2f} {one['p99_ms']:9.2f} {one['calls_per_second']:9.1f}"
        print(f"{server:12} {call:10} {size:>6} {row}")
    print(f"Describe at {SIZES[-1]} groups: {found['describe_rate_over_moto']:.1f} times moto's rate (target 2)")
    for name, growth in found["authorize_growth"].items():
        print(f"Authorize of {name}: p50 grows {growth:.2f} times from {SIZES[0]} to {SIZES[-1]} groups (target 1.5)")
    print(", ".join(f"{name} {version}" for name, version in found["versions"].items()))


def main() -> int:
    """Run; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="every figure as JSON")
    parser.add_argument("--quick", action="store_true", help="fewer calls")
    arguments = parser.parse_args()
    if not sandbox.inside():
        return sandbox.run([sys.executable, str(Path(__file__).resolve()), *sys.argv[1:]])
    sys.path.insert(0, str(CHECKOUT))
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    found = measure(calls=30 if arguments.quick else 100, rounds=2 if arguments.quick else 4)
    if arguments.json:
        print(json.dumps(found, indent=1))
    else:
        show(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
