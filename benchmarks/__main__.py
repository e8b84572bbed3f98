"""`python -m benchmarks [NAME ...]`: the comparison with stock Celery, or what is named."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Mapping

import click
from rich.console import Console

from benchmarks import (
    accept,
    capacity,
    cost,
    events,
    fairness,
    idle,
    machine,
    memory,
    pools,
    result,
    sending,
    sweep,
    throughput,
    workers,
)
from benchmarks.bench import Bench
from benchmarks.processes import Stuck
from benchmarks.result import Result

TABLE: Mapping[str, Callable[[Bench], Result]] = {
    "accept": accept.measure,
    "sending": sending.measure,
    "throughput": throughput.measure,
    "idle": idle.measure,
    "sweep": sweep.measure,
    "memory": memory.measure,
    "workers": workers.measure,
    "fairness": fairness.measure,
}
"""What is measured unless something is named, in some twenty minutes."""

OTHERS: Mapping[str, Callable[[Bench], Result]] = {
    "capacity": capacity.measure,
    "events": events.measure,
    "pools": pools.measure,
}

MEASUREMENTS = {**TABLE, **OTHERS}


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(list(MEASUREMENTS)))
@click.option("--aws", "real_aws", is_flag=True, help="Measure on AWS itself, at your expense.")
@click.option("--yes", is_flag=True, help="With --aws: do not only say what it costs.")
def main(names: tuple[str, ...], real_aws: bool, yes: bool) -> None:
    """Measure, print a table, and write the raw figures to benchmarks/results/."""
    # As on Ctrl-C: stop what was started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    # Wide enough for the table where nobody looks at it as it comes.
    console = Console(width=None if sys.stdout.isatty() else 140)
    bench = Bench(lambda line: console.print(f"  {line}", highlight=False), real_aws)
    chosen = names or tuple(name for name in TABLE if not real_aws or name in cost.EMAILS)
    if real_aws:
        _agree(chosen, yes)
    results = []
    for number, name in enumerate(chosen):
        about = machine.describe()  # before the measurement is part of the machine's load
        console.print(f"[bold]{name}[/], {number + 1} of {len(chosen)}")
        started = time.monotonic()
        try:
            found = MEASUREMENTS[name](bench)
        except Stuck as stuck:
            raise SystemExit(f"benchmarks: {stuck}") from None
        took = round(time.monotonic() - started)
        result.save(found, {**about, "aws": real_aws, "took_seconds": took})
        results.append(found)
    console.print(result.table(results))
    path = result.RESULTS / "table.md"
    path.write_text(result.markdown(results))
    console.print(f"The same as Markdown: {path}; raw figures beside it.")


def _agree(names: tuple[str, ...], yes: bool) -> None:
    """Say what it costs; raises `click.UsageError` unless that is agreed to."""
    if local := sorted(set(names) - set(cost.EMAILS)):
        raise click.UsageError(
            f"{', '.join(local)}: on the local AWS alone; on AWS itself: {', '.join(cost.EMAILS)}"
        )
    click.echo(
        f"On AWS, in a table and queues of its own that are deleted afterwards:"
        f" at most ${cost.dollars(names):.2f} ({cost.PRICES})."
    )
    if not yes:
        raise click.UsageError("give --yes as well to agree to that")


if __name__ == "__main__":
    main()
