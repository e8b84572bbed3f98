"""What happened is counted once, under the labels that it belongs to, and documented."""

from __future__ import annotations

import re
from typing import Any

import pytest

from mailrelay import metrics
from mailrelay.backlog import Backlog, Due
from mailrelay.circuit import Circuit
from mailrelay.message import Outcome, Status
from mailrelay.observation import (
    AttemptEnded,
    BatchAccepted,
    EmailPutOff,
    EmailResent,
    EmailResolved,
    EmailSwept,
    Observation,
    ShardSwept,
)
from tests.support.processes import ROOT
from tests.support.records import a_batch, an_attempt, an_email
from tests.unit.counting import counted

EMAIL = an_email(a_batch())


def ended(outcome: Outcome, status: Status | None, **changes: Any) -> AttemptEnded:
    """The end of an attempt at an email that was accepted 1.5 s ago."""
    attempt = an_attempt(EMAIL, outcome, **{"duration_ms": 250, **changes})
    return AttemptEnded(EMAIL.id, attempt, status=status, accepted_ago=1500)


def swept(status: Status, abandoned: Outcome | None) -> EmailSwept:
    """An email that a sweep found, with an attempt that was under way unless it is None."""
    attempt = abandoned and an_attempt(EMAIL, abandoned, duration_ms=None)
    return EmailSwept(EMAIL.id, None, Status.SENDING, status, 2, attempt)


def attempt_at_mailgun(outcome: str) -> dict[str, float]:
    return {
        f"attempts_total{{outcome={outcome},provider=mailgun}}": 1,
        "provider_request_duration_seconds_count{provider=mailgun}": 1,
        "provider_request_duration_seconds_sum{provider=mailgun}": 0.25,
    }


SENT = {"time_to_sent_seconds_count{}": 1, "time_to_sent_seconds_sum{}": 1.5}

CASES = [
    pytest.param(
        BatchAccepted("batch", "shop", emails=3, enqueued=True),
        {"batches_accepted_total{enqueued=true}": 1, "emails_accepted_total{}": 3},
        id="accepted",
    ),
    pytest.param(
        BatchAccepted("batch", "shop", emails=1, enqueued=False),
        {"batches_accepted_total{enqueued=false}": 1, "emails_accepted_total{}": 1},
        id="accepted without SQS",
    ),
    pytest.param(
        ended(Outcome.ACCEPTED, Status.SENT),
        attempt_at_mailgun("accepted") | SENT | {"emails_concluded_total{status=sent}": 1},
        id="sent",
    ),
    pytest.param(
        EmailPutOff(EMAIL.id, "mailgun", 5000),
        {"emails_put_off_total{provider=mailgun}": 1},
        id="put off",
    ),
    pytest.param(
        ended(Outcome.REJECTED, Status.FAILED),
        attempt_at_mailgun("rejected") | {"emails_concluded_total{status=failed}": 1},
        id="failed",
    ),
    pytest.param(
        swept(Status.DEFERRED, Outcome.UNKNOWN),
        {
            "attempts_total{outcome=unknown,provider=mailgun}": 1,
            "emails_concluded_total{status=deferred}": 1,
        },
        id="abandoned and deferred",
    ),
    pytest.param(
        swept(Status.QUEUED, Outcome.UNKNOWN),
        {"attempts_total{outcome=unknown,provider=mailgun}": 1},
        id="abandoned, and on to the next provider",
    ),
    pytest.param(swept(Status.QUEUED, None), {}, id="only its message was gone"),
    pytest.param(
        EmailResent(EMAIL.id, None, Status.FAILED, 4, enqueued=True), {}, id="resent by a person"
    ),
    pytest.param(
        EmailResolved(EMAIL.id, None, Status.FAILED),
        {"emails_concluded_total{status=failed}": 1},
        id="resolved by a person",
    ),
    pytest.param(
        ended(Outcome.RETRY, Status.QUEUED),
        attempt_at_mailgun("retry"),
        id="failed over, and so not concluded",
    ),
    pytest.param(
        ended(Outcome.UNAVAILABLE, Status.DEFERRED),
        attempt_at_mailgun("unavailable") | {"emails_concluded_total{status=deferred}": 1},
        id="deferred",
    ),
    pytest.param(
        ended(Outcome.UNKNOWN, Status.UNKNOWN),
        attempt_at_mailgun("unknown") | {"emails_concluded_total{status=unknown}": 1},
        id="unknown",
    ),
    pytest.param(
        ended(Outcome.RETRY, None),
        attempt_at_mailgun("retry"),
        id="no longer ours, and concluded elsewhere",
    ),
    pytest.param(
        ended(Outcome.RETRY, Status.QUEUED, duration_ms=0),
        {"attempts_total{outcome=retry,provider=mailgun}": 1},
        id="without a request, and so without its time",
    ),
    pytest.param(
        ShardSwept(
            3,
            found=7,
            most_overdue=900,
            enqueued=4,
            ended=2,
            withdrawn=1,
            duration_ms=500,
            complete=True,
        ),
        {
            "sweeps_total{complete=true}": 1,
            "sweep_found_total{}": 7,
            "sweep_results_total{result=enqueued}": 4,
            "sweep_results_total{result=ended}": 2,
            "sweep_results_total{result=withdrawn}": 1,
            "sweep_duration_seconds_count{}": 1,
            "sweep_duration_seconds_sum{}": 0.5,
        },
        id="swept",
    ),
    pytest.param(
        ShardSwept(
            3,
            found=0,
            most_overdue=0,
            enqueued=0,
            ended=0,
            withdrawn=0,
            duration_ms=10,
            complete=False,
        ),
        {
            "sweeps_total{complete=false}": 1,
            "sweep_duration_seconds_count{}": 1,
            "sweep_duration_seconds_sum{}": 0.01,
        },
        id="swept in part",
    ),
]


@pytest.mark.parametrize(("what", "changes"), CASES)
def test_an_observation_changes_its_counts_and_no_other(
    what: Observation, changes: dict[str, float]
) -> None:
    with counted() as changed:
        metrics.observe(what)

    assert changed == changes


def test_a_clock_that_is_behind_takes_nothing_away() -> None:
    """The web that accepted an email and the worker that sent it have two."""
    with counted("time_to_sent_seconds_") as changed:
        attempt = an_attempt(EMAIL, Outcome.ACCEPTED)
        metrics.observe(AttemptEnded(EMAIL.id, attempt, status=Status.SENT, accepted_ago=-20))

    assert changed == {"time_to_sent_seconds_count{}": 1}


def test_what_alerts_look_for_is_there_before_it_happens() -> None:
    """`rate` sees nothing where a series begins with its first event."""
    metrics.begin_at_zero(["pigeon"], ["attic"])

    value = metrics.REGISTRY.get_sample_value
    for outcome in Outcome:
        labels = {"provider": "pigeon", "outcome": outcome}
        assert value("mailrelay_attempts_total", labels) == 0
    for result in ("messages", "empty", "failed"):
        labels = {"queue": "attic", "result": result}
        assert value("mailrelay_queue_polls_total", labels) == 0
    assert value("mailrelay_sweeps_total", {"complete": "true"}) is not None


def _documented() -> dict[str, tuple[str, frozenset[str]]]:
    """Type and labels of each metric that docs/metrics.md has a row for."""
    text = (ROOT / "docs" / "metrics.md").read_text()
    rows = re.findall(r"^\| `(mailrelay_\w+)` \| (\w+) \|([^|]*)\|", text, re.MULTILINE)
    return {name: (kind, frozenset(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}


def _existing() -> dict[str, tuple[str, frozenset[str]]]:
    """Type and labels of each metric that there is."""
    found = {}
    for metric in list(metrics.REGISTRY._collector_to_names):
        labels = frozenset(getattr(metric, "_labelnames", ()))
        for family in metric.collect():
            total = "_total" if family.type == "counter" else ""
            if family.type == "info":
                family.name, family.type = f"{family.name}_info", "gauge"
                labels = frozenset(family.samples[0].labels)
            found[family.name + total] = (family.type, labels)
    for family in Backlog(
        lambda: {"deliver": {"ready": 1}}, lambda: Due(1, 1), lambda: {"ses": Circuit("ses")}
    ).collect():
        found[family.name] = (family.type, frozenset(family.samples[0].labels))
    return found


def test_every_metric_is_documented_as_it_is() -> None:
    documented = _documented()

    assert len(documented) > 20
    assert documented == _existing()


def test_every_metric_is_named_after_the_conventions() -> None:
    """https://prometheus.io/docs/practices/naming/: a prefix, base units, _total on counters."""
    for name, (kind, labels) in _existing().items():
        assert re.fullmatch(r"mailrelay_[a-z][a-z_]+[a-z]", name)
        assert name.endswith("_total") == (kind == "counter"), name
        assert not re.search(r"_(ms|millis|milliseconds|minutes)\b", name)
        assert labels <= {
            *("provider", "outcome", "status", "enqueued", "complete", "result", "queue"),
            *("state", "source", "service", "operation", "code", "method", "route", "version"),
        }, name
