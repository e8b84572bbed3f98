"""The rules: given an email and what happened to it, what follows. Pure, no I/O.

    queued ──claim──▶ sending ──accepted──▶ sent
      ▲                  │ rejected ───────────────────────────────▶ failed
      │                  │ retry, unavailable; the chain has more ─▶ queued for the next provider
      │                  │ retry, unavailable; the chain is used up ▶ deferred, at last failed
      │                  │ nobody asked, all are left alone ───────▶ deferred, uncounted
      │                  └ unknown ── allow: as retry ── avoid ────▶ unknown
      ├── wake: deferred and due; queued and its message gone; sending and its lease over
      └── resend, by a person: unknown, failed, deferred
          resolve, by a person: unknown ─▶ sent or failed

An email that is not final and not `unknown` always has a `due_at`: whatever gets lost, somebody
looks at it again then. That is the whole of recovery.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import accumulate

from mailrelay.message import MAX_ATTEMPTS, PASSED_OVER, Attempt, Email, Outcome, Status

LONGEST_WAIT = 900_000
"""Milliseconds that an email waits at most until it looks again whether a provider may be asked."""


@dataclass(frozen=True, slots=True)
class Policy:
    """The settings that the rules depend on; times in milliseconds."""

    message_ttl: int
    """How long a message can live in SQS: after that a queued email's message is gone."""
    lease: int
    """How long a worker may hold an email."""
    longest_send: int
    """How long one request to a provider may take, connecting included; less than the lease."""
    retry_schedule: tuple[int, ...]
    """From each exhausted chain to its next start; after the last the email fails."""
    longest_life: int
    """How long an email may be open; less than it is kept."""
    rate_patience: int
    """How long it may wait for its provider's rate before that."""
    avoid_duplicates: bool
    """After an unanswered request: stop as `unknown` rather than risk a second email."""


def conclude(email: Email, attempt: Attempt, now: int, policy: Policy) -> Email:
    """The attempt that was under way has ended."""
    ended = replace(email, attempts=(*email.attempts, attempt))
    if attempt.outcome is Outcome.ACCEPTED:
        return replace(ended, status=Status.SENT, due_at=None)
    if attempt.outcome is Outcome.REJECTED:
        return replace(ended, status=Status.FAILED, due_at=None)
    if attempt.outcome is Outcome.UNKNOWN and policy.avoid_duplicates:
        return replace(ended, status=Status.UNKNOWN, due_at=None)
    return _next_provider(ended, now, policy)


def pass_over(
    email: Email,
    reason: str,
    now: int,
    again_at: int,
    policy: Policy,
    jitter: float,
    *,
    undecided: bool,
) -> Email:
    """The provider whose turn it is is left alone: the next one's turn, and no request.

    Where so are all of the chain, the email waits for the first that may be asked again, at
    `again_at`, or up to twice as long, by `jitter` (0 to 1), so that not all come back at once.
    Nobody was asked, so the chain was not used up; but the retry schedule runs on meanwhile. Where
    that is over, the email has failed, unless it has not waited yet, or it is `undecided` whether
    one of them is well again: of many emails that come back together one asks, and it is not for
    the others to fail meanwhile.
    """
    passed = Attempt(
        number=email.attempt,
        provider=email.provider,
        outcome=Outcome.UNAVAILABLE,
        code=PASSED_OVER,
        reason=reason,
        started_at=now,
        duration_ms=None,
    )
    ended = replace(email, attempts=(*email.attempts, passed))
    chain = len(email.chain)
    this_time = ended.attempts[-email.provider_index - 1 :]
    if len(this_time) < chain or not all(attempt.passed_over for attempt in this_time):
        return _next_provider(ended, now, policy)
    starts = list(accumulate(policy.retry_schedule, initial=email.started_at))
    cycle = max(email.cycle, sum(start <= now for start in starts) - 1)
    over, waited = cycle == len(policy.retry_schedule), _waited(ended)
    if over and waited and not undecided:
        return replace(ended, status=Status.FAILED, due_at=None)
    # An outage must not make its item grow.
    before = ended.attempts[: -2 * chain if waited else -chain]
    wait = min(max(again_at - now, 0), LONGEST_WAIT / 2) * (1 + jitter)
    return replace(
        ended,
        status=Status.DEFERRED,
        attempt=email.attempt + 1,
        provider_index=0,
        cycle=cycle,
        due_at=now + round(wait),
        attempts=(*before, *this_time),
    )


def accepted_late(email: Email, attempt: Attempt) -> Email:
    """An attempt that was counted as abandoned turns out to have been accepted.

    Its worker was away for longer than its lease. Whatever has become of the email since, it is
    sent: asking anybody else would write to its recipient twice.
    """
    others = [other for other in email.attempts if other.number != attempt.number]
    attempts = tuple(sorted([*others, attempt], key=lambda each: each.number))
    return replace(email, status=Status.SENT, due_at=None, attempts=attempts, resolved_at=None)


def _next_provider(email: Email, now: int, policy: Policy) -> Email:
    if email.provider_index + 1 < len(email.chain):
        return replace(
            email,
            status=Status.QUEUED,
            attempt=email.attempt + 1,
            provider_index=email.provider_index + 1,
            due_at=now + policy.message_ttl,
        )
    if email.cycle < len(policy.retry_schedule):
        due_at = now + policy.retry_schedule[email.cycle]
        if _waited(email):
            # The schedule ran on meanwhile.
            start = email.started_at + sum(policy.retry_schedule[: email.cycle + 1])
            due_at = max(start, now)
        return replace(
            email,
            status=Status.DEFERRED,
            attempt=email.attempt + 1,
            provider_index=0,
            cycle=email.cycle + 1,
            due_at=due_at,
        )
    return replace(email, status=Status.FAILED, due_at=None)


def _waited(email: Email) -> bool:
    """Whether nobody was asked the last time that the chain was gone through before this time."""
    chain = len(email.chain)
    before = email.attempts[-2 * chain : -chain]
    return len(before) == chain and all(attempt.passed_over for attempt in before)


def wake(email: Email, now: int, policy: Policy) -> Email:
    """The email is due: its message is gone, its time has come, or its worker is.

    The email is `queued` afterwards if it needs a new message.
    """
    if email.status is Status.SENDING:
        return conclude(email, _abandoned(email), now, policy)
    return replace(email, status=Status.QUEUED, due_at=now + policy.message_ttl)


def _abandoned(email: Email) -> Attempt:
    """The attempt of a worker that never said how it ended: the request may have gone out."""
    return Attempt(
        number=email.attempt,
        provider=email.provider,
        outcome=Outcome.UNKNOWN,
        code="abandoned",
        reason="the worker stopped before it could say how the attempt ended",
        started_at=email.last_attempt_at or email.created_at,
        duration_ms=None,
    )


def retries(email: Email) -> int:
    """How many attempts have failed; one that was not made has not."""
    return sum(
        attempt.outcome is not Outcome.ACCEPTED and not attempt.passed_over
        for attempt in email.attempts
    )


def acceptance(email: Email) -> Attempt | None:
    """The attempt that a provider accepted: by its answer, or else by what a person found there."""
    accepted = (each for each in email.attempts if each.outcome is Outcome.ACCEPTED)
    by_a_person = email.status is Status.SENT and email.resolved_at is not None
    return next(accepted, email.attempts[-1] if by_a_person else None)


def last_error(email: Email) -> Attempt | None:
    """The attempt that ended or last delayed the email; None once it is sent, or untried."""
    if email.status is Status.SENT or not email.attempts:
        return None
    return email.attempts[-1]


# What a person may decide

RESENDABLE = (Status.UNKNOWN, Status.FAILED, Status.DEFERRED)
"""What `resend` takes."""


class NotApplicable(Exception):
    """What a person asks for cannot be done to the email as it is; says why."""


def resend(email: Email, expires_at: int, now: int, policy: Policy) -> Email:
    """The chain begins again at once, with the whole retry schedule before it.

    Of an `unknown` email this says that a second one is better than none. `expires_at` is when
    TTL may remove the email: it must be over by then, or it would be lost. Raises `NotApplicable`.
    """
    if email.status not in RESENDABLE:
        raise NotApplicable(
            f"The email is {email.status}; resend takes one that is unknown, failed or deferred."
        )
    more = len(email.chain) * (len(policy.retry_schedule) + 1)
    if len(email.attempts) + more > MAX_ATTEMPTS:
        raise NotApplicable(
            f"The email has {len(email.attempts)} attempts and may need {more} more, which is over"
            f" the {MAX_ATTEMPTS} that are kept of one: send it as a new email."
        )
    if now + policy.longest_life > expires_at:
        raise NotApplicable(
            f"The email will be removed in {_hours(max(0, expires_at - now))}, and its retries may"
            f" take {_hours(policy.longest_life)}: send it as a new email."
        )
    return replace(
        email,
        status=Status.QUEUED,
        # A deferred email's number is that of its next attempt already.
        attempt=email.attempt + (email.status is not Status.DEFERRED),
        provider_index=0,
        cycle=0,
        due_at=now + policy.message_ttl,
        restarted_at=now,
        resolved_at=None,
    )


def _hours(ms: int) -> str:
    return f"{ms / 3_600_000:.1f} hours"


def resolve(email: Email, status: Status, now: int) -> Email:
    """A person has looked at the provider and found the email `sent`, or not: `failed`.

    The attempts stay as they are. An email that has the status is left alone, so that asking
    twice does no harm. Raises `NotApplicable`.
    """
    if email.status is status:
        return email
    if email.status is not Status.UNKNOWN:
        raise NotApplicable(f"The email is {email.status}; resolve takes one that is unknown.")
    return replace(email, status=status, resolved_at=now)
