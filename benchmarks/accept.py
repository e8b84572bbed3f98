"""How long the API takes to accept 1,000 recipients, beside stock Celery's.

No worker runs, so that nobody else asks the local AWS. Once with it as it is, which is as far away as
a process of this machine, and once with what a region adds to each answer.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict, dataclass

from benchmarks.bench import REGION_SECONDS, Bench, in_turns
from benchmarks.processes import cpu_of_sessions
from benchmarks.result import Figure, Result, Target, compared
from benchmarks.stack import BOTH, Stack, running

EMAILS = 1000
PAIRS = 5

TARGET = Target("10 times; aim 20", 10, 20)


@dataclass(frozen=True, slots=True)
class Accepted:
    """One POST."""

    seconds: float
    """Until its answer."""
    cpu_ms: float
    """Of the API's processes."""


def measure(bench: Bench) -> Result:
    figures: list[Figure] = []
    raw = {}
    for aws_seconds in (None,) if bench.real_aws else (0, REGION_SECONDS):
        pairs = _pairs(bench, aws_seconds)
        what = f"accept {EMAILS:,} recipients{bench.aws(aws_seconds)}"
        seconds = [(ours.seconds, theirs.seconds) for ours, theirs in pairs]
        cpu = [(ours.cpu_ms, theirs.cpu_ms) for ours, theirs in pairs]
        figures.append(compared(what, seconds, " s", target=TARGET))
        figures.append(compared(f"{what}, CPU of the API", cpu, " ms"))
        raw[what] = [[asdict(ours), asdict(theirs)] for ours, theirs in pairs]
    return Result("accept", tuple(figures), {"pairs": raw})


def _pairs(bench: Bench, aws_seconds: float | None) -> list[tuple[Accepted, Accepted]]:
    """mailrelay's and stock's."""
    pairs = []
    with ExitStack() as both:
        relays: dict[str, Stack] = {
            kind.name: both.enter_context(running(kind, **bench.how(aws_seconds=aws_seconds)))
            for kind in BOTH
        }
        for relay in relays.values():
            for _ in range(4):  # the API's processes have their connections, and know their queue
                relay.send(1)
        for number in range(PAIRS):
            took = {name: _accept(relays[name]) for name in in_turns(number, relays)}
            pairs.append((took["mailrelay"], took["stock"]))
            bench.say(
                f"pair {number + 1} of {PAIRS}{bench.aws(aws_seconds)}: "
                + ", ".join(f"{name} {one.seconds:.2f} s" for name, one in took.items())
            )
    return pairs


def _accept(relay: Stack) -> Accepted:
    before = cpu_of_sessions({relay.web.session})
    _, seconds = relay.send(EMAILS)
    return Accepted(seconds, 1000 * (cpu_of_sessions({relay.web.session}) - before))
