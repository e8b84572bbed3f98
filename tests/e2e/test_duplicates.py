"""Where a second email is to be avoided, silence ends in `unknown`, and a person decides."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.conftest import MakeStack
from tests.support.processes import wait_for
from tests.support.sandbox import Sandbox
from tests.support.stack import Stack


@pytest.fixture(scope="module")
def avoiding(make_shared_stack: MakeStack) -> Stack:
    # So many unanswered requests have a provider left alone: here for no longer than a moment.
    stack = make_shared_stack(MAILRELAY_DUPLICATES="avoid", MAILRELAY_PROVIDER_PAUSE="0.01")
    for part in ("web", "worker", "beat"):
        stack.start(part)
    return stack


def unanswered(stack: Stack, sandbox: Sandbox) -> str:
    """An email that mailgun has accepted without an answer; then all is well again."""
    sandbox.fault("mailgun", "lost")
    email_id = stack.send("pedro@example.org") + "-0"
    stack.wait(email_id, "unknown")
    sandbox.heal()
    return email_id


def decide(stack: Stack, email_id: str, action: str, **kwargs: Any) -> dict[str, Any]:
    response = stack.call("POST", f"/emails/{email_id}/{action}", **kwargs)
    assert response.status in (200, 202), response.data
    shown: dict[str, Any] = response.json()
    return shown


@pytest.mark.parametrize(
    ("recipient", "provider", "requests"),
    [
        ("mailgun-lost@example.org", "mailgun", (1, 0, 0)),
        ("mailgun-503+ses-lost@example.org", "ses", (1, 1, 0)),
        ("mailgun-503+ses-503+sendgrid-lost@example.org", "sendgrid", (1, 1, 1)),
    ],
)
def test_an_unanswered_request_stops_as_unknown(
    avoiding: Stack,
    sandbox: Sandbox,
    recipient: str,
    provider: str,
    requests: tuple[int, ...],
) -> None:
    """Whichever provider it is that does not answer: nobody else is asked."""
    batch = avoiding.send(recipient)

    email = avoiding.wait(f"{batch}-0", "unknown")

    assert email["delivered"] is False
    assert (email["error"]["provider"], email["nextAttemptAt"]) == (provider, None)
    assert avoiding.show(batch)["status"] == "queued"
    assert sandbox.requests() == dict(zip(("mailgun", "ses", "sendgrid"), requests, strict=True))
    assert len(sandbox.messages()) == 1


def test_a_resent_email_is_sent_again_under_the_same_message_id(
    avoiding: Stack, sandbox: Sandbox
) -> None:
    """By that a mailbox can fold the two."""
    email_id = unanswered(avoiding, sandbox)

    assert decide(avoiding, email_id, "resend")["status"] == "queued"
    email = avoiding.wait(email_id, "sent")

    assert [attempt["outcome"] for attempt in email["attempts"]] == ["unknown", "accepted"]
    assert (email["provider"], email["error"], email["resolvedAt"]) == ("mailgun", None, None)
    first, second = sandbox.messages()
    assert first["message_id"] == second["message_id"]


@pytest.mark.parametrize("status", ["sent", "failed"])
def test_a_resolved_email_is_over_and_nothing_is_sent(
    avoiding: Stack, sandbox: Sandbox, status: str
) -> None:
    email_id = unanswered(avoiding, sandbox)

    resolved = decide(avoiding, email_id, "resolve", json={"status": status})

    assert resolved == avoiding.show(email_id)
    assert (resolved["status"], resolved["delivered"]) == (status, status == "sent")
    assert avoiding.show(resolved["batchId"])["status"] == status
    assert len(sandbox.messages()) == 1


def test_the_email_of_a_worker_that_is_killed_waits_for_a_person(
    make_stack: MakeStack, sandbox: Sandbox
) -> None:
    """Its request may have gone out: the sweep asks nobody else."""
    stack = make_stack(
        MAILRELAY_DUPLICATES="avoid", MAILRELAY_LEASE="8", MAILRELAY_PROVIDER_TIMEOUT="4"
    )
    stack.start("web")
    stack.start("beat")
    worker = stack.start("worker")
    sandbox.fault("mailgun", "hang")
    email_id = stack.send("pedro@example.org") + "-0"
    wait_for(lambda: sandbox.requests()["mailgun"] == 1, "mailgun is asked")
    worker.kill()
    stack.start("worker")

    email = stack.wait(email_id, "unknown", seconds=60)
    assert [attempt["code"] for attempt in email["attempts"]] == ["abandoned"]
    assert sandbox.requests() == {"mailgun": 1, "ses": 0, "sendgrid": 0}
    sandbox.heal()

    decide(stack, email_id, "resend")
    assert stack.wait(email_id, "sent")["retries"] == 1
    assert len(sandbox.messages()) == 1
