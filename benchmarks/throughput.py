"""How many emails a second one worker process sends, beside stock Celery's, as far from AWS as usual.

The provider takes 100 ms, each answer of AWS comes 5 ms later than the local AWS has it, and both
workers send as many emails at the same time.
"""

from __future__ import annotations

from dataclasses import asdict

from benchmarks.bench import PROVIDER_SECONDS, REGION_SECONDS, Bench, in_turns
from benchmarks.load import Run, work_off
from benchmarks.result import Result, Target, compared
from benchmarks.stack import BOTH, CONCURRENCY, running

BATCHES = (750, 750)
"""Emails a run: some seconds of work, and well under the minute that messages live."""

PAIRS = 3


def measure(bench: Bench) -> Result:
    runs: list[dict[str, Run]] = []
    how = bench.how(provider_seconds=PROVIDER_SECONDS, aws_seconds=REGION_SECONDS)
    for number in range(PAIRS):
        pair = {}
        for kind in in_turns(number, BOTH):
            with running(kind, **how) as stack:
                pair[kind.name] = work_off(stack, BATCHES)
            bench.say(f"pair {number + 1} of {PAIRS}, {pair[kind.name]}")
        runs.append(pair)
    row = compared(
        f"emails/s of one worker, {CONCURRENCY} at once{bench.aws(REGION_SECONDS)}",
        [(pair["mailrelay"].rate, pair["stock"].rate) for pair in runs],
        "",
        target=Target("2 times; aim 4", 2, 4),
        more_is_better=True,
    )
    raw = {"pairs": [{name: asdict(run) for name, run in pair.items()} for pair in runs]}
    return Result("throughput", (row,), raw)
