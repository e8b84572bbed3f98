"""kombu's SQS transport, without the errors after which a worker never polls again.

Each poll of kombu's is started by the one before it: an exception on the way from an answer to
the next poll ends the chain, and the worker is deaf until it is restarted, though it looks alive.
"""

from __future__ import annotations

from typing import Any

from kombu.log import get_logger
from kombu.transport import SQS
from vine import promise

log = get_logger(__name__)

_PAUSE = 1.0
"""Seconds until the next poll after SQS failed to answer one."""


class Channel(SQS.Channel):
    """A channel whose polling survives any answer and any message."""

    hub: Any
    qos: Any

    def _schedule_queue(self, queue: str) -> None:
        """Poll again where a poll could not even be sent.

        kombu 5.7 signs it in a timer of its event loop, which logs an error and forgets the
        timer: credentials that cannot be refreshed for a moment are enough.
        """
        try:
            super()._schedule_queue(queue)  # type: ignore[misc]
        except Exception as error:  # noqa: BLE001 - botocore raises what it likes while it signs
            log.warning("a poll of %s could not be sent: %s", queue, type(error).__name__)
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

        def again(error: BaseException | None = None) -> None:
            # Without the error's text: AWS quotes the request in it, credentials included.
            problem = type(error).__name__ if error else "no connection, or a server error"
            log.warning("SQS did not answer a poll of %s: %s", queue_name, problem)
            self.hub.call_later(_PAUSE, callback, {})

        def received(answer: Any) -> None:
            if isinstance(answer, dict):
                callback(answer)
            else:
                again()

        answered = promise(received, on_error=again)
        return super()._get_from_sqs(  # type: ignore[misc]
            queue_name, queue_url, connection, count, answered
        )

    def _on_messages_ready(self, queue: str, qname: str, messages: dict[str, Any]) -> int:
        """Handle each message by itself, so that a broken one harms no other.

        kombu 5.7 hands them over in one loop without a guard. A message that cannot be handled
        gives back its place in the prefetch window, and is left to SQS, which removes it within
        a minute.
        """
        handled = 0
        for message in messages.get("Messages", ()):
            try:
                one = {"Messages": [message]}
                handled += super()._on_messages_ready(queue, qname, one)  # type: ignore[misc]
            except Exception as error:  # noqa: BLE001 - kombu and Celery raise what they like
                log.error("a message of %s cannot be handled: %s", qname, type(error).__name__)
                self.qos.ack(message["ReceiptHandle"])
        return handled


class Transport(SQS.Transport):
    """kombu's SQS transport with our channel."""

    Channel = Channel
