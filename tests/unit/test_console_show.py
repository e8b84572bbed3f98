"""The console's pages of a batch and of an email, and what a person decides there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from mailrelay import circuit, clock, kept
from mailrelay.circuit import Circuit
from mailrelay.message import EmailId, Outcome, Status
from mailrelay.providers import Answer
from mailrelay.shared import Shared
from mailrelay.web.console.batches import PAGE, listing, shares
from mailrelay.web.console.emails import LeftAlone, all_left_alone
from tests.support.console import Browser, text_of
from tests.support.records import a_batch, an_email
from tests.unit import test_web_app
from tests.unit.test_web_app import KEY, OTHER_KEY, World, clear

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

cloud = test_web_app.cloud
shared_world = test_web_app.shared_world
world = test_web_app.world

RETRY = Answer(Outcome.RETRY, "503", "Service <Unavailable>")
ACCEPTED = Answer(Outcome.ACCEPTED, "202", "queued", "<id@provider.example>")
UNKNOWN = Answer(Outcome.UNKNOWN, None, "no answer")
REJECTED = Answer(Outcome.REJECTED, "400", "bad recipient")


@pytest.fixture
def browser(world: World) -> Browser:
    return signed_in(world)


@pytest.fixture(scope="module")
def _careful(cloud: DynamoDBClient) -> World:
    return World(MAILRELAY_DUPLICATES="avoid")


@pytest.fixture
def careful(_careful: World) -> Iterator[World]:
    """A relay that stops at `unknown` rather than risk a second email."""
    _careful.queue.hints.clear()
    yield _careful
    clear(_careful.dynamodb)


def signed_in(world: World, key: str = KEY) -> Browser:
    browser = Browser(world.app)
    browser.sign_in(key)
    return browser


def page_of(email_id: str) -> str:
    return "/batches/" + email_id.replace("-", "/")


def an_email_of(world: World, *answers: Answer) -> str:
    email_id: str = world.accepted()["emails"][0]["id"]
    world.deliver(email_id, *answers)
    return email_id


def polls(page: str) -> bool:
    return 'hx-trigger="every ' in page


# Finding


def test_an_id_or_a_link_is_found(world: World, browser: Browser) -> None:
    """Of a batch or an email, as it is pasted: with spaces, in a link of the API or the console."""
    batch = world.accepted()["id"]
    browser.get("/batches")
    assert "Check email batch status" in text_of(browser.page)
    for pasted, page in {
        f" {batch}\n": f"/batches/{batch}",
        f"{batch}-0": f"/batches/{batch}/0",
        batch.lower(): f"/batches/{batch}",
        f"https://relay.example.com/emails/{batch}-0": f"/batches/{batch}/0",
        f"http://127.0.0.1:8000/batches/{batch}?status=sent": f"/batches/{batch}",
    }.items():
        found = browser.get("/batches", query_string={"id": pasted})
        assert (found.status_code, found.location) == (303, page)


@pytest.mark.parametrize("pasted", ["hello", "01ARZ3NDEKTSV4RRFFQ69G5FA", "<script>"])
def test_what_is_no_id_is_said_so(browser: Browser, pasted: str) -> None:
    response = browser.get("/batches", query_string={"id": pasted})
    assert "This is no id" in text_of(response.text)
    assert "<script>" not in response.text.partition("<main")[2]


@pytest.mark.parametrize(
    "path", ["{}", "{}/0", "{}/1", "{}/9999", "{}/10000", "x", "01ARZ3NDEKTSV4RRFFQ69G5FAV/0"]
)
def test_what_is_not_there_or_another_keys_is_not_found(world: World, path: str) -> None:
    theirs = world.accepted()["id"]
    response = signed_in(world, OTHER_KEY).get("/batches/" + path.format(theirs))
    assert response.status_code == 404
    assert "another key's" in text_of(response.text)


# A batch


def test_a_batch_shows_how_far_it_is(world: World, browser: Browser) -> None:
    recipients = [{"email": f"reader{n}@example.org"} for n in range(4)]
    accepted = world.accepted(destinations=recipients, subject="<b>news</b>")
    ids = [email["id"] for email in accepted["emails"]]
    world.deliver(ids[0], ACCEPTED)
    world.deliver(ids[1], REJECTED)
    world.deliver(ids[2], RETRY, RETRY, RETRY)

    page = browser.get(f"/batches/{accepted['id']}").text
    assert "2 of 4 done, 1 failed" in text_of(page)
    assert 'aria-label="1 sent, 1 failed, 1 deferred, 1 queued"' in page
    assert "<b>news</b>" not in page
    assert "mailgun: 400 bad recipient" in text_of(page)
    assert page.count("@example.org</a>") == 4
    assert polls(page)

    only = browser.get(f"/batches/{accepted['id']}?status=deferred").text
    assert re.findall(r"reader\d@example.org", only) == ["reader2@example.org"]


def test_a_batch_is_asked_for_again_until_it_is_over(world: World, browser: Browser) -> None:
    email_id = an_email_of(world)
    page = "/batches/" + email_id[:-2]
    for answer, open_ in ((RETRY, True), (ACCEPTED, False)):
        world.deliver(email_id, answer)
        assert polls(browser.get(page).text) is open_
        assert polls(browser.get(page_of(email_id)).text) is open_


def test_an_email_that_waits_for_a_person_is_not_asked_for_again(careful: World) -> None:
    email_id = an_email_of(careful, UNKNOWN)
    assert not polls(signed_in(careful).get(page_of(email_id)).text)


@pytest.mark.parametrize(("page", "first", "count"), [(1, 0, PAGE), (2, PAGE, 20), (9, PAGE, 20)])
def test_recipients_come_in_pages(page: int, first: int, count: int) -> None:
    batch = a_batch(total=PAGE + 20)
    found = listing([an_email(batch, n) for n in range(batch.total)], None, page)
    assert (found.pages, len(found.emails), found.emails[0].id.index) == (2, count, first)


def test_pages_of_those_with_a_status() -> None:
    batch = a_batch()
    emails = [an_email(batch, n, status=Status.SENT if n % 2 else Status.FAILED) for n in range(9)]
    assert [email.id.index for email in listing(emails, Status.SENT, 1).emails] == [1, 3, 5, 7]
    assert listing(emails, Status.UNKNOWN, 1).emails == []


def test_the_bar_fills_from_the_left() -> None:
    counts = {Status.QUEUED: 5, Status.SENT: 2, Status.FAILED: 1}
    found = [(share.status, share.start, share.width) for share in shares(counts)]
    assert found == [(Status.SENT, 0, 2), (Status.FAILED, 2, 1), (Status.QUEUED, 3, 5)]


@pytest.mark.parametrize("query", ["page=0", "page=-1", "page=x", "page=99999999", "status=nope"])
def test_a_strange_query_is_the_first_or_the_last_page(
    world: World, browser: Browser, query: str
) -> None:
    assert browser.get(f"/batches/{world.accepted()['id']}?{query}").status_code == 200


# An email


def test_an_email_shows_its_way(world: World, browser: Browser) -> None:
    page = browser.get(page_of(an_email_of(world, RETRY, ACCEPTED))).text
    way = text_of(page)
    for text in (
        "mailgun failed for the moment",
        "503",
        "Service <Unavailable>",
        "ses accepted it",
    ):
        assert text in way
    assert way.index("Accepted by mailrelay") < way.index("mailgun failed") < way.index("ses acc")
    assert "<Unavailable>" not in page
    assert '<time datetime="' in page
    assert "<id@provider.example>" in way
    assert "Send it again" not in way


@pytest.mark.parametrize(
    ("answers", "offered"),
    [
        ([ACCEPTED], set()),
        ([RETRY], set()),
        ([RETRY] * 3, {"Send it again"}),
        ([REJECTED], {"Send it again"}),
        ([UNKNOWN], {"Send it again", "It was sent", "It was not sent"}),
    ],
)
def test_what_a_person_may_decide_is_offered_where_it_applies(
    careful: World, answers: list[Answer], offered: set[str]
) -> None:
    text = text_of(signed_in(careful).get(page_of(an_email_of(careful, *answers))).text)
    every = {"Send it again", "It was sent", "It was not sent"}
    assert {label for label in every if f"{label}…" in text} == offered


def test_resending_says_what_it_means_and_does_it(careful: World) -> None:
    email_id = an_email_of(careful, UNKNOWN)
    browser = signed_in(careful)
    assert "pedro@example.org may get it twice" in text_of(browser.get(page_of(email_id)).text)
    careful.queue.hints.clear()

    done = browser.post(f"{page_of(email_id)}/resend")
    assert (done.status_code, done.location) == (303, page_of(email_id))
    assert "It is sent again" in text_of(browser.get(done.location).text)
    email = careful.store.email(parsed(email_id))
    assert email is not None
    assert email.status is Status.QUEUED
    assert len(careful.queue.hints) == 1


@pytest.mark.parametrize(
    ("opened", "said"),
    [
        (["mailgun", "ses"], None),
        (
            ["mailgun", "ses", "sendgrid"],
            "All its providers are left alone for now, the first until",
        ),
    ],
)
def test_resending_says_that_nobody_would_be_asked(
    world: World,
    browser: Browser,
    monkeypatch: pytest.MonkeyPatch,
    opened: list[str],
    said: str | None,
) -> None:
    """And how to have somebody asked."""
    monkeypatch.setattr(kept, "KEPT", -1.0)
    shared, now = Shared(world.store.table), clock.now()
    for known in shared.circuits(opened).values():
        shared.change_circuit(known, circuit.opened(known, RETRY, now, 120_000))
    text = text_of(browser.get(page_of(an_email_of(world, REJECTED))).text)
    assert (said is not None) == ("mailrelay providers close NAME" in text)
    assert (said or "Yes, send it again") in text


def test_who_is_left_alone_until_a_person_says_so_has_no_time() -> None:
    held = {"ses": circuit.held_open(Circuit("ses"), 1_000)}
    assert all_left_alone(["ses"], held, 2_000) == LeftAlone(None)
    assert all_left_alone(["ses", "mailgun"], held, 2_000) is None


@pytest.mark.parametrize("status", ["sent", "failed"])
def test_resolving(careful: World, status: str) -> None:
    email_id = an_email_of(careful, UNKNOWN)
    browser = signed_in(careful)
    browser.get(page_of(email_id))
    browser.post(f"{page_of(email_id)}/resolve", status=status)
    assert f"A person found it {status}" in text_of(browser.get(page_of(email_id)).text)


def test_a_decision_that_came_too_late_is_said_so(careful: World) -> None:
    """The page was made before the email changed; nothing happens."""
    email_id = an_email_of(careful, UNKNOWN)
    browser = signed_in(careful)
    browser.get(page_of(email_id))
    browser.post(f"{page_of(email_id)}/resolve", status="sent")
    browser.post(f"{page_of(email_id)}/resend")
    assert "The email is sent; resend takes one" in text_of(browser.get(page_of(email_id)).text)


@pytest.mark.parametrize("status", [None, "", "queued", "deferred"])
def test_an_email_is_found_sent_or_failed(careful: World, status: str | None) -> None:
    email_id = an_email_of(careful, UNKNOWN)
    browser = signed_in(careful)
    browser.get(page_of(email_id))
    assert browser.post(f"{page_of(email_id)}/resolve", status=status).status_code == 400


@pytest.mark.parametrize("action", ["resend", "resolve"])
def test_nobody_decides_about_another_keys_email(careful: World, action: str) -> None:
    email_id = an_email_of(careful, UNKNOWN)
    browser = signed_in(careful, OTHER_KEY)
    browser.get("/")
    response = browser.post(f"{page_of(email_id)}/{action}", status="sent")
    assert response.status_code == 404
    email = careful.store.email(parsed(email_id))
    assert email is not None
    assert email.status is Status.UNKNOWN


def parsed(email_id: str) -> EmailId:
    found = EmailId.parse(email_id)
    assert found is not None
    return found
