"""Stand-ins for what a unit test does not want to be real: the queue, the providers, the table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from mailrelay.circuit import Circuit
from mailrelay.message import Hint, Outcome
from mailrelay.observation import Observation
from mailrelay.providers import Answer, Envelope
from mailrelay.queue import QueueUnavailable
from mailrelay.table import StoreUnavailable


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


class FakeShared:
    """What the processes know together of the providers (`mailrelay.shared`), in memory."""

    def __init__(self) -> None:
        self.known: dict[str, Circuit] = {}
        self.reserved: dict[str, int] = {}
        self.down = False
        self.reservations: list[int] = []
        """How much each one took."""

    def circuits(self, providers: Sequence[str]) -> dict[str, Circuit]:
        self._answer()
        return {name: self.known.get(name, Circuit(name)) for name in providers}

    def change_circuit(self, before: Circuit, after: Circuit) -> Circuit | None:
        self._answer()
        known = self.known.get(before.provider)
        if (known.version if known else "") != before.version:
            return None
        version = str(int(before.version or 0) + 1)
        self.known[before.provider] = replace(after, version=version)
        return self.known[before.provider]

    def reserve(self, provider: str, now: int, cost: int, horizon: int) -> int | None:
        self._answer()
        start = max(now, self.reserved.get(provider, 0))
        if start > now + horizon:
            return None
        self.reserved[provider] = start + cost
        self.reservations.append(cost)
        return start

    def _answer(self) -> None:
        if self.down:
            raise StoreUnavailable("DynamoDB: down")


def unobserved(_: Observation) -> None:
    """An observer for tests about something else."""
