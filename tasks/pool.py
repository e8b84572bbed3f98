"""The pool of a worker: Celery's threads, which can be more or fewer while it runs."""

from __future__ import annotations

import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from celery.concurrency import thread
from celery.concurrency.base import apply_target


class TaskPool(thread.TaskPool):
    """Celery 5.7's thread pool with what ``pool_grow`` and ``pool_shrink`` call."""

    executor: ThreadPoolExecutor

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._turn = threading.Condition()
        self._running = 0
        self._threads = self.limit
        """How many the executor has at most: as many as `limit` ever was."""
        self._retired: list[ThreadPoolExecutor] = []
        self._bell: socket.socket | None = None

    def on_apply(
        self,
        target: Any,
        args: Any = None,
        kwargs: Any = None,
        callback: Any = None,
        accept_callback: Any = None,
        **_: Any,
    ) -> Any:
        """As Celery's, but each task waits for its turn."""

        def accepted(*told: Any) -> None:
            if accept_callback is not None:
                accept_callback(*told)
            self._wake()

        with self._turn:
            future = self.executor.submit(self._run, target, args, kwargs, callback, accepted)
        return thread.ApplyResult(future)  # type: ignore[attr-defined]

    def _run(self, *task: Any) -> None:
        with self._turn:
            self._turn.wait_for(lambda: self._running < self.limit)
            self._running += 1
        try:
            apply_target(*task)
        finally:
            with self._turn:
                self._running -= 1
                self._turn.notify()

    def register_with_event_loop(self, loop: Any) -> None:
        """Celery acknowledges a task on its event loop, which does not hear of it from a thread.

        kombu 5.7's waits for a socket or a timer, and an acknowledgement makes room for the next
        message: so there is a socket for it.
        """
        ours, self._bell = socket.socketpair()
        ours.setblocking(False)
        self._bell.setblocking(False)
        loop.add_reader(ours, self._heard, ours)

    def _wake(self) -> None:
        if self._bell is not None:
            with suppress(BlockingIOError):  # rung already, many times
                self._bell.send(b"!")

    @staticmethod
    def _heard(ours: socket.socket) -> None:
        with suppress(BlockingIOError):
            ours.recv(4096)

    def grow(self, n: int = 1) -> None:
        """Run `n` more at a time."""
        self._resize(self.limit + n)

    def shrink(self, n: int = 1) -> None:
        """Run `n` fewer at a time; what runs is finished. Raises `ValueError` if none were left."""
        if n >= self.limit:
            raise ValueError(f"a pool of {self.limit} cannot shrink by {n}: one has to stay")
        self._resize(self.limit - n)

    def _resize(self, limit: int) -> None:
        with self._turn:
            self.limit = limit
            if limit > self._threads:
                # An executor's size is fixed: a new one takes what comes, the old one ends its
                # work.
                self.executor.shutdown(wait=False)
                self._retired.append(self.executor)
                self.executor = ThreadPoolExecutor(max_workers=limit)
                self._threads = limit
            self._turn.notify_all()

    def on_stop(self) -> None:
        super().on_stop()
        for executor in self._retired:
            executor.shutdown(cancel_futures=True)
