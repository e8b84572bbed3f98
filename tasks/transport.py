"""kombu's SQS transport, without the errors after which a worker never polls again, and in tens.

Each poll of kombu's is started by the one before it: an exception on the way from an answer to
the next poll ends the chain, and the worker is deaf until it is restarted, though it looks alive.

kombu sends and deletes one message a request (https://github.com/celery/kombu/issues/1336), and
deletes on the worker's main loop, which waits for each.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

import pycurl
import structlog
from celery.signals import worker_init
from kombu.asynchronous.http.curl import CurlClient
from kombu.transport import SQS
from vine import promise

from mailrelay import heartbeat
from mailrelay.metering import meter
from mailrelay.settings import load
from tasks import batches
from tasks.polls import polls

log = structlog.get_logger(__name__)

_PAUSE = 1.0
"""Seconds until the next poll after SQS failed to answer one."""

_CONNECT_SECONDS = 3.0
_POLL_SECONDS = 20.0
"""How long a connection and a poll may take, five of which are the long poll itself."""

_ROOM = 10
"""Places that a worker waits for before it polls again: as many as a poll can fill."""

_ROOM_SECONDS = 0.05
"""How long it waits for them, once there is one. It has as many messages in hand as threads."""


_polling: WeakSet[Channel] = WeakSet()
"""The channels that poll, on the main thread's event loop."""


@worker_init.connect
def _begin(**_: Any) -> None:
    heartbeat.start("worker", load().queue_prefix)


def _beat() -> None:
    """The worker is as alive as the queue that it has not looked at for longest.

    That sees an event loop that hangs, and the polls of one queue that ended while those of the
    others go on. A worker without a queue, which waits for its broker, is alive while it tries.
    """
    now = time.time()
    turns = [channel.turned(now) for channel in _polling]
    heartbeat.beat(min(turns, default=now))


class _Client(CurlClient):
    """kombu's HTTP client, but one that gives up.

    kombu 5.7 keeps a time with each request and never tells curl of it: an SQS that takes a poll and
    does not answer, such as behind a network that drops packets, would have the worker wait for
    ever. To be deleted once `CurlClient._setup_request` sets the two.
    """

    def _setup_request(self, curl: Any, *args: Any, **kwargs: Any) -> None:
        super()._setup_request(curl, *args, **kwargs)  # type: ignore[misc]
        curl.setopt(pycurl.CONNECTTIMEOUT_MS, round(_CONNECT_SECONDS * 1000))
        curl.setopt(pycurl.TIMEOUT_MS, round(_POLL_SECONDS * 1000))


class Channel(SQS.Channel):
    """A channel whose polling survives any answer and any message."""

    connection: Any
    hub: Any
    qos: Any
    queue_name_prefix: str
    _active_queues: list[str]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._turns: dict[str, float] = {}
        self._waiting: dict[str, Any] = {}
        """The queues whose next poll waits for room, each with the timer that looks for it."""
        self._together: list[tuple[str, dict[str, Any]]] | None = None
        self._under_way = 0
        """Polls that are not answered yet."""
        super().__init__(*args, **kwargs)
        if self.hub is not None and not hasattr(self.hub, "_current_http_client"):
            # Where kombu's `get_client` looks for it, and puts its own otherwise.
            self.hub._current_http_client = _Client(self.hub)

    def turned(self, now: float) -> float:
        """When it last looked at the one of its queues that it has not looked at for longest."""
        turns = [self._turns.setdefault(queue, now) for queue in self._active_queues]
        return min(turns, default=now)

    def _new_boto_client(self, *args: Any, **kwargs: Any) -> Any:
        """Count its requests. To be deleted once kombu lets somebody else make its clients."""
        return meter(super()._new_boto_client(*args, **kwargs))  # type: ignore[misc]

    @contextmanager
    def together(self) -> Iterator[list[tuple[str, dict[str, Any]]]]:
        """What is published meanwhile goes out in requests of ten, when this ends.

        The list of it: messages, each with the address of its queue before it. Raises botocore's
        errors, and `NotAllSent`. To be deleted once kombu sends batches.
        """
        put = self._together = []
        try:
            yield put
        finally:
            self._together = None
        batches.send(self.sqs(), put)

    def _put(self, queue: str, message: dict[str, Any], **kwargs: Any) -> None:
        if self._together is None:
            super()._put(queue, message, **kwargs)
        else:
            url: Any = self._new_queue(queue)  # type: ignore[func-returns-value]
            self._together.append((url, message))

    def basic_ack(self, delivery_tag: str, multiple: bool = False) -> None:
        """Delete the message in a while, together with others, and poll again if it was full.

        A message that is not deleted for some reason comes once more, if it lives that long, and
        is void then. To be deleted once kombu deletes in batches and off the main loop.
        """
        try:
            info = self.qos.get(delivery_tag).delivery_info
            message = info["sqs_queue"], info["sqs_message"]["ReceiptHandle"]
        except KeyError:
            pass  # Given back already, or none of SQS's.
        else:
            self.connection.deletions(self.sqs()).add(*message)
        self.qos.ack(delivery_tag)
        while self._waiting and self._has_room():
            queue, timer = self._waiting.popitem()
            timer.cancel()
            self.hub.call_soon(self._schedule_queue, queue)

    def _has_room(self) -> bool:
        """Whether a poll pays: kombu asks for as many messages as there is room for."""
        room = self.qos.can_consume_max_estimate()
        return room is None or room >= min(_ROOM, self.qos.prefetch_count)

    def _wait_for_room(self, queue: str) -> None:
        self._waiting[queue] = self.hub.call_later(_ROOM_SECONDS, self._look_again, queue)

    def _look_again(self, queue: str) -> None:
        if self._waiting.pop(queue, None) is None:
            return  # Consumed from twice, after it was given up for a moment: once is enough.
        self._turned(queue)
        if self.qos.can_consume():
            self._poll_queue(queue)
        else:
            self._wait_for_room(queue)

    def _turned(self, queue: str) -> None:
        self._turns[queue] = time.time()
        _polling.add(self)
        _beat()

    def _schedule_queue(self, queue: str) -> None:
        """Poll, or wait for room.

        kombu 5.7 looks for room every `polling_interval`, and polls for as little as there is.
        """
        self._turned(queue)
        if queue in self._active_queues and not self._has_room():
            self._wait_for_room(queue)
        else:
            self._poll_queue(queue)

    def _poll_queue(self, queue: str) -> None:
        """Poll again where a poll could not even be sent.

        kombu 5.7 signs it in a timer of its event loop, which logs an error and forgets the
        timer: credentials that cannot be refreshed for a moment are enough.
        """
        try:
            super()._schedule_queue(queue)  # type: ignore[misc]
        except Exception as error:  # noqa: BLE001 - botocore raises what it likes while it signs
            log.warning("a poll could not be sent", queue=queue, error=error)
            polls(queue).never_sent(error)
            self.hub.call_later(_PAUSE, self._schedule_queue, queue)

    def _get_from_sqs(
        self,
        queue_name: str,
        queue_url: str,
        connection: Any,
        count: int = 1,
        callback: Any = None,
    ) -> Any:
        """Poll again after an answer that is none.

        kombu 5.7 turns a 5xx answer and a lost connection into an empty list, on which
        `_on_messages_ready` fails (it wants a dict), and lets every other refusal (throttling,
        expired credentials) raise. To be deleted once `AsyncAWSQueryConnection._on_list_ready`
        returns one type and `Channel._schedule_queue` goes on after an error.
        """
        seen = polls(queue_name.removeprefix(self.queue_name_prefix))

        def again(error: BaseException | None = None) -> None:
            self._under_way -= 1
            problem = error or "no connection, or a server error"
            log.warning("SQS did not answer a poll", queue=queue_name, error=problem)
            seen.failed(error)
            self.hub.call_later(_PAUSE, callback, {})

        def received(answer: Any) -> None:
            if isinstance(answer, dict):
                self._under_way -= 1
                seen.answered(answer.get("Messages", ()))
                callback(answer)
            else:
                again()

        answered = promise(received, on_error=again)
        poll = super()._get_from_sqs(  # type: ignore[misc]
            queue_name, queue_url, connection, count, answered
        )
        self._under_way += 1
        return poll

    def finish_polls(self) -> None:
        """Turn the event loop until the polls that are under way are answered, or time out."""
        deadline = time.monotonic() + _POLL_SECONDS
        loop = self.hub.create_loop()
        while self._under_way and time.monotonic() < deadline:
            next(loop)

    def _on_messages_ready(self, queue: str, qname: str, messages: dict[str, Any]) -> int:
        """Handle each message by itself, so that a broken one harms no other.

        kombu 5.7 hands them over in one loop without a guard. A message that cannot be handled
        gives back its place in the prefetch window, and is left to SQS, which removes it within
        a minute.
        """
        if qname not in self.connection._callbacks:
            # A worker that is ending: kombu makes them all visible again.
            return super()._on_messages_ready(queue, qname, messages)  # type: ignore[misc, no-any-return]
        handled = 0
        for message in messages.get("Messages", ()):
            try:
                one = {"Messages": [message]}
                handled += super()._on_messages_ready(queue, qname, one)  # type: ignore[misc]
            except Exception as error:  # noqa: BLE001 - kombu and Celery raise what they like
                said = {"queue": qname, "error": error, "exc_info": error}
                log.error("a message cannot be handled", **said)
                self.qos.ack(message["ReceiptHandle"])
        return handled


class Transport(SQS.Transport):
    """kombu's SQS transport with our channel."""

    Channel = Channel

    _deletions: batches.Deletions | None = None

    def deletions(self, sqs: Any) -> batches.Deletions:
        """Of all its channels."""
        if self._deletions is None:
            self._deletions = batches.Deletions(sqs)
        return self._deletions

    def close_connection(self, connection: Any) -> None:
        super().close_connection(connection)
        if self._deletions is not None:
            self._deletions.close()
            self._deletions = None

    def establish_connection(self) -> Any:
        """Celery waits for a broker that is away in a loop, which comes by here."""
        if threading.current_thread() is threading.main_thread():
            _beat()
        return super().establish_connection()
