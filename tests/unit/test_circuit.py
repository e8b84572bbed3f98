"""When a provider is left alone, and for how long: by example, and for any sequence of answers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailrelay import circuit as rules
from mailrelay.circuit import Circuit, Ended, State
from mailrelay.message import Outcome
from mailrelay.providers import Answer

NOW = 1_800_000_000_000
PAUSE = 10_000
LEASE = 30_000
CLOSED = Circuit("mailgun", version="v7")

ACCEPTED = Answer(Outcome.ACCEPTED, "200")
REJECTED = Answer(Outcome.REJECTED, "400")
REFUSED = Answer(Outcome.UNAVAILABLE, "401")
FAILED = Answer(Outcome.RETRY, "503")
SILENT = Answer(Outcome.UNKNOWN, "ReadTimeoutError")


def ended(failed: int, fine: int, at: int = NOW) -> list[Ended]:
    return [Ended(at, failed=True)] * failed + [Ended(at, failed=False)] * fine


def opened(answer: Answer, circuit: Circuit = CLOSED, now: int = NOW) -> Circuit:
    return rules.opened(circuit, answer, now, PAUSE)


@pytest.mark.parametrize(
    "answer",
    [
        REFUSED,
        replace(FAILED, retry_after=0.5),
        replace(SILENT, retry_after=120),
        replace(REFUSED, retry_after=0),
    ],
)
def test_who_refuses_everybody_or_asks_for_a_pause_is_left_alone_at_once(answer: Answer) -> None:
    assert rules.opens(answer, [], NOW)


@pytest.mark.parametrize("answer", [FAILED, SILENT, replace(FAILED, retry_after=0)])
@pytest.mark.parametrize(
    ("failed", "fine", "opens"),
    [(4, 0, False), (5, 0, True), (5, 5, True), (5, 6, False), (50, 50, True), (49, 51, False)],
)
def test_who_fails_often_is_left_alone(
    answer: Answer, failed: int, fine: int, opens: bool
) -> None:
    """At least five failures, and at least half of all."""
    assert rules.opens(answer, ended(failed, fine), NOW) is opens


@pytest.mark.parametrize(("age", "opens"), [(rules.WINDOW - 1, True), (rules.WINDOW, False)])
def test_a_failure_counts_for_as_long_as_the_window(age: int, opens: bool) -> None:
    assert rules.opens(FAILED, [*ended(4, 0, NOW - age), Ended(NOW, failed=True)], NOW) is opens


@pytest.mark.parametrize(
    "answer",
    [
        ACCEPTED,
        REJECTED,
        replace(REJECTED, particular=True),
        *(
            replace(each, particular=True, retry_after=wait)
            for each in (REFUSED, FAILED, SILENT)
            for wait in (None, 60)
        ),
    ],
)
def test_nothing_that_is_about_one_email_or_sender_leaves_a_provider_alone(answer: Answer) -> None:
    assert not rules.fails(answer)
    assert rules.tells(answer) is (answer is ACCEPTED)
    assert not rules.opens(answer, ended(100, 0), NOW)


def test_a_pause_doubles_each_time_in_a_row_up_to_five_minutes() -> None:
    circuit, pauses = CLOSED, []
    for _ in range(30):
        circuit = opened(FAILED, circuit)
        assert circuit.until is not None
        pauses.append(circuit.until - NOW)
        circuit = rules.probing(circuit, NOW, LEASE)

    assert pauses == [10_000, 20_000, 40_000, 80_000, 160_000, *[300_000] * 25]


def test_a_first_pause_over_five_minutes_does_not_shrink() -> None:
    once = rules.opened(CLOSED, FAILED, NOW, 3_600_000)
    twice = rules.opened(once, FAILED, NOW, 3_600_000)

    assert (once.until, twice.until) == (NOW + 3_600_000, NOW + 3_600_000)


@pytest.mark.parametrize(
    ("wanted", "pause"),
    [
        (None, PAUSE),
        (0, PAUSE),
        (3, PAUSE),
        (120, 120_000),
        (3600.5, 3_600_500),
        (21_600, 21_600_000),
        (21_601, 21_600_000),
        (1e12, 21_600_000),
        (float("inf"), 21_600_000),
    ],
)
def test_a_provider_is_left_alone_for_as_long_as_it_asks_up_to_six_hours(
    wanted: float | None, pause: int
) -> None:
    """Shorter than our own pause it is not; and no header, however wrong, ends it for good."""
    assert opened(replace(FAILED, retry_after=wanted)).until == NOW + pause


def test_what_opened_a_circuit_is_known_until_it_closes() -> None:
    circuit = opened(REFUSED)
    assert circuit == Circuit(
        "mailgun", State.OPEN, NOW + PAUSE, NOW, 1, Outcome.UNAVAILABLE, "401", "v7"
    )

    probed = rules.probing(circuit, NOW + PAUSE, LEASE)
    assert (probed.state, probed.until) == (State.HALF_OPEN, NOW + PAUSE + LEASE)
    assert (probed.since, probed.code) == (NOW, "401")

    again = opened(FAILED, probed, NOW + PAUSE + 5)
    assert (again.since, again.openings, again.code) == (NOW, 2, "503")
    assert rules.closed(again) == CLOSED


def test_a_probe_decides() -> None:
    probe = rules.probing(opened(REFUSED), NOW + PAUSE, LEASE)

    assert rules.probed(probe, ACCEPTED, NOW + PAUSE, PAUSE) == CLOSED
    again = rules.probed(probe, SILENT, NOW + PAUSE, PAUSE)
    assert (again.state, again.until) == (State.OPEN, NOW + PAUSE + 2 * PAUSE)


@pytest.mark.parametrize(
    "answer", [REJECTED, *(replace(each, particular=True) for each in (REJECTED, REFUSED, SILENT))]
)
def test_a_probe_that_told_nothing_is_followed_by_the_next_email(answer: Answer) -> None:
    """Not by none: a bad recipient keeps nobody waiting. And it closes nothing either."""
    probe = rules.probing(opened(REFUSED), NOW + PAUSE, LEASE)
    circuit = rules.probed(probe, answer, NOW + PAUSE + 5, PAUSE)

    assert circuit.state is State.OPEN
    assert circuit.passes(NOW + PAUSE + 5)
    assert (circuit.openings, circuit.code) == (1, "401")


def test_who_passes_when() -> None:
    circuit = opened(REFUSED)
    probed = rules.probing(circuit, NOW + PAUSE, LEASE)

    assert CLOSED.passes(0)
    assert [circuit.passes(NOW + PAUSE + more) for more in (-1, 0, 1)] == [False, True, True]
    # A probe whose worker died is followed by another.
    assert [probed.passes(NOW + PAUSE + LEASE + more) for more in (-1, 0)] == [False, True]


@pytest.mark.parametrize("before", [CLOSED, opened(REFUSED)])
def test_what_a_person_keeps_open_nobody_asks_until_a_person_closes_it(before: Circuit) -> None:
    held = rules.held_open(before, NOW + 5)

    assert held.held
    assert not held.passes(NOW + 10**12)
    assert (held.since, held.code) == (before.since or NOW + 5, None)
    assert not rules.closed(held).held
    assert rules.closed(held).passes(NOW)


@dataclass
class Asker:
    """One worker that asks one provider as the rules say, one email after the other."""

    circuit: Circuit = CLOSED
    now: int = NOW
    asked: list[int] = field(default_factory=list)
    ended: list[Ended] = field(default_factory=list)

    def email(self, answer: Answer) -> bool:
        """Whether the provider was asked."""
        if not self.circuit.passes(self.now):
            return False
        self.asked.append(self.now)
        probes = self.circuit.state is not State.CLOSED
        if rules.tells(answer):
            self.ended.append(Ended(self.now, rules.fails(answer)))
        if probes:
            self.circuit = rules.probed(self.circuit, answer, self.now, PAUSE)
        elif rules.opens(answer, self.ended, self.now):
            self.circuit = opened(answer, self.circuit, self.now)
        return True


STEPS = st.lists(st.integers(0, 400_000), min_size=1, max_size=60)
"""Milliseconds between one email and the next."""

ANSWERS = st.builds(
    Answer,
    st.sampled_from(Outcome),
    retry_after=st.none() | st.floats(0, 1e9),
    particular=st.booleans(),
)


@given(STEPS, st.sampled_from([REJECTED, replace(REFUSED, particular=True)]))
def test_a_provider_that_refuses_emails_one_by_one_is_always_asked(
    steps: list[int], answer: Answer
) -> None:
    asker = Asker()
    for step in steps:
        asker.now += step
        assert asker.email(answer)


@given(STEPS)
def test_a_provider_that_always_refuses_is_asked_once_a_pause(steps: list[int]) -> None:
    asker = Asker()
    for step in steps:
        asker.now += step
        asker.email(REFUSED)

    apart = [later - earlier for earlier, later in zip(asker.asked, asker.asked[1:], strict=False)]
    pauses = [min(PAUSE * 2**turn, rules.LONGEST_PAUSE) for turn in range(len(apart))]
    assert all(wait >= pause for wait, pause in zip(apart, pauses, strict=True))


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 400_000), ANSWERS), max_size=60))
def test_a_provider_that_is_well_again_is_asked_again(history: list[tuple[int, Answer]]) -> None:
    """Whatever happened: after six hours at most one email gets through, and then all do."""
    asker = Asker()
    for step, answer in history:
        asker.now += step
        asker.email(answer)
    asker.now += rules.LONGEST_REQUEST

    assert asker.email(ACCEPTED)
    assert asker.circuit == CLOSED


@pytest.mark.parametrize(
    ("later", "pause"), [(rules.LONGEST_PAUSE, 40_000), (rules.LONGEST_PAUSE + 1, 10_000)]
)
def test_what_was_long_ago_does_not_count_against_a_provider(later: int, pause: int) -> None:
    """No email came by for long, as at the end of a chain whose beginning is well."""
    fault = Answer(Outcome.RETRY, "503", retry_after=0.001)
    circuit = rules.opened(rules.opened(Circuit("ses"), fault, 0, 10_000), fault, 0, 10_000)
    assert circuit.until is not None
    now = circuit.until + later

    again = rules.opened(rules.probing(circuit, now, 30_000), fault, now, 10_000)

    assert again.until == now + pause
