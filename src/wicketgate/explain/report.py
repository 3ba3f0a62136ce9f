"""An explanation as people read it, and as programs do: `docs/explain.md` describes the form.

What people read is made from what programs read, so both say the same; it comes along, so that a client has but to
print it.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from wicketgate.explain.answer import SCHEMA, Explanation, Line, Remedy, Say
from wicketgate.explain.opened import joined
from wicketgate.explain.words import Language, text


def as_data(explanation: Explanation, language: Language = "en") -> dict[str, Any]:
    """The answer for `--json` (docs/explain.md)."""
    data = {
        "schema": SCHEMA,
        "outcome": explanation.outcome,
        "text": text(Say(f"result-{explanation.outcome}"), language),
        "oneLine": one_line(explanation.lines, language),
        "revision": explanation.revision,
        "asked": explanation.asked,
        "recorded": explanation.recorded,
        "steps": [_step_data(line, language) for line in explanation.lines],
        "remedies": [_remedy_data(remedy, language) for remedy in explanation.remedies],
    }
    return data | {"lines": _lines(data, language)}


def one_line(lines: tuple[Line, ...], language: Language = "en") -> str:
    """Why not, in the words of the first step that fails; empty when none does."""
    return next((text(line.say, language) for line in lines if line.outcome == "fail"), "")


def _step_data(line: Line, language: Language) -> dict[str, Any]:
    """One step of it."""
    return {
        "step": line.step,
        "name": text(Say(f"step-{line.step}"), language),
        "outcome": line.outcome,
        **_say(line.say, language),
        "decidedBy": line.decided_by,
        "definedIn": text(line.where, language) if line.where is not None else "",
        "nearestMisses": [_say(miss, language) for miss in line.misses],
    }


def _remedy_data(remedy: Remedy, language: Language) -> dict[str, Any]:
    return {
        "commands": [list(command) for command in remedy.commands],
        "notes": [_say(note, language) for note in remedy.notes],
        "changesRules": bool(remedy.puts),
        "alsoOpens": remedy.also_opens,
        "opens": [
            {
                "from": one.sender,
                "to": one.receiver,
                "toAddresses": list(one.addresses),
                "what": joined(one.what, language),
            }
            for one in remedy.opens
        ],
    }


def _say(say: Say, language: Language) -> dict[str, Any]:
    parts = {name: ", ".join(text(one, language) for one in says) for name, says in say.parts.items()}
    return {"key": say.key, "facts": say.facts | parts, "text": text(say, language)}


# -- for people --------------------------------------------------------------------------------------------------------


def lines_of(explanation: Explanation, language: Language = "en") -> list[str]:
    """The answer, a line each: every step, what nearly let a failed one pass, and what would help."""
    found: list[str] = as_data(explanation, language)["lines"]
    return found


def _lines(data: Mapping[str, Any], language: Language) -> list[str]:
    found = _recorded(data["recorded"], language)
    for step in data["steps"]:
        where = f"  [{step['definedIn']}]" if step["definedIn"] else ""
        sign = text(Say(f"sign-{step['outcome']}"), language)
        found.append(f"{sign} {step['name']}: {step['text']}{where}")
        found += [f"       {miss['text']}" for miss in step["nearestMisses"]]
    if data["remedies"]:
        found += ["", text(Say("remedies"), language)]
    for number, remedy in enumerate(data["remedies"], start=1):
        found += _remedy(number, remedy, language)
    return [*found, "", data["text"]]


def _recorded(recorded: Mapping[str, str], language: Language) -> list[str]:
    if not recorded:
        return []
    how = "recorded-closed" if "closeReason" in recorded else "recorded-failed" if "errorCode" in recorded else ""
    return [text(Say(how or "recorded-opened", dict(recorded)), language), ""]


def _remedy(number: int, remedy: Mapping[str, Any], language: Language) -> list[str]:
    found = [f"{number}. {shlex.join(command)}" for command in remedy["commands"][:1]]
    found += [f"   {shlex.join(command)}" for command in remedy["commands"][1:]]
    for note in remedy["notes"]:
        found.append(f"{'   ' if found else f'{number}. '}{note['text']}")
    if not remedy["changesRules"]:
        return found
    if not remedy["alsoOpens"]:
        return [*found, f"   {text(Say('opens-nothing'), language)}"]
    found.append(f"   {text(Say('opens', {'count': str(remedy['alsoOpens'])}), language)}")
    for one in remedy["opens"]:
        some = f" ({', '.join(one['toAddresses'])})" if one["toAddresses"] else ""
        found.append(f"     {one['from']} -> {one['to']}{some}: {one['what']}")
    return found
