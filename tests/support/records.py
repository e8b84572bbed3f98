"""Records for tests: complete, with only what a test is about said by the test."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ulid import ULID

from mailrelay import clock
from mailrelay.message import Address, Attempt, Batch, Content, Email, EmailId, Outcome, Status

CHAIN = ("mailgun", "ses", "sendgrid")
CONTENT = Content(
    plain="Grüße, 世界",
    html="<p>Grüße</p>",
    reply_to=Address("answers@example.com", "Answers"),
    headers={"X-Campaign": "été"},
)


def a_batch(**changes: Any) -> Batch:
    batch = Batch(
        id=str(ULID()),
        key_name="demo",
        sender=Address("facundo@example.com", "Facundo"),
        subject="Prüfung",
        chain=CHAIN,
        total=1,
        created_at=clock.now(),
        ready=True,
    )
    return replace(batch, **changes)


def an_email(batch: Batch, index: int = 0, **changes: Any) -> Email:
    email = Email(
        id=EmailId(batch.id, index),
        key_name=batch.key_name,
        to=Address(f"pedro{index}@example.org", "Pedro"),
        chain=batch.chain,
        status=Status.QUEUED,
        attempt=1,
        provider_index=0,
        cycle=0,
        due_at=batch.created_at + 60_000,
        created_at=batch.created_at,
    )
    return replace(email, **changes)


def claimed(email: Email, now: int, lease: int) -> Email:
    """What `Store.claim` makes of a queued email; its version aside."""
    return replace(email, status=Status.SENDING, due_at=now + lease, last_attempt_at=now)


def an_attempt(email: Email, outcome: Outcome, **changes: Any) -> Attempt:
    attempt = Attempt(
        number=email.attempt,
        provider=email.provider,
        outcome=outcome,
        code="503",
        reason="Service Unavailable",
        started_at=clock.now(),
        duration_ms=12,
        message_id="<id@provider.example>" if outcome is Outcome.ACCEPTED else None,
    )
    return replace(attempt, **changes)
