"""Providers that fail and come back, and their rates: two workers on the local AWS and the sandbox."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from mailrelay import clock
from mailrelay.circuit import Circuit, State
from mailrelay.shared import Shared
from mailrelay.table import Table
from tests.e2e.conftest import MakeStack, Stack
from tests.support.processes import wait_for
from tests.support.sandbox import Sandbox

PROVIDERS = ("mailgun", "ses", "sendgrid")


class Relay:
    """A stack of two workers, and the circuits that they share."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self._shared = Shared(Table(stack.dynamodb, stack.environ["MAILRELAY_TABLE"]))
        stack.start("web")
        stack.start("worker")
        stack.start("worker", MAILRELAY_METRICS_PORT="0")
        stack.start("beat")

    def circuit(self, name: str) -> Circuit:
        return self._shared.circuits([name])[name]

    def all_know(self, name: str, state: State) -> Circuit:
        """Wait until a circuit is so, and each worker has looked since, or will before it asks."""
        found: Circuit = wait_for(
            lambda: (circuit := self.circuit(name)).state is state and circuit,
            f"{name} is {state}",
        )
        known_by = clock.now() + 2_000
        wait_for(lambda: clock.now() > known_by, "all may know it")
        return found

    def end_pause(self, name: str) -> None:
        """As if the time of an open circuit were over."""
        circuit = self.all_know(name, State.OPEN)
        assert self._shared.change_circuit(circuit, replace(circuit, until=clock.now()))
        self.all_know(name, State.OPEN)

    def send(self, *recipients: str) -> list[dict[str, Any]]:
        """The emails with all of their attempts, once they are over."""
        batch = self.stack.wait(self.stack.send(*recipients), seconds=120)
        return [self.stack.show(email["id"]) for email in batch["emails"]]


def codes(email: dict[str, Any]) -> list[str]:
    return [attempt["code"] for attempt in email["attempts"]]


@pytest.fixture(scope="module")
def patient(make_shared_stack: MakeStack) -> Relay:
    """One whose providers are left alone for so long that only a test ends it."""
    pauses = {"MAILRELAY_PROVIDER_PAUSE": "600", "MAILRELAY_RETRY_SCHEDULE": "600,600"}
    hangs = {"MAILRELAY_PROVIDER_TIMEOUT": "60", "MAILRELAY_LEASE": "90"}
    return Relay(make_shared_stack(**pauses, **hangs))


@pytest.fixture
def relay(patient: Relay, sandbox: Sandbox) -> Iterator[Relay]:
    """The same, with nothing left from the test before."""
    yield patient
    sandbox.heal()
    for name in PROVIDERS:
        if (circuit := patient.circuit(name)).state is not State.CLOSED:
            assert patient._shared.change_circuit(circuit, Circuit(name))
            patient.all_know(name, State.CLOSED)


def test_a_provider_that_refuses_us_is_left_alone_until_a_probe_finds_it_well(
    relay: Relay, sandbox: Sandbox
) -> None:
    """By both workers, after one request; and each email says that it was."""
    sandbox.fault("mailgun", "status", status=401)
    (first,) = relay.send("first@example.org")
    assert codes(first) == ["401", "200"]
    assert relay.all_know("mailgun", State.OPEN).code == "401"

    others = relay.send(*(f"reader{index}@example.org" for index in range(30)))

    assert sandbox.requests() == {"mailgun": 1, "ses": 31, "sendgrid": 0}
    for email in others:
        assert codes(email) == ["passed_over", "200"]
        assert (email["retries"], email["provider"]) == (0, "ses")
        assert email["attempts"][0]["durationMs"] is None

    sandbox.heal()
    relay.end_pause("mailgun")
    (probe,) = relay.send("probe@example.org")
    assert codes(probe) == ["200"]
    assert relay.all_know("mailgun", State.CLOSED) == replace(
        relay.circuit("mailgun"), openings=0, code=None
    )
    last = relay.send(*(f"last{index}@example.org" for index in range(10)))
    assert {email["provider"] for email in last} == {"mailgun"}
    assert sandbox.requests() == {"mailgun": 12, "ses": 31, "sendgrid": 0}


def test_of_many_emails_one_tries_a_provider_and_the_others_do_not_wait_for_it(
    relay: Relay, sandbox: Sandbox
) -> None:
    sandbox.fault("mailgun", "status", status=401)
    relay.send("first@example.org")
    sandbox.fault("mailgun", "hang")
    relay.end_pause("mailgun")

    batch = relay.stack.send(*(f"reader{index}@example.org" for index in range(30)))

    def all_but_one_are_sent() -> bool:
        return bool(relay.stack.show(batch)["counts"]["sent"] == 29)

    wait_for(all_but_one_are_sent, "all but one are sent")
    assert sandbox.requests() == {"mailgun": 2, "ses": 30, "sendgrid": 0}
    assert relay.circuit("mailgun").state is State.HALF_OPEN

    # What hung gets no answer now: it goes to the next provider, and nobody else is the next probe.
    sandbox.heal()
    relay.stack.wait(batch, "sent")
    assert relay.all_know("mailgun", State.OPEN).openings == 2
    assert sandbox.requests() == {"mailgun": 2, "ses": 31, "sendgrid": 0}


def test_one_bad_recipient_or_email_trips_nothing(relay: Relay, sandbox: Sandbox) -> None:
    """However many of them: whoever comes next is sent as if they had not been."""
    bad = [
        f"mailgun-{what}+{index}@example.org" for what in ("refuse", "413") for index in range(8)
    ]
    relay.send(*bad)

    good = relay.send(*(f"reader{index}@example.org" for index in range(10)))

    assert [codes(email) for email in good] == [["200"]] * 10
    assert {email["provider"] for email in good} == {"mailgun"}
    assert relay.circuit("mailgun").state is State.CLOSED


def test_emails_wait_while_all_are_down_and_are_sent_when_one_is_back(
    make_stack: MakeStack, sandbox: Sandbox
) -> None:
    """Most of them without having asked anybody; that is no failure, and uses up nothing."""
    schedule = ",".join(["5"] * 20)
    # Each pause is one email that asks: with short ones, a slow machine has most of them ask.
    relay = Relay(make_stack(MAILRELAY_PROVIDER_PAUSE="3", MAILRELAY_RETRY_SCHEDULE=schedule))
    for name in PROVIDERS:
        sandbox.fault(name, "status", status=401)
    first = relay.stack.send("first@example.org")
    for name in PROVIDERS:
        wait_for(lambda name=name: relay.circuit(name).openings, f"{name} is down")
    batch = relay.stack.send(*(f"reader{index}@example.org" for index in range(20)))

    def waiting() -> list[dict[str, Any]]:
        """Those that asked nobody so far."""
        shown = [each for each in relay.stack.show(batch)["emails"] if not each["retries"]]
        return [each for each in shown if each["error"] and each["error"]["code"] == "passed_over"]

    wait_for(lambda: len(waiting()) > 5, "many wait")
    # Now and then they look whether somebody may be asked, for which they are queued for a moment.
    look = wait_for(lambda: [each for each in waiting() if each["nextAttemptAt"]], "one waits")
    assert {each["status"] for each in look} == {"deferred"}
    sandbox.fault("ses", "healthy")

    emails = [*relay.stack.wait(batch, seconds=120)["emails"], relay.stack.wait(f"{first}-0")]

    assert {email["provider"] for email in emails} == {"ses"}
    assert len(sandbox.messages()) == 21


def test_two_workers_together_keep_to_a_rate(make_stack: MakeStack, sandbox: Sandbox) -> None:
    """An email over it waits: it is neither failed nor failed over."""
    rate = 20
    stack = make_stack(
        MAILRELAY_RATE_MAILGUN=f"{rate}/s",
        MAILRELAY_RETRY_SCHEDULE="3600",
        # On a machine that does much else, a claim can take more than the tests' short one leaves.
        MAILRELAY_LEASE="30",
    )
    relay = Relay(stack)

    emails = relay.send(*(f"reader{index}@example.org" for index in range(80)))

    assert [codes(email) for email in emails] == [["200"]] * 80
    assert sandbox.requests() == {"mailgun": 80, "ses": 0, "sendgrid": 0}
    received = sorted(
        datetime.fromisoformat(message["received_at"]).timestamp()
        for message in sandbox.messages()
    )
    assert len(received) == 80
    # A request may come a little after its place, and meet the next ones; a second is plenty.
    for count in (40, 70):
        spans = [b - a for a, b in zip(received, received[count - 1 :], strict=False)]
        assert min(spans) > (count - 1) / rate - 1
