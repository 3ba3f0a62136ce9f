"""Checks of a World for continuous integration: who never reaches what, and who always does. `docs/check.md`."""

from __future__ import annotations

from wicketgate.explain.check import flows, selectors
from wicketgate.explain.check.answer import Example, Result, Results
from wicketgate.explain.check.language import Mistake, Written, read
from wicketgate.explain.check.report import answer_of, as_data, as_junit, as_sarif, lines_of
from wicketgate.explain.check.tunnels import Tunnels
from wicketgate.explain.check.words import text
from wicketgate.model import World

__all__ = [
    "Example",
    "Mistake",
    "Result",
    "Results",
    "answer_of",
    "as_data",
    "as_junit",
    "as_sarif",
    "check",
    "lines_of",
    "read",
    "text",
]


def check(world: World, content: str, file: str, at: float) -> Results:
    """Run the checks of a file. Raises Mistake for what is written wrongly or names what is not there.

    `at`: when, in seconds since the epoch: conditions on the time are judged at that moment.
    """
    tunnels = Tunnels(world, at)
    results = tuple(
        tunnels.check(one) if _is_about_tunnels(one) else flows.check(world, one) for one in read(content, file)
    )
    return Results(file=file, results=results, revision=world.revision)


def _is_about_tunnels(written: Written) -> bool:
    """Principals, or clients' addresses, come by tunnels; what else sends is a machine."""
    values = written.values
    if "from" not in values:
        return True
    clients = selectors.is_about_clients(values["from"])
    if "who" in values and not clients:
        raise values["from"][0].wrong("clients")
    return clients
