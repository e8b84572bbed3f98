"""Who may be asked, as several workers know it together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from mailrelay import circuit as rules
from mailrelay import clock
from mailrelay.breaker import Breaker
from mailrelay.circuit import Circuit, State
from mailrelay.message import Outcome
from mailrelay.observation import CircuitChanged
from mailrelay.providers import Answer
from mailrelay.settings import Settings
from mailrelay.table import StoreUnavailable
from tests.support.couriers import a_breaker
from tests.support.fakes import FakeShared
from tests.support.threads import at_once

PAUSE = 10_000
LEASE = 30_000
ACCEPTED = Answer(Outcome.ACCEPTED, "200")
REFUSED = Answer(Outcome.UNAVAILABLE, "401", "bad key of pedro@example.org")
FAILED = Answer(Outcome.RETRY, "503")
REJECTED = Answer(Outcome.REJECTED, "400")


class Time:
    """A clock that a test turns, for the wall and for what a worker calls fresh."""

    def __init__(self) -> None:
        self.ms = 1_800_000_000_000

    def pass_(self, ms: int) -> None:
        self.ms += ms


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    time = Time()
    monkeypatch.setattr("mailrelay.clock.now", lambda: time.ms)
    monkeypatch.setattr("mailrelay.breaker.time.monotonic", lambda: time.ms / 1000)
    return time


@pytest.fixture
def shared() -> FakeShared:
    return FakeShared()


MakeWorker = Callable[..., Breaker]


@pytest.fixture
def worker(settings: Settings, shared: FakeShared, time: Time) -> MakeWorker:
    """Makes the breaker of one more worker."""

    def make(**kwargs: Any) -> Breaker:
        return a_breaker(settings, shared, first_pause=PAUSE, lease=LEASE, **kwargs)

    return make


def ask(breaker: Breaker, answer: Answer, provider: str = "mailgun") -> bool:
    """Whether an email asked the provider, whose answer it was; else it was passed over."""
    entered = breaker.enter(provider) if breaker.passes(provider) else None
    if entered is not None:
        breaker.leave(entered, answer)
    return entered is not None


def test_what_one_worker_concludes_all_obey_within_a_second(
    worker: MakeWorker, time: Time
) -> None:
    one, other = worker(), worker()
    assert ask(other, ACCEPTED)

    assert ask(one, REFUSED)

    assert not one.passes("mailgun")
    time.pass_(1000)
    assert not other.passes("mailgun")
    assert other.passes("ses")


def test_one_probe_closes_the_circuit_for_all(
    worker: MakeWorker, time: Time, shared: FakeShared
) -> None:
    one, other = worker(), worker()
    ask(one, REFUSED)
    time.pass_(PAUSE)

    assert ask(other, ACCEPTED)

    time.pass_(1000)
    assert ask(one, ACCEPTED)
    assert shared.known["mailgun"].state is State.CLOSED
    assert shared.known["mailgun"].openings == 0


def test_a_probe_that_fails_opens_it_for_twice_as_long(worker: MakeWorker, time: Time) -> None:
    breaker = worker()
    ask(breaker, REFUSED)
    time.pass_(PAUSE)
    assert ask(breaker, FAILED)

    time.pass_(2 * PAUSE - 1)
    assert not ask(breaker, ACCEPTED)
    time.pass_(1)
    assert ask(breaker, ACCEPTED)


@pytest.mark.parametrize("workers", [1, 4])
def test_of_many_threads_one_probes(
    worker: MakeWorker, time: Time, shared: FakeShared, workers: int
) -> None:
    breakers = [worker() for _ in range(workers)]
    ask(breakers[0], REFUSED)
    time.pass_(PAUSE)

    def enter(breaker: Breaker) -> Circuit | None:
        return breaker.enter("mailgun") if breaker.passes("mailgun") else None

    entered = at_once(enter, [breaker for breaker in breakers for _ in range(20 // workers)])

    (probe,) = [each for each in entered if each is not None]
    assert probe == shared.known["mailgun"]
    assert probe.state is State.HALF_OPEN


def test_while_one_probes_the_others_pass_over(worker: MakeWorker, time: Time) -> None:
    one, other = worker(), worker()
    ask(one, REFUSED)
    time.pass_(PAUSE)
    assert one.passes("mailgun")
    probe = one.enter("mailgun")

    assert not ask(one, ACCEPTED)
    assert not ask(other, ACCEPTED)
    assert probe is not None
    one.leave(probe, ACCEPTED)
    assert ask(one, ACCEPTED)


def test_a_probe_whose_worker_died_is_followed_by_another(worker: MakeWorker, time: Time) -> None:
    dead, other = worker(), worker()
    ask(dead, REFUSED)
    time.pass_(PAUSE)
    assert dead.enter("mailgun") is not None

    time.pass_(LEASE - 1)
    assert not ask(other, ACCEPTED)
    time.pass_(1)
    assert ask(other, ACCEPTED)


@pytest.mark.parametrize("late", [ACCEPTED, FAILED])
def test_a_probe_that_is_answered_long_after_changes_nothing(
    worker: MakeWorker, time: Time, shared: FakeShared, late: Answer
) -> None:
    """Another one was made since, and it decided."""
    slow, other = worker(), worker()
    ask(slow, REFUSED)
    time.pass_(PAUSE)
    assert slow.passes("mailgun")
    probe = slow.enter("mailgun")
    assert probe is not None
    time.pass_(LEASE)
    assert ask(other, FAILED if late is ACCEPTED else ACCEPTED)
    decided = shared.known["mailgun"]

    slow.leave(probe, late)

    assert shared.known["mailgun"] == decided
    # And it knows better from now on.
    assert slow.passes("mailgun") is (decided.state is State.CLOSED)


def test_a_probe_that_was_about_one_email_is_followed_by_the_next(
    worker: MakeWorker, time: Time
) -> None:
    breaker = worker()
    ask(breaker, REFUSED)
    time.pass_(PAUSE)

    assert ask(breaker, REJECTED)
    assert ask(breaker, replace(REFUSED, particular=True))
    assert ask(breaker, ACCEPTED)
    assert ask(breaker, ACCEPTED)


def test_what_a_provider_rejects_opens_nothing_and_hides_nothing(worker: MakeWorker) -> None:
    breaker = worker()
    for _ in range(200):
        assert ask(breaker, REJECTED)
        assert ask(breaker, replace(REFUSED, particular=True))

    for _ in range(rules.FEWEST_FAILURES):
        assert ask(breaker, FAILED)
        ask(breaker, REJECTED)
    assert not breaker.passes("mailgun")


def test_requests_that_were_under_way_when_it_opened_change_nothing(
    worker: MakeWorker, shared: FakeShared
) -> None:
    breaker = worker()
    under_way = [breaker.enter("mailgun") for _ in range(3)]
    ask(breaker, REFUSED)
    opened = shared.known["mailgun"]

    for entered, answer in zip(under_way, (FAILED, REFUSED, ACCEPTED), strict=True):
        assert entered is not None
        breaker.leave(entered, answer)

    assert shared.known["mailgun"] == opened


def test_failures_from_before_it_closed_do_not_count(worker: MakeWorker, time: Time) -> None:
    """Also where another worker closed it: one failure more must not open it again."""
    one, other = worker(), worker()
    under_way = [(each, each.enter("mailgun")) for each in (one, other) for _ in range(20)]
    for each, entered in under_way:
        assert entered is not None
        each.leave(entered, FAILED)
    time.pass_(PAUSE)
    assert ask(one, ACCEPTED)
    time.pass_(1000)

    for each in (one, other):
        for _ in range(rules.FEWEST_FAILURES - 1):
            assert ask(each, FAILED)
        assert each.passes("mailgun")


def test_a_table_that_is_away_changes_nothing(
    worker: MakeWorker, time: Time, shared: FakeShared
) -> None:
    """A worker goes on with what it knows, and asks whom it cannot agree about."""
    breaker = worker()
    ask(breaker, REFUSED, "ses")
    shared.down = True

    with capture_logs() as lines:
        for _ in range(3):
            time.pass_(1000)
            assert ask(breaker, REFUSED, "mailgun")
            assert not breaker.passes("ses")
        assert ask(breaker, ACCEPTED, "mailgun")
    assert {line["event"] for line in lines} == {
        "the providers' circuits cannot be read",
        "a circuit cannot be changed",
    }
    assert "pedro" not in repr(lines)

    shared.down = False
    assert ask(breaker, REFUSED, "mailgun")
    assert not breaker.passes("mailgun")


def test_a_probe_that_cannot_be_agreed_about_is_not_made(
    worker: MakeWorker, time: Time, shared: FakeShared
) -> None:
    breaker = worker()
    ask(breaker, REFUSED)
    time.pass_(PAUSE)
    shared.down = True
    assert not ask(breaker, ACCEPTED)

    shared.down = False
    assert ask(breaker, ACCEPTED)


def test_the_table_is_read_once_a_second_for_all_threads(
    worker: MakeWorker, time: Time, shared: FakeShared, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[Sequence[str]] = []
    read = shared.circuits
    monkeypatch.setattr(shared, "circuits", lambda names: reads.append(names) or read(names))
    breaker = worker()

    for _ in range(3):
        at_once(lambda _: ask(breaker, ACCEPTED), range(10))
        time.pass_(999)
        breaker.passes("mailgun")
        time.pass_(1)

    assert reads == [["mailgun", "ses", "sendgrid"]] * 3


@pytest.mark.parametrize(("idle", "waits"), [(1_500, False), (60_000, True)])
def test_after_an_idle_time_no_thread_goes_by_what_was_known_before(
    worker: MakeWorker,
    time: Time,
    shared: FakeShared,
    monkeypatch: pytest.MonkeyPatch,
    idle: int,
    waits: bool,
) -> None:
    """All wait for the one that reads; while there are emails each second, nobody does."""
    breaker = worker()
    breaker.passes("mailgun")
    shared.change_circuit(Circuit("mailgun"), rules.held_open(Circuit("mailgun"), clock.now()))
    time.pass_(idle)
    read, reads, goes_on = shared.circuits, threading.Event(), threading.Event()

    def slowly(names: Sequence[str]) -> dict[str, Circuit]:
        reads.set()
        assert goes_on.wait(10)
        return read(names)

    monkeypatch.setattr(shared, "circuits", slowly)
    passed: list[bool] = []
    reader, other = (
        threading.Thread(target=lambda: passed.append(breaker.passes("mailgun"))) for _ in "ab"
    )
    reader.start()
    assert reads.wait(10)
    other.start()
    if not waits:
        other.join(10)
    goes_on.set()
    for thread in (reader, other):
        thread.join(10)

    assert passed == ([False, False] if waits else [True, False])


def test_a_table_that_is_away_is_asked_by_one_thread(
    worker: MakeWorker, time: Time, shared: FakeShared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long it takes to say so: the others must not try it one after the other."""
    reads: list[int] = []

    def away(_: Sequence[str]) -> dict[str, Circuit]:
        reads.append(time.ms)
        time.pass_(6_000)
        raise StoreUnavailable("DynamoDB: down")

    monkeypatch.setattr(shared, "circuits", away)
    breaker = worker()

    assert at_once(lambda _: breaker.passes("mailgun"), range(20)) == [True] * 20
    assert len(reads) == 1


def test_a_reading_that_is_older_than_a_change_is_dropped(
    worker: MakeWorker, time: Time, shared: FakeShared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow answer must not bring a provider back that was found dead meanwhile."""
    breaker = worker()
    read, waits, goes_on = shared.circuits, threading.Event(), threading.Event()

    def slowly(names: Sequence[str]) -> dict[str, Circuit]:
        found = read(names)
        waits.set()
        assert goes_on.wait(10)
        return found

    monkeypatch.setattr(shared, "circuits", slowly)
    reader = threading.Thread(target=breaker.passes, args=("mailgun",))
    reader.start()
    assert waits.wait(10)
    entered = breaker.enter("mailgun")
    assert entered is not None
    breaker.leave(entered, REFUSED)
    goes_on.set()
    reader.join(10)

    assert not breaker.passes("mailgun")


def test_a_reading_between_two_looks_keeps_no_probe_from_being_made(
    worker: MakeWorker, time: Time
) -> None:
    """What is read again and is as it was is no reason to pass over."""
    breaker = worker()
    ask(breaker, REFUSED)
    time.pass_(1000)
    breaker.passes("mailgun")
    known = breaker._circuits["mailgun"]
    time.pass_(PAUSE)
    breaker.passes("mailgun")

    assert breaker._circuits["mailgun"] is known


def test_a_person_has_the_last_word(worker: MakeWorker, time: Time, shared: FakeShared) -> None:
    breaker = worker()
    ask(breaker, ACCEPTED)
    shared.change_circuit(Circuit("mailgun"), rules.held_open(Circuit("mailgun"), clock.now()))
    time.pass_(1000)

    for _ in range(3):
        assert not ask(breaker, ACCEPTED)
        assert breaker.why("mailgun") == "left alone until its circuit is closed by hand"
        time.pass_(10_000_000)
    shared.change_circuit(shared.known["mailgun"], rules.closed(shared.known["mailgun"]))
    assert ask(breaker, ACCEPTED)


def test_what_a_person_says_while_a_probe_is_under_way_holds(
    worker: MakeWorker, time: Time, shared: FakeShared
) -> None:
    breaker = worker()
    ask(breaker, REFUSED)
    time.pass_(PAUSE)
    breaker.passes("mailgun")
    probe = breaker.enter("mailgun")
    assert probe is not None
    shared.change_circuit(probe, rules.held_open(probe, clock.now()))

    breaker.leave(probe, ACCEPTED)

    assert not breaker.passes("mailgun")


def test_when_the_first_of_a_chain_may_be_asked_again(worker: MakeWorker, time: Time) -> None:
    breaker, now = worker(), time.ms
    assert breaker.again_at(["mailgun"]) == now
    ask(breaker, REFUSED, "mailgun")
    ask(breaker, replace(FAILED, retry_after=60), "ses")

    assert breaker.again_at(["mailgun", "ses"]) == now + PAUSE
    assert breaker.again_at(["ses"]) == now + 60_000
    assert breaker.again_at(["ses", "sendgrid"]) == now
    assert breaker.again_at(["ses", "gone"]) == now

    time.pass_(PAUSE)
    assert breaker.enter("mailgun") is not None
    # Whoever waits for a probe does not wait until it would count as lost.
    assert breaker.again_at(["mailgun"]) == time.ms + PAUSE


def test_while_one_of_a_chain_is_tried_it_is_undecided(worker: MakeWorker, time: Time) -> None:
    breaker = worker()
    ask(breaker, REFUSED)
    assert not breaker.undecided(["mailgun", "ses", "gone"])
    time.pass_(PAUSE)
    breaker.passes("mailgun")
    probe = breaker.enter("mailgun")
    assert probe is not None

    assert breaker.undecided(["ses", "mailgun"])
    assert not breaker.undecided(["ses"])
    breaker.leave(probe, FAILED)
    assert not breaker.undecided(["ses", "mailgun"])


def test_why_says_nothing_that_a_provider_said(worker: MakeWorker, time: Time) -> None:
    breaker = worker()
    ask(breaker, REFUSED)
    until = clock.rfc3339(time.ms + PAUSE)
    assert breaker.why("mailgun") == f"left alone until {until}: unavailable 401"

    time.pass_(PAUSE)
    breaker.enter("mailgun")
    assert breaker.why("mailgun") == (
        "left alone until another email's request is answered: unavailable 401"
    )
    assert breaker.why("ses") == "left alone until a moment ago"


def test_each_change_is_told_once(worker: MakeWorker, time: Time) -> None:
    told: list[tuple[State, State]] = []

    def note(what: Any) -> None:
        assert isinstance(what, CircuitChanged)
        told.append((what.before.state, what.after.state))

    one, other = worker(observe=note), worker(observe=note)
    for each in (one, other):
        ask(each, REFUSED)
    time.pass_(PAUSE)
    for each in (one, other):
        ask(each, ACCEPTED)

    assert told == [
        (State.CLOSED, State.OPEN),
        (State.OPEN, State.HALF_OPEN),
        (State.HALF_OPEN, State.CLOSED),
    ]


def test_a_provider_that_is_not_configured_any_more_is_nobodys_concern(worker: MakeWorker) -> None:
    breaker = worker()
    for _ in range(10):
        assert ask(breaker, REFUSED, "gone")


@pytest.mark.usefixtures("time")
def test_a_worker_that_may_not_write_asks_on() -> None:
    """A right that is missing must not stop a single email."""

    class ReadOnly(FakeShared):
        def change_circuit(self, before: Circuit, after: Circuit) -> Circuit | None:
            raise StoreUnavailable("DynamoDB: AccessDeniedException")

    breaker = Breaker(ReadOnly(), ["mailgun"], lambda _: None, first_pause=PAUSE, lease=LEASE)
    assert all(ask(breaker, REFUSED) for _ in range(20))
