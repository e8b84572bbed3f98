"""Messages in tens: SQS takes as many in one request, for the price of one."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import structlog
from kombu.utils.json import dumps

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

log = structlog.get_logger(__name__)

_MOST = 10
"""Entries in one request (SendMessageBatch and DeleteMessageBatch in the SQS API reference)."""

_AT_ONCE = 8
"""Requests of one batch of messages that are under way at the same time."""

_GATHER_SECONDS = 0.05
"""How long a deletion waits for others."""

_CAPACITY = 10_000
"""Deletions that wait at most, a few megabytes. While SQS is slow to delete and quick to deliver the
oldest give way: a message lives for a minute, and is void if it comes again."""

_LAST_SECONDS = 2.0
"""What the last deletions of a connection get to be sent in."""


class NotAllSent(Exception):
    """SQS did not take some of the messages; says how many, and why."""


def send(sqs: SQSClient, messages: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
    """Send messages, each to the queue whose address stands before it.

    Raises botocore's errors where a request failed, after all have been tried, and `NotAllSent`.
    """
    by_queue: dict[str, list[Mapping[str, Any]]] = {}
    for url, message in messages:
        by_queue.setdefault(url, []).append(message)
    requests = [(url, chunk) for url, put in by_queue.items() for chunk in _tens(put)]

    def request(url_and_chunk: tuple[str, Sequence[Any]]) -> list[Any]:
        url, chunk = url_and_chunk
        entries: list[Any] = [
            {"Id": str(index), "MessageBody": dumps(message), **_group(message)}
            for index, message in enumerate(chunk)
        ]
        return list(sqs.send_message_batch(QueueUrl=url, Entries=entries).get("Failed", ()))

    if len(requests) <= 1:
        failed = [entry for one in requests for entry in request(one)]
    else:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            # Submitted before any is looked at: one that fails keeps none of the others back.
            answers = [pool.submit(request, one) for one in requests]
        failed = [entry for answer in answers for entry in answer.result()]
    if failed:
        raise NotAllSent(f"{len(failed)} of {len(messages)} messages: {failed[0]['Code']}")


class Deletions:
    """Deletes messages, ten a request, by a thread of its own.

    One that fails is not tried again: the message comes once more, and is void.
    """

    def __init__(self, sqs: SQSClient) -> None:
        self._sqs = sqs
        self._waiting: deque[tuple[str, str]] = deque(maxlen=_CAPACITY)
        self._some = threading.Event()
        self._many = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="deletions", daemon=True)
        self._thread.start()

    def add(self, url: str, receipt: str) -> None:
        self._waiting.append((url, receipt))
        self._some.set()
        if len(self._waiting) >= _MOST:
            self._many.set()

    def close(self) -> None:
        """Delete what is there, if that takes no longer than a moment."""
        self._closing = True
        self._some.set()
        self._many.set()
        self._thread.join(_LAST_SECONDS)

    def _run(self) -> None:
        while not self._closing or self._waiting:
            self._some.wait()
            self._many.wait(_GATHER_SECONDS)
            if not self._closing:
                self._some.clear()
                self._many.clear()
            by_queue: dict[str, list[str]] = {}
            while self._waiting:
                url, receipt = self._waiting.popleft()
                by_queue.setdefault(url, []).append(receipt)
            for url, receipts in by_queue.items():
                for chunk in _tens(receipts):
                    self._delete(url, chunk)

    def _delete(self, url: str, receipts: Sequence[str]) -> None:
        entries: list[Any] = [
            {"Id": str(index), "ReceiptHandle": receipt} for index, receipt in enumerate(receipts)
        ]
        try:
            answer = self._sqs.delete_message_batch(QueueUrl=url, Entries=entries)
        except Exception as error:  # noqa: BLE001 - whatever it is, the tasks go on
            log.warning("messages could not be deleted", messages=len(entries), error=error)
            return
        if failed := answer.get("Failed"):
            code = failed[0]["Code"]
            log.warning("messages could not be deleted", messages=len(failed), code=code)


def _group(message: Mapping[str, Any]) -> dict[str, str]:
    """Whose message it is, where kombu's convention says so: SQS is fair between groups."""
    group = message.get("properties", {}).get("MessageGroupId")
    return {} if group is None else {"MessageGroupId": group}


def _tens(entries: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(entries), _MOST):
        yield entries[start : start + _MOST]
