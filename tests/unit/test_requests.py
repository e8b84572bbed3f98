"""Each request is called something, and has one line in the log."""

from __future__ import annotations

import re
from collections.abc import MutableMapping
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs
from werkzeug.test import TestResponse

from tests.unit import test_web_app
from tests.unit.test_web_app import World, a_body

cloud = test_web_app.cloud
shared_world = test_web_app.shared_world
world = test_web_app.world

HEADER = "X-Request-ID"
ULID = re.compile(r"[0-9A-HJKMNP-TV-Z]{26}")

Line = MutableMapping[str, Any]


def answered(
    world: World, method: str, path: str, **options: Any
) -> tuple[TestResponse, list[Line]]:
    """The answer, and the lines on the way to it with what is bound to them."""
    with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
        response = world.call(method, path, **options)
    return response, lines


@pytest.mark.parametrize(
    ("method", "path", "options", "status"),
    [
        ("GET", "/healthz", {}, 200),
        ("GET", "/nowhere", {}, 404),
        ("GET", "/emails/x", {}, 404),
        ("GET", "/emails/x", {"key": None}, 401),
        ("DELETE", "/emails/send", {}, 405),
        ("POST", "/emails/send", {"json": {}}, 422),
        ("POST", "/emails/send", {"data": "{", "content_type": "application/json"}, 400),
        ("POST", "/emails/send", {"data": "x"}, 415),
    ],
)
def test_every_answer_names_its_request(
    world: World, method: str, path: str, options: dict[str, Any], status: int
) -> None:
    """As the client did."""
    response = world.call(method, path, headers={HEADER: "order-1"}, **options)

    assert (response.status_code, response.headers[HEADER]) == (status, "order-1")


def test_a_body_that_is_too_large_is_named(world: World) -> None:
    response = world.send(b" " * 25_000_001, headers={HEADER: "order-1"})

    assert (response.status_code, response.headers[HEADER]) == (413, "order-1")


@pytest.mark.parametrize(
    "given", ["x", "x" * 128, "Az09._:/+=-", "4bf92f35-77b3-4da6-a3ce-929d0e0e4736"]
)
def test_a_client_s_name_for_its_request_is_kept(world: World, given: str) -> None:
    assert world.get("/healthz", headers={HEADER: given}).headers[HEADER] == given


@pytest.mark.parametrize(
    "given", ["", "x" * 129, "pedro@example.org", "a b", "a,b", 'a"b', "é", "\x1b[0m", "a\tb"]
)
def test_what_is_no_name_is_replaced(world: World, given: str) -> None:
    """An @ above all: nobody's address gets into logs and messages this way."""
    assert ULID.fullmatch(world.get("/healthz", headers={HEADER: given}).headers[HEADER])


def test_each_request_without_a_name_gets_one_of_its_own(world: World) -> None:
    names = {world.get("/healthz").headers[HEADER] for _ in range(3)}

    assert len(names) == 3


def test_the_emails_carry_their_request_on(world: World) -> None:
    response = world.send(headers={HEADER: "order-1"})

    assert response.status_code == 202
    assert world.queue.hints[-1].request_id == "order-1"


def test_each_line_of_a_request_names_it_and_its_client(world: World) -> None:
    _, lines = answered(world, "POST", "/emails/send", json=a_body(), headers={HEADER: "order-1"})

    assert [line["event"] for line in lines] == ["a batch was accepted", "a request was answered"]
    assert {(line["request_id"], line["key_name"]) for line in lines} == {("order-1", "shop")}


def test_the_next_request_of_a_thread_has_nothing_of_the_one_before(world: World) -> None:
    answered(world, "GET", "/emails/x", headers={HEADER: "order-1"})
    _, (line,) = answered(world, "GET", "/emails/x", key=None)

    assert line["request_id"] != "order-1"
    assert "key_name" not in line
    assert structlog.contextvars.get_contextvars() == {}


def test_a_request_is_one_line(world: World) -> None:
    batch = world.accepted()
    response, (line,) = answered(world, "GET", f"/emails/{batch['id']}-0?limit=5")

    assert {**line, "duration_ms": 0, "request_id": ""} == {
        "log_level": "info",
        "event": "a request was answered",
        "request_id": "",
        "key_name": "shop",
        "method": "GET",
        "path": f"/emails/{batch['id']}-0",
        "status": 200,
        "duration_ms": 0,
        "bytes": len(response.data),
    }


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
def test_what_is_asked_all_the_time_is_said_to_nobody(world: World, path: str) -> None:
    _, (line,) = answered(world, "GET", path)

    assert line["log_level"] == "debug"


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("GET", "/emails/pedro@example.org", {}),
        ("GET", "/pedro@example.org", {}),
        ("GET", "/emails/x?to=pedro@example.org", {}),
        ("PUT", "/emails/pedro@example.org", {}),
        ("PEDRO", "/emails/send", {}),
        ("GET", "/healthz", {HEADER: "pedro@example.org"}),
        ("GET", "/healthz", {"Referer": "http://pedro@example.org", "User-Agent": "pedro"}),
        ("GET", "/emails/x", {"Authorization": "Bearer pedro"}),
        ("POST", "/emails/send", {"Idempotency-Key": "pedro@example.org "}),
    ],
)
def test_nothing_of_a_request_is_repeated(
    world: World, method: str, path: str, headers: dict[str, str]
) -> None:
    """Clients write addresses wherever there is room."""
    options = {"json": a_body(subject="pedro")} if method == "POST" else {}
    _, lines = answered(world, method, path, headers=headers, **options)

    assert lines
    assert "pedro" not in repr(lines).lower()


def test_what_is_our_fault_is_an_error(world: World) -> None:
    """A client's mistake is none."""
    world.queue.down = True
    try:
        _, (ours,) = answered(world, "GET", "/readyz")
    finally:
        world.queue.down = False
    _, (theirs,) = answered(world, "GET", "/nowhere")

    assert (ours["status"], ours["log_level"]) == (503, "error")
    assert (theirs["status"], theirs["log_level"]) == (404, "info")
