"""Pictures of numbers over time, as shapes for an SVG. Pure; `_chart.html` draws them.

Places are in percent of the picture, from its top left corner, so that it is as wide as its page. What
a picture shows is beside it as a table.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_STEPS = (1, 2, 5)
"""What an axis may count in, times a power of ten."""

_TIMES = (10, 100, 1000, 10_000, 60_000, 600_000, 3_600_000, 36_000_000, 172_800_000)
"""Milliseconds that an axis of times may have lines at, evenly spread though they grow."""

_FILLED = 0.8
"""How much of its place a column takes."""

Value = float | None
"""None where there is nothing to show, which is not 0."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A line across the picture, and what it stands for."""

    y: float
    text: str


@dataclass(frozen=True, slots=True)
class Block:
    """A part of a column."""

    kind: str
    """Of what, as a class of the style sheet."""
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Line:
    """Values that follow each other, as the commands of an SVG path; of one alone, a dot."""

    kind: str
    path: str


@dataclass(frozen=True, slots=True)
class Chart:
    """All that is in a picture."""

    marks: Sequence[Mark]
    blocks: Sequence[Block]
    lines: Sequence[Line]


def columns(
    stacked: Sequence[tuple[str, Sequence[float]]], over: Sequence[tuple[str, Sequence[float]]]
) -> Chart:
    """Columns of parts on each other, and lines over them; one place for each value, from 0 on."""
    heights = [sum(parts) for parts in zip(*(values for _, values in stacked), strict=True)]
    step, top = _axis(max([*heights, *(value for _, values in over for value in values)]))
    blocks = []
    for place, parts in enumerate(zip(*(values for _, values in stacked), strict=True)):
        width = 100 / len(heights)
        bottom = 100.0
        for (kind, _), value in zip(stacked, parts, strict=True):
            if value:
                height = value / top * 100
                bottom -= height
                left = place * width + width * (1 - _FILLED) / 2
                blocks.append(
                    Block(kind, *_rounded(left, bottom, width * _FILLED, height)),
                )
    marks = [Mark(100 - at / top * 100, f"{at:,g}") for at in _upto(step, top)]
    lines = [Line(kind, _path([100 - at / top * 100 for at in values])) for kind, values in over]
    return Chart(marks, blocks, lines)


def times(series: Sequence[tuple[str, Sequence[Value]]]) -> Chart:
    """Lines of times in milliseconds, on a scale that shows long ones beside short ones."""
    known = [value for _, values in series for value in values if value is not None]
    low, high = _range(min(known, default=10), max(known, default=1000))
    shown = _TIMES[low : high + 1]

    def place(ms: float) -> float:
        """Between the two marks beside it, by its logarithm."""
        ms = min(max(ms, shown[0]), shown[-1])
        above = next(n for n in range(1, len(shown)) if ms <= shown[n])
        share = math.log(ms / shown[above - 1]) / math.log(shown[above] / shown[above - 1])
        return 100 - (above - 1 + share) / (len(shown) - 1) * 100

    return Chart(
        marks=[Mark(place(ms), span(ms)) for ms in shown],
        blocks=[],
        lines=[
            Line(kind, _path([None if ms is None else place(ms) for ms in values]))
            for kind, values in series
        ],
    )


def span(ms: float | None) -> str:
    """``41 ms``, ``1.2 s``, ``12 min``, ``3 h``; a dash where there is none."""
    if ms is None:
        return "–"
    for unit, size in (("h", 3_600_000), ("min", 60_000), ("s", 1000)):
        if ms >= size:
            return f"{round(ms / size, 1):g} {unit}"
    return f"{round(ms)} ms"


def _axis(most: float) -> tuple[float, float]:
    """The step of an axis, and where it ends: at most four steps, the last one over `most`."""
    most = max(most, 1)
    unit = 10 ** math.floor(math.log10(most)) / 10
    step = next(
        step * unit * scale
        for scale in (1, 10, 100)
        for step in _STEPS
        if step * unit * scale * 4 >= most
    )
    return step, math.ceil(most / step) * step


def _upto(step: float, top: float) -> list[float]:
    return [step * count for count in range(1, round(top / step) + 1)]


def _range(least: float, most: float) -> tuple[int, int]:
    """The indices in `_TIMES` of the marks around all values."""
    low = max((n for n, ms in enumerate(_TIMES) if ms <= least), default=0)
    high = next((n for n, ms in enumerate(_TIMES) if ms >= most), len(_TIMES) - 1)
    low = min(low, len(_TIMES) - 2)
    return low, max(high, low + 1)


def _path(ys: Sequence[Value]) -> str:
    """Through the middles of the places; broken where there is no value."""
    commands, drawing = [], False
    for place, y in enumerate(ys):
        if y is not None:
            x = (place + 0.5) / len(ys) * 100
            commands.append(f"{'L' if drawing else 'M'}{x:.2f} {y:.2f}")
            if not drawing:
                commands.append("h0")  # with round ends, a dot
        drawing = y is not None
    return "".join(commands)


def _rounded(*places: float) -> tuple[float, float, float, float]:
    x, y, width, height = (round(place, 2) for place in places)
    return x, y, width, height
