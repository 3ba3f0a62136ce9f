"""`python -m wicketgate.lab.agent CONFIG`: switches the lab's machines on and off as the World has them.

It follows the World as netd does, after netd, which has made an instance's network namespace by then. `pending` and
`running` instances have an sshd that listens, all others have no process left, and the files of one that is gone are
removed. What is acknowledged is so; a machine that does not start is refused in words, and what the same Update asked
for besides is undone. Machines outlive this process: a restarted one finds them, with the sessions in them.

Who may log in: the lab's own key, always, as `ec2-user`, the one account of every machine (without root an sshd can
serve one account only, so there is no other in either mode), and keys that were pushed, while they are not over:

    all ids mapped   sshd asks keycommand/wicketgate_keycommand.py, as it would on anybody's machine
    one id mapped    sshd takes no AuthorizedKeysCommand from us: a file per machine and account, written before the
                     acknowledgement, each line with its `expiry-time`, so that sshd ends it even if we cannot

The names of the API and of all endpoints are kept in the sandbox's hosts file, so that who was told about an endpoint
can reach it.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import signal
import socket
import sys
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from wicketgate import ipc
from wicketgate.daemon import Companion
from wicketgate.lab import keys, sandbox, sshd
from wicketgate.lab.machines import ACCOUNT
from wicketgate.lab.sshd import Machine, write
from wicketgate.model import FabricError, PushedKey, World, WorldError
from wicketgate.tunnel.names import public_names

_logger = logging.getLogger("wicketgate.agent")

ON: Final = frozenset({"pending", "running"})
START_SECONDS: Final = 20.0
"""How long machines may take until they listen; less than `serve` waits for us."""
POLL_SECONDS: Final = 0.005
PAUSES: Final = 0.2, 10.0
"""Seconds before a machine that ended by itself is started again: the first time, and at most, doubling between."""
API_NAMES: Final = ("ec2", "iam", "sts", "ec2-instance-connect", "cloudtrail")


_KEYS_IN: Final = ("instances", "pushed_keys")
"""Fields of the World that say what the files of pushed keys hold."""


class AgentConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `serve` tells the agent at start."""

    feed_fd: int
    """Stream socket: Worlds come in, acknowledgements go out; its end is our end, and the machines stay on."""
    domain: str
    """DNS domain of the API and the endpoints."""
    gateway_address: str
    authorized_key: str
    """Public key line that may always log in."""
    hosts_file: str
    ssh_root: str = ""
    """PEM file: the root certificate that the signer of pushed keys is checked by. Empty: pushed keys are files."""
    key_command: str = ""
    python: str = ""
    """The interpreter for the key command, one that every account can read."""


def companion(
    *,
    domain: str,
    gateway_address: str,
    authorized_key: str,
    ssh_root: Path | None = None,
    hosts_file: Path = Path("/etc/hosts"),
    key_command: Path = keys.COMMAND,
    python: str = "/usr/bin/python3",
) -> Companion:
    """The agent, for `Serve.companions`. It is required: instances that do not start are no success of RunInstances.

    `authorized_key`: the public key line that logs in as ec2-user everywhere. `ssh_root`: PEM file of the SSH signer's
    root, there when the agent starts; None, or a sandbox without all ids: pushed keys are taken from the World.
    `python`: the interpreter for the key command, one that every account can read. `hosts_file` is replaced.
    """

    def command(feed: int) -> list[str]:
        config = AgentConfig(
            feed_fd=feed,
            domain=domain,
            gateway_address=gateway_address,
            authorized_key=authorized_key,
            hosts_file=str(hosts_file),
            ssh_root=str(ssh_root or ""),
            key_command=str(key_command),
            python=python,
        )
        return [sys.executable, "-m", "wicketgate.lab.agent", msgspec.json.encode(config).decode()]

    return Companion("machines", command, required=True)


@dataclass
class Agent:
    """What is on, and the World that was acknowledged last. `run` returns when `serve` is gone."""

    config: AgentConfig
    world: World | None = None
    machines: dict[str, Machine] = field(default_factory=dict)
    """Instance id -> machine, of those that are or were to be on."""
    on: set[str] = field(default_factory=set)
    """Ids of the instances that are to be on."""
    _selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)
    _again: dict[str, float] = field(default_factory=dict)
    """Instance id -> when (monotonic) its machine is to be started again."""
    _proving: dict[str, float] = field(default_factory=dict)
    """Instance id -> until when (monotonic) a machine that was started again may take to listen."""
    _pauses: dict[str, float] = field(default_factory=dict)
    _key_texts: dict[str, str] = field(default_factory=dict)
    """Instance id -> what its file of pushed keys holds."""
    _filed: list[PushedKey] = field(default_factory=list)
    """The keys in those files."""
    _hosts: str = ""
    _command: str = ""

    def run(self) -> None:
        """Serve until the feed ends. Machines stay as they are."""
        if self.config.ssh_root and sandbox.all_ids():
            self._command = keys.install_command(self.config.key_command, self.config.python, self.config.ssh_root)
        feed = socket.socket(fileno=self.config.feed_fd)
        feed.setblocking(True)
        self._selector.register(feed, selectors.EVENT_READ)
        for name, pid in sshd.running().items():
            machine = self.machines[name] = Machine(name)
            if machine.adopt(pid):
                self._selector.register(machine.descriptor, selectors.EVENT_READ, machine)
        while True:
            for key, _ in self._selector.select(self._timeout()):
                if key.data is not None:
                    self._ended(key.data)
                    continue
                try:
                    self._read_update(feed)
                except EOFError:
                    return
            self._due()

    def _read_update(self, feed: socket.socket) -> None:
        data = ipc.read_frame(feed)
        try:
            world = ipc.updated(self.world, data)
            self._enforce(world)
        except (FabricError, WorldError) as error:
            _logger.error("an Update that cannot be followed: %s", error)
            feed.sendall(ipc.failure(str(error)))
            return
        self.world = world
        feed.sendall(ipc.acknowledgement(world.revision))

    # -- what a World asks for -----------------------------------------------------------------------------------------

    def _enforce(self, world: World) -> None:
        """Make it so. Raises FabricError, and then the machines of the World before are on, and no others."""
        before = self.world or World()
        if self.world is None or world.instances is not before.instances:
            wanted = {one.id for one in world.instances if one.state in ON and not one.is_external}
            self._switch_on({name for name in wanted if name not in self.on or not self._at_home(name)})
            self._switch_off(self.machines.keys() - wanted)
            self.on = wanted
            _sweep(_with_files(world))
        try:
            if self.world is None or any(getattr(world, one) is not getattr(before, one) for one in _KEYS_IN):
                self._write_keys(world.pushed_keys)
            if self.world is None or world.endpoints is not before.endpoints:
                self._write_hosts(world)
        except OSError as error:
            raise FabricError(f"cannot write {error.filename}: {error.strerror}") from error

    def _at_home(self, name: str) -> bool:
        """Whether a machine that is on is where its instance is: a namespace may have been made anew."""
        machine = self.machines.get(name)
        if machine is None:
            return False
        return not machine.alive() or machine.at_home()  # one that ended by itself is being seen to

    def _switch_on(self, names: Collection[str]) -> None:
        """Have these machines listen, all at once. Raises FabricError: then those that were off are off again."""
        strays = [one for name in names if (one := self.machines.get(name)) and one.alive() and not one.at_home()]
        self._switch_off([machine.id for machine in strays])
        started = [machine for name in sorted(names) if not (machine := self._machine(name)).alive()]
        problems = {}
        for machine in started:
            try:
                self._start(machine)
            except (OSError, FabricError) as error:
                problems[machine.id] = str(error)
        problems |= _listening([self.machines[name] for name in names if name not in problems], START_SECONDS)
        if problems:
            self._switch_off([machine.id for machine in started])
            if self.world is not None:
                _sweep(_with_files(self.world))
            raise FabricError("; ".join(f"sshd of {name} does not start: {why}" for name, why in problems.items()))

    def _machine(self, name: str) -> Machine:
        return self.machines.setdefault(name, Machine(name))

    def _start(self, machine: Machine) -> None:
        machine.lay_out(self.config.authorized_key, self._command)
        machine.switch_on()
        self._selector.register(machine.descriptor, selectors.EVENT_READ, machine)

    def _switch_off(self, names: Collection[str]) -> None:
        """Have nothing left of these machines. Raises FabricError."""
        ending = [self.machines[name] for name in names]
        for machine in ending:
            machine.switch_off()
        for machine in ending:
            self._let_go(machine)
            machine.wait()
            del self.machines[machine.id]
            for memory in (self._again, self._proving, self._pauses, self._key_texts):
                memory.pop(machine.id, None)

    def _let_go(self, machine: Machine) -> None:
        if machine.descriptor >= 0:
            with contextlib.suppress(KeyError):
                self._selector.unregister(machine.descriptor)

    # -- machines that end by themselves -------------------------------------------------------------------------------

    def _ended(self, machine: Machine) -> None:
        if self.machines.get(machine.id) is not machine or machine.alive():
            return  # the same round of `select` has seen to it
        self._let_go(machine)
        machine.forget()
        self._proving.pop(machine.id, None)
        if machine.id in self.on:
            first, longest = PAUSES
            pause = self._pauses.get(machine.id, first)
            self._pauses[machine.id] = min(2 * pause, longest)
            self._again[machine.id] = time.monotonic() + pause
            _logger.warning("sshd of %s ended; it is started again in %.1f s", machine.id, pause)

    def _due(self) -> None:
        """Do what the time has come for."""
        now = time.monotonic()
        for name in [name for name, when in self._again.items() if when <= now]:
            del self._again[name]
            self._try_again(self.machines[name])
        for name, until in list(self._proving.items()):
            machine = self.machines[name]
            if machine.listening():
                del self._proving[name]
                self._pauses.pop(name, None)
            elif (problem := machine.problem()) or until <= now:
                _logger.error("sshd of %s does not start: %s", name, problem or "it does not listen")
                machine.switch_off()  # and so `_ended` comes to know
                del self._proving[name]
        if any(key.expires <= time.time() for key in self._filed):
            with contextlib.suppress(OSError):  # sshd ends them by itself
                self._write_keys(self._filed)

    def _try_again(self, machine: Machine) -> None:
        try:
            self._start(machine)
        except (OSError, FabricError) as error:
            _logger.error("sshd of %s does not start: %s", machine.id, error)
            self._again[machine.id] = time.monotonic() + PAUSES[1]
        else:
            self._proving[machine.id] = time.monotonic() + START_SECONDS

    def _timeout(self) -> float | None:
        """Seconds until something is due."""
        if self._proving:
            return 10 * POLL_SECONDS
        waits = [when - time.monotonic() for when in self._again.values()]
        waits += [key.expires - time.time() for key in self._filed]
        return max(0.0, min(waits)) if waits else None

    # -- files ---------------------------------------------------------------------------------------------------------

    def _write_keys(self, pushed: Collection[PushedKey]) -> None:
        """Put the keys that are not over where sshd looks for them, unless it asks for them itself."""
        if self._command:
            return
        now = time.time()
        self._filed = [
            one for one in pushed if one.expires > now and one.os_user == ACCOUNT and one.instance_id in self.on
        ]
        texts = dict.fromkeys(self.on, "")
        for key in self._filed:
            texts[key.instance_id] += keys.line(key)
        for name, text in texts.items():
            if self._key_texts.get(name) != text:
                self.machines[name].write_pushed_keys(ACCOUNT, text)
                self._key_texts[name] = text

    def _write_hosts(self, world: World) -> None:
        names = [f"api.{self.config.domain}"]
        names += [f"{service}.{world.region}.{self.config.domain}" for service in API_NAMES]
        names += [name for endpoint in world.endpoints for name in public_names(endpoint.dns_name)]
        text = "127.0.0.1 localhost\n" + "".join(f"{self.config.gateway_address} {name}\n" for name in names)
        if text != self._hosts:
            write(Path(self.config.hosts_file), text)
            self._hosts = text


def _listening(machines: Collection[Machine], seconds: float) -> dict[str, str]:
    """Wait until all of them listen, or will not. Returns instance id -> why it does not."""
    problems: dict[str, str] = {}
    deadline = time.monotonic() + seconds
    waiting = list(machines)
    while waiting := [one for one in waiting if not one.listening()]:
        over = f"it does not listen after {seconds:g} s" if time.monotonic() > deadline else ""
        problems |= {one.id: problem for one in waiting if (problem := one.problem() or over)}
        waiting = [one for one in waiting if one.id not in problems]
        time.sleep(POLL_SECONDS)
    return problems


def _with_files(world: World) -> set[str]:
    """Ids of the instances whose machines may come back."""
    return {one.id for one in world.instances if one.state != "terminated"}


def _sweep(ids: Collection[str]) -> None:
    """Remove the files of all other machines."""
    for path in sshd.MACHINES.iterdir() if sshd.MACHINES.is_dir() else ():
        if path.name not in ids:
            Machine(path.name).remove()


def main() -> int:
    """Run until `serve` is gone; the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends `serve`, and its going ends us
    if not sandbox.inside():
        sys.stderr.write("wicketgate: the agent runs inside the lab's sandbox only\n")
        return 1
    try:
        Agent(msgspec.json.decode(sys.argv[1], type=AgentConfig)).run()
    except FabricError as error:
        sys.stderr.write(f"wicketgate: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
