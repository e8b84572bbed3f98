"""What Celery's events cost a worker: its throughput with them and without, side by side.

Each run has its backlog in DynamoDB and SQS before its one worker starts, so that the worker is
busy from its first claim to its last outcome, and the web process idle. Runs with and without
events come in pairs, in turns first and second: what else the machine does then harms both alike.
Seconds are this machine's; the ratio is what counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from benchmarks.processes import until
from benchmarks.result import Figure, Result
from benchmarks.stack import PREFIX, Stack, running
from mailrelay.message import Email, Status
from mailrelay.provision import EVENTS_TOPIC
from tasks.fanout import unpack

BATCHES = 2
EMAILS = 750 * BATCHES
"""Emails a run: ten seconds or more of work, and well under the minute that messages live."""

PAIRS = 7

PROVIDER_SECONDS = 0.1

LEAST_RATIO = 0.9


@dataclass(frozen=True, slots=True)
class Run:
    """One backlog, worked off."""

    events: bool
    emails: int
    seconds: float
    """From the first claim to the last answer of the provider."""
    cpu_seconds: float
    """Of the worker, for `cpu_emails` of the emails: its start is left out."""
    cpu_emails: int
    publishes: int
    """Requests to SNS that carried events of tasks."""
    published_bytes: int
    """In those."""
    largest_publish: int
    """Bytes."""
    told: int
    """Events of tasks in those requests."""
    others: float
    """The part of the machine's CPU that processes of others took, from 0 to 1."""

    @property
    def rate(self) -> float:
        """Emails a second."""
        return self.emails / self.seconds

    @property
    def cpu_ms(self) -> float:
        """Milliseconds of the worker's CPU for an email."""
        return 1000 * self.cpu_seconds / self.cpu_emails


def measure(say: Callable[[str], None]) -> Result:
    runs: list[Run] = []
    for number in range(PAIRS):
        for events in (True, False) if number % 2 == 0 else (False, True):
            # Each on a stack of its own: the last poll of a worker that was stopped outlives it,
            # and would take messages of the next run with it.
            with running(provider_seconds=PROVIDER_SECONDS) as stack:
                run = _run(stack, events)
            runs.append(run)
            say(
                f"pair {number + 1} of {PAIRS}, events {'on' if events else 'off'}:"
                f" {run.rate:.1f} emails/s, {run.cpu_ms:.2f} ms CPU an email;"
                f" others took {run.others:.0%} of the machine"
            )
    return Result("events", figures(runs), {"runs": [asdict(run) for run in runs]})


def figures(runs: Sequence[Run]) -> tuple[Figure, ...]:
    """What the runs come to; pairs are those with and without events in the order they came."""
    on, off = ([run for run in runs if run.events is events] for events in (True, False))
    ratio = median(run.rate for run in on) / median(run.rate for run in off)
    pairs = [a.rate / b.rate for a, b in zip(on, off, strict=True)]
    emails, publishes = sum(run.emails for run in on), sum(run.publishes for run in on)

    def both(value: Callable[[Run], float], digits: int) -> str:
        return " / ".join(f"{median(map(value, some)):.{digits}f}" for some in (on, off))

    return (
        Figure("emails/s, events on / off", both(lambda run: run.rate, 1)),
        Figure(
            "throughput on : off, medians",
            f"{ratio:.2f}",
            f"≥ {LEAST_RATIO}",
            ratio >= LEAST_RATIO,
        ),
        Figure("the same, each pair", " ".join(f"{pair:.2f}" for pair in pairs)),
        Figure("worker CPU an email, on / off", both(lambda run: run.cpu_ms, 2) + " ms"),
        Figure(
            "machine taken by others, median, most",
            f"{median(run.others for run in runs):.0%}, {max(run.others for run in runs):.0%}",
        ),
        Figure("events an email", f"{sum(run.told for run in on) / emails:.2f}"),
        Figure("SNS requests an email", f"{publishes / emails:.3f}"),
        Figure("bytes an email, in SNS", f"{sum(run.published_bytes for run in on) / emails:.0f}"),
    )


def _run(stack: Stack, events: bool) -> Run:
    inbox = _Inbox(stack)
    batches = [stack.send(EMAILS // BATCHES) for _ in range(BATCHES)]
    worker = stack.start("worker", MAILRELAY_EVENTS="on" if events else "off")
    until(stack.provider_requests, "the worker sends")
    cpu, before = worker.cpu(), stack.provider_requests()
    others = stack.watch_others()
    until(lambda: stack.provider_requests() >= EMAILS, "the provider has been asked for all")
    sent: list[Email] = []

    def all_sent() -> bool:
        stored = (email for batch_id in batches for email in stack.store.emails(batch_id))
        sent[:] = [email for email in stored if email.status is Status.SENT]
        return len(sent) == EMAILS

    until(all_sent, "all are sent")
    cpu, taken = worker.cpu() - cpu, others()
    worker.stop()
    if stack.provider_requests() != EMAILS:
        raise RuntimeError("emails were sent twice, or tried again: this run says nothing")
    attempts = [attempt for email in sent for attempt in email.attempts]
    claims = [email.last_attempt_at for email in sent if email.last_attempt_at is not None]
    ends = [attempt.started_at + (attempt.duration_ms or 0) for attempt in attempts]
    messages = [(len(text), told) for text in inbox.drain() if (told := _tasks_events(text))]
    return Run(
        events=events,
        emails=EMAILS,
        seconds=(max(ends) - min(claims)) / 1000,
        cpu_seconds=cpu,
        cpu_emails=EMAILS - before,
        publishes=len(messages),
        published_bytes=sum(size for size, _ in messages),
        largest_publish=max((size for size, _ in messages), default=0),
        told=sum(told for _, told in messages),
        others=taken,
    )


def _tasks_events(text: str) -> int:
    """How many of a message's events are of tasks: not a heartbeat, nor a worker's farewell."""
    return sum(event["type"].startswith("task-") for event in unpack(text))


class _Inbox:
    """Somebody whom SNS delivers to. It reads after the run, so that this takes nothing of it."""

    def __init__(self, stack: Stack) -> None:
        self._sqs = stack.sqs
        name = f"{PREFIX}benchmark"
        self._url = self._sqs.create_queue(QueueName=name)["QueueUrl"]
        topic = stack.sns.create_topic(Name=PREFIX + EVENTS_TOPIC)["TopicArn"]
        has: Any = self._sqs.get_queue_attributes(QueueUrl=self._url, AttributeNames=["QueueArn"])[
            "Attributes"
        ]
        stack.sns.subscribe(
            TopicArn=topic,
            Protocol="sqs",
            Endpoint=has["QueueArn"],
            Attributes={"RawMessageDelivery": "true"},
        )

    def drain(self) -> list[str]:
        """All that has come."""
        bodies: list[str] = []
        while True:
            answer = self._sqs.receive_message(QueueUrl=self._url, MaxNumberOfMessages=10)
            messages = answer.get("Messages", [])
            if not messages:
                return bodies
            for message in messages:
                bodies.append(message["Body"])
                self._sqs.delete_message(
                    QueueUrl=self._url, ReceiptHandle=message["ReceiptHandle"]
                )
