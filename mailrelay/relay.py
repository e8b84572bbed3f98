"""The use cases of the API: accept a batch, show it, decide what no provider could say."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from ulid import ULID

from mailrelay import clock, delivery
from mailrelay.delivery import Policy
from mailrelay.message import Address, Batch, BatchSummary, Content, Email, EmailId, Status
from mailrelay.observation import BatchAccepted, EmailResent, EmailResolved, Observer
from mailrelay.queue import DeliveryQueue, QueueUnavailable
from mailrelay.settings import DAY
from mailrelay.store import (
    MAX_FIRST_EMAILS,
    BucketUnavailable,
    Idempotency,
    IdempotencyTaken,
    Store,
    StoreUnavailable,
)

log = structlog.get_logger(__name__)


class IdempotencyMismatch(Exception):
    """The Idempotency-Key was used before, with another body."""


class StillAccepting(Exception):
    """The first request with this Idempotency-Key is still under way."""


@dataclass(frozen=True, slots=True)
class Submission:
    """What a client asks for: one content, one or many recipients."""

    sender: Address
    destinations: tuple[Address, ...]
    subject: str
    content: Content
    chain: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """A client's Idempotency-Key, and what it was sent with."""

    key: str
    fingerprint: str
    """Equal for equal bodies."""

    @classmethod
    def of(cls, key: str, body: Mapping[str, Any]) -> IdempotencyKey:
        """A key that was sent with `body`, whose fields may come in any order."""
        canonical = json.dumps(body, sort_keys=True, separators=(",", ":"))
        return cls(key, hashlib.sha256(canonical.encode()).hexdigest())


@dataclass(frozen=True, slots=True)
class Accepted:
    """A batch that will be sent, whatever crashes from now on."""

    batch_id: str
    emails: tuple[tuple[EmailId, Address], ...]
    replayed: bool = False
    """Whether an earlier request with the same Idempotency-Key made it."""


@dataclass(frozen=True, slots=True)
class BatchView:
    """A batch as it is now, with one page of its emails."""

    batch: Batch
    counts: Counter[Status]
    emails: Sequence[Email]
    next_index: int | None
    """Where the next page begins."""


@dataclass(frozen=True, slots=True)
class RecentBatches:
    """A page of what a key has sent, newest first."""

    batches: Sequence[BatchSummary]
    next_cursor: str | None
    """What to ask for the next page with; None where there is none."""


@dataclass(frozen=True, slots=True)
class SentTo:
    """A page of what a key has sent to an address, newest first."""

    emails: Sequence[tuple[Email, Batch]]
    """Each with its batch. There may be fewer than asked for, or none, and more on the next page."""
    next_cursor: EmailId | None
    """As of `RecentBatches`."""


class Relay:
    """Accepts batches into the store and asks the queue for their delivery."""

    def __init__(
        self,
        store: Store,
        queue: DeliveryQueue,
        policy: Policy,
        observe: Observer,
        *,
        retention: float,
    ) -> None:
        """`retention` is in seconds."""
        self._store = store
        self._queue = queue
        self._policy = policy
        self._observe = observe
        # A record that outlived its batch could not say what the first call answered.
        self._idempotency_kept = int(min(DAY, retention))

    def accept(
        self,
        submission: Submission,
        key_name: str,
        idempotency_key: IdempotencyKey | None = None,
        request_id: str | None = None,
    ) -> Accepted:
        """Store every recipient, then ask for each one's delivery.

        `request_id` is what the logs call the request, on each line of its emails' way.

        Nothing is accepted where it raises `StoreUnavailable`, `ContentTooLarge`,
        `IdempotencyMismatch` or `StillAccepting`; the one exception is a store that took the
        batch, lost its answer and cannot be asked. A queue that cannot be reached is no error:
        the emails are stored and due, and the sweep enqueues them.
        """
        now = clock.now()
        batch_id = str(ULID.from_timestamp(now))
        record = None
        if idempotency_key is not None:
            key_hash = hashlib.sha256(idempotency_key.key.encode()).hexdigest()
            if used := self._store.idempotency(key_name, key_hash, now):
                return self._replay(used, idempotency_key)
            expires = now // 1000 + self._idempotency_kept
            record = Idempotency(
                key_name, key_hash, idempotency_key.fingerprint, batch_id, expires
            )
        try:
            emails = self._store_all(batch_id, submission, key_name, record, now, request_id)
        except IdempotencyTaken as taken:
            if idempotency_key is None:
                raise
            return self._replay(taken.record, idempotency_key)
        enqueued = self._enqueue(emails, batch_id=batch_id)
        self._observe(BatchAccepted(batch_id, key_name, len(emails), enqueued))
        return Accepted(batch_id, tuple((email.id, email.to) for email in emails))

    def _enqueue(self, emails: Sequence[Email], **ids: str) -> bool:
        """Whatever fails here, the emails are stored and due: the client must not send again."""
        try:
            self._queue.put(email.hint for email in emails)
        except QueueUnavailable as error:
            log.warning("what is stored waits for the sweep", **ids, error=error)
            return False
        except Exception as error:  # noqa: BLE001 - as above
            said = {**ids, "error": error, "exc_info": error}
            log.error("what is stored waits for the sweep", **said)
            return False
        return True

    def _store_all(
        self,
        batch_id: str,
        submission: Submission,
        key_name: str,
        record: Idempotency | None,
        now: int,
        request_id: str | None,
    ) -> list[Email]:
        emails = [
            Email(
                id=EmailId(batch_id, index),
                key_name=key_name,
                to=to,
                chain=submission.chain,
                status=Status.QUEUED,
                attempt=1,
                provider_index=0,
                cycle=0,
                due_at=now + self._policy.message_ttl,
                created_at=now,
                request_id=request_id,
            )
            for index, to in enumerate(submission.destinations)
        ]
        first, rest = emails[:MAX_FIRST_EMAILS], emails[MAX_FIRST_EMAILS:]
        batch = Batch(
            id=batch_id,
            key_name=key_name,
            sender=submission.sender,
            subject=submission.subject,
            chain=submission.chain,
            total=len(emails),
            created_at=now,
            ready=not rest,
        )
        try:
            self._store.create(
                batch,
                submission.content,
                first,
                withdraw_at=now + self._policy.lease if rest else None,
                idempotency=record,
            )
        except BucketUnavailable:
            raise  # The content comes first: nothing else was written.
        except StoreUnavailable:
            # Perhaps only the answer was lost.
            if self._store.forestall(batch_id, now):
                raise
        if rest:
            self._store_rest(batch, rest)
        return emails

    def _store_rest(self, batch: Batch, rest: Sequence[Email]) -> None:
        """Complete a batch that is too large for one transaction, or withdraw it."""
        try:
            self._store.add_emails(rest, batch.created_at)
            if self._store.finish(batch):
                return
            error = StoreUnavailable("DynamoDB took longer than a lease to store the batch")
        except StoreUnavailable as unavailable:
            error = unavailable
        if self._withdraw(batch.id):
            raise error

    def _withdraw(self, batch_id: str) -> bool:
        """False if the batch is ready after all: the answer that said so was lost.

        True as well where the store cannot be asked.
        """
        try:
            return self._store.withdraw(batch_id)
        except StoreUnavailable as error:
            log.warning(
                "a batch is left for the sweep to withdraw", batch_id=batch_id, error=error
            )
            return True

    def _replay(self, record: Idempotency, idempotency_key: IdempotencyKey) -> Accepted:
        if record.fingerprint != idempotency_key.fingerprint:
            raise IdempotencyMismatch
        batch = self._store.batch(record.batch_id)
        if batch is None or not batch.ready:
            raise StillAccepting
        emails = self._store.emails(batch.id)
        return Accepted(batch.id, tuple((email.id, email.to) for email in emails), replayed=True)

    def email(self, email_id: EmailId, key_name: str) -> Email | None:
        """An email of this API key's; None where there is none, or its batch is not accepted."""
        email = self._store.email(email_id)
        if email is None or email.key_name != key_name:
            return None
        if not email.attempts and self.accepted_batch(email_id.batch_id, key_name) is None:
            return None
        return email

    def batch(self, batch_id: str, key_name: str, start: int, limit: int) -> BatchView | None:
        """A batch of this API key's, with `limit` emails from the index `start` on."""
        batch = self.accepted_batch(batch_id, key_name)
        if batch is None:
            return None
        emails = self._store.emails(batch_id)
        end = start + limit
        return BatchView(
            batch=batch,
            counts=Counter(email.status for email in emails),
            emails=emails[start:end],
            next_index=end if end < len(emails) else None,
        )

    def recent(self, key_name: str, cursor: str | None, limit: int) -> RecentBatches:
        """The batches of this API key's, `limit` of them, newest first, from `cursor` on.

        Complete ones alone. One is there a moment after it was accepted, until TTL removes it.
        """
        found = self._store.recent(key_name, cursor, limit + 1)
        batches = found[:limit]
        return RecentBatches(batches, batches[-1].id if len(found) > limit else None)

    def to(self, key_name: str, address: str, cursor: EmailId | None, limit: int) -> SentTo:
        """What this API key has sent to an address, newest first, from `cursor` on.

        `address` is in its normal form (`addresses.normalize`); the case of its letters does not
        matter. `limit` is at most 25.
        """
        found = self._store.emails_to(key_name, address, cursor, limit + 1)
        ids = found[:limit]
        batches = self._store.batches({email_id.batch_id for email_id in ids})
        emails = [
            (email, batches[email.id.batch_id])
            for email in self._store.some_emails(ids)
            # It is written before its batch is known to be complete.
            if email.id.batch_id in batches and batches[email.id.batch_id].ready
        ]
        return SentTo(emails, ids[-1] if len(found) > limit else None)

    def resend(self, email_id: EmailId, key_name: str) -> Email | None:
        """Have an email of this API key's sent again; None where `email` finds none.

        Raises `NotApplicable`. A queue that cannot be reached is no error, as in `accept`.
        """
        while (email := self.email(email_id, key_name)) is not None:
            expires = self._store.expiry(email_id)
            if expires is None:
                break
            again = delivery.resend(email, expires * 1000, clock.now(), self._policy)
            resent = self._store.advance(email, again, alone=True)
            if resent is not None:
                enqueued = self._enqueue([resent], email_id=str(email_id))
                self._observe(
                    EmailResent(
                        email_id, resent.request_id, email.status, resent.attempt, enqueued
                    )
                )
                return resent
        return None

    def resolve(self, email_id: EmailId, key_name: str, status: Status) -> Email | None:
        """Record that an `unknown` email was `sent`, or `failed`; None where `email` finds none.

        Raises `NotApplicable`.
        """
        while (email := self.email(email_id, key_name)) is not None:
            resolved = delivery.resolve(email, status, clock.now())
            if resolved is email:
                return email
            recorded = self._store.advance(email, resolved, alone=True)
            if recorded is not None:
                self._observe(EmailResolved(email_id, recorded.request_id, status))
                return recorded
        return None

    def accepted_batch(self, batch_id: str, key_name: str) -> Batch | None:
        """A batch of this API key's without its emails; None where there is none, or not yet."""
        batch = self._store.batch(batch_id)
        return batch if batch and batch.ready and batch.key_name == key_name else None
