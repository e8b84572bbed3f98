"""What `make bench` makes of its measurements; measuring itself is no matter for a test."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import events, machine, result
from benchmarks.events import Run
from benchmarks.processes import Process, Stuck, until
from benchmarks.result import Figure, Result

QUIET = Run(
    events=False,
    emails=1000,
    seconds=10,
    cpu_seconds=6,
    cpu_emails=1000,
    publishes=0,
    published_bytes=0,
    largest_publish=0,
    told=0,
    others=0,
)
TOLD = replace(
    QUIET, events=True, publishes=20, published_bytes=120_000, largest_publish=9000, told=3000
)


def of_seconds(on: tuple[float, ...], off: tuple[float, ...]) -> dict[str, Figure]:
    """The figures of runs that took so long with and without events."""
    runs = [
        replace(kind, seconds=seconds)
        for pair in zip(on, off, strict=True)
        for kind, seconds in zip((TOLD, QUIET), pair, strict=True)
    ]
    return {figure.what: figure for figure in events.figures(runs)}


def test_the_ratio_is_of_medians_so_that_one_bad_run_does_not_decide() -> None:
    found = of_seconds(on=(10, 10, 40), off=(10, 10, 10))

    assert found["throughput on : off, medians"].value == "1.00"
    assert found["the same, each pair"].value == "1.00 1.00 0.25"


@pytest.mark.parametrize(("seconds", "kept"), [(10.9, True), (11.5, False)])
def test_a_promise_that_is_not_kept_is_said_to_be_missed(seconds: float, kept: bool) -> None:
    found = of_seconds(on=(seconds,), off=(10,))
    assert found["throughput on : off, medians"].kept is kept

    shown = StringIO()
    table = result.table([Result("events", tuple(found.values()), {})])
    Console(file=shown, width=120).print(table)
    assert ("missed" in shown.getvalue()) is not kept


def test_what_sns_was_asked_is_told_for_an_email_with_events_alone() -> None:
    found = of_seconds(on=(10, 10), off=(10, 10))

    assert found["SNS requests an email"].value == "0.020"
    assert found["events an email"].value == "3.00"
    assert found["bytes an email, in SNS"].value == "120"


def test_the_file_holds_the_figures_what_they_are_made_of_and_where(tmp_path: Path) -> None:
    made = Result("events", events.figures([TOLD, QUIET]), {"runs": [asdict(TOLD)]})

    path = result.save(made, machine.describe(), tmp_path / "results")

    kept = json.loads(path.read_text())
    assert path.name == "events.json"
    assert kept["runs"] == [asdict(TOLD)]
    assert kept["figures"][0] == asdict(made.figures[0])
    assert kept["about"].keys() >= {"commit", "changed", "date", "cores", "memory_gib", "versions"}


def test_the_cpu_of_a_process_is_read_while_it_lives(tmp_path: Path) -> None:
    """Not less than it says of itself, but for the ticks that the kernel counts in."""
    spun = tmp_path / "spun"
    spin = (
        "import signal, sys, time\n"
        "while time.process_time() < 0.3: pass\n"
        "open(sys.argv[1], 'x').close()\n"
        "signal.pause()\n"
    )
    process = Process(["python", "-c", spin, str(spun)], os.environ, tmp_path / "log")
    try:
        until(spun.exists, "it has used its CPU")
        assert process.cpu() >= 0.28
    finally:
        process.stop()


def test_a_part_that_ends_too_early_is_shown_with_its_last_words(tmp_path: Path) -> None:
    ending = "import sys; sys.exit('no such table')"
    process = Process(["python", "-c", ending], os.environ, tmp_path / "log")

    with pytest.raises(Stuck, match=r"ended with 1(?s:.)*no such table"):
        process.finish()
