"""How fast each provider may be asked, by all workers together.

Each request has a place in time, spaced as the rate says. A worker reserves places for as many of
its threads as want one, in one write, and each thread waits for its own.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from enum import Enum, auto

from mailrelay import clock
from mailrelay.shared import Shared

_MICROSECONDS = 1_000_000

_LEAST_HORIZON, _MOST_HORIZON = 2.0, 15.0
"""Seconds that places are given away ahead. Who gets none blocks no thread, and comes back with a
sweep: places that are not given away until the next one are not used."""

_MOST_AT_ONCE = _MICROSECONDS
"""How much of a provider's time one reservation takes at most, unless one place is more."""

_GRACE = _MICROSECONDS
"""For how long a place may still be taken after its time."""

_FULL = _MICROSECONDS // 10
"""For how long a worker believes that all places are taken, so that not each of its emails asks.
Far less than the horizon: no place is lost by it."""


class Turn(Enum):
    """What came of waiting for a place."""

    COME = auto()
    TOO_FAR = auto()
    """All places of the near future are taken."""
    STOPPED = auto()


class Rates:
    """The limits of some providers; one without a limit never waits."""

    def __init__(
        self, shared: Shared, rates: Mapping[str, float], *, sweep_interval: float
    ) -> None:
        """`rates` has emails a second, by provider; `sweep_interval` is in seconds."""
        horizon = min(max(sweep_interval, _LEAST_HORIZON), _MOST_HORIZON)
        self._lanes = {
            name: _Lane(shared, name, rate, round(horizon * _MICROSECONDS))
            for name, rate in rates.items()
        }

    def wait(self, provider: str, stopping: threading.Event) -> Turn:
        """Wait until one email may go to `provider`; raises `StoreUnavailable`."""
        lane = self._lanes.get(provider)
        if lane is None:
            return Turn.COME
        place = lane.place()
        if place is None:
            return Turn.TOO_FAR
        stopped = stopping.wait(max(0, place - _now()) / _MICROSECONDS)
        return Turn.STOPPED if stopped else Turn.COME


class _Lane:
    """The places at one provider that this process has reserved."""

    def __init__(self, shared: Shared, provider: str, rate: float, horizon: int) -> None:
        self._shared = shared
        self._horizon = horizon
        self._provider = provider
        # Rounded up: a limit is a limit.
        self._step = math.ceil(_MICROSECONDS / rate)
        self._lock = threading.Lock()
        self._wanted = 0
        self._wanted_lock = threading.Lock()
        self._places: list[int] = []
        self._full_until = 0

    def place(self) -> int | None:
        """When the next request may be made, in microseconds since the epoch."""
        with self._wanted_lock:
            self._wanted += 1
        try:
            with self._lock:
                return self._take()
        finally:
            with self._wanted_lock:
                self._wanted -= 1

    def _take(self) -> int | None:
        now = _now()
        while self._places:
            place = self._places.pop(0)
            if place > now - _GRACE:
                return place
        if now < self._full_until:
            return None
        count = max(1, min(self._wanted, _MOST_AT_ONCE // self._step))
        first = self._shared.reserve(self._provider, now, count * self._step, self._horizon)
        if first is None:
            self._full_until = now + _FULL
            return None
        self._places = [first + self._step * index for index in range(1, count)]
        return first


def _now() -> int:
    return clock.now() * 1000
