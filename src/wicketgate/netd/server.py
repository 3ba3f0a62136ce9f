"""The loop of netd: Worlds from the feed, dial requests from the gateways; one thread, nothing in it waits."""

from __future__ import annotations

import errno
import logging
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from wicketgate import ipc
from wicketgate.kernel.dial import dial
from wicketgate.kernel.fabric import Fabric
from wicketgate.kernel.neighbours import Tap, in_use
from wicketgate.kernel.outlines import Happenings
from wicketgate.model import CONNECTABLE_STATES, Endpoint, FabricError, World, WorldError
from wicketgate.netd import asking, listeners
from wicketgate.netd.alone import stand_alone
from wicketgate.netd.bootcopy import BootCopy
from wicketgate.netd.callers import Callers
from wicketgate.netd.counters import Counters
from wicketgate.netd.feeding import Feeding
from wicketgate.netd.links import Links, read_links
from wicketgate.netd.outside import Outside
from wicketgate.netd.registered import Bound
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


class NetdConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What netd is told at start: by `serve`, with one end each of socketpairs, or as a unit, with what listens."""

    state_directory: str
    """Where slots and the copy of the World live; only netd may enter it."""
    feed_fd: int | None = None
    """Stream socket: Worlds come in, acknowledgements go out; its end is our end."""
    feed_path: str = ""
    """Where the API process listens instead: netd connects there, and again when that ends."""
    feed_owner: int = 0
    """User id of the API process."""
    gateway_fds: list[int] = []
    """SOCK_SEQPACKET sockets, one a gateway worker."""
    metadata_fds: list[int] = []
    """SOCK_SEQPACKET sockets to the metadata process: it asks for listening sockets."""
    dial_fd: int | None = None
    """Listening SOCK_SEQPACKET socket for gateways."""
    dial_user: int = 0
    """Whose processes may connect there."""
    listen_fd: int | None = None
    """The same for the metadata process."""
    listen_user: int = 0
    links_file: str = ""
    """The operator's file: subnets and the links of this host that they are bound to."""
    observations: str = ""
    """File in which the API process is told what was found outside; empty = none."""
    log_level: str = "warning"
    """The least important messages to log, as the setting has it."""


class _Refused(Exception):  # never leaves this module
    def __init__(self, kind: RefusalKind, message: str, number: int = 0) -> None:
        super().__init__(message)
        self.kind, self.message, self.number = kind, message, number


@dataclass
class Netd:
    """netd's state: what it was told, and handles to what it made."""

    config: NetdConfig
    world: World = field(default_factory=World)
    fabric: Fabric = field(default_factory=lambda: Fabric(in_use=in_use))
    memory: UrlMemory = field(default_factory=UrlMemory)
    revocation: Revocation = field(default_factory=Revocation)
    copy: BootCopy = field(init=False)
    links: Links = field(default_factory=Links)
    """What subnets are bound to."""
    outside: Outside = field(init=False)
    next_look: float | None = None
    """When to see whether the rules are still ours, of the monotonic clock; None before the first World."""
    ending: bool = False
    """SIGTERM has come."""

    def run(self) -> None:
        """Serve until an inherited feed ends or SIGTERM comes. Rules, links and established connections stay.

        Raises FabricError when another netd runs in this network namespace.
        """
        held = stand_alone()
        state = Path(self.config.state_directory)
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.copy = BootCopy(state / "world")
        with selectors.DefaultSelector() as selector:
            self._listen_to_signals(selector)
            counters = self._counters(selector)
            self.outside = self._outside(selector)
            self._read_links()
            self._begin_from_copy(counters)
            self._listen_to_callers(selector, Slots(state / "slots"))
            self._listen_to_askers(selector, counters)
            feeding = self._feeding(selector, counters)
            ipc.ready()
            while not self.ending and not feeding.ended:
                now = time.monotonic()
                feeding.look(now)
                looks = None if self.next_look is None else max(self.next_look - now, 0.0)
                timed = (self.revocation, counters, feeding, self.outside)
                waits = (looks, *(one.timeout(now) for one in timed))
                for key, _ in selector.select(min((one for one in waits if one is not None), default=None)):
                    key.data()
                self.revocation.look_again(self.world, time.monotonic())
                counters.write(time.monotonic())
                self._look_after_rules(time.monotonic())
                self.outside.look()
            self.outside.close()
            counters.close()
        if held is not None:
            held.close()

    def _listen_to_signals(self, selector: selectors.BaseSelector) -> None:
        """Have signals wake the loop, which then does what they ask for."""
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda _number, _frame: None)
        signal.set_wakeup_fd(theirs.detach())
        selector.register(ours, selectors.EVENT_READ, lambda: self._signalled(ours.recv(64)))

    def _signalled(self, numbers: bytes) -> None:
        if signal.SIGTERM in numbers:
            self.ending = True
        if signal.SIGHUP in numbers:
            self._read_links()

    def _read_links(self) -> None:
        """Read the operator's file, at the start and after SIGHUP, and bind subnets as it says."""
        found = read_links(self.config.links_file) if self.config.links_file else Links()
        if found.problem:
            # At the start it binds nothing; later on it changes nothing, so that a slip cuts nobody off.
            _logger.error("links are not read: %s", found.problem)
            return
        self.links = found
        try:
            self.fabric.rebind(found.bindings)
        except FabricError as error:
            _logger.error("links cannot be bound, which is tried again: %s", error)

    def _listen_to_callers(self, selector: selectors.BaseSelector, slots: Slots) -> None:
        gateways = Callers(selector, partial(self._serve, slots=slots))
        metadata = Callers(selector, lambda sock: listeners.serve(sock, self.world))
        config = self.config
        for callers, inherited, listening, user in (
            (gateways, config.gateway_fds, config.dial_fd, config.dial_user),
            (metadata, config.metadata_fds, config.listen_fd, config.listen_user),
        ):
            for descriptor in inherited:
                callers.inherit(socket.socket(fileno=descriptor))
            if listening is not None:
                callers.listen(socket.socket(fileno=listening), user)

    def _feeding(self, selector: selectors.BaseSelector, counters: Counters) -> Feeding:
        feeding = Feeding(selector, lambda update: self._follow(update, counters))
        if self.config.feed_fd is not None:
            feeding.inherit(socket.socket(fileno=self.config.feed_fd))
        else:
            feeding.connect_to(self.config.feed_path, self.config.feed_owner)
        return feeding

    def _counters(self, selector: selectors.BaseSelector) -> Counters:
        def watch(happenings: Happenings, read: Callable[[], None]) -> None:
            selector.register(happenings, selectors.EVENT_READ, read)

        file = Path(self.config.state_directory) / "rule-counters.json"
        return Counters(file, time.time(), watch=watch, unwatch=selector.unregister)

    def _outside(self, selector: selectors.BaseSelector) -> Outside:
        def watch(tap: Tap, read: Callable[[], None]) -> None:
            selector.register(tap, selectors.EVENT_READ, read)

        file = Path(self.config.observations) if self.config.observations else None
        return Outside(file, watch=watch, unwatch=selector.unregister)

    def _bounds(self) -> dict[str, Bound]:
        """What subnets are bound to, and how that stands."""
        lans = self.fabric.lans
        return {
            subnet: Bound(link, lans[subnet].problem, dict(lans[subnet].taken))
            if subnet in lans
            else Bound(link, "it is not set up")
            for subnet, link in self.links.by_subnet.items()
        }

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

    def _begin_from_copy(self, counters: Counters) -> None:
        """Enforce what was enforced last, before anybody connects: after a boot there is nothing in the kernel."""
        world = self.copy.load()
        if world is None:
            return
        try:
            self._enforce(world, ipc.whole(world), counters)
        except FabricError as error:
            _logger.error("revision %d of the copy cannot be enforced: %s%s", world.revision, error, self._put_back())
        else:
            _logger.info("revision %d is enforced, by the copy of the World", world.revision)

    def _follow(self, update: bytes, counters: Counters) -> bytes:
        """Enforce an Update; what is answered to it."""
        counters.catch_up()
        try:
            world = ipc.updated(self.world, update)
            if world.revision < self.world.revision:
                _logger.warning(
                    "the World goes back from revision %d to %d: the store is an older one than before",
                    self.world.revision,
                    world.revision,
                )
            self._enforce(world, update, counters)
        except (FabricError, WorldError) as error:
            _logger.error("a World cannot be enforced: %s", error)
            return ipc.failure(f"{error}{self._put_back()}")
        return ipc.acknowledgement(world.revision)

    def _enforce(self, world: World, update: bytes, counters: Counters) -> None:
        self.fabric.apply(world)
        self.revocation.after(self.world, world, time.monotonic())
        self.copy.keep(world, update)
        self.world = world
        self.next_look = self.next_look or time.monotonic() + WATCH_SECONDS
        counters.follow(world)
        self.outside.follow(world, self._bounds())

    def _put_back(self) -> str:
        """Enforce the World before again, after a failure half way; returns more words when even that fails."""
        # A fresh Fabric has no memory and so starts from what the kernel says.
        self.fabric.close()
        self.fabric = Fabric(bindings=self.links.bindings, in_use=in_use)
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
            self.fabric.look()
            for namespace in self.fabric.mend():
                _logger.warning("somebody else changed the rules in namespace %s: they are put back", namespace)
        except FabricError as error:
            _logger.error("revision %d cannot be put back: %s", self.world.revision, error)
            self.next_look = now + TROUBLE_SECONDS
        else:
            self.next_look = now + WATCH_SECONDS
        self.outside.follow(self.world, self._bounds())  # a link may have come or gone

    def _serve(self, gateway: socket.socket, *, slots: Slots) -> bool:
        """Answer one request; a worker that sends nonsense gets no answer. Returns whether it is still there."""
        try:
            message = gateway.recv(ipc.MAX_MESSAGE)
        except OSError as error:
            return isinstance(error, BlockingIOError)
        try:
            request = msgspec.json.decode(message, type=DialRequest)
        except (msgspec.DecodeError, ValueError, RecursionError):
            return bool(message)
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
        return True

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
        vpc_id = self.world.vpc_of_subnet(endpoint.subnet_id).id
        reason = (
            client_refusal(self.world, endpoint, client_address, target)
            or self.links.client_refusal(self.world, vpc_id, target)
            or self.outside.refusal(vpc_id, target)
        )
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
