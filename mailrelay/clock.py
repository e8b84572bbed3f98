"""The time, the same for all processes however their machines' clocks differ.

Leases and due times are compared by other processes than wrote them. A machine whose clock is half
a minute ahead would take every email that is being sent for abandoned, and have it sent twice. So
DynamoDB's clock counts: each of its answers says the time, and a machine that is far from it goes by
it.
"""

from __future__ import annotations

import time
from collections import deque
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import structlog

log = structlog.get_logger(__name__)

Client = TypeVar("Client")

TOLERATED = 2_000
"""Milliseconds that a machine may be off. The Date of an answer has whole seconds only, and the way
takes time; a lease is longer than any request by more than that (see `settings`)."""

_LONGEST_WAY = 1.0
"""Seconds that an answer may take to come: of a slower one nobody knows when it was written."""

_SAMPLE_SECONDS = 1.0
"""How long an answer counts until the next one is looked at."""

_samples: deque[int] = deque(maxlen=10)
"""What the last answers said, as `_ahead`. A busy server may write the Date of a moment ago, and none
writes a later one: so the largest is the nearest to the truth."""

_STARTED = "mailrelay_clock"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_ahead = 0
"""By how many milliseconds DynamoDB's clock is ahead of ours, if that is worth mentioning."""

_next_sample = 0.0


def now() -> int:
    """Milliseconds since the Unix epoch, in UTC."""
    return time.time_ns() // 1_000_000 + _ahead


def rfc3339(ms: int) -> str:
    """Milliseconds since the Unix epoch as RFC 3339 writes them, in UTC."""
    moment = _EPOCH + timedelta(milliseconds=ms)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def follow(client: Client) -> Client:
    """Go by the time that the service of `client`, one of boto3's, says; returns it."""
    meta: Any = client.meta  # type: ignore[attr-defined] # as in `metering`
    service = meta.service_model.service_id.hyphenize()
    meta.events.register_last(f"request-created.{service}", _sent)
    meta.events.register(f"response-received.{service}", _answered)
    return client


def _sent(request: Any, **_: Any) -> None:
    request.context[_STARTED] = time.monotonic()


def _answered(response_dict: Any, context: Any, **_: Any) -> None:
    """Nothing here may raise: it would end the call."""
    global _next_sample
    arrived, sent = time.monotonic(), context.get(_STARTED)
    if arrived < _next_sample or sent is None or arrived - sent > _LONGEST_WAY:
        return
    try:
        said = parsedate_to_datetime(response_dict["headers"]["date"]).timestamp()
    except (TypeError, KeyError, ValueError, OverflowError):
        return
    _next_sample = arrived + _SAMPLE_SECONDS
    # In the middle of the second that it names.
    _samples.append(round((said + 0.5 - time.time()) * 1000))
    _set(max(_samples))


def _set(ahead: int) -> None:
    global _ahead
    ahead = ahead if abs(ahead) > TOLERATED else 0
    if bool(ahead) != bool(_ahead):
        if ahead:
            log.warning("this machine's clock is off: DynamoDB's counts", ahead_ms=ahead)
        else:
            log.info("this machine's clock is right again")
    _ahead = ahead
