"""Times as people say them, with the exact one at hand. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta

import humanize
from markupsafe import Markup

from mailrelay.clock import rfc3339


def relative(ms: int, now: int) -> str:
    """``5 seconds ago``, ``in 2 minutes``; both in milliseconds since the epoch."""
    seconds = round((ms - now) / 1000)
    if seconds == 0:
        return "now"
    said = humanize.naturaldelta(timedelta(seconds=abs(seconds)))
    return f"in {said}" if seconds > 0 else f"{said} ago"


def exact(ms: int) -> str:
    """``2026-11-24 18:40:08.123 UTC``"""
    return rfc3339(ms).replace("T", " ").replace("Z", " UTC")


def tag(ms: int, now: int) -> Markup:
    """The relative time as HTML, the exact one in its title."""
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        rfc3339(ms), exact(ms), relative(ms, now)
    )


def duration(ms: int | None) -> str:
    """``41 ms``, ``1.2 s``; a dash where nobody measured it."""
    if ms is None:
        return "–"
    return f"{ms} ms" if ms < 1000 else f"{ms / 1000:.1f} s"


def parsed(text: str) -> int:
    """The other way round of `clock.rfc3339`."""
    return round(datetime.fromisoformat(text).timestamp() * 1000)
