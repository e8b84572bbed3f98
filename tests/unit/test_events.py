"""Events on their way out: few requests, a bounded buffer, and never in anybody's way."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

import tasks.events
from mailrelay import logs
from mailrelay.provision import EVENTS_TOPIC
from tasks import app
from tasks.events import Dispatcher, Outbox
from tests.support.processes import wait_for


class Publisher:
    """Keeps what is published; fails or hangs as it is told."""

    def __init__(self) -> None:
        self.published: list[list[Any]] = []
        self.failures = 0
        self.called = threading.Event()
        self.goes_on = threading.Event()
        self.goes_on.set()

    def __call__(self, batch: list[Any]) -> None:
        self.called.set()
        self.goes_on.wait()
        if self.failures:
            self.failures -= 1
            raise ConnectionError("a@example.org")
        self.published.append(batch)

    @property
    def events(self) -> list[Any]:
        return [event for batch in self.published for event in batch]


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    publisher = Publisher()
    yield publisher
    publisher.goes_on.set()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Next to no waiting for other events, nor for the last ones."""
    monkeypatch.setattr(tasks.events, "GATHER_SECONDS", 0.01)
    monkeypatch.setattr(tasks.events, "_LAST_SECONDS", 0.01)


def test_events_are_gathered_into_few_requests_in_their_order(publisher: Publisher) -> None:
    outbox = Outbox(publisher)
    for number in range(2000):
        outbox.add([number])
    outbox.close()

    assert publisher.events == list(range(2000))
    assert len(publisher.published) < 40


def test_no_request_holds_more_events_than_sns_takes(publisher: Publisher) -> None:
    outbox = Outbox(publisher)
    outbox.add(list(range(1234)))
    outbox.close()

    assert [len(batch) for batch in publisher.published] == [500, 500, 234]


def test_full_batches_wait_for_no_others(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a busy worker's events would be late and pile up until they are lost."""
    monkeypatch.setattr(tasks.events, "GATHER_SECONDS", 3600.0)
    outbox = Outbox(publisher)

    outbox.add(list(range(9000)))

    wait_for(lambda: len(publisher.events) == 9000, "all full batches are sent")
    outbox.close()


@pytest.mark.usefixtures("quick")
def test_an_sns_that_hangs_holds_up_nobody(publisher: Publisher) -> None:
    """Neither a worker's main loop, which adds, nor its end, which closes."""
    publisher.goes_on.clear()
    outbox = Outbox(publisher)
    outbox.add(["first"])
    publisher.called.wait()

    outbox.add(["second"])
    outbox.close()

    assert publisher.published == []


@pytest.mark.usefixtures("quick")
def test_the_oldest_are_lost_when_too_many_wait(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks.events, "_CAPACITY", 10)
    publisher.goes_on.clear()
    outbox = Outbox(publisher)
    outbox.add(["under way"])
    publisher.called.wait()

    for number in range(100):
        outbox.add([number])
    publisher.goes_on.set()
    wait_for(lambda: len(publisher.published) == 2, "the rest is sent")

    assert publisher.events == ["under way", *range(90, 100)]
    outbox.close()


@pytest.mark.usefixtures("quick")
def test_events_that_sns_does_not_take_are_lost_and_said_to_be(publisher: Publisher) -> None:
    """And later ones are sent."""
    publisher.failures = 2
    outbox = Outbox(publisher)
    with capture_logs() as lines:
        for number in range(3):
            outbox.add([number])
            wait_for(
                lambda number=number: len(lines) + len(publisher.published) > number, "it is tried"
            )
        outbox.close()

    assert publisher.events == [2]
    assert [(line["events"], logs.words(line["error"])) for line in lines] == [
        (1, "ConnectionError")
    ] * 2


# --- Celery's dispatcher --------------------------------------------------------------------


class FakeFanout:
    def __init__(self) -> None:
        self.events: list[Any] = []

    def publish(self, topic: str, batch: list[Any]) -> None:
        assert topic == EVENTS_TOPIC
        self.events.extend(batch)


@pytest.fixture
def fanout(monkeypatch: pytest.MonkeyPatch) -> FakeFanout:
    fanout = FakeFanout()
    monkeypatch.setattr(tasks.events, "fanout", lambda: fanout)
    return fanout


@pytest.mark.parametrize(
    ("repr_of_it", "shown"),
    [
        ("ValueError('pedro@example.org')", "ValueError"),
        (
            "botocore.exceptions.ClientError('pedro@example.org')",
            "botocore.exceptions.ClientError",
        ),
        ("KeyError()", "KeyError"),
        ("<pedro@example.org (in a repr of its own)>", "an exception"),
        ("pedro@example.org", "an exception"),
    ],
)
@pytest.mark.parametrize("type_", ["task-failed", "task-retried"])
def test_an_exception_is_told_by_its_name_alone(
    fanout: FakeFanout, type_: str, repr_of_it: str, shown: str
) -> None:
    """Its text, and the lines of a traceback, may quote a mail."""
    with Dispatcher(hostname="celery@host") as dispatcher:
        dispatcher.send(type_, uuid="id", exception=repr_of_it, traceback="pedro@example.org")

    (event,) = fanout.events
    assert (event["type"], event["uuid"], event["exception"]) == (type_, "id", shown)
    assert "pedro" not in str(event)


def test_the_last_events_of_a_worker_are_sent(fanout: FakeFanout) -> None:
    """Those of tasks too, which Celery gathers itself and forgets when it closes."""
    dispatcher = Dispatcher(hostname="celery@host", buffer_group=["task"])

    for number in range(30):
        dispatcher.send("task-succeeded", uuid=str(number))
    dispatcher.send("worker-offline")
    dispatcher.close()

    told = {event.get("uuid", event["type"]) for event in fanout.events}
    assert told == {*map(str, range(30)), "worker-offline"}


def test_a_dispatcher_can_be_closed_twice_and_used_again(fanout: FakeFanout) -> None:
    """As Celery does when a worker has lost its broker."""
    dispatcher = Dispatcher(hostname="celery@host")
    dispatcher.send("worker-online")
    dispatcher.close()
    dispatcher.close()
    dispatcher.send("worker-heartbeat")
    dispatcher.enable()
    dispatcher.send("worker-online")
    dispatcher.close()

    assert [event["type"] for event in fanout.events] == ["worker-online"] * 2


def test_nothing_is_sent_when_events_are_off(
    fanout: FakeFanout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(app.conf, "worker_send_task_events", False)

    with Dispatcher(hostname="celery@host", buffer_group=["task"]) as dispatcher:
        dispatcher.send("worker-heartbeat")
        dispatcher.send("task-received", uuid="id")

    assert not dispatcher.enabled
    assert fanout.events == []
