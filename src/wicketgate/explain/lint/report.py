"""Findings as people read them, and as programs do: `docs/lint.md` describes the forms."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from typing import Any

from wicketgate.explain.answer import Say
from wicketgate.explain.lint.finding import KINDS, SCHEMA, SEVERITIES, Finding, Fix, Report
from wicketgate.explain.lint.words import text
from wicketgate.explain.sarif import Result, Rule, log
from wicketgate.explain.words import Language


def as_data(report: Report, language: Language = "en") -> dict[str, Any]:
    """The report for `--json` (docs/lint.md)."""
    return {
        "schema": SCHEMA,
        "revision": report.revision,
        "counts": {severity: sum(one.severity == severity for one in report.findings) for severity in SEVERITIES},
        "findings": [_finding(one, language) for one in report.findings],
        "notLookedAt": [text(one, language) for one in report.unknown],
    }


def _finding(one: Finding, language: Language) -> dict[str, Any]:
    kind = KINDS[one.kind]
    return {
        "id": kind.id,
        "name": kind.name,
        "severity": kind.severity,
        "resource": one.resource,
        "within": one.within,
        "key": one.say.key,
        "facts": one.say.facts,
        "text": text(one.say, language),
        "page": kind.page,
        "fix": None if one.fix is None else _fix(one.fix, language),
    }


def _fix(fix: Fix, language: Language) -> dict[str, Any]:
    commands = [list(command) for command in fix.commands]
    return {"effect": fix.effect, "text": text(Say(f"fix-{fix.effect}"), language), "commands": commands}


def lines_of(report: Report, language: Language = "en") -> Iterator[str]:
    """The report line by line."""
    for one in report.findings:
        kind = KINDS[one.kind]
        severity = text(Say(f"severity-{kind.severity}"), language)
        yield f"{kind.id} {severity}: {text(one.say, language)}"
        if one.fix is not None:
            yield f"    {text(Say(f'fix-{one.fix.effect}'), language)}"
            yield from (f"      {shlex.join(command)}" for command in one.fix.commands)
    for say in report.unknown:
        yield text(Say("not-looked-at", parts={"what": (say,)}), language)
    counts: dict[str, str] = {one: str(sum(found.severity == one for found in report.findings)) for one in SEVERITIES}
    yield text(Say("summary", {**counts, "revision": str(report.revision)}), language)


def answer_of(report: Report, version: str, language: Language = "en", uri: str = "") -> dict[str, Any]:
    """All forms of a report at once, as the API answers: `Report`, with the lines that people read, and `Sarif`."""
    return {
        "Report": as_data(report, language) | {"lines": list(lines_of(report, language))},
        "Sarif": json.dumps(as_sarif(report, version, language, uri), ensure_ascii=False),
    }


def as_sarif(report: Report, version: str, language: Language = "en", uri: str = "") -> dict[str, Any]:
    """The report as SARIF 2.1.0. `uri`: of the file that the World came from, if any."""
    rules = [
        Rule(kind.id, kind.name, text(Say(f"kind-{kind.id}"), language), kind.severity, kind.page)
        for kind in KINDS.values()
    ]
    results = [
        Result(
            rule=one.kind,
            level=one.severity,
            text=text(one.say, language),
            resource=f"{one.within}/{one.resource}" if one.within else one.resource,
            uri=uri,
            fixes=tuple(map(shlex.join, one.fix.commands)) if one.fix is not None else (),
        )
        for one in report.findings
    ]
    return log("wicketgate lint", version, rules, results)
