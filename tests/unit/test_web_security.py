"""The web application towards clients that mean no good, or run wild."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.unit import test_web_app
from tests.unit.test_web_app import KEY, OTHER_KEY, World, a_body, errors_of, problem_of

cloud = test_web_app.cloud
make_world = test_web_app.make_world
shared_world = test_web_app.shared_world
world = test_web_app.world

MakeWorld = Callable[..., World]

# Who may ask


@pytest.mark.parametrize(
    "options",
    [
        {"query_string": {"access_token": KEY}},
        {"query_string": {"key": KEY}},
        {"headers": {"X-Api-Key": KEY}},
        {"headers": {"Cookie": f"key={KEY}"}},
        {"headers": {"Proxy-Authorization": f"Bearer {KEY}"}},
        {"json": {"access_token": KEY}},
        {"data": {"access_token": KEY}},
    ],
)
def test_a_key_elsewhere_is_none(world: World, options: dict[str, Any]) -> None:
    """Addresses and bodies end in logs: a key counts in its own header only, which does not."""
    problem_of(world.call("POST", "/emails/send", key=None, **options), 401)


def test_two_keys_are_none(world: World) -> None:
    """Servers join a header that is sent twice by a comma."""
    problem_of(world.send(key=None, headers={"Authorization": f"Bearer {KEY},Bearer {KEY}"}), 401)


@pytest.mark.parametrize("key", [KEY, "no-key-that-is-known"])
def test_a_key_is_never_logged(world: World, key: str) -> None:
    """Known or not."""
    with capture_logs() as lines:
        world.send(key=key)
    assert lines
    assert key not in repr(lines)


def test_a_stranger_is_not_read(world: World) -> None:
    """Whoever has no key is refused before the body is: whatever its type, size and content."""

    class Unreadable:
        def read(self, *_: Any) -> bytes:
            raise AssertionError("was read")

    environ = {"wsgi.input": Unreadable(), "CONTENT_LENGTH": "999999999999"}
    for content_type in ("application/json", "text/plain"):
        response = world.client.post(
            "/emails/send", content_type=content_type, environ_overrides=environ
        )
        problem_of(response, 401)


# How often


def test_too_many_requests(make_world: MakeWorld) -> None:
    """One too many is a 429 that says when to come again; nothing of it is accepted."""
    world = make_world(MAILRELAY_REQUEST_LIMIT="2/h")
    assert world.send().status_code == 202
    problem_of(world.get("/emails/x"), 404)  # each request counts
    accepted = len(world.items())
    response = world.send()
    problem_of(response, 429)
    assert 0 < int(response.headers["Retry-After"]) <= 1800
    assert len(world.items()) == accepted


def test_a_limit_is_for_one_key(make_world: MakeWorld) -> None:
    """Another key is served meanwhile, and so are those that watch."""
    world = make_world(MAILRELAY_REQUEST_LIMIT="1/h")
    assert world.send().status_code == 202
    problem_of(world.send(), 429)
    assert world.send(key=OTHER_KEY).status_code == 202
    for path in ("/healthz", "/readyz", "/metrics") * 3:
        assert world.get(path, key=None).status_code == 200


def test_strangers_take_no_part_of_a_limit(make_world: MakeWorld) -> None:
    """A wrong key uses nothing up, and no key is told that it comes too often."""
    world = make_world(MAILRELAY_REQUEST_LIMIT="1/h")
    for _ in range(3):
        problem_of(world.send(key="shop"), 401)
    assert world.send().status_code == 202


def test_a_429_shows_whose_it_was(make_world: MakeWorld) -> None:
    """In its line of the log and in the count of requests."""
    world = make_world(MAILRELAY_REQUEST_LIMIT="1/h")
    world.send()
    with capture_logs() as lines:
        problem_of(world.send(), 429)
    assert [(line["event"], line["status"]) for line in lines] == [("a request was answered", 429)]
    metrics = world.get("/metrics", key=None).text
    assert (
        'mailrelay_http_requests_total{method="POST",route="/emails/send",status="429"}' in metrics
    )


def test_no_limit_unless_set(world: World) -> None:
    assert {world.get("/emails/x").status_code for _ in range(200)} == {404}


# As whom

SENDERS = "shop:@example.com,shop:offers@example.org"


@pytest.mark.parametrize("sender", ["facundo@EXAMPLE.com", "offers@example.org"])
def test_a_sender_that_is_allowed(make_world: MakeWorld, sender: str) -> None:
    world = make_world(MAILRELAY_SENDERS=SENDERS)
    assert world.send(a_body(**{"from": {"email": sender}})).status_code == 202


def test_a_sender_that_is_not_allowed(make_world: MakeWorld) -> None:
    """It is the field's mistake; nothing is accepted. A key without a list may send as anybody."""
    world = make_world(MAILRELAY_SENDERS=SENDERS)
    body = a_body(**{"from": {"email": "ceo@example.net"}})
    said = "This API key may send from @example.com, offers@example.org only."
    assert errors_of(world.send(body)) == {"from.email": [said]}
    assert world.items() == []
    assert world.send(body, key=OTHER_KEY).status_code == 202


def test_answers_may_go_anywhere(make_world: MakeWorld) -> None:
    """`replyTo` is where answers go, and claims to be nobody."""
    world = make_world(MAILRELAY_SENDERS=SENDERS)
    assert world.send(a_body(replyTo={"email": "pedro@example.net"})).status_code == 202


# Bodies that are more than they seem


def test_nothing_is_unpacked(world: World) -> None:
    """A compressed body is no JSON, however small it is and whatever it says it is."""
    packed = gzip.compress(json.dumps(a_body()).encode())
    response = world.send(packed, headers={"Content-Encoding": "gzip"})
    problem_of(response, 400)
    assert world.items() == []


@pytest.mark.parametrize("depth", [*range(900, 1000, 7), 5_000, 1_000_000])
def test_depth(world: World, depth: int) -> None:
    """JSON inside of JSON inside of JSON is the client's mistake, at whatever depth it ends."""
    body = '{"a":' * depth + "1" + "}" * depth
    response = world.send(body, headers={"Idempotency-Key": "deep"})
    assert response.status_code in (400, 422)


# What each answer says to a browser


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(("GET", path) for path in ("/healthz", "/metrics", "/emails/x", "/nowhere")),
        *(("POST", "/emails/send"), ("OPTIONS", "/emails/send"), ("PUT", "/emails/send")),
    ],
)
@pytest.mark.parametrize("key", [KEY, None])
def test_headers(world: World, method: str, path: str, key: str | None) -> None:
    """Answers, errors too, are kept by nobody, shown in no frame, and taken for what they are."""
    headers = world.call(method, path, key=key).headers
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["X-Frame-Options"] == "DENY"
    policy = headers["Content-Security-Policy"].split("; ")
    assert {"default-src 'none'", "frame-ancestors 'none'"} <= set(policy)
    assert "Access-Control-Allow-Origin" not in headers
