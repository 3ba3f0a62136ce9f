"""How soon a tunnel stands: processes timed from outside, from their start to the first byte of a real sshd's banner.

    wicketgate open-tunnel       as `pip install wicketgate` leaves it: a wheel without extras, in a venv of its own
    ssh -W                       OpenSSH through a jump host's sshd, stock settings, public key
    AWS CLI v2 open-tunnel       Amazon's own bundle, unchanged

All three end at the same sshd, over as many links (bench/README.md draws them), and take turns within each round; each
round begins with another. What is compared is divided round by round. The targets are issue 4's: at most 0.6 of
`ssh -W`, at most 0.25 of the stock CLI. `bench/start.py [--rounds N] [--json]`, as root or not; the lab's sandbox is
entered by itself. Exit code 1 when it cannot be measured, 2 when a target is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import tunnel
from wicketgate.lab import sandbox
from wicketgate.lab.lab import Lab
from wicketgate.lab.topology import parse
from wicketgate.model import WicketgateError

OURS, SSH, STOCK = "wicketgate open-tunnel", "ssh -W", "AWS CLI v2 open-tunnel"
TARGETS = {SSH: 0.6, STOCK: 0.25}
"""Our share of each peer's time, at most."""
PROGRAM = tunnel.CHECKOUT / ".cache" / "client" / "bin" / "wicketgate"


def install() -> None:
    """The client from a wheel of this checkout, with what pip fetches beside it. Raises BenchError."""
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "source"
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(tunnel.CHECKOUT / "src", source / "src", ignore=ignored)
        for name in ("pyproject.toml", "README.md"):
            shutil.copy(tunnel.CHECKOUT / name, source)
        environment = PROGRAM.parent.parent
        pip = [str(PROGRAM.parent / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet"]
        for command in (
            [sys.executable, "-m", "venv", "--clear", str(environment)],
            [*pip, "install", str(source)],
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise tunnel.BenchError(f"{' '.join(command)}: {' '.join(done.stderr.split())}")


def commands(lab: Lab, aws: str | None) -> dict[str, list[str]]:
    """Who takes part, by name."""
    target = lab.address(tunnel.VPC, tunnel.TARGET)
    asked = lab.tunnel_command(tunnel.VPC, target, aws="")
    found = {
        OURS: [str(PROGRAM), *asked[asked.index("open-tunnel") :]],
        SSH: tunnel.ssh_command("-W", f"{target}:{tunnel.SSH_PORT}"),
    }
    if aws is not None:
        found[STOCK] = lab.tunnel_command(tunnel.VPC, target, aws=aws)
    return found


def measure(lab: Lab, peers: dict[str, list[str]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each peer in each round."""
    names = list(peers)
    for name in names:
        tunnel.process_setup(lab, peers[name])  # the first reads from disk what the others find in memory
    taken: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        tunnel.progress(f"round {number + 1}/{rounds}")
        for index in range(len(names)):
            name = names[(index + number) % len(names)]
            taken[name].append(tunnel.process_setup(lab, peers[name]))
    return taken


def shares(taken: dict[str, list[float]], peer: str) -> list[float]:
    """Our time over a peer's, round by round."""
    return [ours / theirs for ours, theirs in zip(taken[OURS], taken[peer], strict=True)]


def quartiles(values: Sequence[float], digits: int = 2) -> str:
    """Median (first-third quartile; minimum-maximum)."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    one, two, three, four, five = (f"{value:.{digits}f}" for value in (middle, low, high, min(values), max(values)))
    return f"{one} ({two}-{three}; {four}-{five})"


def report(taken: dict[str, list[float]]) -> bool:
    """Print the tables: whether the targets are met."""
    rows = [["from start to the SSH banner, ms", "median (quartiles; extremes)", "wicketgate's share", "at most"]]
    met = True
    for name, seconds in taken.items():
        row = [name, quartiles([1000 * one for one in seconds], 1), "", ""]
        if name != OURS:
            share = shares(taken, name)
            met = met and statistics.median(share) <= TARGETS[name]
            row[2:] = [quartiles(share), str(TARGETS[name])]
        rows.append(row)
    tunnel.print_table(rows)
    return met


def versions(aws: str | None) -> dict[str, str]:
    """Who took part."""

    def said(*command: str) -> str:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return (done.stdout + done.stderr).strip()

    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "machine": f"{os.cpu_count()} cores, kernel {platform.release()}",
        "load before": " ".join(Path("/proc/loadavg").read_text().split()[:3]),
        "client": f"{said(str(PROGRAM), '--version')}, Python {platform.python_version()}, {ssl.OPENSSL_VERSION}",
        "OpenSSH": said("ssh", "-V"),
        "stock AWS CLI": tunnel.stock_version(aws),
    }


def bench(rounds: int, aws: str | None, *, json_wanted: bool) -> bool:
    """Bring the lab up, measure, print: whether the targets are met. Raises BenchError and the lab's errors."""
    topology = parse(tunnel.TOPOLOGY, "bench/start.py")
    lab = Lab(topology)
    try:
        lab.start()
        tunnel.build_jump(lab, topology)
        about = versions(aws) | {"rounds": str(rounds)}
        taken = measure(lab, commands(lab, aws), rounds)
    finally:
        lab.stop()
        tunnel.progress("")
    if json_wanted:
        print(json.dumps({"about": about, "seconds": taken}, indent=1))
        return all(statistics.median(shares(taken, peer)) <= TARGETS[peer] for peer in taken if peer != OURS)
    tunnel.print_table([[name, value] for name, value in about.items()])
    return report(taken)


def main() -> int:
    """Install the client, enter the sandbox, measure."""
    parser = argparse.ArgumentParser(description="Time open-tunnel beside ssh -W and the stock AWS CLI.")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--json", action="store_true", help="every single figure, for machines")
    arguments = parser.parse_args()
    try:
        if not sandbox.inside():
            install()
            return sandbox.run([sys.executable, str(Path(__file__).resolve()), *sys.argv[1:]])
        return 0 if bench(arguments.rounds, tunnel.stock_cli(), json_wanted=arguments.json) else 2
    except (tunnel.BenchError, WicketgateError, sandbox.SandboxError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
