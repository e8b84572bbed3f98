"""Accepting and deciding: all of it or nothing, whatever DynamoDB does meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from mailrelay import assembly, aws, clock, delivery
from mailrelay.delivery import NotApplicable
from mailrelay.message import Address, Content, Email, EmailId, Outcome, Status
from mailrelay.relay import (
    Accepted,
    IdempotencyKey,
    IdempotencyMismatch,
    Relay,
    StillAccepting,
    Submission,
)
from mailrelay.settings import Settings
from mailrelay.store import Store, StoreUnavailable
from tests.support.fakes import FakeQueue
from tests.support.records import CHAIN, a_batch, an_attempt, an_email
from tests.unit.test_web_app import items_of

KEY = IdempotencyKey("order-1", "fingerprint")


class Troubled:
    """A store with a method that is troubled: before it acts, after it, or both."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.before: dict[str, Callable[[], None]] = {}
        self.after: dict[str, Callable[[], None]] = {}

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            self.before.get(name, _nothing)()
            result = method(*args, **kwargs)
            self.after.get(name, _nothing)()
            return result

        return call


def _nothing() -> None:
    """No trouble."""


def down() -> None:
    raise StoreUnavailable("DynamoDB: down")


@pytest.fixture
def troubled(store: Store) -> Troubled:
    return Troubled(store)


@pytest.fixture
def queue() -> FakeQueue:
    return FakeQueue()


@pytest.fixture
def relay(troubled: Troubled, settings: Settings, queue: FakeQueue) -> Relay:
    store: Any = troubled
    return assembly.relay(settings, store, queue)


def submission(total: int = 1, text: str = "test") -> Submission:
    return Submission(
        sender=Address("facundo@example.com"),
        destinations=tuple(Address(f"reader{index}@example.org") for index in range(total)),
        subject="test",
        content=Content(plain=text),
        chain=CHAIN,
    )


def emails(store: Store, accepted: Accepted) -> list[Email]:
    return store.emails(accepted.batch_id)


@pytest.mark.parametrize("total", [1, 98, 99, 250])
def test_every_recipient_is_stored_and_enqueued(
    relay: Relay, store: Store, queue: FakeQueue, total: int
) -> None:
    accepted = relay.accept(submission(total), "demo")

    stored = emails(store, accepted)
    batch = store.batch(accepted.batch_id)
    assert batch is not None
    assert batch.ready
    assert [email.to.email for email in stored] == [f"reader{i}@example.org" for i in range(total)]
    assert {email.status for email in stored} == {Status.QUEUED}
    assert queue.hints == [email.hint for email in stored]
    assert accepted.emails == tuple((email.id, email.to) for email in stored)


def test_no_message_leaves_before_the_batch_is_ready(
    relay: Relay, troubled: Troubled, queue: FakeQueue
) -> None:
    seen: list[int] = []
    troubled.before["finish"] = lambda: seen.append(len(queue.hints))

    relay.accept(submission(150), "demo")

    assert seen == [0]
    assert len(queue.hints) == 150


@pytest.mark.parametrize("failure", [StoreUnavailable, RuntimeError])
def test_whatever_the_queue_does_the_batch_is_accepted(
    relay: Relay, store: Store, queue: FakeQueue, failure: type[Exception]
) -> None:
    """The emails are stored and due: a client that was told otherwise would send them again."""
    if failure is RuntimeError:

        def fail(_: object) -> None:
            raise RuntimeError

        queue.put = fail  # type: ignore[method-assign]
    queue.down = True

    accepted = relay.accept(submission(3), "demo")

    assert queue.hints == []
    assert all(email.due_at is not None for email in emails(store, accepted))
    assert len(emails(store, accepted)) == 3


def test_a_store_that_is_down_accepts_nothing(
    relay: Relay, troubled: Troubled, queue: FakeQueue
) -> None:
    troubled.before = {"create": down, "forestall": down}

    with pytest.raises(StoreUnavailable):
        relay.accept(submission(), "demo")

    assert queue.hints == []


def test_a_transaction_that_failed_accepts_nothing_even_if_it_arrives_later(
    relay: Relay, troubled: Troubled, store: Store, queue: FakeQueue
) -> None:
    requests: list[Any] = []

    def lose(*args: Any, **kwargs: Any) -> None:
        requests.append((args, kwargs))
        raise StoreUnavailable("DynamoDB: down")

    troubled.create = lose  # type: ignore[attr-defined]
    with pytest.raises(StoreUnavailable):
        relay.accept(submission(), "demo")
    ((args, kwargs),) = requests
    with pytest.raises(StoreUnavailable):
        store.create(*args, **kwargs)

    assert queue.hints == []
    assert store.emails(args[0].id) == []


@pytest.mark.parametrize("total", [1, 150])
def test_a_batch_whose_answer_alone_was_lost_is_accepted(
    relay: Relay, troubled: Troubled, store: Store, queue: FakeQueue, total: int
) -> None:
    troubled.after["create"] = down

    accepted = relay.accept(submission(total), "demo")

    assert len(emails(store, accepted)) == total
    assert len(queue.hints) == total


@pytest.mark.parametrize("step", ["add_emails", "finish"])
def test_a_large_batch_that_cannot_be_completed_leaves_nothing(
    relay: Relay, troubled: Troubled, store: Store, queue: FakeQueue, step: str
) -> None:
    ids: list[str] = []
    withdraw = store.withdraw
    troubled.before[step] = down

    def noting(batch_id: str) -> bool:
        ids.append(batch_id)
        return withdraw(batch_id)

    store.withdraw = noting  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailable):
        relay.accept(submission(150), "demo", KEY)

    assert queue.hints == []
    (batch_id,) = ids
    assert store.batch(batch_id) is None
    assert store.emails(batch_id) == []
    # Its key is free again: the client may repeat the request.
    troubled.before.clear()
    assert not relay.accept(submission(150), "demo", KEY).replayed


def test_a_large_batch_whose_completion_alone_lost_its_answer_is_accepted(
    relay: Relay, troubled: Troubled, store: Store, queue: FakeQueue
) -> None:
    """It is ready and will be sent: to say otherwise would have it sent twice."""
    troubled.after["finish"] = down

    accepted = relay.accept(submission(150), "demo")

    assert len(queue.hints) == 150
    assert len(emails(store, accepted)) == 150


def test_a_large_batch_that_took_longer_than_a_lease_is_not_accepted(
    relay: Relay, troubled: Troubled, store: Store, queue: FakeQueue
) -> None:
    """The sweep has withdrawn it meanwhile; what was written after that goes as well."""
    written: list[str] = []

    def sweep() -> None:
        (batch_id,) = written
        assert store.withdraw(batch_id)

    add = store.add_emails

    def noting(rest: Any, created_at: int) -> None:
        written.append(rest[0].id.batch_id)
        sweep()
        add(rest, created_at)

    store.add_emails = noting  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailable, match="longer than a lease"):
        relay.accept(submission(150), "demo")

    assert queue.hints == []
    assert store.emails(written[0]) == []
    assert store.batch(written[0]) is None


def test_a_large_batch_that_cannot_even_be_withdrawn_is_left_to_the_sweep(
    relay: Relay, troubled: Troubled, store: Store, queue: FakeQueue
) -> None:
    troubled.before = {"add_emails": down, "withdraw": down}

    with pytest.raises(StoreUnavailable):
        relay.accept(submission(150), "demo", KEY)

    assert queue.hints == []
    with pytest.raises(StillAccepting):
        relay.accept(submission(150), "demo", KEY)


def test_the_same_key_and_body_answer_the_same(
    relay: Relay, store: Store, queue: FakeQueue
) -> None:
    first = relay.accept(submission(3), "demo", KEY)
    again = relay.accept(submission(3), "demo", KEY)

    assert again == Accepted(first.batch_id, first.emails, replayed=True)
    assert len(queue.hints) == 3
    assert relay.accept(submission(3), "another key", KEY).batch_id != first.batch_id


def test_two_at_once_with_one_key_make_one_batch(
    relay: Relay, troubled: Troubled, store: Store, settings: Settings
) -> None:
    """The second finds the key unused, and loses the race to the first."""
    other_queue = FakeQueue()
    firsts: list[Accepted] = []

    def first() -> None:
        troubled.before.clear()
        other = assembly.relay(settings, store, other_queue)
        firsts.append(other.accept(submission(), "demo", KEY))

    troubled.before["create"] = first
    second = relay.accept(submission(), "demo", KEY)

    assert second.replayed
    assert second.batch_id == firsts[0].batch_id


def test_the_same_key_with_another_body_is_refused(relay: Relay, queue: FakeQueue) -> None:
    relay.accept(submission(), "demo", KEY)

    with pytest.raises(IdempotencyMismatch):
        relay.accept(submission(text="another"), "demo", IdempotencyKey("order-1", "another"))

    assert len(queue.hints) == 1


# What a person decides


def ended(relay: Relay, store: Store, settings: Settings, outcome: Outcome) -> Email:
    """An email whose only attempt ended so, where duplicates are avoided."""
    (accepted,) = emails(store, relay.accept(submission(), "demo"))
    now = clock.now()
    held = store.claim(accepted.hint, now, now + 30_000)
    assert held is not None
    policy = replace(assembly.policy(settings), avoid_duplicates=True)
    recorded = store.advance(held, delivery.conclude(held, an_attempt(held, outcome), now, policy))
    assert recorded is not None
    return recorded


@pytest.fixture
def unknown(relay: Relay, store: Store, settings: Settings, queue: FakeQueue) -> Email:
    email = ended(relay, store, settings, Outcome.UNKNOWN)
    queue.hints.clear()
    return email


def test_a_resent_email_is_stored_before_it_is_enqueued(
    relay: Relay, troubled: Troubled, queue: FakeQueue, unknown: Email
) -> None:
    """Else a worker could come too early, and find the email as it was."""
    seen: list[int] = []
    troubled.after["advance"] = lambda: seen.append(len(queue.hints))

    resent = relay.resend(unknown.id, "demo")

    assert resent is not None
    assert (seen, queue.hints) == ([0], [resent.hint])


def test_a_resent_email_whose_answer_was_lost_is_due(
    relay: Relay, troubled: Troubled, store: Store, queue: FakeQueue, unknown: Email
) -> None:
    troubled.after["advance"] = down

    with pytest.raises(StoreUnavailable):
        relay.resend(unknown.id, "demo")

    email = store.email(unknown.id)
    assert email is not None
    assert email.status is Status.QUEUED
    assert email.due_at is not None
    assert queue.hints == []


def test_who_resends_what_another_has_resent_meanwhile_is_told(
    relay: Relay, troubled: Troubled, queue: FakeQueue, unknown: Email
) -> None:
    def another() -> None:
        troubled.before.clear()
        relay.resend(unknown.id, "demo")

    troubled.before["advance"] = another

    with pytest.raises(NotApplicable, match="is queued"):
        relay.resend(unknown.id, "demo")

    assert len(queue.hints) == 1


@pytest.mark.parametrize("theirs", [Status.SENT, Status.FAILED])
def test_of_two_who_resolve_at_once_the_first_one_counts(
    relay: Relay, troubled: Troubled, store: Store, unknown: Email, theirs: Status
) -> None:
    """The other one is told so, unless both said the same."""

    def another() -> None:
        troubled.before.clear()
        relay.resolve(unknown.id, "demo", theirs)

    troubled.before["advance"] = another

    if theirs is Status.SENT:
        assert relay.resolve(unknown.id, "demo", Status.SENT) == store.email(unknown.id)
    else:
        with pytest.raises(NotApplicable, match="is failed"):
            relay.resolve(unknown.id, "demo", Status.SENT)

    email = store.email(unknown.id)
    assert email is not None
    assert email.status is theirs


def test_an_email_that_is_removed_meanwhile_is_not_there(
    relay: Relay, troubled: Troubled, store: Store, unknown: Email
) -> None:
    for method in ("expiry", "advance"):
        troubled.before = {method: lambda: store.discard(unknown)}
        assert relay.resend(unknown.id, "demo") is None
        assert relay.resolve(unknown.id, "demo", Status.SENT) is None


def test_nothing_is_decided_of_a_batch_that_is_not_accepted(
    relay: Relay, troubled: Troubled, settings: Settings
) -> None:
    """A large one is stored in parts: until its client has a 202, none of it is there."""
    found: list[Email | None] = []

    def decide() -> None:
        stored = items_of(aws.dynamodb(settings), settings.table)
        (batch_id,) = {item["pk"]["S"].removeprefix("B#") for item in stored}
        found.append(relay.resend(EmailId(batch_id, 0), "demo"))
        found.append(relay.resolve(EmailId(batch_id, 0), "demo", Status.SENT))

    troubled.before["finish"] = decide
    relay.accept(submission(150), "demo")

    assert found == [None, None]


# Finding again


def test_what_was_sent_to_an_address_is_shown_with_its_batch(relay: Relay) -> None:
    """Newest first and in pages; what another key has sent is not."""
    sent = [relay.accept(submission(), "demo") for _ in range(3)]
    relay.accept(submission(), "another")

    first = relay.to("demo", "Reader0@example.org", None, 2)
    last = relay.to("demo", "Reader0@example.org", first.next_cursor, 2)

    found = [*first.emails, *last.emails]
    assert [batch.id for _, batch in found] == sorted(
        (each.batch_id for each in sent), reverse=True
    )
    assert all(email.id.batch_id == batch.id for email, batch in found)
    assert last.next_cursor is None


def test_a_page_of_batches_says_whether_there_are_more(relay: Relay) -> None:
    for _ in range(4):
        relay.accept(submission(), "demo")

    first = relay.recent("demo", None, 2)
    last = relay.recent("demo", first.next_cursor, 2)

    assert first.next_cursor == first.batches[-1].id
    assert len({batch.id for batch in (*first.batches, *last.batches)}) == 4
    assert last.next_cursor is None


def test_what_is_not_accepted_is_not_found(
    relay: Relay, troubled: Troubled, store: Store, settings: Settings
) -> None:
    """While a large batch is being stored, and where nothing came of it."""
    during: list[tuple[int, int]] = []

    def look() -> None:
        found = relay.to("demo", "reader0@example.org", None, 10).emails
        during.append((len(found), len(relay.recent("demo", None, 10).batches)))

    troubled.before["finish"] = look
    relay.accept(submission(150), "demo")
    assert during == [(0, 0)]
    look()
    assert during[-1] == (1, 1)

    # As `forestall` leaves it, with an email that arrived late.
    lost = a_batch()
    store.forestall(lost.id, lost.created_at)
    store.add_emails([an_email(lost, to=Address("reader0@example.org"))], lost.created_at)
    look()
    assert during[-1] == (1, 1)
