"""`python -m wicketgate.metadata CONFIG`: started by `serve`, unprivileged, its sockets inherited."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
from pathlib import Path

import msgspec

from wicketgate.follow import follow
from wicketgate.metadata.config import MetadataConfig, MetadataError
from wicketgate.metadata.listeners import Listeners
from wicketgate.metadata.server import Metadata
from wicketgate.model import WicketgateError, World


async def run(config: MetadataConfig) -> None:
    """Serve until the feed ends or SIGTERM comes."""
    metadata = Metadata(config.domain, Path(config.signer_chain))
    listeners = Listeners(socket.socket(fileno=config.netd_fd), metadata.serve)

    def enforce(world: World) -> None:
        listeners.want(metadata.enforce(world))

    following = asyncio.ensure_future(follow(socket.socket(fileno=config.feed_fd), enforce))
    listening = asyncio.ensure_future(listeners.run())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, following.cancel)
    await asyncio.wait([following, listening], return_when=asyncio.FIRST_COMPLETED)
    if listening.done():
        listening.result()  # it ends only by an error
    listening.cancel()


def main() -> int:
    """Run; the exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends `serve`, and its going ends us
    try:
        config = _read_config()
        logging.basicConfig(level=config.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        asyncio.run(run(config))
    except WicketgateError as error:
        sys.stderr.write(f"wicketgate metadata: {error}\n")
        return 1
    return 0


def _read_config() -> MetadataConfig:
    try:
        return msgspec.json.decode(sys.argv[1], type=MetadataConfig)
    except IndexError:
        raise MetadataError("the configuration is missing: one argument, a JSON object") from None
    except msgspec.DecodeError as error:
        raise MetadataError(f"the configuration cannot be read: {error}") from error


if __name__ == "__main__":
    sys.exit(main())
