"""Nothing is lost: whichever process is killed, whichever message vanishes, whatever is down."""

from __future__ import annotations

import json
import signal
import threading
from collections import Counter
from typing import Any

import pytest
from urllib3.exceptions import HTTPError

from mailrelay import assembly, clock
from mailrelay.settings import load
from tests.e2e.conftest import MakeStack
from tests.support.processes import wait_for
from tests.support.records import CONTENT, a_batch, an_email
from tests.support.sandbox import Sandbox
from tests.support.stack import Stack


def test_the_email_of_a_worker_that_is_killed_goes_to_the_next_provider(
    make_stack: MakeStack, sandbox: Sandbox
) -> None:
    stack = make_stack(MAILRELAY_LEASE="20", MAILRELAY_PROVIDER_TIMEOUT="15")
    stack.start("web")
    stack.start("beat")
    worker = stack.start("worker")
    sandbox.fault("mailgun", "hang")
    batch = stack.send("pedro@example.org")
    wait_for(lambda: sandbox.requests()["mailgun"] == 1, "mailgun is asked")

    worker.kill()
    assert stack.show(f"{batch}-0")["status"] == "sending"
    stack.start("worker")
    email = stack.wait(f"{batch}-0", "sent", seconds=60)

    assert [(attempt["outcome"], attempt["code"]) for attempt in email["attempts"]] == [
        ("unknown", "abandoned"),
        ("accepted", "200"),
    ]
    assert email["attempts"][0]["durationMs"] is None
    assert email["provider"] == "ses"
    assert len(sandbox.messages()) == 1


def test_a_worker_that_is_stopped_finishes_what_it_is_sending(
    make_stack: MakeStack, sandbox: Sandbox
) -> None:
    """SIGTERM under load: nothing is abandoned, nothing sent twice."""
    stack = make_stack(MAILRELAY_CONCURRENCY="8")
    stack.start("web")
    stack.start("beat")
    first = stack.start("worker")
    sandbox.fault("mailgun", "slow", seconds=0.3)
    recipients = [f"reader{index}@example.org" for index in range(100)]
    batch = stack.send(*recipients)
    wait_for(lambda: sandbox.requests()["mailgun"] >= 20, "the worker is busy")

    assert first.stop() == 0
    stack.start("worker")
    done = stack.wait(batch, seconds=90)

    assert done["counts"]["sent"] == 100
    received = Counter(message["to"]["email"] for message in sandbox.messages())
    assert received == dict.fromkeys(recipients, 1)
    assert {email["retries"] for email in done["emails"]} == {0}


def test_a_poll_of_a_worker_that_ends_takes_no_email_with_it(
    make_stack: MakeStack, sandbox: Sandbox
) -> None:
    """SQS gives messages to a long poll that is under way. There is no sweep here to mend it."""
    stack = make_stack()
    stack.start("web")
    first = stack.start("worker")
    first.signal(signal.SIGTERM)
    wait_for(lambda: "Warm shutdown" in first.printed(), "the worker is ending")
    batches = [stack.send("pedro@example.org") for _ in range(5)]
    assert first.wait() == 0
    stack.start("worker")

    for batch in batches:
        stack.wait(batch, "sent")
    assert len(sandbox.messages()) == 5


def test_a_large_batch_whose_web_process_is_killed_is_sent_whole_or_not_at_all(
    make_stack: MakeStack, sandbox: Sandbox
) -> None:
    """Its client got no 202 and will send again: completing it would write to all twice."""
    stack = make_stack()
    web = stack.start("web")
    stack.start("worker")
    stack.start("beat")
    answers: list[int] = []

    def send() -> None:
        try:
            stack.send(*(f"reader{index}@example.org" for index in range(1000)))
            answers.append(202)
        except HTTPError:
            answers.append(0)

    client = threading.Thread(target=send)
    client.start()
    table = stack.environ["MAILRELAY_TABLE"]

    def items() -> list[dict[str, Any]]:
        pages = stack.dynamodb.get_paginator("scan").paginate(
            TableName=table, ConsistentRead=True, ProjectionExpression="pk, sk"
        )
        return [item for page in pages for item in page["Items"]]

    wait_for(lambda: len(items()) > 98, "the first part of the batch is stored")
    web.kill()
    client.join()
    assert answers == [0]
    (batch_id,) = {item["pk"]["S"].removeprefix("B#") for item in items()}

    stack.start("web")
    wait_for(lambda: not items(), "the batch is withdrawn", seconds=60)

    assert stack.call("GET", f"/emails/{batch_id}").status == 404
    assert sandbox.requests() == {"mailgun": 0, "ses": 0, "sendgrid": 0}


@pytest.mark.parametrize(
    "body",
    [
        "not JSON",
        "[]",
        "{}",
        '{"properties": 1}',
        '{"properties": {"delivery_info": 1}, "body": "x"}',
        '{"properties": {}, "headers": {"task": "tasks.nothing", "id": "1"}, "body": "W10="}',
    ],
)
def test_a_message_that_is_not_ours_stops_nothing(
    poisoned: Stack, sandbox: Sandbox, body: str
) -> None:
    poisoned.sqs.send_message(QueueUrl=poisoned.queue_url("deliver"), MessageBody=body)

    poisoned.wait(poisoned.send("pedro@example.org"), "sent")
    poisoned.wait(poisoned.send("pedro@example.org"), "sent")
    assert len(sandbox.messages()) == 2


@pytest.mark.parametrize("email_id", ["", "x", "01M86CPHWVMXAYHCK7BA5TAEQD-0"])
def test_a_task_for_an_email_that_is_not_there_is_dropped(
    poisoned: Stack, sandbox: Sandbox, email_id: str
) -> None:
    headers = {"task": "tasks.deliver", "id": "1", "lang": "py", "argsrepr": "", "kwargsrepr": ""}
    message = {
        "body": json.dumps([[email_id, 0, 1], {}, {}]),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": headers,
        "properties": {"correlation_id": "1", "delivery_tag": "1", "delivery_info": {}},
    }
    poisoned.sqs.send_message(
        QueueUrl=poisoned.queue_url("deliver"), MessageBody=json.dumps(message)
    )

    poisoned.wait(poisoned.send("pedro@example.org"), "sent")
    assert len(sandbox.messages()) == 1


@pytest.fixture(scope="module")
def poisoned(make_shared_stack: MakeStack) -> Stack:
    """A relay without beat: what its worker does not send stays unsent."""
    stack = make_shared_stack()
    stack.start("web")
    stack.start("worker")
    return stack


def test_a_backlog_is_worked_off_by_a_worker_with_few_threads(
    make_stack: MakeStack, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sweeps wait for room in the queue, but never in the threads that make it."""
    stack = make_stack(
        MAILRELAY_CONCURRENCY="2", MAILRELAY_PROVIDER_TIMEOUT="4", MAILRELAY_LEASE="10"
    )
    for name in ("AWS_ENDPOINT_URL", "MAILRELAY_TABLE"):
        monkeypatch.setenv(name, stack.environ[name])
    settings = load(stack.environ)
    batch = a_batch(key_name="e2e", total=300, created_at=clock.now() - 120_000)
    emails = [an_email(batch, index) for index in range(300)]
    store = assembly.store(settings)
    store.create(batch, CONTENT, emails[:98], withdraw_at=None)
    store.add_emails(emails[98:], batch.created_at)

    stack.start("worker")
    stack.start("beat")
    stack.start("web")
    done = stack.wait(batch.id, seconds=90)

    assert done["counts"]["sent"] == 300
    assert len(sandbox.messages()) == 300
    assert {email["retries"] for email in done["emails"]} == {0}


def test_two_beats_at_once_do_no_harm(make_stack: MakeStack, sandbox: Sandbox) -> None:
    schedule = ",".join(["1"] * 50)
    stack = make_stack(MAILRELAY_RETRY_SCHEDULE=schedule, MAILRELAY_PROVIDER_PAUSE="0.5")
    stack.start("web")
    stack.start("worker")
    for _ in range(2):
        stack.start("beat")
    for provider in ("mailgun", "ses", "sendgrid"):
        sandbox.fault(provider, "status", status=503)
    batch = stack.send(*(f"reader{index}@example.org" for index in range(20)))

    deferred: set[str] = set()

    def all_were_deferred() -> bool:
        """Seen one after the other: some asked all providers, and most passed over them."""
        emails = stack.show(batch)["emails"]
        deferred.update(email["id"] for email in emails if email["status"] == "deferred")
        return len(deferred) == 20

    wait_for(all_were_deferred, "all were deferred, and perhaps more than once")
    sandbox.heal()

    done = stack.wait(batch)

    assert done["counts"]["sent"] == 20
    assert len(sandbox.messages()) == 20


def test_every_part_ends_by_itself_when_told_to(make_stack: MakeStack) -> None:
    stack = make_stack()
    for part in ("web", "worker", "beat"):
        process = stack.start(part)
        process.signal(signal.SIGTERM)
        assert process.wait() == 0, process.printed()
