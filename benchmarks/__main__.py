"""`python -m benchmarks [NAME ...]`: all measurements, or those that are named."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Mapping

import click
from rich.console import Console

from benchmarks import events, machine, result
from benchmarks.processes import Stuck
from benchmarks.result import Result

MEASUREMENTS: Mapping[str, Callable[[Callable[[str], None]], Result]] = {"events": events.measure}


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(list(MEASUREMENTS)))
def main(names: tuple[str, ...]) -> None:
    """Measure, print a table, and write the raw figures to benchmarks/results/."""
    # As on Ctrl-C: stop what was started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    console = Console()
    results = []
    for name in names or MEASUREMENTS:
        about = machine.describe()  # before the measurement is part of the machine's load
        console.print(f"[bold]{name}[/]")
        try:
            found = MEASUREMENTS[name](lambda line: console.print(f"  {line}", highlight=False))
        except Stuck as stuck:
            raise SystemExit(f"benchmarks: {stuck}") from None
        result.save(found, about)
        results.append(found)
    console.print(result.table(results))


if __name__ == "__main__":
    main()
