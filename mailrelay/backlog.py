"""What waits at the moment, asked of AWS when somebody reads the metrics or the overview."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from mailrelay import clock, kept
from mailrelay.circuit import Circuit
from mailrelay.items import DUE_SHARDS
from mailrelay.kept import Kept, within
from mailrelay.provision import DELIVER_QUEUE, SWEEP_QUEUE
from mailrelay.store import Overdue, Store

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.literals import QueueAttributeNameType

_STATES: dict[QueueAttributeNameType, str] = {
    "ApproximateNumberOfMessages": "ready",
    "ApproximateNumberOfMessagesNotVisible": "in_flight",
    "ApproximateNumberOfMessagesDelayed": "delayed",
}

Depths = Mapping[str, Mapping[str, int]]
"""Messages by queue and state."""


def messages(sqs: SQSClient, url: str) -> dict[str, int]:
    """About how many messages are in a queue, by state: ready, in_flight, delayed."""
    answer = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=list(_STATES))
    return {state: int(answer["Attributes"][name]) for name, state in _STATES.items()}


class Queues:
    """Both queues' depths. Raises botocore's errors."""

    def __init__(self, sqs: SQSClient, prefix: str) -> None:
        self._sqs = sqs
        self._prefix = prefix
        self._urls: dict[str, str] = {}

    def __call__(self) -> Depths:
        return {
            name: messages(self._sqs, self._url(name)) for name in (DELIVER_QUEUE, SWEEP_QUEUE)
        }

    def _url(self, name: str) -> str:
        if name not in self._urls:
            answer = self._sqs.get_queue_url(QueueName=self._prefix + name)
            self._urls[name] = answer["QueueUrl"]
        return self._urls[name]


@dataclass(frozen=True, slots=True)
class Due:
    """What somebody has to look at, and has not yet."""

    emails: int
    most_overdue: int
    """For how many milliseconds the first of it has been due; 0 if nothing is."""


class DueIndex:
    """All shards of the due index. Raises `StoreUnavailable`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __call__(self) -> Due:
        now = clock.now()
        shards: list[Overdue] = [self._store.overdue(shard, now) for shard in range(DUE_SHARDS)]
        since = min((shard.since for shard in shards if shard.since is not None), default=now)
        return Due(sum(shard.count for shard in shards), now - since)


@dataclass(frozen=True, slots=True)
class Waiting:
    """What waits at the moment, and for whom; None where AWS does not say."""

    depths: Depths | None
    due: Due | None
    circuits: Mapping[str, Circuit] | None


class Backlog:
    """What waits, and for whom; its gauges, as a collector of prometheus_client's."""

    def __init__(
        self,
        queues: Callable[[], Depths],
        due: Callable[[], Due],
        circuits: Callable[[], Mapping[str, Circuit]],
    ) -> None:
        self._queues = Kept("SQS", queues)
        self._due = Kept("DynamoDB", due)
        self._circuits = Kept("the providers' circuits", circuits)

    def waiting(self) -> Waiting:
        """What is known of it within a moment."""
        until = time.monotonic() + kept.PATIENCE
        # All are asked before any is waited for.
        queues, due, circuits = self._queues.begin(), self._due.begin(), self._circuits.begin()
        return Waiting(within(queues, until), within(due, until), within(circuits, until))

    def collect(self) -> Iterator[Metric]:
        waiting = self.waiting()
        depths, due = waiting.depths, waiting.due
        yield from _circuits(waiting.circuits or {})
        up = GaugeMetricFamily(
            "mailrelay_backlog_up",
            "Whether SQS and DynamoDB said what waits; where not, their gauges are missing.",
            labels=["source"],
        )
        up.add_metric(["sqs"], depths is not None)
        up.add_metric(["dynamodb"], due is not None)
        in_queues = GaugeMetricFamily(
            "mailrelay_queue_messages",
            "About how many messages a queue has: ready, in flight at a worker, delayed.",
            labels=["queue", "state"],
        )
        for queue, states in (depths or {}).items():
            for state, count in states.items():
                in_queues.add_metric([queue, state], count)
        emails = GaugeMetricFamily(
            "mailrelay_due_emails",
            "Emails, and batches that never got complete, which the sweep has to look at.",
        )
        most_overdue = GaugeMetricFamily(
            "mailrelay_most_overdue_seconds",
            "For how long the first of them has been due; 0 if there is none.",
        )
        if due is not None:
            emails.add_metric([], due.emails)
            most_overdue.add_metric([], due.most_overdue / 1000)
        yield from (up, in_queues, emails, most_overdue)


def _circuits(circuits: Mapping[str, Circuit]) -> Iterator[Metric]:
    is_open = GaugeMetricFamily(
        "mailrelay_provider_circuit_open",
        "1 while a provider is left alone; 0 while the next email would ask it.",
        labels=["provider"],
    )
    for name, circuit in circuits.items():
        is_open.add_metric([name], not circuit.passes(clock.now()))
    yield is_open
