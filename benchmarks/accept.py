"""How long the API takes to accept 1,000 recipients, beside stock Celery's.

No worker runs, so that nobody else asks the local AWS. Once with it as it is, which is as far away as
a process of this machine, and once with what a region adds to each answer.
"""

from __future__ import annotations

from contextlib import ExitStack

from benchmarks.bench import REGION_SECONDS, Bench, in_turns
from benchmarks.result import Figure, Result, Target, compared
from benchmarks.stack import BOTH, running

EMAILS = 1000
PAIRS = 5

TARGET = Target("10 times; aim 20", 10, 20)


def measure(bench: Bench) -> Result:
    figures: list[Figure] = []
    raw = {}
    for aws_seconds in (None,) if bench.real_aws else (0, REGION_SECONDS):
        pairs = _pairs(bench, aws_seconds)
        what = f"accept {EMAILS:,} recipients{bench.aws(aws_seconds)}"
        figures.append(compared(what, pairs, " s", target=TARGET))
        raw[what] = pairs
    return Result("accept", tuple(figures), {"seconds": raw, "pair": ["mailrelay", "stock"]})


def _pairs(bench: Bench, aws_seconds: float | None) -> list[tuple[float, float]]:
    pairs = []
    with ExitStack() as both:
        relays = {
            kind.name: both.enter_context(running(kind, **bench.how(aws_seconds=aws_seconds)))
            for kind in BOTH
        }
        for relay in relays.values():
            relay.send(1)  # its connections are made, its queue is known
            relay.send(1)
        for number in range(PAIRS):
            took = {name: relays[name].send(EMAILS)[1] for name in in_turns(number, relays)}
            pairs.append((took["mailrelay"], took["stock"]))
            bench.say(
                f"pair {number + 1} of {PAIRS}{bench.aws(aws_seconds)}:"
                f" mailrelay {took['mailrelay']:.2f} s, stock {took['stock']:.2f} s"
            )
    return pairs
