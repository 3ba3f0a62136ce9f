"""Why can, or cannot, this connection be made? Answers from the World alone, by the code that enforces.

Where the World came from - this installation, a moment of its past, an account elsewhere - makes no difference here.
"""

from __future__ import annotations

from wicketgate.explain.answer import Explanation, Line, Opening, Remedy, Say
from wicketgate.explain.question import Asked, Question, Unanswerable, understood
from wicketgate.explain.remedies import remedies
from wicketgate.explain.report import as_data, lines_of
from wicketgate.explain.steps import name_of, steps
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
    "text",
]


def explain(world: World, question: Question, *, open_tunnels: int | None = None) -> Explanation:
    """The whole answer to a question. Raises Unanswerable for one that names what is not there.

    `open_tunnels`: how many tunnels the endpoint has open, where that could be found out.
    """
    asked = understood(world, question)
    lines = tuple(steps(world, asked, open_tunnels))
    return Explanation(
        asked={
            "principal": name_of(asked.principal),
            "principalArn": asked.principal.arn,
            "from": asked.source_ip,
            "endpoint": asked.endpoint.id if asked.endpoint is not None else "",
            "target": asked.instance.id if asked.instance is not None else "",
            "address": asked.address,
            "port": str(question.port),
        },
        lines=lines,
        remedies=remedies(world, asked, lines),
        revision=world.revision,
    )
