"""The web process, as the Procfile starts it, towards bytes that no HTTP library would send."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress
from urllib.parse import urlsplit

import pytest

from tests.e2e.conftest import MakeStack
from tests.support.processes import free_port
from tests.support.stack import KEY, Stack, processes_of_the_api

MAX_BODY = 25_000_000
WITH_KEY = f"Authorization: Bearer {KEY}"
JSON = "Content-Type: application/json"


@pytest.fixture(scope="module")
def web(make_shared_stack: MakeStack) -> Stack:
    stack = make_shared_stack()
    stack.start("web")
    return stack


@pytest.fixture
def client(web: Stack) -> Iterator[socket.socket]:
    """A connection to the web process."""
    to = urlsplit(web.url)
    with socket.create_connection((to.hostname or "", to.port or 0), timeout=20) as connection:
        yield connection


def head(*headers: str) -> bytes:
    lines = ("POST /emails/send HTTP/1.1", "Host: relay.example.com", *headers)
    return "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n"


def status(received: bytes) -> int:
    return int(received.split(b" ", 2)[1])


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([f"Content-Length: {MAX_BODY}"], 401),
        ([f"Content-Length: {MAX_BODY + 1}", WITH_KEY], 413),
        ([f"Content-Length: {10**15}", WITH_KEY], 413),
        (["Transfer-Encoding: chunked"], 401),
    ],
)
def test_a_body_is_refused_before_it_comes(
    client: socket.socket, headers: list[str], expected: int
) -> None:
    """A stranger's, and one that is too large: the answer is there with not a byte of it sent."""
    client.sendall(head(JSON, *headers))
    assert status(client.recv(65_536)) == expected


@pytest.mark.parametrize("key", ["", "Authorization: Bearer no-key-that-is-known"])
def test_a_stranger_cannot_fill_the_memory(client: socket.socket, key: str) -> None:
    """Who sends on without a key is cut off; what was sent fits into the sockets' buffers."""
    client.sendall(head(JSON, "Transfer-Encoding: chunked", *filter(None, [key])))
    chunk = b"10000\r\n" + b"a" * 65_536 + b"\r\n"
    sent = 0
    with suppress(ConnectionError):
        while sent <= MAX_BODY:
            client.sendall(chunk)
            sent += len(chunk)
    assert sent <= MAX_BODY


def test_chunks_without_an_end(client: socket.socket) -> None:
    """With a key, a body of unknown length is read up to the limit and no further."""
    client.sendall(head(JSON, WITH_KEY, "Transfer-Encoding: chunked"))
    chunk = b"f4240\r\n" + b" " * 1_000_000 + b"\r\n"
    for _ in range(MAX_BODY // 1_000_000 + 1):
        client.sendall(chunk)
    assert status(client.recv(65_536)) == 413


@pytest.mark.parametrize(
    "headers",
    [
        ["X-Long: " + "a" * 9_000],
        [f"X-{number}: a" for number in range(101)],
        ["Content-Length: 3", "Transfer-Encoding: chunked"],
        ["Content-Length: 3", "Content-Length: 4"],
        ["Transfer-Encoding: gzip, chunked, identity"],
        ["Bad Header: a"],
    ],
)
def test_heads_that_are_none(client: socket.socket, web: Stack, headers: list[str]) -> None:
    """Too large, or of two meanings, between which another request could hide: refused unread."""
    client.sendall(head(*headers, WITH_KEY) + b"abc")
    received = client.recv(65_536)
    assert 400 <= status(received) < 500 or status(received) == 501
    assert b"Traceback" not in received
    assert web.call("GET", "/healthz").status == 200


def test_a_client_that_runs_wild(make_stack: MakeStack) -> None:
    """Each of two processes lets it in as often as the limit says, also while AWS is away."""
    stack = make_stack(MAILRELAY_REQUEST_LIMIT="3/h", **processes_of_the_api(2))
    stack.start("web", AWS_ENDPOINT_URL=f"http://127.0.0.1:{free_port()}")
    responses = [stack.call("GET", "/emails/01ARZ3NDEKTSV4RRFFQ69G5FAV") for _ in range(12)]
    statuses = [response.status for response in responses]
    assert set(statuses) == {503, 429}
    assert 3 <= statuses.count(503) <= 6
    assert statuses[-1] == 429
    assert 0 < int(responses[-1].headers["Retry-After"]) <= 3600
    assert stack.call("GET", "/healthz").status == 200


def test_the_server_says_little_of_itself(web: Stack) -> None:
    """No version of anything."""
    response = web.call("GET", "/emails/x")
    assert response.headers["Server"] == "gunicorn"
    assert response.headers["Cache-Control"] == "no-store"
    assert "X-Powered-By" not in response.headers
