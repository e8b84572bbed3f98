"""What many processes hear at once: SNS topics, and an inbox for each process that listens.

Celery's events and remote control need a fan-out. kombu's own, over the same two services, runs
on a worker's main loop and leaves queues behind; why this is beside it and not on top of it is in
docs/decisions/0010-fan-out.md.
"""

from __future__ import annotations

import atexit
import base64
import hashlib
import json
import os
import re
import socket
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any

import structlog
from botocore.exceptions import BotoCoreError, ClientError
from kombu.utils.json import dumps, loads

from mailrelay import aws
from mailrelay.settings import Settings, load

log = structlog.get_logger(__name__)

KINDS = ("control", "events", "replies")
"""What an inbox is for: the first part of its queue's name, behind the prefix."""

KEPT_TAG = "mailrelay:kept"
"""The tag of an inbox that says when its process was last there: seconds since the epoch."""

KEEP_INTERVAL = 60.0
"""Seconds between two times that a process says so."""

ABANDONED_AFTER = 15 * 60.0
"""Seconds without such a word after which whoever starts next removes an inbox."""

_ATTRIBUTES = {
    # What nobody has read by then is no news any more. The shortest that SQS allows.
    "MessageRetentionPeriod": "60",
    "VisibilityTimeout": "30",
    "SqsManagedSseEnabled": "true",
}

_POLL = 5
"""Seconds of a long poll. Longer ones would be cheaper, but the one that is under way when its
process dies takes the next message with it."""

_PAUSE = 5.0
"""Seconds until the next try after AWS refused or did not answer."""

_MAX_QUEUE_NAME = 80
"""Characters in the name of an SQS queue."""

_SPARE_NAMES = 10
"""Names to try for an inbox: a name that was given up is refused for a minute (CreateQueue in the
SQS API reference), and a process that is restarted must not wait for that."""

_ERRORS = (BotoCoreError, ClientError)


class Fanout:
    """The topics, and the inboxes of this process; shared by its threads."""

    def __init__(self, settings: Settings) -> None:
        self.prefix = settings.queue_prefix
        self.listener = f"{socket.gethostname()}-{os.getpid()}"
        """What the inboxes of this process are called, if not after a worker."""
        self.sns = aws.sns(settings)
        # An answer to a long poll comes when the poll ends.
        self.sqs = aws.sqs(settings, read_timeout=_POLL + 3)
        self._topics: dict[str, str] = {}

    def publish(self, topic: str, body: Any) -> None:
        """Tell whoever listens to `topic`. Raises botocore's errors."""
        try:
            self.sns.publish(TopicArn=self.topic(topic), Message=pack(body))
        except self.sns.exceptions.NotFoundException:
            self._topics.pop(topic, None)  # Removed by somebody; the next one creates it.
            raise

    def send(self, queue: str, body: Any) -> None:
        """Send to one inbox, by the name of its queue. Raises botocore's errors."""
        url = self.sqs.get_queue_url(QueueName=queue)["QueueUrl"]
        self.sqs.send_message(QueueUrl=url, MessageBody=pack(body))

    def topic(self, name: str, *, anew: bool = False) -> str:
        """A topic's ARN. The request that asks for it creates what is missing.

        It is made once, unless `anew`.
        """
        if anew or name not in self._topics:
            self._topics[name] = self.sns.create_topic(Name=self.prefix + name)["TopicArn"]
        return self._topics[name]

    def remove_abandoned(self) -> None:
        """Remove the inboxes, and their subscriptions, of processes that died without doing so."""
        for kind in KINDS:
            pages = self.sqs.get_paginator("list_queues").paginate(
                QueueNamePrefix=f"{self.prefix}{kind}-"
            )
            for url in (url for page in pages for url in page.get("QueueUrls", ())):
                with suppress(self.sqs.exceptions.QueueDoesNotExist):
                    tags = self.sqs.list_queue_tags(QueueUrl=url).get("Tags", {})
                    # Without the tag it is no inbox, whatever its name.
                    kept = float(tags.get(KEPT_TAG, "inf"))
                    if time.time() - kept > ABANDONED_AFTER:
                        log.info("removing an abandoned inbox", queue=_name(url))
                        self.sqs.delete_queue(QueueUrl=url)
        for topic in tuple(self._topics.values()):  # Another thread may add one meanwhile.
            self._unsubscribe_the_dead(topic)

    def _unsubscribe_the_dead(self, topic: str) -> None:
        pages = self.sns.get_paginator("list_subscriptions_by_topic").paginate(TopicArn=topic)
        for subscription in (one for page in pages for one in page["Subscriptions"]):
            name = _name(subscription["Endpoint"])
            # Others may subscribe what they like, from other accounts as well.
            ours = subscription["Endpoint"] == _arn(topic, name) and name.startswith(self.prefix)
            if subscription["Protocol"] != "sqs" or not ours:
                continue
            try:
                self.sqs.get_queue_url(QueueName=name)
            except self.sqs.exceptions.QueueDoesNotExist:
                with suppress(self.sns.exceptions.NotFoundException):
                    self.sns.unsubscribe(SubscriptionArn=subscription["SubscriptionArn"])


@cache
def fanout() -> Fanout:
    """The process's own."""
    return Fanout(load())


class Inbox:
    """A queue of one process alone: made when it begins to listen, removed when it ends.

    One that is killed leaves it behind; the next process of the same name takes it over, and any
    process that starts later than `ABANDONED_AFTER` removes it.
    """

    def __init__(self, fanout: Fanout, kind: str, owner: str, topic: str | None = None) -> None:
        """`owner` tells the inboxes of a kind apart; `topic` is what it listens to, if any."""
        self._fanout = fanout
        self._topic = topic
        self._name = _queue_name(fanout.prefix, kind, owner)
        self._url: str | None = None
        self._subscription: str | None = None
        self._kept: float | None = None
        self._since: float | None = None
        self._closed = threading.Event()
        self._opening = threading.Lock()

    @property
    def queue(self) -> str:
        """The name of its queue."""
        return self._name if self._url is None else _name(self._url)

    def open(self) -> str:
        """Its queue's address: of one that exists now, and that says we are there.

        Raises botocore's errors.
        """
        with self._opening:
            if self._url is not None:
                try:
                    self._keep(self._url)
                    return self._url
                except self._fanout.sqs.exceptions.QueueDoesNotExist:
                    pass  # Removed, for want of a word from us.
            self._url = self._create(self._fanout.topic(self._topic) if self._topic else None)
            self._since = None
            atexit.register(self.close)
            self._mark(self._url)  # again, for a queue that was there already
            if self._closed.is_set():
                self._remove()  # Closed while it was being made.
            return self._url

    def _create(self, topic: str | None) -> str:
        sqs = self._fanout.sqs
        spare = [f"{self._name}--{number}" for number in range(_SPARE_NAMES, 1, -1)]
        name = self._name
        while True:
            attributes: dict[Any, str] = dict(_ATTRIBUTES)
            if topic is not None:
                attributes["Policy"] = _policy(topic, name)
            tags = {KEPT_TAG: str(int(time.time()))}
            try:
                return sqs.create_queue(QueueName=name, Attributes=attributes, tags=tags)[
                    "QueueUrl"
                ]
            except sqs.exceptions.QueueNameExists:
                # With the attributes of another version.
                url = sqs.get_queue_url(QueueName=name)["QueueUrl"]
                sqs.set_queue_attributes(QueueUrl=url, Attributes=attributes)
                return url
            except sqs.exceptions.QueueDeletedRecently:
                if not spare:
                    raise
                name = spare.pop()

    def _keep(self, url: str) -> None:
        """Say now and then that we are there."""
        if self._kept is None or time.monotonic() - self._kept > KEEP_INTERVAL:
            self._mark(url)

    def _mark(self, url: str) -> None:
        tags = {KEPT_TAG: str(int(time.time()))}
        answer = self._fanout.sqs.tag_queue(QueueUrl=url, Tags=tags)
        if self._since is None:
            # What lies in a queue that was there already is not for us: a worker would obey what
            # its predecessor was told, such as to shut down.
            headers = answer["ResponseMetadata"]["HTTPHeaders"]
            self._since = parsedate_to_datetime(headers["date"]).timestamp()
        if self._topic is not None:
            self._subscribe(self._topic, _name(url))
        self._kept = time.monotonic()

    def _subscribe(self, topic: str, queue: str) -> None:
        """Said again, it changes nothing, unless somebody undid it meanwhile."""
        arn = self._fanout.topic(topic, anew=True)
        self._subscription = self._fanout.sns.subscribe(
            TopicArn=arn,
            Protocol="sqs",
            Endpoint=_arn(arn, queue),
            Attributes={"RawMessageDelivery": "true"},
            ReturnSubscriptionArn=True,
        )["SubscriptionArn"]

    def receive(self, seconds: int = _POLL) -> list[Any]:
        """What has come since it was opened, waiting for at most `seconds`.

        It is gone from the queue then: what is told here is not worth telling twice. Raises
        botocore's errors.
        """
        sqs, url = self._fanout.sqs, self.open()
        try:
            answer = sqs.receive_message(
                QueueUrl=url,
                MaxNumberOfMessages=10,
                WaitTimeSeconds=seconds,
                MessageSystemAttributeNames=["SentTimestamp"],
            )
        except sqs.exceptions.QueueDoesNotExist:
            self._kept = None  # have `open` look at once
            return []
        messages = answer.get("Messages", [])
        if messages:
            entries: list[Any] = [
                {"Id": str(index), "ReceiptHandle": message["ReceiptHandle"]}
                for index, message in enumerate(messages)
            ]
            sqs.delete_message_batch(QueueUrl=url, Entries=entries)
        # Both times are SQS's own; that of the answer which opened it is in whole seconds.
        since = self._since or 0
        fresh = [m for m in messages if int(m["Attributes"]["SentTimestamp"]) / 1000 >= since]
        return [body for message in fresh if (body := _read(message["Body"])) is not None]

    def listen(self) -> Iterator[Any]:
        """What comes, until it is closed; an AWS that fails is waited for.

        Begins with removing what others left behind.
        """
        failing = tidy = False
        while not self._closed.is_set():
            try:
                bodies = self.receive(_POLL if tidy else 0)
            except _ERRORS as error:
                if not failing:
                    log.warning("cannot listen", queue=self.queue, error=error)
                failing = True
                self._closed.wait(_PAUSE)
                continue
            failing = False
            yield from bodies
            if not tidy:
                self._tidy()
                tidy = True

    def _tidy(self) -> None:
        try:
            self._fanout.remove_abandoned()
        except _ERRORS as error:
            # Such as for want of a permission. No reason to be deaf: the next to start tries it.
            log.warning("abandoned inboxes are left for later", error=error)

    def close(self) -> None:
        """Remove it. What fails here is left to `remove_abandoned`."""
        if self._closed.is_set():
            return
        self._closed.set()
        atexit.unregister(self.close)
        self._remove()

    def _remove(self) -> None:
        url, subscription = self._url, self._subscription
        try:
            # The queue first: a subscription without one costs nothing.
            if url is not None:
                with suppress(self._fanout.sqs.exceptions.QueueDoesNotExist):
                    self._fanout.sqs.delete_queue(QueueUrl=url)
            if subscription is not None:
                with suppress(self._fanout.sns.exceptions.NotFoundException):
                    self._fanout.sns.unsubscribe(SubscriptionArn=subscription)
        except _ERRORS as error:
            log.warning("an inbox is left behind", queue=self.queue, error=error)


def pack(body: Any) -> str:
    """A body as a message: JSON, compressed, since SNS and SQS count by 64 KB and events are
    all alike."""
    return base64.b64encode(zlib.compress(dumps(body).encode())).decode()


def unpack(text: str) -> Any:
    """The body of a message; raises `ValueError` for what is none."""
    try:
        return loads(zlib.decompress(base64.b64decode(text, validate=True)).decode())
    except zlib.error as error:
        raise ValueError(str(error)) from None


def _read(text: str) -> Any:
    try:
        return unpack(text)
    except ValueError:
        log.error("a message that is not ours was dropped")
        return None


def _queue_name(prefix: str, kind: str, owner: str) -> str:
    """``mailrelay-control-celery_host``; an owner that is too long is cut, and told by a hash."""
    room = _MAX_QUEUE_NAME - len(prefix) - len(kind) - len(f"---{_SPARE_NAMES}")
    told = re.sub(r"[^A-Za-z0-9_-]", "_", owner)
    if len(told) > room:
        digest = hashlib.sha256(owner.encode()).hexdigest()[:8]
        told = f"{told[: room - len(digest) - 1]}-{digest}"
    return f"{prefix}{kind}-{told}"


def _arn(topic: str, queue: str) -> str:
    """The ARN of a queue beside a topic: ``arn:aws:sns:region:account:name``."""
    partition, region, account = (topic.split(":")[part] for part in (1, 3, 4))
    return f"arn:{partition}:sqs:{region}:{account}:{queue}"


def _policy(topic: str, queue: str) -> str:
    """That the topic may send to the queue."""
    return json.dumps(
        {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Principal": {"Service": "sns.amazonaws.com"},
                    "Action": "sqs:SendMessage",
                    "Resource": _arn(topic, queue),
                    "Condition": {"ArnEquals": {"aws:SourceArn": topic}},
                }
            ],
        }
    )


def _name(address: str) -> str:
    """The name of a queue, from its URL or its ARN."""
    return re.split("[/:]", address)[-1]
