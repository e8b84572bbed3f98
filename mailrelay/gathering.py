"""Lets threads that want the same thing at the same time share one request.

A request costs the same whatever it carries: signing, a round trip, parsing. A process that has
many emails in hand writes them down together, and each thread goes on with its own result.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

Wanted = TypeVar("Wanted")
Result = TypeVar("Result")


class _Ticket(Generic[Wanted, Result]):
    """One thread's part of a shared request."""

    __slots__ = ("_woken", "error", "leads", "result", "wanted")

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.leads = False
        self.result: Result | None = None
        self.error: BaseException | None = None
        self._woken = threading.Lock()
        self._woken.acquire()

    def wait(self, seconds: float = -1) -> None:
        self._woken.acquire(timeout=seconds)

    def wake(self) -> None:
        if self._woken.locked():
            self._woken.release()


class Gatherer(Generic[Wanted, Result]):
    """Calls `many` with what several threads want, or `one` for a thread that is alone.

    The first thread that comes waits `linger` seconds for others, unless nobody else was here
    lately: then it does not wait at all. `many` returns a result, or the exception to raise, for
    each thing in its order; what it raises itself, all of them raise. Things with the same `key`
    never go together.
    """

    def __init__(
        self,
        one: Callable[[Wanted], Result],
        many: Callable[[Sequence[Wanted]], Sequence[Result | Exception]],
        *,
        key: Callable[[Wanted], Hashable],
        limit: int,
        linger: float,
    ) -> None:
        self._one = one
        self._many = many
        self._key = key
        self._limit = limit
        self._linger = linger
        self._lock = threading.Lock()
        self._waiting: list[_Ticket[Wanted, Result]] = []
        self._last = self._other = (0, float("-inf"))
        """Who came last, and when; and the same of the last one that was another thread."""

    def __call__(self, wanted: Wanted) -> Result:
        """The result for `wanted`; raises what `one` or `many` raises, or returns, for it."""
        ticket: _Ticket[Wanted, Result] = _Ticket(wanted)
        with self._lock:
            busy = self._others_lately()
            self._waiting.append(ticket)
            ticket.leads = len(self._waiting) == 1
            if len(self._waiting) >= self._limit:
                self._waiting[0].wake()
        if not ticket.leads:
            ticket.wait()
        if ticket.leads:
            if busy and len(self._waiting) < self._limit:
                ticket.wait(self._linger)
            self._send(self._take())
        if ticket.error is not None:
            raise ticket.error
        return ticket.result  # type: ignore[return-value]

    def _others_lately(self) -> bool:
        """Whether it pays to wait. A thread that does one thing after the other is no company."""
        me, now = threading.get_ident(), time.monotonic()
        if me != self._last[0]:
            self._other = self._last
        self._last = (me, now)
        return now - self._other[1] < self._linger * 2

    def _take(self) -> list[_Ticket[Wanted, Result]]:
        """The leader's batch; the first of those left over leads the next one."""
        batch: list[_Ticket[Wanted, Result]] = []
        left: list[_Ticket[Wanted, Result]] = []
        keys = set()
        with self._lock:
            for ticket in self._waiting:
                key = self._key(ticket.wanted)
                if len(batch) < self._limit and key not in keys:
                    keys.add(key)
                    batch.append(ticket)
                else:
                    left.append(ticket)
            self._waiting = left
            if left:
                left[0].leads = True
                left[0].wake()
        return batch

    def _send(self, batch: list[_Ticket[Wanted, Result]]) -> None:
        try:
            if len(batch) == 1:
                batch[0].result = self._one(batch[0].wanted)
                return
            results = self._many([ticket.wanted for ticket in batch])
            for ticket, result in zip(batch, results, strict=True):
                if isinstance(result, Exception):
                    ticket.error = result
                else:
                    ticket.result = result
        except BaseException as error:  # noqa: BLE001 - it belongs to each thread that waits
            for ticket in batch:
                ticket.error = error
        finally:
            for ticket in batch[1:]:
                ticket.wake()
