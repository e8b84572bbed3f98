"""Whatever a client sends: never a 500, every error a problem, nothing stored but what is 202."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from werkzeug.test import TestResponse

from tests.unit import test_web_app
from tests.unit.test_web_app import World, a_body, clear, errors_of, problem_of

cloud = test_web_app.cloud
shared_world = test_web_app.shared_world
world = test_web_app.world

fuzz = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,  # the same examples for everybody; for more, raise their number
    # One world serves all examples of a test: each leaves it as empty as it was.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

text = st.text(st.characters(codec=None), max_size=20)  # halves of surrogate pairs included
value = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=8,
)
header = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF), max_size=40)


def _check(world: World, response: TestResponse, statuses: tuple[int, ...]) -> None:
    assert response.status_code in statuses, response.text
    if response.status_code == 202:
        assert world.items()
        clear(world.dynamodb)
        return
    if response.status_code == 422:
        errors_of(response)
    elif response.status_code >= 400:
        problem_of(response, response.status_code)
    assert world.items() == []


def _set(body: Any, path: tuple[Any, ...], new: Any) -> None:
    for step in path[:-1]:
        body = body[step]
    body[path[-1]] = new


PLACES: list[tuple[Any, ...]] = [
    *(("from",), ("from", "email"), ("from", "name"), ("from", "other"), ("subject",)),
    *(("destinations",), ("destinations", 0), ("destinations", 0, "email")),
    *(("destinations", 0, "name"), ("plainContent",), ("htmlContent",), ("replyTo",)),
    *(("headers",), ("headers", "X-A"), ("providers",), ("providers", 0), ("other",)),
]


@fuzz
@given(value)
def test_any_json(world: World, body: Any) -> None:
    """Any JSON at all."""
    _check(world, world.send(json.dumps(body)), (400, 422))


@fuzz
@given(st.lists(st.tuples(st.sampled_from(PLACES), value | st.emails()), min_size=1, max_size=2))
def test_any_value_anywhere(world: World, changes: list[tuple[tuple[Any, ...], Any]]) -> None:
    """A good body with any values in one or two places."""
    for path, new in changes:
        body = a_body(headers={"X-A": "a"}, providers=["ses"])
        _set(body, path, new)
        for headers in ({}, {"Idempotency-Key": "once"}):
            _check(world, world.send(json.dumps(body), headers=headers), (202, 400, 422))


@fuzz
@given(text)
def test_any_field_name(world: World, name: str) -> None:
    """A good body with one more field, an own header, and an address's field of any name."""
    for path in ((name,), ("headers", name), ("from", name)):
        body = a_body(headers={})
        _set(body, path, "a")
        _check(world, world.send(body), (202, 422))


@fuzz
@given(st.binary(max_size=60), st.none() | st.integers(0, 200))
def test_any_bytes(world: World, noise: bytes, place: int | None) -> None:
    """Any bytes, by themselves and in the midst of a good body."""
    good = json.dumps(a_body()).encode()
    body = noise if place is None else good[:place] + noise + good[place:]
    _check(world, world.send(body), (202, 400, 422))


@fuzz
@given(
    st.dictionaries(
        st.sampled_from(
            [
                *("Authorization", "Idempotency-Key", "Content-Type", "Content-Encoding", "Host"),
                *("Accept", "Expect", "Transfer-Encoding", "X-Forwarded-For", "Content-Length"),
            ]
        ),
        header,
        min_size=1,
        max_size=3,
    )
)
def test_any_header(world: World, headers: dict[str, str]) -> None:
    """Any header values, as far as WSGI servers let them through."""
    _check(world, world.send(headers=headers), (202, 400, 401, 413, 415, 422))


@fuzz
@given(text, st.sampled_from(["GET", "HEAD", "POST", "DELETE", "OPTIONS"]))
@example("/0", "GET")
def test_any_id(world: World, id_: str, method: str) -> None:
    """Any id, percent-encoded or not."""
    raw = quote(id_.encode("utf-8", "surrogatepass"), safe="")
    response = world.call(method, f"/emails/{raw}")
    if method == "HEAD":
        assert response.status_code in (404, 405)
    else:
        _check(world, response, (200, 404, 405, 415))


@fuzz
@given(st.dictionaries(st.sampled_from(["limit", "cursor"]), text.map(str.strip) | st.integers()))
def test_any_page(world: World, query: dict[str, str | int]) -> None:
    """Any paging."""
    batch_id = world.accepted()["id"]
    encoded = "&".join(
        f"{name}={quote(str(given).encode('utf-8', 'surrogatepass'), safe='')}"
        for name, given in query.items()
    )
    response = world.get(f"/emails/{batch_id}?{encoded}")
    clear(world.dynamodb)
    _check(world, response, (200, 422))
