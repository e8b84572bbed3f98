"""``Idempotency-Key``: the same request, sent again, makes no second batch."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from ulid import ULID

from mailrelay import clock, provision
from mailrelay.message import Content
from mailrelay.settings import load
from mailrelay.store import Idempotency
from tests.support.description import example_of_problem
from tests.support.records import a_batch
from tests.unit import test_web_app
from tests.unit.test_web_app import OTHER_KEY, World, a_body, errors_of, problem_of

cloud = test_web_app.cloud
make_world = test_web_app.make_world
shared_world = test_web_app.shared_world
world = test_web_app.world

ONCE = {"Idempotency-Key": "once"}
DAY_MS = 86_400_000


def _batches(world: World) -> int:
    return sum(
        item["pk"]["S"].startswith("B#") and item["sk"]["S"] == "#" for item in world.items()
    )


@pytest.mark.parametrize("total", [1, 99])
def test_replay(world: World, total: int) -> None:
    """The second call answers what the first one did, says so, and sends nothing."""
    body = a_body(destinations=[{"email": f"a{i}@example.org"} for i in range(total)])
    first, hints = world.send(body, headers=ONCE), len(world.queue.hints)
    second = world.send(body, headers=ONCE)
    assert first.status_code == second.status_code == 202
    assert second.json == first.json
    assert second.headers["Location"] == first.headers["Location"]
    assert second.headers["Idempotency-Replayed"] == "true"
    assert "Idempotency-Replayed" not in first.headers
    assert len(world.queue.hints) == hints == total
    assert _batches(world) == 1


def test_replay_after_delivery(world: World) -> None:
    """The answer is the first one's even when the email has long been sent."""
    first = world.send(headers=ONCE)
    world.claim(first.json["emails"][0]["id"])
    assert world.send(headers=ONCE).json == first.json


@pytest.mark.parametrize(
    "again",
    [
        json.dumps(dict(reversed(a_body().items()))),
        json.dumps(a_body(), indent=4),
        json.dumps(a_body()).replace("Pedro", "\\u0050edro"),
        b"\xef\xbb\xbf" + json.dumps(a_body()).encode(),
    ],
)
def test_the_same_body_written_otherwise(world: World, again: str | bytes) -> None:
    """Neither the order of the fields nor how the JSON is written makes another body."""
    first = world.send(headers=ONCE)
    assert world.send(again, headers=ONCE).json == first.json


@pytest.mark.parametrize(
    "changes",
    [
        {"subject": "Test"},
        {"replyTo": {"email": "a@example.com"}},
        {"htmlContent": None},
        {"destinations": [{"email": "pedro@example.org"}]},
    ],
)
def test_another_body(world: World, changes: dict[str, Any]) -> None:
    """With another body the key is refused and nothing more is stored."""
    world.send(headers=ONCE)
    stored = world.items()
    errors = errors_of(world.send(a_body(**changes), headers=ONCE))
    assert set(errors) == {"Idempotency-Key"}
    assert world.items() == stored
    assert len(world.queue.hints) == 1


def test_each_api_key_has_its_own(world: World) -> None:
    """Another client's key of the same name is another one."""
    first, other = world.send(headers=ONCE), world.send(key=OTHER_KEY, headers=ONCE)
    assert other.status_code == 202
    assert other.json["id"] != first.json["id"]
    assert "Idempotency-Replayed" not in other.headers


def test_other_keys_are_other_keys(world: World) -> None:
    """Case counts, and without a key every call makes a batch."""
    answers = [
        world.send(headers=headers).json["id"]
        for headers in (ONCE, {"Idempotency-Key": "ONCE"}, {}, {})
    ]
    assert len(set(answers)) == 4


def test_a_refused_request_uses_no_key(world: World) -> None:
    """After a 422 the key is free for the corrected request."""
    problem_of(world.send(a_body(subject=""), headers=ONCE), 422)
    assert world.send(headers=ONCE).status_code == 202


def test_expires(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key is kept for 24 hours; after that it makes a new batch, whatever TTL has removed."""
    now = clock.now()
    first = world.send(headers=ONCE)
    monkeypatch.setattr(clock, "now", lambda: now + DAY_MS - 60_000)
    assert world.send(headers=ONCE).json == first.json
    monkeypatch.setattr(clock, "now", lambda: now + DAY_MS + 60_000)
    later = world.send(a_body(subject="later"), headers=ONCE)
    assert later.status_code == 202
    assert later.json["id"] != first.json["id"]
    assert "Idempotency-Replayed" not in later.headers
    assert world.send(a_body(subject="later"), headers=ONCE).json == later.json


@pytest.mark.parametrize("key", ["", " ", "a b", "é", "a\tb", "\x7f", "a" * 256, "a\u00a0"])
def test_bad_key(world: World, key: str) -> None:
    """A key has 1 to 255 visible ASCII characters."""
    errors = errors_of(world.send(headers={"Idempotency-Key": key}))
    assert set(errors) == {"Idempotency-Key"}
    assert world.items() == []


@pytest.mark.parametrize(
    "key", ["a", "a" * 255, "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", "#", "I#x#y"]
)
def test_good_key(world: World, key: str) -> None:
    first = world.send(headers={"Idempotency-Key": key})
    assert first.status_code == 202
    assert world.send(headers={"Idempotency-Key": key}).json == first.json


def test_still_running(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the first call is storing a large batch, the second is told to come back."""
    body = a_body(destinations=[{"email": f"a{i}@example.org"} for i in range(99)])
    seen = []
    add_emails = world.store.add_emails

    def meanwhile(*args: Any) -> None:
        seen.append(world.send(body, headers=ONCE))
        seen.append(world.get(f"/emails/{_running(world)}"))
        seen.append(world.get(f"/emails/{_running(world)}-0"))
        add_emails(*args)

    # The one moment that cannot be had otherwise: between the first transaction and the rest.
    with monkeypatch.context() as patch:
        patch.setattr(type(world.store), "add_emails", lambda _self, *args: meanwhile(*args))
        first = world.send(body, headers=ONCE)
    second, *hidden = seen
    assert problem_of(second, 409) == example_of_problem("send", 409, "under way")
    assert int(second.headers["Retry-After"]) > 0
    for response in hidden:  # what was not answered 202 yet is nothing to be seen
        problem_of(response, 404)
    assert first.status_code == 202
    assert world.send(body, headers=ONCE).json == first.json
    assert _batches(world) == 1


def _running(world: World) -> str:
    [key] = {item["pk"]["S"] for item in world.items() if item["pk"]["S"].startswith("B#")}
    return str(key.removeprefix("B#"))


def test_left_unfinished(world: World) -> None:
    """A batch that a crash left unfinished is still 409, until the sweep has withdrawn it."""
    batch = a_batch(id=str(ULID()), key_name="shop", ready=False)
    first = world.send(headers=ONCE).json["id"]
    [item] = [item for item in world.items() if item["pk"]["S"].startswith("I#")]
    assert item["batch_id"]["S"] == first
    record = Idempotency(
        key_name="shop",
        key_hash=item["pk"]["S"].rpartition("#")[2],
        fingerprint=item["fingerprint"]["S"],
        batch_id=batch.id,
        expires=clock.now() // 1000 + 600,
    )
    test_web_app.clear(world.dynamodb)
    world.store.create(batch, Content(plain="a"), [], withdraw_at=1, idempotency=record)
    problem_of(world.send(headers=ONCE), 409)
    assert world.store.withdraw(batch.id)
    assert world.send(headers=ONCE).status_code == 202


# At the same time, on a store that has real concurrency


@pytest.fixture
def real_world(local_aws: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[], World]:
    """Applications over the local AWS, as several web processes would be."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", local_aws)
    names = {"MAILRELAY_TABLE": str(ULID()), "MAILRELAY_QUEUE_PREFIX": f"{ULID()}-"}
    for finding in provision.provision(load({**os.environ, **names})):
        assert finding.state == "created"
    return lambda: World(**names)


@pytest.mark.parametrize("total", [1, 99])
def test_at_the_same_time(real_world: Callable[[], World], total: int) -> None:
    """Of equal requests at one time one makes the batch; the others answer the same, or 409."""
    body = a_body(destinations=[{"email": f"a{i}@example.org"} for i in range(total)])
    worlds = [real_world() for _ in range(6)]
    with ThreadPoolExecutor(len(worlds)) as pool:
        answers = list(pool.map(lambda one: one.send(body, headers=ONCE), worlds))
    accepted = [answer for answer in answers if answer.status_code == 202]
    refused = [answer for answer in answers if answer.status_code != 202]
    assert len({answer.json["id"] for answer in accepted}) == 1
    assert sum("Idempotency-Replayed" not in answer.headers for answer in accepted) == 1
    for answer in refused:
        problem_of(answer, 409)
    assert _batches(worlds[0]) == 1
    assert sum(len(one.queue.hints) for one in worlds) == total
