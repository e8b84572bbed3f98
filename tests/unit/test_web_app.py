"""The Flask application as a whole: who may ask, health, and errors as problems.

`World` and its fixtures serve the other test_web_*.py, too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from flask import Flask
from moto import mock_aws
from structlog.testing import capture_logs
from werkzeug.test import TestResponse

from mailrelay import assembly, aws, clock, provision, web
from mailrelay.message import EmailId, Hint
from mailrelay.providers import Answer, Envelope
from mailrelay.queue import QueueUnavailable
from mailrelay.settings import Settings, SettingsError, load
from tests.support.couriers import a_courier
from tests.support.description import example_of_problem, is_described
from tests.support.processes import free_port

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

KEY, OTHER_KEY = "key-of-shop", "key-of-blog"
BUCKET = "mailrelay-content"
VARIABLES = {
    "AWS_REGION": "us-east-1",
    "MAILRELAY_API_KEYS": f"shop:{KEY},blog:{OTHER_KEY}",
    "MAILRELAY_RETRY_SCHEDULE": "60",
}
FUTURE = 4_000_000_000_000


class FakeQueue:
    """Keeps the hints; refuses them while it is `down`."""

    def __init__(self) -> None:
        self.hints: list[Hint] = []
        self.down = False

    def put(self, hints: Iterable[Hint]) -> None:
        for hint in hints:
            self._refuse()
            self.hints.append(hint)

    def depth(self) -> int:
        self._refuse()
        return len(self.hints)

    def _refuse(self) -> None:
        if self.down:
            raise QueueUnavailable("SQS: there is none")


class ScriptedProvider:
    """Answers with one given answer."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def send(self, envelope: Envelope) -> Answer:
        return self._answer

    def check(self) -> Answer:
        return self._answer


class World:
    """The application with all that is behind it."""

    def __init__(self, **variables: str) -> None:
        self.settings = load({**VARIABLES, **variables})
        self.queue = FakeQueue()
        self.dynamodb = aws.dynamodb(self.settings)
        self.store = assembly.store(self.settings)
        self.app = web.create_app(self.settings, self.queue)
        self.client = self.app.test_client()

    def call(
        self, method: str, path: str, *, key: str | None = KEY, **options: Any
    ) -> TestResponse:
        headers = dict(options.pop("headers", {}))
        if key is not None:
            headers.setdefault("Authorization", f"Bearer {key}")
        response = self.client.open(path, method=method, headers=headers, **options)
        is_described(self.app, response)
        return response

    def get(self, path: str, **options: Any) -> TestResponse:
        return self.call("GET", path, **options)

    def send(self, body: Any = None, **options: Any) -> TestResponse:
        """POST /emails/send with a JSON body; bytes and text are sent as they are."""
        if not isinstance(body, bytes | str):
            body = json.dumps(a_body() if body is None else body)
        options.setdefault("content_type", "application/json")
        return self.call("POST", "/emails/send", data=body, **options)

    def accepted(self, **changes: Any) -> Any:
        """The answer to a good request."""
        response = self.send(a_body(**changes))
        assert response.status_code == 202, response.text
        return response.json

    def deliver(self, email_id: str, *answers: Answer) -> None:
        """Attempts at an email, one for each answer, as far as its state allows them."""
        for answer in answers:
            email = self.store.email(_parsed(email_id))
            assert email is not None
            providers = dict.fromkeys(self.settings.providers, ScriptedProvider(answer))
            a_courier(self.store, providers, self.settings).deliver(email.hint)

    def claim(self, email_id: str) -> None:
        """A worker holds the email."""
        email = self.store.email(_parsed(email_id))
        assert email is not None
        assert self.store.claim(email.hint, clock.now(), FUTURE)

    def due(self, at: int = FUTURE) -> set[str]:
        """Ids of the emails, and of batches that are not ready, that a sweep will find."""
        pages = (page for shard in range(8) for page in self.store.due(shard, at))
        return {item if isinstance(item, str) else str(item.id) for page in pages for item in page}

    def items(self) -> list[dict[str, Any]]:
        """All that the table holds."""
        return items_of(self.dynamodb, self.settings.table)


def items_of(dynamodb: DynamoDBClient, table: str) -> list[dict[str, Any]]:
    pages = dynamodb.get_paginator("scan").paginate(TableName=table)
    return [dict(item) for page in pages for item in page["Items"]]


def _provision() -> Settings:
    settings = load({**VARIABLES, "MAILRELAY_BUCKET": BUCKET})
    for _ in provision.provision(settings):
        pass
    return settings


def clear(dynamodb: DynamoDBClient) -> None:
    """Remove all that the table holds."""
    few = 20
    found = dynamodb.scan(TableName="mailrelay", Limit=few)["Items"]
    if len(found) == few:
        dynamodb.delete_table(TableName="mailrelay")
        _provision()
        return
    for item in found:
        key = {"pk": item["pk"], "sk": item["sk"]}
        dynamodb.delete_item(TableName="mailrelay", Key=key)


def _parsed(email_id: str) -> EmailId:
    parsed = EmailId.parse(email_id)
    assert parsed is not None
    return parsed


def a_body(**changes: Any) -> dict[str, Any]:
    """The contract's example, with changes; None leaves a field out."""
    body = {
        "from": {"email": "facundo@example.com", "name": "Facundo"},
        "destinations": [{"email": "pedro@example.org", "name": "Pedro"}],
        "subject": "test",
        "plainContent": "test",
        "htmlContent": "<p>test</p>",
        **changes,
    }
    return {name: value for name, value in body.items() if value is not None}


def problem_of(response: TestResponse, status: int) -> dict[str, Any]:
    """The problem that `response` is, checked to be a proper one."""
    assert response.status_code == status, response.text
    assert response.content_type == "application/problem+json"
    problem: dict[str, Any] = json.loads(response.data)
    assert set(problem) - {"errors"} == {"type", "title", "status", "detail"}
    assert problem["status"] == status
    assert all(isinstance(problem[name], str) for name in ("type", "title", "detail"))
    assert problem["detail"]
    assert "Traceback" not in response.text
    return problem


def errors_of(response: TestResponse) -> dict[str, list[str]]:
    """The bad fields that a 422 names, each with at least one text."""
    errors: dict[str, list[str]] = problem_of(response, 422)["errors"]
    assert errors
    for texts in errors.values():
        assert texts
        assert all(isinstance(text, str) for text in texts)
    return errors


@pytest.fixture(scope="module")
def cloud() -> Iterator[DynamoDBClient]:
    """AWS, in this process, with what `mailrelay init` creates."""
    with mock_aws():
        yield aws.dynamodb(_provision())


@pytest.fixture
def make_world(cloud: DynamoDBClient) -> Iterator[Callable[..., World]]:
    """Applications with settings of their own, over an empty table."""
    yield World
    clear(cloud)


@pytest.fixture(scope="module")
def shared_world(cloud: DynamoDBClient) -> World:
    return World()


@pytest.fixture
def world(shared_world: World) -> Iterator[World]:
    """An application over an empty table, with an empty queue."""
    shared_world.queue.hints.clear()
    shared_world.queue.down = False
    yield shared_world
    clear(shared_world.dynamodb)


# Who may ask

EMAILS = ["/emails/send", "/emails/01ARZ3NDEKTSV4RRFFQ69G5FAV", "/emails/x"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", EMAILS[0]),
        *(("GET", path) for path in EMAILS[1:]),
        *(("POST", f"{EMAILS[1]}-0/{action}") for action in ("resend", "resolve")),
    ],
)
@pytest.mark.parametrize(
    "authorization",
    [
        *(None, "", "Bearer", "Bearer ", f"Basic {KEY}", KEY, f"Bearer{KEY}", f"Bearer {KEY}x"),
        *("Bearer shop", f"Bearer {KEY[:-1]}", f"Bearer {KEY} {KEY}", "Bearer \xff", "\xe9 \xe9"),
    ],
)
def test_no_key_no_answer(world: World, method: str, path: str, authorization: str | None) -> None:
    """Without a key that is configured, every route under /emails answers 401 and does nothing."""
    headers = {} if authorization is None else {"Authorization": authorization}
    response = world.call(method, path, key=None, headers=headers, json=a_body())
    problem_of(response, 401)
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert world.items() == []


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_scheme_in_any_case(world: World, scheme: str) -> None:
    """RFC 7235: the scheme's case does not matter."""
    response = world.send(key=None, headers={"Authorization": f"{scheme} {OTHER_KEY}"})
    assert response.status_code == 202


def test_hashed_key(make_world: Callable[..., World]) -> None:
    """A key of which only the hash is configured is known; the hash itself is no key."""
    digest = next(iter(load({"MAILRELAY_API_KEYS": KEY}).api_keys))
    world = make_world(MAILRELAY_API_KEYS=f"shop:sha256:{digest}")
    assert world.send().status_code == 202
    problem_of(world.send(key=digest), 401)


def test_no_keys_at_all(make_world: Callable[..., World]) -> None:
    """With no key configured nobody gets in."""
    problem_of(make_world(MAILRELAY_API_KEYS="").send(), 401)


def test_provider_that_is_not_installed(cloud: DynamoDBClient) -> None:
    """The application does not start with a chain that names an unknown provider."""
    with pytest.raises(SettingsError, match=r"^EMAIL_PROVIDERS: 'pigeon' is no provider"):
        World(EMAIL_PROVIDERS="ses,pigeon")


# Health


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_healthy(world: World, path: str) -> None:
    """Both answer 200, without a key."""
    response = world.get(path, key=None)
    assert (response.status_code, response.json) == (200, {"status": "ok"})


@pytest.fixture
def closed_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS is at an address where nobody listens."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")


@pytest.mark.parametrize(
    ("table", "queue_down", "named"),
    [
        ("mailrelay", True, {"SQS"}),
        ("no-such-table", False, {"DynamoDB"}),
        ("no-such-table", True, {"DynamoDB", "SQS"}),
    ],
)
def test_not_ready(
    make_world: Callable[..., World], table: str, queue_down: bool, named: set[str]
) -> None:
    """/readyz says which of the two does not answer; the process lives all the same."""
    world = make_world(MAILRELAY_TABLE=table)
    world.queue.down = queue_down
    response = world.get("/readyz", key=None)
    detail = problem_of(response, 503)["detail"]
    assert {name for name in ("DynamoDB", "SQS") if name in detail} == named
    assert int(response.headers["Retry-After"]) > 0
    assert world.get("/healthz", key=None).status_code == 200


# The store cannot be reached


@pytest.mark.usefixtures("closed_port")
def test_no_store(cloud: DynamoDBClient) -> None:
    """Nothing is accepted and nothing enqueued, and the client is told when to ask again."""
    world = World()
    response = world.send()
    problem_of(response, 503)
    assert int(response.headers["Retry-After"]) > 0
    assert world.queue.hints == []
    assert items_of(cloud, "mailrelay") == []


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "once"}])
def test_store_that_refuses(make_world: Callable[..., World], headers: dict[str, str]) -> None:
    """A table that is not there is the operator's to fix, and a 503 as well."""
    world = make_world(MAILRELAY_TABLE="no-such-table")
    for response in (
        world.send(headers=headers),
        world.get(EMAILS[1]),
        world.get(f"{EMAILS[1]}-0"),
    ):
        problem_of(response, 503)
        assert int(response.headers["Retry-After"]) > 0
    assert world.queue.hints == []


# Errors as problems


@pytest.mark.parametrize(
    "path",
    ["/nowhere", "/emails//x", "//emails/x", "/emails", "/emails/", "/emails/a/b", "/%ff", "/é"],
)
def test_nothing_there(world: World, path: str) -> None:
    problem_of(world.get(path), 404)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/emails/send", "POST"),
        ("PUT", "/emails/send", "POST"),
        ("PATCH", "/emails/send", "POST"),
        ("DELETE", EMAILS[1], "GET"),
        ("POST", EMAILS[1], "GET"),
        ("POST", "/healthz", "GET"),
        ("BREW", "/readyz", "GET"),
    ],
)
def test_other_method(world: World, method: str, path: str, allowed: str) -> None:
    """405 says which methods there are."""
    response = world.call(method, path)
    problem_of(response, 405)
    assert allowed in response.headers["Allow"].split(", ")
    assert method not in response.headers["Allow"].split(", ")


@pytest.mark.parametrize("path", ["/emails/send", EMAILS[1], "/healthz"])
def test_options(world: World, path: str) -> None:
    response = world.call("OPTIONS", path, key=None)
    assert (response.status_code, response.data) == (200, b"")
    assert "OPTIONS" in response.headers["Allow"]


def test_head(world: World) -> None:
    """HEAD answers as GET does, without the body."""
    batch_id = world.accepted()["id"]
    for path, status in ((f"/emails/{batch_id}", 200), ("/emails/x", 404), ("/healthz", 200)):
        response = world.call("HEAD", path)
        assert (response.status_code, response.data) == (status, b"")
        assert response.content_type == world.get(path).content_type


def test_unforeseen_error(cloud: DynamoDBClient) -> None:
    """What nobody thought of is a 500 that tells the client nothing, and the log where it was."""
    world = World()
    _fail_with(world.app, "pedro@example.org")
    with capture_logs() as lines:
        response = world.get("/fails")
    assert problem_of(response, 500) == example_of_problem("show", 500, "unforeseen")
    assert [(line["event"], line["log_level"]) for line in lines] == [
        ("a request failed", "error"),
        ("a request was answered", "error"),
    ]
    assert type(lines[0]["exc_info"]) is ZeroDivisionError


def _fail_with(app: Flask, text: str) -> None:
    @app.get("/fails")
    def fails() -> None:
        raise ZeroDivisionError(text)
