"""Celery's events over the fan-out: sent in batches by a thread of their own, and received.

Events are for watching. They must never slow a send or a worker's end, so they wait in a bounded
buffer, and one that SNS does not take is lost.
"""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import structlog
from botocore.exceptions import BotoCoreError, ClientError
from celery.app.events import Events as CeleryEvents
from celery.events import EventDispatcher, EventReceiver

from mailrelay.provision import EVENTS_TOPIC
from tasks.app import app
from tasks.fanout import Inbox, fanout

log = structlog.get_logger(__name__)

GATHER_SECONDS = 0.5
"""How long an event waits for others: it is shown within two seconds."""

_BATCH = 500
"""Events in one message: some 30 KB compressed, of the 256 KB that SNS takes."""

_CAPACITY = 10_000
"""Events that wait at most, a few megabytes; then the oldest are lost."""

_LONGEST_PAUSE = 30.0
"""Seconds between two tries while SNS fails."""

_LAST_SECONDS = 2.0
"""What the last events of a process get to be sent in."""


class Outbox:
    """Events on their way out."""

    def __init__(self, publish: Callable[[list[Any]], None]) -> None:
        self._publish = publish
        self._events: deque[Any] = deque(maxlen=_CAPACITY)
        self._some = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)
        self._thread.start()

    def add(self, events: list[Any]) -> None:
        self._events.extend(events)
        self._some.set()

    def close(self) -> None:
        """Send what is there, if that takes no longer than a moment."""
        self._closing.set()
        self._some.set()
        self._thread.join(_LAST_SECONDS)

    def _run(self) -> None:
        pause = GATHER_SECONDS
        while not self._closing.is_set() or self._events:
            self._some.wait()
            # A full batch waits for nobody, unless SNS fails.
            if len(self._events) < _BATCH or pause > GATHER_SECONDS:
                self._closing.wait(pause)
            self._some.clear()
            batch = [self._events.popleft() for _ in range(min(_BATCH, len(self._events)))]
            if self._events:
                self._some.set()
            if not batch:
                continue
            try:
                self._publish(batch)
                pause = GATHER_SECONDS
            except Exception as error:  # noqa: BLE001 - whatever SNS does, sending goes on
                log.warning("events cannot be sent and are lost", events=len(batch), error=error)
                if self._closing.is_set():
                    return
                pause = min(pause * 2, _LONGEST_PAUSE)


class Dispatcher(EventDispatcher):
    """What a worker tells its events to; with `MAILRELAY_EVENTS=off`, nothing comes of it."""

    def __init__(
        self,
        connection: Any = None,
        hostname: str | None = None,
        enabled: bool = True,
        **kwargs: Any,
    ) -> None:
        self._outbox: Outbox | None = None
        super().__init__(connection, hostname, enabled, **kwargs)
        if not app.conf.worker_send_task_events:
            self.enabled = False

    def send(self, type: str, *args: Any, **fields: Any) -> Any:
        """Without what an exception says, and where it came by: that may quote a mail."""
        if "exception" in fields:
            kind = re.match(r"[A-Za-z_][A-Za-z0-9_.]*(?=\()", str(fields["exception"]))
            fields["exception"] = kind[0] if kind else "an exception"
        fields.pop("traceback", None)
        return super().send(type, *args, **fields)

    def _publish(self, event: Any, producer: Any, routing_key: str, **_: Any) -> None:
        """Celery 5.7 publishes here, on the worker's main loop; one event or a list."""
        if producer is None:
            return
        if self._outbox is None:
            self._outbox = Outbox(lambda batch: fanout().publish(EVENTS_TOPIC, batch))
        self._outbox.add(event if isinstance(event, list) else [event])

    def close(self) -> None:
        self.flush(errors=False)  # Celery forgets the events of tasks that have just ended.
        super().close()
        if self._outbox is not None:
            self._outbox.close()
            self._outbox = None


class Receiver(EventReceiver):
    """What Flower and ``celery events`` hear events by."""

    def capture(
        self, limit: int | None = None, timeout: float | None = None, wakeup: bool = True
    ) -> None:
        """Handle events for ever: none of Celery's and Flower's callers asks for less."""
        inbox = Inbox(fanout(), "events", fanout().listener, EVENTS_TOPIC)
        try:
            if wakeup:
                # While AWS is away, each heartbeat of a worker says what they would answer.
                with suppress(BotoCoreError, ClientError):
                    inbox.open()  # before they answer
                    self.wakeup_workers()
            for events in inbox.listen():
                self._receive(events, None)  # type: ignore[attr-defined]
        finally:
            inbox.close()
        # The process is ending. Flower's thread would begin again, and leave a new inbox behind.
        threading.Event().wait()


class Events(CeleryEvents):
    """`app.events` with the two above."""

    receiver_cls = "tasks.events:Receiver"
    dispatcher_cls = "tasks.events:Dispatcher"
