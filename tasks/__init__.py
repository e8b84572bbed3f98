"""The relay's Celery application: ``celery -A tasks worker`` and ``celery -A tasks beat``.

The tasks are thin: what an attempt or a sweep does is in `mailrelay`, which knows no Celery.
"""

from tasks import logs  # noqa: F401 - before Celery says anything
from tasks.app import app

__all__ = ["app"]
