"""Why can, or cannot, this connection be made? Answers from the World alone, by the code that enforces.

Where the World came from - this installation, a moment of its past, an account elsewhere - makes no difference here.
"""

from __future__ import annotations

from datetime import UTC, datetime

from wicketgate.explain.answer import Explanation, Line, Opening, Remedy, Say
from wicketgate.explain.close import why_not
from wicketgate.explain.question import Asked, Question, Unanswerable, principal_arn, understood
from wicketgate.explain.remedies import remedies
from wicketgate.explain.report import as_data, lines_of
from wicketgate.explain.steps import duration_of, name_of, steps
from wicketgate.explain.words import LANGUAGES, Language, text
from wicketgate.model import World

__all__ = [
    "LANGUAGES",
    "Asked",
    "Explanation",
    "Language",
    "Line",
    "Opening",
    "Question",
    "Remedy",
    "Say",
    "Unanswerable",
    "as_data",
    "explain",
    "lines_of",
    "principal_arn",
    "text",
    "why_not",
]


def explain(world: World, question: Question, *, open_tunnels: int | None = None) -> Explanation:
    """The whole answer to a question. Raises Unanswerable for one that names what is not there.

    `open_tunnels`: how many tunnels the endpoint has open, where that could be found out.
    """
    asked = understood(world, question)
    lines = tuple(steps(world, asked, open_tunnels))
    return Explanation(
        asked=_asked(world, asked),
        lines=lines,
        remedies=remedies(world, asked, lines),
        revision=world.revision,
    )


def _asked(world: World, asked: Asked) -> dict[str, str]:
    question, endpoint = asked.question, asked.endpoint
    return {
        "principal": name_of(asked.principal),
        "principalArn": asked.principal.arn,
        "from": asked.source_ip,
        "endpoint": endpoint.id if endpoint is not None else "",
        "endpointDnsName": endpoint.dns_name if endpoint is not None else "",
        "target": asked.instance.id if asked.instance is not None else "",
        "address": asked.address,
        "port": str(question.port),
        "duration": str(duration_of(world, asked)),
        "ssh": "true" if question.ssh else "false",
        "at": datetime.fromtimestamp(question.at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
