"""The sandbox's switches and its mailbox in the console, with a real sandbox behind it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
import urllib3

from mailrelay.message import Outcome
from mailrelay.providers import Answer
from tests.support.console import Browser, text_of
from tests.support.processes import free_port
from tests.support.sandbox import Sandbox
from tests.unit import test_web_app
from tests.unit.test_web_app import KEY, World

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

cloud = test_web_app.cloud
make_world = test_web_app.make_world
shared_world = test_web_app.shared_world
world = test_web_app.world

MakeWorld = Callable[..., World]


def signed_in(world: World) -> Browser:
    browser = Browser(world.app)
    browser.sign_in(KEY)
    return browser


@pytest.fixture(scope="module")
def local(cloud: DynamoDBClient, _sandbox: Sandbox) -> World:
    """An application that knows the sandbox."""
    return World(MAILRELAY_SANDBOX_URL=_sandbox.url)


@pytest.fixture
def browser(local: World, sandbox: Sandbox) -> Browser:
    """On the sandbox's page."""
    browser = signed_in(local)
    assert browser.get("/sandbox").status_code == 200
    return browser


def deliver(sandbox: Sandbox, **changes: Any) -> str:
    """Have SendGrid accept a message; its id there."""
    body = {
        "personalizations": [{"to": [{"email": "pedro@example.org", "name": "Pedro"}]}],
        "from": {"email": "facundo@example.com"},
        "subject": "<b>hello</b>",
        "content": [
            {"type": "text/plain", "value": "plain <text>"},
            {"type": "text/html", "value": "<p style='color: red'>hello</p>"},
        ],
        **changes,
    }
    response = urllib3.request(
        "POST",
        f"{sandbox.url}/sendgrid/v3/mail/send",
        json=body,
        headers={"Authorization": "Bearer key"},
        timeout=10,
    )
    assert response.status == 202, response.data
    return str(response.headers["X-Message-Id"])


@pytest.mark.parametrize(
    ("choice", "fault"),
    [
        ("503", {"kind": "status", "status": 503}),
        ("slow", {"kind": "slow", "seconds": 5.0}),
        ("hang", {"kind": "hang"}),
        ("refuse", {"kind": "refuse"}),
    ],
)
def test_a_provider_is_switched_off_and_on(
    browser: Browser, sandbox: Sandbox, choice: str, fault: dict[str, Any]
) -> None:
    for pressed, now in ((choice, fault), ("healthy", {"kind": "healthy"})):
        assert browser.post("/sandbox/switches/ses", choice=pressed).status_code == 303
        assert faults(sandbox)["ses"] == now
        page = browser.get("/sandbox").text
        assert f'value="{pressed}" aria-pressed="true"' in page
        assert page.count('aria-pressed="true"') == 3


def faults(sandbox: Sandbox) -> dict[str, Any]:
    found: dict[str, Any] = urllib3.request("GET", f"{sandbox.url}/faults", timeout=10).json()
    return found


def test_the_switches_stand_in_the_order_of_the_chain(browser: Browser) -> None:
    page = browser.page
    places = [page.index(f'aria-label="{name}"') for name in ("mailgun", "ses", "sendgrid")]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("provider", "choice"), [("nobody", "503"), ("ses", "nonsense"), ("ses", None), ("..", "503")]
)
def test_a_switch_that_is_not_there(
    browser: Browser, sandbox: Sandbox, provider: str, choice: str | None
) -> None:
    before = faults(sandbox)
    assert browser.post(f"/sandbox/switches/{provider}", choice=choice).status_code == 404
    assert faults(sandbox) == before


def test_a_fault_that_the_console_has_no_switch_for_is_named(
    browser: Browser, sandbox: Sandbox
) -> None:
    sandbox.fault("mailgun", "status", status=429)
    page = browser.get("/sandbox").text
    assert "status 429" in text_of(page)
    assert page.count('aria-pressed="true"') == 2


def test_a_message_as_its_reader_sees_it(browser: Browser, sandbox: Sandbox) -> None:
    """Its HTML in a frame that can do nothing, its text beside."""
    mail_id = deliver(sandbox)
    listed = browser.get("/sandbox").text
    assert f"/sandbox/mail/{mail_id}" in listed
    assert "Pedro pedro@example.org sendgrid" in text_of(listed)

    page = browser.get(f"/sandbox/mail/{mail_id}").text
    assert f'sandbox src="/sandbox/html/{mail_id}"' in page
    assert "plain <text>" in text_of(page)
    assert "<b>hello</b>" not in page

    html = browser.get(f"/sandbox/html/{mail_id}")
    assert html.text == "<p style='color: red'>hello</p>"
    assert html.headers["Content-Security-Policy"].startswith("sandbox; default-src 'none'")


def test_a_message_without_html(browser: Browser, sandbox: Sandbox) -> None:
    mail_id = deliver(sandbox, content=[{"type": "text/plain", "value": "plain"}])
    page = browser.get(f"/sandbox/mail/{mail_id}").text
    assert "<pre>plain</pre>" in page
    assert "<iframe" not in page
    assert browser.get(f"/sandbox/html/{mail_id}").status_code == 404


@pytest.mark.parametrize(
    "path", ["mail/none", "html/none", "mail/../faults", "mail/%2e%2e/faults"]
)
def test_a_message_that_is_not_there(browser: Browser, path: str) -> None:
    assert browser.get(f"/sandbox/{path}").status_code == 404


def test_the_mailbox_comes_in_pages(browser: Browser, sandbox: Sandbox) -> None:
    for number in range(26):
        deliver(sandbox, subject=f"number {number}")
    first, second = (browser.get(f"/sandbox?page={page}").text for page in (1, 2))
    assert "number 25" in first
    assert "number 0" not in text_of(first)
    assert "number 0" in second
    assert "Page 2 of 2" in text_of(second)


def test_an_email_leads_to_its_message(local: World) -> None:
    """By the id that the provider gave it, which is a Message-ID at some."""
    email_id = local.accepted()["emails"][0]["id"]
    local.deliver(email_id, Answer(Outcome.ACCEPTED, "200", "", "<a@b>"))
    page = signed_in(local).get("/batches/" + email_id.replace("-", "/")).text
    assert 'href="/sandbox/mail/%3Ca%40b%3E"' in page or 'href="/sandbox/mail/%3Ca@b%3E"' in page


def test_a_sandbox_that_does_not_answer_is_said_so(make_world: MakeWorld) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    response = signed_in(make_world(MAILRELAY_SANDBOX_URL=url)).get("/sandbox")
    assert response.status_code == 503
    assert "The sandbox does not answer" in text_of(response.text)


def test_without_a_sandbox_there_are_no_such_pages(world: World) -> None:
    browser = signed_in(world)
    for path in ("/sandbox", "/sandbox/mail/x", "/sandbox/html/x"):
        assert browser.get(path).status_code == 404
    assert "Sandbox" not in browser.get("/").text


def test_strangers_turn_no_switch(local: World, sandbox: Sandbox) -> None:
    browser = Browser(local.app)
    browser.get("/sign-in")
    assert browser.post("/sandbox/switches/ses", choice="503").status_code == 303
    assert faults(sandbox)["ses"] == {"kind": "healthy"}
