"""What waits at the moment, asked of AWS when somebody reads the metrics.

Whoever reads them waits for a moment only, whatever AWS does, and several readers cost no more than
one: an answer is kept for some seconds, and one thread at a time asks. What is not known is not
shown: a 0 or an old number would say that all is well.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import structlog
from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from mailrelay import clock
from mailrelay.circuit import Circuit
from mailrelay.items import DUE_SHARDS
from mailrelay.provision import DELIVER_QUEUE, SWEEP_QUEUE
from mailrelay.store import Overdue, Store

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.literals import QueueAttributeNameType

log = structlog.get_logger(__name__)

KEPT = 5.0
"""Seconds for which an answer is good, and a failure too: scrapes come every 15 or 30."""

PATIENCE = 3.0
"""Seconds that a scrape waits for all of it; Prometheus gives up after 10."""

_STATES: dict[QueueAttributeNameType, str] = {
    "ApproximateNumberOfMessages": "ready",
    "ApproximateNumberOfMessagesNotVisible": "in_flight",
    "ApproximateNumberOfMessagesDelayed": "delayed",
}

Answer = TypeVar("Answer")
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


class _Kept(Generic[Answer]):
    """The answer to a question, asked again once it is older than `KEPT`."""

    def __init__(self, what: str, ask: Callable[[], Answer]) -> None:
        self._what = what
        self._ask = ask
        self._lock = threading.Lock()
        self._answer: Future[Answer] | None = None
        self._good_until = 0.0

    def begin(self) -> Future[Answer]:
        """The answer, or a promise of it; its exception where there is none."""
        with self._lock:
            answer = self._answer
            if answer is None or (answer.done() and time.monotonic() > self._good_until):
                answer = self._answer = Future()
                # Not of a pool, which would be waited for when the process ends.
                threading.Thread(target=self._run, args=(answer,), daemon=True).start()
        return answer

    def _run(self, answer: Future[Answer]) -> None:
        try:
            found = self._ask()
        except Exception as error:  # noqa: BLE001 - whatever it is, the rest is to be shown
            kind = type(error).__name__
            log.warning("a part of the metrics cannot be read", what=self._what, error=kind)
            self._good_until = time.monotonic() + KEPT
            answer.set_exception(error)
        else:
            self._good_until = time.monotonic() + KEPT
            answer.set_result(found)


class Backlog:
    """The gauges of what waits, and for whom, as a collector of prometheus_client's."""

    def __init__(
        self,
        queues: Callable[[], Depths],
        due: Callable[[], Due],
        circuits: Callable[[], Mapping[str, Circuit]],
    ) -> None:
        self._queues = _Kept("SQS", queues)
        self._due = _Kept("DynamoDB", due)
        self._circuits = _Kept("the providers' circuits", circuits)

    def collect(self) -> Iterator[Metric]:
        until = time.monotonic() + PATIENCE
        # All are asked before any is waited for.
        queues, due_index, circuits = (
            self._queues.begin(),
            self._due.begin(),
            self._circuits.begin(),
        )
        depths, due = _within(queues, until), _within(due_index, until)
        yield from _circuits(_within(circuits, until) or {})
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


def _within(promise: Future[Answer], until: float) -> Answer | None:
    """The answer, if it comes in time and is one."""
    try:
        return promise.result(max(0, until - time.monotonic()))
    except Exception:  # noqa: BLE001 - logged by the thread that asked
        return None
