"""`python -m wicketgate.gateway CONFIG`: started by `serve`, unprivileged, its sockets inherited."""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
import socket
import sys
from collections.abc import Awaitable
from pathlib import Path

import msgspec
import uvloop

from wicketgate.admit import admit, review
from wicketgate.audit import AuditLog
from wicketgate.explain import why_not
from wicketgate.follow import follow
from wicketgate.gateway.config import GatewayConfig, GatewayError, check_unprivileged, tls_context
from wicketgate.gateway.netd_client import NetdChannel
from wicketgate.gateway.server import Gateway
from wicketgate.model import WicketgateError, World

_logger = logging.getLogger("wicketgate.gateway")


class _Worker:
    """The parts of the process, put together when the first World arrives."""

    def __init__(self, config: GatewayConfig) -> None:
        self._config = config
        self._tls = tls_context(Path(config.certificate), Path(config.key))
        self._audit = AuditLog(Path(config.audit_file), descriptor=config.audit_fd)
        self._netd = NetdChannel(socket.socket(fileno=config.netd_fd))
        self._gateway: Gateway | None = None

    async def run(self) -> None:
        """Serve until the feed ends or SIGTERM comes."""
        recovery = self._audit.start()
        if recovery.closed:
            _logger.warning("wrote the close lines of %d tunnels of an earlier process", len(recovery.closed))
        self._netd.start()
        following = asyncio.ensure_future(follow(socket.socket(fileno=self._config.feed_fd), self._enforce))
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, following.cancel)
        try:
            await asyncio.wait([following])
            if self._gateway is not None:
                await self._gateway.stop()
        finally:
            self._netd.close()
            self._audit.stop()

    def _enforce(self, world: World) -> Awaitable[None] | None:
        if self._gateway is not None:
            return self._gateway.enforce(world)
        # Nothing is accepted before there is something to decide by: connections wait in the listener's queue.
        self._gateway = Gateway(
            world,
            dialer=self._netd,
            audit=self._audit,
            admit=admit,
            why_not=why_not,
            review=review,
            tls=self._tls,
            head_timeout=self._config.head_timeout,
            api_socket=self._config.api_socket,
        )
        self._gateway.start([socket.socket(fileno=fd) for fd in self._config.listen_fds])
        return None


def main() -> int:
    """Run one worker; the exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends `serve`, and its going ends us
    try:
        config = _read_config()
        logging.basicConfig(level=config.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        if not config.allow_capabilities:
            check_unprivileged(Path("/proc/self/status").read_text())
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a tunnel takes three descriptors
        uvloop.run(_Worker(config).run())
    except WicketgateError as error:
        sys.stderr.write(f"wicketgate gateway: {error}\n")
        return 1
    return 0


def _read_config() -> GatewayConfig:
    try:
        return msgspec.json.decode(sys.argv[1], type=GatewayConfig)
    except IndexError:
        raise GatewayError("the configuration is missing: one argument, a JSON object") from None
    except msgspec.DecodeError as error:
        raise GatewayError(f"the configuration cannot be read: {error}") from error


if __name__ == "__main__":
    sys.exit(main())
