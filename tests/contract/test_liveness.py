"""A worker is as alive as the queue that it has not looked at for longest."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from kombu import Connection, Consumer, Queue
from kombu.asynchronous import Hub, set_event_loop
from kombu.transport import SQS

from mailrelay import heartbeat
from tasks import app
from tests.contract.test_transport import FakeSqs, answer

DELIVER, SWEEP = "deliver", "sweep"


class TwoQueues(FakeSqs):
    """An SQS with both of our queues, and nothing in them."""

    def respond(self, handler: BaseHTTPRequestHandler, operation: str) -> None:
        if operation == "ListQueues":
            urls = ", ".join(f'"{self.url}/1/mailrelay-{name}"' for name in (DELIVER, SWEEP))
            answer(200, f'{{"QueueUrls": [{urls}]}}'.encode())(handler)
        else:
            super().respond(handler, operation)


@pytest.fixture
def sqs(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSqs]:
    fake = TwoQueues()
    monkeypatch.setenv("AWS_ENDPOINT_URL", fake.url)
    yield fake
    fake.close()


@pytest.fixture
def beats(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When the loop turned, as the heart is told."""
    told: list[float] = []
    monkeypatch.setattr(heartbeat, "beat", told.append)
    return told


@pytest.fixture
def channel(sqs: FakeSqs) -> Iterator[Any]:
    """A channel that consumes both queues, on an event loop that does not turn yet."""
    hub = Hub()
    set_event_loop(hub)
    options = {**app.conf.broker_transport_options, "wait_time_seconds": 0}
    with Connection("mailrelay-sqs://", transport_options=options) as connection:
        channel = connection.channel()
        queues = [Queue(name, routing_key=name) for name in (DELIVER, SWEEP)]
        with Consumer(channel, queues, callbacks=[lambda *_: None]):
            connection.register_with_event_loop(hub)
            yield channel
    hub.close()
    set_event_loop(None)


def turn(channel: Any, beats: list[float], polls: int) -> None:
    """Until the queues have been looked at so many times more."""
    wanted = len(beats) + polls
    for _ in itertools.takewhile(lambda _: len(beats) < wanted, channel.hub.create_loop()):
        pass


def test_a_worker_that_looks_at_all_of_its_queues_is_alive(
    channel: Any, beats: list[float]
) -> None:
    turn(channel, beats, 20)

    assert beats[-1] > beats[0]


def test_polls_of_one_queue_that_ended_are_seen_though_another_s_go_on(
    channel: Any, beats: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sweep would be heard for ever, and no email be sent."""
    turn(channel, beats, 20)
    poll = SQS.Channel._get_bulk_async

    def deaf(self: Any, queue: str, callback: Any = None) -> Any:
        return None if queue == DELIVER else poll(self, queue, callback)

    monkeypatch.setattr(SQS.Channel, "_get_bulk_async", deaf)
    turn(channel, beats, 4)
    last = beats[-1]
    turn(channel, beats, 20)

    assert set(beats[-20:]) == {last}


def test_a_queue_that_is_consumed_no_more_does_not_count(channel: Any, beats: list[float]) -> None:
    """As after `celery control cancel_consumer`."""
    turn(channel, beats, 20)
    before = beats[-1]
    channel.basic_cancel(next(tag for tag, name in channel._tag_to_queue.items() if name == SWEEP))

    turn(channel, beats, 20)

    assert beats[-1] > before


def test_a_worker_that_has_no_queue_yet_is_alive_while_it_connects(
    sqs: FakeSqs, beats: list[float]
) -> None:
    """Celery tries for as long as the broker is away."""
    with Connection("mailrelay-sqs://", transport_options=app.conf.broker_transport_options) as c:
        c.connect()

    assert len(beats) == 1
