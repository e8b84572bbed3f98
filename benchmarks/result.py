"""What a measurement found: rows of a table for people, raw figures for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True)
class Figure:
    """One row: what was measured, and how much it is, with its unit."""

    what: str
    value: str
    wanted: str = ""
    """What mailrelay promises of it, if it does."""
    kept: bool = True
    """Whether it is as wanted."""


@dataclass(frozen=True, slots=True)
class Result:
    name: str
    """The measurement's, which is its module's."""
    figures: tuple[Figure, ...]
    raw: Mapping[str, Any]
    """All that the figures were made from, ready for JSON."""


def table(results: Iterable[Result]) -> Table:
    """All figures of all measurements."""
    shown = Table("measurement", "figure", "value", "wanted")
    for result in results:
        for figure in result.figures:
            style = "" if figure.kept else "bold red"
            wanted = figure.wanted if figure.kept else f"{figure.wanted}: missed"
            cells = (result.name, figure.what, figure.value, wanted)
            shown.add_row(*(Text(cell, style) for cell in cells))
        shown.add_section()
    return shown


def save(result: Result, about: Mapping[str, Any], folder: Path = RESULTS) -> Path:
    """Write it to `folder`, over the one of the last time; where it is now."""
    figures = [asdict(figure) for figure in result.figures]
    path = folder / f"{result.name}.json"
    folder.mkdir(exist_ok=True)
    path.write_text(
        json.dumps({"about": about, "figures": figures, **result.raw}, indent=2) + "\n"
    )
    return path
