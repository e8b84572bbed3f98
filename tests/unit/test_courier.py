"""One attempt: claim, ask one provider, record."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import boto3
import pytest
from structlog.testing import capture_logs

from mailrelay import assembly, clock, delivery
from mailrelay.courier import Courier
from mailrelay.message import Content, Email, Hint, Outcome, Status
from mailrelay.observation import AttemptEnded, CircuitChanged, Observation
from mailrelay.providers import Answer
from mailrelay.rates import Rates
from mailrelay.settings import Settings, load
from mailrelay.store import Store, StoreUnavailable
from tests.support.aws import AWS_CREDENTIALS
from tests.support.couriers import a_breaker, a_courier
from tests.support.fakes import FakeProvider, FakeQueue, FakeShared
from tests.support.processes import wait_for
from tests.support.records import CHAIN, CONTENT, a_batch, an_email
from tests.support.threads import at_once


@pytest.fixture
def providers() -> dict[str, FakeProvider]:
    return {name: FakeProvider() for name in CHAIN}


@pytest.fixture
def courier(store: Store, settings: Settings, providers: dict[str, FakeProvider]) -> Courier:
    return a_courier(store, providers, settings)


def stored(store: Store, content: Content = CONTENT, **changes: Any) -> Email:
    batch = a_batch(**changes)
    email = an_email(batch)
    store.create(batch, content, [email], withdraw_at=None if batch.ready else 1)
    return email


def test_the_provider_gets_the_whole_email(
    courier: Courier, store: Store, providers: dict[str, FakeProvider]
) -> None:
    email = stored(store)

    assert courier.deliver(email.hint) is None

    (envelope,) = providers["mailgun"].envelopes
    assert envelope.to == email.to
    assert envelope.content == CONTENT
    assert envelope.subject == "Prüfung"
    assert envelope.message_id == f"<{email.id}@example.com>"
    sent = store.email(email.id)
    assert sent is not None
    assert sent.status is Status.SENT
    assert sent.attempts[0].message_id == "<id@provider.example>"


def test_a_failed_attempt_asks_for_the_next_provider_with_the_same_message_id(
    courier: Courier, store: Store, providers: dict[str, FakeProvider]
) -> None:
    providers["mailgun"].answer = Answer(Outcome.RETRY, "503", "down")
    email = stored(store)

    following = courier.deliver(email.hint)

    assert following == Hint(email.id, 1, 2, key_name=email.key_name)
    assert courier.deliver(following) is None
    first, second = (providers[name].envelopes[0] for name in ("mailgun", "ses"))
    assert first == second
    assert providers["sendgrid"].envelopes == []


def test_a_hint_that_comes_again_asks_nobody(
    courier: Courier, store: Store, providers: dict[str, FakeProvider]
) -> None:
    email = stored(store)

    for _ in range(3):
        courier.deliver(email.hint)

    assert len(providers["mailgun"].envelopes) == 1


def test_content_is_read_once_for_all_recipients(
    courier: Courier, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = a_batch(total=3)
    emails = [an_email(batch, index) for index in range(3)]
    store.create(batch, CONTENT, emails, withdraw_at=None)
    reads: list[str] = []
    read = store.batch_with_content

    def counting(batch_id: str) -> Any:
        reads.append(batch_id)
        return read(batch_id)

    monkeypatch.setattr(store, "batch_with_content", counting)
    for email in emails:
        courier.deliver(email.hint)

    assert reads == [batch.id]


def test_content_is_read_once_for_many_recipients_at_once(
    courier: Courier, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copies of a large one, a thread each, would take all of the memory."""
    batch = a_batch(total=8)
    emails = [an_email(batch, index) for index in range(8)]
    store.create(batch, CONTENT, emails, withdraw_at=None)
    read, reads, again = store.batch_with_content, 0, threading.Event()

    def reading(batch_id: str) -> Any:
        nonlocal reads
        reads += 1
        if reads > 1:
            again.set()
        again.wait(0.2)  # for a second one, which must not come
        return read(batch_id)

    monkeypatch.setattr(store, "batch_with_content", reading)
    # What comes of them is not looked at: moto in-process takes no shared requests.
    at_once(courier.deliver, [email.hint for email in emails])

    assert reads == 1


def test_a_content_counts_with_its_headers(
    courier: Courier, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many of them as a request can hold, of each of two batches: there is no room for both."""
    # Alike, so that it compresses to what an item takes.
    headers = {f"X-{number}": "x" * 900 for number in range(20_000)}
    batches = [stored(store, Content(plain="test", headers=headers)) for _ in range(2)]
    reads: list[str] = []
    read = store.batch_with_content

    def counting(batch_id: str) -> Any:
        reads.append(batch_id)
        return read(batch_id)

    monkeypatch.setattr(store, "batch_with_content", counting)
    for email in [*batches, *batches]:
        courier.deliver(email.hint)

    assert len(reads) == 4


def test_a_provider_that_is_not_configured_any_more_is_passed_over(
    store: Store, settings: Settings
) -> None:
    ses = FakeProvider()
    courier = a_courier(store, {"ses": ses}, settings)
    email = stored(store)

    following = courier.deliver(email.hint)

    assert following is not None
    courier.deliver(following)
    sent = store.email(email.id)
    assert sent is not None
    assert [attempt.code for attempt in sent.attempts] == ["not_configured", "200"]


def test_an_error_in_a_providers_code_is_an_unanswered_request(
    courier: Courier, store: Store, providers: dict[str, FakeProvider]
) -> None:
    def fail() -> Answer:
        raise KeyError("pedro@example.org")

    providers["mailgun"].answer = fail
    email = stored(store)

    with capture_logs() as lines:
        following = courier.deliver(email.hint)

    assert following is not None
    assert following.provider_index == 1
    after = store.email(email.id)
    assert after is not None
    assert after.attempts[0].outcome is Outcome.UNKNOWN
    assert "pedro" not in after.attempts[0].reason
    (line,) = lines
    assert (line["provider"], type(line["error"])) == ("mailgun", KeyError)


def test_nothing_is_sent_of_a_batch_that_is_not_ready(
    courier: Courier, store: Store, providers: dict[str, FakeProvider]
) -> None:
    email = stored(store, ready=False)

    assert courier.deliver(email.hint) is None

    assert providers["mailgun"].envelopes == []
    assert store.email(email.id) == email
    # It is not remembered as unready: once it is ready, it is sent.
    batch = store.batch(email.id.batch_id)
    assert batch is not None
    assert store.finish(batch)
    courier.deliver(email.hint)
    assert len(providers["mailgun"].envelopes) == 1


def test_an_email_whose_batch_was_withdrawn_is_removed(
    courier: Courier, store: Store, providers: dict[str, FakeProvider]
) -> None:
    orphan = an_email(a_batch())
    store.add_emails([orphan], orphan.created_at)

    assert courier.deliver(orphan.hint) is None

    assert store.email(orphan.id) is None
    assert providers["mailgun"].envelopes == []
    assert courier.deliver(orphan.hint) is None


def test_an_email_whose_content_is_gone_fails_with_a_reason(
    courier: Courier, store: Store, settings: Settings, providers: dict[str, FakeProvider]
) -> None:
    large = Content(plain="".join(chr(0x4E00 + i * 7919 % 20_000) for i in range(300_000)))
    email = stored(store, content=large)
    boto3.client("s3", region_name="us-east-1").delete_object(
        Bucket=settings.bucket, Key=email.id.batch_id
    )

    assert courier.deliver(email.hint) is None

    failed = store.email(email.id)
    assert failed is not None
    assert failed.status is Status.FAILED
    assert failed.attempts[0].code == "content_missing"
    assert providers["mailgun"].envelopes == []


@pytest.mark.parametrize("duplicates", ["allow", "avoid"])
def test_an_acceptance_after_the_lease_ends_the_email_and_asks_nobody_else(
    store: Store, providers: dict[str, FakeProvider], duplicates: str
) -> None:
    """The process was away for so long that the sweep took the email for abandoned."""
    settings = load({**AWS_CREDENTIALS, "MAILRELAY_DUPLICATES": duplicates})
    policy = assembly.policy(settings)
    courier = a_courier(store, providers, settings)
    email = stored(store)

    def swept_meanwhile() -> Answer:
        held = store.email(email.id)
        assert held is not None
        assert store.advance(held, delivery.wake(held, clock.now(), policy)) is not None
        return Answer(Outcome.ACCEPTED, "200", "queued", "<id@provider.example>")

    providers["mailgun"].answer = swept_meanwhile
    assert courier.deliver(email.hint) is None
    courier.deliver(Hint(email.id, provider_index=1, attempt=2))

    sent = store.email(email.id)
    assert sent is not None
    assert sent.status is Status.SENT
    assert [attempt.outcome for attempt in sent.attempts] == [Outcome.ACCEPTED]
    assert providers["ses"].envelopes == []


@pytest.mark.parametrize("decision", ["resend", "sent", "failed"])
def test_an_acceptance_counts_more_than_what_a_person_decided_meanwhile(
    store: Store, providers: dict[str, FakeProvider], decision: str
) -> None:
    """The process was away for so long that a person saw the email as `unknown`."""
    settings = load({**AWS_CREDENTIALS, "MAILRELAY_DUPLICATES": "avoid"})
    policy, queue = assembly.policy(settings), FakeQueue()
    relay = assembly.relay(settings, store, queue)
    courier = a_courier(store, providers, settings)
    email = stored(store)

    def decided_meanwhile() -> Answer:
        held = store.email(email.id)
        assert held is not None
        assert store.advance(held, delivery.wake(held, clock.now(), policy)) is not None
        if decision == "resend":
            assert relay.resend(email.id, email.key_name) is not None
        else:
            assert relay.resolve(email.id, email.key_name, Status(decision)) is not None
        return Answer(Outcome.ACCEPTED, "200", "queued", "<id@provider.example>")

    providers["mailgun"].answer = decided_meanwhile
    assert courier.deliver(email.hint) is None
    for hint in queue.hints:
        assert courier.deliver(hint) is None

    sent = store.email(email.id)
    assert sent is not None
    assert (sent.status, sent.due_at) == (Status.SENT, None)
    accepted = delivery.acceptance(sent)
    assert accepted is not None
    assert accepted.provider == "mailgun"
    assert sum(len(provider.envelopes) for provider in providers.values()) == 1


def test_a_failure_after_the_lease_changes_nothing(
    courier: Courier, store: Store, settings: Settings, providers: dict[str, FakeProvider]
) -> None:
    email = stored(store)

    def swept_meanwhile() -> Answer:
        held = store.email(email.id)
        assert held is not None
        store.advance(held, delivery.wake(held, clock.now(), assembly.policy(settings)))
        return Answer(Outcome.RETRY, "503", "down")

    providers["mailgun"].answer = swept_meanwhile

    assert courier.deliver(email.hint) is None
    after = store.email(email.id)
    assert after is not None
    assert [attempt.code for attempt in after.attempts] == ["abandoned"]


def test_a_claim_that_took_most_of_the_lease_sends_nothing(
    store: Store, settings: Settings, providers: dict[str, FakeProvider]
) -> None:
    """The sweep would ask the next provider while the request is under way."""

    class Slow(Flaky):
        def claim(self, hint: Hint, now: int, due_at: int) -> Email | None:
            return store.claim(hint, now - 20_000, due_at - 20_000)

    slow: Any = Slow(store, failures=0)
    courier = a_courier(slow, providers, settings)
    email = stored(store)

    following = courier.deliver(email.hint)

    assert following is not None
    assert following.provider_index == 1
    assert providers["mailgun"].envelopes == []


REFUSED = Answer(Outcome.UNAVAILABLE, "401", "bad key")


class Health:
    """What a courier knows of its providers, which a test turns, and what it told."""

    def __init__(
        self, settings: Settings, store: Store, providers: dict[str, FakeProvider]
    ) -> None:
        self._providers = providers
        self.store = store
        self.shared = FakeShared()
        self.told: list[Observation] = []
        self.breaker = a_breaker(settings, self.shared, self.told.append)
        self.courier = a_courier(
            store, providers, settings, breaker=self.breaker, observe=self.told.append
        )

    def fail(self, *names: str) -> None:
        """Have these providers refuse everybody, and be known for it."""
        for name in names:
            self._providers[name].answer = REFUSED
            entered = self.breaker.enter(name)
            assert entered is not None
            self.breaker.leave(entered, REFUSED)

    def pause_ends(self) -> None:
        for name, circuit in self.shared.known.items():
            self.shared.known[name] = replace(circuit, until=clock.now())
        self.breaker._read_at = float("-inf")

    @property
    def asked(self) -> list[str]:
        """Who got requests."""
        return [name for name, provider in self._providers.items() if provider.envelopes]

    def email(self, email: Email) -> Email:
        found = self.store.email(email.id)
        assert found is not None
        return found


@pytest.fixture
def health(settings: Settings, store: Store, providers: dict[str, FakeProvider]) -> Health:
    return Health(settings, store, providers)


def test_a_provider_that_is_left_alone_is_passed_over_at_once_and_costs_no_request(
    health: Health,
) -> None:
    """There is no message in between, and the email says what happened."""
    health.fail("mailgun", "ses")
    email = stored(health.store)

    assert health.courier.deliver(email.hint) is None

    assert health.asked == ["sendgrid"]
    sent = health.email(email)
    assert sent.status is Status.SENT
    assert [(each.number, each.provider, each.code) for each in sent.attempts] == [
        (1, "mailgun", "passed_over"),
        (2, "ses", "passed_over"),
        (3, "sendgrid", "200"),
    ]
    assert "unavailable 401" in sent.attempts[0].reason
    assert delivery.retries(sent) == 0
    ended = [what for what in health.told if isinstance(what, AttemptEnded)]
    assert [what.attempt.number for what in ended] == [1, 2, 3]


def test_an_email_waits_while_all_of_its_chain_are_left_alone(
    health: Health, providers: dict[str, FakeProvider], monkeypatch: pytest.MonkeyPatch
) -> None:
    """That takes two writes, and no message."""
    health.fail(*CHAIN)
    email = stored(health.store)
    writes: list[str] = []
    for name in ("claim", "advance"):
        write = getattr(health.store, name)
        monkeypatch.setattr(
            health.store,
            name,
            lambda *what, write=write, name=name: writes.append(name) or write(*what),
        )

    assert health.courier.deliver(email.hint) is None

    waits = health.email(email)
    assert (waits.status, waits.cycle, waits.attempt) == (Status.DEFERRED, 0, 4)
    assert waits.due_at is not None
    assert waits.due_at > clock.now() + 5_000
    assert writes == ["claim", "advance"]
    assert health.asked == []


def test_of_the_emails_that_come_once_a_pause_is_over_one_asks(
    health: Health, providers: dict[str, FakeProvider]
) -> None:
    """While it waits for its answer the others go to the next provider."""
    health.fail("mailgun")
    health.pause_ends()
    asked, answers = threading.Event(), threading.Event()

    def slowly() -> Answer:
        asked.set()
        assert answers.wait(10)
        return Answer(Outcome.ACCEPTED, "200")

    providers["mailgun"].answer = slowly
    first, second, third = stored(health.store), stored(health.store), stored(health.store)
    probe = threading.Thread(target=health.courier.deliver, args=(first.hint,))
    probe.start()
    assert asked.wait(10)
    health.courier.deliver(second.hint)
    answers.set()
    probe.join(10)
    health.courier.deliver(third.hint)

    assert [len(providers[name].envelopes) for name in CHAIN] == [2, 1, 0]
    changes = [what.after.state for what in health.told if isinstance(what, CircuitChanged)]
    assert changes == ["open", "half_open", "closed"]


def test_an_answer_is_written_down_before_anybody_is_told_of_the_provider(
    health: Health, settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever goes wrong with the circuits, no email is sent twice for it."""

    def broken(*_: Any) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(health.breaker, "leave", broken)
    email = stored(store)

    with pytest.raises(RuntimeError, match="broken"):
        health.courier.deliver(email.hint)

    assert health.email(email).status is Status.SENT


@pytest.mark.parametrize("index", [-1, 3, 1000])
def test_a_hint_for_a_provider_that_is_not_in_the_chain_is_void(
    health: Health, index: int
) -> None:
    email = stored(health.store)

    assert health.courier.deliver(email.hint._replace(provider_index=index)) is None

    assert health.email(email) == email
    assert health.asked == []


@pytest.fixture
def busy(
    settings: Settings, store: Store, providers: dict[str, FakeProvider]
) -> Iterator[Callable[[float], Courier]]:
    """Makes a courier that may ask mailgun the more often after so many seconds."""
    couriers: list[Courier] = []

    def make(seconds: float) -> Courier:
        shared = FakeShared()
        shared.reserved["mailgun"] = clock.now() * 1000 + round(seconds * 1_000_000)
        rates = Rates(shared, {"mailgun": 10}, sweep_interval=2)
        couriers.append(a_courier(store, providers, settings, rates=rates))
        return couriers[-1]

    yield make
    for courier in couriers:
        courier.stop()


def test_a_rate_that_is_used_up_neither_fails_an_email_nor_fails_it_over(
    busy: Callable[[float], Courier], store: Store, providers: dict[str, FakeProvider]
) -> None:
    """It stays queued for the same attempt, and the sweep finds it soon."""
    email = stored(store)

    assert busy(60).deliver(email.hint) is None

    waits = store.email(email.id)
    assert waits is not None
    assert (waits.status, waits.hint, waits.attempts) == (Status.QUEUED, email.hint, ())
    assert waits.due_at is not None
    assert clock.now() + 1_000 < waits.due_at <= clock.now() + 7_500
    assert all(not provider.envelopes for provider in providers.values())
    due = [
        found for shard in range(8) for page in store.due(shard, waits.due_at) for found in page
    ]
    assert due == [waits]


def test_an_email_that_would_be_removed_before_its_rate_has_room_fails_over(
    busy: Callable[[float], Courier], store: Store, providers: dict[str, FakeProvider]
) -> None:
    """A rate below what comes in must not lose what waits for it."""
    email = stored(store, created_at=clock.now() - 100_000_000)

    following = busy(60).deliver(email.hint)

    assert following is not None
    assert following.provider_index == 1
    failed_over = store.email(email.id)
    assert failed_over is not None
    assert [attempt.code for attempt in failed_over.attempts] == ["over_its_rate"]
    assert providers["mailgun"].envelopes == []


@pytest.mark.parametrize(
    ("age", "least", "most"), [(40_000, 10_000, 30_000), (80_000_000, 30_000, 90_000)]
)
def test_an_email_that_has_waited_for_long_is_put_off_for_longer(
    busy: Callable[[float], Courier], store: Store, age: int, least: int, most: int
) -> None:
    email = stored(store, created_at=clock.now() - age)
    before = clock.now()

    busy(60).deliver(email.hint)

    waits = store.email(email.id)
    assert waits is not None
    assert waits.due_at is not None
    assert before + least <= waits.due_at <= clock.now() + most + 1_000


def test_an_email_waits_for_its_place_without_being_held(
    busy: Callable[[float], Courier], store: Store, providers: dict[str, FakeProvider]
) -> None:
    """A lease begins with the request, not with the queue before it."""
    email = stored(store)
    courier = busy(0.5)
    at = clock.now()

    courier.deliver(email.hint)

    sent = store.email(email.id)
    assert sent is not None
    assert sent.status is Status.SENT
    assert sent.last_attempt_at is not None
    assert sent.last_attempt_at >= at + 400


def test_a_process_that_is_ending_gives_its_hint_back_even_while_it_waits_for_a_place(
    busy: Callable[[float], Courier], store: Store, providers: dict[str, FakeProvider]
) -> None:
    """Nobody holds the email then, so another process may send it at once."""
    email = stored(store)
    courier = busy(1.9)
    returned: list[Hint | None] = []
    waiting = threading.Thread(target=lambda: returned.append(courier.deliver(email.hint)))
    waiting.start()
    lane = courier._rates._lanes["mailgun"]
    wait_for(lambda: lane._shared.reservations, "it has reserved its place")
    courier.stop()
    waiting.join(10)

    assert returned == [email.hint]
    assert courier.deliver(email.hint) == email.hint
    assert store.email(email.id) == email
    assert all(not provider.envelopes for provider in providers.values())


def test_who_is_passed_over_needs_no_place(
    settings: Settings, store: Store, providers: dict[str, FakeProvider]
) -> None:
    shared = FakeShared()
    breaker = a_breaker(settings, shared)
    entered = breaker.enter("mailgun")
    assert entered is not None
    breaker.leave(entered, REFUSED)
    rates = Rates(shared, {"mailgun": 10}, sweep_interval=2)
    email = stored(store)

    a_courier(store, providers, settings, breaker=breaker, rates=rates).deliver(email.hint)

    assert shared.reservations == []
    assert len(providers["ses"].envelopes) == 1


class Flaky:
    """A store whose `advance` fails a number of times."""

    def __init__(self, store: Store, failures: int) -> None:
        self._store = store
        self.failures = failures

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def advance(self, before: Email, after: Email) -> Email | None:
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("DynamoDB: down")
        return self._store.advance(before, after)


def test_an_answer_is_written_down_however_often_it_takes(
    store: Store, settings: Settings, providers: dict[str, FakeProvider]
) -> None:
    flaky: Any = Flaky(store, failures=3)
    courier = a_courier(flaky, providers, settings)
    email = stored(store)

    with capture_logs() as lines:
        courier.deliver(email.hint)

    sent = store.email(email.id)
    assert sent is not None
    assert sent.status is Status.SENT
    assert [(line["event"], line["tries"]) for line in lines] == [
        ("an outcome is not written down yet", tries) for tries in (1, 2, 3)
    ]


def test_a_process_that_is_ending_gives_up_after_a_lease(
    store: Store, settings: Settings, providers: dict[str, FakeProvider]
) -> None:
    flaky: Any = Flaky(store, failures=1_000_000)
    policy = replace(assembly.policy(settings), lease=200, longest_send=0)
    courier = a_courier(flaky, providers, settings, policy=policy)
    email = stored(store)

    def told_to_end() -> Answer:
        courier.stop()
        return Answer(Outcome.ACCEPTED, "200", "queued", "<id@provider.example>")

    providers["mailgun"].answer = told_to_end

    with pytest.raises(StoreUnavailable):
        courier.deliver(email.hint)

    held = store.email(email.id)
    assert held is not None
    assert held.status is Status.SENDING
