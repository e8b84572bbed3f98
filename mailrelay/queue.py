"""What the relay needs of the queue. `tasks.queue` has it, by Celery on SQS."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from mailrelay.message import Hint


class QueueUnavailable(Exception):
    """The queue cannot be reached, or will not serve us."""


class DeliveryQueue(Protocol):
    """Hints on their way to the workers. Losing one costs time, nothing else."""

    def put(self, hints: Iterable[Hint]) -> None:
        """Enqueue one task for each hint, in order; raises `QueueUnavailable` at the first that
        fails, and leaves the rest out."""

    def depth(self) -> int:
        """About how many hints wait or are held by a worker; raises `QueueUnavailable`."""
