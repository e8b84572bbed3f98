"""How often a page looks again whether what it shows has changed. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from mailrelay.message import Status

MOVING = (Status.QUEUED, Status.SENDING, Status.DEFERRED)
"""What changes by itself. An `unknown` email waits for a person."""

_SHORTEST, _LONGEST = 1, 30
"""Seconds."""


def seconds(statuses: Iterable[Status], last_change: int, now: int) -> int | None:
    """Seconds until the next look; None where nothing changes by itself any more.

    The longer nothing has happened, the less often: a twentieth of that. Times in milliseconds.
    """
    if not any(status in MOVING for status in statuses):
        return None
    return min(max(round((now - last_change) / 20_000), _SHORTEST), _LONGEST)
