"""A worker that is told to end takes nothing more, and gives back at once what it will not send."""

from __future__ import annotations

from typing import Any

from celery import bootsteps
from celery.worker import state
from kombu.common import ignore_errors


class LastPolls(bootsteps.StartStopStep):
    """Wait for the polls that are under way, while the pool finishes what it is sending.

    Celery would leave them, and SQS gives messages to a poll whether anybody still listens or not:
    their emails would wait for the sweep, a message's life later. What these polls bring, kombu
    makes visible to other workers, since nobody here consumes any more.
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def stop(self, c: Any) -> None:
        # Also called where the connection is lost, and begun again: those polls are answered by
        # nobody.
        if state.should_stop is not None and c.task_consumer is not None:
            ignore_errors(c, c.task_consumer.cancel)
            c.task_consumer.channel.finish_polls()
