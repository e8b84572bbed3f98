"""The task that beat enqueues for each shard: bring back what was abandoned."""

from __future__ import annotations

import structlog

from mailrelay.items import DUE_SHARDS
from mailrelay.queue import QueueUnavailable
from mailrelay.store import StoreUnavailable
from tasks.app import app
from tasks.process import parts

log = structlog.get_logger(__name__)


@app.task(name="tasks.sweep")
def sweep(shard: int) -> None:
    """Start sweeping one shard of the due index, unless this process is at it already.

    It has a thread of its own: a sweep may wait for room in the queue, which the threads of the
    pool have to make; of threads there are no more than shards, whoever may have sent the task.
    """
    if not isinstance(shard, int) or shard not in range(DUE_SHARDS):
        log.error("a task for something that is no shard was dropped")
        return
    parts().sweeps.start(shard, _sweep)


def _sweep(shard: int) -> None:
    try:
        parts().sweeper.sweep(shard, parts().settings.sweep_interval)
    except (StoreUnavailable, QueueUnavailable) as error:
        log.warning("a shard is left for the next sweep", shard=shard, error=error)
