"""``GET /emails/{id}``: what happened to an email and to a batch."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from mailrelay.message import Outcome
from mailrelay.providers import Answer
from tests.unit import test_web_app
from tests.unit.test_web_app import FUTURE, OTHER_KEY, World, errors_of, problem_of

cloud = test_web_app.cloud
make_world = test_web_app.make_world
shared_world = test_web_app.shared_world
world = test_web_app.world

TIME = r"20[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9]\.[0-9]{3}Z"

ACCEPTED = Answer(Outcome.ACCEPTED, "200", "Queued. Thank you.", "<id@provider.example>")
REJECTED = Answer(Outcome.REJECTED, "400", "not a valid address")
RETRY = Answer(Outcome.RETRY, "503", "Service Unavailable")
UNAVAILABLE = Answer(Outcome.UNAVAILABLE, "401", "Forbidden")
UNANSWERED = Answer(Outcome.UNKNOWN, "ReadTimeoutError", "no answer came back")

NOT_STARTED = {
    "status": "queued",
    "delivered": False,
    "retries": 0,
    "provider": None,
    "providerMessageId": None,
    "lastAttemptAt": None,
    "nextAttemptAt": None,
    "error": None,
}
ERROR_503 = {"code": "503", "reason": "Service Unavailable"}


def _send(world: World, total: int = 1) -> tuple[str, list[str]]:
    destinations = [{"email": f"pedro{index}@example.org"} for index in range(total)]
    answer = world.accepted(destinations=destinations)
    return answer["id"], [email["id"] for email in answer["emails"]]


def _shown(world: World, id_: str) -> Any:
    response = world.get(f"/emails/{id_}")
    assert response.status_code == 200, response.text
    assert response.content_type == "application/json"
    return response.json


def test_email(world: World) -> None:
    """An email that took two providers, exactly as the contract shows it."""
    answer = world.accepted()
    email_id = answer["emails"][0]["id"]
    world.deliver(email_id, RETRY, ACCEPTED)
    email = _shown(world, email_id)
    attempts = email["attempts"]
    times = [email["createdAt"], email["lastAttemptAt"], *(one["startedAt"] for one in attempts)]
    assert all(re.fullmatch(TIME, time) for time in times)
    assert all(type(attempt["durationMs"]) is int for attempt in attempts)
    assert email == {
        "object": "email",
        "id": email_id,
        "batchId": answer["id"],
        "to": {"email": "pedro@example.org", "name": "Pedro"},
        "status": "sent",
        "delivered": True,
        "retries": 1,
        "provider": "ses",
        "providerMessageId": "<id@provider.example>",
        "createdAt": email["createdAt"],
        "lastAttemptAt": email["lastAttemptAt"],
        "nextAttemptAt": None,
        "resolvedAt": None,
        "error": None,
        "attempts": [
            {
                "number": 1,
                "provider": "mailgun",
                "outcome": "retry",
                "code": "503",
                "reason": "Service Unavailable",
                "startedAt": attempts[0]["startedAt"],
                "durationMs": attempts[0]["durationMs"],
            },
            {
                "number": 2,
                "provider": "ses",
                "outcome": "accepted",
                "code": "200",
                "reason": "Queued. Thank you.",
                "startedAt": attempts[1]["startedAt"],
                "durationMs": attempts[1]["durationMs"],
            },
        ],
    }


def test_batch(world: World) -> None:
    """A batch, exactly as the contract shows it."""
    answer = world.accepted()
    batch = _shown(world, answer["id"])
    email = _shown(world, answer["emails"][0]["id"])
    assert email.pop("attempts") == []
    assert re.fullmatch(TIME, batch["createdAt"])
    assert batch == {
        "object": "batch",
        "id": answer["id"],
        "createdAt": batch["createdAt"],
        "from": {"email": "facundo@example.com", "name": "Facundo"},
        "subject": "test",
        "status": "queued",
        "delivered": False,
        "total": 1,
        "counts": {
            "queued": 1,
            "sending": 0,
            "sent": 0,
            "deferred": 0,
            "unknown": 0,
            "failed": 0,
        },
        "emails": [email],
        "nextCursor": None,
    }


def test_names_are_optional(world: World) -> None:
    """Who has no name is shown without one."""
    answer = world.accepted(
        **{"from": {"email": "a@example.com"}, "destinations": [{"email": "b@example.org"}]}
    )
    assert _shown(world, answer["id"])["from"] == {"email": "a@example.com"}
    assert _shown(world, answer["emails"][0]["id"])["to"] == {"email": "b@example.org"}


@pytest.mark.parametrize(
    ("answers", "shown"),
    [
        ([], NOT_STARTED),
        (
            [RETRY],
            NOT_STARTED
            | {"retries": 1, "lastAttemptAt": TIME, "error": ERROR_503 | {"provider": "mailgun"}},
        ),
        (
            [REJECTED],
            NOT_STARTED
            | {
                "status": "failed",
                "retries": 1,
                "lastAttemptAt": TIME,
                "error": {
                    "code": "400",
                    "reason": "not a valid address",
                    "provider": "mailgun",
                },
            },
        ),
        (
            [UNAVAILABLE, UNANSWERED, RETRY],
            NOT_STARTED
            | {
                "status": "deferred",
                "retries": 3,
                "lastAttemptAt": TIME,
                "nextAttemptAt": TIME,
                "error": ERROR_503 | {"provider": "sendgrid"},
            },
        ),
    ],
)
def test_email_on_its_way(world: World, answers: list[Answer], shown: dict[str, Any]) -> None:
    """`retries` counts what failed, `error` is the last of it, `nextAttemptAt` of a deferred."""
    _, [email_id] = _send(world)
    world.deliver(email_id, *answers)
    email = _shown(world, email_id)
    for name in ("lastAttemptAt", "nextAttemptAt"):
        if shown[name] is not None:
            assert re.fullmatch(shown[name], email[name])
    expected = {name: email[name] if value == TIME else value for name, value in shown.items()}
    assert {name: email[name] for name in shown} == expected
    assert len(email["attempts"]) == len(answers)


def test_sending(world: World) -> None:
    """While a worker holds it, an email is `sending`, and its batch still `queued`."""
    batch_id, [email_id] = _send(world)
    world.claim(email_id)
    assert _shown(world, email_id)["status"] == "sending"
    assert _shown(world, email_id)["lastAttemptAt"] is not None
    assert _shown(world, batch_id)["status"] == "queued"


def test_unknown(make_world: Callable[..., World]) -> None:
    """With the policy not to risk a duplicate, an unanswered email awaits a person."""
    world = make_world(MAILRELAY_DUPLICATES="avoid")
    batch_id, [email_id] = _send(world)
    world.deliver(email_id, UNANSWERED)
    email = _shown(world, email_id)
    assert (email["status"], email["delivered"], email["retries"]) == ("unknown", False, 1)
    assert email["error"]["code"] == "ReadTimeoutError"
    assert email["nextAttemptAt"] is None
    assert _shown(world, batch_id)["status"] == "queued"
    assert world.due(FUTURE) == set()


@pytest.mark.parametrize(
    ("answers", "status", "delivered"),
    [
        ([ACCEPTED, ACCEPTED], "sent", True),
        ([REJECTED, REJECTED], "failed", False),
        ([ACCEPTED, REJECTED], "partial", False),
        ([ACCEPTED, None], "queued", False),
        ([REJECTED, None], "queued", False),
        ([REJECTED, RETRY], "queued", False),
        ([ACCEPTED, UNANSWERED], "queued", False),
    ],
)
def test_status_of_a_batch(
    world: World, answers: list[Answer | None], status: str, delivered: bool
) -> None:
    """Queued while anything is open; then sent if all were, failed if none, partial otherwise."""
    batch_id, email_ids = _send(world, len(answers))
    for email_id, answer in zip(email_ids, answers, strict=True):
        world.deliver(email_id, *([answer] if answer else []))
    batch = _shown(world, batch_id)
    assert (batch["status"], batch["delivered"]) == (status, delivered)
    assert sum(batch["counts"].values()) == batch["total"] == len(answers)
    assert batch["counts"]["sent"] == answers.count(ACCEPTED)
    assert batch["counts"]["failed"] == answers.count(REJECTED)


# Pages


@pytest.mark.parametrize(
    ("total", "limit", "pages"),
    [
        (5, "2", [2, 2, 1]),
        (4, "2", [2, 2]),
        (5, "5", [5]),
        (5, "1000", [5]),
        (5, "1", [1] * 5),
        (101, None, [100, 1]),
        (1, "007", [1]),
    ],
)
def test_pages(world: World, total: int, limit: str | None, pages: list[int]) -> None:
    """Following `nextCursor` shows every email once, in order; `counts` covers all of them."""
    batch_id, email_ids = _send(world, total)
    seen, sizes, cursor = [], [], None
    while True:
        query = {"limit": limit, "cursor": cursor}
        response = world.get(f"/emails/{batch_id}", query_string=_given(query))
        page = response.json
        assert page["counts"]["queued"] == page["total"] == total
        seen += [email["id"] for email in page["emails"]]
        sizes.append(len(page["emails"]))
        cursor = page["nextCursor"]
        if cursor is None:
            break
        assert isinstance(cursor, str)
    assert seen == email_ids
    assert sizes == pages


def _given(query: dict[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in query.items() if value is not None}


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        *((f"limit={value}", {"limit"}) for value in (
            *("", "0", "1001", "-1", "1.5", "1e2", "ten", "%00", "%ff", "1%0a", "+5", "%D9%A1"),
            "9" * 5000,
        )),
        *((f"cursor={value}", {"cursor"}) for value in (
            *("", "-1", "1001", "1.5", "x", "%ff", "5%0a", "null", "9" * 5000),
        )),
        ("limit=0&cursor=x", {"limit", "cursor"}),
    ],
)  # fmt: skip
def test_bad_page(world: World, query: str, fields: set[str]) -> None:
    batch_id, _ = _send(world)
    assert set(errors_of(world.get(f"/emails/{batch_id}?{query}"))) == fields


def test_cursor_behind_the_end(world: World) -> None:
    """A cursor that no answer gave, but could have, shows an empty page."""
    batch_id, _ = _send(world)
    page = world.get(f"/emails/{batch_id}?cursor=1000").json
    assert (page["emails"], page["nextCursor"], page["total"]) == ([], None, 1)


# What is not there, or not yours


def test_of_another_key(world: World) -> None:
    """What belongs to another API key is answered as what is not there, to the letter."""
    batch_id, [email_id] = _send(world)
    for id_, unknown in ((batch_id, "0" * 26), (email_id, f"{'0' * 26}-0")):
        problem = problem_of(world.get(f"/emails/{id_}", key=OTHER_KEY), 404)
        assert problem == problem_of(world.get(f"/emails/{unknown}"), 404)


@pytest.mark.parametrize(
    "id_",
    [
        *("0", "x", "sent", "01ARZ3NDEKTSV4RRFFQ69G5FAV", "01ARZ3NDEKTSV4RRFFQ69G5FAV-0", "é", "-"),
        *("٠" * 26, "%00", "%ff%fe", "a%0ab", "%2e%2e", "..%2fhealthz", "%2e%2e%2fhealthz", "a" * 9000),
        *("$ne", "B%23x", "%27%20or%201", "{}", "01ARZ3NDEKTSV4RRFFQ69G5FA%0a", "%f0%9f%8e%89"),
    ],
)  # fmt: skip
def test_unknown_id(world: World, id_: str) -> None:
    problem_of(world.get(f"/emails/{id_}"), 404)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda id_: id_.lower(),
        lambda id_: f"{id_}-",
        lambda id_: f"{id_}-1",
        lambda id_: f"{id_}-00",
        lambda id_: f"{id_}-0-0",
        lambda id_: f"{id_}--0",
        lambda id_: f"{id_}-9999",
        lambda id_: f"{id_}-10000",
        lambda id_: f"{id_}-٠",
        lambda id_: f"{id_}%0a",
        lambda id_: f"{id_}-0%0a",
        lambda id_: f"{id_}%23",
        lambda id_: f"%20{id_}",
        lambda id_: id_[:-1],
        lambda id_: f"{id_}0",
    ],
)
def test_nearly_an_id(world: World, spoil: Callable[[str], str]) -> None:
    """An id is what was answered, and nothing that resembles it."""
    batch_id, _ = _send(world)
    problem_of(world.get(f"/emails/{spoil(batch_id)}"), 404)
