"""``mailrelay.client``: what a program that sends relies on."""

from __future__ import annotations

import http.server
import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs
from werkzeug.serving import make_server

from mailrelay import client
from mailrelay.client import (
    Client,
    MailrelayError,
    NoAnswer,
    NoRelay,
    ProblemError,
    WaitTimeout,
)
from tests.support.processes import ROOT, free_port
from tests.unit import test_web_app
from tests.unit.test_web_app import KEY, World
from tests.unit.test_web_show import ACCEPTED, REJECTED, RETRY, UNANSWERED

cloud = test_web_app.cloud
make_world = test_web_app.make_world
shared_world = test_web_app.shared_world
world = test_web_app.world

FROM, TO = "facundo@example.com", ["pedro@example.org"]


@contextmanager
def serving(world: World) -> Iterator[str]:
    """The address of the application on a real server."""
    server = make_server("127.0.0.1", 0, world.app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        with capture_logs():
            yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def relay(world: World) -> Iterator[Client]:
    with serving(world) as url:
        yield Client(url, KEY, patience=0)


def test_everything_that_is_given_arrives(world: World, relay: Client) -> None:
    accepted = relay.send(
        {"email": FROM, "name": "Facundo"},
        ["pedro@example.org", {"email": "ana@example.org", "name": "Ana"}],
        "Grüße",
        plain="Grüße",
        html="<p>Grüße</p>",
        reply_to="answers@example.com",
        headers={"X-Campaign": "autumn"},
        providers=["ses", "mailgun"],
    )

    batch, content = world.store.batch_with_content(accepted["id"]) or pytest.fail("not stored")
    assert (batch.sender.email, batch.sender.name) == (FROM, "Facundo")
    assert (batch.subject, batch.total, batch.chain) == ("Grüße", 2, ("ses", "mailgun"))
    assert content is not None
    assert (content.plain, content.html) == ("Grüße", "<p>Grüße</p>")
    assert (content.reply_to and content.reply_to.email) == "answers@example.com"
    assert content.headers == {"X-Campaign": "autumn"}
    assert [email["email"] for email in accepted["emails"]] == [
        "pedro@example.org",
        "ana@example.org",
    ]


def test_one_recipient_needs_no_list(relay: Client) -> None:
    accepted = relay.send(FROM, "pedro@example.org", "test", plain="test")

    assert [email["email"] for email in accepted["emails"]] == TO


def test_each_call_sends_and_each_key_once(world: World, relay: Client) -> None:
    for key in (None, None, "once", "once"):
        relay.send(FROM, TO, "test", plain="test", idempotency_key=key)

    assert len(world.queue.hints) == 3


def test_a_batch_is_shown_whole_or_in_pages(relay: Client) -> None:
    accepted = relay.send(FROM, ["pedro@example.org", "ana@example.org"], "test", plain="test")

    whole = relay.get(accepted["id"])
    first = relay.get(accepted["id"], limit=1)

    assert whole["object"] == first["object"] == "batch"
    assert (len(whole["emails"]), whole["nextCursor"]) == (2, None)
    last = relay.get(accepted["id"], cursor=first["nextCursor"])
    assert last["object"] == "batch"
    assert [email["id"] for email in last["emails"]] == [accepted["emails"][1]["id"]]


def test_resolve_and_resend(make_world: Callable[..., World]) -> None:
    world = make_world(MAILRELAY_DUPLICATES="avoid")
    with serving(world) as url:
        relay = Client(url, KEY)
        email_id = relay.send(FROM, TO, "test", plain="test")["emails"][0]["id"]
        world.deliver(email_id, UNANSWERED)

        assert relay.resolve(email_id, "failed")["status"] == "failed"
        assert relay.resend(email_id)["status"] == "queued"
        with pytest.raises(ProblemError, match=r"^The email is queued; resend takes") as caught:
            relay.resend(email_id)
    assert (caught.value.status, caught.value.passing) == (409, False)


def test_providers(relay: Client) -> None:
    assert [provider["name"] for provider in relay.providers()] == ["mailgun", "ses", "sendgrid"]


@pytest.mark.parametrize(
    ("answers", "status"),
    [([ACCEPTED], "sent"), ([REJECTED], "failed"), ([RETRY, ACCEPTED], "sent")],
)
def test_wait_until_nothing_is_on_its_way(
    world: World,
    relay: Client,
    monkeypatch: pytest.MonkeyPatch,
    answers: list[Any],
    status: str,
) -> None:
    """It looks again until then, and shows the whole."""
    accepted = relay.send(FROM, TO, "test", plain="test")
    email_id = accepted["emails"][0]["id"]
    monkeypatch.setattr(client.time, "sleep", lambda _: world.deliver(email_id, *answers))

    batch, email = relay.wait(accepted["id"], 60), relay.wait(email_id, 60)

    assert batch["status"] == email["status"] == status
    assert email["object"] == "email"
    assert len(email["attempts"]) == len(answers)


def test_wait_ends_in_time(relay: Client) -> None:
    accepted = relay.send(FROM, TO, "test", plain="test")

    with pytest.raises(WaitTimeout, match=r"after 0 s: of 1, 1 queued$") as caught:
        relay.wait(accepted["id"], 0)
    assert caught.value.answer["id"] == accepted["id"]
    assert caught.value.passing
    with pytest.raises(WaitTimeout, match=r"after 0 s: it is queued$"):
        relay.wait(accepted["emails"][0]["id"], 0)


def test_an_unknown_email_is_not_waited_for(make_world: Callable[..., World]) -> None:
    world = make_world(MAILRELAY_DUPLICATES="avoid")
    email_id = world.accepted()["emails"][0]["id"]
    world.deliver(email_id, UNANSWERED)

    with serving(world) as url:
        assert Client(url, KEY).wait(email_id, 0)["status"] == "unknown"


# Errors


def test_a_problem_names_each_bad_field(relay: Client) -> None:
    with pytest.raises(ProblemError) as caught:
        relay.send("nobody", TO, "test")

    error = caught.value
    assert (error.status, error.passing) == (422, False)
    assert set(error.errors) == {"from.email", "plainContent"}
    assert str(error).startswith("Wrong: ")
    assert "\n  from.email: " in str(error)
    assert error.request_id


@pytest.mark.parametrize("id_", ["x", "..", "../healthz", "?", "#", "a b", "é", "%2e"])
def test_an_id_leads_nowhere_else(relay: Client, id_: str) -> None:
    with pytest.raises(MailrelayError):
        relay.get(id_)


@pytest.mark.parametrize(
    ("url", "key"),
    [("127.0.0.1:8000", "a"), ("http://", "a"), ("http://a", "é"), ("http://a", "")],
)
def test_what_cannot_be_an_address_or_a_key(url: str, key: str) -> None:
    with pytest.raises(ValueError, match=r"address|API key"):
        Client(url, key)


@pytest.mark.parametrize("key", ["", "a b", "é", "a" * 256, "a\r\nb: c"])
def test_what_cannot_be_an_idempotency_key(relay: Client, key: str) -> None:
    with pytest.raises(ValueError, match="idempotency key"):
        relay.send(FROM, TO, "test", plain="test", idempotency_key=key)


# What is repeated

OK = (202, {}, {"id": "01M86CPHWVMXAYHCK7BA5TAEQD", "status": "queued", "emails": []})
NOTHING = None
"""The connection is closed in place of an answer."""

Answer = tuple[int, dict[str, str], Any] | None


def _problem(status: int, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return status, {"X-Request-ID": "r", **named}, {"status": status, "detail": "as told"}


class Scripted(http.server.ThreadingHTTPServer):
    """Gives one answer after another, and keeps what it was asked."""

    daemon_threads = True

    def __init__(self, answers: list[Answer]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers = answers
        self.keys: list[str | None] = []


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Scripted

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.keys.append(self.headers.get("Idempotency-Key"))
        answer = self.server.answers.pop(0)
        if answer is NOTHING:
            self.close_connection = True
            return
        status, headers, body = answer
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@contextmanager
def scripted(*answers: Answer) -> Iterator[tuple[Client, Scripted]]:
    with Scripted(list(answers)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield Client(f"http://127.0.0.1:{server.server_port}", KEY, patience=20), server
        server.shutdown()
        thread.join()


PASSING = {
    "no answer": NOTHING,
    "the store is away": _problem(503, Retry_After="0"),
    "too often": _problem(429, Retry_After="0"),
    "still under way": _problem(409, Retry_After="0"),
    "no time said": _problem(503),
}


@pytest.mark.parametrize("passing", PASSING.values(), ids=PASSING)
def test_send_is_repeated_with_the_same_key(passing: Answer) -> None:
    """A key of its own, since the first request may have been accepted after all."""
    with scripted(passing, passing, OK) as (relay, server):
        assert relay.send(FROM, TO, "test", plain="test") == OK[2]

    assert len(server.keys) == 3
    assert len(set(server.keys)) == 1
    assert server.keys[0]


@pytest.mark.parametrize("status", [400, 401, 404, 409, 413, 415, 422, 500])
def test_what_does_not_pass_is_not_repeated(status: int) -> None:
    with scripted(_problem(status)) as (relay, server), pytest.raises(ProblemError) as caught:
        relay.send(FROM, TO, "test", plain="test")

    assert caught.value.status == status
    assert len(server.keys) == 1


@pytest.mark.parametrize(
    "answer", [NOTHING, _problem(503, Retry_After="0")], ids=["no answer", "503"]
)
def test_resend_is_not_repeated_where_it_may_have_been_done(answer: Answer) -> None:
    """A second one would be a second email."""
    with scripted(answer) as (relay, server), pytest.raises(MailrelayError):
        relay.resend("01M86CPHWVMXAYHCK7BA5TAEQD-0")

    assert len(server.keys) == 1


def test_resend_is_repeated_where_it_was_not_done() -> None:
    with scripted(_problem(429, Retry_After="0"), OK) as (relay, server):
        relay.resend("01M86CPHWVMXAYHCK7BA5TAEQD-0")

    assert len(server.keys) == 2


def test_a_wait_that_is_longer_than_the_patience_is_not_begun() -> None:
    with (
        scripted(_problem(503, Retry_After="21")) as (relay, _),
        pytest.raises(ProblemError) as caught,
    ):
        relay.get("x")

    assert (caught.value.status, caught.value.retry_after, caught.value.passing) == (503, 21, True)


def test_no_relay_there() -> None:
    url = f"http://127.0.0.1:{free_port()}"

    with pytest.raises(NoAnswer, match=f"^no relay answers at {re.escape(url)}$"):
        Client(url, KEY, patience=0).get("x")


def test_an_answer_that_does_not_come_in_time() -> None:
    """What was asked may have been done, which the error says."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        relay = Client(f"http://127.0.0.1:{silent.getsockname()[1]}", KEY, timeout=0.1, patience=0)
        with pytest.raises(NoAnswer, match=r"within 0\.1 s; what was asked may have been done$"):
            relay.get("x")


def test_tls_where_there_is_none_is_no_relay() -> None:
    """And not worth asking again."""
    with scripted(OK) as (_, server), pytest.raises(NoRelay, match="no TLS that can be trusted"):
        Client(f"https://127.0.0.1:{server.server_port}", KEY).get("x")


@pytest.mark.parametrize(
    "answer",
    [
        (200, {}, []),
        (200, {}, {}),
        (302, {"Location": "/"}, {}),
        (404, {}, {"status": 404, "detail": "somebody else's problem"}),
    ],
)
def test_something_else_there(answer: Answer) -> None:
    with scripted(answer) as (relay, _), pytest.raises(NoRelay, match=r"is no relay$"):
        relay.get("x")


def test_nothing_of_the_server_is_imported() -> None:
    """Nor of what it needs: a program that sends starts as fast as it did."""
    code = "import sys, mailrelay.client; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )

    loaded = {name for name in done.stdout.split() if name.startswith("mailrelay")}
    assert loaded == {"mailrelay", "mailrelay.answers", "mailrelay.client"}
    assert not {"flask", "celery", "boto3", "marshmallow"} & set(done.stdout.split())


def test_the_examples_of_the_documentation(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """docs/client.md, from its first line to its last, against the application."""
    first, *others = re.findall(
        r"^```python\n(.*?)^```",
        (ROOT / "docs" / "client.md").read_text(),
        re.DOTALL | re.MULTILINE,
    )
    with serving(world) as url:
        names: dict[str, Any] = {"api_key": KEY}
        exec(first.replace("http://127.0.0.1:8000", url), names)  # noqa: S102
        for hint in list(world.queue.hints):
            world.deliver(str(hint.email_id), ACCEPTED)
        for block in others:
            exec(block, names)  # noqa: S102

    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "sent 2 of 2"
    assert printed[1].startswith("mailgun accepted")
    assert printed[2].startswith("422 {'destinations.0.email': ")
