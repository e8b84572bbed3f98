"""Beat's scheduler, with one line in place of two tracebacks when the broker is away."""

from __future__ import annotations

from typing import Any

from celery import beat
from celery.utils.log import get_logger

log = get_logger(__name__)


class Scheduler(beat.Scheduler):
    """Celery's own in-memory scheduler: our entries are constants, nothing is worth a file."""

    def apply_entry(self, entry: Any, producer: Any = None) -> None:
        """Enqueue an entry that is due; what fails is due again at the next interval.

        Celery 5.7 logs a failure with a traceback and the stack, for each entry and interval.
        """
        try:
            self.apply_async(entry, producer=producer, advance=False)
        except beat.SchedulingError as error:
            log.warning("%s", error)
