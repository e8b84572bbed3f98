"""Threads and greenlets, at providers of three speeds.

The worker's pool is threads. Greenlets are gevent's, which is not among mailrelay's dependencies:
without it, only threads are measured. A worker of theirs

- is started with gevent's patches first, since `celery -P gevent` puts them on too late for it;
- takes from the queue of emails alone: without Celery's event loop, which greenlets do without,
  kombu polls its queues one after the other, and the queue of the sweep would hold up the other
  for a long poll each time.
"""

from __future__ import annotations

import shlex
from dataclasses import asdict
from importlib.util import find_spec

from benchmarks.bench import Bench
from benchmarks.load import work_off
from benchmarks.result import Figure, Result
from benchmarks.stack import Mailrelay, running

PROVIDERS = (0.02, 0.1, 1.0)
"""Seconds that a provider takes."""

AT_ONCE = (64, 128, 256)
"""Emails that a worker sends at the same time."""

BATCHES = (750, 750)

_PATCHED = (
    "from gevent import monkey; monkey.patch_all();"
    " from celery.bin.celery import main; raise SystemExit(main())"
)

_GREENLETS = f"python -c {shlex.quote(_PATCHED)} -A tasks worker -P gevent -Q deliver"


def measure(bench: Bench) -> Result:
    pools = ["threads", *(["gevent"] if find_spec("gevent") else [])]
    if len(pools) == 1:
        bench.say("gevent is not installed: threads alone")
    figures, raw = [], []
    for seconds in PROVIDERS:
        for at_once in AT_ONCE:
            runs = []
            for pool in pools:
                with running(Mailrelay, **bench.how(provider_seconds=seconds)) as stack:
                    if pool == "gevent":
                        stack.parts["worker"] = f"{_GREENLETS} -c {at_once}"
                    run = work_off(stack, BATCHES, MAILRELAY_CONCURRENCY=str(at_once))
                what = f"provider {seconds * 1000:g} ms, {at_once} {pool}"
                bench.say(f"{what}, {run}")
                runs.append(f"{pool} {run.rate:.0f}/s, {run.cpu_ms:.1f} ms CPU")
                raw.append({"pool": pool, "provider_seconds": seconds, **asdict(run)})
                raw[-1]["at_once"] = at_once
            what = f"provider {seconds * 1000:g} ms, {at_once} at once"
            figures.append(Figure(what, "; ".join(runs)))
    return Result("pools", tuple(figures), {"runs": raw})
