"""`python -m wicketgate.metadata CONFIG`: started by `serve`, unprivileged, its sockets inherited."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import signal
import socket
import sys
from pathlib import Path

import msgspec

from wicketgate import ipc
from wicketgate.follow import Follower, follow, keep_following
from wicketgate.metadata.config import MetadataConfig, MetadataError
from wicketgate.metadata.listeners import Listeners
from wicketgate.metadata.server import Metadata
from wicketgate.model import WicketgateError, World


async def run(config: MetadataConfig) -> None:
    """Serve until an inherited feed ends or SIGTERM comes."""
    metadata = Metadata(config.domain, Path(config.signer_chain))
    listeners = Listeners(functools.partial(_netd, config), metadata.serve)

    def enforce(world: World) -> None:
        listeners.want(metadata.enforce(world))

    if config.feed_fd is not None:
        feed = follow(socket.socket(fileno=config.feed_fd), enforce)
    else:
        feed = keep_following(config.feed_path, config.feed_owner, Follower(enforce, current=ipc.ready))
    following = asyncio.ensure_future(feed)
    listening = asyncio.ensure_future(listeners.run())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, following.cancel)
    await asyncio.wait([following, listening], return_when=asyncio.FIRST_COMPLETED)
    if listening.done():
        listening.result()  # it ends only by an error
    listening.cancel()


def _netd(config: MetadataConfig) -> socket.socket:
    """The socket to netd; raises OSError when it does not listen."""
    if config.netd_fd is not None:
        return socket.socket(fileno=os.dup(config.netd_fd))
    return ipc.connect(config.netd_path, socket.SOCK_SEQPACKET, 0)


def serve(config: MetadataConfig) -> int:
    """Run until the end; the exit code."""
    logging.basicConfig(level=config.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        asyncio.run(run(config))
    except WicketgateError as error:
        sys.stderr.write(f"wicketgate metadata: {error}\n")
        return 1
    return 0


def main() -> int:
    """Run as a process of `serve`'s; the exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends `serve`, and its going ends us
    try:
        return serve(_read_config())
    except WicketgateError as error:
        sys.stderr.write(f"wicketgate metadata: {error}\n")
        return 1


def _read_config() -> MetadataConfig:
    try:
        return msgspec.json.decode(sys.argv[1], type=MetadataConfig)
    except IndexError:
        raise MetadataError("the configuration is missing: one argument, a JSON object") from None
    except msgspec.DecodeError as error:
        raise MetadataError(f"the configuration cannot be read: {error}") from error


if __name__ == "__main__":
    sys.exit(main())
