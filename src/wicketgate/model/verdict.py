"""How a decision is stated: ordered steps, each with what decided it. Never a bare boolean."""

from __future__ import annotations

from typing import NamedTuple

import msgspec


class Reason(NamedTuple):
    """Why something is not so, as a sentence with facts in it: one language's words are `str(reason)`, those of others
    are found by the key."""

    key: str
    words: str
    """English, with places for the facts in braces."""
    facts: dict[str, str]

    def __str__(self) -> str:
        """One line in English."""
        return self.words.format(**self.facts)


class Step(msgspec.Struct, frozen=True):
    """One stage of a decision."""

    name: str
    """Stable and short, for programs: `credentials`, `iam`, `endpoint-outbound`, `target-inbound`, ..."""
    passed: bool
    reason: str
    """One line for people: what was found, and which statement or rule it was."""
    decided_by: str = ""
    """Id of what decided (statement `policy/Sid`, `sgr-...`, `sg-...`, setting); empty if nothing in particular."""


class Verdict(msgspec.Struct, frozen=True):
    """An ordered list of steps. It passes when every step does; evaluation stops at the first that fails."""

    steps: tuple[Step, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every step passed."""
        return all(step.passed for step in self.steps)

    @property
    def failure(self) -> Step | None:
        """The first step that failed, or None."""
        return next((step for step in self.steps if not step.passed), None)

    def __add__(self, other: Verdict) -> Verdict:
        """Both decisions, one after the other."""
        return Verdict(self.steps + other.steps)

    def __bool__(self) -> bool:
        """Refuse truth tests: `if verdict:` hides which question was asked; use `.passed`."""
        raise TypeError("use verdict.passed")
