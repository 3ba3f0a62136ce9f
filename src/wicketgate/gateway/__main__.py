"""`python -m wicketgate.gateway CONFIG`: started by `serve`, unprivileged, its sockets inherited."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import socket
import ssl
import sys
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from wicketgate import ipc, pki
from wicketgate.admit import admit, review
from wicketgate.audit import AuditLog
from wicketgate.explain import why_not
from wicketgate.follow import Follower, follow, keep_following
from wicketgate.gateway.config import GatewayConfig, GatewayError, check_unprivileged, tls_context
from wicketgate.gateway.netd_client import NetdChannel
from wicketgate.gateway.server import Gateway
from wicketgate.model import WicketgateError, World

_logger = logging.getLogger("wicketgate.gateway")


class _Worker:
    """The parts of the process, put together when the first World arrives."""

    def __init__(self, config: GatewayConfig) -> None:
        self._config = config
        self._tls = tls_context(Path(config.certificate), Path(config.key)) if config.certificate else None
        self._audit = AuditLog(Path(config.audit_file), descriptor=config.audit_fd, shared=config.audit_shared)
        if config.netd_fd is not None:
            self._netd = NetdChannel(socket.socket(fileno=config.netd_fd))
        else:
            self._netd = NetdChannel(connect=self._netd_connection)
        self._listeners = [socket.socket(fileno=fd) for fd in config.listen_fds]
        self._gateway: Gateway | None = None
        self._draining: asyncio.Future[None] | None = None
        self._over = asyncio.Event()

    def _netd_connection(self) -> socket.socket:
        return ipc.connect(self._config.netd_path, socket.SOCK_SEQPACKET, 0)

    async def run(self) -> None:
        """Serve until an inherited feed ends, SIGTERM comes, or SIGUSR1 and the end of the last connection."""
        recovery = self._audit.start()
        if recovery.closed:
            _logger.warning("wrote the close lines of %d tunnels of an earlier process", len(recovery.closed))
        self._netd.start()
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_report)
        following = asyncio.ensure_future(self._follow())
        following.add_done_callback(lambda _: self._over.set())
        loop.add_signal_handler(signal.SIGTERM, self._over.set)
        loop.add_signal_handler(signal.SIGUSR1, self._drain)
        loop.add_signal_handler(signal.SIGHUP, self._audit.reopen)
        try:
            await self._over.wait()
            if following.done() and not following.cancelled():
                following.result()
            following.cancel()
            if self._gateway is not None:
                await self._gateway.stop()
        finally:
            self._netd.close()
            self._audit.stop()

    async def _follow(self) -> None:
        if self._config.feed_fd is not None:
            await follow(socket.socket(fileno=self._config.feed_fd), self._enforce_first)
            return
        follower = Follower(self._enforce, opened=self._opened, current=self._current, lost=self._lost)
        await keep_following(self._config.feed_path, self._config.feed_owner, follower)

    # -- the feed ------------------------------------------------------------------------------------------------------

    def _enforce_first(self, world: World) -> Awaitable[None] | None:
        """With `serve`: a World that has come is the last, for `serve` acknowledges none without us."""
        first = self._gateway is None
        rest = self._enforce(world)
        if first:
            self._current()
        return rest

    def _opened(self, opening: ipc.Opening) -> None:
        """Certificate and key of the API process's, perhaps new ones. Raises GatewayError.

        An API process that has none is one that knows of the operator's: whoever serves with an older one of its own
        is about to be replaced, and keeps it for the tunnels it has.
        """
        if self._config.certificate or not opening.certificate:
            return
        copies = [pki.sealed_copy("certificate", opening.certificate), pki.sealed_copy("key", opening.key)]
        certificate, key = (Path(f"/proc/self/fd/{number}") for number in copies)
        try:
            self._tls = tls_context(certificate, key)
        finally:
            for number in copies:
                os.close(number)
        if self._gateway is not None:
            self._gateway.renew_tls(self._tls)

    def _enforce(self, world: World) -> Awaitable[None] | None:
        if self._gateway is not None:
            return self._gateway.enforce(world)
        if self._tls is None:
            raise GatewayError("there is no certificate: neither the operator's, nor one of the API process's own")
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
        self._gateway.start([])
        return None

    def _current(self) -> None:
        assert self._gateway is not None, "a World comes first"
        self._gateway.listen(self._listeners)
        ipc.ready()

    def _lost(self) -> None:
        if self._gateway is not None:
            self._gateway.hold()

    # -- draining ------------------------------------------------------------------------------------------------------

    def _drain(self) -> None:
        if self._gateway is None:
            self._over.set()
        elif self._draining is None:
            self._draining = asyncio.ensure_future(self._gateway.drain())
            self._draining.add_done_callback(lambda _: self._over.set())


def serve(config: GatewayConfig) -> int:
    """Run one worker; the exit code."""
    logging.basicConfig(level=config.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        if not config.allow_capabilities:
            check_unprivileged(Path("/proc/self/status").read_text())
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a tunnel takes three descriptors
        uvloop.run(_run(config))
    except WicketgateError as error:
        sys.stderr.write(f"wicketgate gateway: {error}\n")
        return 1
    return 0


async def _run(config: GatewayConfig) -> None:
    await _Worker(config).run()


def _report(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what the event loop caught. Whatever a client does in its TLS handshake is no error of ours.

    aiofastnet gives a class in the place of an exception when a client goes in the middle of it.
    """
    error = context.get("exception")
    kind = error if isinstance(error, type) else type(error)
    if issubclass(kind, (ssl.SSLError, ConnectionError)):
        _logger.debug("a client: %s", error)
    else:
        caught = error if isinstance(error, BaseException) else None
        _logger.error("%s: %r", context.get("message"), error, exc_info=caught)


def main() -> int:
    """Run one worker of `serve`'s; the exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends `serve`, and its going ends us
    try:
        return serve(_read_config())
    except WicketgateError as error:
        sys.stderr.write(f"wicketgate gateway: {error}\n")
        return 1


def _read_config() -> GatewayConfig:
    try:
        return msgspec.json.decode(sys.argv[1], type=GatewayConfig)
    except IndexError:
        raise GatewayError("the configuration is missing: one argument, a JSON object") from None
    except msgspec.DecodeError as error:
        raise GatewayError(f"the configuration cannot be read: {error}") from error


if __name__ == "__main__":
    sys.exit(main())
