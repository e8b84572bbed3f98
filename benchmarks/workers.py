"""What a second worker process adds.

Once with so little work at a time that the machine has processors left: there the second worker
sends as many again, unless the two are in each other's way. Once at full load, where this
machine, which also runs the local AWS and the provider, has nothing left to give: there the unit
is CPU. Two workers that take no more of it for an email than one does will send twice as many
where each has a processor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from statistics import median

from benchmarks.bench import PROVIDER_SECONDS, Bench, in_turns
from benchmarks.load import Run, work_off
from benchmarks.result import Figure, Result, Target
from benchmarks.stack import CONCURRENCY, Mailrelay, running

PAIRS = 2

LIGHT_CONCURRENCY, LIGHT_SECONDS, LIGHT_BATCHES = 16, 0.2, (800,)
"""80 emails/s a worker at most, by 16 threads that wait 200 ms for each."""

FULL_BATCHES = (750, 750)

TARGET = Target("1.8 times", 1.8)


def measure(bench: Bench) -> Result:
    light = _pairs(bench, LIGHT_SECONDS, LIGHT_CONCURRENCY, LIGHT_BATCHES)
    full = _pairs(bench, PROVIDER_SECONDS, CONCURRENCY, FULL_BATCHES)
    figures = (
        _row(
            f"two workers : one, {LIGHT_CONCURRENCY} at once each, provider"
            f" {LIGHT_SECONDS * 1000:g} ms, emails/s",
            [(one.rate, two.rate) for one, two in light],
            1,
        ),
        _row(
            f"two workers : one, {CONCURRENCY} at once each, emails by second of each one's CPU",
            [(1000 / one.cpu_ms, 1000 / two.cpu_ms) for one, two in full],
            2,
        ),
    )
    raw = {
        name: [[asdict(run) for run in pair] for pair in pairs]
        for name, pairs in (("light", light), ("full", full))
    }
    return Result("workers", figures, raw)


def _pairs(
    bench: Bench, provider_seconds: float, concurrency: int, batches: Sequence[int]
) -> list[tuple[Run, Run]]:
    pairs = []
    for number in range(PAIRS):
        runs = {}
        for workers in in_turns(number, (1, 2)):
            with running(Mailrelay, **bench.how(provider_seconds=provider_seconds)) as stack:
                runs[workers] = work_off(
                    stack, batches, workers=workers, MAILRELAY_CONCURRENCY=str(concurrency)
                )
            bench.say(
                f"{concurrency} at once, pair {number + 1} of {PAIRS},"
                f" {workers} worker{'s' * (workers > 1)}, {runs[workers]}"
            )
        pairs.append((runs[1], runs[2]))
    return pairs


def _row(what: str, pairs: Sequence[tuple[float, float]], times: float) -> Figure:
    ratio = times * median(two / one for one, two in pairs)
    one, two = (median(pair[which] for pair in pairs) for which in (0, 1))
    return Figure(
        what,
        f"{times * two:.0f} : {one:.0f} = {ratio:.2f}",
        target=TARGET.text,
        verdict=TARGET.verdict(ratio),
    )
