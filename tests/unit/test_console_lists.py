"""The console's lists: a key's batches, newest first, and what it sent to an address."""

from __future__ import annotations

import re
from html import unescape

import pytest
from botocore.exceptions import ClientError
from structlog.testing import capture_logs

from mailrelay.web.console import recent, search
from tests.support.console import Browser, Inline, text_of
from tests.unit import test_web_app
from tests.unit.test_web_app import KEY, OTHER_KEY, World

cloud = test_web_app.cloud
shared_world = test_web_app.shared_world
world = test_web_app.world


@pytest.fixture
def browser(world: World) -> Browser:
    browser = Browser(world.app)
    browser.sign_in(KEY)
    return browser


def sent(world: World, subject: str, address: str = "pedro@example.org", key: str = KEY) -> str:
    """Sends an email; its batch's id."""
    body = test_web_app.a_body(subject=subject, destinations=[{"email": address}])
    response = world.send(body, key=key)
    assert response.status_code == 202
    batch_id: str = response.json["id"]
    return batch_id


def links(page: str) -> list[str]:
    """What the rows lead to."""
    return re.findall(r'<td><a href="([^"]+)"', page)


def older(page: str) -> str | None:
    found = re.search(r'<a href="([^"]+)" rel="next">', page)
    return unescape(found[1]) if found else None


def test_a_keys_batches_are_listed_newest_first(world: World, browser: Browser) -> None:
    made = [sent(world, f"number {number}") for number in range(3)]
    sent(world, "not yours", key=OTHER_KEY)

    browser.get("/batches")

    assert links(browser.page) == [
        f"/batches/{batch_id}" for batch_id in sorted(made, reverse=True)
    ]
    assert "not yours" not in browser.page
    assert older(browser.page) is None
    assert Inline(browser.page).found == []


def test_older_batches_are_on_further_pages(
    world: World, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recent, "PAGE", 2)
    made = [sent(world, f"number {number}") for number in range(5)]

    found: list[str] = []
    page: str | None = "/batches"
    while page:
        browser.get(page)
        found += links(browser.page)
        page = older(browser.page)

    assert found == [f"/batches/{batch_id}" for batch_id in sorted(made, reverse=True)]


def test_who_has_sent_nothing_is_told_where_to(browser: Browser) -> None:
    browser.get("/batches")
    assert "None yet: send an email" in text_of(browser.page)


@pytest.mark.parametrize("before", ["x", "B#1", "01ARZ3NDEKTSV4RRFFQ69G5FA", "' OR 1"])
def test_a_place_in_the_list_that_there_is_not_is_its_begin(
    world: World, browser: Browser, before: str
) -> None:
    batch_id = sent(world, "test")
    browser.get("/batches", query_string={"before": before})
    assert links(browser.page) == [f"/batches/{batch_id}"]


def test_emails_are_found_by_their_recipient(world: World, browser: Browser) -> None:
    """However its letters are written; not what another key sent."""
    made = [
        sent(world, "Hello", address) for address in ("Pedro@EXAMPLE.org", "pedro@example.org")
    ]
    sent(world, "elsewhere", "other@example.org")
    sent(world, "not yours", key=OTHER_KEY)

    browser.get("/search", query_string={"to": " Pedro <PEDRO@example.ORG> "})

    assert links(browser.page) == [
        f"/batches/{batch_id}/0" for batch_id in sorted(made, reverse=True)
    ]
    assert browser.get(links(browser.page)[0]).status_code == 200


def test_an_international_domain_is_found_by_either_of_its_names(
    world: World, browser: Browser
) -> None:
    sent(world, "Grüße", "pedro@xn--mnchen-3ya.example.org")
    browser.get("/search", query_string={"to": "pedro@münchen.example.org"})
    assert len(links(browser.page)) == 1


def test_older_emails_are_on_further_pages(
    world: World, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "PAGE", 2)
    made = [sent(world, f"number {number}") for number in range(5)]

    found: list[str] = []
    page: str | None = "/search?to=pedro@example.org"
    while page:
        browser.get(page)
        found += links(browser.page)
        page = older(browser.page)

    assert found == [f"/batches/{batch_id}/0" for batch_id in sorted(made, reverse=True)]


def test_an_address_that_is_none_is_said_beside_its_field(browser: Browser) -> None:
    assert browser.get("/search", query_string={"to": "pedro<b>"}).status_code == 200
    assert 'aria-invalid="true" aria-describedby="to-error"' in browser.page
    assert "An email address must have an @-sign." in text_of(browser.page)
    assert "<b>" not in browser.page


def test_nothing_was_sent_there(browser: Browser) -> None:
    browser.get("/search", query_string={"to": "nobody@example.org"})
    assert "Nothing was sent to nobody@example.org" in text_of(browser.page)


def test_without_the_index_the_lists_say_that_they_are_not_there(world: World) -> None:
    """A table of an earlier version, until `mailrelay init` has run."""
    browser = Browser(world.app)
    browser.sign_in(KEY)
    world.dynamodb.update_table(
        TableName=world.settings.table,
        GlobalSecondaryIndexUpdates=[{"Delete": {"IndexName": "listed"}}],
    )
    try:
        assert browser.get("/batches").status_code == 503
        assert "Traceback" not in browser.page
        sent(world, "sending does not need it")
    finally:
        test_web_app._provision()


@pytest.mark.parametrize("path", ["/batches", "/search?to=pedro@example.org"])
@pytest.mark.parametrize(
    "said",
    [
        "The table does not have the specified index: listed",
        "Cannot read from backfilling global secondary index: listed",
    ],
)
def test_without_the_index_it_is_said_what_to_run(
    browser: Browser, monkeypatch: pytest.MonkeyPatch, path: str, said: str
) -> None:
    """In DynamoDB's own words, which moto does not have."""

    def refuse(*_: object, **__: object) -> None:
        raise ClientError({"Error": {"Code": "ValidationException", "Message": said}}, "Query")

    monkeypatch.setattr("mailrelay.table.Table.query", refuse)
    with capture_logs() as lines:
        assert browser.get(path).status_code == 503
    assert "run mailrelay init" in text_of(browser.page)
    assert "a matter of moments" not in browser.page
    assert "the table lacks an index: run mailrelay init" in [line["event"] for line in lines]
