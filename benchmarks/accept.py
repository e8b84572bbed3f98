"""How long the API takes to accept 1,000 recipients, beside stock Celery's.

No worker runs, so that nobody else asks the local AWS. Once with one that answers writes as a region
does, after 5 ms however many there are, and once with the local one as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.bench import REGION_SECONDS, Bench, in_turns
from benchmarks.processes import cpu_of_sessions
from benchmarks.result import Figure, Result, Target, compared
from benchmarks.stack import BOTH, Stack, running

EMAILS = 1000
PAIRS = 5

TARGET = Target("10 times; aim 20", 10, 20)

_AWS: Sequence[tuple[str, Mapping[str, Any], Target | None]] = (
    ("on AWS", {"real_aws": True}, TARGET),
)
_LOCAL_AWS: Sequence[tuple[str, Mapping[str, Any], Target | None]] = (
    ("AWS as a region", {"aws_seconds": REGION_SECONDS, "aws_takes_all": True}, TARGET),
    # Most of mailrelay's time is the local AWS's own here, which stores what stock does not: no target.
    ("the local AWS", {}, None),
)
"""Which AWS is asked, how that is had, and what is promised there."""


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
    for where, aws, target in _AWS if bench.real_aws else _LOCAL_AWS:
        pairs = _pairs(bench, where, aws)
        what = f"accept {EMAILS:,} recipients, {where}"
        seconds = [(ours.seconds, theirs.seconds) for ours, theirs in pairs]
        cpu = [(ours.cpu_ms, theirs.cpu_ms) for ours, theirs in pairs]
        figures.append(compared(what, seconds, " s", target=target))
        figures.append(compared(f"{what}, CPU of the API", cpu, " ms"))
        raw[what] = [[asdict(ours), asdict(theirs)] for ours, theirs in pairs]
    return Result("accept", tuple(figures), {"pairs": raw})


def _pairs(bench: Bench, where: str, aws: Mapping[str, Any]) -> list[tuple[Accepted, Accepted]]:
    """mailrelay's and stock's."""
    pairs = []
    with ExitStack() as both:
        relays: dict[str, Stack] = {
            kind.name: both.enter_context(running(kind, **aws)) for kind in BOTH
        }
        for relay in relays.values():
            for _ in range(4):  # the API's processes have their connections, and know their queue
                relay.send(1)
        for number in range(PAIRS):
            took = {name: _accept(relays[name]) for name in in_turns(number, relays)}
            pairs.append((took["mailrelay"], took["stock"]))
            bench.say(
                f"pair {number + 1} of {PAIRS}, {where}: "
                + ", ".join(f"{name} {one.seconds:.2f} s" for name, one in took.items())
            )
    return pairs


def _accept(relay: Stack) -> Accepted:
    before = cpu_of_sessions({relay.web.session})
    _, seconds = relay.send(EMAILS)
    return Accepted(seconds, 1000 * (cpu_of_sessions({relay.web.session}) - before))
