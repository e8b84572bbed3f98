"""The task that beat enqueues for each shard: bring back what was abandoned."""

from __future__ import annotations

from celery.utils.log import get_task_logger

from mailrelay.queue import QueueUnavailable
from mailrelay.store import StoreUnavailable
from tasks.app import app
from tasks.process import parts

log = get_task_logger(__name__)


@app.task(name="tasks.sweep")
def sweep(shard: int) -> None:
    """Sweep one shard of the due index, for at most about the time between two sweeps."""
    try:
        swept = parts().sweeper.sweep(shard, parts().settings.sweep_interval)
    except (StoreUnavailable, QueueUnavailable) as error:
        log.warning("shard %d is left for the next sweep: %s", shard, error)
        return
    if swept.enqueued or swept.ended or swept.withdrawn:
        log.info(
            "shard %d: %d enqueued, %d ended or deferred, %d batches withdrawn",
            *(shard, swept.enqueued, swept.ended, swept.withdrawn),
        )
