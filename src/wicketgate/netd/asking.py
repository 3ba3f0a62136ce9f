"""What netd tells on its own host, through a Unix socket that only root can reach: the World it enforces, and what its
rules let through. `wicketgate rules` asks.

An answer may be megabytes and who asks may be slow: it gets a file in memory, and netd waits for nobody.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Final

import msgspec

from wicketgate.model import FabricError, World
from wicketgate.netd.counters import Totals

SOCKET: Final = "ask.sock"
"""Its name in netd's directory."""
_SECONDS: Final = 30.0
"""How long who asks waits: netd may be putting a large World into the kernel."""


class Answer(msgspec.Struct, frozen=True):
    """What is in force. The World is as far as netd knows it: without anybody's keys and policies."""

    world: World
    totals: Totals | None
    """None when nothing is counted (the setting `rule_counters`)."""


def listen(directory: Path) -> socket.socket:
    """The listening socket in netd's directory, in the place of an earlier netd's."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = directory / SOCKET
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    path.chmod(0o600)
    listener.listen(128)
    listener.setblocking(False)
    return listener


def answer(listener: socket.socket, told: Answer) -> None:
    """Answer one who asks; who is gone again gets nothing."""
    try:
        asking, _ = listener.accept()
    except OSError:
        return
    memory = os.memfd_create("answer", os.MFD_CLOEXEC)
    with asking, os.fdopen(memory, "wb") as file:
        try:
            file.write(msgspec.json.encode(told))
            file.flush()
            asking.setblocking(False)
            socket.send_fds(asking, [b"\0"], [memory])
        except OSError:
            return


def ask(directory: Path) -> Answer:
    """Ask the netd of a directory. Raises FabricError when it cannot be reached, PermissionError for want of rights."""
    path = directory / SOCKET
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(_SECONDS)
        try:
            sock.connect(str(path))
            _, descriptors, _, _ = socket.recv_fds(sock, 1, 1)
        except PermissionError:
            raise
        except OSError as error:
            raise FabricError(f"netd does not answer on {path}: {error.strerror or error}") from error
        if not descriptors:
            raise FabricError(f"netd ended while it was asked on {path}")
        with os.fdopen(descriptors[0], "rb") as file:
            file.seek(0)
            return msgspec.json.decode(file.read(), type=Answer)
