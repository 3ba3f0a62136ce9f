"""The composition root: the only file that knows every process, and starts, feeds and watches them.

    api ──── feed ────> Serve ──── feed ────> netd           (root of its user namespace; faces no network)
     ^                        └─── feed ────> gateway 0..n   (no privilege; listening sockets inherited)
     |                        └─── feed ────> metadata       (no privilege; its sockets come from netd)
     |                        └─── feed ────> others         (`Companion`: the lab's machines, ...)
     └── calls (Unix socket) ── gateway
                                gateway <── dial requests, sockets and leases ──> netd

`Serve` keeps both ends of every dial socketpair and the API's listening socket, so that a restarted child takes up
where the dead one stopped. It faces no client: it never accepts or reads a connection. What the API process commits
comes to it as Updates, which it passes on; it answers when all have acknowledged.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from wicketgate import ipc, pki, seal
from wicketgate.configuration import Configuration
from wicketgate.followers import (
    ACKNOWLEDGE_SECONDS,
    GATEWAY_NEEDS_NOT,
    IDENTITIES,
    INSIGHTS,
    METADATA_NEEDS_NOT,
    NETD_NEEDS_NOT,
    narrowed,
    without,
)
from wicketgate.model import Change, FabricError, World, WorldError

_logger = logging.getLogger("wicketgate.serve")

GATEWAY_UID = 64910
"""An id that no account has: what the gateway's files belong to and all it is allowed to be."""
API_UID = 64913
"""The same for the API process, to which the store belongs."""
METADATA_UID = 64914
"""The same for instance metadata, which owns nothing."""
START_SECONDS = 60.0
"""How long the API process may take to open its store and say what there is."""
QUICK_END_SECONDS = 1.0
"""A process that lived shorter than this does not work; the next one waits, twice as long each time."""
LONGEST_PAUSE_SECONDS = 5.0
RESTART_SECONDS = 0.2
"""Pause before a child that ended is started again."""
TROUBLE_SECONDS = 2.0
"""The same when it could not be started: no memory, no process ids, a disk that is read only."""
MAX_WORDS = 64 * 1024
"""Bytes of a child's log that are read for its last words."""


@dataclass
class Child:
    """One process, our end of its feed, and how to start it again."""

    name: str
    command: Callable[[int], list[str]]
    """The command line, given the number of the child's feed descriptor."""
    inherited: list[int]
    """Descriptors that it gets under the numbers they have here."""
    log: Path
    environment: Mapping[str, str] | None = None
    required: bool = False
    """What it cannot follow is not in force: the Change is refused."""
    hidden: frozenset[str] = frozenset()
    """Kinds of resources that are none of its business."""
    process: subprocess.Popen[bytes] | None = None
    feed: ipc.Feed | None = None
    revision: int | None = None
    """The World that it is known to enforce."""
    _started: float = 0.0
    _pause: float = 0.0

    def may_start(self, now: float) -> bool:
        """Whether it is time to start it again; `now` is of the monotonic clock. One that worked starts at once."""
        return now >= self._started + self._pause

    def start(self) -> None:
        """Start the process with a new feed."""
        ours = self.launch()
        self.feed = ipc.Feed(self.name, ours, ACKNOWLEDGE_SECONDS)

    def launch(self) -> socket.socket:
        """Start the process; returns our end of its new feed."""
        if self.feed is not None:
            self.feed.close()
            self.feed = None
        now = time.monotonic()
        lived = now - self._started - self._pause if self._started else QUICK_END_SECONDS
        quick = lived < QUICK_END_SECONDS
        self._pause = min(max(2 * self._pause, RESTART_SECONDS), LONGEST_PAUSE_SECONDS) if quick else 0.0
        self._started = now
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with self.log.open("ab") as log, theirs:
            self.revision = None
            self.process = subprocess.Popen(
                self.command(theirs.fileno()),
                pass_fds=[theirs.fileno(), *self.inherited],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
            )
        return ours

    def send(self, world: World, change: Change | None = None) -> None:
        """Have the process enforce a World and wait until it does. Raises FabricError with the process's own words.

        `change` leads to this World from the revision before; a process that has another one gets the whole World. A
        process that gives no proper answer is killed: nobody could tell what it enforces.
        """
        self.begin(world, change)
        self.finish(world)

    def begin(self, world: World, change: Change | None = None) -> None:
        """The first half of `send`: tell the process, which is then at work on it."""
        assert self.feed is not None, "started"
        if change is None or self.revision != world.revision - 1:
            update = ipc.whole(without(world, self.hidden))
        else:
            update = ipc.step(world.revision, narrowed(change, self.hidden))
        self.revision = None
        try:
            self.feed.begin(world.revision, update)
        except ipc.FeedError as error:
            raise self._broken(error) from error

    def finish(self, world: World) -> None:
        """The second half: wait until the process enforces what `begin` told it."""
        assert self.feed is not None, "started"
        try:
            self.feed.finish(world.revision)
        except ipc.FeedRefusal as error:
            raise FabricError(str(error)) from error
        except ipc.FeedError as error:
            raise self._broken(error) from error
        self.revision = world.revision

    def _broken(self, error: ipc.FeedError) -> FabricError:
        self.kill()
        return FabricError(f"{error}{self.last_words()}")

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

    def complaint(self) -> str:
        """The one line with which the process ended on purpose; empty if it did not."""
        if self.alive():
            return ""
        last = self._log_end().rpartition("\n")[2]
        mark = f"wicketgate {self.name}: "
        return last.removeprefix(mark) if last.startswith(mark) else self.last_words().strip()

    def last_words(self) -> str:
        """What the process said last, if it has ended."""
        if self.alive() or self.process is None:
            return ""
        lines = self._log_end().splitlines()[-3:]
        return f" (it ended with code {self.process.returncode}: {' | '.join(lines)})"

    def _log_end(self) -> str:
        """The last of what the process wrote, however much that was; empty if it cannot be read."""
        try:
            with self.log.open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - MAX_WORDS))
                return log.read().decode(errors="replace").strip()
        except OSError:
            return ""


@dataclass(frozen=True)
class Companion:
    """A further process that follows the World: started after the gateways, restarted when it ends."""

    name: str
    command: Callable[[int], list[str]]
    """The command line, given the number of its feed descriptor."""
    inherited: tuple[int, ...] = ()
    environment: Mapping[str, str] | None = None
    required: bool = False


@dataclass
class Serve:
    """The API process, netd, the gateways and their companions over one store."""

    configuration: Configuration
    listeners: list[socket.socket]
    python: str = sys.executable
    """The interpreter for what runs with an id of its own, which must be able to read it."""
    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ))
    """Environment of the gateways and the API process."""
    root: tuple[str, str] | None = None
    """The root credential as the operator gave it."""
    companions: tuple[Companion, ...] = ()
    on_root_made: Callable[[str, str], None] = lambda _key, _secret: None
    """Called once in the life of a store, with the root credential that was made: show it."""
    world: World = field(default_factory=World)
    children: list[Child] = field(default_factory=list)
    _api: Child | None = None
    _listener: socket.socket | None = None
    _pairs: list[tuple[socket.socket, socket.socket]] = field(default_factory=list)
    _tls: tuple[int, int] | None = None
    _held: int = -1
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    # -- places --------------------------------------------------------------------------------------------------------

    @property
    def directory(self) -> Path:
        """The state directory."""
        return Path(self.configuration.state_directory)

    @property
    def workers(self) -> int:
        """Gateway processes."""
        return self.configuration.worker_count

    @property
    def gateway_audit_files(self) -> list[Path]:
        """One audit log per gateway worker."""
        return [self.directory / "audit" / "gateway" / f"gateway-{index}.jsonl" for index in range(self.workers)]

    @property
    def audit_files(self) -> list[Path]:
        """All audit logs."""
        return [self.directory / "audit" / "api" / "api.jsonl", *self.gateway_audit_files]

    @property
    def api_socket(self) -> Path:
        """The Unix socket through which gateways hand API calls on."""
        return self.directory / "run" / "api.sock"

    @property
    def bundle(self) -> Path:
        """What clients trust: the system's roots and our CA."""
        return self.directory / "bundle.pem"

    # -- starting and stopping -----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start everything; returns when kernel and gateways enforce the World of the store.

        Raises CertificateError for certificate files that cannot serve, before anything is started, and FabricError.
        """
        own = self.configuration.certificate_file, self.configuration.private_key_file
        if own[0]:
            pki.check_files(Path(own[0]), Path(own[1]))
            self._tls = (
                pki.sealed_copy("certificate", Path(own[0]).read_bytes()),
                pki.sealed_copy("key", Path(own[1]).read_bytes()),
            )
        self._make_directories()
        self._lock_directory()
        self._give_key_file()
        listener = self._api_listener()
        descriptors = [self._readable(path) for path in self.gateway_audit_files]
        environment = dict(self.environment)
        if self.root is not None:
            environment |= {"WICKETGATE_ROOT_ACCESS_KEY_ID": self.root[0]}
            environment |= {"WICKETGATE_ROOT_SECRET_ACCESS_KEY": self.root[1]}
        self._api = Child(
            "api",
            self._api_command(listener, descriptors),
            [listener.fileno(), *descriptors],
            self.directory / "logs" / "api.log",
            environment,
        )
        self._listener = listener
        try:
            sock = self._start_api()
            self._make_children()
            with self._lock:
                # netd first: a gateway that takes a tunnel before there are rules would only be refused.
                for child in self.children:
                    child.start()
                    child.send(self.world)
        except BaseException:
            self.stop()
            raise
        sock.sendall(ipc.acknowledgement(self.world.revision))
        self._thread("follow api", lambda: self._follow(sock))
        self._thread("watch children", self._watch)

    @property
    def ssh_root(self) -> Path:
        """What instances pin to check pushed SSH keys by."""
        return self.directory / "ssh-root.pem"

    def stop(self) -> None:
        """End all processes. Rules and links stay in the kernel: no process of ours, no new connection."""
        self._stopping.set()
        if self._api is not None and self._api.process is not None:
            self._api.process.terminate()
        for thread in self._threads:
            thread.join(ACKNOWLEDGE_SECONDS)
        if self._api is not None:
            self._api.stop()
        with self._lock:
            for child in reversed(self.children):
                child.stop()
        if self._held >= 0:
            os.close(self._held)
            self._held = -1

    def reload(self) -> None:
        """Have netd read the operator's file of bound networks again. From a signal handler, so nothing here waits."""
        for child in self.children:
            if child.name == "netd" and child.process is not None:
                child.process.send_signal(signal.SIGHUP)

    def wait_alive(self, seconds: float = 10.0) -> None:
        """Wait until every child runs and has the World. Raises FabricError."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with self._lock:
                current = all(child.alive() and child.revision == self.world.revision for child in self.children)
                if current and self._api is not None and self._api.alive():
                    return
            time.sleep(0.02)
        raise FabricError("not every process came back")

    @property
    def api(self) -> Child:
        """The API process."""
        assert self._api is not None, "started"
        return self._api

    # -- enforcing -----------------------------------------------------------------------------------------------------

    def _apply(self, world: World, change: Change | None) -> None:
        """Enforce a new World; returns when the kernel and every process that runs do.

        Raises FabricError when netd cannot: it has put the World before back then, or was killed and gets it at its
        start. A gateway that does not answer is killed, so that none ever works by an older World than was
        acknowledged; it gets the new one when it is started again.
        """
        with self._lock:
            others = []
            for child in self.children:
                if child.required:
                    self._require(child, world, change)
                else:
                    others.append(child)
            self.world = world
            begun = []
            for child in others:  # all are at work at the same time
                with contextlib.suppress(FabricError):
                    child.begin(world, change)
                    begun.append(child)
            for child in begun:
                with contextlib.suppress(FabricError):
                    child.finish(world)

    def _require(self, child: Child, world: World, change: Change | None) -> None:
        """Have a process follow; one that has ended, or ends over it, gets one more chance as a new process."""
        try:
            if child.alive():
                child.send(world, change)
                return
        except FabricError:
            if child.alive():
                raise
        child.start()
        child.send(world)

    def _follow(self, sock: socket.socket) -> None:
        """Enforce what one API process commits, until it ends."""
        with sock:
            while True:
                try:
                    sock.sendall(self._answer(ipc.read_frame(sock)))
                except (EOFError, OSError):
                    return

    def _answer(self, update: bytes) -> bytes:
        try:
            world, change = ipc.read_update(self.world, update)
            self._apply(world, change)
        except (FabricError, WorldError) as error:
            return ipc.failure(str(error))
        return ipc.acknowledgement(world.revision)

    # -- the API process -----------------------------------------------------------------------------------------------

    def _start_api(self) -> socket.socket:
        """Start it and take what it says first: its Opening, and the whole World, which is to be acknowledged."""
        child = self.api
        sock = child.launch()
        sock.settimeout(START_SECONDS)
        try:
            self._open(msgspec.json.decode(ipc.read_frame(sock), type=ipc.Opening))
            sock.sendall(ipc.acknowledgement(0))
            self.world = ipc.updated(None, ipc.read_frame(sock))
        except (OSError, EOFError, WorldError, msgspec.DecodeError) as error:
            sock.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.process.wait(1)  # type: ignore[union-attr]  # launched
            complaint = child.complaint()
            child.kill()  # one that goes on without its feed would never be started again
            raise FabricError(complaint or f"the API process does not start: {error}") from error
        sock.settimeout(None)
        return sock

    def _open(self, opening: ipc.Opening) -> None:
        if opening.root_access_key_id:
            self.on_root_made(opening.root_access_key_id, opening.root_secret_access_key)
        if self._tls is None and opening.certificate:
            self._tls = (
                pki.sealed_copy("certificate", opening.certificate),
                pki.sealed_copy("key", opening.key),
            )
            pki.publish(self.directory / "ca.pem", opening.ca)
            pki.write_bundle(self.bundle, self.directory / "ca.pem")
        pki.publish(self.directory / "ssh-signer.pem", opening.signer_chain)
        pki.publish(self.ssh_root, opening.signer_root)

    def _restart_api(self) -> None:
        try:
            sock = self._start_api()
        except FabricError as error:
            _logger.error("%s", error)
            return
        try:
            self._apply(self.world, None)
        except FabricError as error:
            sock.sendall(ipc.failure(str(error)))
        else:
            sock.sendall(ipc.acknowledgement(self.world.revision))
        self._thread("follow api", lambda: self._follow(sock))

    def _watch(self) -> None:
        while not self._stopping.wait(RESTART_SECONDS):
            try:
                self._look_after_children()
            except (OSError, FabricError, WorldError):  # nobody else would start what ends next
                _logger.exception("a process could not be started or fed; it is tried again")
                self._stopping.wait(TROUBLE_SECONDS)

    def _look_after_children(self) -> None:
        with self._lock:
            for child in self.children:
                if self._stopping.is_set():
                    return
                if not child.alive():
                    if not child.may_start(time.monotonic()):
                        continue
                    child.start()
                if child.revision != self.world.revision:
                    with contextlib.suppress(FabricError):  # its log says why; the next round tries again
                        child.send(self.world)
        if not self.api.alive() and self.api.may_start(time.monotonic()):
            self._restart_api()

    def _thread(self, name: str, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, name=name, daemon=True)
        self._threads = [one for one in self._threads if one.is_alive()] + [thread]
        thread.start()

    # -- directories, sockets, command lines ---------------------------------------------------------------------------

    def _make_directories(self) -> None:
        self.directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        self.directory.chmod(0o755)  # ca.pem and bundle.pem are for everybody
        for name, owner, mode in (
            ("netd", 0, 0o700),
            ("logs", 0, 0o700),
            ("run", 0, 0o711),
            ("audit", 0, 0o711),
            ("audit/gateway", GATEWAY_UID, 0o700),
            ("audit/api", API_UID, 0o700),
            ("store", API_UID, 0o700),
        ):
            path = self.directory / name
            path.mkdir(mode=mode, exist_ok=True)
            path.chmod(mode)
            _give(path, owner)

    def _lock_directory(self) -> None:
        """One `Serve` a state directory: a second one would take the sockets away from the first."""
        self._held = os.open(self.directory / "run" / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._held)
            raise FabricError(f"the state directory {self.directory} is in use by another wicketgate serve") from None

    def _give_key_file(self) -> None:
        """The operator's sealing key, made if need be, belongs to the API process: nobody else has any use for it."""
        if self.configuration.key_file:
            path = Path(self.configuration.key_file)
            seal.ensure_key(path, may_create=not any((self.directory / "store").iterdir()))
            _give(path, API_UID)

    def _api_listener(self) -> socket.socket:
        path = self.api_socket
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(path))
        path.chmod(0o600)
        _give(path, GATEWAY_UID)
        listener.listen(1024)
        return listener

    def _readable(self, path: Path) -> int:
        """A descriptor by which the API process may read a gateway's audit file, and no other.

        The directory is the gateway's: what stands there under that name need not be what it seems. Raises FabricError.
        """
        flags = os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            descriptor = os.open(path, flags, 0o600)
        except OSError as error:
            raise FabricError(f"audit file {path}: {error.strerror}") from error
        status = os.fstat(descriptor)
        ours = status.st_uid in (GATEWAY_UID, os.geteuid())
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1 or not ours:
            os.close(descriptor)
            raise FabricError(
                f"audit file {path} is no file of its own that belongs to the gateway (id {GATEWAY_UID}): "
                "look who put it there, and move it away"
            )
        with contextlib.suppress(OSError):  # where one id is mapped there is nobody to give it to, and no need
            os.fchown(descriptor, GATEWAY_UID, GATEWAY_UID)
        return descriptor

    def _make_children(self) -> None:
        logs = self.directory / "logs"
        pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(self.workers)]
        ends = [pair[0].fileno() for pair in pairs]
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._pairs = [*pairs, (ours, theirs)]
        command = self._netd_command(ends, ours.fileno())
        self.children.append(
            Child("netd", command, [*ends, ours.fileno()], logs / "netd.log", required=True, hidden=NETD_NEEDS_NOT)
        )
        listeners = [listener.fileno() for listener in self.listeners]
        for index, pair in enumerate(pairs):
            inherited = [pair[1].fileno(), *listeners, *(self._tls or ())]
            command = self._gateway_command(index, pair[1].fileno())
            self.children.append(
                Child(
                    f"gateway-{index}",
                    command,
                    inherited,
                    logs / f"gateway-{index}.log",
                    self.environment,
                    hidden=GATEWAY_NEEDS_NOT,
                )
            )
        command = self._metadata_command(theirs.fileno())
        log = logs / "metadata.log"
        self.children.append(
            Child("metadata", command, [theirs.fileno()], log, self.environment, hidden=METADATA_NEEDS_NOT),
        )
        for one in self.companions:
            log = logs / f"{one.name}.log"
            child = Child(
                one.name, one.command, list(one.inherited), log, one.environment, one.required, IDENTITIES | INSIGHTS
            )
            self.children.append(child)

    def _api_command(self, listener: socket.socket, audit: list[int]) -> Callable[[int], list[str]]:
        settings = self.configuration

        def command(feed: int) -> list[str]:
            config = {
                "feed_fd": feed,
                "listen_fd": listener.fileno(),
                "store": str(self.directory / "store"),
                "audit_file": str(self.directory / "audit" / "api" / "api.jsonl"),
                "other_audit_fds": audit,
                "key_file": settings.key_file,
                "identity": msgspec.to_builtins(settings.identity),
                "settings": msgspec.to_builtins(settings.settings),
                "quotas": msgspec.to_builtins(settings.quotas),
                "endpoint_quotas": msgspec.to_builtins(settings.endpoint_quotas),
                "domain": settings.domain,
                "own_certificate": bool(settings.certificate_file),
                "observations": str(self.directory / "run" / "observations.json"),
            }
            return self._confined(API_UID, "wicketgate.api", config)

        return command

    def _metadata_command(self, netd: int) -> Callable[[int], list[str]]:
        def command(feed: int) -> list[str]:
            config = {
                "feed_fd": feed,
                "netd_fd": netd,
                "domain": self.configuration.domain,
                "signer_chain": str(self.directory / "ssh-signer.pem"),
            }
            return self._confined(METADATA_UID, "wicketgate.metadata", config)

        return command

    def _netd_command(self, ends: list[int], metadata: int) -> Callable[[int], list[str]]:
        def command(feed: int) -> list[str]:
            config = {
                "feed_fd": feed,
                "gateway_fds": ends,
                "metadata_fds": [metadata],
                "state_directory": str(self.directory / "netd"),
                "links_file": self.configuration.links_file,
                "observations": str(self.directory / "run" / "observations.json"),
                "log_level": self.configuration.log_level,
            }
            return [sys.executable, "-m", "wicketgate.netd", json.dumps(config)]

        return command

    def _gateway_command(self, index: int, netd: int) -> Callable[[int], list[str]]:
        # The gateway may open neither the operator's key file nor the store: it gets copies in memory.
        certificate, key = (f"/proc/self/fd/{number}" for number in self._tls or ())

        def command(feed: int) -> list[str]:
            config = {
                "feed_fd": feed,
                "netd_fd": netd,
                "listen_fds": [listener.fileno() for listener in self.listeners],
                "certificate": certificate,
                "key": key,
                "audit_file": str(self.gateway_audit_files[index]),
                "api_socket": str(self.api_socket),
                "worker": index,
            }
            return self._confined(GATEWAY_UID, "wicketgate.gateway", config)

        return command

    def _confined(self, user_id: int, module: str, config: Mapping[str, object]) -> list[str]:
        confine = [self.python, "-m", "wicketgate.kernel.confine", str(user_id)]
        told = {**config, "log_level": self.configuration.log_level}
        return [*confine, self.python, "-m", module, json.dumps(told)]


def _give(path: Path, owner: int) -> None:
    with contextlib.suppress(OSError):  # where one id is mapped there is nobody to give it to, and no need
        os.chown(path, owner, owner, follow_symlinks=False)
