"""``GET /openapi.json`` is true: of every route, what it takes and what it answers.

All tests of the web application look at each answer with it as well (`World.call`).
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from jsonschema_rs import Draft202012Validator
from schemathesis.specs.openapi.definitions import OPENAPI_31  # The OpenAPI Initiative's own

from mailrelay.web.description import examples
from tests.support.description import conforms, document, example_of_problem, operations
from tests.unit import test_web_app
from tests.unit.test_web_app import World, a_body
from tests.unit.test_web_show import REJECTED, UNANSWERED

cloud = test_web_app.cloud
make_world = test_web_app.make_world
shared_world = test_web_app.shared_world
world = test_web_app.world

PAGES = {"static", "description.docs"}
"""What is for people to look at."""


def test_it_is_openapi_3_1(world: World) -> None:
    response = world.get("/openapi.json", key=None)

    assert response.content_type == "application/json"
    assert response.json == document()
    assert response.json["openapi"].startswith("3.1.")
    Draft202012Validator(OPENAPI_31).validate(response.json)


def test_every_route_is_described_and_nothing_else(world: World) -> None:
    rules = [
        rule
        for rule in world.app.url_map.iter_rules()
        if rule.endpoint not in PAGES and not rule.endpoint.startswith("console.")
    ]
    routes = {
        (rule.rule.replace("<id_>", "{id}"), method.lower())
        for rule in rules
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }

    assert routes == {
        (path, method) for path, methods in document()["paths"].items() for method in methods
    }


def test_only_those_routes_need_a_key_that_ask_for_one(world: World) -> None:
    for path, methods in document()["paths"].items():
        for method, operation in methods.items():
            refused = world.call(method, path, key=None).status_code == 401
            assert refused == bool(operation.get("security", document()["security"])), path


def test_limits_are_those_of_the_validators() -> None:
    submission = document()["components"]["schemas"]["Submission"]["properties"]

    assert (submission["destinations"]["minItems"], submission["destinations"]["maxItems"]) == (
        1,
        1000,
    )
    assert (submission["subject"]["minLength"], submission["subject"]["maxLength"]) == (1, 998)
    for value, fits in (("a", True), ("", False), ("a" * 999, False), ("a\nb", False)):
        assert Draft202012Validator(submission["subject"]).is_valid(value) == fits


def test_providers_are_those_that_are_configured(make_world: Callable[..., World]) -> None:
    description = make_world(EMAIL_PROVIDERS="ses").get("/openapi.json", key=None).json
    submission = description["components"]["schemas"]["Submission"]["properties"]

    assert submission["providers"]["items"]["enum"] == ["ses"]


def test_what_is_not_described_is_noticed() -> None:
    """A field too many, one too few, another type: so that the other tests can be believed."""
    email = {"$ref": "#/components/schemas/Email"}
    conforms(examples.EMAIL, email)
    for changes in ({"extra": 1}, {"to": {"email": "a@example.org", "x": 1}}, {"retries": "1"}):
        with pytest.raises(AssertionError):
            conforms({**examples.EMAIL, **changes}, email)
    with pytest.raises(AssertionError):
        conforms(examples.BATCH["emails"][0], email)


# Examples


def _examples(operation: str, content: dict[str, Any]) -> Iterator[Any]:
    for kind in content.values():
        for name, example in kind.get("examples", {}).items():
            yield pytest.param(kind["schema"], example["value"], id=f"{operation}-{name}")


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        param
        for name, operation in operations().items()
        for part in (operation.get("requestBody", {}), *operation["responses"].values())
        for param in _examples(name, part.get("content", {}))
    ],
)
def test_examples_are_as_described(schema: dict[str, Any], value: Any) -> None:
    conforms(value, schema)


@pytest.mark.parametrize("name", examples.SUBMISSIONS)
def test_examples_of_sending_are_accepted(world: World, name: str) -> None:
    body = examples.SUBMISSIONS[name]["value"]

    response = world.send(body)

    assert response.status_code == 202
    sent = [email["email"] for email in response.json["emails"]]
    assert sent == [to["email"] for to in body["destinations"]]


@pytest.mark.parametrize("name", examples.RESOLUTIONS)
def test_examples_of_resolving_resolve(make_world: Callable[..., World], name: str) -> None:
    world = make_world(MAILRELAY_DUPLICATES="avoid")
    email_id = world.accepted()["emails"][0]["id"]
    world.deliver(email_id, UNANSWERED)

    response = world.call(
        "POST", f"/emails/{email_id}/resolve", json=examples.RESOLUTIONS[name]["value"]
    )

    assert (response.status_code, response.json["status"]) == (200, name)


def test_example_of_resending_resends(world: World) -> None:
    email_id = world.accepted()["emails"][0]["id"]
    world.deliver(email_id, REJECTED)
    [example] = operations()["resend"]["requestBody"]["content"]["application/json"][
        "examples"
    ].values()

    response = world.call("POST", f"/emails/{email_id}/resend", json=example["value"])

    assert (response.status_code, response.json["status"]) == (202, "queued")


NO_EMAIL = f"/emails/{examples.EMAIL_ID}"
NO_BATCH = f"/emails/{examples.BATCH_ID}"
NOT_AN_ADDRESS = a_body(destinations=[{"email": "pedro"}], plainContent=None, htmlContent=None)
BODIES: dict[str, Any] = {
    "broken": {"data": b"", "content_type": "application/json"},
    "twice": {"data": b'{"subject": "a", "subject": "b"}', "content_type": "application/json"},
    "other": {"data": b"a", "content_type": "text/plain"},
    "body": {
        "json": {},
        "environ_overrides": {"CONTENT_LENGTH": "25000001", "wsgi.input_terminated": False},
    },
}
KEYS: dict[str, Any] = {"none": {"key": None}, "unknown": {"key": "no-key"}}


def _provoked() -> Iterator[Any]:
    """(operation, status, name of the example, path, options) of requests that get the answer."""
    paths = {
        "send": ("POST", "/emails/send"),
        "show": ("GET", NO_EMAIL),
        "resend": ("POST", f"{NO_EMAIL}/resend"),
        "resolve": ("POST", f"{NO_EMAIL}/resolve"),
        "providers": ("GET", "/providers"),
    }
    of_batch = {"resend": f"{NO_BATCH}/resend", "resolve": f"{NO_BATCH}/resolve"}
    wrong: dict[str, Any] = {
        "send": {"json": NOT_AN_ADDRESS},
        "resend": {"json": {"status": "sent"}},
        "resolve": {"json": {"status": "deferred"}},
    }
    for name, (method, path) in paths.items():
        for key, options in KEYS.items():
            yield name, 401, key, method, path, options
        if name in wrong:
            yield name, 400, "twice", method, path, BODIES["twice"]
            yield name, 413, "body", method, path, BODIES["body"]
            yield name, 415, "other", method, path, BODIES["other"]
            yield name, 422, "fields", method, path, wrong[name]
            if name != "resend":
                yield name, 400, "broken", method, path, BODIES["broken"]
        if name in of_batch:
            yield name, 404, "batch", method, of_batch[name], {"json": _good(name)}
        if name in ("show", "resend", "resolve"):
            yield name, 404, "nothing", method, path, {"json": _good(name)}
    yield "show", 422, "page", "GET", NO_BATCH, {"query_string": "limit=0&cursor=x"}


def _good(operation: str) -> Any:
    return {"status": "sent"} if operation == "resolve" else {}


@pytest.mark.parametrize(
    ("operation", "status", "name", "method", "path", "options"), list(_provoked())
)
def test_examples_of_problems_are_what_is_answered(
    world: World,
    operation: str,
    status: int,
    name: str,
    method: str,
    path: str,
    options: dict[str, Any],
) -> None:
    response = world.call(method, path, **options)

    assert json.loads(response.data) == example_of_problem(operation, status, name)


@pytest.mark.parametrize("operation", ["send", "show", "resend", "resolve", "providers"])
def test_examples_of_problems_that_pass(make_world: Callable[..., World], operation: str) -> None:
    """Where the store is away, and where a key asks too often."""
    method, path = next(
        (method, path) for name, _, _, method, path, _ in _provoked() if name == operation
    )
    body = a_body() if operation == "send" else _good(operation)
    away = make_world(MAILRELAY_TABLE="no-such-table", MAILRELAY_REQUEST_LIMIT="1/h")

    unavailable = away.call(method, path, json=body)
    often = away.call(method, path, json=body)

    assert json.loads(unavailable.data) == example_of_problem(operation, 503, "store")
    assert json.loads(often.data) == example_of_problem(operation, 429, "often")


def test_examples_of_problems_of_sending(make_world: Callable[..., World]) -> None:
    """That depend on who sends, and on what was sent before."""
    world = make_world(MAILRELAY_SENDERS="blog:@example.com")
    once = {"Idempotency-Key": "once"}
    world.send(headers=once)

    used = world.send(a_body(subject="other"), headers=once)
    sender = world.send(a_body(**{"from": {"email": "a@example.org"}}), key=test_web_app.OTHER_KEY)
    content = world.send(a_body(plainContent=_incompressible(600_000)))

    assert json.loads(used.data) == example_of_problem("send", 422, "key used")
    assert json.loads(sender.data) == example_of_problem("send", 422, "sender")
    assert json.loads(content.data) == example_of_problem("send", 413, "content")


def _incompressible(length: int) -> str:
    return "".join(random.Random(0).choices("0123456789abcdefghijklmnopqrstuvwxyz", k=length))


@pytest.mark.parametrize("decision", ["resend", "resolve"])
def test_examples_of_decisions_that_cannot_be(world: World, decision: str) -> None:
    email_id = world.accepted()["emails"][0]["id"]

    response = world.call("POST", f"/emails/{email_id}/{decision}", json=_good(decision))

    assert json.loads(response.data) == example_of_problem(decision, 409, "status")


def test_example_of_not_being_ready(world: World) -> None:
    world.queue.down = True

    assert json.loads(world.get("/readyz").data) == example_of_problem("readyz", 503, "away")
