"""A small SVG plot: lines over logarithmic axes, with the spread of each point. No more than `bench/rules.py` needs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 640, 400
LEFT, RIGHT, TOP, BOTTOM = 70, 170, 40, 50
COLOURS = ("#1b6ca8", "#d1495b", "#3f8f4f", "#8a5a9e", "#b0803a", "#555555")


@dataclass(frozen=True)
class Line:
    """One line: (x, y, lowest y, highest y) for each point."""

    name: str
    points: Sequence[tuple[float, float, float, float]]


def plot(title: str, x_title: str, y_title: str, lines: Sequence[Line]) -> str:
    """The plot as an SVG document. Values below 0.1 are shown as 0.1: the axis has no zero."""
    xs = [point[0] for line in lines for point in line.points]
    ys = [max(0.1, value) for line in lines for point in line.points for value in point[1:]]
    x_range, y_range = _decades(xs), _decades(ys)

    def x_of(value: float) -> float:
        return LEFT + _share(value, x_range) * (WIDTH - LEFT - RIGHT)

    def y_of(value: float) -> float:
        return HEIGHT - BOTTOM - _share(max(0.1, value), y_range) * (HEIGHT - TOP - BOTTOM)

    parts = [_text(LEFT, 22, title, "start", 15), _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, x_title)]
    parts.append(f'<g transform="rotate(-90 18 {HEIGHT / 2})">{_text(18, HEIGHT / 2, y_title)}</g>')
    for value in _ticks(x_range):
        parts.append(_rule(x_of(value), TOP, x_of(value), HEIGHT - BOTTOM))
        parts.append(_text(x_of(value), HEIGHT - BOTTOM + 18, f"{value:g}"))
    for value in _ticks(y_range):
        parts.append(_rule(LEFT, y_of(value), WIDTH - RIGHT, y_of(value)))
        parts.append(_text(LEFT - 8, y_of(value) + 4, f"{value:g}", "end"))
    for number, line in enumerate(lines):
        colour = COLOURS[number % len(COLOURS)]
        way = " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y, _, _ in line.points)
        parts.append(f'<polyline points="{way}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for x, y, low, high in line.points:
            parts.append(_rule(x_of(x), y_of(low), x_of(x), y_of(high), colour))
            parts.append(f'<circle cx="{x_of(x):.1f}" cy="{y_of(y):.1f}" r="3.5" fill="{colour}"/>')
        below = TOP + 12 + 20 * number
        parts.append(_rule(WIDTH - RIGHT + 12, below - 4, WIDTH - RIGHT + 32, below - 4, colour))
        parts.append(_text(WIDTH - RIGHT + 38, below, line.name, "start"))
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">'
    return "\n".join([head, f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>', *parts, "</svg>"]) + "\n"


def _decades(values: Iterable[float]) -> tuple[float, float]:
    """The powers of ten around the values, as exponents."""
    there = list(values)
    low, high = math.floor(math.log10(min(there))), math.ceil(math.log10(max(there)))
    return low, max(high, low + 1)


def _ticks(decades: tuple[float, float]) -> list[float]:
    return [10.0**power for power in range(int(decades[0]), int(decades[1]) + 1)]


def _share(value: float, decades: tuple[float, float]) -> float:
    return (math.log10(value) - decades[0]) / (decades[1] - decades[0])


def _rule(x1: float, y1: float, x2: float, y2: float, colour: str = "#dddddd") -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'


def _text(x: float, y: float, text: str, anchor: str = "middle", size: int = 12) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{escape(text)}</text>'
