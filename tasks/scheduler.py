"""Beat's scheduler: alive as long as it ticks, and brief when the broker is away."""

from __future__ import annotations

from typing import Any

import structlog
from celery import beat

from mailrelay import heartbeat
from mailrelay.settings import load

log = structlog.get_logger(__name__)


class Scheduler(beat.Scheduler):
    """Celery's own in-memory scheduler: our entries are constants, nothing is worth a file."""

    max_interval = 5
    """Seconds that beat sleeps at most: its heart beats when it wakes. Celery's 300 are too long
    to tell a beat that sleeps from one that hangs."""

    def setup_schedule(self) -> None:
        """Begin; not called for the scheduler that Celery makes for its banner."""
        heartbeat.start("beat", load().queue_prefix)
        super().setup_schedule()

    def tick(self, *args: Any, **kwargs: Any) -> float:
        heartbeat.beat()
        seconds: float = super().tick(*args, **kwargs)
        return seconds

    def apply_entry(self, entry: Any, producer: Any = None) -> None:
        """Enqueue an entry that is due; what fails is due again at the next interval.

        Celery 5.7 logs a failure with a traceback and the stack, for each entry and interval.
        """
        try:
            self.apply_async(entry, producer=producer, advance=False)
        except beat.SchedulingError as error:
            # What is behind it: Celery says only that it could not be scheduled.
            log.warning("a task cannot be enqueued", entry=entry.name, error=error.__context__)
