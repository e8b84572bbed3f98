"""What all pages of the console have in common: their headers, their frame, and what is not in them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flask import Flask
from structlog.testing import capture_logs

from mailrelay.message import Outcome
from mailrelay.providers import Answer
from tests.support.console import Browser, Inline, text_of
from tests.support.sandbox import Sandbox
from tests.unit import test_web_app
from tests.unit.test_web_app import KEY, World

cloud = test_web_app.cloud
make_world = test_web_app.make_world
shared_world = test_web_app.shared_world
world = test_web_app.world

MakeWorld = Callable[..., World]


def pages_of(app: Flask, *examples: str) -> dict[str, str]:
    """Each page by its route: routes without an id, and the examples."""
    rules = [rule for rule in app.url_map.iter_rules() if rule.endpoint.startswith("console.")]
    plain = {r.rule: r.rule for r in rules if "GET" in (r.methods or ()) and not r.arguments}
    return {**plain, **{path: path for path in examples}}


def test_no_page_has_a_script_or_a_style_in_it(make_world: MakeWorld, sandbox: Sandbox) -> None:
    """And each is under a policy that would not let it run: every page that there is, errors too."""
    world = make_world(MAILRELAY_SANDBOX_URL=sandbox.url, MAILRELAY_DUPLICATES="avoid")
    email_id = world.accepted()["emails"][0]["id"]
    world.deliver(email_id, Answer(Outcome.UNKNOWN, None, "no answer"))
    batch_id = email_id[:-2]
    browser = Browser(world.app)
    browser.sign_in(KEY)
    paths = pages_of(
        world.app, f"/batches/{batch_id}", f"/batches/{batch_id}/0", "/batches/none", "/nowhere"
    )
    assert {"/", "/send", "/batches", "/sandbox", "/sign-in"} <= set(paths)
    for path in paths.values():
        response = browser.get(path)
        assert response.content_type == "text/html; charset=utf-8", path
        assert Inline(response.text).found == [], path
        assert "<h1>" in response.text, path
        policy = response.headers["Content-Security-Policy"]
        assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers["X-Frame-Options"] == "DENY"


def test_a_page_that_looks_again_does_not_fill_the_log(world: World) -> None:
    browser = Browser(world.app)
    browser.sign_in(KEY)
    path = f"/batches/{world.accepted()['id']}"
    levels = []
    for headers in ({}, {"HX-Request": "true"}):
        with capture_logs() as lines:
            assert browser.get(path, headers=headers).status_code == 200
        levels += [line["log_level"] for line in lines]
    assert levels == ["info", "debug"]


@pytest.mark.parametrize("name", ["console.css", "console.js", "htmx.min.js", "icon.svg"])
def test_what_pages_need_is_here(world: World, name: str) -> None:
    response = world.client.get(f"/static/console/{name}")
    assert response.status_code == 200
    assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_pages_say_where_one_is(world: World) -> None:
    browser = Browser(world.app)
    browser.sign_in(KEY)
    for path, name in (("/", "Overview"), ("/send", "Send"), ("/batches", "Batches")):
        assert f'aria-current="page">{name}</a>' in browser.get(path).text
    assert 'href="/docs"' in browser.page
    assert "Flower" not in browser.page


def test_flower_is_linked_where_it_is_known(make_world: MakeWorld) -> None:
    browser = Browser(make_world(MAILRELAY_FLOWER_URL="http://127.0.0.1:5555").app)
    browser.sign_in(KEY)
    assert '<a href="http://127.0.0.1:5555"' in browser.get("/").text


def test_what_fails_is_a_page_without_a_traceback(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("telling-text")

    browser = Browser(world.app)
    browser.sign_in(KEY)
    monkeypatch.setattr("mailrelay.relay.Relay.batch", fail)
    response = browser.get("/batches/01ARZ3NDEKTSV4RRFFQ69G5FAV")
    assert response.status_code == 500
    assert "Something is wrong here, not with you" in text_of(response.text)
    assert "telling-text" not in response.text
    assert "ZeroDivisionError" not in response.text


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/batches"), ("PUT", "/send"), ("GET", "/sign-out")]
)
def test_a_method_that_a_page_does_not_have(world: World, method: str, path: str) -> None:
    assert world.client.open(path, method=method).status_code == 405
