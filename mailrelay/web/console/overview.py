"""``/``: how much passes through the relay, how it goes, and how each provider does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, Response, request

from mailrelay import clock
from mailrelay.backlog import Backlog
from mailrelay.circuit import Circuit, State
from mailrelay.message import PASSED_OVER, Outcome, Status
from mailrelay.overview import DAY, HOUR, PERIODS, Overview, Period, Slice
from mailrelay.web.console import chart
from mailrelay.web.console.pages import page

_POLL = {HOUR: 5, DAY: 60}
"""Seconds from one look to the next: not more often than there is something new."""

_MINUTE = 60_000

_CONCLUDED = (Status.SENT, Status.FAILED, Status.DEFERRED, Status.UNKNOWN)

OUTCOMES = (
    Outcome.ACCEPTED,
    Outcome.REJECTED,
    Outcome.RETRY,
    Outcome.UNAVAILABLE,
    Outcome.UNKNOWN,
    PASSED_OVER,
)
"""As they follow each other in a bar."""


def register(
    console: Blueprint,
    providers: Sequence[str],
    board: Callable[[Period], Overview | None],
    backlog: Backlog,
) -> None:
    @console.get("/")
    def overview() -> Response:
        asked = request.args.get("over")
        period = next((each for each in PERIODS if each.name == asked), HOUR)
        shown, waiting = board(period), backlog.waiting()
        circuits, now = waiting.circuits, clock.now()
        return page(
            "overview.html",
            period=period,
            periods=PERIODS,
            poll=_POLL[period],
            outcomes=OUTCOMES,
            concluded=_CONCLUDED,
            span=chart.span,
            queue=None if waiting.depths is None else sum(waiting.depths["deliver"].values()),
            due=waiting.due,
            healths=None
            if circuits is None
            else [health(circuits[name], now) for name in providers],
            **({"shown": None} if shown is None else figures(shown, providers)),
        )


def figures(shown: Overview, providers: Sequence[str]) -> dict[str, Any]:
    """What the page says of a period."""
    minutes = shown.period.width / _MINUTE
    tallies = [each.tally for each in shown.slices]
    accepted = [tally.accepted / minutes for tally in tallies]
    sent = [tally.became(Status.SENT) / minutes for tally in tallies]
    failed = [tally.became(Status.FAILED) / minutes for tally in tallies]
    p50 = [tally.time_to_sent(0.5) for tally in tallies]
    p95 = [tally.time_to_sent(0.95) for tally in tallies]
    found = shown.total.outcomes()
    return {
        "shown": shown,
        "total": shown.total,
        "emails": chart.columns([("sent", sent), ("failed", failed)], [("came", accepted)]),
        "times": chart.times([("p50", p50), ("p95", p95)]),
        "most": {"accepted": max(accepted), "sent": max(sent), "failed": max(failed)},
        # Those of earlier chains too, as long as something is known of them.
        "by_provider": {
            name: found.get(name, {}) for name in (*providers, *sorted(found.keys() - providers))
        },
        "rows": [_row(each, shown.period) for each in reversed(shown.slices) if each.tally.counts],
    }


def _row(each: Slice, period: Period) -> dict[str, Any]:
    return {
        "start": clock.rfc3339(each.start)[:16].replace("T", " "),
        "accepted": each.tally.accepted,
        "became": [each.tally.became(status) for status in _CONCLUDED],
        "p50": each.tally.time_to_sent(0.5),
        "p95": each.tally.time_to_sent(0.95),
    }


@dataclass(frozen=True, slots=True)
class Health:
    """How a provider does, in words."""

    provider: str
    kind: str
    """A class of the style sheet."""
    said: str
    why: str | None
    since: int | None
    until: int | None
    """When it is asked again, in milliseconds; None where nothing is to be waited for."""


def health(circuit: Circuit, now: int) -> Health:
    """What the circuit says, for who has not heard of circuits."""
    if circuit.state is State.CLOSED:
        return Health(circuit.provider, "healthy", "healthy", None, None, None)
    why = f"It answered {circuit.code or circuit.outcome}"
    if circuit.held:
        why = f"A person said so; mailrelay providers close {circuit.provider} has it asked again"
    elif circuit.code:
        why += f", which counts as {circuit.outcome}"
    trial = {
        State.OPEN: "the next email tries it",
        State.HALF_OPEN: "one email is trying it",
    }
    if circuit.state_at(now) is State.HALF_OPEN:
        said = trial[circuit.state]
        return Health(circuit.provider, "half_open", said, why, circuit.since, None)
    return Health(circuit.provider, "open", "left alone", why, circuit.since, circuit.until)
