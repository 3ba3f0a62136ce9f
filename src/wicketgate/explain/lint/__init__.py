"""What is not as it should be in a World: rules, groups, endpoints, policies and quotas. Exactly, by set algebra.

Each finding says what, why, and how to mend it by a command that keeps every flow, unless it says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from wicketgate.explain.answer import Say
from wicketgate.explain.lint import endpoints, policies, quotas, rules
from wicketgate.explain.lint.finding import KINDS, SEVERITIES, Facts, Finding, Fix, Kind, Report, Severity
from wicketgate.explain.lint.report import answer_of, as_data, as_sarif, lines_of
from wicketgate.explain.lint.words import text
from wicketgate.model import World

__all__ = [
    "KINDS",
    "SEVERITIES",
    "Facts",
    "Finding",
    "Fix",
    "Kind",
    "Report",
    "Severity",
    "answer_of",
    "as_data",
    "as_sarif",
    "lines_of",
    "lint",
    "text",
]


def lint(world: World, facts: Facts | None = None, ignored: Iterable[str] = ()) -> Report:
    """Everything that is found, the gravest first.

    `ignored`: kinds that are not to be told (`WG008`), or of one resource alone (`WG001:sgr-...`).
    """
    facts = facts or Facts()
    ignored = frozenset(ignored)
    found = [one for one in _findings(world, facts) if not {one.kind, f"{one.kind}:{one.resource}"} & ignored]
    found.sort(key=lambda one: (-SEVERITIES.index(one.severity), one.kind))
    return Report(findings=tuple(found), unknown=tuple(_unknown(facts)), revision=world.revision)


def _findings(world: World, facts: Facts) -> Iterator[Finding]:
    """A rule that allows nothing is told about once: what else could be said of it does not matter."""
    dead: set[str] = set()
    for one in (*rules.powerless(world), *endpoints.inbound(world)):
        if one.resource not in dead:
            dead.add(one.resource)
            yield one
    yield from rules.in_pieces(world, dead)
    unseen = list(endpoints.unseen(world, dead))
    dead.update(one.resource for one in unseen)
    yield from unseen
    broad = list(rules.broad(world, dead))
    unwanted = {one.resource for one in broad}
    yield from broad
    yield from rules.covered(world, dead | unwanted)
    yield from rules.unused(world, facts, dead)
    yield from rules.untracked(world, dead, unwanted)
    yield from rules.idle(world)
    yield from endpoints.reached(world)
    yield from endpoints.preservation(world, dead)
    yield from policies.policies(world)
    yield from quotas.quotas(world, facts)


def _unknown(facts: Facts) -> Iterator[Say]:
    if facts.connections is None:
        yield Say("unknown-counters")
    if facts.tunnels is None:
        yield Say("unknown-tunnels")
