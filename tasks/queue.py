"""The delivery queue: one Celery task for each hint, on SQS."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property, lru_cache
from hashlib import sha256
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from celery import Task
from kombu.exceptions import OperationalError
from kombu.utils.uuid import uuid

from mailrelay import aws
from mailrelay.backlog import messages
from mailrelay.message import Hint
from mailrelay.provision import DELIVER_QUEUE
from mailrelay.queue import QueueUnavailable
from mailrelay.settings import Settings
from tasks.app import app
from tasks.batches import NotAllSent

DELIVER_TASK = "tasks.deliver"

REQUEST_ID_HEADER = "request_id"
"""The task's header that names the request which sent the email."""


def request_id(task: Task[..., Any]) -> str | None:
    """What the request is called that sent the email of the task that runs now."""
    named: str | None = (task.request.headers or {}).get(REQUEST_ID_HEADER)
    return named


@lru_cache(maxsize=1024)
def _group(key_name: str | None) -> str:
    """The group of an API key's messages, between which SQS is fair.

    A hash, since a name may say whose key it is. Emails of no known key are one group.
    """
    return sha256((key_name or "").encode()).hexdigest()[:16]


_NOTHING_ELSE = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
"""What follows a task, in its message's body."""


class CeleryQueue:
    """`mailrelay.queue.DeliveryQueue`, shared by all threads of a process."""

    def __init__(self, settings: Settings) -> None:
        self._sqs = aws.sqs(settings)
        self._name = settings.queue_prefix + DELIVER_QUEUE

    def put(self, hints: Iterable[Hint]) -> None:
        with _available(), app.producer_pool.acquire(block=True) as producer:
            channel: Any = producer.channel
            with channel.together() as put:
                for hint in hints:
                    if put:
                        queue, first = put[0]
                        put.append((queue, _another(first, hint)))
                    else:
                        _publish(producer, hint)

    def depth(self) -> int:
        with _available():
            return sum(messages(self._sqs, self._url).values())

    @cached_property
    def _url(self) -> str:
        return self._sqs.get_queue_url(QueueName=self._name)["QueueUrl"]


def _publish(producer: Any, hint: Hint) -> None:
    """A hint's task, as Celery makes it.

    By the two halves of `app.send_task`, which takes four times the CPU: it routes each task, binds
    its queue to the channel, and looks for its result's backend.
    """
    amqp: Any = app.amqp
    args = _args(hint)
    message = amqp.create_task_message(
        uuid(), DELIVER_TASK, args, argsrepr=repr(args), kwargsrepr="{}", ignore_result=True
    )
    amqp.send_task_message(
        producer,
        DELIVER_TASK,
        message,
        queue=DELIVER_QUEUE,
        declare=(),
        headers={REQUEST_ID_HEADER: hint.request_id},
        # A property of the message, which the transport hands over to SQS.
        MessageGroupId=_group(hint.key_name),
    )


def _another(message: Mapping[str, Any], hint: Hint) -> dict[str, Any]:
    """A hint's task, as Celery would make it, from the message of another one's.

    Celery takes as long for each of a thousand alike as for the first: a seventh of the CPU of
    accepting a batch. The fields: https://docs.celeryq.dev/en/stable/internals/protocol.html
    """
    task_id, args = uuid(), _args(hint)
    body = json.dumps((args, {}, _NOTHING_ELSE)).encode()
    return {
        **message,
        "body": base64.b64encode(body).decode(),
        "headers": {
            **message["headers"],
            "id": task_id,
            "root_id": task_id,
            "argsrepr": repr(args),
            REQUEST_ID_HEADER: hint.request_id,
        },
        "properties": {
            **message["properties"],
            "correlation_id": task_id,
            "delivery_tag": uuid(),
            "MessageGroupId": _group(hint.key_name),
        },
    }


def _args(hint: Hint) -> tuple[str, int, int]:
    return str(hint.email_id), hint.provider_index, hint.attempt


@contextmanager
def _available() -> Iterator[None]:
    """Everything that a broker that is down, or refuses, can raise."""
    try:
        yield
    except (OperationalError, BotoCoreError, ClientError, NotAllSent) as error:
        raise QueueUnavailable(f"SQS: {error}") from error
