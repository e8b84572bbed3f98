"""``POST /emails/{id}/resend`` and ``/resolve``: what a person decides about an email."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from werkzeug.test import TestResponse

from mailrelay.message import EmailId
from tests.unit import test_web_app
from tests.unit.counting import counted
from tests.unit.test_web_app import FUTURE, OTHER_KEY, World, errors_of, problem_of
from tests.unit.test_web_show import ACCEPTED, REJECTED, RETRY, TIME, UNANSWERED

cloud = test_web_app.cloud
make_world = test_web_app.make_world
world = test_web_app.world


@pytest.fixture(scope="module")
def shared_world(cloud: Any) -> World:
    return World(MAILRELAY_DUPLICATES="avoid")


STATES = {
    "queued": [],
    "sent": [ACCEPTED],
    "failed": [REJECTED],
    "deferred": [RETRY, RETRY, RETRY],
    "unknown": [RETRY, UNANSWERED],
}


def an_email(world: World, status: str) -> str:
    """The id of an email with the status; nothing is in the queue."""
    email_id: str = world.accepted()["emails"][0]["id"]
    if status == "sending":
        world.claim(email_id)
    else:
        world.deliver(email_id, *STATES[status])
    world.queue.hints.clear()
    assert world.get(f"/emails/{email_id}").json["status"] == status
    return email_id


def resend(world: World, id_: str, **options: Any) -> TestResponse:
    return world.call("POST", f"/emails/{id_}/resend", **options)


def resolve(world: World, id_: str, body: Any, **options: Any) -> TestResponse:
    return world.call("POST", f"/emails/{id_}/resolve", json=body, **options)


@pytest.mark.parametrize(("status", "attempts"), [("failed", 1), ("deferred", 3), ("unknown", 2)])
def test_resend(world: World, status: str, attempts: int) -> None:
    """It is queued again for the first provider, its attempts stay, and GET shows the same."""
    email_id = an_email(world, status)

    response = resend(world, email_id)

    assert response.status_code == 202, response.text
    email: Any = response.json
    assert email == world.get(f"/emails/{email_id}").json
    assert (email["status"], email["retries"]) == ("queued", attempts)
    assert (email["nextAttemptAt"], len(email["attempts"])) == (None, attempts)
    parsed = EmailId.parse(email_id)
    assert [(hint.email_id, hint.provider_index, hint.attempt) for hint in world.queue.hints] == [
        (parsed, 0, attempts + 1)
    ]
    assert world.due() == {email_id}
    world.deliver(email_id, ACCEPTED)
    sent: Any = world.get(f"/emails/{email_id}").json
    assert (sent["status"], sent["provider"], sent["error"]) == ("sent", "mailgun", None)


def test_resend_twice(world: World) -> None:
    """The second one meets an email that is on its way, and changes nothing."""
    email_id = an_email(world, "unknown")
    assert resend(world, email_id).status_code == 202
    assert "queued" in problem_of(resend(world, email_id), 409)["detail"]
    assert len(world.queue.hints) == 1


def test_resend_without_queue(world: World) -> None:
    """While SQS is away the email is due all the same, and the sweep sends it."""
    email_id = an_email(world, "failed")
    world.queue.down = True
    assert resend(world, email_id).status_code == 202
    assert world.due() == {email_id}


@pytest.mark.parametrize("options", [{}, {"json": {}}, {"data": b""}])
def test_resend_takes_no_body(world: World, options: dict[str, Any]) -> None:
    assert resend(world, an_email(world, "unknown"), **options).status_code == 202


def test_resend_late(make_world: Callable[..., World]) -> None:
    """An email that could be removed before it is over is not begun again."""
    world = make_world(MAILRELAY_DUPLICATES="avoid", MAILRELAY_RETENTION_DAYS="0.0145")
    email_id = an_email(world, "unknown")
    assert resend(world, email_id).status_code == 202
    world.deliver(email_id, UNANSWERED)
    # It is kept for some 20 minutes, in which the relay may try it twice with a minute between.
    patient = make_world(MAILRELAY_RETRY_SCHEDULE="60,120")
    assert "will be removed in 0.3 hours" in problem_of(resend(patient, email_id), 409)["detail"]
    assert world.due() == set()


@pytest.mark.parametrize("status", ["sent", "failed"])
def test_resolve(world: World, status: str) -> None:
    """The email is over as the person says; the attempt stays without an answer."""
    email_id = an_email(world, "unknown")
    before: Any = world.get(f"/emails/{email_id}").json

    response = resolve(world, email_id, {"status": status})

    assert response.status_code == 200, response.text
    email: Any = response.json
    assert email == world.get(f"/emails/{email_id}").json
    sent = status == "sent"
    changed = {
        "status": status,
        "delivered": sent,
        "provider": "ses" if sent else None,
        "resolvedAt": email["resolvedAt"],
        "error": None if sent else before["error"],
    }
    assert email == before | changed
    assert before["resolvedAt"] is None
    assert re.fullmatch(TIME, email["resolvedAt"])
    assert before["attempts"][-1]["outcome"] == "unknown"
    batch: Any = world.get(f"/emails/{email['batchId']}").json
    assert (batch["status"], batch["counts"][status]) == (status, 1)
    assert world.due(FUTURE) == set()


@pytest.mark.parametrize("status", ["sent", "failed"])
def test_resolve_again(world: World, status: str) -> None:
    """Repeating it answers the same; it is counted once."""
    email_id = an_email(world, "unknown")
    with counted("emails_concluded_total") as changed:
        answers = [resolve(world, email_id, {"status": status}) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200] * 3
    assert answers[0].json == answers[1].json == answers[2].json
    assert changed == {f"emails_concluded_total{{status={status}}}": 1}
    other = "failed" if status == "sent" else "sent"
    assert status in problem_of(resolve(world, email_id, {"status": other}), 409)["detail"]


def test_resolve_then_resend(world: World) -> None:
    """Whom a person gave up can be written to after all; what was said before counts no more."""
    email_id = an_email(world, "unknown")
    resolve(world, email_id, {"status": "failed"})
    email: Any = resend(world, email_id).json
    assert (email["status"], email["resolvedAt"]) == ("queued", None)
    assert email == world.get(f"/emails/{email_id}").json


@pytest.mark.parametrize("status", ["queued", "sending", "sent"])
def test_not_resendable(world: World, status: str) -> None:
    email_id = an_email(world, status)
    assert f"is {status}" in problem_of(resend(world, email_id), 409)["detail"]
    assert world.queue.hints == []


@pytest.mark.parametrize("status", ["queued", "sending", "sent", "failed", "deferred"])
def test_not_resolvable(world: World, status: str) -> None:
    email_id = an_email(world, status)
    before = world.get(f"/emails/{email_id}").json
    other = "failed" if status == "sent" else "sent"
    assert f"is {status}" in problem_of(resolve(world, email_id, {"status": other}), 409)["detail"]
    assert world.get(f"/emails/{email_id}").json == before


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "status"),
        *(({"status": value}, "status") for value in ("unknown", "SENT", "", None, 1, [], {})),
        ({"status": "sent", "provider": "ses"}, "provider"),
        ([], "body"),
    ],
)
def test_resolve_with_a_bad_body(world: World, body: Any, field: str) -> None:
    email_id = an_email(world, "unknown")
    assert set(errors_of(resolve(world, email_id, body))) == {field}


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"data": b"{", "content_type": "application/json"}, 400),
        ({"data": b"status=sent", "content_type": "application/x-www-form-urlencoded"}, 415),
        ({"json": {"other": 1}}, 422),
    ],
)
@pytest.mark.parametrize("action", ["resend", "resolve"])
def test_no_json(world: World, action: str, options: dict[str, Any], status: int) -> None:
    email_id = an_email(world, "unknown")
    problem_of(world.call("POST", f"/emails/{email_id}/{action}", **options), status)
    assert world.get(f"/emails/{email_id}").json["status"] == "unknown"


@pytest.mark.parametrize(
    "call", [resend, lambda *args, **kw: resolve(*args, {"status": "sent"}, **kw)]
)
def test_nobody_decides_about_what_is_not_there(
    world: World, call: Callable[..., TestResponse]
) -> None:
    """Nor about what another API key sent, or about a whole batch."""
    email_id = an_email(world, "unknown")
    batch_id = email_id.partition("-")[0]
    nothing = [problem_of(call(world, id_), 404) for id_ in (f"{'0' * 26}-0", "x", f"{email_id}0")]
    nothing.append(problem_of(call(world, email_id, key=OTHER_KEY), 404))
    assert nothing == nothing[:1] * 4
    assert email_id in problem_of(call(world, batch_id), 404)["detail"]
    problem_of(call(world, email_id, key="wrong"), 401)
    problem_of(call(world, email_id, key=None), 401)
    assert world.get(f"/emails/{email_id}").json["status"] == "unknown"


@pytest.mark.parametrize("action", ["resend", "resolve"])
def test_without_a_store(make_world: Callable[..., World], action: str) -> None:
    """It says when to ask again, and nothing of an Idempotency-Key, which it does not take."""
    world = make_world(MAILRELAY_TABLE="no-such-table")
    path = f"/emails/{'0' * 26}-0/{action}"
    response = world.call("POST", path, json={"status": "sent"} if action == "resolve" else {})
    assert "Idempotency" not in problem_of(response, 503)["detail"]
    assert int(response.headers["Retry-After"]) > 0


@pytest.mark.parametrize("action", ["resend", "resolve"])
def test_reading_decides_nothing(world: World, action: str) -> None:
    response = world.get(f"/emails/{an_email(world, 'unknown')}/{action}")
    problem_of(response, 405)
    assert "POST" in response.headers["Allow"]
