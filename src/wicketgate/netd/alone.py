"""One netd in a network namespace: two would take each other's namespaces and rules for left-overs of their own."""

from __future__ import annotations

import errno
import logging
import os
import socket
from typing import Final

from wicketgate import ipc
from wicketgate.model import FabricError

_logger = logging.getLogger("wicketgate.netd")

NAME: Final = "\0wicketgate-netd"
"""Abstract names (unix(7)) belong to the network namespace, and go with the process that holds them."""


def stand_alone() -> socket.socket | None:
    """Take this network namespace; the socket holds it. Raises FabricError when another netd has it.

    Any user may take such a name: one that is not ours is no netd, and keeps none from starting. None then.
    """
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
    try:
        with ipc.connect(NAME, socket.SOCK_STREAM, os.geteuid()):
            pass
    except PermissionError as error:
        _logger.warning("somebody holds the name of netd in this network namespace, which is no netd: %s", error)
        return
    except OSError:  # bound and not yet listening, or its queue is full of others who asked: it is a netd
        pass
    raise FabricError(
        "another netd runs in this network namespace, and all of our namespaces here are its own: "
        "stop it first, or start this one in a network namespace of its own"
    )
