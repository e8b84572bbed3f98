"""What a measurement found: rows of a table for people, raw figures for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from rich.table import Table
from rich.text import Text

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True)
class Target:
    """What mailrelay promises of a number, and what it strives for."""

    text: str
    must: float
    aim: float | None = None
    at_most: bool = False
    """Whether less is better."""

    def verdict(self, value: float) -> str:
        if self._reached(value, self.must):
            both = self.aim is not None and self._reached(value, self.aim)
            return "yes, and the aim" if both else "yes"
        return "missed"

    def _reached(self, value: float, wanted: float) -> bool:
        return value <= wanted if self.at_most else value >= wanted


@dataclass(frozen=True, slots=True)
class Figure:
    """One row: what was measured, and how much it is, with its unit."""

    what: str
    mailrelay: str
    stock: str = ""
    """The same of the relay that mailrelay is compared with, if it is."""
    ratio: str = ""
    """How many times better mailrelay is."""
    target: str = ""
    """What mailrelay promises of it, if it does."""
    verdict: str = ""
    """Whether it is as promised."""


def figure(what: str, value: float, unit: str, target: Target | None = None) -> Figure:
    """A number of mailrelay's alone."""
    said = (target.text, target.verdict(value)) if target else ("", "")
    return Figure(what, f"{_number(value)}{unit}", "", "", *said)


def compared(
    what: str,
    pairs: Sequence[tuple[float, float]],
    unit: str,
    *,
    target: Target | None = None,
    of_value: bool = False,
    more_is_better: bool = False,
) -> Figure:
    """A row from pairs of numbers, mailrelay's and stock's, measured one right after the other.

    The ratio is the median of the pairs' ratios, so that what slows the machine for a while harms
    both sides of it. The target is of the ratio, or `of_value` of mailrelay's median.
    """
    ours, theirs = median(pair[0] for pair in pairs), median(pair[1] for pair in pairs)
    ratio = median(a / b if more_is_better else b / a for a, b in pairs)
    said = ("", "")
    if target is not None:
        said = (target.text, target.verdict(ours if of_value else ratio))
    numbers = f"{_number(ours)}{unit}", f"{_number(theirs)}{unit}"
    return Figure(what, *numbers, f"{ratio:.1f}", *said)


@dataclass(frozen=True, slots=True)
class Result:
    name: str
    """The measurement's, which is its module's."""
    figures: tuple[Figure, ...]
    raw: Mapping[str, Any]
    """All that the figures were made from, ready for JSON."""


_COLUMNS = ("what", "stock Celery", "mailrelay", "times better", "promised", "kept")


def _cells(figure: Figure) -> tuple[str, ...]:
    return (
        figure.what,
        figure.stock,
        figure.mailrelay,
        figure.ratio,
        figure.target,
        figure.verdict,
    )


def table(results: Iterable[Result]) -> Table:
    """All figures of all measurements, for a terminal."""
    shown = Table(*_COLUMNS)
    for result in results:
        for row in result.figures:
            style = "bold red" if row.verdict == "missed" else ""
            shown.add_row(*(Text(cell, style) for cell in _cells(row)))
        shown.add_section()
    return shown


def markdown(results: Iterable[Result]) -> str:
    """The same for a document."""
    rows = [_COLUMNS, ("---",) * len(_COLUMNS)]
    rows += [_cells(row) for result in results for row in result.figures]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def save(result: Result, about: Mapping[str, Any], folder: Path = RESULTS) -> Path:
    """Write it to `folder`, over the one of the last time; where it is now."""
    figures = [asdict(figure) for figure in result.figures]
    path = folder / f"{result.name}.json"
    folder.mkdir(exist_ok=True)
    path.write_text(
        json.dumps({"about": about, "figures": figures, **result.raw}, indent=2) + "\n"
    )
    return path


def _number(value: float) -> str:
    """Three digits that count, and never a power of ten."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
