"""The Celery application."""

from __future__ import annotations

from celery import Celery
from kombu.transport import TRANSPORT_ALIASES

TRANSPORT_ALIASES["mailrelay-sqs"] = "tasks.transport:Transport"

app = Celery("tasks", include=["tasks.deliver", "tasks.sweep", "tasks.logs"])
app.config_from_object("celeryconfig")
