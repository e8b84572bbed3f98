"""The console's form: what it sends, what is wrong in it, and that nothing typed is lost."""

from __future__ import annotations

import io
import random
import re
from collections.abc import Callable
from typing import Any

import pytest
from werkzeug.test import TestResponse

from mailrelay.relay import StillAccepting
from mailrelay.store import StoreUnavailable
from tests.support.console import Browser, text_of, token_of, value_of
from tests.unit import test_web_app
from tests.unit.test_web_app import KEY, OTHER_KEY, World

cloud = test_web_app.cloud
make_world = test_web_app.make_world
shared_world = test_web_app.shared_world
world = test_web_app.world

MakeWorld = Callable[..., World]

TYPED = {
    "sender_email": "facundo@example.com",
    "sender_name": "Facundo",
    "recipients": "Pedro <pedro@example.org>; ana@example.org",
    "subject": "Grüße & <more>",
    "plain": "one\r\ntwo",
    "html": "<p>one</p>",
}


@pytest.fixture
def browser(world: World) -> Browser:
    """On the form, signed in."""
    return on_the_form(world)


def on_the_form(world: World, key: str = KEY) -> Browser:
    browser = Browser(world.app)
    browser.sign_in(key)
    assert browser.get("/send").status_code == 200
    return browser


def send(browser: Browser, **changes: Any) -> TestResponse:
    return browser.post("/send", **{"key": value_of(browser.page, "key"), **TYPED, **changes})


def batches(world: World) -> list[dict[str, Any]]:
    return [item for item in world.items() if item["sk"]["S"] == "#" and "total" in item]


def test_it_is_sent_as_the_api_sends(world: World, browser: Browser) -> None:
    response = send(browser)
    assert response.status_code == 303
    batch_id = response.location.removeprefix("/batches/")
    shown = world.get(f"/emails/{batch_id}").json
    assert shown is not None
    assert shown["from"] == {"email": "facundo@example.com", "name": "Facundo"}
    assert shown["subject"] == "Grüße & <more>"
    assert [email["to"] for email in shown["emails"]] == [
        {"email": "pedro@example.org", "name": "Pedro"},
        {"email": "ana@example.org"},
    ]
    stored = world.store.batch_with_content(batch_id)
    assert stored is not None
    assert stored[1] is not None
    assert (stored[1].plain, stored[1].html) == ("one\ntwo", "<p>one</p>")
    assert len(world.queue.hints) == 2


def test_a_single_email_leads_to_its_own_page(browser: Browser) -> None:
    response = send(browser, recipients="pedro@example.org")
    assert response.location.endswith("/0")
    assert browser.get(response.location).status_code == 200


def test_pressed_twice_it_is_sent_once(world: World, browser: Browser) -> None:
    """Or reloaded: the answer is the same both times."""
    first, second = send(browser), send(browser)
    assert first.location == second.location
    assert len(batches(world)) == 1
    browser.get("/send")
    assert send(browser).location != first.location


def test_another_email_from_the_same_form_is_asked_about(world: World, browser: Browser) -> None:
    """As after the browser's way back: it is not taken for the first one, nor sent unasked."""
    form = browser.page
    send(browser)
    browser.page = form
    again = send(browser, subject="another")
    assert again.status_code == 409
    assert "Press Send again to send this one too" in text_of(again.text)
    assert len(batches(world)) == 1
    assert send(browser, subject="another").status_code == 303
    assert len(batches(world)) == 2


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sender_email": ""}, ["Missing data for required field."]),
        ({"sender_email": "nobody"}, ["An email address must have an @-sign."]),
        ({"recipients": ""}, ["Missing data for required field."]),
        (
            {"recipients": "ana@example.org, a@b, nobody"},
            ["a@b The part after the @-sign is not valid.", "nobody An email address must have"],
        ),
        ({"subject": ""}, ["Missing data for required field."]),
        ({"subject": "x" * 999}, ["Length must be between 1 and 998."]),
        ({"plain": "", "html": ""}, ["Give plainContent, htmlContent or both."]),
        ({"subject": "", "sender_email": "", "recipients": "a@b"}, ["a@b", "Missing data"]),
    ],
)
def test_what_is_wrong_stands_beside_its_field(
    world: World, browser: Browser, changes: dict[str, str], said: list[str]
) -> None:
    """In the API's words; nothing is sent, and nothing that was typed is lost."""
    before = len(world.items())
    response = send(browser, **changes)
    assert response.status_code == 422
    for text in said:
        assert text in text_of(response.text)
    assert 'aria-invalid="true"' in response.text
    assert len(world.items()) == before
    for name, typed in {**TYPED, **changes}.items():
        assert value_of(response.text, name) == typed.replace("\r\n", "\n")


@pytest.mark.parametrize("key", [KEY, OTHER_KEY])
def test_as_whom_a_key_may_send(make_world: MakeWorld, key: str) -> None:
    world = make_world(MAILRELAY_SENDERS="shop:@example.net")
    response = send(on_the_form(world, key))
    assert response.status_code == (422 if key == KEY else 303)
    if key == KEY:
        assert "This API key may send from @example.net only." in text_of(response.text)


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (StoreUnavailable("DynamoDB: away"), 503, "it is sent once"),
        (StillAccepting(), 409, "it is sent once"),
    ],
)
def test_what_could_not_be_accepted_now_can_be_sent_again(
    world: World,
    browser: Browser,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    status: int,
    said: str,
) -> None:
    """The form stays with all that is in it, and with the key by which it is sent once."""

    def refuse(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("mailrelay.store.Store.idempotency", refuse)
        key = value_of(browser.page, "key")
        response = send(browser)
    assert response.status_code == status
    assert said in text_of(response.text)
    assert value_of(response.text, "html") == TYPED["html"]
    assert value_of(response.text, "key") == key
    assert send(browser).status_code == 303


def test_content_for_which_there_is_no_room(browser: Browser) -> None:
    """Without a bucket; what does not compress is too large at 350 KB."""
    response = send(browser, html=random.Random(1).randbytes(400_000).hex())
    assert response.status_code == 413
    assert "MAILRELAY_BUCKET" in text_of(response.text)


def test_a_session_that_ends_while_somebody_types_loses_nothing(world: World) -> None:
    browser = on_the_form(world)
    typing, tab = browser.page, Browser(world.app)
    browser.client.delete_cookie("mailrelay_session")

    ended = send(browser)
    assert ended.status_code == 401
    assert "nothing was sent" in text_of(ended.text)
    assert value_of(ended.text, "html") == TYPED["html"]
    assert value_of(ended.text, "key") == value_of(typing, "key")
    assert batches(world) == []

    tab.client = browser.client  # another tab of the same browser
    tab.sign_in(KEY)
    stale = send(browser)
    assert stale.status_code == 400
    assert "press Send again" in text_of(stale.text)
    assert send(browser).status_code == 303
    assert len(batches(world)) == 1


def test_a_file_that_is_sent_with_the_form_is_not_ignored(world: World, browser: Browser) -> None:
    """Without scripts nobody has added its recipients before: who presses Send sees them first."""
    response = browser.post(
        "/send", **TYPED, csv=a_file(b"email\nbob@example.org\nana@example.org\n")
    )
    assert response.status_code == 200
    assert "1 recipient of the file was added, and nothing was sent yet. Press Send again." in (
        text_of(response.text)
    )
    assert "bob@example.org" in value_of(response.text, "recipients")
    assert value_of(response.text, "html") == TYPED["html"]
    assert batches(world) == []
    sent = send(browser, recipients=value_of(response.text, "recipients"), csv=a_file(b"", ""))
    assert sent.status_code == 303
    assert len(world.queue.hints) == 3


def a_file(data: bytes, name: str = "people.csv") -> tuple[io.BytesIO, str]:
    return io.BytesIO(data), name


def test_a_file_that_is_added_after_the_session_loses_nothing(browser: Browser) -> None:
    browser.client.delete_cookie("mailrelay_session")
    file = a_file(b"email\nbob@example.org\n")
    response = browser.post("/send/recipients", **TYPED, csv=file)
    assert response.status_code == 401
    assert "Your session has ended, and nothing was sent." in text_of(response.text)
    assert "choose the file again" in text_of(response.text)
    for name, typed in TYPED.items():
        assert value_of(response.text, name) == typed.replace("\r\n", "\n")


def test_a_preview_after_the_session_says_so_in_its_frame(browser: Browser) -> None:
    browser.client.delete_cookie("mailrelay_session")
    response = browser.post("/send/preview", **TYPED)
    assert response.status_code == 401
    assert "your session is over. Press Send" in text_of(response.text)
    assert response.headers["X-Frame-Options"] == "SAMEORIGIN"


def test_a_file_adds_its_recipients(browser: Browser) -> None:
    """To those that are typed, each address once, with the rest of the form as it is."""
    file = io.BytesIO(b'name,email\n"Roe, Ana",ANA@example.org\nBob,bob@example.org\n')
    data = {**TYPED, "csrf_token": token_of(browser.page), "csv": (file, "people.csv")}
    response = browser.client.post("/send/recipients", data=data)
    assert value_of(response.text, "recipients").splitlines() == [
        "Pedro <pedro@example.org>",
        "ana@example.org",
        "Bob <bob@example.org>",
    ]
    assert "3 recipients" in text_of(response.text)
    assert value_of(response.text, "subject") == TYPED["subject"]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"sender_email": "", "sender_name": ""}, "sender_email"),
        ({"sender_email": "nobody", "subject": ""}, "sender_email"),
        ({"recipients": "a@b", "subject": ""}, "recipients"),
        ({"subject": ""}, "subject"),
    ],
)
def test_the_first_field_that_is_wrong_has_the_focus(
    browser: Browser, changes: dict[str, str], field: str
) -> None:
    page = send(browser, **changes).text
    assert re.findall(r'<(?:input|textarea) id="(\w+)"[^>]* autofocus', page) == [field]


def test_over_a_thousand_recipients_are_said_to_be_too_many(browser: Browser) -> None:
    file = a_file("\n".join(f"reader{n}@example.org" for n in range(1_001)).encode())
    response = browser.post("/send/recipients", **{**TYPED, "recipients": ""}, csv=file)
    assert "1,001 recipients, and 1,000 are the most" in text_of(response.text)


def test_a_file_without_addresses(browser: Browser) -> None:
    data = {
        **TYPED,
        "csrf_token": token_of(browser.page),
        "csv": (io.BytesIO(b"x,y\n1,2"), "x.csv"),
    }
    response = browser.client.post("/send/recipients", data=data)
    assert response.status_code == 422
    assert "no column of addresses" in text_of(response.text)
    assert value_of(response.text, "recipients") == TYPED["recipients"]


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ({}, "<p>one</p>"),
        ({"html": "", "plain": "<b>1</b>"}, "&lt;b&gt;1&lt;/b&gt;"),
    ],
)
def test_a_preview_can_do_nothing(browser: Browser, typed: dict[str, str], shown: str) -> None:
    """It is sandboxed by its own policy, even when it is opened by itself."""
    response = browser.post("/send/preview", **{**TYPED, **typed})
    assert shown in response.text
    policy = response.headers["Content-Security-Policy"].split("; ")
    assert {"sandbox", "default-src 'none'", "form-action 'none'", "frame-ancestors 'self'"} <= {
        *policy
    }
    assert not any(rule.startswith("script-src") for rule in policy)
    assert response.headers["X-Frame-Options"] == "SAMEORIGIN"


def test_an_example_stands_in_the_form_where_it_reaches_nobody(
    make_world: MakeWorld, world: World
) -> None:
    local = on_the_form(make_world(MAILRELAY_SANDBOX_URL="http://127.0.0.1:9"))
    assert value_of(local.page, "recipients") == "Pedro <pedro@example.org>"
    assert value_of(on_the_form(world).page, "recipients") == ""


def test_a_body_over_the_limit(browser: Browser) -> None:
    response = send(browser, html="x" * 25_100_000)
    assert response.status_code == 413
    assert "Traceback" not in response.text
