"""One netd in a network namespace: two would take each other's namespaces and rules for left-overs of their own."""

from __future__ import annotations

import errno
import logging
import os
import socket
import time
from typing import Final

from wicketgate.kernel.socket_owners import owner_of
from wicketgate.model import FabricError

_logger = logging.getLogger("wicketgate.netd")

NAME: Final = "\0wicketgate-netd"
"""Abstract names (unix(7)) belong to the network namespace, and go with the process that holds them."""


PATIENCE: Final = 3.0
"""Seconds in which the netd before may come to its end, when whoever started it was killed and started again."""


def stand_alone(patience: float = PATIENCE) -> socket.socket | None:
    """Take this network namespace; the socket holds it. Raises FabricError when another netd has it, for so many
    seconds.

    Any user may take such a name: one that is not ours is no netd, and keeps none from starting. None then.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            return _taken()
        except FabricError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.05)


def _taken() -> socket.socket | None:
    held = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        held.bind(NAME)
        held.listen(1)
    except OSError as error:
        held.close()
        if error.errno != errno.EADDRINUSE:
            raise FabricError(f"this network namespace cannot be taken: {error.strerror}") from error
        _look_who_has_it()
        return None
    return held


def _look_who_has_it() -> None:
    """Raise FabricError unless the name is somebody's who can be no netd."""
    try:
        owner = owner_of(NAME)
    except OSError as error:
        _logger.warning("whose the name of netd is in this network namespace is not known: %s", error.strerror or error)
        owner = 0
    if owner is not None and owner not in (0, os.geteuid()):  # None: it was given up just now
        _logger.warning("user %s holds the name of netd in this network namespace, and is no netd", owner)
        return
    raise FabricError(
        "another netd runs in this network namespace, and all of our namespaces here are its own: "
        "stop it first, or start this one in a network namespace of its own"
    )
