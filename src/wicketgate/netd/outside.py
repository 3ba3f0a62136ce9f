"""What netd finds outside: taps on the networks that subnets are bound to, questions to their machines, and what of it
is told to the API process (`model.observed`).

All in netd's one thread, and nothing here waits. What a network sends is read in bounded portions: so much each second,
the rest is lost in the kernel, which costs netd nothing, and nobody is blamed for silence meanwhile.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

from wicketgate.kernel import netns
from wicketgate.kernel.lan import LAN_DEVICE, lan_namespace
from wicketgate.kernel.neighbour_frames import (
    ECHO_MARK,
    Claim,
    Echo,
    Wish,
    advertisement,
    arp_reply,
    arp_request,
    echo_request,
    framed,
    read,
    solicitation,
)
from wicketgate.kernel.neighbours import Sender, Tap
from wicketgate.model import FabricError, World
from wicketgate.model.observed import Machine
from wicketgate.netd.hosts import Host, Moment
from wicketgate.netd.registered import Bound, answered, touched, watched
from wicketgate.netd.reports import Limited, Report
from wicketgate.netd.segment import Assertion, Ping, Question, Segment, Sending

_logger = logging.getLogger("wicketgate.netd")

TICK_SECONDS: Final = 0.05
"""What is due is sent no more often than this,"""
PER_TICK: Final = 50
"""and to no more hosts at once: 10,000 machines that come together are asked within ten seconds."""
LOOK_SECONDS: Final = 1.0
"""How often is looked whether a network is there that was not, or is another one."""
PER_SECOND: Final = 2_000
"""Frames of one network that are read in a second: some 20 ms."""
AT_ONCE: Final = 200
"""Frames read before netd turns to something else."""
_SECRET_SIZE: Final = 8


class _Network:
    """One bound subnet's tap, and the hosts on it."""

    def __init__(self, segment: Segment, namespace: str) -> None:
        self.segment, self.namespace = segment, namespace
        self.tap: Tap | None = None
        self.sender: Sender | None = None
        self.pin = 0
        """Inode of the namespace that the tap is in."""
        self.mac = ""
        self.paused = False
        self.left = PER_SECOND
        self.lost = 0


class Outside:
    """What is found on the networks of a host. `follow` each World that is in force; `look` whenever it is time."""

    def __init__(
        self,
        file: Path | None,
        *,
        watch: Callable[[Tap, Callable[[], None]], None],
        unwatch: Callable[[Tap], object],
    ) -> None:
        """`watch` has a callback called when there is something to read, `unwatch` ends that. `file`: where it is told,
        None for nowhere."""
        self._watch, self._unwatch = watch, unwatch
        self._report = Report(file)
        self._say = Limited().say
        self._world = World()
        self._bounds: Mapping[str, Bound] = {}
        self._networks: dict[str, _Network] = {}
        self._places: dict[str, dict[tuple[str, str], bool]] = {}
        """Instance -> (subnet, address) of all that is watched -> whether its state goes by it."""
        self._identifier = int.from_bytes(os.urandom(2), "big")
        self._secret = ECHO_MARK + os.urandom(_SECRET_SIZE)
        """What our echo requests bear, so that no answer to them can be made up by who did not see one."""
        self._next_tick = self._next_look = 0.0

    def follow(self, world: World, bounds: Mapping[str, Bound]) -> None:
        """Watch what is registered in the bound subnets of this World. `bounds`: by subnet."""
        bounds = {key: one for key, one in bounds.items() if world.subnet(key) is not None}
        if world is self._world and bounds == self._bounds:
            return
        before, self._world = self._world, world
        known, self._bounds = self._bounds, bounds
        _look_at_addresses(world, known, bounds)
        if self._bounds or self._networks:
            came = self._follow_subnets(before)
            first = came or known.keys() != self._bounds.keys()
            self._register(
                {one.id for one in world.instances} | self._places.keys() if first else touched(before, world)
            )
            self._settle(known)
            self._next_look = 0.0
        if known.keys() != self._bounds.keys() or not before.revision:
            self._report.keep(self._places)
        self._tell()

    def timeout(self, now: float) -> float | None:
        """Seconds until there is something to do; `now` is of the monotonic clock. None for never."""
        when = [self._report.due]
        if self._networks:
            dues = [one.segment.next_due for one in self._networks.values() if one.tap is not None]
            when += [self._next_look, *(None if due is None else max(due, self._next_tick) for due in dues)]
        owed = [one for one in when if one is not None]
        return max(min(owed) - now, 0.0) if owed else None

    def look(self) -> None:
        """Do what is due."""
        now = _now()
        if self._networks and now.clock >= self._next_look:
            self._next_look = now.clock + LOOK_SECONDS
            for network in self._networks.values():
                self._look_after(network, now)
        if now.clock >= self._next_tick:
            self._next_tick = now.clock + TICK_SECONDS
            left = PER_TICK
            for network in self._networks.values():
                sendings = network.segment.due(now, left) if network.tap is not None else []
                left -= len(sendings)
                self._send(network, sendings)
        self._tell()
        self._report.write(now.clock)

    def refusal(self, vpc_id: str, address: str) -> str | None:
        """Why no client's address is preserved to a machine of a VPC; None when nothing speaks against it."""
        segments = (one.segment for one in self._networks.values())
        if not any(one.vpc_id == vpc_id and one.strays(address) for one in segments):
            return None
        found = f"{address} does not send its replies through this gateway, as a probe has found"
        return f"{found}, so a client's address cannot be preserved to it"

    def close(self) -> None:
        """Listen no more."""
        for network in self._networks.values():
            self._hang_up(network)
        self._networks.clear()

    # -- what is there -------------------------------------------------------------------------------------------------

    def _follow_subnets(self, before: World) -> bool:
        """Whether a network came, or became another."""
        came = False
        for subnet_id in [*self._networks]:
            if subnet_id not in self._bounds or self._is_another(subnet_id, before):
                self._hang_up(self._networks.pop(subnet_id))
                for key, place in self._places.items():
                    self._places[key] = {one: probed for one, probed in place.items() if one[0] != subnet_id}
        for subnet_id, bound in self._bounds.items():
            if subnet_id not in self._networks:
                vpc = self._world.vpc_of_subnet(subnet_id)
                segment = Segment(vpc.id, vpc.networks, routed=bound.link.mode == "routed", say=self._say)
                self._networks[subnet_id] = _Network(segment, lan_namespace(subnet_id))
                came = True
        return came

    def _is_another(self, subnet_id: str, before: World) -> bool:
        old, new = before.vpc_of_subnet(subnet_id), self._world.vpc_of_subnet(subnet_id)
        routed = self._bounds[subnet_id].link.mode == "routed"
        return old.networks != new.networks or self._networks[subnet_id].segment.routed != routed

    def _settle(self, known: Mapping[str, Bound]) -> None:
        """What the networks are to answer for, and whether machines are asked."""
        now = _now().clock
        for subnet_id, network in self._networks.items():
            bound, subnet = self._bounds[subnet_id], self._world.subnet(subnet_id)
            assert subnet is not None, "bounds are of subnets that there are"
            network.segment.answers_for(answered(self._world, subnet, bound), now)
            link = bound.link
            network.segment.switch(probing=link.probe, returning=link.return_path, now=now)
            if known.get(subnet_id) != bound:
                network.segment.disturbed(now)

    def _register(self, instance_ids: Iterable[str]) -> None:
        """Watch the addresses that these instances have now in bound subnets, and none else of theirs."""
        now = _now().clock
        for instance_id in instance_ids:
            wanted, had = watched(self._world, instance_id, self._networks), self._places.get(instance_id, {})
            for subnet_id, address in {key for key, _ in had.items() - wanted.items()}:
                self._networks[subnet_id].segment.remove(instance_id, address)
            for (subnet_id, address), probed in wanted.items() - had.items():
                self._networks[subnet_id].segment.add(self._host(instance_id, address, probed=probed), now)
            if wanted:
                self._places[instance_id] = wanted
            elif instance_id in self._places:
                del self._places[instance_id]
                self._report.note(instance_id, None)

    def _host(self, instance_id: str, address: str, *, probed: bool) -> Host:
        host = Host(instance_id, address, probed=probed)
        earlier = self._report.machines.get(instance_id)
        if earlier is not None and probed:
            host.reach.reachable, host.reach.since = earlier.reachable, earlier.since
        return host

    # -- listening -----------------------------------------------------------------------------------------------------

    def _look_after(self, network: _Network, now: Moment) -> None:
        """Listen where there is something to listen to, again after a pause, and where it is now."""
        network.left = PER_SECOND
        if network.tap is not None and network.pin != _pin(network.namespace):
            self._hang_up(network)
        if network.tap is None:
            self._listen(network, now)
        elif network.paused:
            network.paused = False
            network.segment.disturbed(now.clock)
            self._watch(network.tap, lambda: self._read(network))

    def _listen(self, network: _Network, now: Moment) -> None:
        network.pin = _pin(network.namespace)
        if not network.pin:
            return
        try:
            network.tap = Tap(network.namespace, LAN_DEVICE, self._identifier)
            network.mac = network.tap.mac
            if network.segment.routed:
                network.sender = Sender(network.namespace)
        except FabricError as error:  # the device is not there yet, or is going: whoever makes it says why
            _logger.debug("%s", error)
            self._hang_up(network)
            return
        network.lost = 0
        network.segment.disturbed(now.clock)
        self._watch(network.tap, lambda: self._read(network))

    def _hang_up(self, network: _Network) -> None:
        if network.tap is not None:
            if not network.paused:
                self._unwatch(network.tap)
            network.tap.close()
        if network.sender is not None:
            network.sender.close()
        network.tap = network.sender = None
        network.paused = False

    def _read(self, network: _Network) -> None:
        if network.tap is None or network.paused:  # ended in the very turn of the loop that found it readable
            return
        now = _now()
        try:
            frames = network.tap.read(most := min(AT_ONCE, network.left))
            network.mac = network.tap.mac
        except FabricError as error:
            _logger.warning("network of %s: %s", network.namespace, error)
            self._hang_up(network)
            return
        for frame in frames:
            self._heard(network, read(frame), now)
        network.left -= len(frames)
        if len(frames) == most or network.tap.lost != network.lost:
            network.lost = network.tap.lost
            network.segment.disturbed(now.clock)
        if network.left <= 0:
            self._unwatch(network.tap)
            network.paused = True

    def _heard(self, network: _Network, said: Claim | Wish | Echo | None, now: Moment) -> None:
        if said is None or (said.data != self._secret if isinstance(said, Echo) else said.mac == network.mac):
            return
        self._send(network, network.segment.heard(said, now))

    # -- sending -------------------------------------------------------------------------------------------------------

    def _send(self, network: _Network, sendings: Iterable[Sending]) -> None:
        """What cannot be sent is as if nobody had answered."""
        if network.tap is None:
            return
        for one in sendings:
            if not isinstance(one, Ping):
                network.tap.send(_asked(network.mac, one) if isinstance(one, Question) else _asserted(network.mac, one))
                continue
            packet = echo_request(one.source, one.address, self._identifier, one.sequence, self._secret)
            if one.to is not None:
                network.tap.send(framed(packet, network.mac, one.to))
            elif network.sender is not None:
                network.sender.send(packet, one.address)

    # -- telling -------------------------------------------------------------------------------------------------------

    def _tell(self) -> None:
        subnets = {}
        for key, network in self._networks.items():
            bound, claims = self._bounds[key], network.segment.problem
            subnets[key] = bound.link.attached(bound.problem, "; ".join(bound.notices + ([claims] if claims else [])))
        self._report.follow(self._world.revision, subnets)
        now = _now().clock
        for network in self._networks.values():
            for instance_id in network.segment.changed:
                if instance_id in self._places:
                    self._report.note(instance_id, self._machine(instance_id, now))
            network.segment.changed.clear()

    def _machine(self, instance_id: str, now: float) -> Machine | None:
        """What is known of a machine; None when nothing is, or it is not asked."""
        there = (self._networks[key].segment.hosts.get(address) for key, address in self._places[instance_id])
        hosts = [one for one in there if one is not None and one.instance_id == instance_id]
        probing = any(self._networks[key].segment.probing for key, _ in self._places[instance_id])
        found = [one.reach for one in hosts if one.probed and one.reach.reachable is not None]
        if not probing or not found:
            return None
        reachable = any(one.reachable for one in found)
        since = [one.since for one in found if one.reachable is reachable]
        notes = (host.note(now) for host in hosts)
        return Machine(
            reachable=reachable, since=min(since) if reachable else max(since), note="; ".join(filter(None, notes))
        )


def _now() -> Moment:
    return Moment(time.monotonic(), time.time())


def _pin(namespace: str) -> int:
    """What tells a namespace from another one of the same name; 0 for none."""
    try:
        return (netns.PINS / namespace).stat().st_ino
    except OSError:
        return 0


def _asked(mac: str, one: Question) -> bytes:
    if ":" in one.address:
        return solicitation(mac, one.address, one.sender, one.to)
    return (
        arp_request(mac, one.address, one.sender)
        if one.to is None
        else arp_request(mac, one.address, one.sender, one.to)
    )


def _asserted(mac: str, one: Assertion) -> bytes:
    if ":" in one.address:
        return advertisement(mac, one.address)
    return arp_request(mac, one.address, one.address) if one.to is None else arp_reply(mac, one.address, one.to)


def _look_at_addresses(world: World, known: Mapping[str, Bound], bounds: Mapping[str, Bound]) -> None:
    """Say which of the addresses that the operator means for endpoints none of them can have."""
    for subnet_id, bound in bounds.items():
        subnet, before = world.subnet(subnet_id), known.get(subnet_id)
        if subnet is not None and (before is None or before.link != bound.link):
            for address in bound.link.outside(subnet):
                _logger.warning("endpoint_addresses of %s: %s is not in its range, and not used", subnet_id, address)
