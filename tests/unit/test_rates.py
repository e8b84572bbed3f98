"""How fast a provider may be asked: places in time, given to threads."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from mailrelay.rates import Rates, Turn
from mailrelay.settings import SettingsError, load
from mailrelay.table import StoreUnavailable
from tests.support.aws import AWS_CREDENTIALS
from tests.support.fakes import FakeShared
from tests.support.processes import wait_for
from tests.support.threads import at_once

START = 1_800_000_000_000_000
SECOND = 1_000_000


class Time:
    """A clock in microseconds, which stands still until it is turned."""

    def __init__(self) -> None:
        self.now = START


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    time = Time()
    monkeypatch.setattr("mailrelay.rates._now", lambda: time.now)
    return time


class Sleeper(threading.Event):
    """A process that is not ending; how long its threads wait moves no clock but is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout or 0.0)
        return self.is_set()


def a_rates(shared: Any, rates: Mapping[str, float], sweep_interval: float = 2) -> Rates:
    return Rates(shared, rates, sweep_interval=sweep_interval)


def places(rates: Rates, count: int, provider: str = "mailgun") -> list[float]:
    """When each of so many emails, one after the other, may go, in seconds from now."""
    sleeper = Sleeper()
    for _ in range(count):
        assert rates.wait(provider, sleeper) is Turn.COME
    return sleeper.waits


@pytest.mark.parametrize(
    ("rate", "step"), [(1, 1.0), (2.5, 0.4), (20, 0.05), (200, 0.005), (100_000, 0.000_01)]
)
def test_places_are_spaced_as_the_rate_says(time: Time, rate: float, step: float) -> None:
    waits = places(a_rates(FakeShared(), {"mailgun": rate}), 3)

    assert waits == pytest.approx([0, step, 2 * step])


@pytest.mark.parametrize("rate", [0.3, 3, 7, 300, 999, 30_000, 60_000, 70_000, 99_999])
def test_a_rate_is_never_rounded_up(time: Time, rate: float) -> None:
    """Whole microseconds would make 71,428 a second of 70,000."""
    shared = FakeShared()
    a_rates(shared, {"mailgun": rate}).wait("mailgun", Sleeper())

    (cost,) = shared.reservations
    assert cost * rate >= SECOND
    assert (cost - 1) * rate < SECOND


@pytest.mark.parametrize("variable", ["100000/s", "0.000001/s", "1/d", "0.1/h"])
def test_each_rate_that_settings_take_has_places(time: Time, variable: str) -> None:
    settings = load({**AWS_CREDENTIALS, "MAILRELAY_RATE_MAILGUN": variable})
    rates = a_rates(FakeShared(), settings.rates)

    assert places(rates, 1) == [0]
    # A slow one has no second place soon, a fast one has.
    time.now += 1
    second = rates.wait("mailgun", Sleeper())
    assert second is (Turn.COME if variable == "100000/s" else Turn.TOO_FAR)


@pytest.mark.parametrize("variable", ["0/s", "100001/s", "0.05/d"])
def test_rates_outside_of_that_are_refused(variable: str) -> None:
    with pytest.raises(SettingsError, match="MAILRELAY_RATE_MAILGUN"):
        load({**AWS_CREDENTIALS, "MAILRELAY_RATE_MAILGUN": variable})


def test_who_has_no_limit_never_waits(time: Time) -> None:
    shared = FakeShared()
    assert places(a_rates(shared, {"mailgun": 1}), 100, "ses") == []
    assert shared.reservations == []


def test_a_place_too_far_away_is_not_waited_for(time: Time) -> None:
    """No thread is blocked for longer than the horizon, and no email gets a place beyond it."""
    shared, sleeper = FakeShared(), Sleeper()
    rates = a_rates(shared, {"mailgun": 10})

    turns = Counter(rates.wait("mailgun", sleeper) for _ in range(100))

    assert turns == {Turn.COME: 21, Turn.TOO_FAR: 79}
    assert max(sleeper.waits) == pytest.approx(2)


@pytest.mark.parametrize(("sweep_interval", "ahead"), [(0.5, 2), (10, 10), (3600, 15)])
def test_places_are_given_away_until_the_next_sweep(
    time: Time, sweep_interval: float, ahead: int
) -> None:
    """Who is put off comes back with it: until then others have to use up the rate."""
    rates, sleeper = a_rates(FakeShared(), {"mailgun": 10}, sweep_interval), Sleeper()

    turns = Counter(rates.wait("mailgun", sleeper) for _ in range(300))

    assert turns[Turn.COME] == ahead * 10 + 1
    assert max(sleeper.waits) == pytest.approx(ahead)


def test_while_all_places_are_taken_the_table_is_asked_now_and_then(time: Time) -> None:
    """Whoever is put off needs no request; and a place that comes free is found."""
    shared = FakeShared()
    shared.reserved["mailgun"] = START + 3 * SECOND
    asked: list[int] = []

    class Counting(FakeShared):
        def reserve(self, provider: str, now: int, cost: int, horizon: int) -> int | None:
            asked.append(now)
            return shared.reserve(provider, now, cost, horizon)

    rates = a_rates(Counting(), {"mailgun": 10})
    for _ in range(100):
        assert rates.wait("mailgun", Sleeper()) is Turn.TOO_FAR
    assert len(asked) == 1

    time.now += SECOND
    assert places(rates, 1) == pytest.approx([2])


def test_threads_share_a_reservation_and_each_has_a_place_of_its_own() -> None:
    """While one reserves, the others gather; what they want is one request."""
    first, goes_on = threading.Event(), threading.Event()

    class Slow(FakeShared):
        def reserve(self, provider: str, now: int, cost: int, horizon: int) -> int | None:
            first.set()
            assert goes_on.wait(10)
            return super().reserve(provider, now, cost, horizon)

    shared, sleeper = Slow(), Sleeper()
    rates = a_rates(shared, {"mailgun": 1000})
    lane = rates._lanes["mailgun"]
    with ThreadPoolExecutor(40) as pool:
        turns = [pool.submit(rates.wait, "mailgun", sleeper) for _ in range(40)]
        wait_for(lambda: lane._wanted == 40, "all want a place")
        goes_on.set()
        assert {turn.result(10) for turn in turns} == {Turn.COME}

    assert len(shared.reservations) <= 2
    assert sum(shared.reservations) == 40 * 1000
    assert lane._places == []
    assert lane._wanted == 0


def test_many_threads_have_distinct_places() -> None:
    shared = FakeShared()
    rates = a_rates(shared, {"mailgun": 1000})
    lane = rates._lanes["mailgun"]

    taken = [each for each in at_once(lambda _: lane.place(), range(64)) if each is not None]

    assert len(set(taken)) == 64
    assert min(b - a for a, b in zip(sorted(taken), sorted(taken)[1:], strict=False)) >= 1000


def test_a_reservation_takes_no_more_than_a_second(time: Time) -> None:
    """However many threads want one: other workers want some too."""
    shared = FakeShared()
    lane = a_rates(shared, {"mailgun": 10})._lanes["mailgun"]
    lane._wanted = 64

    lane.place()

    assert shared.reservations == [SECOND]


def test_a_place_that_nobody_took_in_time_is_gone(time: Time) -> None:
    """Else those of a quiet minute would make a burst."""
    shared = FakeShared()
    lane = a_rates(shared, {"mailgun": 10})._lanes["mailgun"]
    lane._wanted = 10
    lane.place()
    lane._wanted = 0
    assert len(lane._places) == 9

    time.now += int(1.5 * SECOND)
    assert lane.place() == START + 6 * 100_000
    time.now += 60 * SECOND
    assert lane.place() == time.now


def test_a_process_that_is_ending_waits_for_nothing() -> None:
    shared, stopping = FakeShared(), threading.Event()
    shared.reserved["mailgun"] = 0
    rates = a_rates(shared, {"mailgun": 0.5})
    stopping.set()

    assert rates.wait("mailgun", stopping) is Turn.STOPPED


def test_a_table_that_is_away_is_said_and_keeps_nobody_waiting_after(time: Time) -> None:
    shared = FakeShared()
    rates = a_rates(shared, {"mailgun": 10})
    shared.down = True
    for result in at_once(lambda _: rates.wait("mailgun", Sleeper()), range(20)):
        assert isinstance(result, StoreUnavailable)

    shared.down = False
    assert places(rates, 2) == pytest.approx([0, 0.1])


def test_one_providers_limit_holds_up_no_other(time: Time) -> None:
    shared = FakeShared()
    shared.reserved["mailgun"] = START + 60 * SECOND
    rates = a_rates(shared, {"mailgun": 1, "ses": 1})

    assert rates.wait("mailgun", Sleeper()) is Turn.TOO_FAR
    assert places(rates, 1, "ses") == [0]
