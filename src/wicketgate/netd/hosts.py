"""One address of a registered machine: whether it answers, and whether its replies come back this way.

    not known  --answer--> reachable --3 misses--> not reachable --answer--> reachable
    not known  --3 misses--> not reachable

No I/O and no clock: `Moment`s are passed in.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from wicketgate.netd.claims import Tenure

WAIT_SECONDS: Final = 1.0
"""How long an answer is waited for, and how soon is asked again when there was none."""
MISSES: Final = 3
INTERVAL_SECONDS: Final = 15.0
SETTLING_SECONDS: Final = 30.0
SETTLING_INTERVAL: Final = 2.0
"""For so long after it went a machine is asked so often."""
RARELY: Final = 4
"""Times the interval, where a question is no harmless one (segment.py)."""
WAY_INTERVAL: Final = 60.0
STRAY_INTERVAL: Final = 15.0
"""How often the way back is looked at: while all is well, and while replies go elsewhere."""

Way = Literal["seen", "not seen", "unknown"]
"""Whether replies to addresses elsewhere come back to this gateway."""


class Moment(NamedTuple):
    """A time, by both clocks."""

    clock: float
    """Monotonic, in seconds."""
    time: float
    """Seconds since the epoch."""


@dataclass
class Reach:
    """Whether it answers."""

    reachable: bool | None = None
    """None while it is not known."""
    since: float = 0.0
    """When that was found first, in seconds since the epoch."""
    answering: bool = False
    """Whether silence says something only if it has answered before."""
    misses: int = 0
    asked_at: float | None = None
    """When it was asked what it has not answered yet."""
    heard_at: float | None = None
    unanswered_at: float | None = None
    """When it was asked what it did not answer."""
    gone_at: float | None = None

    def heard(self, now: Moment) -> bool:
        """It is there. Whether that is news."""
        self.asked_at, self.misses, self.heard_at = None, 0, now.clock
        return self._found(reachable=True, now=now)

    def missed(self, now: Moment) -> bool:
        """What was asked was not answered in time. Whether it is gone by that, which is news."""
        self.asked_at, self.unanswered_at = None, self.asked_at
        self.misses += 1
        if self.misses < MISSES or (self.answering and self.reachable is None):
            return False
        if self.reachable is not False:
            self.gone_at = now.clock
        return self._found(reachable=False, now=now)

    def _found(self, *, reachable: bool, now: Moment) -> bool:
        if self.reachable is reachable:
            return False
        self.reachable, self.since = reachable, now.time
        return True

    @property
    def doubtful(self) -> bool:
        """Whether to ask again at once."""
        return 0 < self.misses < MISSES

    def pause(self, now: float, interval: float) -> float:
        """Seconds until it is to be asked, where `interval` is between two questions, if all is well; at most 0 = now.
        `now` is of the monotonic clock."""
        if self.misses >= MISSES and self.unanswered_at is not None:
            settling = self.gone_at is not None and now - self.gone_at < SETTLING_SECONDS
            return self.unanswered_at + (min(SETTLING_INTERVAL, interval) if settling else interval) - now
        return 0.0 if self.heard_at is None or self.doubtful else self.heard_at + interval - now


@dataclass
class WayBack:
    """Whether replies to addresses elsewhere come back this way."""

    way: Way = "unknown"
    sequence: int | None = None
    """Of the echo requests that are on their way: one from an address on the link, one from one elsewhere."""
    asked_at: float = 0.0
    near: bool = False
    far: bool = False
    """Which of them was answered."""
    _last: Way = "unknown"
    _times: int = 0

    def asked(self, sequence: int, now: float) -> None:
        """Both are sent."""
        self.sequence, self.asked_at, self.near, self.far = sequence, now, False, False

    def judged(self, *, disturbed: bool) -> bool:
        """The time for answers is over. Whether another is known now.

        `disturbed`: answers may have been lost on our side. Replies that are seen are seen; what is not seen counts
        the third time in a row.
        """
        found: Way = "seen" if self.far else "not seen" if self.near else "unknown"
        self.sequence = None
        if disturbed and found != "seen":
            return False
        self._times = self._times + 1 if found == self._last else 1
        self._last = found
        if found == self.way or (found != "seen" and self._times < MISSES):
            return False
        self.way = found
        return True

    @property
    def interval(self) -> float:
        """Seconds until it is looked at again."""
        if self._last != self.way and self._times < MISSES:
            return WAIT_SECONDS
        return STRAY_INTERVAL if self.way == "not seen" else WAY_INTERVAL


class Host:
    """One address of a machine. `probed`: whether the machine's state goes by it."""

    def __init__(self, instance_id: str, address: str, *, probed: bool) -> None:
        self.instance_id, self.address, self.probed = instance_id, address, probed
        self.tenure, self.reach, self.back = Tenure(address), Reach(), WayBack()
        self.gone = False
        """Whether it is registered no more."""
        self.owed: dict[str, tuple[int, float]] = {}
        """What is to be done for it -> number and time of the entry that counts (segment.py)."""

    @property
    def share(self) -> float:
        """A number from 0 to 1, the same for the same address: spreads what is done at intervals."""
        return zlib.crc32(self.address.encode()) / (1 << 32)

    def note(self, now: float) -> str:
        """What an operator should know of it."""
        stray = f"{self.address} does not send its replies through this gateway" if self.back.way == "not seen" else ""
        return "; ".join(one for one in (self.tenure.note(now), stray) if one)
