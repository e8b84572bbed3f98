"""What a client sees: sent, failed over, deferred, refused, a thousand at once."""

from __future__ import annotations

import base64
import json
from collections import Counter

import pytest

from tests.e2e.conftest import MakeStack
from tests.support.sandbox import Sandbox
from tests.support.stack import KEY, Stack


def test_an_email_is_sent(stack: Stack, sandbox: Sandbox) -> None:
    response = stack.call(
        "POST",
        "/emails/send",
        json={
            "from": {"email": "facundo@example.com", "name": "Facundo"},
            "destinations": [{"email": "pedro@example.org", "name": "Pedro"}],
            "subject": "test",
            "plainContent": "test",
        },
    )
    assert response.status == 202
    accepted = response.json()
    assert response.headers["Location"] == f"/emails/{accepted['id']}"
    assert [email["email"] for email in accepted["emails"]] == ["pedro@example.org"]

    email = stack.wait(accepted["emails"][0]["id"], "sent")

    assert (email["delivered"], email["retries"], email["provider"]) == (True, 0, "mailgun")
    (message,) = sandbox.messages()
    assert message["id"] == email["providerMessageId"]
    assert message["message_id"] == f"<{email['id']}@example.com>"
    assert message["from"] == {"email": "facundo@example.com", "name": "Facundo"}
    assert message["to"] == {"email": "pedro@example.org", "name": "Pedro"}
    assert (message["subject"], message["plain"]) == ("test", "test")


def test_a_failing_provider_is_passed_over(stack: Stack, sandbox: Sandbox) -> None:
    batch = stack.send("mailgun-503+ses-503@example.org")

    email = stack.wait(f"{batch}-0", "sent")

    assert (email["retries"], email["provider"], email["error"]) == (2, "sendgrid", None)
    assert [
        (attempt["number"], attempt["provider"], attempt["outcome"], attempt["code"])
        for attempt in email["attempts"]
    ] == [
        (1, "mailgun", "retry", "503"),
        (2, "ses", "retry", "ServiceUnavailable"),
        (3, "sendgrid", "accepted", "202"),
    ]
    assert sandbox.requests() == {"mailgun": 1, "ses": 1, "sendgrid": 1}
    assert len(sandbox.messages()) == 1


def test_an_email_is_deferred_while_all_are_down_and_sent_when_one_is_back(
    own_stack: Stack, sandbox: Sandbox
) -> None:
    stack = own_stack
    for provider in ("mailgun", "ses", "sendgrid"):
        sandbox.fault(provider, "status", status=503)
    batch = stack.send("pedro@example.org")

    deferred = stack.wait(f"{batch}-0", "deferred")
    assert deferred["nextAttemptAt"] > deferred["lastAttemptAt"]
    assert deferred["error"]["provider"] == "sendgrid"
    assert stack.show(batch)["status"] == "queued"
    sandbox.heal()
    email = stack.wait(f"{batch}-0", "sent")

    assert email["retries"] % 3 == 0
    assert email["retries"] >= 3
    assert email["provider"] == "mailgun"
    assert len(sandbox.messages()) == 1


def test_an_email_fails_with_a_reason_when_the_schedule_is_used_up(
    own_stack: Stack, sandbox: Sandbox
) -> None:
    stack = own_stack
    batch = stack.send("mailgun-503+ses-503+sendgrid-503@example.org")

    email = stack.wait(f"{batch}-0", "failed")

    assert email["retries"] == 12
    assert email["error"]["provider"] == "sendgrid"
    assert email["error"]["code"] == "503"
    assert email["nextAttemptAt"] is None
    assert [attempt["number"] for attempt in email["attempts"]] == list(range(1, 13))
    assert sandbox.requests() == {"mailgun": 4, "ses": 4, "sendgrid": 4}


def test_one_bad_recipient_harms_nobody_else(stack: Stack, sandbox: Sandbox) -> None:
    good = [f"good{index}@example.org" for index in range(5)]
    batch = stack.wait(stack.send(good[0], "mailgun-refuse@example.org", *good[1:]))

    assert batch["status"] == "partial"
    assert batch["counts"] == {
        **dict.fromkeys(("queued", "sending", "deferred", "unknown"), 0),
        "sent": 5,
        "failed": 1,
    }
    refused = stack.show(batch["emails"][1]["id"])
    assert [attempt["outcome"] for attempt in refused["attempts"]] == ["rejected"]
    assert sandbox.requests() == {"mailgun": 6, "ses": 0, "sendgrid": 0}


def test_an_accepted_email_whose_answer_was_lost_goes_to_the_next_provider(
    stack: Stack, sandbox: Sandbox
) -> None:
    """The one stated case in which somebody may be written to twice; by policy."""
    batch = stack.send("mailgun-lost@example.org")

    email = stack.wait(f"{batch}-0", "sent")

    assert [attempt["outcome"] for attempt in email["attempts"]] == ["unknown", "accepted"]
    assert sandbox.requests() == {"mailgun": 1, "ses": 1, "sendgrid": 0}


def test_a_thousand_recipients_are_each_written_to_once(stack: Stack, sandbox: Sandbox) -> None:
    recipients = [f"reader{index}@example.org" for index in range(1000)]

    batch = stack.wait(stack.send(*recipients), seconds=120)

    assert batch["counts"]["sent"] == 1000
    assert batch["delivered"] is True
    received = Counter(message["to"]["email"] for message in sandbox.messages())
    assert received == dict.fromkeys(recipients, 1)
    assert [email["to"]["email"] for email in batch["emails"]] == recipients


def test_a_batch_that_is_sent_again_with_its_key_is_sent_once(
    stack: Stack, sandbox: Sandbox
) -> None:
    headers = {"Idempotency-Key": "order-1"}
    first = stack.send("pedro@example.org", headers=headers)
    stack.wait(first, "sent")

    assert stack.send("pedro@example.org", headers=headers) == first
    assert len(sandbox.messages()) == 1


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'{"from": 1}', b"\xff", b'{"subject": "a\\r\\nBcc: x@example.org"}'],
)
def test_bad_input_sends_nothing_and_the_service_goes_on(
    stack: Stack, sandbox: Sandbox, body: bytes
) -> None:
    headers = {"Content-Type": "application/json"}
    response = stack.call("POST", "/emails/send", body=body, headers=headers)

    assert response.status in (400, 422)
    assert response.headers["Content-Type"] == "application/problem+json"
    stack.wait(stack.send("pedro@example.org"), "sent")
    assert len(sandbox.messages()) == 1


def test_a_message_holds_ids_alone(make_stack: MakeStack) -> None:
    stack = make_stack()
    stack.start("web")
    batch = stack.send("secret-recipient@example.org")

    answer = stack.sqs.receive_message(QueueUrl=stack.queue_url("deliver"), WaitTimeSeconds=5)

    (message,) = answer["Messages"]
    envelope = json.loads(message["Body"])
    task = json.loads(base64.b64decode(envelope["body"]))
    assert task[:2] == [[f"{batch}-0", 0, 1], {}]
    everything = json.dumps([envelope, task]).lower()
    for secret in ("secret-recipient", "example", "facundo", KEY):
        assert secret not in everything
