"""How often a key may ask."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrelay.values import RequestLimit
from mailrelay.web.limit import Limiter


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    "limit", [RequestLimit(10, 1), RequestLimit(3, 60), RequestLimit(1, 3600)]
)
def test_all_at_once_and_then_evenly(limit: RequestLimit) -> None:
    """A key that was silent may ask as often as the limit says at once, then once an interval."""
    clock = Clock()
    limiter = Limiter(limit, clock)
    interval = limit.seconds / limit.requests
    assert [limiter.take("shop") for _ in range(limit.requests)] == [0] * limit.requests
    assert limiter.take("shop") == pytest.approx(interval)
    for _ in range(5):
        clock.now += interval
        assert limiter.take("shop") == 0
        assert limiter.take("shop") == pytest.approx(interval)


def test_keys_do_not_share() -> None:
    limiter = Limiter(RequestLimit(1, 1), Clock())
    assert limiter.take("shop") == 0
    assert limiter.take("shop") > 0
    assert limiter.take("blog") == 0


@given(
    st.lists(st.floats(0, 3, allow_subnormal=False), max_size=60),
    st.integers(1, 9),
    st.integers(1, 3),
)
def test_never_more_than_allowed(pauses: list[float], requests: int, seconds: int) -> None:
    """In any time t no more pass than the limit and what t refills; who waits as told passes."""
    clock = Clock()
    limiter = Limiter(RequestLimit(requests, seconds), clock)
    passed: list[float] = []
    for pause in pauses:
        clock.now += pause
        wait = limiter.take("shop")
        if wait:
            assert wait <= seconds / requests + 1e-6
            clock.now += wait
            assert limiter.take("shop") == 0
        passed.append(clock.now)
    for first in range(len(passed)):
        for last in range(first, len(passed)):
            time = passed[last] - passed[first]
            assert last - first + 1 <= requests + time * requests / seconds + 1e-3


def test_threads_share_one_count() -> None:
    """Of many threads that ask at the same time exactly as many pass as may."""
    limiter = Limiter(RequestLimit(100, 3600), Clock())
    together = threading.Barrier(8)

    def ask(_: int) -> int:
        together.wait(10)
        return sum(limiter.take("shop") == 0 for _ in range(50))

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(ask, range(8))) == 100
