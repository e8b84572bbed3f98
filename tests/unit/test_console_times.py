"""Times as people say them, and how often a page looks again."""

from __future__ import annotations

import pytest

from mailrelay.message import Status
from mailrelay.web.console import polling, times

NOW = 1_795_545_608_123


@pytest.mark.parametrize(
    ("ms", "said"),
    [
        (0, "now"),
        (-400, "now"),
        (-5_000, "5 seconds ago"),
        (60_000, "in a minute"),
        (-3 * 3_600_000, "3 hours ago"),
        (2 * 86_400_000, "in 2 days"),
    ],
)
def test_relative_times(ms: int, said: str) -> None:
    assert times.relative(NOW + ms, NOW) == said


def test_the_exact_time_is_at_hand() -> None:
    assert times.tag(NOW - 5_000, NOW) == (
        '<time datetime="2026-11-24T18:40:03.123Z" title="2026-11-24 18:40:03.123 UTC">'
        "5 seconds ago</time>"
    )
    assert times.parsed("2026-11-24T18:40:08.123Z") == NOW


@pytest.mark.parametrize(
    ("ms", "said"), [(None, "–"), (0, "0 ms"), (999, "999 ms"), (1234, "1.2 s")]
)
def test_durations(ms: int | None, said: str) -> None:
    assert times.duration(ms) == said


@pytest.mark.parametrize(
    ("age", "seconds"), [(0, 1), (20_000, 1), (100_000, 5), (86_400_000, 30), (-5_000, 1)]
)
def test_a_page_looks_less_often_the_longer_nothing_happens(age: int, seconds: int) -> None:
    assert polling.seconds([Status.SENT, Status.DEFERRED], NOW - age, NOW) == seconds


@pytest.mark.parametrize("status", [Status.SENT, Status.FAILED, Status.UNKNOWN])
def test_a_page_does_not_look_again_where_nothing_moves(status: Status) -> None:
    assert polling.seconds([status], NOW, NOW) is None
