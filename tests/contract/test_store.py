"""The store: one suite, run over moto in-process and over a local AWS."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from botocore.config import Config
from botocore.exceptions import ConnectionClosedError
from moto import mock_aws

from mailrelay import assembly, clock, delivery, items, provision
from mailrelay.delivery import NotApplicable
from mailrelay.message import (
    Address,
    Batch,
    BatchSummary,
    Content,
    Email,
    EmailId,
    Hint,
    Outcome,
    Status,
)
from mailrelay.settings import Settings, load
from mailrelay.store import (
    LISTED_INDEX,
    MAX_FIRST_EMAILS,
    ContentTooLarge,
    Idempotency,
    IdempotencyTaken,
    Overdue,
    Store,
    StoreUnavailable,
)
from tests.support.aws import AWS_CREDENTIALS
from tests.support.fakes import FakeQueue
from tests.support.processes import free_port, unused_name, wait_for
from tests.support.records import CONTENT, a_batch, an_attempt, an_email, claimed

# Each byte of it is another, so that it does not compress to less than DynamoDB takes.
LARGE = Content(plain="".join(chr(0x4E00 + i * 7919 % 20_000) for i in range(300_000)))


@dataclass
class Backend:
    """A store, and what a test needs to look behind it."""

    settings: Settings
    store: Store
    dynamodb: Any

    @property
    def policy(self) -> delivery.Policy:
        return assembly.policy(self.settings)

    def item(self, key: dict[str, Any]) -> dict[str, Any] | None:
        answer = self.dynamodb.get_item(TableName=self.settings.table, Key=key)
        return answer.get("Item")

    def items(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.dynamodb.scan(TableName=self.settings.table)["Items"]
        return found

    def due(self, at: int) -> list[Any]:
        shards = range(items.DUE_SHARDS)
        return [item for shard in shards for page in self.store.due(shard, at) for item in page]


@pytest.fixture(params=["moto", "local AWS"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Backend]:
    settings = load(
        {
            **AWS_CREDENTIALS,
            "MAILRELAY_TABLE": unused_name("store"),
            "MAILRELAY_QUEUE_PREFIX": unused_name("store"),
            "MAILRELAY_BUCKET": unused_name("store"),
        }
    )
    if request.param == "moto":
        with mock_aws():
            yield _backend(settings)
    else:
        monkeypatch.setenv("AWS_ENDPOINT_URL", request.getfixturevalue("local_aws"))
        yield _backend(settings)


def _backend(settings: Settings) -> Backend:
    list(provision.provision(settings))
    dynamodb = boto3.client("dynamodb", region_name=settings.aws_region)
    return Backend(settings, assembly.store(settings), dynamodb)


def stored(backend: Backend, total: int = 1, **changes: Any) -> Batch:
    """A ready batch with `total` queued emails."""
    batch = a_batch(total=total, **changes)
    emails = [an_email(batch, index) for index in range(total)]
    backend.store.create(batch, CONTENT, emails, withdraw_at=None)
    return batch


def unfinished(backend: Backend, total: int = 30, **kwargs: Any) -> Batch:
    """A batch that is not ready, with all of its emails."""
    batch = a_batch(total=total, ready=False)
    emails = [an_email(batch, index) for index in range(total)]
    backend.store.create(
        batch, CONTENT, emails[:10], withdraw_at=batch.created_at + 30_000, **kwargs
    )
    backend.store.add_emails(emails[10:], batch.created_at)
    return batch


def a_key(batch: Batch, **changes: Any) -> Idempotency:
    record = Idempotency("demo", "ab" * 32, "cd" * 32, batch.id, batch.created_at // 1000 + 86_400)
    return replace(record, **changes)


# Accepting


def test_a_batch_and_its_emails_come_back_as_they_were_stored(backend: Backend) -> None:
    batch = stored(backend, total=3)

    assert backend.store.batch(batch.id) == batch
    assert backend.store.batch_with_content(batch.id) == (batch, CONTENT)
    assert backend.store.emails(batch.id) == [an_email(batch, index) for index in range(3)]
    assert backend.store.email(EmailId(batch.id, 2)) == an_email(batch, 2)


def test_what_is_not_there_is_none(backend: Backend) -> None:
    assert backend.store.batch("nothing") is None
    assert backend.store.batch_with_content("nothing") is None
    assert backend.store.emails("nothing") == []
    assert backend.store.email(EmailId("nothing", 0)) is None
    assert backend.store.idempotency("demo", "00", clock.now()) is None


def test_a_transaction_takes_98_emails_and_an_idempotency_key(backend: Backend) -> None:
    batch = a_batch(total=MAX_FIRST_EMAILS)
    emails = [an_email(batch, index) for index in range(MAX_FIRST_EMAILS)]

    backend.store.create(batch, CONTENT, emails, withdraw_at=None, idempotency=a_key(batch))

    assert backend.store.emails(batch.id) == emails
    assert backend.store.idempotency("demo", "ab" * 32, clock.now()) == a_key(batch)


def test_everything_is_removed_after_the_retention(backend: Backend) -> None:
    batch = stored(backend)

    expected = str(batch.created_at // 1000 + 30 * 86_400)
    assert [item["expires"]["N"] for item in backend.items()] == [expected, expected]


def test_creating_a_batch_again_changes_nothing(backend: Backend) -> None:
    """As when the answer was lost and botocore sends the transaction again."""
    batch = a_batch()
    record = a_key(batch)
    for _ in range(2):
        backend.store.create(
            batch, CONTENT, [an_email(batch)], withdraw_at=None, idempotency=record
        )

    assert len(backend.items()) == 3


def test_a_used_idempotency_key_stores_nothing_and_says_for_what(backend: Backend) -> None:
    first = a_batch()
    backend.store.create(
        first, CONTENT, [an_email(first)], withdraw_at=None, idempotency=a_key(first)
    )
    second = a_batch()

    with pytest.raises(IdempotencyTaken) as taken:
        backend.store.create(
            second, CONTENT, [an_email(second)], withdraw_at=None, idempotency=a_key(second)
        )

    assert taken.value.record == a_key(first)
    assert backend.store.batch(second.id) is None
    assert backend.store.emails(second.id) == []


def test_an_expired_idempotency_key_can_be_used_again(backend: Backend) -> None:
    first = a_batch(created_at=clock.now() - 90_000_000)
    backend.store.create(
        first, CONTENT, [an_email(first)], withdraw_at=None, idempotency=a_key(first)
    )
    assert backend.store.idempotency("demo", "ab" * 32, clock.now()) is None

    second = a_batch()
    backend.store.create(
        second, CONTENT, [an_email(second)], withdraw_at=None, idempotency=a_key(second)
    )

    found = backend.store.idempotency("demo", "ab" * 32, clock.now())
    assert found is not None
    assert found.batch_id == second.id


def test_large_content_lies_in_s3(backend: Backend) -> None:
    batch = a_batch()
    backend.store.create(batch, LARGE, [an_email(batch)], withdraw_at=None)

    item = backend.item(items.batch_key(batch.id))
    assert item is not None
    assert "content" not in item
    assert backend.store.batch_with_content(batch.id) == (batch, LARGE)


def test_large_content_that_is_gone_is_none(backend: Backend) -> None:
    batch = a_batch()
    backend.store.create(batch, LARGE, [an_email(batch)], withdraw_at=None)
    s3 = boto3.client("s3", region_name="us-east-1")
    s3.delete_object(Bucket=backend.settings.bucket, Key=batch.id)

    assert backend.store.batch_with_content(batch.id) == (batch, None)


def test_large_content_without_a_bucket_is_refused(backend: Backend) -> None:
    batch = a_batch()
    store = assembly.store(replace(backend.settings, bucket=None))

    with pytest.raises(ContentTooLarge):
        store.create(batch, LARGE, [an_email(batch)], withdraw_at=None)

    assert store.batch(batch.id) is None
    stray = a_batch()
    backend.store.create(stray, LARGE, [an_email(stray)], withdraw_at=None)
    with pytest.raises(StoreUnavailable, match="MAILRELAY_BUCKET"):
        store.batch_with_content(stray.id)


def test_a_batch_that_was_not_stored_can_be_kept_from_being_stored(backend: Backend) -> None:
    """As when nobody knows whether the transaction is still on its way."""
    batch = a_batch()

    assert backend.store.forestall(batch.id, clock.now())
    assert backend.store.forestall(batch.id, clock.now())

    with pytest.raises(StoreUnavailable):
        backend.store.create(
            batch, CONTENT, [an_email(batch)], withdraw_at=None, idempotency=a_key(batch)
        )
    assert backend.store.emails(batch.id) == []
    assert backend.store.idempotency("demo", "ab" * 32, clock.now()) is None


def test_a_batch_that_was_stored_cannot_be_kept_from_it(backend: Backend) -> None:
    batch = stored(backend)

    assert not backend.store.forestall(batch.id, clock.now())

    assert backend.store.batch(batch.id) == batch


# Large batches


def test_a_large_batch_is_ready_only_when_it_is_finished(backend: Backend) -> None:
    batch = unfinished(backend)
    before = backend.store.batch(batch.id)

    assert before is not None
    assert not before.ready
    assert backend.store.finish(batch)
    assert backend.store.batch(batch.id) == replace(batch, ready=True)
    assert len(backend.store.emails(batch.id)) == 30
    # Finishing it again, as botocore may, is no error.
    assert backend.store.finish(batch)


def test_an_unfinished_batch_is_due_and_a_finished_one_is_not(backend: Backend) -> None:
    batch = unfinished(backend)
    withdraw_at = batch.created_at + 30_000
    assert backend.due(withdraw_at - 1) == []
    assert backend.due(withdraw_at) == [batch.id]

    backend.store.finish(batch)

    assert backend.due(withdraw_at) == []


def test_a_withdrawn_batch_leaves_nothing_and_frees_its_idempotency_key(
    backend: Backend,
) -> None:
    batch = a_batch(total=30, ready=False)
    emails = [an_email(batch, index) for index in range(30)]
    backend.store.create(
        batch,
        CONTENT,
        emails[:10],
        withdraw_at=batch.created_at + 30_000,
        idempotency=a_key(batch),
    )
    backend.store.add_emails(emails[10:], batch.created_at)

    assert backend.store.withdraw(batch.id)

    assert backend.items() == []
    assert not backend.store.finish(batch)


def test_a_batch_that_is_being_withdrawn_cannot_get_ready(backend: Backend) -> None:
    batch = unfinished(backend)
    backend.dynamodb.update_item(
        TableName=backend.settings.table,
        Key=items.batch_key(batch.id),
        UpdateExpression="SET withdrawn = :yes",
        ExpressionAttributeValues={":yes": {"BOOL": True}},
    )

    assert not backend.store.finish(batch)
    assert backend.store.withdraw(batch.id)
    assert backend.items() == []


def test_emails_that_are_written_after_the_withdrawal_are_removed_as_well(
    backend: Backend,
) -> None:
    batch = unfinished(backend)
    backend.store.withdraw(batch.id)
    backend.store.add_emails([an_email(batch, 30)], batch.created_at)

    assert not backend.store.finish(batch)
    assert backend.store.withdraw(batch.id)

    assert backend.items() == []


def test_a_ready_batch_cannot_be_withdrawn(backend: Backend) -> None:
    batch = stored(backend)

    assert not backend.store.withdraw(batch.id)

    assert backend.store.batch(batch.id) == batch
    assert len(backend.store.emails(batch.id)) == 1


# Lists


def test_a_keys_batches_are_listed_newest_first_and_in_pages(backend: Backend) -> None:
    made = [stored(backend, created_at=clock.now()) for _ in range(7)]
    stored(backend, key_name="another")
    newest_first = sorted((batch.id for batch in made), reverse=True)

    first = backend.store.recent("demo", None, 4)
    rest = backend.store.recent("demo", first[-1].id, 4)

    assert [batch.id for batch in (*first, *rest)] == newest_first
    batch = made[0]
    assert BatchSummary(batch.id, batch.sender, batch.subject, batch.total, batch.created_at) in (
        *first,
        *rest,
    )


def test_a_batch_is_listed_once_it_is_complete(backend: Backend) -> None:
    batch, withdrawn = unfinished(backend), unfinished(backend)
    assert backend.store.recent("demo", None, 10) == []

    backend.store.finish(batch)
    backend.store.withdraw(withdrawn.id)

    assert [listed.id for listed in backend.store.recent("demo", None, 10)] == [batch.id]


def test_emails_are_found_by_their_recipient_in_pages(backend: Backend) -> None:
    """Those of a batch, too, that has the same recipient more than once; of no other key."""
    wanted = Address("Pedro@example.org")
    expected = []
    for key_name, times in (("demo", 3), ("another", 2), ("demo", 1)):
        batch = a_batch(total=4, key_name=key_name)
        emails = [
            an_email(batch, index, to=wanted if index < times else Address("x@example.org"))
            for index in range(4)
        ]
        backend.store.create(batch, CONTENT, emails, withdraw_at=None)
        if key_name == "demo":
            expected += [email.id for email in emails[:times]]

    found: list[EmailId] = []
    while page := backend.store.emails_to(
        "demo", "pEDRO@example.org", found[-1] if found else None, 3
    ):
        found += page

    assert len(found) == len(expected)
    assert set(found) == set(expected)
    assert [email_id.batch_id for email_id in found] == sorted(
        (email_id.batch_id for email_id in expected), reverse=True
    )
    shown = backend.store.some_emails(found)
    assert [(email.id, email.to) for email in shown] == [(id_, wanted) for id_ in found]


def test_what_becomes_of_an_item_costs_its_list_nothing(backend: Backend) -> None:
    """Its entry holds what never changes; nobody's address is in it."""
    batch = stored(backend)
    email = an_email(batch)

    def entries() -> list[Any]:
        lists = (items.recipient_list("demo", email.to.email), items.batch_list(batch))
        return [
            backend.store.table.query(
                "listed_in = :list", {":list": {"S": each}}, index=LISTED_INDEX
            )
            for each in lists
        ]

    before = entries()
    backend.store.advance(email, replace(email, status=Status.SENT, due_at=None))

    assert entries() == before
    assert [len(found) for found in before] == [1, 1]
    assert email.to.email not in str(before)


# Sending


def test_a_claim_is_what_the_rules_say(backend: Backend) -> None:
    batch = stored(backend)
    email = an_email(batch)
    now = clock.now()

    held = backend.store.claim(email.hint, now, now + backend.policy.lease)

    assert held is not None
    assert replace(held, version="") == claimed(email, now, backend.policy.lease)
    assert backend.store.email(email.id) == held


def test_a_message_that_comes_twice_is_claimed_once(backend: Backend) -> None:
    hint = an_email(stored(backend)).hint
    now = clock.now()

    claims = [backend.store.claim(hint, now, now + 1) for _ in range(2)]

    assert claims[0] is not None
    assert claims[1] is None


def test_many_workers_at_once_get_one_claim(local: Backend) -> None:
    """On the local AWS alone: moto in-process has no real concurrency."""
    hint = an_email(stored(local)).hint
    now = clock.now()
    claims: list[Any] = []
    threads = [
        threading.Thread(target=lambda: claims.append(local.store.claim(hint, now, now + 1)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(claims) == 8
    assert len([claim for claim in claims if claim]) == 1


@pytest.mark.parametrize(("provider_index", "attempt"), [(0, 0), (0, 2), (1, 1)])
def test_a_hint_for_another_attempt_is_void(
    backend: Backend, provider_index: int, attempt: int
) -> None:
    email = an_email(stored(backend))
    hint = Hint(email.id, provider_index, attempt)

    assert backend.store.claim(hint, clock.now(), clock.now()) is None
    assert backend.store.email(email.id) == email


def test_a_hint_for_nothing_is_void(backend: Backend) -> None:
    assert backend.store.claim(Hint(EmailId("nothing", 0), 0, 1), clock.now(), 1) is None


@pytest.mark.parametrize("outcome", [*Outcome])
def test_every_outcome_is_recorded_as_the_rules_say(backend: Backend, outcome: Outcome) -> None:
    email = an_email(stored(backend))
    now = clock.now()
    claimed = backend.store.claim(email.hint, now, now + 1)
    assert claimed is not None
    concluded = delivery.conclude(claimed, an_attempt(claimed, outcome), now, backend.policy)

    recorded = backend.store.advance(claimed, concluded)

    assert recorded is not None
    assert recorded == replace(concluded, version=recorded.version)
    assert recorded.version != claimed.version
    assert backend.store.email(email.id) == recorded


def test_who_lost_the_email_meanwhile_records_nothing(backend: Backend) -> None:
    """A worker that was away for longer than its lease finds the email further on."""
    email = an_email(stored(backend))
    now = clock.now()
    claimed = backend.store.claim(email.hint, now, now + 1)
    assert claimed is not None
    swept = backend.store.advance(claimed, delivery.wake(claimed, now + 2, backend.policy))

    late = delivery.conclude(
        claimed, an_attempt(claimed, Outcome.ACCEPTED), now + 3, backend.policy
    )

    assert backend.store.advance(claimed, late) is None
    assert backend.store.email(email.id) == swept


def test_a_final_email_is_not_in_the_due_index(backend: Backend) -> None:
    email = an_email(stored(backend))
    now = clock.now()
    claimed = backend.store.claim(email.hint, now, now + 1)
    assert claimed is not None
    sent = delivery.conclude(claimed, an_attempt(claimed, Outcome.ACCEPTED), now, backend.policy)

    backend.store.advance(claimed, sent)

    item = backend.item(items.email_key(email.id))
    assert item is not None
    assert "due_shard" not in item
    assert "due_at" not in item
    assert backend.due(now + 1_000_000) == []


def unanswered(backend: Backend) -> Email:
    """An email that awaits a person."""
    email = an_email(stored(backend))
    now = clock.now()
    held = backend.store.claim(email.hint, now, now + 1)
    assert held is not None
    policy = replace(backend.policy, avoid_duplicates=True)
    attempt = an_attempt(held, Outcome.UNKNOWN)
    recorded = backend.store.advance(held, delivery.conclude(held, attempt, now, policy))
    assert recorded is not None
    return recorded


def test_what_a_person_decides_is_stored_and_taken_back(backend: Backend) -> None:
    unknown = unanswered(backend)
    now = clock.now()
    expires = backend.store.expiry(unknown.id)
    assert expires == unknown.created_at // 1000 + 30 * 86_400

    resolved = backend.store.advance(unknown, delivery.resolve(unknown, Status.FAILED, now))

    assert resolved is not None
    assert backend.store.email(unknown.id) == resolved
    assert resolved.resolved_at == now
    for alone in (True, False):
        again = delivery.resend(resolved, expires * 1000, now, backend.policy)
        resent = backend.store.advance(resolved, again, alone=alone)
        assert resent is not None
        assert backend.store.email(unknown.id) == resent
        assert resent.resolved_at is None
        assert backend.due(now + 1_000_000) == [resent]
        resolved = backend.store.advance(resent, resolved)
        assert resolved is not None
    assert backend.store.expiry(EmailId(unknown.id.batch_id, 1)) is None


def test_of_many_who_decide_at_once_one_decides(local: Backend) -> None:
    """On the local AWS alone, as above. An email is not put into the queue twice."""
    unknown = unanswered(local)
    queue = FakeQueue()
    relay = assembly.relay(local.settings, local.store, queue)
    ends: list[Email | NotApplicable | None] = []

    def decide(how: Callable[[], Email | None]) -> None:
        try:
            ends.append(how())
        except NotApplicable as refused:
            ends.append(refused)

    decisions: list[Callable[[], Email | None]] = [
        lambda: relay.resend(unknown.id, "demo"),
        lambda: relay.resolve(unknown.id, "demo", Status.SENT),
    ] * 4
    threads = [threading.Thread(target=decide, args=(how,)) for how in decisions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    final = local.store.email(unknown.id)
    assert final is not None
    assert len(ends) == 8
    winners = [end for end in ends if isinstance(end, Email)]
    assert winners == [final] * (1 if final.status is Status.QUEUED else 4)
    assert queue.hints == ([final.hint] if final.status is Status.QUEUED else [])


def test_a_discarded_email_is_gone_unless_it_has_changed(backend: Backend) -> None:
    email = an_email(stored(backend))
    now = clock.now()
    claimed = backend.store.claim(email.hint, now, now + 1)
    assert claimed is not None

    backend.store.discard(email)
    assert backend.store.email(email.id) == claimed

    backend.store.discard(claimed)
    assert backend.store.email(email.id) is None


# Recovering


def test_what_is_due_is_found_the_most_overdue_first(backend: Backend) -> None:
    batch = a_batch(total=60)
    emails = [an_email(batch, i, due_at=batch.created_at - 1000 + i) for i in range(60)]
    backend.store.create(batch, CONTENT, emails, withdraw_at=None)

    due = backend.due(batch.created_at)

    assert sorted(due, key=lambda email: email.id.index) == emails
    for shard in range(items.DUE_SHARDS):
        times = [e.due_at for page in backend.store.due(shard, clock.now()) for e in page]
        assert len(times) > 0
        assert set(times) <= {email.due_at for email in emails}


def test_what_is_due_is_counted_by_shard(backend: Backend) -> None:
    batch = a_batch(total=61)
    now = batch.created_at
    emails = [an_email(batch, i, due_at=now - 1000 + i) for i in range(60)]
    not_yet = an_email(batch, 60, due_at=now + 1)
    backend.store.create(batch, CONTENT, [*emails, not_yet], withdraw_at=None)

    for shard in range(items.DUE_SHARDS):
        times = [e.due_at for e in emails if items.due_shard(e.id) == shard]
        expected = Overdue(len(times), min(times, default=None))
        assert backend.store.overdue(shard, now) == expected


def test_what_is_not_due_yet_is_not_found(backend: Backend) -> None:
    batch = stored(backend)

    assert backend.due(batch.created_at + 59_999) == []
    assert backend.due(batch.created_at + 60_000) == [an_email(batch)]


def test_a_sweep_pages_through_all_that_is_due(backend: Backend) -> None:
    batch = a_batch(total=1000)
    backend.store.add_emails([an_email(batch, index) for index in range(1000)], batch.created_at)
    at = clock.now() + 120_000

    pages = [page for shard in range(items.DUE_SHARDS) for page in backend.store.due(shard, at)]

    found = {email.id for page in pages for email in page if not isinstance(email, str)}
    assert found == {EmailId(batch.id, index) for index in range(1000)}
    assert max(len(page) for page in pages) <= 100
    assert len(pages) > items.DUE_SHARDS


# Faults


class LostAnswers:
    """A botocore client whose next write takes effect and then loses its answer.

    It hooks botocore's own event between the connection and the parser, so that botocore's
    retries see a broken connection as they would from the network.
    """

    def __init__(self, client: Any, operation: str) -> None:
        self.requests = 0
        self._event = f"before-send.dynamodb.{operation}"
        self._client = client
        client.meta.events.register(self._event, self._send)

    def _send(self, request: Any, **_: Any) -> None:
        self.requests += 1
        if self.requests == 1:
            self._client._endpoint.http_session.send(request)
            raise ConnectionClosedError(endpoint_url=request.url)


@pytest.fixture
def local(local_aws: str, monkeypatch: pytest.MonkeyPatch) -> Backend:
    monkeypatch.setenv("AWS_ENDPOINT_URL", local_aws)
    return _backend(
        load(
            {
                **AWS_CREDENTIALS,
                "MAILRELAY_TABLE": unused_name("store"),
                "MAILRELAY_QUEUE_PREFIX": unused_name("store"),
            }
        )
    )


def _retrying_store(backend: Backend) -> tuple[Store, Any]:
    config = Config(retries={"mode": "standard", "total_max_attempts": 3})
    client = boto3.client("dynamodb", region_name="us-east-1", config=config)
    return Store(client, backend.settings.table, retention=3600), client


def test_a_claim_whose_answer_was_lost_is_still_ours(local: Backend) -> None:
    email = an_email(stored(local))
    store, client = _retrying_store(local)
    lost = LostAnswers(client, "UpdateItem")
    now = clock.now()

    claimed = store.claim(email.hint, now, now + 1000)

    assert lost.requests == 2
    assert claimed is not None
    assert claimed.status is Status.SENDING
    assert claimed == local.store.email(email.id)


def test_an_outcome_whose_answer_was_lost_is_recorded_once(local: Backend) -> None:
    email = an_email(stored(local))
    now = clock.now()
    claimed = local.store.claim(email.hint, now, now + 1000)
    assert claimed is not None
    store, client = _retrying_store(local)
    lost = LostAnswers(client, "UpdateItem")
    sent = delivery.conclude(claimed, an_attempt(claimed, Outcome.ACCEPTED), now, local.policy)

    recorded = store.advance(claimed, sent)

    assert lost.requests == 2
    assert recorded is not None
    assert recorded == local.store.email(email.id)


def test_a_batch_whose_answer_was_lost_is_accepted_once(local: Backend) -> None:
    store, client = _retrying_store(local)
    lost = LostAnswers(client, "TransactWriteItems")
    batch = a_batch()

    store.create(batch, CONTENT, [an_email(batch)], withdraw_at=None, idempotency=a_key(batch))

    assert lost.requests == 2
    assert local.store.batch(batch.id) == batch


def test_a_transaction_that_meets_another_one_is_tried_again(local: Backend) -> None:
    """DynamoDB refuses one of two that touch the same item at the same time."""
    store, client = _retrying_store(local)
    conflict = {
        "__type": "com.amazonaws.dynamodb.v20120810#TransactionCanceledException",
        "Message": "Transaction cancelled",
        "CancellationReasons": [{"Code": "TransactionConflict"}, {"Code": "None"}],
    }
    requests = answer_with(client, "TransactWriteItems", 400, conflict, times=2)
    batch = a_batch()

    store.create(batch, CONTENT, [an_email(batch)], withdraw_at=None, idempotency=a_key(batch))

    assert len(requests) == 3
    assert local.store.batch(batch.id) == batch


def test_a_transaction_that_meets_others_for_ever_is_given_up(local: Backend) -> None:
    store, client = _retrying_store(local)
    conflict = {
        "__type": "com.amazonaws.dynamodb.v20120810#TransactionCanceledException",
        "Message": "Transaction cancelled",
        "CancellationReasons": [{"Code": "TransactionConflict"}],
    }
    answer_with(client, "TransactWriteItems", 400, conflict, times=1000)

    with pytest.raises(StoreUnavailable, match="TransactionCanceled"):
        store.create(a_batch(), CONTENT, [], withdraw_at=None)


def test_what_dynamodb_leaves_out_of_a_batch_is_written_again(local: Backend) -> None:
    store, client = _retrying_store(local)
    batch = a_batch(total=2)
    emails = [an_email(batch, index) for index in range(2)]
    left = {"PutRequest": {"Item": items.email_item(emails[1], expires=clock.now())}}
    body = {"UnprocessedItems": {local.settings.table: [left]}}
    requests = answer_with(client, "BatchWriteItem", 200, body, times=1)

    store.add_emails(emails, batch.created_at)

    assert len(requests) == 2
    # The first answer was made up, so only what it left out has really been written.
    assert local.store.emails(batch.id) == [emails[1]]


def test_a_table_that_never_takes_all_of_a_batch_cannot_be_reached(
    local: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _: None)
    store, client = _retrying_store(local)
    email = an_email(a_batch())
    left = {"PutRequest": {"Item": items.email_item(email, expires=clock.now())}}
    body = {"UnprocessedItems": {local.settings.table: [left]}}
    answer_with(client, "BatchWriteItem", 200, body, times=1000)

    with pytest.raises(StoreUnavailable, match="ProvisionedThroughputExceeded"):
        store.add_emails([email], email.created_at)


def test_a_bucket_that_is_gone_is_a_store_that_cannot_be_reached(backend: Backend) -> None:
    """Unlike a content that is gone, which fails its emails."""
    batch = a_batch()
    backend.store.create(batch, LARGE, [an_email(batch)], withdraw_at=None)
    store = assembly.store(replace(backend.settings, bucket="another-bucket"))

    with pytest.raises(StoreUnavailable, match="NoSuchBucket"):
        store.batch_with_content(batch.id)


def answer_with(
    client: Any, operation: str, status: int, body: dict[str, Any], times: int
) -> list[str]:
    """Answer the first `times` requests of `client` in DynamoDB's place; notes all of them."""
    requests: list[str] = []

    def answer(request: Any, **_: Any) -> AWSResponse | None:
        requests.append(request.url)
        if len(requests) > times:
            return None
        return AWSResponse(request.url, status, {}, RawBody(json.dumps(body).encode()))

    client.meta.events.register(f"before-send.dynamodb.{operation}", answer)
    return requests


class RawBody(io.BytesIO):
    """A response's body as botocore reads it."""

    def stream(self, **_: Any) -> Iterator[bytes]:
        yield self.read()


CALLS: list[Callable[[Store], object]] = [
    lambda store: store.ping(),
    lambda store: store.batch("x"),
    lambda store: store.emails("x"),
    lambda store: list(store.due(0, 1)),
    lambda store: store.recent("demo", None, 1),
    lambda store: store.emails_to("demo", "pedro@example.org", None, 1),
    lambda store: store.batches(["x"]),
    lambda store: store.some_emails([EmailId("x", 0)]),
    lambda store: store.claim(Hint(EmailId("x", 0), 0, 1), 1, 2),
    lambda store: store.advance(an_email(a_batch()), an_email(a_batch())),
    lambda store: store.finish(a_batch()),
    lambda store: store.forestall("x", 1),
    lambda store: store.withdraw("x"),
    lambda store: store.add_emails([an_email(a_batch())], clock.now()),
    lambda store: store.create(a_batch(), CONTENT, [], withdraw_at=None),
]


@pytest.mark.parametrize("call", CALLS)
def test_a_store_that_cannot_be_reached_says_so(
    call: Callable[[Store], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    config = Config(retries={"mode": "standard", "total_max_attempts": 1})
    client = boto3.client("dynamodb", region_name="us-east-1", config=config)

    with pytest.raises(StoreUnavailable, match="DynamoDB"):
        call(Store(client, "table", retention=3600))


@pytest.mark.parametrize("call", CALLS)
def test_a_table_that_is_not_there_is_a_store_that_cannot_be_reached(
    call: Callable[[Store], object], local_aws: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", local_aws)
    client = boto3.client("dynamodb", region_name="us-east-1")

    with pytest.raises(StoreUnavailable, match="ResourceNotFound"):
        call(Store(client, "missing", retention=3600))


def test_dynamodb_removes_what_has_expired(local: Backend) -> None:
    """TTL, which moto does not have."""
    store = Store(local.dynamodb, local.settings.table, retention=0)
    batch = a_batch(created_at=clock.now() - 86_400_000)
    store.create(batch, CONTENT, [an_email(batch)], withdraw_at=None)

    wait_for(lambda: not local.items(), "TTL removes the batch and its email", seconds=90)
