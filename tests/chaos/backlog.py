"""A backlog that takes far longer to work off than a message lives."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from random import Random

from tests.chaos.books import times_enqueued
from tests.chaos.judge import REFUSING, Breach
from tests.chaos.site import Site

BATCHES = 20
RECIPIENTS = 1000
AT_ONCE = 4

PROVIDER_SECONDS = 1.5
"""What a provider takes: two workers of 64 threads send at most 85 emails a second, which is four lives
of a message for 20,000."""

WINDOW_SECONDS = 10.0
MOST_ENQUEUED = 5
"""Messages for one email: its first, and one for each life of a message that it waited through."""

PATIENCE_WINDOWS = 120


def cause(site: Site, rng: Random) -> None:
    """Send it all at once, and see how fast it goes."""
    site.providers_take(PROVIDER_SECONDS)
    already = len(site.proxy.sent())
    seeds = [Random(rng.random()) for _ in range(BATCHES)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        sent = pool.map(lambda own: site.client.send(RECIPIENTS, own, site.urls), seeds)
        taken = [request for request in sent if request.status == 202]
    addresses = [address for request in taken for address in request.recipients]
    accepted = sum(REFUSING not in address for address in addresses)
    site.note(f"{accepted} emails are to be sent")
    counts = [site.sandbox.count()]
    while counts[-1] < accepted and len(counts) < PATIENCE_WINDOWS:
        site.hold(rng, WINDOW_SECONDS, WINDOW_SECONDS)
        counts.append(site.sandbox.count())
    rates = [(after - before) / WINDOW_SECONDS for before, after in itertools.pairwise(counts)]
    times = times_enqueued(site.proxy.sent()[already:])
    spread = {n: sum(count == n for count in times.values()) for n in sorted(set(times.values()))}
    site.figures["emails a second, every 10 s"] = rates
    site.figures["emails by how often they were enqueued"] = spread
    site.note(f"{site.figures}")
    if sags(rates):
        site.found(Breach.SAGGED, "backlog", f"emails a second: {rates}")
    if most := [(id_, count) for id_, count in times.items() if count > MOST_ENQUEUED]:
        detail = f"{most[0][1]} times, and {len(most) - 1} others too often as well"
        site.found(Breach.ENQUEUED_OFTEN, most[0][0], detail)


def sags(rates: Sequence[float]) -> bool:
    """Whether the throughput falls to less than half of what is usual, but for its begin and end.

    Over three windows: a single one depends on when a sweep began.
    """
    middle = rates[1:-1]
    smoothed = [statistics.mean(middle[at : at + 3]) for at in range(len(middle) - 2)]
    return bool(smoothed) and min(smoothed) < statistics.median(middle) / 2
