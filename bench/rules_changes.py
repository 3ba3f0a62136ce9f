"""How fast a change is in force among 1,000 groups of 60 rules and 1,000 network interfaces, through the real API.

The World is put into a store, `Serve` starts on it, and signed HTTPS requests change one rule, the groups of one
interface and one entry of a prefix list. Times are the client's, from before the request is written to after the answer
is read, so they hold TLS, the gateway and the loopback too: the server's own are shorter. When the answer comes, the
change is on disk and in the kernel.
"""

from __future__ import annotations

import os
import shutil
import signal
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import api
import rules_world
from wicketgate import daemon
from wicketgate.daemon import API_UID, Child, Serve
from wicketgate.kernel import netns
from wicketgate.model import Change, World
from wicketgate.store import Identity, open_store

GROUPS, RULES, INTERFACES = 1000, 60, 1000
TOUCHED = 50
"""Groups and interfaces that changes go around in."""
MONITORS = ("nft monitor", "ip monitor link address route rule")


def fill(directory: Path, world: World, identity: Identity) -> None:
    """A store that holds a World, as the API process would have made it."""
    directory.mkdir(parents=True)
    directory.chmod(0o700)
    kinds = (world.vpcs, world.subnets, world.prefix_lists, world.groups, world.interfaces, world.instances)
    store = open_store(directory, identity=identity)
    store.commit(Change(puts=tuple(one for kind in kinds for one in kind), time=time.time()), store.revision)
    store.close()
    for path in (directory, *directory.iterdir()):
        try:
            os.chown(path, API_UID, API_UID)
        except OSError:  # where one id is mapped there is nobody to give it to
            break


@contextmanager
def deployment(world: World) -> Iterator[tuple[Serve, dict[str, list[float]]]]:
    """`Serve` over a store that holds this World, and the seconds in which each process first had it in force."""
    from tests.api.deployment import Deployment

    made = Deployment("bench-rules", rules_per_group=RULES + 1)
    shutil.rmtree(made.configuration.state_directory, ignore_errors=True)
    fill(Path(made.configuration.state_directory) / "store", world, made.configuration.identity)
    seconds: dict[str, list[float]] = {}
    send = Child.send

    def timed(child: Child, world: World, change: Change | None = None) -> None:
        started = time.perf_counter()
        send(child, world, change)
        if change is None:
            seconds.setdefault(child.name, []).append(time.perf_counter() - started)

    daemon.Child.send = timed  # type: ignore[method-assign]  # this program's own process alone
    made.start()
    assert made.serve is not None
    try:
        yield made.serve, seconds
    finally:
        made.stop()
        daemon.Child.send = send  # type: ignore[method-assign]


def memory(pid: int) -> dict[str, float]:
    """Resident memory of a process, now and at its most, in MB (proc(5), status)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    kilobytes = {key: int(rest.split()[0]) for key, _, rest in (one.partition(":") for one in lines) if key in _SIZES}
    return {_SIZES[key]: size / 1000 for key, size in kilobytes.items()}


_SIZES = {"VmRSS": "settled_mb", "VmHWM": "peak_mb"}


# -- what is asked -----------------------------------------------------------------------------------------------------


def one_rule(number: int) -> dict[str, Any]:
    """A call that adds a rule, or takes the one before away."""
    action = ("AuthorizeSecurityGroupIngress", "RevokeSecurityGroupIngress")[number % 2]
    permission = {"IpProtocol": "tcp", "FromPort": 8000 + number // 2, "ToPort": 8000 + number // 2}
    return {
        "Action": action,
        "GroupId": rules_world.Vpcs(1).group_id(1 + number // 2 % TOUCHED),
        **{f"IpPermissions.1.{name}": value for name, value in permission.items()},
        "IpPermissions.1.IpRanges.1.CidrIp": "192.0.2.0/24",
    }


def one_member(number: int) -> dict[str, Any]:
    """A call that gives an interface another group beside one of its own."""
    vpc, eni = rules_world.Vpcs(1), number % TOUCHED
    return {
        "Action": "ModifyNetworkInterfaceAttribute",
        "NetworkInterfaceId": vpc.interface(eni, ()).id,
        "SecurityGroupId.1": vpc.group_id(eni),
        "SecurityGroupId.2": vpc.group_id(100 + number % 800),
    }


def one_entry(number: int) -> dict[str, Any]:
    """A call that adds an entry to the prefix list, of version `number` + 1, or takes the one before away."""
    kind = ("AddEntry", "RemoveEntry")[number % 2]
    return {
        "Action": "ModifyManagedPrefixList",
        "PrefixListId": rules_world.LIST,
        "CurrentVersion": number + 1,
        f"{kind}.1.Cidr": f"192.0.2.{number // 2 % 256}/32",
    }


KINDS = {"one rule": one_rule, "one member": one_member, "one prefix-list entry": one_entry}


def changes(server: api.Server, calls: int, rounds: int) -> dict[str, list[list[float]]]:
    """Seconds of each call, a list a round; rounds of the kinds are interleaved."""
    found: dict[str, list[list[float]]] = {kind: [] for kind in KINDS}
    done = dict.fromkeys(KINDS, 0)

    def some(kind: str, count: int) -> list[float]:
        first, done[kind] = done[kind], done[kind] + count
        return server.timed([KINDS[kind](number) for number in range(first, first + count)])

    for kind in KINDS:
        some(kind, 10)
    for _ in range(rounds):
        for kind, times in found.items():
            times.append(some(kind, calls))
    return found


# -- restarts ----------------------------------------------------------------------------------------------------------


@contextmanager
def watched(namespace: str) -> Iterator[list[str]]:
    """What is written into the kernel's rules and links of a namespace during the body, as monitors tell it."""
    told: list[str] = []
    with tempfile.TemporaryFile() as file:
        with netns.entered(namespace):
            path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
            monitors = [
                subprocess.Popen(command.split(), stdout=file, stderr=file, env={"PATH": path}) for command in MONITORS
            ]
        time.sleep(0.3)
        yield told
        time.sleep(0.3)
        for one in monitors:
            one.terminate()
            one.wait()
        file.seek(0)
        told += file.read().decode(errors="replace").splitlines()


def restarted(serve: Serve, seconds: Mapping[str, list[float]]) -> tuple[float, list[str]]:
    """netd is killed and comes back with nothing changed: seconds of its reconcile, and what it wrote."""
    netd = serve.children[0]
    assert netd.process is not None
    before = len(seconds["netd"])
    with watched(serve.world.vpcs[0].id) as told:
        netd.process.send_signal(signal.SIGKILL)
        netd.process.wait()
        serve.wait_alive(60)
    return seconds["netd"][before], told


def measure(calls: int, rounds: int) -> dict[str, Any]:
    """All figures of a deployment."""
    from tests.api.deployment import API, ROOT

    world = rules_world.large(GROUPS, RULES, INTERFACES)
    started = time.perf_counter()
    with deployment(world) as (serve, seconds):
        found: dict[str, Any] = {"start_seconds": time.perf_counter() - started, "load_seconds": seconds["netd"][0]}
        netd = serve.children[0].process
        assert netd is not None
        found["netd"] = memory(netd.pid)
        server = api.Server("wicketgate", API, 443, ROOT, ssl.create_default_context(cafile=str(serve.bundle)))
        found["seconds"] = changes(server, calls, rounds)
        found["netd_after"] = memory(netd.pid)
        reconcile, told = restarted(serve, seconds)
        found |= {"reconcile_seconds": reconcile, "written": told}
    return found
