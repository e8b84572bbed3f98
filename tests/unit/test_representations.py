"""Records as the API shows them, without anything around."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrelay.clock import rfc3339
from mailrelay.message import PASSED_OVER, Attempt, Email, Outcome, Status
from mailrelay.relay import Accepted, BatchView
from mailrelay.web import representations
from tests.support.records import a_batch, an_attempt, an_email


@pytest.mark.parametrize(
    ("ms", "shown"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1, "1970-01-01T00:00:00.001Z"),
        (1_700_000_000_000, "2023-11-14T22:13:20.000Z"),
        (1_700_000_000_999, "2023-11-14T22:13:20.999Z"),
        (4_102_444_799_999, "2099-12-31T23:59:59.999Z"),
    ],
)
def test_time(ms: int, shown: str) -> None:
    """RFC 3339, in UTC, to the millisecond."""
    assert rfc3339(ms) == shown


@given(st.integers(0, 10**13))
def test_times_sort_as_they_are(ms: int) -> None:
    """A later time is a later text: no millisecond is lost by rounding."""
    assert rfc3339(ms) < rfc3339(ms + 1)


@given(st.fixed_dictionaries({status: st.integers(0, 3) for status in Status}))
def test_status_of_a_batch(counts: Mapping[Status, int]) -> None:
    """Queued while an email is open; else sent if all were, failed if none, partial otherwise."""
    total = sum(counts.values()) or 1
    counted = Counter(counts) if sum(counts.values()) else Counter({Status.SENT: 1})
    view = BatchView(a_batch(total=total), counted, [], None)
    shown = representations.batch(view)
    closed = {status for status in Status if counted[status]}
    if closed & {Status.QUEUED, Status.SENDING, Status.DEFERRED, Status.UNKNOWN}:
        expected = "queued"
    else:
        expected = {
            frozenset({Status.SENT}): "sent",
            frozenset({Status.FAILED}): "failed",
        }.get(frozenset(closed), "partial")
    assert shown["status"] == expected
    assert shown["delivered"] == (expected == "sent")
    assert shown["counts"] == {status.value: counted[status] for status in Status}


def _email(status: Status, *outcomes: Outcome) -> Email:
    email = an_email(a_batch(), status=status)
    attempts: list[Attempt] = []
    for number, outcome in enumerate(outcomes, 1):
        attempt = an_attempt(email, outcome)
        attempts.append(replace(attempt, number=number, provider=email.chain[(number - 1) % 3]))
    return replace(email, attempts=tuple(attempts), attempt=len(attempts) + 1)


@pytest.mark.parametrize("status", list(Status))
def test_next_attempt_of_a_deferred_email_only(status: Status) -> None:
    """`due_at` is also the end of a lease or of a message: that is nobody's next attempt."""
    shown = representations.email(_email(status, Outcome.RETRY, Outcome.ACCEPTED))
    assert (shown["nextAttemptAt"] is not None) == (status is Status.DEFERRED)
    assert (shown["provider"] is not None) == (status is Status.SENT)
    assert shown["delivered"] == (status is Status.SENT)


def test_retries_and_error() -> None:
    """All that was not accepted counts, and what was last is the error."""
    failed = representations.email(_email(Status.FAILED, *list(Outcome)[1:]))
    assert failed["retries"] == 4
    assert failed["error"] == {
        "code": "503",
        "reason": "Service Unavailable",
        "provider": failed["attempts"][-1]["provider"],
    }
    assert representations.email(_email(Status.SENT, Outcome.ACCEPTED))["error"] is None


def test_attempt_that_nobody_measured() -> None:
    """Of an abandoned attempt the duration is not known."""
    email = _email(Status.QUEUED, Outcome.UNKNOWN)
    email = replace(email, attempts=(replace(email.attempts[0], duration_ms=None, code=None),))
    [attempt] = representations.email(email)["attempts"]
    assert (attempt["durationMs"], attempt["code"]) == (None, None)


def test_accepted() -> None:
    """Each recipient with its id, in the order in which they were given."""
    batch = a_batch(total=2)
    emails = [an_email(batch, index) for index in range(2)]
    shown = representations.accepted(
        Accepted(batch.id, tuple((email.id, email.to) for email in emails))
    )
    assert shown == {
        "id": batch.id,
        "status": "queued",
        "emails": [
            {"id": f"{batch.id}-{index}", "email": f"pedro{index}@example.org", "status": "queued"}
            for index in range(2)
        ],
    }


def test_cursor() -> None:
    """The cursor is a text, which clients hand back as it is."""
    assert representations.batch(BatchView(a_batch(), Counter(), [], 100))["nextCursor"] == "100"


def test_a_provider_that_was_passed_over_is_shown_and_is_no_retry() -> None:
    """With no duration, and as the error of what waits; the end of the wait is the next attempt."""
    email = _email(Status.DEFERRED, Outcome.RETRY, Outcome.UNAVAILABLE, Outcome.UNAVAILABLE)
    passed = {"code": PASSED_OVER, "reason": "left alone", "duration_ms": None}
    attempts = [email.attempts[0], *(replace(each, **passed) for each in email.attempts[1:])]
    due_at = email.created_at + 10_000

    shown = representations.email(replace(email, attempts=tuple(attempts), due_at=due_at))

    assert shown["retries"] == 1
    assert shown["nextAttemptAt"] == rfc3339(due_at)
    assert shown["error"] == {
        "code": "passed_over",
        "reason": "left alone",
        "provider": "sendgrid",
    }
    last = shown["attempts"][-1]
    assert (last["outcome"], last["code"], last["durationMs"]) == (
        "unavailable",
        "passed_over",
        None,
    )
