"""Answers that are kept for some seconds, so that many readers cost no more than one.

Whoever asks waits for a moment only, whatever AWS does: one thread at a time asks it. What is not
known is not shown: a 0 or an old number would say that all is well.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

import structlog

log = structlog.get_logger(__name__)

KEPT = 5.0
"""Seconds for which an answer is good, and a failure too: scrapes come every 15 or 30."""

PATIENCE = 3.0
"""Seconds that a reader waits for all of it; Prometheus gives up after 10."""

Answer = TypeVar("Answer")


class Kept(Generic[Answer]):
    """The answer to a question, asked again once it is older than `KEPT`."""

    def __init__(self, what: str, ask: Callable[[], Answer]) -> None:
        self._what = what
        self._ask = ask
        self._lock = threading.Lock()
        self._answer: Future[Answer] | None = None
        self._good_until = 0.0

    def begin(self) -> Future[Answer]:
        """The answer, or a promise of it; its exception where there is none."""
        with self._lock:
            answer = self._answer
            if answer is None or (answer.done() and time.monotonic() > self._good_until):
                answer = self._answer = Future()
                # Not of a pool, which would be waited for when the process ends.
                threading.Thread(target=self._run, args=(answer,), daemon=True).start()
        return answer

    def _run(self, answer: Future[Answer]) -> None:
        try:
            found = self._ask()
        except Exception as error:  # noqa: BLE001 - whatever it is, the rest is to be shown
            kind = type(error).__name__
            log.warning("a part of what is shown cannot be read", what=self._what, error=kind)
            self._good_until = time.monotonic() + KEPT
            answer.set_exception(error)
        else:
            self._good_until = time.monotonic() + KEPT
            answer.set_result(found)


def within(promise: Future[Answer], until: float) -> Answer | None:
    """The answer, if it comes until then (by `time.monotonic`) and is one."""
    try:
        return promise.result(max(0, until - time.monotonic()))
    except Exception:  # noqa: BLE001 - logged by the thread that asked
        return None
