"""The worker's pool: as many tasks at a time as it is told, also after a change."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from tasks.pool import TaskPool
from tests.support.processes import wait_for


class Work:
    """Tasks that run until they are told to end, one after the other."""

    def __init__(self, limit: int) -> None:
        self.pool = TaskPool(limit=limit)
        self.pool.start()
        self.done: list[int] = []
        self.running: set[int] = set()
        self._most = 0
        self._turns = threading.Semaphore(0)
        self._lock = threading.Lock()

    def submit(self, *numbers: int) -> None:
        for number in numbers:
            self.pool.apply_async(self._task, (number,), callback=lambda _: None)

    def _task(self, number: int) -> None:
        with self._lock:
            self.running.add(number)
            self._most = max(self._most, len(self.running))
        self._turns.acquire()
        with self._lock:
            self.running.remove(number)
            self.done.append(number)

    def end(self, number: int = 1) -> None:
        """Let so many of the tasks that run end, and wait until they have."""
        before = len(self.done)
        self._turns.release(number)
        wait_for(lambda: len(self.done) == before + number, "they end")

    def wait_running(self, number: int) -> None:
        wait_for(lambda: len(self.running) == number, f"{number} run")

    def most(self) -> int:
        """How many ran at once since this was asked last."""
        with self._lock:
            most, self._most = self._most, len(self.running)
        return most

    def release(self) -> None:
        self._turns.release(10_000)


@pytest.fixture
def work() -> Iterator[Work]:
    work = Work(limit=2)
    yield work
    work.release()
    work.pool.stop()


def test_it_runs_as_many_as_its_limit(work: Work) -> None:
    work.submit(*range(6))
    work.wait_running(2)
    work.release()
    wait_for(lambda: len(work.done) == 6, "all are run")

    assert work.most() == 2


def test_a_pool_that_has_grown_runs_more_and_not_more_than_that(work: Work) -> None:
    work.submit(*range(3))
    work.wait_running(2)

    work.pool.grow(2)
    work.submit(*range(3, 12))
    work.wait_running(4)
    work.release()
    wait_for(lambda: sorted(work.done) == list(range(12)), "all are run, the queued ones too")

    assert work.most() == 4
    assert work.pool.info["max-concurrency"] == 4


def test_a_pool_that_has_shrunk_ends_what_runs_and_then_runs_fewer(work: Work) -> None:
    work.pool.grow(3)
    work.submit(*range(12))
    work.wait_running(5)

    work.pool.shrink(4)
    assert work.pool.info["max-concurrency"] == 1
    work.end(4)
    work.wait_running(1)
    work.most()
    work.release()
    wait_for(lambda: sorted(work.done) == list(range(12)), "all are run")

    assert work.most() == 1


@pytest.mark.parametrize("changes", [(3, -2, 5, -4), (-1, 1, 6), (1, -1, 1, -1)])
def test_it_can_change_again_and_again(work: Work, changes: tuple[int, ...]) -> None:
    limit, submitted = 2, 0
    for change in changes:
        limit += change
        (work.pool.grow if change > 0 else work.pool.shrink)(abs(change))
        work.submit(*range(submitted, submitted + 40))
        submitted += 40
        wait_for(lambda limit=limit: len(work.running) >= limit, "it is at work")
        work.end(len(work.running))
    work.wait_running(limit)
    work.most()
    work.end(limit)
    work.wait_running(limit)

    assert work.most() == limit
    work.release()
    wait_for(lambda: sorted(work.done) == list(range(submitted)), "all are run")


def test_a_task_that_fails_gives_its_place_back(work: Work) -> None:
    def fail() -> None:
        raise ValueError

    for _ in range(5):
        work.pool.apply_async(fail)
    work.submit(1, 2)

    work.wait_running(2)


@pytest.mark.parametrize("number", [2, 3])
def test_one_thread_has_to_stay(work: Work, number: int) -> None:
    with pytest.raises(ValueError, match="one has to stay"):
        work.pool.shrink(number)
    work.submit(0, 1)
    work.wait_running(2)


def test_a_stop_waits_for_what_runs_and_runs_nothing_else(work: Work) -> None:
    """What runs from before a change too; what is only queued is left to the sweep."""
    work.submit(0, 1, 2)
    work.wait_running(2)
    work.pool.grow(2)
    work.submit(*range(3, 9))
    work.wait_running(4)
    stopping = threading.Thread(target=work.pool.stop)
    stopping.start()

    stopping.join(0.1)
    assert stopping.is_alive()
    work.release()
    stopping.join()

    assert {0, 1} < set(work.done)
    assert not {7, 8} & set(work.done)
    assert work.running == set()
