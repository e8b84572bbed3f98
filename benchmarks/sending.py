"""What an email costs, from its POST to the deletion of its message, beside stock Celery's.

One batch of 1,000, one worker, and beat: every request that reaches AWS counts, whoever makes it.
CPU is the worker's, user and system.
"""

from __future__ import annotations

from dataclasses import asdict

from benchmarks.bench import PROVIDER_SECONDS, Bench, in_turns
from benchmarks.load import Run, work_off
from benchmarks.result import Result, Target, compared
from benchmarks.stack import BOTH, Mailrelay, Stack, running

EMAILS = 1000
PAIRS = 3


def measure(bench: Bench) -> Result:
    runs: list[dict[str, Run]] = []
    for number in range(PAIRS):
        pair = {}
        for kind in in_turns(number, BOTH):
            pair[kind.name] = _run(bench, kind)
            bench.say(f"pair {number + 1} of {PAIRS}, {pair[kind.name]}")
        runs.append(pair)
    cpu = compared(
        "worker CPU an email",
        [(pair["mailrelay"].cpu_ms, pair["stock"].cpu_ms) for pair in runs],
        " ms",
        target=Target("no more than stock; aim half", 1, 2),
    )
    figures = [cpu]
    if not bench.real_aws:
        requests = compared(
            f"AWS requests an email, batch of {EMAILS:,}",
            [
                (pair["mailrelay"].requests_an_email, pair["stock"].requests_an_email)
                for pair in runs
            ],
            "",
            target=Target("2.4; aim under 1", 2.4, 1, at_most=True),
            of_value=True,
        )
        figures = [requests, cpu]
    raw = {"pairs": [{name: asdict(run) for name, run in pair.items()} for pair in runs]}
    return Result("sending", tuple(figures), raw)


def _run(bench: Bench, kind: type[Stack]) -> Run:
    # Each on a stack of its own: the last poll of a worker that was stopped outlives it, and would
    # take messages of the next run with it.
    with running(kind, **bench.how(provider_seconds=PROVIDER_SECONDS)) as stack:
        return work_off(stack, (EMAILS,), parts=("beat",) if kind is Mailrelay else ())
