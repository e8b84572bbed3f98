"""What a worker hears of SQS is counted by queue."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from mailrelay import clock, metrics
from tasks.polls import Polls, polls
from tests.unit.counting import counted


def message(age: float) -> Mapping[str, Any]:
    """A message as ReceiveMessage returns it, sent `age` seconds ago."""
    return {"Body": "{}", "Attributes": {"SentTimestamp": str(clock.now() - round(age * 1000))}}


def oldest(queue: str) -> float | None:
    name = "mailrelay_queue_oldest_message_age_seconds"
    return metrics.REGISTRY.get_sample_value(name, {"queue": queue})


REQUEST = {"aws_requests_total{operation=ReceiveMessage,service=sqs}": 1}


def result(queue: str, kind: str) -> dict[str, float]:
    return {f"queue_polls_total{{queue={queue},result={kind}}}": 1}


COUNTED = ("aws_", "queue_polls", "queue_messages_received", "queue_wait_seconds_count")


def test_messages() -> None:
    with counted(*COUNTED) as changed:
        polls("deliver").answered([message(0.5), message(30), message(7)])

    assert changed == REQUEST | result("deliver", "messages") | {
        "queue_messages_received_total{queue=deliver}": 3,
        "queue_wait_seconds_count{queue=deliver}": 3,
    }
    assert 30 <= (oldest("deliver") or 0) < 300


def test_an_empty_answer_says_that_nothing_waits() -> None:
    polls("sweep").answered([message(30)])

    with counted(*COUNTED) as changed:
        polls("sweep").answered([])

    assert changed == REQUEST | result("sweep", "empty")
    assert oldest("sweep") == 0


@pytest.mark.parametrize(
    "attributes", [{}, {"SentTimestamp": "yesterday"}, {"SentTimestamp": "99999999999999"}]
)
def test_a_message_of_unknown_age_is_new(attributes: dict[str, str]) -> None:
    """As one of a clock that is ahead of ours."""
    with counted("queue_wait_seconds") as changed:
        polls("deliver").answered([{"Body": "{}", "Attributes": attributes}])

    assert changed == {"queue_wait_seconds_count{queue=deliver}": 1}


REFUSED = b'{"__type":"com.amazonaws.sqs#RequestThrottled","message":"pedro@example.org"}'


@pytest.mark.parametrize(
    ("fail", "code", "sent"),
    [
        pytest.param(lambda p: p.failed(None), "unavailable", REQUEST, id="no answer"),
        pytest.param(
            lambda p: p.failed(Exception(f"Request HTTP Error  HTTP 400  Bad ({REFUSED!r})")),
            "RequestThrottled",
            REQUEST,
            id="refused",
        ),
        pytest.param(
            lambda p: p.failed(Exception("Request Empty body  HTTP 403  Forbidden (b'')")),
            "403",
            REQUEST,
            id="refused without a word",
        ),
        pytest.param(lambda p: p.failed(ValueError("?")), "ValueError", REQUEST, id="no JSON"),
        pytest.param(lambda p: p.never_sent(RuntimeError("?")), "RuntimeError", {}, id="unsigned"),
    ],
)
def test_a_failure(fail: Callable[[Polls], None], code: str, sent: dict[str, float]) -> None:
    with counted(*COUNTED) as changed:
        fail(polls("deliver"))

    error = f"aws_errors_total{{code={code},operation=ReceiveMessage,service=sqs}}"
    assert changed == sent | result("deliver", "failed") | {error: 1}


def test_other_queues_have_no_name() -> None:
    """A queue of Celery's own can be called after a host."""
    with counted("queue_polls") as changed:
        polls("worker1@host.example.org.celery.pidbox").answered([])

    assert changed == result("other", "empty")
