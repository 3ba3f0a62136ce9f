"""Results as people read them, as JSON, as JUnit XML and as SARIF: `docs/check.md` describes the forms."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from typing import Any, Final
from xml.sax.saxutils import escape, quoteattr

from wicketgate.explain import sarif
from wicketgate.explain.answer import Say
from wicketgate.explain.check.answer import SCHEMA, Example, Result, Results
from wicketgate.explain.check.words import text
from wicketgate.explain.opened import packets as said
from wicketgate.explain.region import EVERY_SOURCE, Box, Region
from wicketgate.explain.words import Language

PAGE: Final = "docs/check.md"
_not_xml = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def answer_of(results: Results, version: str, language: Language = "en") -> dict[str, Any]:
    """All forms at once, as the API answers."""
    return {
        "Report": as_data(results, language) | {"lines": list(lines_of(results, language))},
        "Sarif": json.dumps(as_sarif(results, version, language), ensure_ascii=False),
        "JUnit": as_junit(results, language),
    }


def as_data(results: Results, language: Language = "en") -> dict[str, Any]:
    """For `--json`."""
    return {
        "schema": SCHEMA,
        "outcome": results.outcome,
        "revision": results.revision,
        "checks": [_result(one, language) for one in results.results],
    }


def _result(one: Result, language: Language) -> dict[str, Any]:
    return {
        "verb": one.verb,
        "name": one.name,
        "line": one.place.line,
        "column": one.place.column,
        "outcome": one.outcome,
        "counterexamples": [_example(each, one, language) for each in one.examples],
        "more": one.more,
        "depends": list(one.depends),
    }


def _example(one: Example, result: Result, language: Language) -> dict[str, Any]:
    found = {
        "principal": one.principal,
        "sender": one.sender,
        "source": one.source,
        "endpoint": one.endpoint,
        "interface": one.interface,
        "target": one.target,
        "protocol": one.protocol,
        "port": one.port,
        "command": list(one.command),
        "text": text(_sentence(one, result), language),
        "why": [text(say, language) for say in one.why],
    }
    return found if one.duration is None else found | {"duration": one.duration}


def _sentence(one: Example, result: Result) -> Say:
    """The connection, and that it passes or does not."""
    passes = "passes" if result.verb == "never" else "not"
    (what,) = said(Region((Box(EVERY_SOURCE, (one.protocol, one.protocol), (one.port, one.port)),)))
    facts = {"source": one.source, "target": one.target, "interface": one.interface}
    if not one.principal:
        return Say(f"packet-{passes}", {**facts, "sender": one.sender}, {"what": (what,)})
    by = (Say("by", {"endpoint": one.endpoint}),) if one.endpoint else ()
    return Say(f"tunnel-{passes}", {**facts, "principal": one.principal}, {"what": (what,), "by": by})


def lines_of(results: Results, language: Language = "en") -> Iterator[str]:
    """Line by line."""
    for one in results.results:
        yield f"{text(Say(f'sign-{one.outcome}'), language)} {text(Say(one.verb), language)}: {one.name}"
        yield from (f"      {line}" for line in _below(one, language))
    counts = {each: str(sum(one.outcome == each for one in results.results)) for each in ("pass", "fail", "unknown")}
    yield text(Say("summary", {**counts, "revision": str(results.revision)}), language)


def _below(one: Result, language: Language) -> Iterator[str]:
    """What stands below a check."""
    for example in one.examples:
        yield text(_sentence(example, one), language)
        yield from (f"  {text(say, language)}" for say in example.why)
        if example.command:
            yield f"  {shlex.join(example.command)}"
    if one.more:
        yield text(Say("more", {"count": str(one.more)}), language)
    if one.depends:
        yield text(Say("depends", {"what": ", ".join(one.depends)}), language)


def as_junit(results: Results, language: Language = "en") -> str:
    """JUnit XML as continuous integration reads it: a failure for what does not hold, an error for what cannot be
    told."""
    failures, errors = (sum(one.outcome == each for one in results.results) for each in ("fail", "unknown"))
    counts = f'tests="{len(results.results)}" failures="{failures}" errors="{errors}"'
    cases = "".join(_case(one, results.file, language) for one in results.results)
    suite = f"<testsuite name={_attribute(results.file)} {counts}>\n{cases}</testsuite>\n"
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<testsuites {counts}>\n{suite}</testsuites>\n'


def _case(one: Result, file: str, language: Language) -> str:
    name = f"{text(Say(one.verb), language)}: {one.name}"
    opening = f"<testcase classname={_attribute(file)} name={_attribute(name)}"
    place = f' file={_attribute(file)} line="{one.place.line}"'
    if one.outcome == "pass":
        return f"{opening}{place}/>\n"
    lines = list(_below(one, language))
    kind = "failure" if one.outcome == "fail" else "error"
    told = escape(_not_xml.sub("\ufffd", "\n".join(lines)))
    return f"{opening}{place}>\n<{kind} message={_attribute(lines[0])}>{told}</{kind}>\n</testcase>\n"


def _attribute(value: str) -> str:
    return quoteattr(_not_xml.sub("\ufffd", value))


def as_sarif(results: Results, version: str, language: Language = "en") -> dict[str, Any]:
    """SARIF 2.1.0: one result for each check that does not hold or cannot be told, at its place in the file."""
    kinds: tuple[tuple[str, str, sarif.Level], ...] = (
        ("never", "reached-all-the-same", "error"),
        ("always", "not-reached", "error"),
        ("unknown", "cannot-be-told", "warning"),
    )
    rules = [sarif.Rule(key, name, text(Say(f"kind-{key}"), language), level, PAGE) for key, name, level in kinds]
    found = [
        sarif.Result(
            rule=one.verb if one.outcome == "fail" else "unknown",
            level="error" if one.outcome == "fail" else "warning",
            text="\n".join((one.name, *_below(one, language))),
            resource=one.name,
            uri=results.file,
            line=one.place.line,
            column=one.place.column,
            fixes=tuple(shlex.join(each.command) for each in one.examples if each.command),
        )
        for one in results.results
        if one.outcome != "pass"
    ]
    return sarif.log("wicketgate check", version, rules, found)
