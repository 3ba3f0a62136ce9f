"""An explanation as people read it, and as programs do."""

from __future__ import annotations

import shlex
from typing import Any, Final

from wicketgate.explain.answer import SCHEMA, Explanation, Line, Remedy, Say
from wicketgate.explain.words import Language, text

_SIGNS: Final = {"pass": "ok  ", "fail": "FAIL", "unknown": "?   "}


def lines_of(explanation: Explanation, language: Language = "en") -> list[str]:
    """The answer, a line each: every step, what nearly let a failed one pass, and what would help."""
    found = []
    for line in explanation.lines:
        name = text(Say(f"step-{line.step}"), language)
        where = f"  [{line.defined_in}]" if line.defined_in else ""
        found.append(f"{_SIGNS[line.outcome]} {name}: {text(line.say, language)}{where}")
        found += [f"       {text(miss, language)}" for miss in line.misses]
    if explanation.remedies:
        found += ["", text(Say("remedies"), language)]
    for number, remedy in enumerate(explanation.remedies, start=1):
        found += _remedy(number, remedy, language)
    return [*found, "", text(Say(f"result-{explanation.outcome}"), language)]


def _remedy(number: int, remedy: Remedy, language: Language) -> list[str]:
    found = [f"{number}. {shlex.join(command)}" for command in remedy.commands[:1]]
    found += [f"   {shlex.join(command)}" for command in remedy.commands[1:]]
    notes = [text(note, language) for note in remedy.notes]
    found += [f"{'   ' if found else f'{number}. '}{note}" for note in notes]
    if not remedy.puts:
        return found
    if not remedy.also_opens:
        return [*found, f"   {text(Say('opens-nothing'), language)}"]
    found.append(f"   {text(Say('opens', {'count': str(remedy.also_opens)}), language)}")
    found += [f"     {one.sender} -> {one.receiver}: {one.what}" for one in remedy.opens]
    return found


def as_data(explanation: Explanation, language: Language = "en") -> dict[str, Any]:
    """The answer for `--json` (docs/explain.md)."""
    return {
        "schema": SCHEMA,
        "outcome": explanation.outcome,
        "revision": explanation.revision,
        "asked": explanation.asked,
        "steps": [_step(line, language) for line in explanation.lines],
        "remedies": [
            {
                "commands": [list(command) for command in remedy.commands],
                "notes": [_say(note, language) for note in remedy.notes],
                "alsoOpens": remedy.also_opens,
                "opens": [{"from": one.sender, "to": one.receiver, "what": one.what} for one in remedy.opens],
            }
            for remedy in explanation.remedies
        ],
    }


def _step(line: Line, language: Language) -> dict[str, Any]:
    return {
        "step": line.step,
        "outcome": line.outcome,
        **_say(line.say, language),
        "decidedBy": line.decided_by,
        "definedIn": line.defined_in,
        "nearestMisses": [_say(miss, language) for miss in line.misses],
    }


def _say(say: Say, language: Language) -> dict[str, Any]:
    return {"key": say.key, "facts": say.facts, "text": text(say, language)}
