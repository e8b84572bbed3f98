"""Bring back what was abandoned: everything that is due.

A message vanished, a worker died, a deferred email's time has come, a batch was never completed:
all of it is found in the due index, whatever went wrong. Any number of sweeps may run at once,
since each change is conditional on the state that was read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import structlog

from mailrelay import clock, delivery
from mailrelay.delivery import Policy
from mailrelay.items import DUE_SHARDS
from mailrelay.message import Email, Hint, Status
from mailrelay.observation import EmailSwept, Observer, ShardSwept
from mailrelay.queue import DeliveryQueue, QueueUnavailable
from mailrelay.store import Store, StoreUnavailable

log = structlog.get_logger(__name__)

_ROOM_INTERVAL = 0.25
"""Seconds between two looks at a queue that is full."""

_LEAST = 1
"""Emails that a sweep enqueues even if the queue stays full."""


@dataclass(slots=True)
class Swept:
    """What one sweep of a shard has done so far; the fields are those of `ShardSwept`."""

    found: int = 0
    most_overdue: int = 0
    enqueued: int = 0
    ended: int = 0
    withdrawn: int = 0
    complete: bool = False


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
        observe: Observer,
        *,
        queue_limit: int,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._store = store
        self._queue = queue
        self._policy = policy
        self._observe = observe
        self._queue_limit = queue_limit
        self._sleep = sleep

    def sweep(self, shard: int, seconds: float) -> Swept:
        """Look at all that is due in `shard`, the most overdue first.

        What needs a message waits for room in the queue, for at most about `seconds` in all: then
        the next sweep takes over. Raises `StoreUnavailable` and `QueueUnavailable`; what it left
        out stays due.
        """
        started, swept = time.monotonic(), Swept()
        try:
            self._sweep(shard, started + seconds, swept)
        finally:
            duration = round((time.monotonic() - started) * 1000)
            self._observe(ShardSwept(shard=shard, duration_ms=duration, **asdict(swept)))
        return swept

    def _sweep(self, shard: int, deadline: float, swept: Swept) -> None:
        now = clock.now()
        for page in self._store.due(shard, now):
            # By its answer DynamoDB has said what the time is, to a machine whose clock is off.
            page = [item for item in page if isinstance(item, str) or _is_due(item, clock.now())]
            swept.found += len(page)
            overdue = [
                now - item.due_at for item in page if isinstance(item, Email) and item.due_at
            ]
            swept.most_overdue = max(swept.most_overdue, *overdue, 0)
            waiting = [email for item in page if (email := self._end(item, swept))]
            while waiting:
                room = self._room()
                if room == 0 and time.monotonic() + _ROOM_INTERVAL > deadline:
                    # Not nothing: new mail may keep the queue full for hours.
                    room = _LEAST
                if room > 0:
                    self._enqueue(waiting[:room], swept)
                    waiting = waiting[room:]
                if time.monotonic() + _ROOM_INTERVAL > deadline:
                    return
                if waiting:
                    self._sleep(_ROOM_INTERVAL)
        swept.complete = True

    def _room(self) -> int:
        """How many messages this shard may add now: its part of what the queue can take."""
        return -(-max(0, self._queue_limit - self._queue.depth()) // DUE_SHARDS)

    def _end(self, item: Email | str, swept: Swept) -> Email | None:
        """Do what is to be done without a message; the email if it needs one."""
        with _one_by_one(item):
            if isinstance(item, str):
                swept.withdrawn += self._store.withdraw(item)
                return None
            woken = self._wake(item)
            if woken.status is Status.QUEUED:
                return item
            if self._store.advance(item, woken, alone=True) is not None:
                swept.ended += 1
                self._tell(item, woken)
        return None

    def _enqueue(self, emails: list[Email], swept: Swept) -> None:
        hints: list[Hint] = []
        try:
            for email in emails:
                with _one_by_one(email):
                    # One after the other: who waited for company here would wait each time.
                    woken = self._store.advance(email, self._wake(email), alone=True)
                    if woken is not None:  # else a worker or another sweep was there first
                        hints.append(woken.hint)
                        self._tell(email, woken)
        finally:
            # Also what came before a failure: its next message would be due a message's life later.
            self._queue.put(hints)
            swept.enqueued += len(hints)

    def _wake(self, email: Email) -> Email:
        return delivery.wake(email, clock.now(), self._policy)

    def _tell(self, was: Email, now: Email) -> None:
        self._observe(
            EmailSwept(
                email_id=now.id,
                request_id=now.request_id,
                was=was.status,
                status=now.status,
                next_attempt=now.attempt,
                abandoned=now.attempts[-1] if len(now.attempts) > len(was.attempts) else None,
            )
        )


def _is_due(email: Email, now: int) -> bool:
    return email.due_at is not None and email.due_at <= now


@contextmanager
def _one_by_one(item: Email | str) -> Iterator[None]:
    """One that cannot be handled must not keep the sweep from all that is less overdue."""
    try:
        yield
    except (StoreUnavailable, QueueUnavailable):
        raise
    except Exception as error:  # noqa: BLE001 - as above
        if isinstance(item, str):
            about = log.bind(batch_id=item)
        else:
            about = log.bind(email_id=str(item.id), request_id=item.request_id)
        about.error("what is due cannot be swept", error=error, exc_info=error)
