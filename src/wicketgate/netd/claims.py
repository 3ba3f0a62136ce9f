"""Which link-layer address holds which address, by what is said on the link: moves, disputes, and who claims ours.

Bounded for each address, whatever is said. No clock: times are of the monotonic one, in seconds, passed in.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

DISPUTE_SECONDS: Final = 60.0
"""When an address comes back to where it was within this time, it has not moved: two hosts claim it."""
DISPUTED_SECONDS: Final = 300.0
"""How long after the last such change that is said."""
MOVED_SECONDS: Final = 3600.0
"""How long an operator is told that an address has moved."""
QUIET_SECONDS: Final = 60.0
"""When somebody's claim of an address of ours was not heard again for so long, it is over."""
DEFEND_SECONDS: Final = 10.0
"""An address of ours is announced no more often than this while somebody else claims it (RFC 5227, DEFEND_INTERVAL)."""
_MOST_CLAIMERS: Final = 8


@dataclass
class Tenure:
    """Who holds a machine's address."""

    address: str
    mac: str = ""
    """The last to claim it; empty while nobody has."""
    former: str = ""
    moved_at: float | None = None
    disputed_at: float | None = None

    def claimed(self, mac: str, now: float) -> str:
        """Somebody claims the address. Returns what is to be logged of it; empty for nothing new."""
        if mac == self.mac:
            return ""
        back = mac == self.former and self.moved_at is not None and now - self.moved_at < DISPUTE_SECONDS
        self.former, self.mac = self.mac, mac
        if not self.former:
            return ""
        self.moved_at = now
        if not back:
            return f"{self.address} moved from {self.former} to {mac}: the machine was replaced, or its address stolen"
        known, self.disputed_at = self.is_disputed(now), now
        return "" if known else f"{self.address} is claimed by two hosts: {self.former} and {mac}"

    def is_settled(self, now: float) -> bool:
        """Whether one host alone holds it, as far as is known: not just after a move, when the former may still."""
        moved = self.moved_at is not None and now - self.moved_at < DISPUTE_SECONDS
        return bool(self.mac) and not moved and not self.is_disputed(now)

    def is_disputed(self, now: float) -> bool:
        """Whether two hosts claim it."""
        return self.disputed_at is not None and now - self.disputed_at < DISPUTED_SECONDS

    def note(self, now: float) -> str:
        """What an operator should know of it."""
        if self.is_disputed(now):
            return f"{self.address} is claimed by two hosts: {' and '.join(sorted((self.former, self.mac)))}"
        if self.moved_at is not None and now - self.moved_at < MOVED_SECONDS:
            return f"{self.address} moved from {self.former} to {self.mac}"
        return ""

    def renewal(self, now: float) -> float | None:
        """When the note is another by time alone; None when it is not."""
        if self.is_disputed(now):
            assert self.disputed_at is not None, "it is disputed"
            return self.disputed_at + DISPUTED_SECONDS
        if self.moved_at is not None and now - self.moved_at < MOVED_SECONDS:
            return self.moved_at + MOVED_SECONDS
        return None


@dataclass
class Own:
    """An address that is answered for here."""

    address: str
    owner: str
    """Whose it is, in words."""
    claimers: dict[str, float] = field(default_factory=dict)
    """Link-layer address -> when its claim was heard last."""
    owed: dict[str, tuple[int, float]] = field(default_factory=dict)
    """What is to be done for it -> number and time of the entry that counts (segment.py)."""
    _defended_at: float | None = None

    def claimed(self, mac: str, now: float) -> str:
        """Somebody else claims it. Returns what is to be logged of it; empty for nothing new."""
        known = self.claimers.pop(mac, None) is not None
        self.claimers[mac] = now  # the last heard stands last
        if len(self.claimers) > _MOST_CLAIMERS:
            del self.claimers[next(iter(self.claimers))]
        return "" if known else f"{self.address} of {self.owner} is claimed by another host too: {mac}"

    def defends(self, now: float) -> bool:
        """Whether to announce that it is ours; once asked for it is taken for done."""
        if self._defended_at is not None and now - self._defended_at < DEFEND_SECONDS:
            return False
        self._defended_at = now
        return True

    def expire(self, now: float) -> bool:
        """Forget claims that were not heard again; whether there was one."""
        quiet = [mac for mac, heard in self.claimers.items() if now - heard >= QUIET_SECONDS]
        for mac in quiet:
            del self.claimers[mac]
        return bool(quiet)

    @property
    def problem(self) -> str:
        """What an operator should know of it; empty while nobody else claims it."""
        if not self.claimers:
            return ""
        return f"{self.address} of {self.owner} is claimed by another host too: {', '.join(sorted(self.claimers))}"
