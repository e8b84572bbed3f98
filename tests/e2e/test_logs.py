"""The logs of all parts: machines can read them, one email can be followed, nothing is given away."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import MakeStack
from tests.support.processes import Process, wait_for
from tests.support.sandbox import Sandbox
from tests.support.stack import KEY, Stack

PARTS = ("web", "worker", "beat")

PROVIDER = """
class Broken:
    def __init__(self, settings):
        pass

    def send(self, envelope):
        secret = envelope.content
        raise ValueError(envelope.to.email, envelope.subject, secret)

    def check(self):
        raise NotImplementedError
"""
"""A provider of somebody else's whose code fails, and quotes the email."""

WRONG_TASKS = """
from tasks import app
app.send_task("tasks.deliver", ["secret-argument@example.org", 0, 1])
app.send_task("tasks.deliver", [], {"secret-argument@example.org": 1})
app.send_task("tasks.sweep", ["secret-argument@example.org"])
app.send_task("secret-task@example.org", ["secret-argument"], queue="deliver")
"""


def lines(printed: str) -> list[dict[str, Any]]:
    """Each line, which has to be a JSON object."""
    return [json.loads(line) for line in printed.splitlines()]


@pytest.fixture
def broken_provider(tmp_path: Path) -> Path:
    """A folder for PYTHONPATH with a package that has the provider `broken`."""
    (tmp_path / "broken_provider.py").write_text(PROVIDER)
    package = tmp_path / "broken_provider-1.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-provider\nVersion: 1\n")
    entry = "[mailrelay.providers]\nbroken = broken_provider:Broken\n"
    (package / "entry_points.txt").write_text(entry)
    return tmp_path


def wrong_requests(stack: Stack, body: dict[str, Any]) -> None:
    """What is wrong with each is an address, or stands beside one."""
    secret = "secret-place@example.org"
    headers = {"Content-Type": "application/json"}
    for method, path, options, status in [
        ("POST", "/emails/send", {"json": {**body, secret: 1}}, 422),
        ("POST", "/emails/send", {"json": {**body, "subject": "secret-\r\nBcc: x"}}, 422),
        ("POST", "/emails/send", {"json": {**body, "providers": [secret]}}, 422),
        ("POST", "/emails/send", {"body": f'{{"{secret}', "headers": headers}, 400),
        ("POST", "/emails/send", {"body": secret, "headers": {"Content-Type": secret}}, 415),
        ("POST", f"/emails/send?to={secret}", {"json": {}}, 422),
        ("GET", f"/emails/{secret}", {}, 404),
        ("GET", f"/{secret}", {}, 404),
        ("DELETE", f"/emails/{secret}", {}, 405),
        ("GET", "/emails/x", {"headers": {"Authorization": "Bearer secret-key"}}, 401),
        ("GET", "/healthz", {"headers": {"X-Request-ID": secret, "Referer": secret}}, 200),
    ]:
        assert stack.call(method, path, **options).status == status, (method, path)
    # What gunicorn itself refuses.
    host, port = stack.url.removeprefix("http://").split(":")
    for request in (f"GET /{secret} HTTP/9.9\r\n\r\n", f"GET / HTTP/1.1\r\n{secret}: x\r\n\r\n"):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(request.encode())
            assert connection.recv(100).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("format", ["json", "text"])
def test_nothing_of_a_mail_and_no_secret_is_in_any_line(
    make_stack: MakeStack, sandbox: Sandbox, broken_provider: Path, format: str, tmp_path: Path
) -> None:
    """Whatever way an email takes, and whatever is wrong with a request, a task or a provider."""
    stack = make_stack(
        EMAIL_PROVIDERS="mailgun,ses,sendgrid,broken",
        PYTHONPATH=str(broken_provider),
        AWS_SECRET_ACCESS_KEY="secret-of-aws",
        MAILRELAY_LOG_FORMAT=format,
        MAILRELAY_RETRY_SCHEDULE="0.5",
    )
    for part in PARTS:
        stack.start(part)
    ways = ("x", "mailgun-503", "mailgun-refuse", "mailgun-lost", "ses-400+mailgun-400")
    ways = (*ways, "mailgun-503+ses-503+sendgrid-503")
    body = {
        "from": {"email": "secret-sender@example.com", "name": "secret-name"},
        "destinations": [
            {"email": f"{way}+secret-to@example.org", "name": "secret-name"} for way in ways
        ],
        "subject": "secret-subject",
        "plainContent": "secret-text",
        "htmlContent": "<p>secret-html</p>",
        "headers": {"X-Secret": "secret-header"},
        "replyTo": {"email": "secret-reply@example.org"},
    }
    response = stack.call("POST", "/emails/send", json=body)
    wrong_requests(stack, body)
    wrong = Process(["python", "-c", WRONG_TASKS], stack.environ, tmp_path / "wrong-tasks.log")
    assert wrong.wait() == 0
    batch = stack.wait(response.json()["id"], seconds=60)
    for message in ("secret-message", '{"properties": "secret-message"}'):
        stack.sqs.send_message(QueueUrl=stack.queue_url("deliver"), MessageBody=message)
    for said in (
        "a provider's code failed",
        "raised unexpected: TypeError",
        "unregistered task",
        "unknown message",
        "a message cannot be handled",
        "a task for something that is no email's id was dropped",
        "an email was swept",
        "Invalid request from ip=127.0.0.1",
    ):
        wait_for(lambda said=said: said in stack.printed(), said)  # type: ignore[misc]
    stack.stop()

    printed = stack.printed()

    assert batch["counts"]["sent"] > 0
    assert batch["counts"]["failed"] > 0
    assert batch["id"] in printed
    for secret in ("secret-", "example.", KEY, "sandbox-key"):
        assert [line for line in printed.splitlines() if secret in line] == []


def test_each_line_for_a_machine_is_json_from_the_first_to_the_last(
    make_stack: MakeStack, sandbox: Sandbox
) -> None:
    """gunicorn's, Celery's and beat's as well; no banner, no farewell and no traceback between."""
    stack = make_stack()
    processes = {part: stack.start(part) for part in PARTS}
    stack.wait(stack.send("mailgun-503@example.org"))
    stack.stop()

    for part, process in processes.items():
        said = lines(process.printed())
        assert said, part
        for line in said:
            assert list(line)[:4] == ["timestamp", "level", "event", "logger"]
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["timestamp"])
            assert line["level"] in ("info", "warning"), line
            assert line["event"]


def test_one_email_can_be_followed_by_its_request(make_stack: MakeStack, sandbox: Sandbox) -> None:
    """From the request over each attempt and the sweep to the provider that took it."""
    # So seldom that the providers do not fail often enough to be left alone.
    stack = make_stack(MAILRELAY_RETRY_SCHEDULE="5,5")
    web, worker, _ = (stack.start(part) for part in PARTS)
    for provider in ("mailgun", "ses", "sendgrid"):
        sandbox.fault(provider, "status", status=503)
    others = stack.send("pedro@example.org")
    response = stack.call(
        "POST",
        "/emails/send",
        headers={"X-Request-ID": "order-1"},
        json={
            "from": {"email": "facundo@example.com"},
            "destinations": [{"email": "pedro@example.org"}],
            "subject": "test",
            "plainContent": "test",
        },
    )
    assert response.headers["X-Request-ID"] == "order-1"
    email_id = response.json()["emails"][0]["id"]
    stack.wait(email_id, "deferred")
    sandbox.heal()
    stack.wait(email_id, "sent")
    stack.wait(others)

    def way(process: Process) -> list[tuple[str, Any, Any]]:
        return [
            (line["event"], line.get("provider"), line.get("status"))
            for line in lines(process.printed())
            if line.get("request_id") == "order-1"
        ]

    wait_for(
        lambda: way(worker)[-1:] == [("an attempt ended", "mailgun", "sent")], "its last line"
    )

    assert way(web) == [
        ("a batch was accepted", None, None),
        ("a request was answered", None, 202),
    ]
    attempts = [
        ("an attempt ended", "mailgun", "queued"),
        ("an attempt ended", "ses", "queued"),
        ("an attempt ended", "sendgrid", "deferred"),
    ]
    found = way(worker)
    assert found[:3] == attempts
    assert found[-2:] == [
        ("an email was swept", None, "queued"),
        ("an attempt ended", "mailgun", "sent"),
    ]
    about = {
        line["email_id"]
        for line in lines(worker.printed())
        if line.get("request_id") == "order-1" and "email_id" in line
    }
    assert about == {email_id}
