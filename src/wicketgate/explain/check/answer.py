"""What a run of checks found: for each whether it holds, and where not, concrete connections that show it."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from wicketgate.explain.answer import Say
from wicketgate.explain.check.language import Place, Verb

SCHEMA: Final = 1
"""Version of the JSON form. A field may be added under the same number; none goes or changes its meaning."""
SHOWN: Final = 5
"""Counterexamples that are given."""

Outcome = Literal["pass", "fail", "unknown"]


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """One connection that a check says something else about."""

    source: str
    """The client's address; for packets between machines what the packet carries."""
    target: str
    """The address that is reached, or not."""
    interface: str
    """Which network interface has it."""
    protocol: int = 6
    port: int
    """For ICMP type and code: `type << 8 | code`."""
    principal: str = ""
    """As `wicketgate explain --principal` takes it; empty for packets between machines."""
    endpoint: str = ""
    duration: int | None = None
    """Seconds of maxTunnelDuration; None = left out."""
    sender: str = ""
    """The network interface that packets come from; empty for tunnels."""
    why: tuple[Say, ...] = ()
    """Of one that should pass: what stops it. Else what has to be true first, such as that the instance runs."""

    @property
    def command(self) -> tuple[str, ...]:
        """The question to `wicketgate explain` that shows it; empty for packets between machines."""
        if not self.principal:
            return ()
        endpoint = ("--endpoint", self.endpoint) if self.endpoint else ()
        duration = () if self.duration is None else ("--duration", str(self.duration))
        where = ("--from", self.source, *endpoint, "--to", self.target, "--port", str(self.port))
        return "wicketgate", "explain", "--principal", self.principal, *where, *duration


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one check."""

    verb: Verb
    name: str
    place: Place
    outcome: Outcome
    examples: tuple[Example, ...] = ()
    """The first of them, those that can be tried right now before others."""
    more: int = 0
    """How many ways there are besides: principal, target and endpoint, or two machines."""
    depends: tuple[str, ...] = ()
    """With outcome `unknown`: what it depends on that cannot be known beforehand."""


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run."""

    file: str
    results: tuple[Result, ...]
    revision: int

    @property
    def outcome(self) -> Outcome:
        """`fail` if any check does; else `unknown` if any is; else `pass`."""
        outcomes = {one.outcome for one in self.results}
        return "fail" if "fail" in outcomes else "unknown" if "unknown" in outcomes else "pass"
