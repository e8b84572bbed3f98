"""One attempt: claim the email, ask one provider, record what came of it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping

from cachetools import LRUCache, cachedmethod
from tenacity import (
    Retrying,
    retry_if_exception_type,
    stop_after_delay,
    stop_all,
    stop_when_event_set,
    wait_random_exponential,
)

from mailrelay import clock, delivery
from mailrelay.delivery import Policy
from mailrelay.message import Attempt, Batch, Content, Email, Hint, Outcome, Status
from mailrelay.providers import Answer, Envelope, Provider
from mailrelay.providers.headers import ascii_domain
from mailrelay.store import Store, StoreUnavailable

log = logging.getLogger(__name__)

_CACHED_CHARACTERS = 32 * 1024 * 1024
"""How much content a process keeps, so that a batch's is read once and not for each recipient."""


class _NotReady(Exception):
    """The batch is not complete, or was withdrawn."""


class Courier:
    """Sends emails, many threads at once."""

    def __init__(self, store: Store, providers: Mapping[str, Provider], policy: Policy) -> None:
        self._store = store
        self._providers = providers
        self._policy = policy
        self._cache: LRUCache[str, tuple[Batch, Content | None]] = LRUCache(
            _CACHED_CHARACTERS, _size
        )
        self._cache_lock = threading.Lock()
        self._stopping = threading.Event()

    def stop(self) -> None:
        """The process is ending: hold nothing for longer than a lease."""
        self._stopping.set()

    def deliver(self, hint: Hint) -> Hint | None:
        """Make the attempt that `hint` asks for, unless it is void.

        The hint for the next provider if this one failed. Raises `StoreUnavailable` where
        nothing was sent; the email is due later all the same.
        """
        try:
            # Before the claim: an email must not be held while its content cannot be had.
            batch, content = self._batch(hint.email_id.batch_id)
        except _NotReady:
            self._drop(hint)
            return None
        now = clock.now()
        claimed = self._store.claim(hint, now, now + self._policy.lease)
        if claimed is None:
            log.info("%s attempt %d: void", hint.email_id, hint.attempt)
            return None
        attempt = self._attempt(claimed, batch, content)
        after = delivery.conclude(claimed, attempt, clock.now(), self._policy)
        log.info(
            "%s attempt %d: %s %s (%s) in %s ms, now %s",
            *(claimed.id, attempt.number, attempt.provider, attempt.outcome),
            *(attempt.code, attempt.duration_ms, after.status),
        )
        recorded = self._record(claimed, after)
        return after.hint if recorded and after.status is Status.QUEUED else None

    def _attempt(self, email: Email, batch: Batch, content: Content | None) -> Attempt:
        started_at, started = clock.now(), time.monotonic()
        answer = self._ask(email, batch, content)
        return Attempt(
            number=email.attempt,
            provider=email.provider,
            outcome=answer.outcome,
            code=answer.code,
            reason=answer.reason,
            started_at=started_at,
            duration_ms=round((time.monotonic() - started) * 1000),
            message_id=answer.message_id,
        )

    def _ask(self, email: Email, batch: Batch, content: Content | None) -> Answer:
        if content is None:
            return Answer(Outcome.REJECTED, "content_missing", "the content is no longer stored")
        provider = self._providers.get(email.provider)
        if provider is None:
            return Answer(Outcome.UNAVAILABLE, "not_configured", "not in EMAIL_PROVIDERS any more")
        envelope = Envelope(
            # The same on every attempt, so that mailboxes can fold doubles.
            message_id=f"<{email.id}@{ascii_domain(batch.sender.email).rpartition('@')[2]}>",
            sender=batch.sender,
            to=email.to,
            subject=batch.subject,
            content=content,
        )
        try:
            return provider.send(envelope)
        except Exception as error:  # noqa: BLE001 - whatever a provider's code does, we go on
            # Only the type: the text may hold an address.
            log.error("provider %s raised %s", email.provider, type(error).__name__)
            return Answer(Outcome.UNKNOWN, type(error).__name__, "an error in the provider's code")

    def _record(self, claimed: Email, after: Email) -> bool:
        """Write down how the attempt ended, however long DynamoDB is away.

        An answer that is not written down is lost, and the email perhaps sent twice: so this
        goes on until it is written, and only a process that is ending gives up after a lease.
        """
        writing = Retrying(
            retry=retry_if_exception_type(StoreUnavailable),
            wait=wait_random_exponential(multiplier=0.1, max=2),
            stop=stop_all(
                stop_when_event_set(self._stopping), stop_after_delay(self._policy.lease / 1000)
            ),
            before_sleep=lambda state: log.warning(
                "%s: not written down yet, try %d", claimed.id, state.attempt_number
            ),
            reraise=True,
        )
        return writing(self._store.advance, claimed, after) is not None

    @cachedmethod(lambda self: self._cache, lock=lambda self: self._cache_lock)
    def _batch(self, batch_id: str) -> tuple[Batch, Content | None]:
        found = self._store.batch_with_content(batch_id)
        if found is None or not found[0].ready:
            raise _NotReady
        return found

    def _drop(self, hint: Hint) -> None:
        """Nothing may be sent of this batch; an email without a batch is removed."""
        log.warning("%s: its batch is not there to be sent", hint.email_id)
        if self._store.batch(hint.email_id.batch_id) is None:
            email = self._store.email(hint.email_id)
            if email is not None:
                self._store.discard(email)


def _size(entry: tuple[Batch, Content | None]) -> int:
    """About how many characters an entry of the cache holds."""
    content = entry[1]
    return 1000 + (len(content.plain or "") + len(content.html or "") if content else 0)
