"""The way of one email: what happened, and what happens next."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mailrelay.message import PASSED_OVER, Email, Outcome, Status
from mailrelay.web.console.timeline import steps
from tests.support.records import a_batch, an_attempt, an_email

ROUNDS = 7
BATCH = a_batch(created_at=1_000)
QUEUED = an_email(BATCH)


def after(*outcomes: Outcome, email: Email = QUEUED, **changes: object) -> Email:
    """The email after an attempt for each outcome, a second apart, along its chain."""
    for number, outcome in enumerate(outcomes, 1):
        place = (number - 1) % len(email.chain)
        trying = replace(email, attempt=number, provider_index=place)
        attempt = an_attempt(trying, outcome, started_at=1_000 + 1_000 * number)
        email = replace(email, attempts=(*email.attempts, attempt))
    following = len(email.attempts) % len(email.chain)
    return replace(email, **{"provider_index": following, **changes})


def titles(email: Email) -> list[str]:
    return [step.title for step in steps(email, ROUNDS)]


def test_a_failover_provider_by_provider() -> None:
    email = after(Outcome.RETRY, Outcome.UNAVAILABLE, Outcome.ACCEPTED, status=Status.SENT)
    shown = steps(email, ROUNDS)
    assert titles(email) == [
        "Accepted by mailrelay",
        "mailgun failed for the moment",
        "ses will not work for us for now",
        "sendgrid accepted it",
    ]
    assert [step.at for step in shown] == [1_000, 2_000, 3_000, 4_000]
    assert shown[1].attempt == email.attempts[0]
    assert shown[1].detail == "Service Unavailable"
    assert [step.tone for step in shown[1:]] == ["warn", "warn", "good"]


def test_a_provider_that_is_left_alone_was_not_asked() -> None:
    email = after(Outcome.UNAVAILABLE)
    passed = replace(email.attempts[0], code=PASSED_OVER, duration_ms=None)
    assert "mailgun was not asked" in titles(replace(email, attempts=(passed,)))


def test_rounds_are_told_where_there_are_several() -> None:
    once = steps(after(Outcome.RETRY, Outcome.RETRY), ROUNDS)
    twice = steps(after(*[Outcome.RETRY] * 4), ROUNDS)
    assert [step.round for step in once if step.attempt] == [None, None]
    assert [step.round for step in twice if step.attempt] == [None, None, None, 2]


def passed_over(email: Email, reason: str = "left alone") -> Email:
    """Nobody of the chain was asked in the last three attempts."""
    *before, first, second, third = email.attempts
    last = [
        replace(each, code=PASSED_OVER, reason=reason, duration_ms=None)
        for each in (first, second, third)
    ]
    return replace(email, attempts=(*before, *last))


def test_a_round_in_which_nobody_was_asked_has_not_begun() -> None:
    """So that the one which comes has the number that it is said to have."""
    waiting = passed_over(after(*[Outcome.RETRY] * 6, status=Status.DEFERRED, cycle=1, due_at=9))
    shown = steps(waiting, ROUNDS)
    assert [step.round for step in shown if step.attempt] == [None] * 6
    assert "Round 2 of 7 begins" in shown[-1].detail


def test_rounds_that_the_schedule_left_behind_are_counted() -> None:
    email = after(*[Outcome.RETRY] * 4, status=Status.QUEUED, cycle=3)
    assert [step.round for step in steps(email, ROUNDS) if step.attempt] == [None, None, None, 4]


def test_why_nobody_was_asked_is_said_without_a_time_that_is_over() -> None:
    reason = "left alone until 2026-11-24T18:40:08.123Z: unavailable 401"
    shown = steps(passed_over(after(*[Outcome.RETRY] * 3), reason), ROUNDS)
    assert shown[1].detail == "Left alone, since its answer was unavailable 401"


def test_rounds_are_counted_anew_when_a_person_has_it_sent_again() -> None:
    email = replace(after(*[Outcome.RETRY] * 7), restarted_at=4_500)
    assert [step.round for step in steps(email, ROUNDS) if step.attempt] == [
        *[None, None, None],
        *[None, None, None],
        2,
    ]


@pytest.mark.parametrize(
    ("status", "title", "due"),
    [
        (Status.QUEUED, "Next: ses", True),
        (Status.SENDING, "ses is being asked", True),
        (Status.DEFERRED, "Next: mailgun, from the beginning of the chain", True),
        (Status.UNKNOWN, "Next: a person decides", False),
    ],
)
def test_what_happens_next_and_when(status: Status, title: str, due: bool) -> None:
    due_at = 99_000 if due else None
    email = after(Outcome.RETRY, status=status, due_at=due_at)
    last = steps(email, ROUNDS)[-1]
    assert (last.title, last.tone, last.due_at) == (title, "next", due_at)


def test_a_deferred_email_says_which_round_comes() -> None:
    email = after(*[Outcome.RETRY] * 3, status=Status.DEFERRED, cycle=1, due_at=99_000)
    assert "Round 2 of 7" in steps(email, ROUNDS)[-1].detail


@pytest.mark.parametrize("status", [Status.SENT, Status.FAILED])
def test_nothing_comes_after_the_end(status: Status) -> None:
    assert [step.tone for step in steps(after(Outcome.REJECTED, status=status), ROUNDS)] == [
        "",
        "bad",
    ]


def test_what_people_decided_stands_where_it_happened() -> None:
    email = after(Outcome.UNKNOWN, Outcome.UNKNOWN, status=Status.FAILED)
    email = replace(email, restarted_at=2_500, resolved_at=9_000)
    assert titles(email) == [
        "Accepted by mailrelay",
        "mailgun did not answer: it may have the email or not",
        "Sent again by a person",
        "ses did not answer: it may have the email or not",
        "A person found it failed",
    ]
