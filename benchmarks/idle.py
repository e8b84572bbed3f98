"""How long an email takes through a relay that has nothing else to do, beside stock Celery's.

From the moment before its POST until its request reaches the provider. Between two emails passes a
random time, so that they meet a worker at any point of its polling; both relays get theirs in turns.
"""

from __future__ import annotations

import random
import time
from contextlib import ExitStack
from statistics import median, quantiles

from benchmarks.bench import Bench, in_turns
from benchmarks.processes import until
from benchmarks.result import Figure, Result, Target
from benchmarks.stack import BOTH, Stack, running

EMAILS = 100
"""To each relay."""

PAUSE = 0.8
"""Seconds between two emails, at most: stock polls once a second while it has nothing to do."""

P50 = Target("30 ms; aim 15", 30, 15, at_most=True)
P99 = Target("100 ms", 100, at_most=True)


def measure(bench: Bench) -> Result:
    took: dict[str, list[float]] = {"mailrelay": [], "stock": []}
    with ExitStack() as both:
        relays: list[Stack] = [both.enter_context(running(kind, **bench.how())) for kind in BOTH]
        for relay in relays:
            relay.start("worker")
            _send(relay)  # the first one waits for the worker's start
            _send(relay)
        for number in range(EMAILS):
            for relay in in_turns(number, relays):
                time.sleep(random.uniform(0, PAUSE))
                took[relay.name].append(_send(relay))
            if number % 20 == 19:
                medians = ", ".join(f"{name} {median(ms):.0f} ms" for name, ms in took.items())
                bench.say(f"{number + 1} of {EMAILS} emails each; medians so far: {medians}")
    where = f"idle POST to the provider's first byte{bench.aws(0)}"
    figures = tuple(
        _row(f"{where}, {name}", quantile(took["mailrelay"]), quantile(took["stock"]), target)
        for name, quantile, target in (("p50", median, P50), ("p99", _p99, P99))
    )
    return Result("idle", figures, {"ms": took})


def _send(relay: Stack) -> float:
    """Milliseconds from the POST to the provider."""
    before, started = relay.asked(), time.monotonic()
    relay.send(1)
    until(lambda: relay.asked() > before, "the provider is asked")
    return (relay.arrivals()[-1] - started) * 1000


def _p99(values: list[float]) -> float:
    return quantiles(values, n=100, method="inclusive")[98]


def _row(what: str, ours: float, theirs: float, target: Target) -> Figure:
    verdict = target.verdict(ours)
    ratio = f"{theirs / ours:.1f}"
    return Figure(what, f"{ours:.0f} ms", f"{theirs:.0f} ms", ratio, target.text, verdict)
