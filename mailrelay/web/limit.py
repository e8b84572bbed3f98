"""How often each API key may ask, so that one client that runs wild leaves room for the others.

Counted by each web process for itself, in memory: the answer must not need a store that is slow or
away, which is when clients ask most often. Why this and no library: docs/decisions/0013-limits.md.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from mailrelay.values import RequestLimit


class Limiter:
    """The generic cell rate algorithm (ITU-T I.371): a full allowance at once, refilled evenly.

    In any time t a key gets at most `limit.requests` and what t refills. There are as many entries as
    there are keys configured.
    """

    def __init__(self, limit: RequestLimit, now: Callable[[], float] = time.monotonic) -> None:
        """`now` is in seconds, from any point in time."""
        self._interval = limit.seconds / limit.requests
        self._period = limit.seconds
        self._now = now
        self._full_at: dict[str, float] = {}
        """When a key will have its full allowance again."""
        self._lock = threading.Lock()

    def take(self, key_name: str) -> float:
        """Count a request: 0, or in how many seconds it may come again; it is not counted then."""
        with self._lock:
            now = self._now()
            full_at = max(self._full_at.get(key_name, now), now) + self._interval
            # Less than a billionth of a second is the error of adding fractions up.
            if (wait := full_at - now - self._period) > 1e-9:
                return wait
            self._full_at[key_name] = full_at
            return 0
