"""Changes of many threads in one request, on a local AWS: moto knows no conditions in PartiQL."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from mailrelay import assembly, aws, clock, delivery, items, provision
from mailrelay.message import Content, Email, Hint, Outcome, Status
from mailrelay.providers import Answer
from mailrelay.settings import Settings, load
from mailrelay.store import Store
from mailrelay.table import Change, StoreUnavailable, Table
from tests.support.aws import AWS_CREDENTIALS
from tests.support.couriers import a_courier
from tests.support.fakes import FakeProvider
from tests.support.processes import unused_name
from tests.support.records import CONTENT, a_batch, an_attempt, an_email
from tests.support.threads import at_once

OPERATIONS = ("UpdateItem", "BatchGetItem", "BatchExecuteStatement")


class Local:
    """A store on the local AWS, and the requests to DynamoDB that changed or read emails."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.client = aws.dynamodb(settings)
        self.store = Store(self.client, settings.table, retention=86_400)
        self.table = Table(self.client, settings.table)
        self.requests: list[str] = []
        for operation in OPERATIONS:
            self.client.meta.events.register(f"before-call.dynamodb.{operation}", self._note)

    def _note(self, model: Any, **_: Any) -> None:
        self.requests.append(model.name)

    def emails(self, total: int) -> list[Email]:
        """Queued emails of one batch."""
        batch = a_batch(total=total)
        emails = [an_email(batch, index) for index in range(total)]
        self.store.create(batch, CONTENT, emails, withdraw_at=None)
        return emails

    def claim(self, hint: Hint) -> Email | None:
        return self.store.claim(hint, clock.now(), clock.now() + 30_000)


@pytest.fixture
def local(local_aws: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Local]:
    monkeypatch.setenv("AWS_ENDPOINT_URL", local_aws)
    name = unused_name("table")
    settings = load({**AWS_CREDENTIALS, "MAILRELAY_TABLE": name, "MAILRELAY_QUEUE_PREFIX": name})
    list(provision.provision(settings))
    return Local(settings)


def test_many_claims_share_requests_and_each_gets_its_own_email(local: Local) -> None:
    emails = local.emails(60)

    claimed = at_once(local.claim, [email.hint for email in emails])

    assert [found.id for found in claimed] == [email.id for email in emails]
    assert all(found.status is Status.SENDING for found in claimed)
    assert [found.to for found in claimed] == [email.to for email in emails]
    assert claimed == local.store.emails(emails[0].id.batch_id)
    assert len(local.requests) < 30


def test_of_many_claims_of_one_email_one_gets_it(local: Local) -> None:
    (email,) = local.emails(1)

    claimed = at_once(local.claim, [email.hint] * 20)

    assert len([found for found in claimed if found is not None]) == 1


def test_a_void_claim_among_others_harms_none(local: Local) -> None:
    emails = local.emails(10)
    gone = replace(emails[0], id=replace(emails[0].id, index=5000))
    hints = [emails[1].hint._replace(attempt=7), gone.hint, *(e.hint for e in emails[2:])]

    claimed = at_once(local.claim, hints)

    assert claimed[:2] == [None, None]
    assert [found.id for found in claimed[2:]] == [email.id for email in emails[2:]]


def test_many_outcomes_are_written_together_and_a_late_one_is_refused(local: Local) -> None:
    claimed = [local.claim(email.hint) for email in local.emails(12)]
    sending = [email for email in claimed if email is not None]
    stale = replace(sending[0], version="somebody else's")
    policy = assembly.policy(local.settings)
    local.requests.clear()

    def conclude(email: Email) -> Email | None:
        outcome = Outcome.ACCEPTED if email.id.index % 2 else Outcome.RETRY
        after = delivery.conclude(email, an_attempt(email, outcome), clock.now(), policy)
        return local.store.advance(email, after)

    written = at_once(conclude, [stale, *sending[1:]])

    assert written[0] is None
    assert written[1:] == local.store.emails(sending[0].id.batch_id)[1:]
    assert {email.status for email in written[1:]} == {Status.SENT, Status.QUEUED}
    # What is sent is in the due index no more.
    open_ = {email.id for email in written[1:] if email.due_at is not None}
    due = {e.id for shard in range(8) for page in local.store.due(shard, 2**50) for e in page}
    assert due == open_ | {stale.id}
    assert len(local.requests) < 12


def changes_of(emails: Sequence[Email], **changes: Any) -> list[Change]:
    return [
        Change(
            key=items.email_key(email.id),
            sets=items.to_item({"status": "sending", "version": f"v{email.id}"}),
            where=items.to_item({"status": "queued"}),
            **changes,
        )
        for email in emails
    ]


@pytest.mark.parametrize("reads", [True, False])
def test_changes_made_twice_are_a_success_twice(local: Local, reads: bool) -> None:
    """Their answer was lost, and botocore sent them again."""
    changes = changes_of(local.emails(5), reads=reads)

    first = local.table._change_many(changes)
    again = local.table._change_many(changes)

    assert None not in first
    assert [item["version"] for item in again] == [change.sets["version"] for change in changes]


def test_a_statement_that_dynamodb_does_not_serve_fails_alone(
    local: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute = local.client.batch_execute_statement

    def throttle_the_second(**kwargs: Any) -> Any:
        answer = execute(**kwargs)
        answer["Responses"][1] = {"Error": {"Code": "ThrottlingError", "Message": "slow down"}}
        return answer

    monkeypatch.setattr(local.client, "batch_execute_statement", throttle_the_second)

    results = local.table._change_many(changes_of(local.emails(3)))

    assert isinstance(results[1], StoreUnavailable)
    assert [isinstance(results[index], dict) for index in (0, 2)] == [True, True]


def test_claims_that_cannot_be_read_are_not_made(
    local: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    emails = local.emails(3)
    left = {local.settings.table: {"Keys": [items.email_key(emails[0].id)]}}
    answer = {"Responses": {}, "UnprocessedKeys": left}
    monkeypatch.setattr(local.client, "batch_get_item", lambda **_: answer)

    with pytest.raises(StoreUnavailable, match="ProvisionedThroughputExceeded"):
        local.table._change_many(changes_of(emails, reads=True))

    assert {email.status for email in local.store.emails(emails[0].id.batch_id)} == {Status.QUEUED}


def test_a_request_that_is_wrong_is_our_own_fault_and_not_the_stores(local: Local) -> None:
    """A request that DynamoDB refuses must not look like an outage."""
    with pytest.raises(ClientError, match="ValidationException"):
        local.table.update({"pk": {"S": "x"}}, "SET a = :a", "b = :a", {":a": {"S": "x"}}, {})


def test_large_contents_are_sent_a_few_at_a_time(local: Local) -> None:
    """A request holds several copies of its content: memory is bounded by their number."""
    batch = a_batch(total=12)
    emails = [an_email(batch, index) for index in range(12)]
    local.store.create(batch, Content(plain="x" * 2_000_000), emails, withdraw_at=None)
    lock, most, now = threading.Lock(), 0, 0
    others = threading.Event()

    def send() -> Answer:
        nonlocal most, now
        with lock:
            now += 1
            most = max(most, now)
            if now == 4:
                others.set()
        assert others.wait(10)
        with lock:
            now -= 1
        return Answer(Outcome.ACCEPTED, "200")

    courier = a_courier(local.store, {"mailgun": FakeProvider(send)}, local.settings)
    at_once(courier.deliver, [email.hint for email in emails])

    assert most == 4
    assert {email.status for email in local.store.emails(batch.id)} == {Status.SENT}
