"""The console's overview: what it shows of what passed, of what waits, and of each provider."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import pytest

from mailrelay import circuit, clock, kept
from mailrelay.circuit import Circuit, State
from mailrelay.counters import Counters, Pending
from mailrelay.message import PASSED_OVER, EmailId, Outcome, Status
from mailrelay.observation import AttemptEnded, BatchAccepted
from mailrelay.providers import Answer
from mailrelay.shared import Shared
from mailrelay.web.console.overview import health
from tests.support.console import Browser, Inline, text_of
from tests.support.records import CONTENT, a_batch, an_attempt, an_email
from tests.unit import test_web_app
from tests.unit.test_web_app import KEY, World

cloud = test_web_app.cloud
shared_world = test_web_app.shared_world
world = test_web_app.world

EMAIL = an_email(a_batch())


@pytest.fixture(autouse=True)
def _looks_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is kept from the test before."""
    monkeypatch.setattr(kept, "KEPT", -1.0)


@pytest.fixture
def browser(world: World) -> Iterator[Browser]:
    browser = Browser(world.app)
    browser.sign_in(KEY)
    yield browser
    assert Inline(browser.page).found == []  # the policy would stop it


def happened(world: World, *outcomes: tuple[str, Outcome, Status]) -> None:
    """Emails that were accepted and ended so, at a provider."""
    pending = Pending()
    pending.observe(BatchAccepted("id", "shop", len(outcomes), True))
    for provider, outcome, status in outcomes:
        attempt = an_attempt(EMAIL, outcome, provider=provider)
        pending.observe(AttemptEnded(EmailId(EMAIL.id.batch_id, 0), attempt, status, 300))
    pending.flush(Counters(world.store.table))


@pytest.mark.parametrize("period", ["hour", "day"])
def test_what_passed_is_shown_in_pictures_and_as_numbers(
    world: World, browser: Browser, period: str
) -> None:
    happened(
        world,
        ("mailgun", Outcome.ACCEPTED, Status.SENT),
        ("mailgun", Outcome.RETRY, Status.QUEUED),
        ("ses", Outcome.REJECTED, Status.FAILED),
    )

    browser.get(f"/?over={period}")

    said = text_of(browser.page)
    assert f"Accepted 3 emails in the last {period}" in said
    assert "Sent 1 1 failed; put off to later 0 times" in said
    assert re.search(r"Time to sent \d+ ms half of the emails took less", said)
    assert "mailgun 1 0 1 0 0 0" in said
    assert "ses 0 1 0 0 0 0" in said
    assert "sendgrid not asked" in said
    # One row for the slice in which it happened, and one column in the picture for each kind.
    assert re.search(r":\d\d 3 1 1 0 0 \d+ ms \d+ ms", said)
    assert 'class="sent"' in browser.page
    assert len(re.findall(r'<svg class="chart" role="img" aria-label="[^"]+"', browser.page)) == 2


def test_who_was_passed_over_was_not_asked(world: World, browser: Browser) -> None:
    """It has a column of its own, and no part of the bar of answers."""
    pending = Pending()
    passed = replace(an_attempt(EMAIL, Outcome.UNAVAILABLE, provider="ses"), code=PASSED_OVER)
    pending.observe(AttemptEnded(EmailId(EMAIL.id.batch_id, 0), passed, Status.DEFERRED, 300))
    pending.flush(Counters(world.store.table))

    browser.get("/")

    assert "ses not asked 0 0 0 0 0 1" in text_of(browser.page)
    assert 'class="passed_over"' not in browser.page


def test_nothing_passed_yet(browser: Browser) -> None:
    browser.get("/")
    assert "Nothing has happened in the last hour. Send an email" in text_of(browser.page)


def test_it_looks_again_by_itself(browser: Browser) -> None:
    """As often as there is something new."""
    browser.get("/")
    assert 'hx-get="/?over=hour" hx-trigger="every 5s"' in browser.page
    browser.get("/?over=day")
    assert 'hx-get="/?over=day" hx-trigger="every 60s"' in browser.page


@pytest.mark.parametrize("over", ["week", "", "hour'\"<"])
def test_a_period_that_there_is_not_is_the_hour(browser: Browser, over: str) -> None:
    assert browser.get("/", query_string={"over": over}).status_code == 200
    assert "emails in the last hour" in text_of(browser.page)


def test_why_a_provider_is_left_alone_is_said(world: World, browser: Browser) -> None:
    shared = Shared(world.store.table)
    before = shared.circuits(["ses"])["ses"]
    answer = Answer(Outcome.UNAVAILABLE, "401", "wrong key")
    shared.change_circuit(before, circuit.opened(before, answer, clock.now(), 120_000))

    browser.get("/")

    said = text_of(browser.page)
    assert "mailgun healthy" in said
    why = r"It answered 401, which counts as unavailable\. This began [^.]+\."
    assert "mailrelay providers close NAME has a provider asked at once" in said
    assert re.search(rf"ses left alone {why} in (2 minutes|a minute|\d+ seconds) ", said)


NOW = 1_800_000_000_000


@pytest.mark.parametrize(
    ("known", "said", "why", "until"),
    [
        (Circuit("ses"), "healthy", None, None),
        (
            Circuit("ses", State.OPEN, NOW + 60_000, NOW, 1, Outcome.RETRY, "503"),
            "left alone",
            "It answered 503, which counts as retry",
            NOW + 60_000,
        ),
        (
            Circuit("ses", State.OPEN, NOW - 1, NOW - 9, 1, Outcome.RETRY, None),
            "the next email tries it",
            "It answered retry",
            None,
        ),
        (
            Circuit("ses", State.HALF_OPEN, NOW + 60_000, NOW, 1, Outcome.UNKNOWN, "Timeout"),
            "one email is trying it",
            "It answered Timeout, which counts as unknown",
            None,
        ),
        (
            circuit.held_open(Circuit("ses"), NOW),
            "left alone",
            "A person said so; mailrelay providers close ses has it asked again",
            None,
        ),
    ],
)
def test_a_providers_health_is_said_in_words(
    known: Circuit, said: str, why: str | None, until: int | None
) -> None:
    shown = health(known, NOW)
    assert (shown.said, shown.why, shown.until) == (said, why, until)


def test_what_waits_is_shown(world: World, browser: Browser) -> None:
    """One email is due since a while ago."""
    batch = a_batch()
    email = an_email(batch, due_at=clock.now() - 120_000)
    world.store.create(batch, CONTENT, [email], withdraw_at=None)

    browser.get("/")

    said = text_of(browser.page)
    assert "In the queue 0 messages in SQS, about" in said
    assert "Overdue 1 emails; the first is due since 2 min" in said


def test_what_is_not_known_is_not_shown_as_zero(world: World, browser: Browser) -> None:
    """The page is there all the same, and looks again."""
    world.dynamodb.delete_table(TableName=world.settings.table)
    try:
        assert browser.get("/").status_code == 200
        said = text_of(browser.page)
        assert "DynamoDB does not say what was counted" in said
        assert "DynamoDB does not say how they do" in said
        assert "Overdue – DynamoDB does not answer" in said
        assert "hx-trigger" in browser.page
    finally:
        test_web_app._provision()


def test_it_is_for_who_is_signed_in(world: World) -> None:
    assert Browser(world.app).get("/").status_code == 303
