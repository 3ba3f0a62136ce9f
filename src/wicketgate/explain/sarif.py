"""Results for code scanning: SARIF 2.1.0 (OASIS, Static Analysis Results Interchange Format)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal, NamedTuple

SCHEMA_URI: Final = "https://json.schemastore.org/sarif-2.1.0.json"
Level = Literal["none", "note", "warning", "error"]


class Rule(NamedTuple):
    """A kind of result (3.49, reportingDescriptor)."""

    id: str
    name: str
    text: str
    level: Level
    page: str
    """Where it is documented, relative to the repository."""


class Result(NamedTuple):
    """One result (3.27)."""

    rule: str
    level: Level
    text: str
    resource: str
    """What it is about; with the rule it identifies the result from run to run."""
    uri: str = ""
    """Of the file that it is in, if it is in one."""
    line: int = 1
    column: int = 1
    """Counted from 1."""
    fixes: tuple[str, ...] = ()
    """Command lines."""


def log(tool: str, version: str, rules: Sequence[Rule], results: Iterable[Result]) -> dict[str, Any]:
    """A log of one run."""
    index = {rule.id: number for number, rule in enumerate(rules)}
    driver = {"name": tool, "version": version, "rules": [_descriptor(rule) for rule in rules]}
    found = [_result(one, index[one.rule]) for one in results]
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": found}
    return {"$schema": SCHEMA_URI, "version": "2.1.0", "runs": [run]}


def _descriptor(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.id,
        "name": rule.name,
        "shortDescription": {"text": rule.text},
        "help": {"text": rule.page},
        "defaultConfiguration": {"level": rule.level},
    }


def _result(one: Result, index: int) -> dict[str, Any]:
    location: dict[str, Any] = {
        "logicalLocations": [{"name": one.resource.rpartition("/")[2], "fullyQualifiedName": one.resource}]
    }
    if one.uri:
        region = {"startLine": one.line, "startColumn": one.column}
        location["physicalLocation"] = {"artifactLocation": {"uri": one.uri}, "region": region}
    found: dict[str, Any] = {
        "ruleId": one.rule,
        "ruleIndex": index,
        "level": one.level,
        "message": {"text": one.text},
        "locations": [location],
        "partialFingerprints": {"wicketgate/v1": f"{one.rule}:{one.resource}"},
    }
    if one.fixes:
        found["properties"] = {"commands": list(one.fixes)}
    return found
