"""How much passes through the relay and how it goes, over the last hour and day. Pure.

What happened is counted within slices of time, by names that are the attributes of an item
(`mailrelay.counters`):

    accepted                      emails accepted
    sent, failed, …               emails that came to that status
    took#<n>                      emails sent, by how long it took: `BOUNDS[n]` at most
    asked#<provider>#<outcome>    attempts ended; `passed_over` where nobody was asked

Nothing of them tells whose emails they were.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from mailrelay.message import PASSED_OVER, Attempt, Status
from mailrelay.observation import (
    AttemptEnded,
    BatchAccepted,
    EmailResolved,
    EmailSwept,
    Observation,
)

BOUNDS = tuple(round(10 * 2 ** (n / 2)) for n in range(49))
"""Upper bounds, in milliseconds, of the classes of the time to sent: from 10 ms to 46 h, each 1.41 times
the one before, so that a percentile is off by less than that. A longer time is in the last one."""


@dataclass(frozen=True, slots=True)
class Period:
    """A time up to now, in slices. All in milliseconds."""

    name: str
    width: int
    """Of a slice."""
    slices: int

    def starts(self, now: int) -> range:
        """When each slice began, the oldest first; the last one is not over yet."""
        last = now - now % self.width
        return range(last - (self.slices - 1) * self.width, last + 1, self.width)


HOUR = Period("hour", 60_000, 60)
DAY = Period("day", 900_000, 96)
PERIODS = (HOUR, DAY)


@dataclass(frozen=True, slots=True)
class Tally:
    """What happened within some time."""

    counts: Mapping[str, int]

    @property
    def accepted(self) -> int:
        """Emails accepted."""
        return self.counts.get("accepted", 0)

    def became(self, status: Status) -> int:
        """Emails that came to a status, of those in which they stay for a while."""
        return self.counts.get(status, 0)

    def outcomes(self) -> dict[str, dict[str, int]]:
        """Attempts by provider and outcome, `passed_over` among these; only what happened."""
        found: dict[str, dict[str, int]] = {}
        for name, count in sorted(self.counts.items()):
            if name.startswith("asked#"):
                provider, _, outcome = name.removeprefix("asked#").rpartition("#")
                found.setdefault(provider, {})[outcome] = count
        return found

    def time_to_sent(self, quantile: float) -> int | None:
        """Milliseconds within which this share (0 to 1) of what was sent was sent; None if nothing
        was. Within a class, as if its times were spread evenly."""
        classes = [self.counts.get(f"took#{n}", 0) for n in range(len(BOUNDS))]
        upto = list(accumulate(classes))
        if upto[-1] == 0:
            return None
        wanted = quantile * upto[-1]
        n = next(n for n, count in enumerate(upto) if count >= wanted and classes[n])
        low = BOUNDS[n - 1] if n else 0
        share = (wanted - (upto[n] - classes[n])) / classes[n]
        return round(low + share * (BOUNDS[n] - low))


@dataclass(frozen=True, slots=True)
class Slice:
    """What happened from `start`, for the width of the period's slices."""

    start: int
    tally: Tally


@dataclass(frozen=True, slots=True)
class Overview:
    """What happened within a period, in all and slice by slice, the oldest first."""

    period: Period
    total: Tally
    slices: Sequence[Slice]


def overview(period: Period, now: int, found: Mapping[int, Mapping[str, int]]) -> Overview:
    """What `found` says, counts by the start of their slice; where it says nothing, nothing was."""
    slices = [Slice(start, Tally(found.get(start, {}))) for start in period.starts(now)]
    total: Counter[str] = Counter()
    for each in slices:
        total.update(each.tally.counts)
    return Overview(period, Tally(total), slices)


def counts(what: Observation) -> dict[str, int]:
    """What an observation adds, by name. As the metrics count it."""
    match what:
        case BatchAccepted():
            return {"accepted": what.emails}
        case AttemptEnded():
            return _asked(what.attempt) | _became(what.status) | _took(what)
        case EmailSwept(abandoned=Attempt() as abandoned):
            return _asked(abandoned) | _became(what.status)
        case EmailResolved():
            return _became(what.status)
    return {}


def _asked(attempt: Attempt) -> dict[str, int]:
    outcome = PASSED_OVER if attempt.passed_over else attempt.outcome
    return {f"asked#{attempt.provider}#{outcome}": 1}


def _became(status: Status | None) -> dict[str, int]:
    # Still queued: the next provider is asked. None: somebody else has counted it.
    return {} if status in (None, Status.QUEUED) else {str(status): 1}


def _took(ended: AttemptEnded) -> dict[str, int]:
    if ended.status is not Status.SENT:
        return {}
    n = min(bisect_left(BOUNDS, ended.accepted_ago), len(BOUNDS) - 1)
    return {f"took#{n}": 1}
