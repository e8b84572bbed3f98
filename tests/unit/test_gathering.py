"""Threads that want the same at the same time share one request."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from mailrelay.gathering import Gatherer
from tests.support.threads import at_once

BROKEN = 999_999
"""A number that no request survives."""


class Requests:
    """Doubles numbers, and remembers which came together; a negative one is refused."""

    def __init__(self) -> None:
        self.made: list[list[int]] = []
        self.go = threading.Event()
        self.go.set()
        self.begun = threading.Semaphore(0)

    def one(self, number: int) -> int:
        (result,) = self._make([number])
        if isinstance(result, Exception):
            raise result
        return result

    def many(self, numbers: Sequence[int]) -> list[int | Exception]:
        return self._make(numbers)

    def _make(self, numbers: Sequence[int]) -> list[int | Exception]:
        self.made.append(list(numbers))
        self.begun.release()
        assert self.go.wait(30)
        if BROKEN in numbers:
            raise OSError("the whole request failed")
        return [ValueError(number) if number < 0 else number * 2 for number in numbers]


def gatherer(requests: Requests, **changes: Any) -> Gatherer[int, int]:
    options: dict[str, Any] = {"key": lambda number: number, "limit": 25, "linger": 0.2}
    return Gatherer(requests.one, requests.many, **{**options, **changes})


def test_who_is_alone_asks_alone_and_at_once() -> None:
    requests = Requests()
    # Would outlast any test if it waited.
    ask = gatherer(requests, linger=3600)

    assert ask(1) == 2
    assert requests.made == [[1]]


def test_threads_share_requests_and_each_gets_its_own_result() -> None:
    requests = Requests()
    numbers = range(200)

    assert at_once(gatherer(requests), numbers) == [number * 2 for number in numbers]

    assert sorted(number for made in requests.made for number in made) == list(numbers)
    assert max(map(len, requests.made)) <= 25
    assert len(requests.made) < 50


def test_a_thread_that_does_one_thing_after_the_other_is_no_company_for_itself() -> None:
    requests = Requests()
    ask = gatherer(requests, linger=3600)

    assert [ask(number) for number in range(3)] == [0, 2, 4]


def company(ask: Gatherer[int, int]) -> None:
    """Have somebody else ask, so that the next does not count as alone."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(ask, 0).result()


def test_a_full_request_waits_no_longer() -> None:
    requests = Requests()
    ask = gatherer(requests, limit=4, linger=3600)
    company(ask)

    assert at_once(ask, [1, 2, 3, 4]) == [2, 4, 6, 8]


def test_what_comes_while_a_request_is_under_way_does_not_wait_for_it() -> None:
    requests = Requests()
    ask = gatherer(requests)
    requests.go.clear()
    with ThreadPoolExecutor(2) as pool:
        results = []
        for number in (1, 2):
            results.append(pool.submit(ask, number))
            assert requests.begun.acquire(timeout=30)
        requests.go.set()

        assert [result.result(30) for result in results] == [2, 4]


def test_one_that_fails_harms_no_other() -> None:
    results = at_once(gatherer(Requests()), [1, -1, 2, -2])

    assert [result for result in results if isinstance(result, int)] == [2, 4]
    assert all(isinstance(results[index], ValueError) for index in (1, 3))


def test_a_request_that_fails_as_a_whole_fails_for_all_in_it() -> None:
    requests = Requests()
    ask = gatherer(requests, limit=3)
    company(ask)

    results = at_once(ask, [1, BROKEN, 2])

    assert [type(result) for result in results] == [OSError] * 3
    assert ask(5) == 10  # and it goes on


def test_two_for_the_same_key_go_one_after_the_other() -> None:
    requests = Requests()
    ask = gatherer(requests, key=lambda number: number % 10, limit=3)
    company(ask)

    assert at_once(ask, [1, 11, 21]) == [2, 22, 42]

    assert not any(len({n % 10 for n in made}) < len(made) for made in requests.made)


@pytest.mark.parametrize("threads", [2, 64])
def test_nothing_is_lost_under_load(threads: int) -> None:
    requests = Requests()
    ask = gatherer(requests, linger=0.001)

    def many_times(first: int) -> list[int]:
        return [ask(first * 1000 + number) for number in range(100)]

    with ThreadPoolExecutor(threads) as pool:
        results = list(pool.map(many_times, range(threads)))

    assert results == [
        [(first * 1000 + number) * 2 for number in range(100)] for first in range(threads)
    ]
