"""The matrix as a picture: principals down, targets by endpoint across, made from the JSON form of an answer.

Self-contained, and readable in black and white: shapes and words say everything, colour only helps. A full square is
reached by any client, a half one by some, a hatched one depends on what cannot be known beforehand; its ports
stand beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final, NamedTuple

from wicketgate.explain.reach_report import sources_named
from wicketgate.explain.region import EVERY_SOURCE

MOST_ROWS: Final = 200
MOST_COLUMNS: Final = 80
_SIDE, _WIDE, _LEFT, _TOP = 26, 92, 230, 230
ROOM: Final = 9
"""Letters that fit beside a square."""
_ANYWHERE: Final = list(sources_named(EVERY_SOURCE))
_STYLE: Final = (
    "text{font:12px sans-serif;fill:#000}.head{font-weight:bold}.grid{fill:none;stroke:#999}"
    ".box{stroke:#000;fill:#fff}.full{fill:#1b6ca8;stroke:#000}.maybe{fill:url(#hatch);stroke:#000}"
)
_HATCH: Final = (
    '<defs><pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<rect width="6" height="6" fill="#fff"/><rect width="2" height="6" fill="#000"/></pattern></defs>'
)


class _Column(NamedTuple):
    endpoint: str
    targets: tuple[str, ...]
    cells: tuple[int, ...]
    """Places of the cells that these targets are in."""


def as_svg(data: Mapping[str, Any]) -> str:
    """A picture of a matrix (`reach_report.matrix_data`)."""
    columns, rows = _columns(data), _rows(data)
    shown, names = columns[:MOST_COLUMNS], rows[:MOST_ROWS]
    width, height = _LEFT + _WIDE * len(shown) + 160, _TOP + _SIDE * len(names) + 90
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" role="img">',
        f"<title>Who reaches what, revision {data['revision']}, {escape(data['at'])}</title>",
        f"<style>{_STYLE}</style>{_HATCH}",
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    parts += [_column_head(place, column) for place, column in enumerate(shown)]
    for place, name in enumerate(names):
        y = _TOP + _SIDE * place
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 17}" text-anchor="end">{escape(name)}</text>')
        parts += [_square(data, column, name, (_LEFT + _WIDE * at, y)) for at, column in enumerate(shown)]
    parts += _legend(_TOP + _SIDE * len(names) + 20, len(columns) - len(shown), len(rows) - len(names))
    return "\n".join([*parts, "</svg>", ""])


def as_html(data: Mapping[str, Any]) -> str:
    """A page with the picture, and everything in it as a table."""
    rows = [_table_row(cell, tunnels, doubt) for cell in data["cells"] for tunnels, doubt in _tunnels(cell)]
    head = "".join(f"<th>{name}</th>" for name in ("Principals", "Endpoint", "Targets", "Ports", "Seconds", "Clients"))
    return "\n".join((
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Who reaches what</title>',
        "<style>body{font:14px sans-serif}table{border-collapse:collapse}td,th{border:1px solid #999;padding:3px 6px;"
        "text-align:left;vertical-align:top}</style></head><body>",
        f"<h1>Who reaches what</h1><p>Revision {data['revision']}, {escape(data['at'])}.</p>",
        as_svg(data),
        f"<table><thead><tr>{head}</tr></thead><tbody>",
        *rows,
        "</tbody></table></body></html>",
        "",
    ))  # fmt: skip


def _rows(data: Mapping[str, Any]) -> list[str]:
    """The principals that reach something, in the matrix's order."""
    reaching = {name for cell in data["cells"] for name in cell["principals"]}
    return [who["name"] for who in data["principals"] if who["name"] in reaching]


def _columns(data: Mapping[str, Any]) -> list[_Column]:
    """Targets of one endpoint that are in the same cells, as one column."""
    places: dict[tuple[str, str], list[int]] = {}
    for number, cell in enumerate(data["cells"]):
        for target in cell["targets"]:
            name = f"{target['instance'] or target['interface']} {target['address']}"
            places.setdefault((cell["endpoint"], name), []).append(number)
    same: dict[tuple[str, tuple[int, ...]], list[str]] = {}
    for (endpoint, name), numbers in places.items():
        same.setdefault((endpoint, tuple(numbers)), []).append(name)
    return [_Column(endpoint, tuple(names), numbers) for (endpoint, numbers), names in same.items()]


def _column_head(place: int, column: _Column) -> str:
    x = _LEFT + _WIDE * place + 17
    more = "" if len(column.targets) == 1 else f" +{len(column.targets) - 1}"
    title = escape(f"{column.endpoint} to {', '.join(column.targets)}")
    said = escape(f"{column.endpoint[:14]} {column.targets[0][:30]}{more}")
    return f'<text x="{x}" y="{_TOP - 8}" transform="rotate(-45 {x} {_TOP - 8})">{said}<title>{title}</title></text>'


def _square(data: Mapping[str, Any], column: _Column, name: str, corner: tuple[int, int]) -> str:
    """What one principal reaches of a column."""
    x, y = corner
    inside = f'x="{x + 5}" y="{y + 5}" height="16"'
    grid = f'<rect class="grid" x="{x}" y="{y}" width="{_WIDE}" height="{_SIDE}"/>'
    cell = next((data["cells"][one] for one in column.cells if name in data["cells"][one]["principals"]), None)
    if cell is None:
        return grid
    title = f"<title>{escape(f'{name}: {_said(cell)}')}</title>"
    ports = _short([span for tunnels, _ in _tunnels(cell) for span in tunnels["ports"]])
    said = f'<text x="{x + 26}" y="{y + 17}">{ports}</text>'
    if not cell["reach"]:
        return f'{grid}<g>{title}<rect class="maybe" {inside} width="16"/>{said}</g>'
    anywhere = all(tunnels["sources"] == _ANYWHERE for tunnels in cell["reach"])
    full = f'<rect class="full" {inside} width="{16 if anywhere else 8}"/>'
    return f'{grid}<g>{title}<rect class="box" {inside} width="16"/>{full}{said}</g>'


def _short(spans: Sequence[Sequence[int]]) -> str:
    """Ports in the room that there is."""
    said = _spans(sorted({(span[0], span[1]) for span in spans}))
    return said if len(said) <= ROOM else f"{said[:ROOM]}…"


def _legend(y: int, columns: int, rows: int) -> list[str]:
    drawn = (
        ('<rect class="full" x="12" y="{y}" width="16" height="16"/>', "by any client"),
        (
            '<rect class="box" x="12" y="{y}" width="16" height="16"/>'
            '<rect class="full" x="12" y="{y}" width="8" height="16"/>',
            "by some clients",
        ),
        ('<rect class="maybe" x="12" y="{y}" width="16" height="16"/>', "depends on what only the request will tell"),
    )
    found = [
        f'{mark.format(y=y + 22 * place)}<text x="36" y="{y + 22 * place + 13}">{said}</text>'
        for place, (mark, said) in enumerate(drawn)
    ]
    if columns or rows:
        found.append(f'<text x="{_LEFT + 120}" y="{y + 13}">not drawn: {columns} columns, {rows} rows</text>')
    return found


def _said(cell: Mapping[str, Any]) -> str:
    return "; ".join(
        f"ports {_spans(tunnels['ports'])} from {', '.join(tunnels['sources'])}" + (" (depends)" if doubt else "")
        for tunnels, doubt in _tunnels(cell)
    )


def _tunnels(cell: Mapping[str, Any]) -> list[tuple[Mapping[str, Any], str]]:
    """What is reached, and what may be with what that depends on."""
    doubt = ", ".join(cell["dependsOn"])
    return [*((one, "") for one in cell["reach"]), *((one, doubt) for one in cell["mayReach"])]


def _table_row(cell: Mapping[str, Any], tunnels: Mapping[str, Any], doubt: str) -> str:
    targets = [f"{one['instance'] or one['interface']} {one['address']}" for one in cell["targets"]]
    clients = ", ".join(tunnels["sources"]) + (f" depending on {doubt}" if doubt else "")
    columns = (
        ", ".join(cell["principals"]),
        cell["endpoint"],
        ", ".join(targets),
        _spans(tunnels["ports"]),
        _spans([tunnels["durations"]]),
        clients,
    )
    return f"<tr>{''.join(f'<td>{escape(column)}</td>' for column in columns)}</tr>"


def _spans(spans: Sequence[Sequence[int]]) -> str:
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)
