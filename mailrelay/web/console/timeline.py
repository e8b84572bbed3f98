"""The way of one email: what happened, provider by provider, and what happens next. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from mailrelay.message import Attempt, Email, Outcome, Status


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happened, or that comes next."""

    title: str
    at: int | None = None
    """When; None where that is not known, or now."""
    tone: str = ""
    """``good``, ``bad``, ``warn`` or ``odd``, ``next`` for what comes, or nothing in particular."""
    detail: str = ""
    attempt: Attempt | None = None
    round: int | None = None
    """Which time through the chain begins with it, from the second on."""
    due_at: int | None = None
    """When somebody looks at it again, whatever has happened until then."""


_SAID = {
    Outcome.ACCEPTED: ("{} accepted it", "good"),
    Outcome.REJECTED: ("{} rejected the message", "bad"),
    Outcome.UNAVAILABLE: ("{} will not work for us for now", "warn"),
    Outcome.RETRY: ("{} failed for the moment", "warn"),
    Outcome.UNKNOWN: ("{} did not answer: it may have the email or not", "odd"),
}


def steps(email: Email, rounds: int) -> list[Step]:
    """From its acceptance to what is next; `rounds` is how often the chain is gone through at most."""
    begun = Step(
        "Accepted by mailrelay", email.created_at, detail="Stored, and a worker was asked."
    )
    happened = [begun, *_attempts(email)]
    if email.restarted_at is not None:
        said = "The chain began again, with all of its retries."
        happened.append(Step("Sent again by a person", email.restarted_at, detail=said))
    if email.resolved_at is not None:
        tone = "good" if email.status is Status.SENT else "bad"
        said = "After a look at the provider."
        happened.append(
            Step(f"A person found it {email.status}", email.resolved_at, tone, detail=said)
        )
    # Python's sort keeps what happened at the same time in its order.
    happened.sort(key=lambda step: step.at or 0)
    following = _next(email, rounds)
    return [*happened, following] if following else happened


def _attempts(email: Email) -> list[Step]:
    rounds = _rounds(email)
    return [_attempt(attempt, rounds.get(index)) for index, attempt in enumerate(email.attempts)]


def _rounds(email: Email) -> Mapping[int, int]:
    """Which attempts begin a time through the chain that is not the first one, and which time it
    is: since a person had the email sent again, if anybody has.

    Where nobody was asked the round has not begun; the schedule runs on meanwhile, so that the last
    one may have a higher number than there were rounds.
    """
    times: list[list[int]] = []
    last_place = len(email.chain)
    for index, attempt in enumerate(email.attempts):
        place = email.chain.index(attempt.provider)
        if place <= last_place:
            times.append([])
        times[-1].append(index)
        last_place = place
    rounds: dict[int, int] = {}
    number, restarted = 0, False
    for indices in times:
        attempts = [email.attempts[index] for index in indices]
        if not restarted and email.restarted_at and attempts[0].started_at >= email.restarted_at:
            number, restarted = 0, True
        if all(attempt.passed_over for attempt in attempts):
            continue
        number += 1
        if indices is times[-1]:
            number = max(number, email.cycle + (email.status is not Status.DEFERRED))
        if number > 1:
            rounds[indices[0]] = number
    return rounds


def _attempt(attempt: Attempt, number: int | None) -> Step:
    title, tone = _SAID[attempt.outcome]
    if attempt.passed_over:
        title, tone = "{} was not asked", "warn"
    return Step(
        title.format(attempt.provider),
        attempt.started_at,
        tone,
        detail=reason(attempt),
        attempt=attempt,
        round=number,
    )


def reason(attempt: Attempt) -> str:
    """Why an attempt ended as it did, for a page.

    Until when a provider was left alone was a guess of that moment, and is over or stands in the
    overview.
    """
    return re.sub(r"^left alone until \S+Z: ", "Left alone, since its answer was ", attempt.reason)


def _next(email: Email, rounds: int) -> Step | None:
    match email.status:
        case Status.QUEUED:
            return Step(
                f"Next: {email.provider}",
                tone="next",
                detail="A worker takes it in a moment. If none does, it is looked at again",
                due_at=email.due_at,
            )
        case Status.SENDING:
            return Step(
                f"{email.provider} is being asked",
                email.last_attempt_at,
                tone="next",
                detail="If its worker stops meanwhile, somebody else takes it up",
                due_at=email.due_at,
            )
        case Status.DEFERRED:
            return Step(
                f"Next: {email.chain[0]}, from the beginning of the chain",
                tone="next",
                detail=f"Round {min(email.cycle + 1, rounds)} of {rounds} begins",
                due_at=email.due_at,
            )
        case Status.UNKNOWN:
            return Step(
                "Next: a person decides",
                tone="next",
                detail="Look at the provider whether it has the email, then say so below, or have it"
                " sent again.",
            )
        case _:
            return None
