"""Nothing is lost while AWS, or one of its services, is away."""

from __future__ import annotations

from tests.e2e.conftest import MakeStack
from tests.support.aws import LocalAws
from tests.support.processes import free_port, wait_for
from tests.support.sandbox import Sandbox


def test_vanished_messages_and_a_queue_that_is_down_cost_time_alone(
    make_stack: MakeStack, sandbox: Sandbox
) -> None:
    """Both wait for a message's life of 60 s, the shortest that SQS has: so they wait together."""
    stack = make_stack()
    stack.start("web")
    other_port = str(free_port())
    nowhere = f"http://127.0.0.1:{free_port()}"
    stack.start("web", PORT=other_port, AWS_ENDPOINT_URL_SQS=nowhere)
    vanished = stack.send("vanished@example.org")
    stack.sqs.purge_queue(QueueUrl=stack.queue_url("deliver"))

    never_sent = stack.send("never-sent@example.org", url=f"http://127.0.0.1:{other_port}")
    ready = stack.call("GET", "/readyz", url=f"http://127.0.0.1:{other_port}")
    assert ready.status == 503
    assert "SQS" in ready.json()["detail"]
    stack.start("worker")
    stack.start("beat")

    for batch in (vanished, never_sent):
        email = stack.wait(f"{batch}-0", "sent", seconds=90)
        assert (email["retries"], len(email["attempts"])) == (0, 1)
    assert len(sandbox.messages()) == 2


def test_all_parts_survive_an_outage_of_aws(
    make_stack: MakeStack, own_aws: LocalAws, sandbox: Sandbox
) -> None:
    """kombu's own worker would never poll again."""
    stack = make_stack(AWS_ENDPOINT_URL=own_aws.url)
    stack.start("web")
    worker = stack.start("worker")
    stack.start("beat")
    own_aws.stop()
    wait_for(lambda: "did not answer a poll" in worker.printed(), "the worker notices")

    response = stack.call("GET", "/emails/01M86CPHWVMXAYHCK7BA5TAEQD-0")
    assert response.status == 503
    assert response.headers["Retry-After"]
    own_aws.start()
    wait_for(lambda: stack.call("GET", "/readyz").status == 200, "the web is ready")

    stack.wait(stack.send("mailgun-503@example.org"), "sent")
    assert len(sandbox.messages()) == 1
    assert "Traceback" not in worker.printed()


def test_an_answer_is_written_down_when_dynamodb_is_back(
    make_stack: MakeStack, own_aws: LocalAws, sandbox: Sandbox
) -> None:
    """DynamoDB is away when the provider answers: the answer must not be lost."""
    stack = make_stack(
        AWS_ENDPOINT_URL=own_aws.url, MAILRELAY_PROVIDER_TIMEOUT="10", MAILRELAY_LEASE="30"
    )
    stack.start("web")
    worker = stack.start("worker")
    sandbox.fault("mailgun", "slow", seconds=3)
    batch = stack.send("pedro@example.org")
    wait_for(lambda: sandbox.requests()["mailgun"] == 1, "mailgun is asked")

    own_aws.stop()
    wait_for(lambda: "not written down yet" in worker.printed(), "the answer waits")
    own_aws.start()
    email = stack.wait(f"{batch}-0", "sent")

    assert [attempt["outcome"] for attempt in email["attempts"]] == ["accepted"]
    assert sandbox.requests() == {"mailgun": 1, "ses": 0, "sendgrid": 0}
