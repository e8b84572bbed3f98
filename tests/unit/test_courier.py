"""One attempt: claim, ask one provider, record."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import boto3
import pytest
from structlog.testing import capture_logs

from mailrelay import assembly, clock, delivery
from mailrelay.courier import Courier
from mailrelay.message import Content, Email, Hint, Outcome, Status
from mailrelay.providers import Answer
from mailrelay.settings import Settings, load
from mailrelay.store import Store, StoreUnavailable
from tests.conftest import AWS_CREDENTIALS
from tests.support.fakes import FakeProvider, unobserved
from tests.support.records import CHAIN, CONTENT, a_batch, an_email


@pytest.fixture
def providers() -> dict[str, FakeProvider]:
    return {name: FakeProvider() for name in CHAIN}


@pytest.fixture
def courier(store: Store, settings: Settings, providers: dict[str, FakeProvider]) -> Courier:
    return Courier(store, providers, assembly.policy(settings), unobserved)


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


def test_a_provider_that_is_not_configured_any_more_is_passed_over(
    store: Store, settings: Settings
) -> None:
    ses = FakeProvider()
    courier = Courier(store, {"ses": ses}, assembly.policy(settings), unobserved)
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
    assert store.finish(email.id.batch_id)
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
    courier = Courier(store, providers, policy, unobserved)
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
    courier = Courier(slow, providers, assembly.policy(settings), unobserved)
    email = stored(store)

    following = courier.deliver(email.hint)

    assert following is not None
    assert following.provider_index == 1
    assert providers["mailgun"].envelopes == []


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
    courier = Courier(flaky, providers, assembly.policy(settings), unobserved)
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
    policy = replace(assembly.policy(settings), lease=200)
    courier = Courier(flaky, providers, policy, unobserved)
    email = stored(store)
    courier.stop()

    with pytest.raises(StoreUnavailable):
        courier.deliver(email.hint)

    held = store.email(email.id)
    assert held is not None
    assert held.status is Status.SENDING
