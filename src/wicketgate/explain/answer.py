"""What an explanation is made of: steps with what decided each, nearest misses, and changes that would help.

Nothing here is a sentence: a `Say` names one of the catalogue (`words`) and its facts, so that every answer exists in
every language and a program can read it.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from wicketgate.model.change import Resource

SCHEMA = 1
"""Version of the JSON form. A field may be added under the same number; none goes or changes its meaning."""

Outcome = Literal["pass", "fail", "unknown"]


class Say(msgspec.Struct, frozen=True):
    """A sentence of the catalogue and what is put into its places."""

    key: str
    facts: dict[str, str] = {}
    parts: dict[str, tuple[Say, ...]] = {}
    """Facts that are sentences themselves, as lists."""


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One step of the way."""

    step: str
    """Stable and short, for programs: `credentials`, `iam`, `endpoint`, ..., `target-inbound`, `tracking`."""
    outcome: Outcome
    say: Say
    decided_by: str = ""
    """Id of the statement (`policy/Sid`), rule (`sgr-...`), resource or setting that decided."""
    where: Say | None = None
    """Where that is defined: the policy and whose it is, the group and its name, the settings file."""
    misses: tuple[Say, ...] = ()
    """What nearly let it pass, the nearest first."""


class Opening(msgspec.Struct, frozen=True, kw_only=True):
    """Packets that a change would let pass beside those that were asked about."""

    sender: str
    receiver: str
    """Ids of network interfaces."""
    what: tuple[Say, ...]
    """`tcp 22 from 10.0.1.10/32` and the like; without a source, from wherever the sender sends."""
    addresses: tuple[str, ...] = ()
    """Which of the receiver's addresses; empty = all."""


class Remedy(msgspec.Struct, frozen=True, kw_only=True):
    """Changes that together would let it pass, as commands, and what else they would open."""

    commands: tuple[tuple[str, ...], ...]
    """Each a command line, word by word."""
    puts: tuple[Resource, ...] = ()
    """The same as resources, for trying it on a World."""
    notes: tuple[Say, ...] = ()
    opens: tuple[Opening, ...] = ()
    """Beside what was asked for; the first of many."""
    also_opens: int = 0
    """How many pairs of network interfaces get something beside what was asked for."""


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """The whole answer."""

    asked: dict[str, str]
    """Who, from where, by which endpoint, to what: as it was understood."""
    lines: tuple[Line, ...]
    remedies: tuple[Remedy, ...] = ()
    revision: int = 0
    """Of the World that it is about."""
    recorded: dict[str, str] = {}
    """What the audit trail has of the attempt that is explained; empty for a question."""

    @property
    def outcome(self) -> Outcome:
        """`fail` if any step does; else `unknown` if any step is; else `pass`."""
        outcomes = {line.outcome for line in self.lines}
        return "fail" if "fail" in outcomes else "unknown" if "unknown" in outcomes else "pass"
