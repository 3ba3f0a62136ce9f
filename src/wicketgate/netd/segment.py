"""One bound subnet's network: which of its hosts are asked what and when, what they say, and who claims what is ours.

No I/O and no clock: what was heard comes in with the time, what to send goes out.

A reachable machine is asked every 15 s, at its own link-layer address, and whatever it says by itself counts as an
answer; after a miss every second, whoever may have its address by then. On a routed network echo requests are all there
is, which a machine may ignore: silence says something only of those that have answered once.

Questions bear an address of ours as the sender's. Without one they are probes, which a machine that just then makes
sure of its own address takes for another's claim (RFC 5227 2.1.1, RFC 4862 5.4.3): so they are few.

Whether replies come back: two echo requests, one from an address of ours on the link, one from an address that is
nobody's. A machine that answers the first alone, three times, sends its other answers elsewhere.
"""

from __future__ import annotations

import heapq
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from itertools import count
from typing import Final, Literal

from wicketgate.kernel.neighbour_frames import Claim, Echo, Wish
from wicketgate.model.resources import IPv4or6Network
from wicketgate.netd.claims import Own
from wicketgate.netd.hosts import INTERVAL_SECONDS, RARELY, WAIT_SECONDS, Host, Moment

NOBODYS: Final = tuple(map(ip_network, ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")))
NOBODYS6: Final = tuple(map(ip_network, ("2001:db8::/32", "3fff::/20")))
"""Ranges of documentation (RFC 5737, RFC 3849, RFC 9637). They belong to nobody, so a reply that goes astray reaches
nobody: wherever it leaves for the Internet it is dropped."""
NOBODY: Final = 119
"""The host in such a range whose address is borrowed."""

_LOOKS: Final = 4
"""Hosts looked at for each that is sent something: an answer is looked for once, and seldom asked for again."""

Say = Callable[[int, str, float], None]
"""Log a line: its level, and the time of the monotonic clock, in seconds."""


@dataclass(frozen=True)
class Question:
    """Ask who has an address: everybody, or one link-layer address."""

    address: str
    sender: str | None
    to: str | None = None


@dataclass(frozen=True)
class Ping:
    """An echo request. `to`: the next hop's link-layer address; None = whatever the kernel's routes say."""

    source: str
    address: str
    sequence: int
    to: str | None = None


@dataclass(frozen=True)
class Assertion:
    """Say that an address is ours: to one who asks, or to everybody."""

    address: str
    to: str | None = None


Sending = Question | Ping | Assertion
_Task = Literal["ask", "way", "own", "note"]


class Segment:
    """The hosts of one bound subnet."""

    def __init__(self, vpc_id: str, ranges: tuple[IPv4or6Network, ...], *, routed: bool, say: Say) -> None:
        """`ranges` of the VPC, in which no address is nobody's."""
        self.vpc_id, self.routed = vpc_id, routed
        self.hosts: dict[str, Host] = {}
        self.changed: set[str] = set()
        """Instances of which something else is to be told."""
        self._say = say
        self._own: dict[str, Own] = {}
        self._probing = self._returning = False
        self._foreign = {4: _nobodys(NOBODYS, ranges), 6: _nobodys(NOBODYS6, ranges)}
        self._disturbed_at = float("-inf")
        self._numbers, self._sequences = count(), count()
        self._owed: list[tuple[float, int, _Task, Host | Own]] = []

    # -- what is there -------------------------------------------------------------------------------------------------

    def answers_for(self, addresses: Mapping[str, str], now: float) -> None:
        """The addresses that are answered for here, each with whose it is, in words."""
        before = self._own
        self._own = {one: before.get(one) or Own(one, owner) for one, owner in addresses.items()}
        if before.keys() != self._own.keys():  # what could not be asked for want of a sender can be now
            for host in self.hosts.values():
                if host.probed and host.reach.heard_at is None:
                    self._owe(now + host.share, "ask", host)

    def switch(self, *, probing: bool, returning: bool, now: float) -> None:
        """Whether machines are asked if they are there, and if replies to addresses elsewhere come back this way."""
        before, self._probing, self._returning = (
            (self._probing, self._returning),
            probing,
            returning and probing and not self.routed,
        )
        if before != (self._probing, self._returning):
            for host in self.hosts.values():
                self.changed.add(host.instance_id)
                self._begin(host, now)

    def add(self, host: Host, now: float) -> None:
        """A machine's address is registered; it is looked for at once."""
        if (former := self.hosts.get(host.address)) is not None:
            former.gone = True
            self.changed.add(former.instance_id)
        self.hosts[host.address] = host
        host.reach.answering = self.routed
        self.changed.add(host.instance_id)
        self._begin(host, now)

    def remove(self, instance_id: str, address: str) -> None:
        """It is an instance's no more."""
        host = self.hosts.get(address)
        if host is not None and host.instance_id == instance_id:
            host.gone = True
            del self.hosts[address]
            self.changed.add(instance_id)

    @property
    def problem(self) -> str:
        """Who else claims what is ours; empty for nobody."""
        return "; ".join(own.problem for own in self._own.values() if own.problem)

    def strays(self, address: str) -> bool:
        """Whether a machine was found to send its replies elsewhere than through this gateway."""
        host = self.hosts.get(address)
        return host is not None and self._returning and host.back.way == "not seen"

    # -- what was heard ------------------------------------------------------------------------------------------------

    def heard(self, said: Claim | Wish | Echo, now: Moment) -> list[Sending]:
        """Take note of it; what to send at once. What we say ourselves is not to be told here."""
        if isinstance(said, Echo):
            self._echoed(said, now)
            return []
        own = self._own.get(said.address)
        if own is not None:
            return self._contested(own, said, now.clock)
        host = self.hosts.get(said.address)
        if host is not None and isinstance(said, Claim):
            self._claimed(host, said.mac, now.clock)
            self._alive(host, now)
        return []

    @property
    def probing(self) -> bool:
        """Whether machines are asked if they are there."""
        return self._probing

    def disturbed(self, now: float) -> None:
        """What was said up to now may not have been heard, so nobody is blamed for silence."""
        self._disturbed_at = now

    def _claimed(self, host: Host, mac: str, now: float) -> None:
        words = host.tenure.claimed(mac, now)
        if not words:
            return
        self._say(logging.WARNING, f"{host.instance_id}: {words}", now)
        self.changed.add(host.instance_id)
        renewal = host.tenure.renewal(now)
        _, owed = host.owed.get("note", (0, math.inf))
        if renewal is not None and renewal < owed:  # else it is looked at before anyway
            self._owe(renewal, "note", host)

    def _alive(self, host: Host, now: Moment) -> None:
        first = host.reach.heard_at is None
        if host.reach.heard(now):
            self.changed.add(host.instance_id)
        if first and self._returning and host.probed:
            self._owe(now.clock, "way", host)

    def _echoed(self, said: Echo, now: Moment) -> None:
        host = self.hosts.get(said.source)
        if host is None:
            return
        if host.back.sequence == said.sequence:
            far = said.destination == self._foreign[_version(host.address)]
            host.back.far |= far
            host.back.near |= not far
        self._alive(host, now)

    def _contested(self, own: Own, said: Claim | Wish, now: float) -> list[Sending]:
        if isinstance(said, Wish):
            # Linux answers by proxy whoever asks under an address of its own, but no probe of ARP.
            return [Assertion(own.address, said.mac)] if ":" not in own.address else []
        calm = not own.claimers
        words = own.claimed(said.mac, now)
        if words:
            self._say(logging.ERROR, words, now)
        if calm:
            self._owe(now + INTERVAL_SECONDS, "own", own)
        return [Assertion(own.address)] if own.defends(now) else []

    # -- what to send --------------------------------------------------------------------------------------------------

    @property
    def next_due(self) -> float | None:
        """When there is something to do, of the monotonic clock; None for never."""
        return self._owed[0][0] if self._owed else None

    def due(self, now: Moment, most: int) -> list[Sending]:
        """What to send now, up to about so much; the rest stays due."""
        found: list[Sending] = []
        left = _LOOKS * most
        while len(found) < most and left > 0 and self._owed and self._owed[0][0] <= now.clock:
            _, number, task, what = heapq.heappop(self._owed)
            if what.owed.get(task, (None,))[0] != number:
                continue  # something else was decided since
            del what.owed[task]
            if isinstance(what, Own):
                found += self._look_after(what, now.clock)
            elif not what.gone:
                found += self._look_at(what, task, now)
            left -= 1
        return found

    def _look_at(self, host: Host, task: _Task, now: Moment) -> list[Sending]:
        if task == "ask":
            return self._ask(host, now)
        if task == "way":
            return self._look_for_way(host, now.clock)
        self.changed.add(host.instance_id)
        if renewal := host.tenure.renewal(now.clock):
            self._owe(renewal, "note", host)
        return []

    def _begin(self, host: Host, now: float) -> None:
        if self._probing and host.probed:
            self._owe(now, "ask", host)
            if self._returning:
                self._owe(now + WAIT_SECONDS, "way", host)

    def _owe(self, when: float, task: _Task, what: Host | Own) -> None:
        """Do it then, and not when it was to be done before."""
        number = next(self._numbers)
        what.owed[task] = number, when
        heapq.heappush(self._owed, (when, number, task, what))

    def _ask(self, host: Host, now: Moment) -> list[Sending]:
        if not self._probing:
            return []
        reach, sender = host.reach, self._sender(host.address)
        if reach.asked_at is not None:
            if reach.asked_at <= self._disturbed_at:
                reach.asked_at = None
            elif reach.missed(now):
                self.changed.add(host.instance_id)
        interval = INTERVAL_SECONDS * (0.9 + 0.2 * host.share) * (1 if sender else RARELY)
        pause = reach.pause(now.clock, interval)
        question = self._question(host, sender, now.clock) if pause <= 0 else None
        if question is None:
            self._owe(now.clock + (pause if pause > 0 else interval), "ask", host)
            return []
        reach.asked_at = now.clock
        self._owe(now.clock + WAIT_SECONDS, "ask", host)
        return [question]

    def _question(self, host: Host, sender: str | None, now: float) -> Question | Ping | None:
        if self.routed:
            return None if sender is None else Ping(sender, host.address, self._sequence())
        certain = host.tenure.is_settled(now) and not host.reach.misses
        return Question(host.address, sender, host.tenure.mac if certain else None)

    def _look_for_way(self, host: Host, now: float) -> list[Sending]:
        if not self._returning:
            return []
        back, near, far = host.back, self._sender(host.address), self._foreign[_version(host.address)]
        if back.sequence is not None:
            if back.judged(disturbed=back.asked_at <= self._disturbed_at):
                self._say_way(host, now)
            self._owe(now + back.interval * (0.9 + 0.2 * host.share), "way", host)
        elif near is None or far is None or not host.reach.reachable or not host.tenure.mac:
            self._owe(now + INTERVAL_SECONDS, "way", host)
        else:
            back.asked(self._sequence(), now)
            self._owe(now + WAIT_SECONDS, "way", host)
            return [Ping(one, host.address, back.sequence or 0, host.tenure.mac) for one in (near, far)]
        return []

    def _say_way(self, host: Host, now: float) -> None:
        self.changed.add(host.instance_id)
        if host.back.way == "not seen":
            words = "client addresses are not preserved to it"
            self._say(logging.WARNING, f"{host.instance_id}: {host.address} replies by another router: {words}", now)
        else:
            self._say(
                logging.INFO, f"{host.instance_id}: whether {host.address} replies by this way: {host.back.way}", now
            )

    def _look_after(self, own: Own, now: float) -> list[Sending]:
        """Somebody else claims an address of ours: ask if it still does."""
        if self._own.get(own.address) is not own:
            return []
        if own.expire(now) and not own.claimers:
            self._say(logging.WARNING, f"{own.address} of {own.owner} is not claimed by another host any more", now)
        if not own.claimers:
            return []
        self._owe(now + INTERVAL_SECONDS, "own", own)
        return [] if self.routed else [Question(own.address, None)]

    def _sender(self, address: str) -> str | None:
        """An address of ours of the same family, that nobody else claims."""
        mine = (one for one, own in self._own.items() if not own.claimers and _version(one) == _version(address))
        return next(mine, None)

    def _sequence(self) -> int:
        return next(self._sequences) & 0xFFFF


def _version(address: str) -> int:
    return 6 if ":" in address else 4


def _nobodys(ranges: tuple[IPv4or6Network, ...], taken: tuple[IPv4or6Network, ...]) -> str | None:
    """An address that is nobody's, of the first range that has nothing in common with any of those."""
    free = (one for one in ranges if not any(one.version == other.version and one.overlaps(other) for other in taken))
    found = next(free, None)
    return None if found is None else str(found[NOBODY])
