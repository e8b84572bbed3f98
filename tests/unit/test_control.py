"""Remote control: each question gets its own answers, and a worker obeys whatever is asked."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue
from types import SimpleNamespace
from typing import Any

import pytest
from celery.worker import state as worker_state
from structlog.testing import capture_logs

import tasks.control
from mailrelay.provision import CONTROL_TOPIC
from tasks.control import ControlMailbox, Replies
from tasks.pool import TaskPool

HOST = "celery@host"


class FakeInbox:
    """An inbox in a queue of this process."""

    def __init__(self, *messages: Any) -> None:
        self.queue = "the-inbox"
        self.messages: SimpleQueue[Any] = SimpleQueue()
        self.opened = False
        for message in messages:
            self.messages.put(message)

    def open(self) -> str:
        self.opened = True
        return self.queue

    def receive(self, seconds: float) -> list[Any]:
        try:
            return [self.messages.get(timeout=seconds / 10)]
        except Empty:
            return []

    def listen(self) -> Iterator[Any]:
        while not self.messages.empty():
            yield self.messages.get()


class FakeFanout:
    """Keeps what is published and sent."""

    def __init__(self) -> None:
        self.published: list[Any] = []
        self.sent: list[tuple[str, Any]] = []

    def publish(self, topic: str, body: Any) -> None:
        assert topic == CONTROL_TOPIC
        self.published.append(body)

    def send(self, queue: str, body: Any) -> None:
        self.sent.append((queue, body))


@pytest.fixture
def fanout(monkeypatch: pytest.MonkeyPatch) -> FakeFanout:
    fanout = FakeFanout()
    monkeypatch.setattr(tasks.control, "fanout", lambda: fanout)
    return fanout


@pytest.fixture
def inbox() -> FakeInbox:
    return FakeInbox()


@pytest.fixture
def replies(inbox: Any) -> Replies:
    return Replies(inbox)


# --- Who asks -------------------------------------------------------------------------------


def test_an_answer_has_somewhere_to_go_before_it_is_asked_for(
    replies: Replies, inbox: FakeInbox
) -> None:
    def publish(ticket: str) -> None:
        assert inbox.opened
        inbox.messages.put({"ticket": ticket, "answer": "pong"})

    assert replies.ask(publish, 1, 3600, None) == ["pong"]


def test_many_threads_ask_at_once_and_each_gets_its_own_answers(
    replies: Replies, inbox: FakeInbox
) -> None:
    """As Flower does: one of them receives, for all."""
    number, workers = 16, 5
    tickets: dict[int, str] = {}
    all_asked = threading.Barrier(number)

    def ask(asker: int) -> list[Any]:
        def publish(ticket: str) -> None:
            tickets[asker] = ticket
            if all_asked.wait() == 0:
                answers = [
                    {"ticket": ticket, "answer": {f"worker{worker}": asker}}
                    for asker, ticket in tickets.items()
                    for worker in range(workers)
                ]
                random.shuffle(answers)
                for answer in answers:
                    inbox.messages.put(answer)

        return replies.ask(publish, workers, 3600, None)

    with ThreadPoolExecutor(number) as pool:
        heard = list(pool.map(ask, range(number)))

    for asker, answers in enumerate(heard):
        told = {name: value for answer in answers for name, value in answer.items()}
        assert told == {f"worker{worker}": asker for worker in range(workers)}


def test_without_a_limit_all_answers_within_the_time_are_taken(
    replies: Replies, inbox: FakeInbox
) -> None:
    def publish(ticket: str) -> None:
        for number in range(3):
            inbox.messages.put({"ticket": ticket, "answer": number})

    called: list[int] = []

    assert replies.ask(publish, None, 0.3, called.append) == [0, 1, 2]
    assert called == [0, 1, 2]


def test_nobody_answers(replies: Replies) -> None:
    assert replies.ask(lambda _: None, None, 0.1, None) == []


def test_answers_that_come_too_late_are_nobodys(replies: Replies, inbox: FakeInbox) -> None:
    tickets: list[str] = []
    replies.ask(tickets.append, None, 0.05, None)
    inbox.messages.put({"ticket": tickets[0], "answer": "late"})
    inbox.messages.put({"ticket": "another process's", "answer": "astray"})

    def publish(ticket: str) -> None:
        inbox.messages.put({"ticket": ticket, "answer": "in time"})

    assert replies.ask(publish, 1, 3600, None) == ["in time"]


def test_a_question_that_could_not_be_asked_is_forgotten(replies: Replies) -> None:
    def publish(_: str) -> None:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        replies.ask(publish, 1, 3600, None)
    assert replies.ask(lambda _: None, None, 0.05, None) == []


@pytest.fixture
def mailbox(replies: Replies) -> ControlMailbox:
    mailbox = ControlMailbox("celery", type="fanout")
    mailbox.replies = replies
    return mailbox


def test_a_command_goes_to_the_topic_and_nobody_waits(
    mailbox: ControlMailbox, fanout: FakeFanout, inbox: FakeInbox
) -> None:
    assert mailbox.cast([HOST], "pool_grow", {"n": 2}) is None

    (message,) = fanout.published
    assert (message["method"], message["arguments"]) == ("pool_grow", {"n": 2})
    assert message["destination"] == [HOST]
    assert "reply_to" not in message
    assert not inbox.opened


def test_as_many_answers_are_awaited_as_workers_were_asked(
    mailbox: ControlMailbox, fanout: FakeFanout, inbox: FakeInbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    def publish(_: str, body: Any) -> None:
        assert body["reply_to"] == {"exchange": "", "routing_key": inbox.queue}
        for host in body["destination"]:
            inbox.messages.put({"ticket": body["ticket"], "answer": {host: "pong"}})

    monkeypatch.setattr(fanout, "publish", publish)

    answers = mailbox.call(["celery@one", "celery@other"], "ping", timeout=3600)

    assert answers == [{"celery@one": "pong"}, {"celery@other": "pong"}]


def test_a_destination_that_is_no_list_is_refused(
    mailbox: ControlMailbox, fanout: FakeFanout
) -> None:
    """A name by itself would be a list of letters, and reach nobody."""
    destination: Any = HOST
    with pytest.raises(ValueError, match="destination must be a list"):
        mailbox.cast(destination, "ping")
    assert fanout.published == []


# --- Who answers ----------------------------------------------------------------------------


@pytest.fixture
def should_stop() -> Iterator[None]:
    """What stops a worker of Celery's is a variable of a module."""
    yield
    worker_state.should_stop = None


def _obey(*messages: Any) -> None:
    """A worker with a pool of one thread that gets these messages, and no others."""
    pool = TaskPool(limit=1)
    mailbox = ControlMailbox("celery", type="fanout")
    consumer = SimpleNamespace(
        app=SimpleNamespace(control=SimpleNamespace(mailbox=mailbox)),
        hostname=HOST,
        pool=pool,
        controller=SimpleNamespace(autoscaler=None),
        _update_prefetch_count=lambda _: None,
    )
    inbox: Any = FakeInbox(*messages)
    tasks.control._obey(consumer, inbox)
    pool.stop()


def _asked(method: str, ticket: str = "ticket", **arguments: Any) -> dict[str, Any]:
    return {
        "method": method,
        "arguments": arguments,
        "destination": None,
        "ticket": ticket,
        "reply_to": {"exchange": "", "routing_key": "the-asker"},
    }


PING = _asked("ping", "last")
PONG = ("the-asker", {"ticket": "last", "answer": {HOST: {"ok": "pong"}}})


def test_a_worker_answers_to_the_inbox_of_who_asked(fanout: FakeFanout) -> None:
    _obey(PING)
    assert fanout.sent == [PONG]


@pytest.mark.parametrize(
    "question",
    [_asked("pool_shrink", n=1), _asked("no_such_command"), _asked("ping", nonsense=1)],
    ids=["refused", "unknown", "wrong arguments"],
)
def test_what_fails_is_answered_by_its_error_or_not_at_all_and_the_worker_listens_on(
    fanout: FakeFanout, question: Any
) -> None:
    _obey(question, PING)

    assert fanout.sent[-1] == PONG
    for _, body in fanout.sent[:-1]:
        (answer,) = body["answer"].values()
        assert answer.keys() & {"error", "ok"}
    assert ("one has to stay" in str(fanout.sent)) == (question["method"] == "pool_shrink")


@pytest.mark.parametrize("rubbish", ["text", 1, [], {}, {"method": None}, {"arguments": 1}])
def test_rubbish_is_dropped_and_the_worker_listens_on(fanout: FakeFanout, rubbish: Any) -> None:
    with capture_logs() as lines:
        _obey(rubbish, PING)

    assert fanout.sent == [PONG]
    assert all(line["log_level"] == "warning" for line in lines)


def test_a_worker_whose_answer_cannot_be_sent_listens_on(
    fanout: FakeFanout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when who asked is gone, and its inbox with it."""
    send = fanout.send

    def refuse_the_first(queue: str, body: Any) -> None:
        if body["ticket"] != "last":
            raise ConnectionError
        send(queue, body)

    monkeypatch.setattr(fanout, "send", refuse_the_first)
    with capture_logs() as lines:
        _obey(_asked("ping"), PING)

    assert fanout.sent == [PONG]
    assert [type(line["error"]) for line in lines] == [ConnectionError]


def test_another_workers_messages_are_left_alone(fanout: FakeFanout) -> None:
    _obey({**_asked("ping"), "destination": ["celery@other"]}, {**PING, "destination": [HOST]})
    assert fanout.sent == [PONG]


@pytest.mark.usefixtures("should_stop")
def test_shutdown_stops_the_worker_and_not_only_the_thread(fanout: FakeFanout) -> None:
    _obey({**_asked("shutdown"), "reply_to": None})
    assert worker_state.should_stop == 0
