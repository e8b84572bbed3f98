"""What a run found, as a table: for the terminal, as Markdown and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.table import Table

from tests.chaos.faults import FAULTS
from tests.chaos.judge import Breach
from tests.chaos.round import Result

HEADINGS = (
    "fault",
    "rounds alone",
    "in mixtures",
    "emails",
    "lost",
    "sent twice, stated case",
    "sent twice otherwise",
    "other breaches",
    "found by the sweep",
    "longest recovery",
)


@dataclass(frozen=True, slots=True)
class Row:
    """What became of the rounds that had a fault; a mixture counts for each of its faults."""

    fault: str
    alone: int
    mixed: int
    emails: int
    lost: int
    stated: int
    doubled: int
    others: int
    """Findings that are neither a loss nor a second copy."""
    swept: int
    """Emails that waited for a message's life or a lease."""
    recovery: float
    """Seconds, of the round that took longest."""

    def cells(self) -> tuple[str, ...]:
        counts = (self.alone, self.mixed, self.emails, self.lost, self.stated, self.doubled)
        return (
            self.fault,
            *(f"{count:,}" for count in (*counts, self.others, self.swept)),
            f"{self.recovery:.0f} s",
        )


def rows(results: Sequence[Result]) -> list[Row]:
    """A row for each fault that was tried, and one for all rounds together."""
    names = [name for name in FAULTS if any(name in result.faults for result in results)]
    found = [_row(name, [each for each in results if name in each.faults]) for name in names]
    return [*found, _row("all rounds", results)]


def _row(name: str, results: Sequence[Result]) -> Row:
    verdicts = [result.verdict for result in results]
    lost = sum(verdict.count(Breach.LOST) for verdict in verdicts)
    doubled = sum(verdict.count(Breach.DOUBLED) for verdict in verdicts)
    return Row(
        fault=name,
        alone=sum(len(result.faults) == 1 for result in results),
        mixed=sum(len(result.faults) > 1 for result in results),
        emails=sum(verdict.accepted for verdict in verdicts),
        lost=lost,
        stated=sum(verdict.stated for verdict in verdicts),
        doubled=doubled,
        others=sum(len(verdict.findings) for verdict in verdicts) - lost - doubled,
        swept=sum(result.swept for result in results),
        recovery=max((result.recovery for result in results), default=0.0),
    )


def table(found: Sequence[Row]) -> Table:
    """For a terminal, in short words."""
    shown = Table(box=None)
    shown.add_column("fault", no_wrap=True)
    for heading in ("alone", "mixed", "emails", "lost", "stated", "twice", "other", "swept"):
        shown.add_column(heading, justify="right", no_wrap=True)
    shown.add_column("recovery", justify="right", no_wrap=True)
    for row in found:
        shown.add_row(*row.cells())
    return shown


def markdown(found: Sequence[Row]) -> str:
    """The same for a page; a fault's own words in place of its name."""
    lines = ["| " + " | ".join(HEADINGS) + " |", "|" + " --- |" * len(HEADINGS)]
    for row in found:
        name, *cells = row.cells()
        fault = FAULTS.get(name)
        first = f"`{name}`: {fault.tried}" if fault else f"**{name}**"
        lines.append("| " + " | ".join((first, *cells)) + " |")
    return "\n".join(lines) + "\n"


def save(results: Sequence[Result], about: Mapping[str, object], folder: Path) -> None:
    """`table.md` and `results.json` in `folder`."""
    found = rows(results)
    (folder / "table.md").write_text(markdown(found))
    raw = {
        "about": dict(about),
        "rows": [asdict(row) for row in found],
        "rounds": [asdict(result) for result in results],
    }
    (folder / "results.json").write_text(json.dumps(raw, indent=1) + "\n")
