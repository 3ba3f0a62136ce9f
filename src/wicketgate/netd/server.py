"""The loop of netd: Worlds from the feed, dial requests from the gateways; one thread, nothing in it waits."""

from __future__ import annotations

import errno
import logging
import os
import selectors
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from wicketgate import ipc
from wicketgate.kernel.dial import dial
from wicketgate.kernel.fabric import Fabric
from wicketgate.kernel.outlines import Happenings
from wicketgate.model import CONNECTABLE_STATES, Endpoint, FabricError, World, WorldError
from wicketgate.netd import asking, listeners
from wicketgate.netd.counters import Counters
from wicketgate.netd.reuse import UrlMemory
from wicketgate.netd.revocation import Revocation
from wicketgate.netd.slots import Slots
from wicketgate.tunnel.dial import DialReply, DialRequest, RefusalKind
from wicketgate.tunnel.targets import client_refusal, parse_address, target_refusal

_logger = logging.getLogger("wicketgate.netd")

WATCH_SECONDS: Final = 0.5
"""How often the kernel is asked whether somebody else has changed the rules: 10 us for each namespace."""
TROUBLE_SECONDS: Final = 5.0
"""The same after they could not be put back."""


class NetdConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `serve` tells netd at start."""

    feed_fd: int
    """Stream socket: Worlds come in, acknowledgements go out."""
    gateway_fds: list[int]
    """SOCK_SEQPACKET sockets, one a gateway worker."""
    state_directory: str
    """Where slots live; only netd may enter it."""
    metadata_fds: list[int] = []
    """SOCK_SEQPACKET sockets to the metadata process: it asks for listening sockets."""
    links_file: str = ""
    """The operator's file that binds subnets to networks of the host (links.py); empty for none."""
    observations: str = ""
    """Where what is found outside is written (`model.observed`); empty for nowhere."""


class _Refused(Exception):  # never leaves this module
    def __init__(self, kind: RefusalKind, message: str, number: int = 0) -> None:
        super().__init__(message)
        self.kind, self.message, self.number = kind, message, number


@dataclass
class Netd:
    """netd's state: what it was told, and handles to what it made. `run` returns when `serve` is gone."""

    config: NetdConfig
    world: World = field(default_factory=World)
    fabric: Fabric = field(default_factory=Fabric)
    memory: UrlMemory = field(default_factory=UrlMemory)
    revocation: Revocation = field(default_factory=Revocation)
    next_look: float | None = None
    """When to see whether the rules are still ours, of the monotonic clock; None before the first World."""

    def run(self) -> None:
        """Serve until the feed ends. Rules, links and established connections stay as they are."""
        slots = Slots(Path(self.config.state_directory) / "slots")
        feed = socket.socket(fileno=self.config.feed_fd)
        feed.setblocking(True)
        with selectors.DefaultSelector() as selector:
            selector.register(feed, selectors.EVENT_READ)
            for descriptor in self.config.gateway_fds:
                gateway = socket.socket(fileno=descriptor)
                gateway.setblocking(False)
                selector.register(gateway, selectors.EVENT_READ, gateway)
            for descriptor in self.config.metadata_fds:
                metadata = socket.socket(fileno=descriptor)
                metadata.setblocking(False)
                selector.register(metadata, selectors.EVENT_READ, metadata)
            counters = self._counters(selector)
            self._listen_to_askers(selector, counters)
            while True:
                now = time.monotonic()
                looks = None if self.next_look is None else max(self.next_look - now, 0.0)
                owed = [one for one in (self.revocation.timeout(now), counters.timeout(now), looks) if one is not None]
                for key, _ in selector.select(min(owed, default=None)):
                    if key.data is None:
                        try:
                            self._read_world(feed, counters)
                        except EOFError:
                            counters.close()
                            return
                    elif callable(key.data):
                        key.data()
                    elif key.fd in self.config.metadata_fds:
                        listeners.serve(key.data, self.world)
                    else:
                        self._serve(key.data, slots)
                self.revocation.look_again(self.world, time.monotonic())
                counters.write(time.monotonic())
                self._look_after_rules(time.monotonic())

    def _counters(self, selector: selectors.BaseSelector) -> Counters:
        def watch(happenings: Happenings, read: Callable[[], None]) -> None:
            selector.register(happenings, selectors.EVENT_READ, read)

        file = Path(self.config.state_directory) / "rule-counters.json"
        return Counters(file, time.time(), watch=watch, unwatch=selector.unregister)

    def _listen_to_askers(self, selector: selectors.BaseSelector, counters: Counters) -> None:
        try:
            asked = asking.listen(Path(self.config.state_directory))
        except OSError as error:  # a full disk must stop neither dials nor changes
            _logger.error("`wicketgate rules` gets no answer: %s in %s", error.strerror, self.config.state_directory)
            return
        selector.register(asked, selectors.EVENT_READ, lambda: asking.answer(asked, self._told(counters)))

    def _told(self, counters: Counters) -> asking.Answer:
        counted = self.world.settings.rule_counters
        return asking.Answer(world=self.world, totals=counters.present() if counted else None)

    def _read_world(self, feed: socket.socket, counters: Counters) -> None:
        data = ipc.read_frame(feed)
        counters.catch_up()
        try:
            world = ipc.updated(self.world, data)
            self.fabric.apply(world)
            self.revocation.after(self.world, world, time.monotonic())
        except (FabricError, WorldError) as error:
            _logger.error("a World cannot be enforced: %s", error)
            feed.sendall(ipc.failure(f"{error}{self._put_back()}"))
            return
        self.world = world
        self.next_look = self.next_look or time.monotonic() + WATCH_SECONDS
        counters.follow(world)
        feed.sendall(ipc.acknowledgement(world.revision))

    def _put_back(self) -> str:
        """Enforce the World before again, after a failure half way; returns more words when even that fails."""
        # A fresh Fabric has no memory and so starts from what the kernel says.
        self.fabric.close()
        self.fabric = Fabric()
        if self.next_look is None:
            return ""  # what an earlier netd left in the kernel is better than nothing
        try:
            self.fabric.apply(self.world)
        except FabricError as error:
            return f"; and revision {self.world.revision} could not be put back: {error}"
        return ""

    def _look_after_rules(self, now: float) -> None:
        """Put back what somebody else has changed, and what a failure left half done, if it is time to look."""
        if self.next_look is None or now < self.next_look:
            return
        try:
            if not self.fabric.whole:
                self.fabric.apply(self.world)
                _logger.warning("revision %d is put back", self.world.revision)
            for namespace in self.fabric.mend():
                _logger.warning("somebody else changed the rules in namespace %s: they are put back", namespace)
        except FabricError as error:
            _logger.error("revision %d cannot be put back: %s", self.world.revision, error)
            self.next_look = now + TROUBLE_SECONDS
        else:
            self.next_look = now + WATCH_SECONDS

    def _serve(self, gateway: socket.socket, slots: Slots) -> None:
        """Answer one request; a worker that sends nonsense gets no answer, one that is gone is left to `serve`."""
        try:
            message = gateway.recv(ipc.MAX_MESSAGE)
        except OSError:
            return
        try:
            request = msgspec.json.decode(message, type=DialRequest)
        except (msgspec.DecodeError, ValueError, RecursionError):
            return
        descriptors: list[int] = []
        try:
            sock, lease, source = self._grant(request, slots)
            descriptors = [sock.detach(), lease]
            reply = DialReply(id=request.id, revision=self.world.revision, source_address=source)
        except _Refused as refused:
            reply = DialReply(
                id=request.id,
                revision=self.world.revision,
                refused=refused.kind,
                message=refused.message,
                errno=refused.number,
            )
        try:
            socket.send_fds(gateway, [msgspec.json.encode(reply)], descriptors)
        except OSError:
            pass  # the worker is gone or drowning; closing our copies frees slot and socket
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _grant(self, request: DialRequest, slots: Slots) -> tuple[socket.socket, int, str]:
        """The socket, the lease and the address the target will see. Raises _Refused."""
        world = self.world
        endpoint = world.endpoint(request.endpoint_id)
        if endpoint is None or endpoint.state not in CONNECTABLE_STATES:
            state = f"is {endpoint.state}" if endpoint else "does not exist"
            raise _Refused("endpoint", f"{request.endpoint_id} {state}")
        reason = target_refusal(world, endpoint, request.address) or _port_refusal(world, request.port)
        if reason is not None:
            raise _Refused("target", str(reason))
        target = str(parse_address(request.address))
        client = self._client_address(endpoint, request.client_address, target)
        now = time.time()
        # Whatever the gateway says, no URL is good for longer than this, so the memory is bounded in time.
        longest = now + world.settings.presign_window + world.settings.clock_skew
        expires = min(request.signature_expires, longest)
        reuse = self.memory.refusal(request.signature, request.client_address, expires, now, world.settings.url_reuse)
        if reuse is not None:
            raise _Refused("url-reused", reuse)
        limit = world.settings.max_tunnels_per_endpoint
        try:
            lease = slots.take(endpoint.id, limit)
        except OSError as error:
            _logger.error("slots of tunnels cannot be kept in %s: %s", slots.directory, error.strerror)
            raise _Refused("connect", f"a tunnel's slot cannot be kept: {error.strerror}") from error
        if lease is None:
            raise _Refused("limit", f"{endpoint.id} has {limit} tunnels open, its limit")
        try:
            own = _own_address(world, endpoint, target)
            sock, result = dial(endpoint.id, target, request.port, client, own)
        except (OSError, FabricError) as error:
            os.close(lease)
            number = error.errno if isinstance(error, OSError) and error.errno else errno.EIO
            raise _Refused("connect", f"cannot connect from {client or endpoint.id}: {error}", number) from error
        if result not in (0, errno.EINPROGRESS):
            sock.close()
            os.close(lease)
            raise _Refused("connect", os.strerror(result), result)
        return sock, lease, client or str(sock.getsockname()[0])

    def _client_address(self, endpoint: Endpoint, client_address: str, target: str) -> str | None:
        """The address to connect from: the client's, or None for the endpoint's own. Raises _Refused."""
        if not endpoint.preserve_client_ip:
            return None
        reason = client_refusal(self.world, endpoint, client_address, target)
        if reason is None:
            return str(parse_address(client_address))
        if self.world.settings.unpreservable_client == "endpoint-address":
            return None
        raise _Refused("client-address", str(reason))


def _own_address(world: World, endpoint: Endpoint, target: str) -> str | None:
    """The endpoint's first address of the target's family."""
    eni = world.interface(endpoint.interface_id)
    there = () if eni is None else eni.addresses
    return next((one for one in there if (":" in one) is (":" in target)), None)


def _port_refusal(world: World, port: int) -> str | None:
    offered = world.settings.allowed_ports
    if not 1 <= port <= 65535:
        return f"{port} is no TCP port"
    return None if not offered or port in offered else f"port {port} is not offered (allowed_ports)"
