"""The pool of a worker: Celery's threads, which can be more or fewer while it runs."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from celery.concurrency import thread


class TaskPool(thread.TaskPool):
    """Celery 5.7's thread pool with what ``pool_grow`` and ``pool_shrink`` call."""

    executor: ThreadPoolExecutor

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._resizing = threading.Lock()
        self._retired: list[ThreadPoolExecutor] = []

    def on_apply(self, *args: Any, **kwargs: Any) -> Any:
        with self._resizing:
            return super().on_apply(*args, **kwargs)

    def grow(self, n: int = 1) -> None:
        """Run `n` more at a time."""
        self._resize(self.limit + n)

    def shrink(self, n: int = 1) -> None:
        """Run `n` fewer at a time; what runs is finished. Raises `ValueError` if none were left."""
        if n >= self.limit:
            raise ValueError(f"a pool of {self.limit} cannot shrink by {n}: one has to stay")
        self._resize(self.limit - n)

    def _resize(self, limit: int) -> None:
        """An executor's size is fixed: a new one takes what comes, the old one ends its work."""
        with self._resizing:
            self.limit = limit
            self.executor.shutdown(wait=False)
            self._retired.append(self.executor)
            self.executor = ThreadPoolExecutor(max_workers=limit)

    def on_stop(self) -> None:
        super().on_stop()
        for executor in self._retired:
            executor.shutdown(cancel_futures=True)
