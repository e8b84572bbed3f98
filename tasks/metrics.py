"""A worker's metrics, on a port of its own.

A worker is one process with threads, so that what it counts is all there is. A pool of processes
(`--pool prefork`) would count in places that nobody reads.
"""

from __future__ import annotations

from typing import Any

import structlog
from celery.signals import celeryd_after_setup
from prometheus_client import disable_created_metrics, start_http_server

from mailrelay import metrics
from mailrelay.provision import DELIVER_QUEUE, SWEEP_QUEUE
from tasks.process import parts

log = structlog.get_logger(__name__)


@celeryd_after_setup.connect
def _serve(**_: Any) -> None:
    """Before the worker connects to the broker: that it cannot is worth seeing too."""
    settings = parts().settings
    if settings.metrics_port == 0:
        return
    metrics.begin_at_zero(settings.providers, (DELIVER_QUEUE, SWEEP_QUEUE))
    disable_created_metrics()
    try:
        start_http_server(settings.metrics_port, settings.metrics_address, metrics.REGISTRY)
    except OSError as error:
        # Such as the port of another worker of this machine.
        log.warning(
            "no metrics: set MAILRELAY_METRICS_PORT to a port that is free, or to 0",
            address=f"{settings.metrics_address}:{settings.metrics_port}",
            error=error.strerror,
        )
