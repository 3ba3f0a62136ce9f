"""A tunnel beside its peers: throughput, CPU per GB and set-up time, in one run and in the same namespaces.

    client ── internet ─┬─ gateway :443 ~ netd's socket ── endpoint ─┐
                        └─ jump host ────────────────────────────────┴─ VPC router (ruleset) ── instance

Every path ends at the same iperf3 or sshd on the instance and crosses as many links; what stands in the middle differs:

    wicketgate   `wicketgate open-tunnel --local-port`, TLS and WebSocket, the gateway
    ssh -L       OpenSSH's client, its stock cipher or AES-GCM, and the jump host's sshd
    raw          TCP that nobody ends: the jump host's kernel forwards it with address translation

The jump host is an instance of the VPC with groups of its own, as a bastion is; this program gives it a second leg to
the internet. `bench/tunnel.py [--json] [--quick]`, as root or not; the lab's sandbox is entered by itself.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.metadata
import json
import math
import os
import platform
import re
import selectors
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from wicketgate.client import TunnelRequest, resolve_credentials
from wicketgate.client.handshake import open_websocket, trust
from wicketgate.kernel import ip, netns
from wicketgate.kernel.nftables import Nftables
from wicketgate.lab import sandbox, sshd
from wicketgate.lab.lab import Lab
from wicketgate.lab.machines import ACCOUNT, ROOT
from wicketgate.lab.topology import Topology, parse
from wicketgate.model import WicketgateError

CHECKOUT = Path(__file__).resolve().parent.parent
CLIENT, VPC, TARGET = "office", "bench", "web-1"
JUMP_PUBLIC = "192.0.2.20"
SSH_PORT, IPERF_PORT = 22, 5201
AES = "aes256-gcm@openssh.com"
"""The cipher that OpenSSL's TLS 1.3 takes too: with it the peer's work per byte is of the same kind."""
RAW = "raw TCP"
STOCK = "stock AWS CLI open-tunnel"
NEEDED = {"iperf3": "iperf3", "ssh": "openssh-client", "ip": "iproute2"}
"""Program -> Debian package. The lab itself names what it misses."""

TOPOLOGY = f"""
region: us-east-1
gateway: 192.0.2.10
clients: {{{CLIENT}: 203.0.113.10}}
settings: {{allowed_ports: [{SSH_PORT}, {IPERF_PORT}]}}
vpcs:
  {VPC}:
    cidr: 10.0.0.0/16
    subnets: {{endpoints: 10.0.0.0/24, machines: 10.0.1.0/24}}
    groups:
      endpoint: {{outbound: [tcp {SSH_PORT} to group web, tcp {IPERF_PORT} to group web]}}
      bastion: {{outbound: [tcp {SSH_PORT} to group web, tcp {IPERF_PORT} to group web]}}
      web:
        inbound:
          - tcp {SSH_PORT} from group endpoint
          - tcp {IPERF_PORT} from group endpoint
          - tcp {SSH_PORT} from group bastion
          - tcp {IPERF_PORT} from group bastion
    endpoint: {{name: eice, subnet: endpoints, groups: [endpoint], preserve-client-ip: false}}
    instances:
      {TARGET}: {{subnet: machines, address: 10.0.1.11, groups: [web]}}
      jump: {{subnet: machines, address: 10.0.1.5, groups: [bastion]}}
users:
  admin:
    policies:
      All: {{Version: "2012-10-17", Statement: [{{Effect: Allow, Action: "*", Resource: "*"}}]}}
"""


class BenchError(Exception):
    """The measurement cannot be made; one line that says why."""


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    seconds: int
    """Of each iperf3 run."""
    rounds: int
    streams: tuple[int, ...]
    samples: int
    """Set-ups of each quick peer."""
    slow_samples: int
    """Set-ups of the stock AWS CLI, which takes about a second each."""
    aes: bool
    """Whether ssh -L with AES-GCM runs too."""


FULL = Plan(seconds=2, rounds=4, streams=(1, 8), samples=100, slow_samples=20, aes=True)
QUICK = Plan(seconds=1, rounds=3, streams=(1,), samples=20, slow_samples=3, aes=False)


# -- processes ---------------------------------------------------------------------------------------------------------


def cpu_seconds(root: int | None) -> float:
    """CPU time, user and system, that a process and its living descendants have used; 0 for None (proc(5), stat)."""
    if root is None:
        return 0.0
    parents: dict[int, list[int]] = defaultdict(list)
    used: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            fields = entry.read_text().rpartition(")")[2].split()
            pid = int(entry.parent.name)
            parents[int(fields[1])].append(pid)
            used[pid] = int(fields[11]) + int(fields[12])
    family, ticks = [root], 0
    for pid in family:
        family += parents[pid]
        ticks += used.get(pid, 0)
    return ticks / os.sysconf("SC_CLK_TCK")


_STATES = {"0A": "LISTEN", "06": "TIME_WAIT"}


def sockets(namespace: str, port: int) -> set[str]:
    """States of the TCP sockets with this local port in a namespace, e.g. LISTEN (proc(5), net/tcp)."""
    with netns.entered(namespace):
        lines = [
            line.split()
            for table in ("tcp", "tcp6")
            for line in Path(f"/proc/thread-self/net/{table}").read_text().splitlines()[1:]
        ]
    return {_STATES.get(line[3], "OPEN") for line in lines if line[1].endswith(f":{port:04X}")}


def wait_for_listener(namespace: str, port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until something listens on a port in a namespace, without connecting to it. Raises BenchError."""
    deadline = time.monotonic() + 10
    while "LISTEN" not in sockets(namespace, port):
        if process.poll() is not None or time.monotonic() > deadline:
            said = (ROOT / "bench.log").read_text(errors="replace").strip()
            raise BenchError(f"{process.args!r} does not listen on port {port}: {said}")
        time.sleep(0.02)


def wait_for_idle(namespace: str) -> None:
    """Wait until iperf3's server has ended one test and listens for the next. Raises BenchError.

    Its client may be done first; and it makes a new listening socket for every test, hence seen twice.
    """
    deadline, seen = time.monotonic() + 20, 0
    while seen < 2:
        if time.monotonic() > deadline:
            raise BenchError("iperf3's server does not end its test: a connection stays open")
        seen = seen + 1 if sockets(namespace, IPERF_PORT) - {"TIME_WAIT"} == {"LISTEN"} else 0
        time.sleep(0.05)


@contextlib.contextmanager
def ended(processes: list[subprocess.Popen[bytes]]) -> Iterator[None]:
    """End these processes when the block is left."""
    try:
        yield
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(10)


# -- the network and the paths through it ------------------------------------------------------------------------------


def build_jump(lab: Lab, topology: Topology) -> str:
    """Give the jump host its leg to the internet, and its kernel the translation of the raw path. Its namespace."""
    jump = lab.instance(VPC, "jump").id
    ip.batch("internet", [f"link add jump type veth peer name public netns {jump}"])
    ip.sysctl("internet", {"net/ipv4/conf/jump/proxy_arp": "1", "net/ipv4/neigh/jump/proxy_delay": "0"})
    ip.batch("internet", ["link set jump up", f"route add {JUMP_PUBLIC}/32 dev jump"])
    clients = [f"route add {address}/32 dev public" for address in topology.clients.values()]
    ip.batch(jump, [f"address add {JUMP_PUBLIC}/32 dev public", "link set public up", *clients])
    ip.sysctl(jump, {"net/ipv4/ip_forward": "1"})
    ports = f"ip daddr {JUMP_PUBLIC} tcp dport {{ {SSH_PORT}, {IPERF_PORT} }}"
    _nft("internet", f"add rule inet internet forward {ports} accept\n")
    _nft(
        jump,
        "add table ip raw\n"
        "add chain ip raw in { type nat hook prerouting priority dstnat; }\n"
        "add chain ip raw out { type nat hook postrouting priority srcnat; }\n"
        f"add rule ip raw in ip daddr {JUMP_PUBLIC} tcp dport {IPERF_PORT} dnat to {lab.address(VPC, TARGET)}\n"
        f"add rule ip raw out oifname eth0 tcp dport {IPERF_PORT} ct status dnat masquerade\n",
    )
    return jump


def _nft(namespace: str, commands: str) -> None:
    nft = Nftables(namespace)
    try:
        nft.run(commands)
    finally:
        nft.close()


def ssh_command(*arguments: str) -> list[str]:
    """OpenSSH's command line to the jump host."""
    options = ("BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR")
    named = [part for option in (*options, "ExitOnForwardFailure=yes") for part in ("-o", option)]
    return ["ssh", "-F", "none", "-i", str(ROOT / "id_ed25519"), *named, *arguments, f"{ACCOUNT}@{JUMP_PUBLIC}"]


@dataclass(frozen=True)
class Way:
    """One path for iperf3, and whose CPU time it costs."""

    name: str
    address: str
    port: int
    front: int | None = None
    """Process that stands in the middle: the gateway, or the jump host's sshd with its children."""
    client: int | None = None
    """The client's process on this side."""


def open_ways(lab: Lab, processes: list[subprocess.Popen[bytes]], *, aes: bool) -> list[Way]:
    """Start what listens on the client's side, and iperf3 on the instance. Appends to `processes`."""
    target = lab.address(VPC, TARGET)
    gateway = lab.child("gateway-0").process
    assert gateway is not None
    jump = sshd.running()[lab.instance(VPC, "jump").id]

    def start(namespace: str, command: list[str], port: int) -> int:
        # iperf3 resets connections when a test ends, which the tunnel reports: no news here.
        with (ROOT / "bench.log").open("ab") as log:
            process = lab.popen(namespace, "admin", command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        processes.append(process)
        wait_for_listener(namespace, port, process)
        return process.pid

    def forward(name: str, port: int, *options: str) -> Way:
        local = f"127.0.0.1:{port}:{target}:{IPERF_PORT}"
        return Way(name, "127.0.0.1", port, jump, start(CLIENT, ssh_command("-N", "-L", local, *options), port))

    start(lab.instance(VPC, TARGET).id, ["iperf3", "-s", "-B", target, "-p", str(IPERF_PORT)], IPERF_PORT)
    opener = start(CLIENT, lab.tunnel_command(VPC, target, IPERF_PORT, local_port="15201"), 15201)
    ways = [Way("wicketgate", "127.0.0.1", 15201, gateway.pid, opener), forward("ssh -L", 15202)]
    if aes:
        ways.append(forward("ssh -L, AES-GCM", 15203, "-c", AES))
    return [*ways, Way(RAW, JUMP_PUBLIC, IPERF_PORT)]


# -- throughput --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """One iperf3 run."""

    way: str
    direction: str
    """`up`: client to instance; `down`: instance to client (iperf3 -R)."""
    streams: int
    round: int
    gbit_per_second: float
    """Payload that the receiving end got, 10^9 bits."""
    front_cpu: float
    """CPU seconds per GB (10^9 bytes) of the gateway or the jump host's sshd."""
    client_cpu: float
    """CPU seconds per GB of `wicketgate open-tunnel` or ssh."""
    ends_cpu: float
    """CPU seconds per GB of both iperf3, by iperf3's own account."""


def measure(way: Way, direction: str, streams: int, number: int, seconds: int) -> Run:
    """Run iperf3 once. Raises BenchError with its own words."""
    command = ["iperf3", "-J", "-c", way.address, "-p", str(way.port), "-t", str(seconds), "-P", str(streams)]
    before = cpu_seconds(way.front), cpu_seconds(way.client)
    with netns.entered(CLIENT):
        done = subprocess.run(
            command + ["-R"] * (direction == "down"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds + 30,
            check=False,
        )
    after = cpu_seconds(way.front), cpu_seconds(way.client)
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
        if "error" in answer:
            raise BenchError(f"iperf3 through {way.name}: {answer['error']}")
        received, usage = answer["end"]["sum_received"], answer["end"]["cpu_utilization_percent"]
    except (ValueError, KeyError) as error:
        raise BenchError(f"iperf3 through {way.name}: no result ({done.stderr.strip() or error})") from error
    gigabytes = received["bytes"] / 1e9
    return Run(
        way=way.name,
        direction=direction,
        streams=streams,
        round=number,
        gbit_per_second=received["bits_per_second"] / 1e9,
        front_cpu=(after[0] - before[0]) / gigabytes,
        client_cpu=(after[1] - before[1]) / gigabytes,
        ends_cpu=(usage["host_total"] + usage["remote_total"]) / 100 * received["seconds"] / gigabytes,
    )


def throughput(lab: Lab, ways: Sequence[Way], plan: Plan) -> list[Run]:
    """All rounds. Within a round the paths follow one another; each round begins with another one."""
    runs = []
    for number in range(plan.rounds):
        for streams in plan.streams:
            for direction in ("up", "down"):
                for index in range(len(ways)):
                    way = ways[(index + number) % len(ways)]
                    progress(f"round {number + 1}/{plan.rounds}: {way.name}, {direction}, {streams} stream(s)")
                    wait_for_idle(lab.instance(VPC, TARGET).id)
                    runs.append(measure(way, direction, streams, number, plan.seconds))
    return runs


# -- set-up ------------------------------------------------------------------------------------------------------------


def process_setup(lab: Lab, command: list[str]) -> float:
    """Seconds from starting a program until the first byte of the instance's SSH banner is on its standard output."""
    start = time.perf_counter()
    process = lab.popen(CLIENT, "admin", command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    assert process.stdout is not None
    assert process.stdin is not None
    with process, process.stdin, process.stdout, selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        first = process.stdout.read(1) if selector.select(20) else b""
        taken = time.perf_counter() - start
        process.terminate()
    if first != b"S":
        raise BenchError(f"{' '.join(command)}: no SSH banner came")
    return taken


def inside_setup(lab: Lab, environment: dict[str, str]) -> Callable[[], float]:
    """A function that opens a tunnel in this process: seconds from signing to the banner's first byte."""
    endpoint = lab.endpoint(VPC)
    request = TunnelRequest.make(
        endpoint_id=endpoint.id, dns_name=endpoint.dns_name, private_ip_address=lab.address(VPC, TARGET)
    )
    credentials = resolve_credentials(None, environment)
    context = trust(environment["SSL_CERT_FILE"], {})

    def once() -> float:
        with netns.entered(CLIENT):
            start = time.perf_counter()
            url = request.url(credentials, region=lab.world.region, now=time.time())
            opened = open_websocket(url, request.address, context)
        with opened.socket:
            opened.socket.settimeout(20)
            data = opened.leftover
            while b"SSH-" not in data:
                chunk = opened.socket.recv(4096)
                if not chunk:
                    raise BenchError(f"a tunnel opened in this process brought {data!r} and no SSH banner")
                data += chunk
            return time.perf_counter() - start

    return once


def setups(lab: Lab, plan: Plan, aws: str | None) -> dict[str, list[float]]:
    """Set-up times by who did it, seconds, taken in turn."""
    target = lab.address(VPC, TARGET)

    def program(command: list[str]) -> Callable[[], float]:
        return lambda: process_setup(lab, command)

    peers: dict[str, Callable[[], float]] = {
        "wicketgate open-tunnel": program(lab.tunnel_command(VPC, target)),
        "ssh -W": program(ssh_command("-W", f"{target}:{SSH_PORT}")),
        "wicketgate, inside one process": inside_setup(lab, lab.environment("admin")),
    }
    if aws is not None:
        peers[STOCK] = program(lab.tunnel_command(VPC, target, aws=aws))
    taken: dict[str, list[float]] = {name: [] for name in peers}
    for once in peers.values():
        once()  # the first reads from disk what the others find in memory
    for number in range(plan.samples):
        progress(f"set-up {number + 1}/{plan.samples}")
        for name, once in peers.items():
            if name != STOCK or number % (plan.samples // plan.slow_samples) == 0:
                taken[name].append(once())
    return taken


# -- reporting ---------------------------------------------------------------------------------------------------------


def progress(line: str) -> None:
    """Say on a terminal what is being done."""
    if sys.stderr.isatty():
        print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)


def versions(lab: Lab) -> dict[str, str]:
    """Who took part."""
    with netns.entered(CLIENT):
        said = subprocess.run(ssh_command("-G"), capture_output=True, text=True, check=True).stdout
    ciphers = next(line for line in said.splitlines() if line.startswith("ciphers "))
    packages = ("wicketgate", "picows", "uvloop", "aiofastnet", "websockets")
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "processor": f"{model[1] if model else platform.machine()}, {os.cpu_count()} cores, nothing pinned",
        "load before": " ".join(Path("/proc/loadavg").read_text().split()[:3]),
        "kernel": platform.release(),
        "OpenSSH": subprocess.run(["ssh", "-V"], capture_output=True, text=True, check=True).stderr.strip(),
        "ssh's stock cipher": ciphers.split()[1].partition(",")[0],
        "tunnel's cipher": tunnel_cipher(lab),
        "iperf3": subprocess.run(["iperf3", "-v"], capture_output=True, text=True, check=True).stdout.splitlines()[0],
        "Python": f"{platform.python_version()}, {ssl.OPENSSL_VERSION}",
        **{name: importlib.metadata.version(name) for name in packages},
        "gateway workers": str(lab.workers),
    }


def tunnel_cipher(lab: Lab) -> str:
    """What TLS version and cipher a client and the gateway agree on."""
    context = trust(lab.environment("admin")["SSL_CERT_FILE"], {})
    host = lab.endpoint(VPC).dns_name
    with netns.entered(CLIENT):
        plain = socket.create_connection((host, 443), timeout=10)
    with context.wrap_socket(plain, server_hostname=host) as connection:
        name, version, _bits = connection.cipher() or ("none", "", 0)
    return f"{name} ({version})"


def spread(values: Iterable[float], digits: int = 2) -> str:
    """Median (minimum-maximum)."""
    there = list(values)
    return f"{statistics.median(there):.{digits}f} ({min(there):.{digits}f}-{max(there):.{digits}f})"


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of the values does not exceed (nearest rank)."""
    return sorted(values)[math.ceil(share * len(values)) - 1]


def ratios(runs: Sequence[Run], way: str, peer: str, direction: str, streams: int) -> list[float]:
    """Throughput of a way over that of a peer, round by round."""
    rate = {
        (run.way, run.round): run.gbit_per_second
        for run in runs
        if (run.direction, run.streams) == (direction, streams)
    }
    return [rate[way, number] / rate[peer, number] for number in sorted({number for _, number in rate})]


def throughput_table(runs: Sequence[Run], ways: Sequence[str], plan: Plan) -> list[list[str]]:
    """One row per path, direction and number of streams."""
    rows = [
        ["streams", "way", "path", "Gbit/s", "wicketgate is", "front CPU s/GB", "client CPU s/GB", "iperf3 CPU s/GB"]
    ]
    for streams in plan.streams:
        for direction in ("up", "down"):
            for way in ways:
                own = [run for run in runs if (run.way, run.direction, run.streams) == (way, direction, streams)]
                ratio = "" if way == ways[0] else f"{spread(ratios(runs, ways[0], way, direction, streams))} x"
                costs = [
                    spread(run.front_cpu for run in own) if way != RAW else "",
                    spread(run.client_cpu for run in own) if way != RAW else "",
                    spread(run.ends_cpu for run in own),
                ]
                rate = spread(run.gbit_per_second for run in own)
                rows.append([str(streams), direction, way, rate, ratio, *costs])
    return rows


def setup_table(taken: dict[str, list[float]]) -> list[list[str]]:
    """Milliseconds until the first byte of the banner."""
    rows = [["from start to the SSH banner, ms", "p50", "p99", "min-max", "n"]]
    for name, seconds in taken.items():
        ms = [1000 * one for one in seconds]
        extremes = f"{min(ms):.1f}-{max(ms):.1f}"
        rows.append([name, f"{percentile(ms, 0.5):.1f}", f"{percentile(ms, 0.99):.1f}", extremes, str(len(ms))])
    return rows


def print_table(rows: list[list[str]]) -> None:
    """Columns as wide as they must be."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print()


def as_json(plan: Plan, about: dict[str, str], runs: list[Run], taken: dict[str, list[float]]) -> str:
    """Everything measured, one value per run and set-up."""
    ways = list(dict.fromkeys(run.way for run in runs))
    compared = [
        {
            "streams": streams,
            "direction": direction,
            "peer": peer,
            "wicketgate_over_peer": statistics.median(ratios(runs, ways[0], peer, direction, streams)),
        }
        for streams in plan.streams
        for direction in ("up", "down")
        for peer in sorted({run.way for run in runs} - {ways[0]})
    ]
    summary = {
        name: {"p50": percentile(seconds, 0.5), "p99": percentile(seconds, 0.99), "samples": seconds}
        for name, seconds in taken.items()
    }
    whole = {"about": about, "plan": asdict(plan), "runs": [asdict(run) for run in runs]}
    return json.dumps({**whole, "ratios": compared, "setup_seconds": summary}, indent=1)


# -- the run -----------------------------------------------------------------------------------------------------------


def bench(plan: Plan, aws: str | None, *, json_wanted: bool) -> None:
    """Bring the lab up, measure, print. Raises BenchError and the lab's errors."""
    topology = parse(TOPOLOGY, "bench/tunnel.py")
    lab = Lab(topology)
    processes: list[subprocess.Popen[bytes]] = []
    try:
        lab.start()
        build_jump(lab, topology)
        with ended(processes):
            about = versions(lab)
            about["stock AWS CLI"] = stock_version(aws)
            taken = setups(lab, plan, aws)
            ways = open_ways(lab, processes, aes=plan.aes)
            runs = throughput(lab, ways, plan)
    finally:
        lab.stop()
        progress("")
    if json_wanted:
        print(as_json(plan, about, runs, taken))
        return
    print_table([[name, value] for name, value in about.items()])
    print_table(throughput_table(runs, [way.name for way in ways], plan))
    print_table(setup_table(taken))


def stock_version(aws: str | None) -> str:
    """The stock CLI's own words on its version."""
    if aws is None:
        return "not measured: not unpacked yet, `python -m tests.stockcli` does it"
    return subprocess.run([aws, "--version"], capture_output=True, text=True, check=True).stdout.split()[0]


def stock_cli() -> str | None:
    """The stock AWS CLI if it was unpacked before; nothing is downloaded while a clock runs."""
    sys.path.insert(0, str(CHECKOUT))
    with contextlib.suppress(ImportError):
        stockcli = importlib.import_module("tests.stockcli")
        if (stockcli.cache_directory() / stockcli.PACKAGE.rpartition("=")[2]).exists():
            return str(stockcli.aws())
    return None


def main() -> int:
    """Check what is needed, enter the sandbox, measure. Exit code 1 with one line when it cannot be done."""
    parser = argparse.ArgumentParser(
        description="Measure a tunnel beside ssh -L through a jump host and beside raw TCP."
    )
    parser.add_argument("--json", action="store_true", help="every single figure, for machines")
    parser.add_argument("--quick", action="store_true", help="one stream, short runs: under 40 s")
    arguments = parser.parse_args()
    for name, package in NEEDED.items():
        if shutil.which(name) is None:
            print(f"bench: {name} is missing: install the Debian package {package}", file=sys.stderr)
            return 1
    try:
        if not sandbox.inside():
            return sandbox.run([sys.executable, str(Path(__file__).resolve()), *sys.argv[1:]])
        bench(QUICK if arguments.quick else FULL, stock_cli(), json_wanted=arguments.json)
    except (BenchError, WicketgateError, sandbox.SandboxError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
