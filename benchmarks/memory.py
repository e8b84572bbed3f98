"""Whether the worker and the API grow with the emails that they have handled.

One worker and the API take 50,000 emails, never more than some thousands at a time, with a
provider that answers at once. What is resident after 10,000 is compared with what is after 50,000.
"""

from __future__ import annotations

from benchmarks.bench import Bench
from benchmarks.processes import resident_of_sessions, until
from benchmarks.result import Figure, Result
from benchmarks.stack import Mailrelay, running

FIRST, LAST = 10_000, 50_000

BATCH = 1000

_WAITING = 4 * BATCH
"""Emails that may wait for the worker: so few that their messages live long enough."""

_STEP = 5000

ALLOWED = 0.05
"""Growth that is the allocator's: a process does not take exactly as much twice."""


def measure(bench: Bench) -> Result:
    samples = []
    with running(Mailrelay, **bench.how()) as stack:
        worker = stack.start("worker")
        for accepted in range(BATCH, LAST + 1, BATCH):
            stack.send(BATCH)
            waiting = 0 if accepted % _STEP == 0 else _WAITING
            target = accepted - waiting
            until(lambda target=target: stack.asked() >= target, "the worker keeps up")  # type: ignore[misc]
            if accepted % _STEP == 0:
                until(lambda: stack.queued() == 0, "all messages are deleted")
                worker_mib, web_mib = (
                    resident_of_sessions({process.session}) / 2**20
                    for process in (worker, stack.web)
                )
                samples.append({"emails": accepted, "worker": worker_mib, "web": web_mib})
                bench.say(
                    f"{accepted:,} of {LAST:,} emails:"
                    f" worker {worker_mib:.1f} MiB, web {web_mib:.1f} MiB"
                )
    first = next(sample for sample in samples if sample["emails"] == FIRST)
    rows = []
    for part in ("worker", "web"):
        before, after = first[part], samples[-1][part]
        rows.append(
            Figure(
                f"memory of the {part}'s processes after {FIRST:,} and {LAST:,} emails",
                f"{before:.1f} and {after:.1f} MiB",
                target=f"no growth (within {ALLOWED:.0%})",
                verdict="yes" if after <= before * (1 + ALLOWED) else "missed",
            )
        )
    return Result("memory", tuple(rows), {"mib": samples})
