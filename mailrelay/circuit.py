"""The circuit breaker's rules: when is a provider left alone, and for how long? Pure, no I/O.

    closed ──refuses everybody, or fails often──▶ open ──its time is over──▶ half open
      ▲                                             ▲                           │
      │                                             └── failed, twice as long ──┤ one email asks
      └────────────────────── answered as it should ────────────────────────────┘

The names are those of Nygard's "Release It!", as the field uses them: emails pass through a closed
circuit, and none through an open one.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from enum import StrEnum

from mailrelay.message import Outcome
from mailrelay.providers import Answer

WINDOW = 30_000
"""Milliseconds that a failure counts for."""

WINDOW_SIZE = 100
"""Answers that are remembered at most."""

FEWEST_FAILURES = 5
"""A provider that fails less often than that within the window is asked on, however few others it
answers: a handful of emails is not worth more than a handful of requests."""

LONGEST_PAUSE = 300_000
"""Milliseconds that a provider is left alone at most, unless it wants to be for longer."""

LONGEST_REQUEST = 6 * 3_600_000
"""Milliseconds that a provider is left alone at most, whatever it wants: a wrong date in a header
must not end it for good. The same as urllib3's for Retry-After."""


class State(StrEnum):
    """Whether emails pass. Half open: one is asking, and all others wait for its answer."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class Circuit:
    """What all workers know of one provider's health. Times in milliseconds."""

    provider: str
    state: State = State.CLOSED
    until: int | None = None
    """While open, when it may be asked again; while half open, when its probe counts as lost.
    None while a person keeps it open."""
    since: int | None = None
    """When it opened; None while it is closed."""
    openings: int = 0
    """How many times it opened since it last answered as it should."""
    outcome: Outcome | None = None
    code: str | None = None
    """Of the answer that opened it; none if a person did."""
    version: str = ""
    """The store's own, as an email's."""

    @property
    def held(self) -> bool:
        """Whether a person keeps it open."""
        return self.state is not State.CLOSED and self.until is None

    def state_at(self, now: int) -> State:
        """Half open as well from when it may be asked again until an email does."""
        due = self.until is not None and self.until <= now
        return State.HALF_OPEN if self.state is State.OPEN and due else self.state

    def passes(self, now: int) -> bool:
        """Whether an email may ask, be it as the probe."""
        return self.state is State.CLOSED or (self.until is not None and self.until <= now)


@dataclass(frozen=True, slots=True)
class Ended:
    """A request that ended: when, and whether the provider failed by its own fault."""

    at: int
    failed: bool


def tells(answer: Answer) -> bool:
    """Whether an answer tells how the provider does, and not only of one email or one sender."""
    return answer.outcome is not Outcome.REJECTED and not answer.particular


def fails(answer: Answer) -> bool:
    """Whether a provider failed by its own fault."""
    return answer.outcome is not Outcome.ACCEPTED and tells(answer)


def opens(answer: Answer, ended: Collection[Ended], now: int) -> bool:
    """Whether a provider that gave `answer`, after all those that `ended`, is to be left alone.

    At once if it refuses everybody or asks for it; else if at least half of what ended lately
    failed.
    """
    if not fails(answer):
        return False
    if answer.outcome is Outcome.UNAVAILABLE or answer.retry_after:
        return True
    lately = [each.failed for each in ended if each.at > now - WINDOW]
    return sum(lately) >= FEWEST_FAILURES and sum(lately) * 2 >= len(lately)


def opened(circuit: Circuit, answer: Answer, now: int, first_pause: int) -> Circuit:
    """The circuit after `answer`: open for `first_pause`, twice as long each further time in a
    row, or for as long as the provider asks."""
    pause = min(first_pause * 2**circuit.openings, max(first_pause, LONGEST_PAUSE))
    pause = max(pause, round(min((answer.retry_after or 0) * 1000, LONGEST_REQUEST)))
    return replace(
        circuit,
        state=State.OPEN,
        until=now + pause,
        since=now if circuit.state is State.CLOSED else circuit.since,
        openings=min(circuit.openings + 1, 20),
        outcome=answer.outcome,
        code=answer.code,
    )


def probing(circuit: Circuit, now: int, lease: int) -> Circuit:
    """One email asks the provider; if its worker dies, another may when the lease is over.

    Where no email came for long, what was then tells nothing of what is now: it begins anew.
    """
    began = circuit
    if circuit.until is not None and now - circuit.until > LONGEST_PAUSE:
        began = replace(circuit, openings=0, since=now)
    return replace(began, state=State.HALF_OPEN, until=now + lease)


def probed(probe: Circuit, answer: Answer, now: int, first_pause: int) -> Circuit:
    """The circuit after its probe's answer; if that told nothing, the next email is the probe."""
    if fails(answer):
        return opened(probe, answer, now, first_pause)
    return closed(probe) if tells(answer) else replace(probe, state=State.OPEN, until=now)


def closed(circuit: Circuit) -> Circuit:
    """The provider answers as it should, or a person says that it is to be asked."""
    return Circuit(circuit.provider, version=circuit.version)


def held_open(circuit: Circuit, now: int) -> Circuit:
    """A person says that nobody is to ask the provider, until a person closes it."""
    return Circuit(
        circuit.provider, state=State.OPEN, since=circuit.since or now, version=circuit.version
    )
