"""Records as the API shows them (`mailrelay.answers` says how). Pure."""

from __future__ import annotations

from typing import cast

from mailrelay import answers, delivery
from mailrelay.circuit import Circuit
from mailrelay.clock import rfc3339
from mailrelay.message import Address, Attempt, Email, Status
from mailrelay.relay import Accepted, BatchView

_OPEN = (Status.QUEUED, Status.SENDING, Status.DEFERRED, Status.UNKNOWN)


def accepted(batch: Accepted) -> answers.Accepted:
    """The answer to a request to send; the same again when it is replayed."""
    return {
        "id": batch.batch_id,
        "status": "queued",
        "emails": [
            {"id": str(email_id), "email": to.email, "status": "queued"}
            for email_id, to in batch.emails
        ],
    }


def email(email: Email) -> answers.Email:
    """An email with its attempts."""
    return {**_summary(email), "attempts": [_attempt(attempt) for attempt in email.attempts]}


def batch(view: BatchView) -> answers.Batch:
    """A batch with one page of its emails, these without their attempts."""
    batch = view.batch
    sent = view.counts[Status.SENT]
    status: answers.BatchStatus
    if any(view.counts[status] for status in _OPEN):
        status = "queued"
    elif sent == batch.total:
        status = "sent"
    else:
        status = "partial" if sent else "failed"
    return {
        "object": "batch",
        "id": batch.id,
        "createdAt": rfc3339(batch.created_at),
        "from": _mailbox(batch.sender),
        "subject": batch.subject,
        "status": status,
        "delivered": sent == batch.total,
        "total": batch.total,
        "counts": cast(answers.Counts, {status.value: view.counts[status] for status in Status}),
        "emails": [_summary(email) for email in view.emails],
        "nextCursor": None if view.next_index is None else str(view.next_index),
    }


def provider(circuit: Circuit, rate: float | None, now: int) -> answers.Provider:
    """How a provider does; its `rate` is in emails a second."""
    return {
        "name": circuit.provider,
        "status": circuit.state_at(now).value,
        "since": _optional_time(circuit.since),
        "until": _optional_time(circuit.until),
        "outcome": circuit.outcome.value if circuit.outcome else None,
        "code": circuit.code,
        "held": circuit.held,
        "rate": rate,
    }


def _summary(email: Email) -> answers.EmailSummary:
    accepted = delivery.acceptance(email) if email.status is Status.SENT else None
    error = delivery.last_error(email)
    return {
        "object": "email",
        "id": str(email.id),
        "batchId": email.id.batch_id,
        "to": _mailbox(email.to),
        "status": email.status.value,
        "delivered": email.status is Status.SENT,
        "retries": delivery.retries(email),
        "provider": accepted.provider if accepted else None,
        "providerMessageId": accepted.message_id if accepted else None,
        "createdAt": rfc3339(email.created_at),
        "lastAttemptAt": _optional_time(email.last_attempt_at),
        "nextAttemptAt": _optional_time(email.due_at if email.status is Status.DEFERRED else None),
        "resolvedAt": _optional_time(email.resolved_at),
        "error": {"code": error.code, "reason": error.reason, "provider": error.provider}
        if error
        else None,
    }


def _attempt(attempt: Attempt) -> answers.Attempt:
    return {
        "number": attempt.number,
        "provider": attempt.provider,
        "outcome": attempt.outcome.value,
        "code": attempt.code,
        "reason": attempt.reason,
        "startedAt": rfc3339(attempt.started_at),
        "durationMs": attempt.duration_ms,
    }


def _mailbox(address: Address) -> answers.Mailbox:
    mailbox: answers.Mailbox = {"email": address.email}
    if address.name:
        mailbox["name"] = address.name
    return mailbox


def _optional_time(ms: int | None) -> str | None:
    return None if ms is None else rfc3339(ms)
