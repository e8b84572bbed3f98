"""The console as a person uses it, in a browser: send, switch a provider off, watch the failover."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.e2e.conftest import MakeStack
from tests.support.chromium import chromium
from tests.support.sandbox import Sandbox
from tests.support.stack import KEY, Stack, processes_of_the_api

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, StorageState

THEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
DESK, PHONE = 1280, 360
"""Pixels that pages are wide."""


@pytest.fixture(scope="module")
def running(make_shared_stack: MakeStack, _sandbox: Sandbox) -> Stack:
    """A relay whose console knows the sandbox; nothing here waits for a sweep."""
    _sandbox.reset()
    stack = make_shared_stack(
        MAILRELAY_SANDBOX_URL=_sandbox.url,
        MAILRELAY_DUPLICATES="avoid",
        **processes_of_the_api(2),  # which share the secret of sessions
    )
    with ThreadPoolExecutor() as pool:
        list(pool.map(stack.start, ("web", "worker")))
    return stack


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


class Complaints(list[str]):
    """What the browser complains about: errors of scripts, and what a policy forbids."""

    def listen(self, page: Page) -> None:
        page.on("pageerror", lambda error: self.append(str(error)))
        page.on("console", lambda said: self.append(said.text) if said.type == "error" else None)


@pytest.fixture
def complaints() -> Iterator[Complaints]:
    complaints = Complaints()
    yield complaints
    assert complaints == []


@pytest.fixture(scope="module")
def signed_in(running: Stack, browser: Browser) -> StorageState:
    """The cookies of who has signed in."""
    page = browser.new_page()
    page.goto(running.url)
    page.get_by_label("API key").fill(KEY)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("heading", name="Overview").wait_for()
    state = page.context.storage_state()
    page.close()
    return state


@pytest.fixture
def page(browser: Browser, signed_in: StorageState, complaints: Complaints) -> Iterator[Page]:
    page = browser.new_page(storage_state=signed_in)
    page.set_default_timeout(20_000)
    complaints.listen(page)
    yield page
    page.close()


@pytest.fixture(scope="module")
def batch(running: Stack) -> str:
    """One email went at once, one to the next provider, and of one nobody knows.

    That are two failures of mailgun: with five within half a minute it would be left alone.
    """
    batch = running.send(
        "pedro@example.org", "mailgun-503@example.org", "mailgun-lost@example.org"
    )
    for email, status in enumerate(("sent", "sent", "unknown")):
        running.wait(f"{batch}-{email}", status)
    return batch


def go(page: Page, name: str) -> None:
    page.get_by_role("navigation", name="Main").get_by_role("link", name=name).click()


def switch(page: Page, provider: str, position: str) -> None:
    go(page, "Sandbox")
    page.get_by_role("form", name=provider).get_by_role("button", name=position).click()
    page.get_by_text(f"{provider}: {position}, from now on.").wait_for()


def send(page: Page, **fields: str) -> None:
    """Fill the form in by its labels, and press the button."""
    go(page, "Send")
    for label, typed in fields.items():
        page.get_by_label(label, exact=True).fill(typed)
    page.get_by_role("button", name="Send", exact=True).dblclick()


def test_send_switch_a_provider_off_send_again_and_watch(
    running: Stack, page: Page, sandbox: Sandbox
) -> None:
    """What a new user does, who has read nothing."""
    page.goto(running.url)
    send(page)  # the example that stands there, by a double click
    page.get_by_text("mailgun accepted it").wait_for()
    page.get_by_role("link", name="Read it in the sandbox's mailbox").click()
    page.frame_locator("iframe.mail").get_by_role("heading", name="Hello Pedro").wait_for()
    assert sandbox.count() == 1

    switch(page, "ses", "answers 503")
    switch(page, "mailgun", "answers 503")
    send(page, Subject="Second")
    page.wait_for_url("**/batches/**")
    page.evaluate("window.same = true")
    page.get_by_text("sendgrid accepted it").wait_for()
    for text in ("mailgun failed for the moment", "ses failed for the moment", "503"):
        assert page.get_by_text(text).first.is_visible()
    assert page.evaluate("window.same"), "the page changed by itself, and was not loaded anew"
    page.get_by_role("link", name="Read it in the sandbox's mailbox").click()
    page.get_by_role("heading", name="Second").wait_for()

    switch(page, "mailgun", "healthy")
    switch(page, "ses", "healthy")
    assert sandbox.count() == 2


def test_many_recipients_from_a_file_and_the_id_of_their_batch(
    running: Stack, page: Page, tmp_path: Path
) -> None:
    """The file's recipients join the typed ones; the progress bar reaches its end by itself."""
    file = tmp_path / "people.csv"
    file.write_text("name,email\n" + "".join(f"N{n},n{n}@example.org\n" for n in range(59)))
    page.goto(f"{running.url}/send")
    page.get_by_label("Subject").fill("News")
    page.get_by_label("Add from a CSV file").set_input_files(file)
    page.get_by_text("60 recipients").wait_for()
    assert page.get_by_label("Subject").input_value() == "News"

    page.get_by_role("button", name="Send", exact=True).click()
    page.get_by_text("60 of 60 done").wait_for()
    assert page.get_by_role("img", name="60 sent").is_visible()
    page.get_by_role("link", name="Next").click()
    assert page.get_by_text("Page 2 of 2").is_visible()
    batch = page.url.split("/")[-1].partition("?")[0]
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))

    go(page, "Batches")
    page.get_by_label("Id of a batch or an email").fill(batch)
    page.get_by_role("button", name="Check email batch status").click()
    page.get_by_role("heading", name="News").wait_for()
    assert "hx-trigger" not in page.content(), "nothing moves any more"


def test_a_person_decides_and_is_told_what_it_means(running: Stack, page: Page) -> None:
    """By keyboard alone, once the email is there."""
    page.goto(running.url)
    send(page, To="mailgun-lost@example.org")
    page.get_by_text("Next: a person decides").wait_for()
    page.locator("summary", has_text="It was sent…").focus()
    page.keyboard.press("Enter")
    page.get_by_text("You have seen that mailgun has the email.").wait_for()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.get_by_text("Noted: it is sent.").wait_for()
    page.get_by_text("A person found it sent").wait_for()


def test_a_preview_shows_the_mail_and_runs_nothing(running: Stack, page: Page) -> None:
    page.goto(f"{running.url}/send")
    page.get_by_label("HTML").fill("<h1 style='color: red'>Grüße</h1><form action=/sign-out>")
    page.get_by_role("button", name="Show the preview").click()
    heading = page.frame_locator("iframe.mail").get_by_role("heading", name="Grüße")
    heading.wait_for()
    assert heading.evaluate("element => getComputedStyle(element).color") == "rgb(255, 0, 0)"
    assert page.get_by_label("HTML").input_value().startswith("<h1 style")


def test_the_overview_looks_again_and_leaves_unfolded_what_is(
    running: Stack, page: Page, batch: str
) -> None:
    """By then it shows what has happened."""
    page.goto(running.url)
    page.get_by_text("The pictures as numbers").click()
    row = page.get_by_role("table").last.get_by_role("row").nth(1)
    page.locator("#live").evaluate("live => live.setAttribute('data-old', '')")
    page.locator("#live:not([data-old])").wait_for()
    row.get_by_role("rowheader").wait_for()
    assert page.get_by_role("img", name="Emails a minute over the last hour").is_visible()


def test_an_email_is_found_by_its_recipient(running: Stack, page: Page, batch: str) -> None:
    page.goto(running.url)
    go(page, "Search")
    page.get_by_label("Recipient's address").fill("MAILGUN-LOST@example.org")
    page.keyboard.press("Enter")
    page.get_by_role("cell", name="mailgun-lost@example.org").first.wait_for()
    go(page, "Batches")
    page.locator(f"a[href='/batches/{batch}']").click()
    page.get_by_text("mailgun-lost@example.org").wait_for()


def test_every_page_can_be_used_by_everybody(running: Stack, page: Page, batch: str) -> None:
    """No serious finding of axe in either theme, and nothing wider than a phone.

    `SCREENSHOTS` is a folder for pictures of each, at two widths in both.
    """
    mail = running.show(f"{batch}-1")["providerMessageId"]
    paths = {
        "sign-in": "/sign-in?expired=1",
        "overview": "/",
        "overview-day": "/?over=day",
        "send": "/send",
        "batches": "/batches?id=nonsense",
        "search": "/search?to=pedro@example.org",
        "batch": f"/batches/{batch}",
        "email": f"/batches/{batch}/1",
        "decide": f"/batches/{batch}/2",
        "sandbox": "/sandbox",
        "mail": f"/sandbox/mail/{mail}",
    }
    for name, path in paths.items():
        page.goto(running.url + path)
        for theme in THEMES:
            page.emulate_media(color_scheme=theme)
            # All but the colours is the same in the other theme.
            rules = {"runOnly": ["color-contrast"]} if theme != THEMES[0] else {}
            found = Axe().run(page, options=rules).response["violations"]
            bad = [each for each in found if each["impact"] in ("serious", "critical")]
            assert bad == [], (name, theme)
        page.set_viewport_size({"width": PHONE, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") == PHONE, name
        page.set_viewport_size({"width": DESK, "height": 800})
    if shots := os.environ.get("SCREENSHOTS"):
        for (name, path), theme, width in product(paths.items(), THEMES, (DESK, PHONE)):
            page.emulate_media(color_scheme=theme)
            page.set_viewport_size({"width": width, "height": 800})
            page.goto(running.url + path)
            page.screenshot(path=Path(shots) / f"{name}-{width}-{theme}.png")
