"""What processes count adds up in the table, at a bounded cost, and never troubles an email."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from mailrelay import aws, clock, counters, items
from mailrelay.counters import Board, Counters, Flushing, Pending
from mailrelay.message import Outcome, Status
from mailrelay.observation import AttemptEnded, BatchAccepted
from mailrelay.overview import DAY, HOUR, PERIODS, Overview, Period
from mailrelay.settings import Settings
from mailrelay.store import Store
from mailrelay.table import StoreUnavailable
from tests.support.processes import wait_for
from tests.support.records import a_batch, an_attempt, an_email

EMAIL = an_email(a_batch())
ACCEPTED = BatchAccepted("id", "demo", 3, True)
SENT = AttemptEnded(EMAIL.id, an_attempt(EMAIL, Outcome.ACCEPTED), Status.SENT, 250)


class Kept:
    """`Counters` in memory, that may be down."""

    def __init__(self) -> None:
        self.writes: list[tuple[Any, Mapping[str, int]]] = []
        self.asked = 0
        self.error: Exception | None = None

    def add(self, when: Any, counted: Mapping[str, int]) -> None:
        self.asked += 1
        if self.error:
            raise self.error
        self.writes.append((when, dict(counted)))

    def total(self, width: int) -> dict[str, int]:
        total: dict[str, int] = {}
        for when, counted in self.writes:
            if when.width == width:
                for name, count in counted.items():
                    total[name] = total.get(name, 0) + count
        return total


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sets the time."""

    def set_it(now: int) -> None:
        monkeypatch.setattr(clock, "now", lambda: now)

    return set_it


NOW = 1_800_000_000_000


@pytest.fixture
def kept() -> Any:
    return Kept()


def test_a_flush_costs_one_write_a_width_however_much_happened(kept: Any, at: Any) -> None:
    at(NOW)
    pending = Pending()
    threads = [
        threading.Thread(target=lambda: [pending.observe(SENT) for _ in range(500)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    pending.flush(kept)
    pending.flush(kept)  # nothing happened since

    assert len(kept.writes) == len(PERIODS)
    for period in PERIODS:
        assert kept.total(period.width)["sent"] == 2000


def test_what_could_not_be_written_is_written_later(kept: Any, at: Any) -> None:
    at(NOW)
    pending = Pending()
    pending.observe(ACCEPTED)
    kept.error = StoreUnavailable("DynamoDB: down")
    with pytest.raises(StoreUnavailable):
        pending.flush(kept)

    at(NOW + 60_000)
    pending.observe(ACCEPTED)
    kept.error = None
    pending.flush(kept)

    for period in PERIODS:
        assert kept.total(period.width) == {"accepted": 6}
    minutes = {when.start for when, _ in kept.writes if when.width == HOUR.width}
    assert minutes == {NOW, NOW + 60_000}  # each in its own


def test_while_dynamodb_is_away_no_more_than_some_slices_are_kept(kept: Any, at: Any) -> None:
    """The latest: of a long outage what came first is lost."""
    pending = Pending()
    for minute in range(600):
        at(NOW + minute * 60_000)
        pending.observe(ACCEPTED)

    pending.flush(kept)

    assert len(kept.writes) == 16
    latest = {when.width: when.start for when, _ in kept.writes}
    assert latest == {HOUR.width: NOW + 599 * 60_000, DAY.width: NOW + 39 * 900_000}


def test_processes_add_up_and_are_read_back(store: Store) -> None:
    table = Counters(store.table)
    for _ in range(2):
        process = Pending()
        process.observe(ACCEPTED)
        process.observe(SENT)
        process.flush(table)

    for period in PERIODS:
        total = table.read(period).total
        assert total.accepted == 6
        assert total.became(Status.SENT) == 2
        assert total.outcomes() == {"mailgun": {"accepted": 2}}
        assert total.time_to_sent(0.5) == pytest.approx(250, rel=0.42)


def test_what_is_older_than_the_period_is_not_shown(store: Store, at: Any) -> None:
    table, pending = Counters(store.table), Pending()
    at(NOW - HOUR.width * HOUR.slices)
    pending.observe(ACCEPTED)
    at(NOW)
    pending.observe(ACCEPTED)
    pending.flush(table)

    assert table.read(HOUR).total.accepted == 3
    assert table.read(DAY).total.accepted == 6


def test_counts_expire_after_two_days_and_name_nobody(store: Store, settings: Settings) -> None:
    pending = Pending()
    for what in (ACCEPTED, SENT):
        pending.observe(what)
    pending.flush(Counters(store.table))

    found = aws.dynamodb(settings).scan(TableName=settings.table)["Items"]

    assert len(found) == len(PERIODS)
    for item in found:
        start, _ = items.read_counters(item)
        width = int(item["pk"]["S"].removeprefix("C#"))
        assert int(item["expires"]["N"]) == start // 1000 + width + 2 * 86_400
        for told in ("demo", EMAIL.to.email, EMAIL.id.batch_id):
            assert told not in str(item)


@pytest.fixture
def flushing(kept: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Pending, Flushing]]:
    monkeypatch.setattr(counters, "INTERVAL", 0.01)
    pending = Pending()
    thread = Flushing(pending, kept)
    yield pending, thread
    kept.error = StoreUnavailable("DynamoDB: down")
    thread.stop()


@pytest.mark.parametrize("error", [StoreUnavailable("DynamoDB: down"), KeyError("a defect")])
def test_a_thread_writes_and_goes_on_whatever_happened(
    kept: Any, flushing: tuple[Pending, Flushing], error: Exception
) -> None:
    pending, _ = flushing
    kept.error = error
    pending.observe(ACCEPTED)
    wait_for(lambda: kept.asked, "it fails")

    kept.error = None
    pending.observe(ACCEPTED)
    wait_for(lambda: kept.total(HOUR.width).get("accepted", 0) >= 3, "the next write")


def test_the_end_of_a_process_writes_the_rest(kept: Any) -> None:
    pending = Pending()
    thread = Flushing(pending, kept)
    pending.observe(ACCEPTED)

    thread.stop()

    assert kept.total(HOUR.width) == {"accepted": 3}


def test_the_end_of_a_process_does_not_wait_for_a_dynamodb_that_is_away(
    kept: Any, flushing: tuple[Pending, Flushing]
) -> None:
    pending, thread = flushing
    kept.error = StoreUnavailable("DynamoDB: down")
    pending.observe(ACCEPTED)
    wait_for(lambda: kept.asked > 2, "it fails")
    thread.stop()
    asked = kept.asked

    thread.stop()

    assert kept.asked == asked


@pytest.mark.parametrize("period", PERIODS)
def test_a_board_that_nobody_feeds_shows_nothing_rather_than_zeros(period: Period) -> None:
    def read(_: Period) -> None:
        raise StoreUnavailable("DynamoDB: down")

    down: Any = SimpleNamespace(read=read)
    assert Board(down)(period) is None


def test_many_who_look_cost_no_more_than_one(store: Store) -> None:
    table, reads = Counters(store.table), []

    def read(period: Period) -> Overview:
        reads.append(period)
        return table.read(period)

    counted: Any = SimpleNamespace(read=read)
    board = Board(counted)
    shown = [board(HOUR) for _ in range(5)]

    assert reads == [HOUR]
    assert all(isinstance(each, Overview) for each in shown)
