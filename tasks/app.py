"""The Celery application."""

from __future__ import annotations

from celery import Celery
from kombu.transport import TRANSPORT_ALIASES

import tasks.flower  # noqa: F401 - hears when Flower starts

TRANSPORT_ALIASES["mailrelay-sqs"] = "tasks.transport:Transport"

app = Celery(
    "tasks",
    include=["tasks.deliver", "tasks.sweep", "tasks.metrics"],
    control="tasks.control:Control",
    events="tasks.events:Events",
)
app.config_from_object("celeryconfig")
app.steps["consumer"].add("tasks.control:ControlStep")
app.steps["consumer"].add("tasks.shutdown:LastPolls")
