"""Remote control over the fan-out: ``celery inspect``, ``celery control`` and Flower's buttons.

A question goes to the control topic, which every worker listens to in a thread of its own, beside
the main loop; an answer goes straight to the inbox of the process that asked.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog
from celery import bootsteps
from celery.app.control import Control as CeleryControl
from celery.utils.collections import AttributeDict
from celery.worker import state as worker_state
from celery.worker.control import Panel, control_command
from kombu import pidbox
from kombu.utils.uuid import uuid

from mailrelay.provision import CONTROL_TOPIC
from tasks.fanout import Inbox, fanout

log = structlog.get_logger(__name__)


_celerys_add_consumer = Panel.data["add_consumer"]


@control_command(args=[("queue", str)], signature="<queue>")
def add_consumer(state: Any, queue: str, **options: Any) -> dict[str, str]:
    """Tell worker(s) to consume from one of the relay's queues again.

    In place of Celery's, which makes a queue of any name, for which nothing here has tasks.
    """
    queues = state.app.amqp.queues
    if queue not in queues:
        return {"error": f"there is no queue {queue}; there are {', '.join(sorted(queues))}"}
    return dict(_celerys_add_consumer(state, queue, **options))


class Replies:
    """The answers to this process's questions, for many threads that each wait for their own."""

    def __init__(self, inbox: Inbox) -> None:
        self.inbox = inbox
        self._arrived: dict[str, deque[Any]] = {}
        self._receiving = threading.Lock()

    def ask(
        self,
        publish: Callable[[str], None],
        limit: int | None,
        seconds: float,
        callback: Callable[[Any], object] | None,
    ) -> list[Any]:
        """Have `publish` ask under a ticket; what is answered within about `seconds`.

        Not longer than until there are `limit` answers. Raises botocore's errors.
        """
        ticket = uuid()
        arrived = self._arrived[ticket] = deque()
        answers: list[Any] = []
        try:
            self.inbox.open()  # before anybody answers
            publish(ticket)
            deadline = time.monotonic() + seconds
            while (left := deadline - time.monotonic()) > 0 and len(answers) != limit:
                # Whoever waits receives for all. SQS waits for whole seconds.
                if self._receiving.acquire(timeout=left):
                    try:
                        if not arrived:
                            self._sort(self.inbox.receive(1))
                    finally:
                        self._receiving.release()
                while arrived:
                    answers.append(arrived.popleft())
                    if callback:
                        callback(answers[-1])
        finally:
            del self._arrived[ticket]
        return answers

    def _sort(self, received: Sequence[Mapping[str, Any]]) -> None:
        for reply in received:
            waiting = self._arrived.get(reply["ticket"])
            if waiting is not None:  # else it came too late
                waiting.append(reply["answer"])


class ControlMailbox(pidbox.Mailbox):
    """kombu's mailbox, with our way for its messages."""

    replies: Replies

    def _broadcast(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        destination: Sequence[str] | None = None,
        reply: bool = False,
        timeout: float | None = 1,
        limit: int | None = None,
        callback: Callable[[Any], object] | None = None,
        channel: Any = None,
        serializer: Any = None,
        pattern: str | None = None,
        matcher: str | None = None,
    ) -> list[Any] | None:
        """Ask the workers in `destination`, or all; None unless they shall `reply`.

        Raises `ValueError` for a destination that is no list, as kombu's own does.
        """
        if destination is not None and not isinstance(destination, (list, tuple)):
            raise ValueError(f"destination must be a list or a tuple, not {type(destination)}")
        message = {
            "method": command,
            "arguments": dict(arguments or {}),
            "destination": destination,
            "pattern": pattern,
            "matcher": matcher,
        }
        if not reply:
            fanout().publish(CONTROL_TOPIC, message)
            return None
        replies = self.replies

        def publish(ticket: str) -> None:
            to = {"exchange": "", "routing_key": replies.inbox.queue}
            fanout().publish(CONTROL_TOPIC, {**message, "ticket": ticket, "reply_to": to})

        return replies.ask(
            publish, limit or len(destination or ()) or None, timeout or 1, callback
        )

    def _publish_reply(  # type: ignore[override]
        self, reply: Any, exchange: str, routing_key: str, ticket: str, **_: Any
    ) -> None:
        """A worker's answer."""
        fanout().send(routing_key, {"ticket": ticket, "answer": reply})


class Control(CeleryControl):
    """`app.control` with that mailbox."""

    Mailbox = ControlMailbox
    mailbox: ControlMailbox

    def __init__(self, app: Any = None) -> None:
        super().__init__(app)
        # kombu copies the mailbox for each call; what is here is shared by the copies.
        self.mailbox.replies = Replies(Inbox(fanout(), "replies", fanout().listener))


class ControlStep(bootsteps.StartStopStep):
    """Has a worker listen to the control topic, from its start to its end.

    In place of Celery's own step, which runs on the main loop: asking SNS and SQS there would
    hold up every email whenever one of them is slow.
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)
        self._inbox: Inbox | None = None

    def start(self, consumer: Any) -> None:
        """Also called when the consumer has lost its connection; that is none of ours."""
        if self._inbox is None:
            self._inbox = Inbox(fanout(), "control", consumer.hostname, CONTROL_TOPIC)
            threading.Thread(
                target=_obey, args=(consumer, self._inbox), name="control", daemon=True
            ).start()

    def stop(self, consumer: Any) -> None:
        """As for `start`."""

    def shutdown(self, consumer: Any) -> None:
        if self._inbox is not None:
            self._inbox.close()


def _obey(consumer: Any, inbox: Inbox) -> None:
    state = AttributeDict(
        app=consumer.app, hostname=consumer.hostname, consumer=consumer, tset=set
    )
    node = consumer.app.control.mailbox.Node(consumer.hostname, state, handlers=Panel.data)
    for message in inbox.listen():
        try:
            node.handle_message(message)
        except SystemExit as stop:
            # What Celery's `shutdown` raises; in a thread it would end nothing.
            worker_state.should_stop = stop.code or 0  # type: ignore[assignment]
        except Exception as error:  # noqa: BLE001 - whatever somebody asked, we go on listening
            log.warning("a control command failed", error=error)
