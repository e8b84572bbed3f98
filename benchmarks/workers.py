"""What a second worker process adds, where the machine has processors left for it.

At full load this machine, which also runs the local AWS and the provider, has nothing left to give,
and two workers that share what one could send find each less company for their requests. So each
has so few threads, and the provider takes so long, that what two of them send leaves it idle in part:
there the second worker sends as many again, unless the two are in each other's way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from statistics import median

from benchmarks.bench import Bench, in_turns
from benchmarks.load import Run, work_off
from benchmarks.result import Figure, Result, Target
from benchmarks.stack import Mailrelay, running

PAIRS = 3

CONCURRENCY, PROVIDER_SECONDS, BATCHES = 16, 0.2, (800,)
"""80 emails/s a worker at most, by 16 threads that wait 200 ms for each."""

TARGET = Target("1.8 times", 1.8)


def measure(bench: Bench) -> Result:
    pairs: list[tuple[Run, Run]] = []
    for number in range(PAIRS):
        runs = {}
        for workers in in_turns(number, (1, 2)):
            with running(Mailrelay, **bench.how(provider_seconds=PROVIDER_SECONDS)) as stack:
                runs[workers] = work_off(
                    stack, BATCHES, workers=workers, MAILRELAY_CONCURRENCY=str(CONCURRENCY)
                )
            bench.say(
                f"pair {number + 1} of {PAIRS}, {workers} worker{'s' * (workers > 1)},"
                f" {runs[workers]}"
            )
        pairs.append((runs[1], runs[2]))
    return Result(
        "workers", figures(pairs), {"pairs": [[asdict(run) for run in pair] for pair in pairs]}
    )


def figures(pairs: Sequence[tuple[Run, Run]]) -> tuple[Figure, ...]:
    """What the pairs come to, each of one worker's run and two workers'."""
    what = f"two workers against one, {CONCURRENCY} at once each"
    ratio = median(two.rate / one.rate for one, two in pairs)
    rates = [median(pair[which].rate for pair in pairs) for which in (1, 0)]
    cpus = [median(pair[which].cpu_ms for pair in pairs) for which in (1, 0)]
    return (
        Figure(
            f"{what}, emails/s",
            f"{rates[0]:.0f} : {rates[1]:.0f} = {ratio:.2f}",
            target=TARGET.text,
            verdict=TARGET.verdict(ratio),
        ),
        Figure(f"{what}, CPU an email", f"{cpus[0]:.2f} and {cpus[1]:.2f} ms"),
    )
