"""The composition root: the only file that knows every process, and starts, feeds and watches them.

    Serve ──── feed ────> netd           (root of its user namespace; faces no network)
          └─── feed ────> gateway 0..n   (no privilege; listening sockets inherited)
          netd <── dial requests, sockets and leases ──> gateway

`Serve` keeps both ends of every dial socketpair, so that a restarted child takes up where the dead one stopped. It
faces no client: it never accepts or reads a connection.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from wicketgate import ipc, pki
from wicketgate.model import FabricError, World

GATEWAY_UID = 64910
"""An id that no account has: what the gateway's files belong to and all it is allowed to be."""
ACKNOWLEDGE_SECONDS = 30.0
"""How long a process may take to enforce a World before it is held to be stuck."""
RESTART_SECONDS = 0.2
"""Pause before a child that ended is started again."""


@dataclass
class Child:
    """One process, our end of its feed, and how to start it again."""

    name: str
    command: Callable[[int], list[str]]
    """The command line, given the number of the child's feed descriptor."""
    inherited: list[socket.socket]
    log: Path
    environment: dict[str, str] | None = None
    process: subprocess.Popen[bytes] | None = None
    feed: ipc.Feed | None = None
    revision: int | None = None
    """The World that it is known to enforce."""

    def start(self) -> None:
        """Start the process with a new feed. Inherited descriptors keep the numbers they have here."""
        if self.feed is not None:
            self.feed.close()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.feed = ipc.Feed(self.name, ours, ACKNOWLEDGE_SECONDS)
        with self.log.open("ab") as log, theirs:
            self.revision = None
            self.process = subprocess.Popen(
                self.command(theirs.fileno()),
                pass_fds=[theirs.fileno(), *(sock.fileno() for sock in self.inherited)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
            )

    def send(self, world: World) -> None:
        """Have the process enforce a World and wait until it does. Raises FabricError with the process's own words.

        A process that gives no proper answer is killed: nobody could tell what it enforces.
        """
        assert self.feed is not None, "started"
        self.revision = None
        try:
            self.feed.publish(world.revision, world.to_json())
        except ipc.FeedRefusal as error:
            raise FabricError(str(error)) from error
        except ipc.FeedError as error:
            self.kill()
            raise FabricError(f"{error}{self._last_words()}") from error
        self.revision = world.revision

    def kill(self) -> None:
        """End the process at once."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process is not None and self.process.poll() is None

    def stop(self) -> None:
        """End the process by ending its feed; by force when it does not go."""
        if self.feed is not None:
            self.feed.close()
            self.feed = None
        if self.process is not None:
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.kill()

    def _last_words(self) -> str:
        if self.alive() or self.process is None:
            return ""
        lines = self.log.read_text(errors="replace").strip().splitlines()[-3:]
        return f" (it ended with code {self.process.returncode}: {' | '.join(lines)})"


@dataclass
class Serve:
    """netd and the gateways over one World."""

    world: World
    directory: Path
    """Logs, slots and audit live below it."""
    listeners: list[socket.socket]
    certificate: Path
    key: Path
    workers: int = 1
    python: str = sys.executable
    """The interpreter for the gateways, which run with an id of their own and must be able to read it."""
    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ))
    """Environment of the gateways."""
    children: list[Child] = field(default_factory=list)
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _watcher: threading.Thread | None = None

    @property
    def audit_files(self) -> list[Path]:
        """One audit log per gateway worker."""
        return [self.directory / "audit" / f"gateway-{index}.jsonl" for index in range(self.workers)]

    def start(self) -> None:
        """Start everything; returns when kernel and gateways enforce the World.

        Raises CertificateError for certificate files that cannot serve, before anything is started, and FabricError.
        """
        pki.check_files(self.certificate, self.key)
        pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(self.workers)]
        for name, owner in (("netd", 0), ("logs", 0), ("audit", GATEWAY_UID)):
            path = self.directory / name
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            with contextlib.suppress(OSError):  # where one id is mapped there is nobody to give it to, and no need
                os.chown(path, owner, owner)
        logs = self.directory / "logs"
        netd_ends = [pair[0] for pair in pairs]
        self.children.append(Child("netd", self._netd_command(netd_ends), netd_ends, logs / "netd.log"))
        for index, pair in enumerate(pairs):
            command = self._gateway_command(index, pair[1])
            inherited = [pair[1], *self.listeners]
            self.children.append(
                Child(f"gateway-{index}", command, inherited, logs / f"gateway-{index}.log", self.environment)
            )
        with self._lock:
            # netd first: a gateway that takes a tunnel before there are rules would only be refused.
            for child in self.children:
                child.start()
                child.send(self.world)
        self._watcher = threading.Thread(target=self._watch, name="watch children", daemon=True)
        self._watcher.start()

    def apply(self, world: World) -> None:
        """Enforce a new World; returns when the kernel and every gateway that runs do.

        Raises FabricError when netd cannot: it has put the World before back then, or was killed and gets it at its
        start. A gateway that does not answer is killed, so that none ever works by an older World than was
        acknowledged; it gets the new one when it is started again.
        """
        world.check()
        with self._lock:
            self.children[0].send(world)
            self.world = world
            for gateway in self.children[1:]:
                with contextlib.suppress(FabricError):
                    gateway.send(world)

    def stop(self) -> None:
        """End all processes. Rules and links stay in the kernel: no process of ours, no new connection."""
        self._stopping.set()
        if self._watcher is not None:
            self._watcher.join()
        with self._lock:
            for child in reversed(self.children):
                child.stop()

    def _watch(self) -> None:
        while not self._stopping.wait(RESTART_SECONDS):
            with self._lock:
                for child in self.children:
                    if self._stopping.is_set():
                        return
                    if not child.alive():
                        child.start()
                    if child.revision != self.world.revision:
                        with contextlib.suppress(FabricError):  # the child's log says why; the next round tries again
                            child.send(self.world)

    def wait_alive(self, seconds: float = 10.0) -> None:
        """Wait until every child runs and has the World. Raises FabricError."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with self._lock:
                if all(child.alive() and child.revision == self.world.revision for child in self.children):
                    return
            time.sleep(0.02)
        raise FabricError("not every process came back")

    def _netd_command(self, ends: list[socket.socket]) -> Callable[[int], list[str]]:
        def command(feed: int) -> list[str]:
            config = {
                "feed_fd": feed,
                "gateway_fds": [end.fileno() for end in ends],
                "state_directory": str(self.directory / "netd"),
            }
            return [sys.executable, "-m", "wicketgate.netd", json.dumps(config)]

        return command

    def _gateway_command(self, index: int, netd: socket.socket) -> Callable[[int], list[str]]:
        def command(feed: int) -> list[str]:
            config = {
                "feed_fd": feed,
                "netd_fd": netd.fileno(),
                "listen_fds": [listener.fileno() for listener in self.listeners],
                "certificate": str(self.certificate),
                "key": str(self.key),
                "audit_file": str(self.audit_files[index]),
                "worker": index,
            }
            confine = [self.python, "-m", "wicketgate.kernel.confine", str(GATEWAY_UID)]
            return [*confine, self.python, "-m", "wicketgate.gateway", json.dumps(config)]

        return command
