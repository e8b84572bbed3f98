"""Stand-ins for what a unit test does not want to be real: the queue and the providers."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from mailrelay.message import Hint, Outcome
from mailrelay.observation import Observation
from mailrelay.providers import Answer, Envelope
from mailrelay.queue import QueueUnavailable


class FakeQueue:
    """A `DeliveryQueue` in a list."""

    def __init__(self) -> None:
        self.hints: list[Hint] = []
        self.down = False
        self.others = 0
        """Messages in it that the test does not care about."""

    def put(self, hints: Iterable[Hint]) -> None:
        for hint in hints:
            if self.down:
                raise QueueUnavailable("SQS: down")
            self.hints.append(hint)

    def depth(self) -> int:
        if self.down:
            raise QueueUnavailable("SQS: down")
        return self.others + len(self.hints)


class FakeProvider:
    """A `Provider` that answers as it is told and keeps what it was given."""

    def __init__(self, answer: Answer | Callable[[], Answer] | None = None) -> None:
        self.answer = answer or Answer(Outcome.ACCEPTED, "200", "queued", "<id@provider.example>")
        self.envelopes: list[Envelope] = []

    def send(self, envelope: Envelope) -> Answer:
        self.envelopes.append(envelope)
        return self.answer if isinstance(self.answer, Answer) else self.answer()

    def check(self) -> Answer:
        return Answer(Outcome.ACCEPTED)


def unobserved(_: Observation) -> None:
    """An observer for tests about something else."""
