"""The task that sends one email through one provider, and enqueues itself for the next one."""

from __future__ import annotations

import structlog
from celery import Task

from mailrelay.message import EmailId, Hint
from mailrelay.queue import QueueUnavailable
from mailrelay.store import StoreUnavailable
from tasks.app import app
from tasks.process import parts
from tasks.queue import DELIVER_TASK, request_id

log = structlog.get_logger(__name__)


@app.task(name=DELIVER_TASK, bind=True)
def deliver(task: Task, email_id: str, provider_index: int, attempt: int) -> None:  # type: ignore[type-arg]
    """Make attempt number `attempt` at an email, with the provider at `provider_index`.

    The arguments are ids and numbers, never anything of the mail: they lie in SQS and show in
    logs and in Flower. A task that is lost, late or run twice does no harm (see
    `mailrelay.delivery`).
    """
    parsed = EmailId.parse(email_id)
    if parsed is None:
        log.error("a task for something that is no email's id was dropped")
        return
    try:
        hint = Hint(parsed, provider_index, attempt, request_id(task))
        following = parts().courier.deliver(hint)
        if following is not None:
            parts().queue.put([following])
    except (StoreUnavailable, QueueUnavailable) as error:
        log.warning("an email is left for the sweep", email_id=email_id, error=error)
