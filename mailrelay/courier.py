"""One attempt: claim the email, ask one provider, record what came of it."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import structlog
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
from mailrelay.breaker import Breaker
from mailrelay.delivery import Policy
from mailrelay.message import Attempt, Batch, Content, Email, EmailId, Hint, Outcome, Status
from mailrelay.observation import AttemptEnded, EmailPutOff, Observer
from mailrelay.providers import Answer, Envelope, Provider
from mailrelay.providers.headers import ascii_domain
from mailrelay.rates import Rates, Turn
from mailrelay.store import Store, StoreUnavailable

log = structlog.get_logger(__name__)

_CACHED_CHARACTERS = 32 * 1024 * 1024
"""How much content a process keeps, so that a batch's is read once and not for each recipient."""


_LARGE = 1024 * 1024
"""Characters from which on a content is large: a request holds several copies of it."""

_LARGE_AT_ONCE = 4
"""Large contents that a process sends at the same time, so that its memory is bounded."""

_SHORTEST_WAIT = 5000
"""Milliseconds that an email waits at least, on average, which is over its provider's rate."""


_OVER_ITS_RATE = Answer(
    Outcome.RETRY, "over_its_rate", "waited too long for the provider's rate", particular=True
)
"""Not asked: an email that waited on would be removed before it is over."""

_NOTHING = (None, False)
"""No hint is left to follow: the email is over, somebody else's, or due later."""


class _NotReady(Exception):
    """The batch is not complete, or was withdrawn."""


class Courier:
    """Sends emails, many threads at once."""

    def __init__(
        self,
        store: Store,
        providers: Mapping[str, Provider],
        breaker: Breaker,
        rates: Rates,
        policy: Policy,
        observe: Observer,
    ) -> None:
        self._store = store
        self._providers = providers
        self._breaker = breaker
        self._rates = rates
        self._policy = policy
        self._observe = observe
        self._cache: LRUCache[str, tuple[Batch, Content | None]] = LRUCache(
            _CACHED_CHARACTERS, _size
        )
        self._cache_turn = threading.Condition()
        self._large = threading.Semaphore(_LARGE_AT_ONCE)
        self._stopping = threading.Event()

    def stop(self) -> None:
        """The process is ending: hold nothing for longer than a lease."""
        self._stopping.set()

    def deliver(self, hint: Hint) -> Hint | None:
        """Make the attempt that `hint` asks for, unless it is void.

        The hint for the next provider if this one failed. A provider that is left alone is passed
        over, and the next one asked right away. A process that is ending returns `hint` itself, for
        another one. Raises `StoreUnavailable` where the claim cannot be made, or a process that is
        ending cannot write down what came of it; the email is due later all the same.
        """
        if self._stopping.is_set():
            return hint
        try:
            # Before the claim: an email must not be held while its content cannot be had.
            batch, content = self._batch(hint.email_id.batch_id)
        except _NotReady:
            self._drop(hint)
            return None
        with self._large if _size((batch, content)) > _LARGE else nullcontext():
            following: Hint | None = hint
            goes_on = True
            while following is not None and goes_on:
                following, goes_on = self._step(following, batch, content)
            return following

    def _step(self, hint: Hint, batch: Batch, content: Content | None) -> tuple[Hint | None, bool]:
        """Ask the provider whose turn it is, or pass it over.

        The hint for what is to be done then, if anything is, and whether to do it here and now.
        """
        if not 0 <= hint.provider_index < len(batch.chain):
            _say_void(hint)
            return _NOTHING
        provider = batch.chain[hint.provider_index]
        passes = self._breaker.passes(provider)
        turn = self._rates.wait(provider, self._stopping) if passes else Turn.COME
        if turn is Turn.STOPPED:
            return hint, False
        now = clock.now()
        if turn is Turn.TOO_FAR and now - batch.created_at < self._policy.rate_patience:
            self._put_off(hint, batch)
            return _NOTHING
        claimed = self._store.claim(hint, now, now + self._policy.lease)
        if claimed is None:
            _say_void(hint)
            return _NOTHING
        circuit = self._breaker.enter(provider) if passes else None
        if circuit is None:
            return _following(self._pass_over(claimed)), True
        attempt, answer = self._attempt(claimed, batch, content, turn)
        # First of all: an answer that is not written down is lost.
        recorded = self._record(claimed, attempt)
        self._breaker.leave(circuit, answer)
        self._tell(claimed, attempt, recorded)
        return _following(recorded), False

    def _put_off(self, hint: Hint, batch: Batch) -> None:
        """The provider's rate is used up: have the email come back later.

        The longer it has been waiting, the later: a long queue must not turn in circles.
        """
        now = clock.now()
        wait = max(_SHORTEST_WAIT, min((now - batch.created_at) // 2, self._policy.message_ttl))
        wait = round(wait * random.uniform(0.5, 1.5))
        self._store.put_off(hint, now + wait)
        self._observe(EmailPutOff(hint.email_id, batch.chain[hint.provider_index], wait))

    def _pass_over(self, claimed: Email) -> Email | None:
        """Pass over all whose turn it is one after the other and who are left alone, in one write:
        while all are, that is all that an email costs."""
        after = self._without(claimed)
        while after.status is Status.QUEUED and not self._breaker.passes(after.provider):
            after = self._without(after)
        recorded = self._write(claimed.id, self._store.advance, claimed, after)
        for attempt in after.attempts:
            if attempt.number >= claimed.attempt:
                self._tell(claimed, attempt, recorded)
        return recorded

    def _without(self, email: Email) -> Email:
        """The email without its provider, whose turn it is, having been asked."""
        return delivery.pass_over(
            email,
            self._breaker.why(email.provider),
            clock.now(),
            self._breaker.again_at(email.chain),
            self._policy,
            random.random(),
            undecided=self._breaker.undecided(email.chain),
        )

    def _tell(self, claimed: Email, attempt: Attempt, recorded: Email | None) -> None:
        self._observe(
            AttemptEnded(
                claimed.id,
                attempt,
                status=recorded.status if recorded else None,
                accepted_ago=clock.now() - claimed.created_at,
            )
        )

    def _attempt(
        self, email: Email, batch: Batch, content: Content | None, turn: Turn
    ) -> tuple[Attempt, Answer]:
        started_at, started = clock.now(), time.monotonic()
        answer = _OVER_ITS_RATE if turn is Turn.TOO_FAR else self._ask(email, batch, content)
        attempt = Attempt(
            number=email.attempt,
            provider=email.provider,
            outcome=answer.outcome,
            code=answer.code,
            reason=answer.reason,
            started_at=started_at,
            duration_ms=round((time.monotonic() - started) * 1000),
            message_id=answer.message_id,
        )
        return attempt, answer

    def _ask(self, email: Email, batch: Batch, content: Content | None) -> Answer:
        held = clock.now() - (email.last_attempt_at or email.created_at)
        if held > self._policy.lease - self._policy.longest_send:
            # The rest of the lease is too short for a request: the sweep would ask somebody else
            # while it is under way.
            said = "claiming the email took too long"
            return Answer(Outcome.RETRY, "late", said, particular=True)
        if content is None:
            said = "the content is no longer stored"
            return Answer(Outcome.REJECTED, "content_missing", said, particular=True)
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
        except Exception as error:
            # Whatever a provider's code does, we go on.
            log.error(
                "a provider's code failed",
                email_id=str(email.id),
                provider=email.provider,
                error=error,
                exc_info=error,
            )
            # Only the type: the text may hold an address.
            kind = type(error).__name__
            said = "an error in the provider's code"
            return Answer(Outcome.UNKNOWN, kind, said, particular=True)

    def _record(self, claimed: Email, attempt: Attempt) -> Email | None:
        """Write down how the attempt ended, however long DynamoDB is away.

        An answer that is not written down is lost, and the email perhaps sent twice: so this
        goes on until it is written, and only a process that is ending gives up after a lease.
        None where the email is no longer ours, and the attempt changes nothing about it.
        """
        after = delivery.conclude(claimed, attempt, clock.now(), self._policy)
        recorded = self._write(claimed.id, self._store.advance, claimed, after)
        if recorded is None and attempt.outcome is Outcome.ACCEPTED:
            return self._write(claimed.id, self._record_late, claimed.id, attempt)
        return recorded

    def _write(
        self, email_id: EmailId, write: Callable[..., Email | None], *what: Any
    ) -> Email | None:
        def say(tries: int) -> None:
            log.warning("an outcome is not written down yet", email_id=str(email_id), tries=tries)

        try:
            return write(*what)
        except StoreUnavailable:
            say(1)
        trying = Retrying(
            retry=retry_if_exception_type(StoreUnavailable),
            wait=wait_random_exponential(multiplier=0.1, max=2),
            stop=stop_all(
                stop_when_event_set(self._stopping), stop_after_delay(self._policy.lease / 1000)
            ),
            before_sleep=lambda state: say(state.attempt_number + 1),
            reraise=True,
        )
        return trying(write, *what)

    def _record_late(self, email_id: EmailId, attempt: Attempt) -> Email | None:
        """The sweep took the email for abandoned, and a provider has accepted it."""
        while (email := self._store.email(email_id)) is not None:
            if email.status is Status.SENT:
                return email
            if recorded := self._store.advance(email, delivery.accepted_late(email, attempt)):
                return recorded
        return None

    # A condition, and no lock: threads that want the same content wait for the one that reads it.
    @cachedmethod(lambda self: self._cache, condition=lambda self: self._cache_turn)
    def _batch(self, batch_id: str) -> tuple[Batch, Content | None]:
        found = self._store.batch_with_content(batch_id)
        if found is None or not found[0].ready:
            raise _NotReady
        return found

    def _drop(self, hint: Hint) -> None:
        """Nothing may be sent of this batch; an email without a batch is removed."""
        log.warning("an email's batch is not there to be sent", email_id=str(hint.email_id))
        if self._store.batch(hint.email_id.batch_id) is None:
            email = self._store.email(hint.email_id)
            if email is not None:
                self._store.discard(email)


def _say_void(hint: Hint) -> None:
    log.info("a message is void", email_id=str(hint.email_id), attempt=hint.attempt)


def _following(email: Email | None) -> Hint | None:
    """What to do for an email that was ours, if it is not over."""
    return email.hint if email is not None and email.status is Status.QUEUED else None


def _size(entry: tuple[Batch, Content | None]) -> int:
    """About how many characters an entry of the cache holds."""
    content = entry[1]
    if content is None:
        return 1000
    headers = sum(len(name) + len(value) for name, value in content.headers.items())
    return 1000 + len(content.plain or "") + len(content.html or "") + headers
