"""Counts of what happens, kept in the table for two days: what `mailrelay.overview` is made of.

Each process gathers what it observes and adds it up in the table every few seconds: one small write
for a slice of each width, however many emails passed, and none if none did. A picture and no
account: a process that is killed loses the last seconds, and a write whose answer was lost is made
again and counts twice. No email ever waits for it, or fails by it.
"""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import structlog

from mailrelay import clock, items, kept
from mailrelay.kept import Kept, within
from mailrelay.observation import Observation
from mailrelay.overview import PERIODS, Overview, Period, counts, overview
from mailrelay.settings import DAY
from mailrelay.table import StoreUnavailable, Table

log = structlog.get_logger(__name__)

INTERVAL = 5.0
"""Seconds from one write to the next."""

LIFE = round(2 * DAY)
"""Seconds after which TTL removes what was counted."""

_MOST_PENDING = 16
"""Slices that wait at most while DynamoDB is away; what is older is lost."""


class _When(NamedTuple):
    """A slice of time, in milliseconds."""

    start: int
    width: int


def _end(when: _When) -> int:
    return when.start + when.width


Counts = Mapping[_When, Mapping[str, int]]


class Counters:
    """The counts of all processes together. Raises `StoreUnavailable`."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def add(self, when: _When, counted: Mapping[str, int]) -> None:
        """Add up what one process has counted."""
        expires = _end(when) // 1000 + LIFE
        self._table.add(items.counters_key(*when), counted, {"expires": expires})

    def read(self, period: Period) -> Overview:
        """A period up to now, by one query of less than 100 items of about 1 KB."""
        now = clock.now()
        starts = period.starts(now)
        first, last = (
            items.counters_key(start, period.width) for start in (starts[0], starts[-1])
        )
        found = self._table.query(
            "pk = :pk AND sk BETWEEN :first AND :last",
            {":pk": first["pk"], ":first": first["sk"], ":last": last["sk"]},
        )
        return overview(period, now, dict(map(items.read_counters, found)))


class Board:
    """What the overview shows, kept for some seconds, however many look at it."""

    def __init__(self, counters: Counters) -> None:
        self._kept = {
            period: Kept(f"the last {period.name}", partial(counters.read, period))
            for period in PERIODS
        }

    def __call__(self, period: Period) -> Overview | None:
        """A period up to now; None where DynamoDB does not say, or not within a moment."""
        return within(self._kept[period].begin(), time.monotonic() + kept.PATIENCE)


class Pending:
    """What this process has counted and not yet written. For many threads."""

    def __init__(self) -> None:
        self._counts: dict[_When, dict[str, int]] = {}
        self._lock = threading.Lock()

    def observe(self, what: Observation) -> None:
        """Count what has just happened."""
        if counted := counts(what):
            now = clock.now()
            widths = [period.width for period in PERIODS]
            self._add({_When(now - now % width, width): counted for width in widths})

    def flush(self, counters: Counters) -> None:
        """Write all of it. Where that fails the rest of it waits, and `StoreUnavailable` is raised."""
        with self._lock:
            taken, self._counts = self._counts, {}
        try:
            while taken:
                when = next(iter(taken))
                counters.add(when, taken[when])
                del taken[when]
        except StoreUnavailable:
            self._add(taken)
            raise

    def _add(self, counted: Counts) -> None:
        with self._lock:
            for when, values in counted.items():
                into = self._counts.setdefault(when, {})
                for name, count in values.items():
                    into[name] = into.get(name, 0) + count
            while len(self._counts) > _MOST_PENDING:
                del self._counts[min(self._counts, key=_end)]


class Flushing:
    """A thread that writes what is pending, until it is stopped."""

    def __init__(self, pending: Pending, counters: Counters) -> None:
        self._pending = pending
        self._counters = counters
        self._stopped = threading.Event()
        self._well = True
        threading.Thread(target=self._run, name="counters", daemon=True).start()

    def stop(self) -> None:
        """Write the rest, unless DynamoDB is away: the end of a process is not to wait for it."""
        self._stopped.set()
        if self._well:
            self._flush()

    def _run(self) -> None:
        while not self._stopped.wait(INTERVAL):
            self._flush()

    def _flush(self) -> None:
        try:
            self._pending.flush(self._counters)
        except StoreUnavailable as error:
            if self._well:
                log.warning("what is counted waits for DynamoDB", error=error)
            self._well = False
        except Exception as error:  # the next slice may do better
            log.error("what was counted is lost", error=error, exc_info=error)
        else:
            self._well = True


_PENDING = Pending()


def observe(what: Observation) -> None:
    """Count what has just happened, for `start` to have it written."""
    _PENDING.observe(what)


def start(table: Table) -> None:
    """From now on what this process counts is written. To be called once, after it was forked.

    `table` is to be one whose client gives up at once: the end of the process waits for it.
    """
    atexit.register(Flushing(_PENDING, Counters(table)).stop)
