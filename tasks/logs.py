"""What workers and beat say at the level INFO: what happened to emails, not to messages."""

from __future__ import annotations

import logging
from typing import Any

from celery.signals import after_setup_logger

_CHATTY = (
    "botocore",  # where it found which credentials, for each client
    "celery.app.trace",  # "Task … succeeded in …": the courier and the sweep say what they did
    "celery.worker.strategy",  # "Task … received"
    "kombu.transport.virtual",  # "Restoring … unacknowledged messages"
)


@after_setup_logger.connect
def _quiet(**_: Any) -> None:
    """Only warnings of these: they would say two lines for each email and eight a sweep."""
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
