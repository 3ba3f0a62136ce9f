"""Starting, restarting and stopping the units, so that a new version or a renewed certificate cuts no tunnel.

netd and the API process are restarted: rules stay in the kernel, tunnels in the gateways, connections in the sockets'
queues. Gateways are replaced: the other letter's instances start on the same sockets, and when they take connections
the old ones are told to take no more (SIGUSR1). They end with their last tunnel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from wicketgate.install.plan import LETTERS, SERVICES, SOCKETS, TARGET, TEMPLATE, instances

RESTARTED: Final = ("wicketgate-netd.service", "wicketgate-api.service", "wicketgate-metadata.service")
"""In this order: the kernel first, then who changes it, then who serves from it."""

ALL_GATEWAYS: Final = TEMPLATE.replace("@", "@*")


@dataclass(frozen=True)
class Command:
    """One step, in words and as a command line."""

    words: str
    arguments: tuple[str, ...]


def other(letter: str) -> str:
    """The letter that is not in service."""
    return next(one for one in LETTERS if one != letter)


def start(count: int) -> list[Command]:
    """What starts a new installation. The API process is waited for by itself: only its failing would be told."""
    first = ("wicketgate-netd.service", "wicketgate-api.service")
    return [
        *reload(),
        Command("start netd, then the API process", ("systemctl", "start", *first)),
        Command(f"start {count} gateways and what else there is", ("systemctl", "start", TARGET)),
    ]


def upgrade(old: str, new: str, count: int) -> list[Command]:
    """What puts a new version in the place of the one that runs."""
    restarts = [Command(f"restart {one}", ("systemctl", "restart", one)) for one in RESTARTED]
    sockets = Command("start sockets that are new", ("systemctl", "start", *SOCKETS, "wicketgate-gateway.service"))
    return [*reload(), sockets, *restarts, *replace(old, new, count)]


def replace(old: str, new: str, count: int) -> list[Command]:
    """What puts gateways of the letter `new` in the place of those of `old`, without cutting a tunnel."""
    gone = TEMPLATE.replace("@", f"@{old}*")
    return [
        Command(f"start gateways {new}0 to {new}{count - 1}", ("systemctl", "start", *instances(new, count))),
        Command(f"drain gateways {old}*: they end with their last tunnel", (
            "systemctl", "kill", "--signal=SIGUSR1", "--kill-who=main", gone)),
    ]  # fmt: skip


def stop() -> list[Command]:
    """What ends everything, the gateways first."""
    return [
        Command("stop the gateways: tunnels that are open are cut", ("systemctl", "stop", ALL_GATEWAYS)),
        Command("stop what else runs", ("systemctl", "stop", TARGET, *SERVICES, *SOCKETS)),
    ]


def reload() -> list[Command]:
    """Have systemd read units that changed."""
    return [Command("have systemd read its units", ("systemctl", "daemon-reload"))]


def follow(commands: Sequence[Command], run: Callable[[Sequence[str]], str], say: Callable[[str], None]) -> None:
    """Run commands in their order, each said before it is begun. Raises InstallError."""
    for command in commands:
        say(command.words)
        run(command.arguments)
