"""Messages go out and are deleted in tens, on the local AWS."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from structlog.testing import capture_logs

from tasks.batches import Deletions, NotAllSent, send
from tests.support.processes import unused_name, wait_for


class Queue:
    """A queue, and the sizes of the batches that it was asked for."""

    def __init__(self, sqs: Any) -> None:
        self.sqs = sqs
        self.url: str = sqs.create_queue(QueueName=unused_name("batches"))["QueueUrl"]
        self.sent: list[int] = []
        self.deleted: list[int] = []
        for operation, sizes in (("SendMessage", self.sent), ("DeleteMessage", self.deleted)):
            sqs.meta.events.register(
                f"before-parameter-build.sqs.{operation}Batch",
                lambda params, sizes=sizes, **_: sizes.append(len(params["Entries"])),
            )

    def receive(self, total: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while len(found) < total:
            answer = self.sqs.receive_message(QueueUrl=self.url, MaxNumberOfMessages=10)
            assert answer.get("Messages"), f"{len(found)} of {total} are there"
            found += answer["Messages"]
        return found

    @property
    def messages(self) -> int:
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        answer = self.sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=names)
        return sum(map(int, answer["Attributes"].values()))


@pytest.fixture
def queue(local_aws: str) -> Queue:
    return Queue(boto3.client("sqs", endpoint_url=local_aws, region_name="us-east-1"))


@pytest.fixture
def deletions(queue: Queue) -> Iterator[Deletions]:
    deletions = Deletions(queue.sqs)
    yield deletions
    deletions.close()


@pytest.mark.parametrize(
    ("total", "requests"), [(0, []), (1, [1]), (10, [10]), (25, [5, 10, 10])], ids=str
)
def test_messages_go_out_in_tens(queue: Queue, total: int, requests: list[int]) -> None:
    send(queue.sqs, [(queue.url, {"number": number}) for number in range(total)])

    assert sorted(queue.sent) == requests
    bodies = [json.loads(message["Body"])["number"] for message in queue.receive(total)]
    assert sorted(bodies) == list(range(total))


def test_each_queue_gets_its_own(queue: Queue) -> None:
    other = Queue(queue.sqs)

    send(queue.sqs, [(queue.url, {"for": "this"}), (other.url, {"for": "other"})])

    for receiver, name in ((queue, "this"), (other, "other")):
        (message,) = receiver.receive(1)
        assert json.loads(message["Body"]) == {"for": name}


def test_what_sqs_does_not_take_is_said_and_the_rest_is_sent(queue: Queue) -> None:
    messages = [(queue.url, {"number": number}) for number in range(25)]
    messages[12] = (queue.url, {"number": "\x00 is no character that SQS takes"})
    refuse = {"Failed": [{"Id": "2", "Code": "InvalidMessageContents", "SenderFault": True}]}
    refusing = _Refusing(queue.sqs, at=12, answer=refuse)

    with pytest.raises(NotAllSent, match="1 of 25 messages: InvalidMessageContents"):
        send(refusing, messages)  # type: ignore[arg-type]

    assert queue.messages == 24


def test_a_request_that_fails_keeps_none_of_the_others_back(queue: Queue) -> None:
    messages = [(queue.url, {"number": number}) for number in range(30)]

    with pytest.raises(ConnectionError):
        send(_Refusing(queue.sqs, at=0, answer=ConnectionError()), messages)  # type: ignore[arg-type]

    assert queue.messages == 20


class _Refusing:
    """SQS, which answers in its own way to the batch that has the message numbered `at`."""

    def __init__(self, sqs: Any, at: int, answer: Any) -> None:
        self._sqs, self._at, self._answer = sqs, at, answer

    def send_message_batch(self, **kwargs: Any) -> Any:
        first = json.loads(kwargs["Entries"][0]["MessageBody"])["number"]
        if not first <= self._at < first + 10:
            return self._sqs.send_message_batch(**kwargs)
        if isinstance(self._answer, Exception):
            raise self._answer
        taken = [entry for entry in kwargs["Entries"] if entry["Id"] != str(self._at - first)]
        self._sqs.send_message_batch(QueueUrl=kwargs["QueueUrl"], Entries=taken)
        return self._answer


def test_messages_are_deleted_together(queue: Queue, deletions: Deletions) -> None:
    send(queue.sqs, [(queue.url, {"number": number}) for number in range(25)])

    for message in queue.receive(25):
        deletions.add(queue.url, message["ReceiptHandle"])

    wait_for(lambda: queue.messages == 0, "all are deleted")
    assert sum(queue.deleted) == 25
    assert len(queue.deleted) < 10


def test_what_waits_when_a_connection_ends_is_deleted(queue: Queue) -> None:
    deletions = Deletions(queue.sqs)
    send(queue.sqs, [(queue.url, {})] * 3)
    for message in queue.receive(3):
        deletions.add(queue.url, message["ReceiptHandle"])

    deletions.close()

    assert queue.messages == 0


def test_who_adds_never_waits_and_an_end_not_for_long(queue: Queue) -> None:
    """SQS hangs: the main loop does not."""
    released = threading.Event()

    class Hanging:
        def delete_message_batch(self, **_: Any) -> Any:
            released.wait(60)
            return {}

    deletions = Deletions(Hanging())  # type: ignore[arg-type]
    for number in range(1000):
        deletions.add(queue.url, str(number))
    deletions.close()

    assert not released.is_set()  # it gave up before SQS did
    released.set()


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param({"Failed": [{"Id": "0", "Code": "ReceiptHandleIsInvalid"}]}, id="entry"),
        pytest.param(ConnectionError("http://…"), id="request"),
    ],
)
def test_a_deletion_that_fails_is_said_and_the_next_is_made(queue: Queue, answer: Any) -> None:
    asked: list[str] = []

    class Failing:
        def delete_message_batch(self, **kwargs: Any) -> Any:
            asked.append(kwargs["Entries"][0]["ReceiptHandle"])
            if len(asked) > 1:
                return {}
            if isinstance(answer, Exception):
                raise answer
            return answer

    deletions = Deletions(Failing())  # type: ignore[arg-type]
    with capture_logs() as lines:
        deletions.add(queue.url, "first")
        wait_for(lambda: lines, "it is said")
        deletions.add(queue.url, "second")
        deletions.close()

    assert asked == ["first", "second"]
    assert [line["event"] for line in lines] == ["messages could not be deleted"]


def test_while_sqs_is_slow_to_delete_the_oldest_give_way() -> None:
    """They are the ones whose messages are the first to be gone by themselves."""
    asked, answer = threading.Event(), threading.Event()
    deleted: list[str] = []

    class Slow:
        def delete_message_batch(self, QueueUrl: str, Entries: list[Any]) -> dict[str, Any]:
            asked.set()
            assert answer.wait(10)
            deleted.extend(entry["ReceiptHandle"] for entry in Entries)
            return {}

    deletions = Deletions(Slow())  # type: ignore[arg-type]
    deletions.add("url", "first")
    assert asked.wait(10)
    for number in range(10_500):
        deletions.add("url", str(number))
    answer.set()
    wait_for(lambda: len(deleted) > 10_000, "those that had room are deleted")
    deletions.close()

    assert deleted == ["first", *map(str, range(500, 10_500))]
