"""The sweep brings back what is due, no faster than the queue has room."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from mailrelay import assembly, clock, delivery, items, logs
from mailrelay.message import Email, Status
from mailrelay.observation import EmailSwept, Observation
from mailrelay.queue import QueueUnavailable
from mailrelay.settings import Settings
from mailrelay.store import Store, StoreUnavailable
from mailrelay.sweep import Sweeper, Swept
from tests.support.fakes import FakeQueue, unobserved
from tests.support.records import CONTENT, a_batch, an_email


@pytest.fixture
def queue() -> FakeQueue:
    return FakeQueue()


@pytest.fixture
def sweeper(store: Store, settings: Settings, queue: FakeQueue) -> Sweeper:
    return Sweeper(store, queue, assembly.policy(settings), unobserved, queue_limit=800)


def overdue(store: Store, total: int = 1, **changes: Any) -> list[Email]:
    """Emails whose time came a minute ago."""
    batch = a_batch(total=total, created_at=clock.now() - 120_000)
    emails = [an_email(batch, index, **changes) for index in range(total)]
    store.create(batch, CONTENT, emails, withdraw_at=None)
    return emails


def sweep_all(sweeper: Sweeper, seconds: float = 10) -> Swept:
    total = Swept()
    for shard in range(items.DUE_SHARDS):
        swept = sweeper.sweep(shard, seconds)
        total.enqueued += swept.enqueued
        total.ended += swept.ended
        total.withdrawn += swept.withdrawn
    return total


def now(store: Store, email: Email) -> Email:
    found = store.email(email.id)
    assert found is not None
    return found


def test_an_email_whose_message_vanished_is_enqueued_again(
    sweeper: Sweeper, store: Store, queue: FakeQueue
) -> None:
    (email,) = overdue(store)

    assert sweep_all(sweeper).enqueued == 1

    assert queue.hints == [email.hint]
    # Its new message has its own life: the next sweep leaves it alone.
    assert sweep_all(sweeper).enqueued == 0
    assert now(store, email).due_at is not None


def test_a_deferred_email_begins_again(sweeper: Sweeper, store: Store, queue: FakeQueue) -> None:
    (email,) = overdue(store, status=Status.DEFERRED, attempt=4, cycle=1)

    sweep_all(sweeper)

    assert queue.hints == [email.hint]
    assert now(store, email).status is Status.QUEUED


def test_an_email_whose_worker_died_goes_to_the_next_provider(
    sweeper: Sweeper, store: Store, queue: FakeQueue
) -> None:
    (email,) = overdue(store, status=Status.SENDING)

    sweep_all(sweeper)

    woken = now(store, email)
    assert queue.hints == [woken.hint]
    assert (woken.attempt, woken.provider) == (2, "ses")
    assert woken.attempts[0].code == "abandoned"


def test_an_email_whose_worker_died_awaits_a_person_where_duplicates_are_avoided(
    store: Store, settings: Settings, queue: FakeQueue
) -> None:
    policy = replace(assembly.policy(settings), avoid_duplicates=True)
    sweeper = Sweeper(store, queue, policy, unobserved, queue_limit=800)
    (email,) = overdue(store, status=Status.SENDING)

    assert sweep_all(sweeper).ended == 1

    unknown = now(store, email)
    assert (unknown.status, unknown.due_at) == (Status.UNKNOWN, None)
    assert unknown.attempts[0].code == "abandoned"
    assert queue.hints == []


def test_whoever_watches_hears_what_became_of_an_email(
    store: Store, settings: Settings, queue: FakeQueue
) -> None:
    seen: list[Observation] = []
    sweeper = Sweeper(store, queue, assembly.policy(settings), seen.append, queue_limit=800)
    (gone,) = overdue(store, request_id="request-1")
    (abandoned,) = overdue(store, status=Status.SENDING, request_id="request-2")

    sweep_all(sweeper)

    heard = {what.email_id: what for what in seen if isinstance(what, EmailSwept)}
    assert heard == {
        gone.id: EmailSwept(gone.id, "request-1", Status.QUEUED, Status.QUEUED, 1, None),
        abandoned.id: EmailSwept(
            *(abandoned.id, "request-2", Status.SENDING, Status.QUEUED, 2),
            now(store, abandoned).attempts[0],
        ),
    }


def test_an_abandoned_last_attempt_ends_or_defers_without_a_message(
    sweeper: Sweeper, store: Store, queue: FakeQueue
) -> None:
    deferred, *_ = overdue(store, status=Status.SENDING, provider_index=2, attempt=3)
    failed, *_ = overdue(store, status=Status.SENDING, provider_index=2, attempt=21, cycle=6)

    assert sweep_all(sweeper).ended == 2

    assert queue.hints == []
    assert now(store, deferred).status is Status.DEFERRED
    assert now(store, failed).status is Status.FAILED


def test_a_batch_that_was_never_completed_is_withdrawn(
    sweeper: Sweeper, store: Store, queue: FakeQueue
) -> None:
    batch = a_batch(ready=False, total=2)
    store.create(batch, CONTENT, [an_email(batch)], withdraw_at=clock.now() - 1)

    assert sweep_all(sweeper).withdrawn == 1

    assert store.batch(batch.id) is None
    assert store.emails(batch.id) == []
    assert queue.hints == []


def test_a_full_queue_gets_nothing_until_it_has_room(
    store: Store, settings: Settings, queue: FakeQueue
) -> None:
    emails = overdue(store, total=40)
    queue.others = 800
    waits: list[float] = []

    def make_room(seconds: float) -> None:
        waits.append(seconds)
        queue.others = 0

    sweeper = Sweeper(
        store, queue, assembly.policy(settings), unobserved, queue_limit=800, sleep=make_room
    )
    sweep_all(sweeper)

    assert waits == [0.25]
    assert set(queue.hints) == {email.hint for email in emails}


def test_a_queue_that_stays_full_ends_the_sweep_and_loses_nothing(
    sweeper: Sweeper, store: Store, queue: FakeQueue
) -> None:
    emails = overdue(store, total=90)
    queue.others = 800

    sweep_all(sweeper, seconds=0)

    # One for each shard gets its turn however full the queue is: it may stay so for hours.
    assert len(queue.hints) == items.DUE_SHARDS
    left = [email for email in emails if email.hint not in queue.hints]
    assert [now(store, email) for email in left] == left
    queue.others = 0
    assert sweep_all(sweeper).enqueued == len(left)


def test_a_sweep_never_fills_the_queue_beyond_its_limit(
    store: Store, settings: Settings, queue: FakeQueue
) -> None:
    overdue(store, total=90)
    sweeper = Sweeper(store, queue, assembly.policy(settings), unobserved, queue_limit=16)

    sweep_all(sweeper, seconds=0)

    assert 0 < len(queue.hints) <= 16


def test_a_queue_that_is_down_changes_nothing(
    sweeper: Sweeper, store: Store, queue: FakeQueue
) -> None:
    (email,) = overdue(store)
    queue.down = True

    with pytest.raises(QueueUnavailable):
        sweep_all(sweeper)

    assert now(store, email) == email


@pytest.mark.parametrize("trouble", ["full", "down"])
def test_what_needs_no_message_does_not_wait_for_the_queue(
    sweeper: Sweeper, store: Store, queue: FakeQueue, trouble: str
) -> None:
    (email,) = overdue(store, status=Status.SENDING, provider_index=2, attempt=21, cycle=6)
    batch = a_batch(ready=False, total=2)
    store.create(batch, CONTENT, [an_email(batch)], withdraw_at=clock.now() - 1)
    queue.others, queue.down = 800, trouble == "down"

    assert sweep_all(sweeper) == Swept(enqueued=0, ended=1, withdrawn=1)
    assert now(store, email).status is Status.FAILED


class Poisoned:
    """A store in which one email cannot be changed."""

    def __init__(self, store: Store, poisoned: Email, error: Exception) -> None:
        self._store, self._poisoned, self._error = store, poisoned, error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def advance(self, before: Email, after: Email, *, alone: bool) -> Email | None:
        if before.id == self._poisoned.id:
            raise self._error
        return self._store.advance(before, after, alone=alone)


def test_one_email_that_cannot_be_handled_stops_no_other(
    store: Store, settings: Settings, queue: FakeQueue
) -> None:
    emails = overdue(store, total=20, request_id="order-1")
    poisoned: Any = Poisoned(store, emails[3], ValueError("pedro@example.org"))
    sweeper = Sweeper(poisoned, queue, assembly.policy(settings), unobserved, queue_limit=800)

    with capture_logs() as lines:
        assert sweep_all(sweeper).enqueued == 19

    (line,) = [line for line in lines if line["log_level"] == "error"]
    assert (line["email_id"], line["request_id"]) == (str(emails[3].id), "order-1")
    assert type(line["error"]) is ValueError


def test_each_email_that_is_swept_has_its_line_with_its_own_request(
    store: Store, settings: Settings, queue: FakeQueue
) -> None:
    """So that it can be found by the request that sent it."""
    sweeper = Sweeper(store, queue, assembly.policy(settings), logs.observe, queue_limit=800)
    (queued,) = overdue(store, request_id="order-1")
    (ended,) = overdue(
        store,
        request_id="order-2",
        status=Status.SENDING,
        provider_index=2,
        attempt=21,
        cycle=6,
    )

    with capture_logs() as lines:
        sweep_all(sweeper)

    assert {
        (line["log_level"], line["request_id"], line["email_id"], line["was"], line["status"])
        for line in lines
        if line["event"] == "an email was swept"
    } == {
        ("info", "order-1", str(queued.id), "queued", "queued"),
        ("info", "order-2", str(ended.id), "sending", "failed"),
    }


def test_what_was_woken_before_a_failure_gets_its_message(
    store: Store, settings: Settings, queue: FakeQueue
) -> None:
    emails = overdue(store, total=20)
    poisoned: Any = Poisoned(store, emails[3], StoreUnavailable("DynamoDB: down"))
    sweeper = Sweeper(poisoned, queue, assembly.policy(settings), unobserved, queue_limit=800)

    with pytest.raises(StoreUnavailable):
        sweep_all(sweeper)

    woken = [email.id for email in emails if now(store, email) != email]
    assert sorted(hint.email_id.index for hint in queue.hints) == [id_.index for id_ in woken]


def test_what_somebody_else_changed_meanwhile_is_left_to_him(
    sweeper: Sweeper, store: Store, queue: FakeQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker claims the email between the sweep's reading and its writing."""
    (email,) = overdue(store)
    wake = delivery.wake

    def late(*args: Any) -> Email:
        store.claim(email.hint, clock.now(), clock.now() + 30_000)
        return wake(*args)

    monkeypatch.setattr(delivery, "wake", late)

    assert sweep_all(sweeper).enqueued == 0
    assert now(store, email).status is Status.SENDING


def test_a_sweep_whose_machine_is_ahead_leaves_what_is_not_due_by_dynamodbs_clock(
    store: Store, settings: Settings, queue: FakeQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It learns the time by the answer to its first question, which was wrong."""
    monkeypatch.setattr(clock, "_ahead", 0)

    class Tells:
        def due(self, shard: int, now: int) -> Iterator[list[Email | str]]:
            pages = list(store.due(shard, now))
            monkeypatch.setattr(clock, "_ahead", -30_000)
            yield from pages

    batch = a_batch()
    email = an_email(batch, status=Status.SENDING, due_at=clock.now() - 10_000)
    store.create(batch, CONTENT, [email], withdraw_at=None)
    told: Any = Tells()

    sweep_all(Sweeper(told, queue, assembly.policy(settings), unobserved, queue_limit=800))

    assert now(store, email).status is Status.SENDING
    assert queue.hints == []
