"""Bring back what was abandoned: everything that is due.

A message vanished, a worker died, a deferred email's time has come, a batch was never completed:
all of it is found in the due index, whatever went wrong. Any number of sweeps may run at once,
since each change is conditional on the state that was read.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from mailrelay import clock, delivery
from mailrelay.delivery import Policy
from mailrelay.items import DUE_SHARDS
from mailrelay.message import Email, Hint, Status
from mailrelay.queue import DeliveryQueue
from mailrelay.store import Store

log = logging.getLogger(__name__)

_ROOM_INTERVAL = 0.25
"""Seconds between two looks at a queue that is full."""


@dataclass(slots=True)
class Swept:
    """What one sweep of a shard did."""

    enqueued: int = 0
    ended: int = 0
    """Emails whose abandoned attempt was their last, or waits again."""
    withdrawn: int = 0


class Sweeper:
    """Sweeps one shard at a time.

    `queue_limit` is how many messages may wait in the queue in all: more than the workers can
    take within a message's life would only die there and be enqueued again.
    """

    def __init__(
        self,
        store: Store,
        queue: DeliveryQueue,
        policy: Policy,
        *,
        queue_limit: int,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._store = store
        self._queue = queue
        self._policy = policy
        self._queue_limit = queue_limit
        self._sleep = sleep

    def sweep(self, shard: int, seconds: float) -> Swept:
        """Look at all that is due in `shard`, the most overdue first.

        Goes on while the queue has room, for at most about `seconds`: then the next sweep takes
        over. Raises `StoreUnavailable` and `QueueUnavailable`; what it left out stays due.
        """
        deadline = time.monotonic() + seconds
        swept = Swept()
        for page in self._store.due(shard, clock.now()):
            waiting = list(page)
            while waiting:
                room = self._room()
                if room == 0:
                    if time.monotonic() + _ROOM_INTERVAL > deadline:
                        return swept
                    self._sleep(_ROOM_INTERVAL)
                    continue
                self._wake(waiting[:room], swept)
                waiting = waiting[room:]
            if time.monotonic() > deadline:
                break
        return swept

    def _room(self) -> int:
        """How many messages this shard may add now: its part of what the queue can take."""
        return -(-max(0, self._queue_limit - self._queue.depth()) // DUE_SHARDS)

    def _wake(self, due: list[Email | str], swept: Swept) -> None:
        hints: list[Hint] = []
        for item in due:
            if isinstance(item, str):
                swept.withdrawn += self._store.withdraw(item)
                continue
            woken = delivery.wake(item, clock.now(), self._policy)
            if self._store.advance(item, woken) is None:
                continue  # A worker or another sweep was there first.
            if woken.status is Status.QUEUED:
                hints.append(woken.hint)
            else:
                swept.ended += 1
        self._queue.put(hints)
        swept.enqueued += len(hints)
