"""Count what workers hear from SQS. kombu polls by a client of its own, which boto3 knows not of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from mailrelay import clock
from mailrelay.metering import count_error
from mailrelay.metrics import (
    AWS_REQUESTS,
    QUEUE_MESSAGES_RECEIVED,
    QUEUE_OLDEST_MESSAGE_AGE,
    QUEUE_POLLS,
    QUEUE_WAIT,
)
from mailrelay.provision import DELIVER_QUEUE, SWEEP_QUEUE

_ERROR_TYPE = re.compile(r'"__type"\s*:\s*"(?:[^"#]*#)?([^"]*)"')
"""Where an answer of SQS's names its error: ``"__type": "com.amazonaws.sqs#RequestThrottled"``."""

_STATUS = re.compile(r"HTTP ([1-5][0-9]{2})")


class Polls:
    """The polls of one queue."""

    def __init__(self, queue: str) -> None:
        self._results = {
            result: QUEUE_POLLS.labels(queue, result) for result in ("messages", "empty", "failed")
        }
        self._received = QUEUE_MESSAGES_RECEIVED.labels(queue)
        self._wait = QUEUE_WAIT.labels(queue)
        self._oldest = QUEUE_OLDEST_MESSAGE_AGE.labels(queue)
        self._requests = AWS_REQUESTS.labels("sqs", "ReceiveMessage")

    def answered(self, messages: Iterable[Mapping[str, Any]]) -> None:
        """SQS returned `messages`, or none."""
        ages = [_age(message) for message in messages]
        self._requests.inc()
        self._results["messages" if ages else "empty"].inc()
        self._received.inc(len(ages))
        for age in ages:
            self._wait.observe(age)
        self._oldest.set(max(ages, default=0))

    def failed(self, error: BaseException | None) -> None:
        """SQS refused; without an `error`, it failed or did not answer at all."""
        self._requests.inc()
        self._results["failed"].inc()
        count_error("sqs", "ReceiveMessage", _code(error))

    def never_sent(self, error: Exception) -> None:
        """The poll could not even be signed."""
        self._results["failed"].inc()
        count_error("sqs", "ReceiveMessage", type(error).__name__)


@cache
def polls(queue: str) -> Polls:
    """The count for a queue of ours, by its name without the prefix."""
    return Polls(queue if queue in (DELIVER_QUEUE, SWEEP_QUEUE) else "other")


def _age(message: Mapping[str, Any]) -> float:
    """Seconds since SQS took the message, by two clocks."""
    sent = message.get("Attributes", {}).get("SentTimestamp", "")
    return max(0.0, (clock.now() - int(sent)) / 1000) if sent.isdecimal() else 0.0


def _code(error: BaseException | None) -> str:
    """What kombu's text of an error says of SQS's answer, which is all that it passes on."""
    if error is None:
        return "unavailable"
    found = _ERROR_TYPE.search(str(error)) or _STATUS.search(str(error))
    return found[1] if found else type(error).__name__
