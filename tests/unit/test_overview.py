"""What happened is counted by what it was, and shown slice by slice with its percentiles."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrelay.circuit import Circuit
from mailrelay.message import PASSED_OVER, EmailId, Outcome, Status
from mailrelay.observation import (
    AttemptEnded,
    BatchAccepted,
    CircuitChanged,
    EmailPutOff,
    EmailResent,
    EmailResolved,
    EmailSwept,
    Observation,
)
from mailrelay.overview import BOUNDS, DAY, HOUR, PERIODS, Period, Tally, counts, overview
from tests.support.records import a_batch, an_attempt, an_email

EMAIL = an_email(a_batch())
ID = EmailId(EMAIL.id.batch_id, 0)
OVER = an_attempt(EMAIL, Outcome.UNAVAILABLE, code=PASSED_OVER)


def ended(outcome: Outcome, status: Status | None, ago: int = 20) -> AttemptEnded:
    return AttemptEnded(ID, an_attempt(EMAIL, outcome), status, ago)


@pytest.mark.parametrize(
    ("what", "counted"),
    [
        (BatchAccepted("id", "demo", 3, True), {"accepted": 3}),
        (
            ended(Outcome.ACCEPTED, Status.SENT),
            {"asked#mailgun#accepted": 1, "sent": 1, "took#2": 1},
        ),
        (ended(Outcome.REJECTED, Status.FAILED), {"asked#mailgun#rejected": 1, "failed": 1}),
        (ended(Outcome.RETRY, Status.QUEUED), {"asked#mailgun#retry": 1}),
        (ended(Outcome.RETRY, Status.DEFERRED), {"asked#mailgun#retry": 1, "deferred": 1}),
        (ended(Outcome.UNKNOWN, Status.UNKNOWN), {"asked#mailgun#unknown": 1, "unknown": 1}),
        pytest.param(
            ended(Outcome.ACCEPTED, None), {"asked#mailgun#accepted": 1}, id="not ours any more"
        ),
        pytest.param(
            AttemptEnded(ID, OVER, Status.QUEUED, 9), {"asked#mailgun#passed_over": 1}, id="nobody"
        ),
        pytest.param(
            ended(Outcome.ACCEPTED, Status.SENT, -5),
            {"asked#mailgun#accepted": 1, "sent": 1, "took#0": 1},
            id="clocks that differ",
        ),
        pytest.param(
            ended(Outcome.ACCEPTED, Status.SENT, 10**12),
            {"asked#mailgun#accepted": 1, "sent": 1, f"took#{len(BOUNDS) - 1}": 1},
            id="longer than all",
        ),
        (
            EmailSwept(
                ID,
                None,
                Status.SENDING,
                Status.DEFERRED,
                2,
                an_attempt(EMAIL, Outcome.UNKNOWN),
            ),
            {"asked#mailgun#unknown": 1, "deferred": 1},
        ),
        (EmailSwept(ID, None, Status.DEFERRED, Status.QUEUED, 2, None), {}),
        (EmailResolved(ID, None, Status.SENT), {"sent": 1}),
        (EmailResent(ID, None, Status.FAILED, 4, True), {}),
        (EmailPutOff(ID, "ses", 50), {}),
        (CircuitChanged(Circuit("ses"), Circuit("ses")), {}),
    ],
)
def test_what_happened_is_counted_by_what_it_was(
    what: Observation, counted: dict[str, int]
) -> None:
    assert counts(what) == counted


def test_a_tally_tells_outcomes_by_provider() -> None:
    tally = Tally({"accepted": 4, "asked#a#b#retry": 2, "asked#ses#accepted": 3, "sent": 3})

    assert tally.outcomes() == {"a#b": {"retry": 2}, "ses": {"accepted": 3}}
    assert (tally.accepted, tally.became(Status.SENT), tally.became(Status.FAILED)) == (4, 3, 0)


@given(st.lists(st.integers(11, BOUNDS[-1]), min_size=1), st.sampled_from([0.5, 0.95]))
def test_a_percentile_is_off_by_less_than_one_class(times: list[int], quantile: float) -> None:
    """As many emails as it says took no longer, and it is the right class's."""
    total: dict[str, int] = {}
    for took in times:
        for name, count in counts(ended(Outcome.ACCEPTED, Status.SENT, took)).items():
            total[name] = total.get(name, 0) + count

    said = Tally(total).time_to_sent(quantile)

    # The smallest time of which at least this share is no longer.
    exact = sorted(times)[max(0, -(-len(times) * quantile // 1).__int__() - 1)]
    assert said is not None
    assert exact / 1.42 <= said <= exact * 1.42


def test_of_nothing_sent_there_is_no_percentile() -> None:
    assert Tally({"accepted": 1}).time_to_sent(0.5) is None


@pytest.mark.parametrize("period", PERIODS)
def test_a_period_ends_with_the_slice_that_is_not_over(period: Period) -> None:
    now = 1_800_000_123_456

    starts = period.starts(now)

    assert len(starts) == period.slices
    assert starts[-1] <= now < starts[-1] + period.width
    assert all(start % period.width == 0 for start in starts)


def test_an_hour_and_a_day_are_covered() -> None:
    assert HOUR.width * HOUR.slices == 3_600_000
    assert DAY.width * DAY.slices == 86_400_000


def test_slices_in_which_nothing_happened_are_there_too() -> None:
    now = 1_800_000_000_000
    first, last = HOUR.starts(now)[0], HOUR.starts(now)[-1]
    found = {first: {"sent": 1}, last: {"sent": 2, "accepted": 1}}

    shown = overview(HOUR, now, found)

    assert [each.start for each in shown.slices] == list(HOUR.starts(now))
    sent = [each.tally.became(Status.SENT) for each in shown.slices]
    assert (sent[0], sent[-1], sum(sent)) == (1, 2, 3)
    assert shown.total.counts == {"sent": 3, "accepted": 1}
