"""Starting, restarting and stopping the units, so that a new version or a renewed certificate cuts no tunnel.

netd and the API process are restarted: rules stay in the kernel, tunnels in the gateways, connections in the sockets'
queues. Gateways are replaced: the next letter's instances start on the same sockets, and when they take connections
the old ones are told to take no more (SIGUSR1). They end with their last tunnel. Which letters are in use is asked of
systemd each time: gateways of the upgrade before may still have tunnels, and a run may have been interrupted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from wicketgate.install.manifest import InstallError
from wicketgate.install.plan import LETTERS, SERVICES, SOCKETS, TARGET, TEMPLATE, instances

RESTARTED: Final = ("wicketgate-netd.service", "wicketgate-api.service", "wicketgate-metadata.service")
"""In this order: the kernel first, then who changes it, then who serves from it."""


@dataclass(frozen=True)
class Command:
    """One step, in words and as a command line."""

    words: str
    arguments: tuple[str, ...]
    undo: tuple[str, ...] = ()
    """What to run if it fails."""


def next_letter(before: str, units: Mapping[str, str]) -> str:
    """The letter for new gateways: after `before`, and one that no process has. Raises InstallError.

    `units` are the gateways that systemd knows of: name -> ActiveState.
    """
    busy = {_letter(name) for name, state in units.items() if state not in _ENDED}
    first = LETTERS.find(before) + 1
    letter = next((one for one in LETTERS[first:] + LETTERS[:first] if one not in {before, *busy}), None)
    if letter is None:
        raise InstallError("gateways of every letter still have tunnels: end some, as with systemctl stop "
                           f"'{TEMPLATE.replace('@', f'@{before}*')}'")  # fmt: skip
    return letter


_ENDED: Final = ("inactive", "failed")


def _letter(unit: str) -> str:
    return unit.partition("@")[2][:1]


def start(count: int) -> list[Command]:
    """What starts a new installation. The API process is waited for by itself: only its failing would be told."""
    first = ("wicketgate-netd.service", "wicketgate-api.service")
    return [
        *reload(),
        Command("start netd, then the API process", ("systemctl", "start", *first)),
        Command(f"start {count} gateways and what else there is", ("systemctl", "start", TARGET)),
    ]


def upgrade(units: Mapping[str, str], new: str, count: int) -> list[Command]:
    """What puts a new version in the place of the one that runs."""
    restarts = [Command(f"restart {one}", ("systemctl", "restart", one)) for one in RESTARTED]
    sockets = Command("start sockets that are new", ("systemctl", "start", *SOCKETS, "wicketgate-gateway.service"))
    return [*reload(), sockets, *restarts, *replace(units, new, count)]


def replace(units: Mapping[str, str], new: str, count: int) -> list[Command]:
    """What puts gateways of the letter `new` in the place of all others, without cutting a tunnel.

    Those that do not serve yet, or fail and are started again and again, know no signal: they are stopped.
    """
    others = {name: state for name, state in units.items() if _letter(name) != new}
    starting = sorted(name for name, state in others.items() if state == "activating")
    serving = sorted({_letter(name) for name, state in others.items() if state not in (*_ENDED, "activating")})
    wanted = instances(new, count)
    stop_new = ("systemctl", "stop", *wanted)
    return [
        *([Command(f"stop {', '.join(starting)}: not serving yet", ("systemctl", "stop", *starting))] * bool(starting)),
        Command(f"start gateways {new}0 to {new}{count - 1}", ("systemctl", "start", *wanted), undo=stop_new),
        *(Command(f"drain gateways {letter}*: they end with their last tunnel", (
            "systemctl", "kill", "--signal=SIGUSR1", "--kill-who=main", TEMPLATE.replace("@", f"@{letter}*")))
          for letter in serving),
    ]  # fmt: skip


def stop(units: Mapping[str, str]) -> list[Command]:
    """What ends everything that systemd knows of, the gateways first: name -> ActiveState."""
    gateways = sorted(name for name in units if _letter(name))
    rest = [name for name in (TARGET, *SERVICES, *SOCKETS) if name in units]
    return [
        *([Command("stop the gateways: tunnels that are open are cut", ("systemctl", "stop", *gateways))]
          if gateways else []),
        *([Command("stop what else runs", ("systemctl", "stop", *rest))] if rest else []),
    ]  # fmt: skip


def reload() -> list[Command]:
    """Have systemd read units that changed."""
    return [Command("have systemd read its units", ("systemctl", "daemon-reload"))]


def follow(commands: Sequence[Command], run: Callable[[Sequence[str]], str], say: Callable[[str], None]) -> None:
    """Run commands in their order, each said before it is begun. Raises InstallError."""
    for command in commands:
        say(command.words)
        try:
            run(command.arguments)
        except InstallError:
            if command.undo:
                run(command.undo)
            raise
