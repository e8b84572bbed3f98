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

from benchmarks.bench import PROVIDER_SECONDS, Bench, in_turns
from benchmarks.load import Run, work_off
from benchmarks.result import Figure, Result, Target, figure
from benchmarks.stack import Mailrelay, Stack, running
from mailrelay.provision import EVENTS_TOPIC
from tasks.fanout import unpack

BATCHES = (750, 750)
"""Emails a run: some seconds of work, and well under the minute that messages live."""

PAIRS = 5

TARGET = Target("at least 0.9", 0.9)


@dataclass(frozen=True, slots=True)
class Told:
    """A backlog worked off, and what SNS was asked to tell of it."""

    events: bool
    run: Run
    publishes: int
    """Requests to SNS that carried events of tasks."""
    published_bytes: int
    """In those."""
    largest_publish: int
    """Bytes."""
    told: int
    """Events of tasks in those requests."""


def measure(bench: Bench) -> Result:
    runs: list[Told] = []
    for number in range(PAIRS):
        for events in in_turns(number, (True, False)):
            # Each on a stack of its own: the last poll of a worker that was stopped outlives it,
            # and would take messages of the next run with it.
            with running(Mailrelay, **bench.how(provider_seconds=PROVIDER_SECONDS)) as stack:
                inbox = _Inbox(stack)
                run = work_off(stack, BATCHES, MAILRELAY_EVENTS="on" if events else "off")
                runs.append(_told(events, run, inbox.drain()))
            bench.say(f"pair {number + 1} of {PAIRS}, events {'on' if events else 'off'}, {run}")
    return Result("events", figures(runs), {"runs": [asdict(run) for run in runs]})


def figures(runs: Sequence[Told]) -> tuple[Figure, ...]:
    """What the runs come to; pairs are those with and without events in the order they came."""
    on, off = ([told for told in runs if told.events is events] for events in (True, False))
    ratio = median(told.run.rate for told in on) / median(told.run.rate for told in off)
    pairs = [a.run.rate / b.run.rate for a, b in zip(on, off, strict=True)]
    emails, publishes = sum(told.run.emails for told in on), sum(told.publishes for told in on)
    sent_bytes = sum(told.published_bytes for told in on)

    def both(value: Callable[[Run], float], digits: int) -> str:
        medians = (median(value(told.run) for told in some) for some in (on, off))
        return " / ".join(f"{number:.{digits}f}" for number in medians)

    return (
        Figure("emails/s, events on / off", both(lambda run: run.rate, 1)),
        figure("throughput on : off, medians", ratio, "", TARGET),
        Figure("the same, each pair", " ".join(f"{pair:.2f}" for pair in pairs)),
        Figure("worker CPU an email, on / off", both(lambda run: run.cpu_ms, 2) + " ms"),
        Figure("events an email", f"{sum(told.told for told in on) / emails:.2f}"),
        Figure("SNS requests an email", f"{publishes / emails:.3f}"),
        Figure("bytes an email, in SNS", f"{sent_bytes / emails:.0f}"),
    )


def _told(events: bool, run: Run, texts: Sequence[str]) -> Told:
    messages = [(len(text), told) for text in texts if (told := _tasks_events(text))]
    return Told(
        events=events,
        run=run,
        publishes=len(messages),
        published_bytes=sum(size for size, _ in messages),
        largest_publish=max((size for size, _ in messages), default=0),
        told=sum(told for _, told in messages),
    )


def _tasks_events(text: str) -> int:
    """How many of a message's events are of tasks: not a heartbeat, nor a worker's farewell."""
    return sum(event["type"].startswith("task-") for event in unpack(text))


class _Inbox:
    """Somebody whom SNS delivers to. It reads after the run, so that this takes nothing of it."""

    def __init__(self, stack: Stack) -> None:
        self._sqs = stack.sqs
        name = f"{stack.prefix}benchmark"
        self._url = self._sqs.create_queue(QueueName=name)["QueueUrl"]
        topic = stack.sns.create_topic(Name=stack.prefix + EVENTS_TOPIC)["TopicArn"]
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
