"""A matrix, what arrives at an address, and what shifts: as programs read it (docs/reach.md), and as lines for people.

What people read is made from what programs read, so both say the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from wicketgate.explain.opened import packets
from wicketgate.explain.reach import Cell, Matrix, Target
from wicketgate.explain.reach_change import Shift
from wicketgate.explain.reach_traffic import Arrival
from wicketgate.explain.region import (
    EVERY_IPV4,
    EVERY_IPV6,
    EVERY_SOURCE,
    IPV4_END,
    Region,
    Span,
    address_at,
    ranges_of,
)
from wicketgate.explain.words import text

SCHEMA: Final = 1
"""Version of the JSON form. A field may be added under the same number; none goes or changes its meaning."""
SHOWN: Final = 4
"""Names and ranges that a line shows of many; the JSON form has all."""
_MARKS: Final = {"valid": "", "none": " (no valid key)", "to-assume": " (if assumed)"}

Data = dict[str, Any]


def matrix_data(matrix: Matrix) -> Data:
    """For `--json`."""
    data = {
        "schema": SCHEMA,
        "revision": matrix.revision,
        "at": datetime.fromtimestamp(matrix.at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "principals": [
            {"name": who.name, "arn": who.principal.arn, "credentials": who.credentials} for who in matrix.principals
        ],
        "endpoints": list(matrix.endpoints),
        "cells": [_cell_data(cell) for cell in matrix.cells],
    }
    return data | {"lines": matrix_lines(data)}


def shifts_data(shifts: Iterable[Shift], before: int, after: int) -> Data:
    """For `--json` with `--diff` or `--with`; `before` and `after` are the revisions."""
    data = {
        "schema": SCHEMA,
        "before": before,
        "after": after,
        "shifts": [
            {
                "endpoint": shift.endpoint,
                "principals": list(shift.principals),
                "targets": _targets_data(shift.targets),
                "gained": region_data(shift.gained),
                "lost": region_data(shift.lost),
                "mayGain": region_data(shift.may_gain),
                "mayLose": region_data(shift.may_lose),
            }
            for shift in shifts
        ],
    }
    return data | {"lines": shift_lines(data)}


def arrivals_data(arrivals: Iterable[Arrival], revision: int) -> Data:
    """For `--json` with `--all-traffic`."""
    found = [
        {
            "target": _targets_data((one.target,))[0],
            "senders": _targets_data(one.senders),
            "ownAddress": bool(one.senders[0].address),
            "peering": one.peering,
            "answered": one.answered,
            "packets": [text(said) for said in packets(one.region)],
        }
        for one in arrivals
    ]
    return {"schema": SCHEMA, "revision": revision, "arrivals": found, "lines": _arrival_lines(found)}


def _cell_data(cell: Cell) -> Data:
    return {
        "endpoint": cell.endpoint,
        "principals": list(cell.principals),
        "targets": _targets_data(cell.targets),
        "reach": region_data(cell.region),
        "mayReach": region_data(cell.doubtful),
        "dependsOn": list(cell.depends),
    }


def _targets_data(targets: Iterable[Target]) -> list[Data]:
    return [{"interface": one.interface, "address": one.address, "instance": one.instance} for one in targets]


def region_data(region: Region) -> list[Data]:
    """A set of tunnels: each entry is all of its ports with all of its durations from all of its sources."""
    by_content: dict[tuple[Span, Span], list[Span]] = {}
    for sources, durations, ports in region.merged():
        by_content.setdefault((durations, ports), []).append(sources)
    rows: dict[tuple[Span, tuple[Span, ...]], list[Span]] = {}
    for (durations, ports), spans in by_content.items():
        rows.setdefault((durations, tuple(_touching(spans))), []).append(ports)
    return [
        {
            "ports": [list(span) for span in _touching(ports)],
            "durations": list(durations),
            "sources": [name for span in sources for name in sources_named(span)],
        }
        for (durations, sources), ports in sorted(rows.items())
    ]


def _touching(spans: Iterable[Span]) -> list[Span]:
    found: list[Span] = []
    for first, last in sorted(spans):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(last, found[-1][1]))
        else:
            found.append((first, last))
    return found


def sources_named(span: Span) -> Iterator[str]:
    """A span of addresses family by family: as a range where it is one, else as `first-last`."""
    for family in (EVERY_IPV4, EVERY_IPV6):
        first, last = max(span[0], family[0]), min(span[1], family[1])
        if first <= last:
            size = last - first + 1
            base = first - (0 if first < IPV4_END else IPV4_END)
            whole = size & (size - 1) == 0 and base % size == 0
            yield ranges_of((first, last))[0] if whole else f"{address_at(first)}-{address_at(last)}"


# -- for people --------------------------------------------------------------------------------------------------------


def matrix_lines(data: Mapping[str, Any]) -> list[str]:
    """A table of the matrix: a line for each principal group, endpoint, target group and kind of tunnel."""
    marks = {who["name"]: _MARKS[who["credentials"]] for who in data["principals"]}
    rows = [("PRINCIPAL", "ENDPOINT", "TARGET", "PORTS", "SECONDS", "FROM")]
    for cell in data["cells"]:
        names = _several([name + marks.get(name, "") for name in cell["principals"]])
        for tunnels in cell["reach"]:
            rows.append((names, cell["endpoint"], _targets_named(cell["targets"]), *_tunnels_named(tunnels)))
        for tunnels in cell["mayReach"]:
            ports, seconds, sources = _tunnels_named(tunnels)
            doubt = f"{sources}, depending on {_several(cell['dependsOn'])}"
            rows.append((names, cell["endpoint"], _targets_named(cell["targets"]), ports, seconds, doubt))
    lines = _table(rows) if len(rows) > 1 else ["Nobody reaches anything of what was asked about."]
    reaching = {name for cell in data["cells"] for name in cell["principals"]}
    idle = [who["name"] for who in data["principals"] if who["name"] not in reaching]
    return [*lines, "", f"Reach nothing: {_several(idle, 12)}"] if idle and len(rows) > 1 else lines


def shift_lines(data: Mapping[str, Any]) -> list[str]:
    """What is gained (`+`) and lost (`-`); in doubt `+?` and `-?`."""
    rows = [("", "PRINCIPAL", "ENDPOINT", "TARGET", "PORTS", "SECONDS", "FROM")]
    for shift in data["shifts"]:
        for sign, name in (("+", "gained"), ("-", "lost"), ("+?", "mayGain"), ("-?", "mayLose")):
            for tunnels in shift[name]:
                places = _several(shift["principals"]), shift["endpoint"], _targets_named(shift["targets"])
                rows.append((sign, *places, *_tunnels_named(tunnels)))
    return _table(rows) if len(rows) > 1 else ["Nobody's reach differs."]


def _arrival_lines(arrivals: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = [("FROM", "TO", "BY", "WHAT")]
    for one in arrivals:
        names = _targets_named(one["senders"]) + ("" if one["ownAddress"] else ", sending from other addresses")
        way = (one["peering"] or "the VPC") + ("" if one["answered"] else ", no way back")
        rows.append((names, _targets_named([one["target"]]), way, _several(one["packets"], 8, "; ")))
    return _table(rows) if len(rows) > 1 else ["No instance reaches it."]


def _several(names: Sequence[str], most: int = SHOWN, between: str = ", ") -> str:
    shown = between.join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _targets_named(targets: Sequence[Mapping[str, str]]) -> str:
    named = [f"{one['instance'] or one['interface']}{' ' if one['address'] else ''}{one['address']}" for one in targets]
    return _several(named)


def _tunnels_named(tunnels: Mapping[str, Any]) -> tuple[str, str, str]:
    """Ports, durations and sources of one entry."""
    ports = _several([_span_named(span) for span in tunnels["ports"]], 8)
    return ports, _span_named(tunnels["durations"]), _sources_said(tunnels["sources"])


def _span_named(span: Sequence[int]) -> str:
    return str(span[0]) if span[0] == span[1] else f"{span[0]}-{span[1]}"


def _sources_said(sources: Sequence[str]) -> str:
    return "anywhere" if list(sources) == list(sources_named(EVERY_SOURCE)) else _several(sources)


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
