"""Requests to AWS are counted as AWS sees them, and its errors by their names."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from mailrelay.metering import count_error, meter
from tests.support.processes import free_port
from tests.unit.counting import counted

Answer = tuple[int, dict[str, Any]]


class FakeAws:
    """Answers each request with the next of `answers`, and with an empty success after them."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                status, body = fake.answers.pop(0) if fake.answers else (200, {})
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def aws() -> Iterator[FakeAws]:
    fake = FakeAws()
    yield fake
    fake.close()


def client(service: str, url: str, *, attempts: int = 1) -> Any:
    config = Config(retries={"mode": "standard", "total_max_attempts": attempts})
    made = boto3.client(service, endpoint_url=url, region_name="us-east-1", config=config)
    return meter(made)


def error(status: int, name: str, **more: Any) -> Answer:
    return status, {"__type": f"com.amazonaws.dynamodb.v20120810#{name}", **more}


def request(service: str, operation: str, times: int = 1) -> dict[str, float]:
    """What is counted of answered requests, but for how long they took."""
    labels = f"{{operation={operation},service={service}}}"
    return {
        f"aws_requests_total{labels}": times,
        f"aws_request_duration_seconds_count{labels}": times,
    }


def failure(service: str, operation: str, code: str) -> dict[str, float]:
    return {f"aws_errors_total{{code={code},operation={operation},service={service}}}": 1}


COUNTED = ("aws_requests_total", "aws_request_duration_seconds_count", "aws_errors", "aws_batch")


def put(dynamodb: Any) -> None:
    dynamodb.put_item(TableName="table", Item={"pk": {"S": "1"}})


def transact(dynamodb: Any) -> None:
    item = {"Put": {"TableName": "table", "Item": {"pk": {"S": "1"}}}}
    dynamodb.transact_write_items(TransactItems=[item])


def cancelled(*codes: str) -> Answer:
    reasons = [{"Code": code} for code in codes]
    return error(400, "TransactionCanceledException", CancellationReasons=reasons)


@pytest.mark.parametrize(
    ("answer", "call", "operation", "code"),
    [
        ((200, {}), put, "PutItem", None),
        (error(400, "ThrottlingException"), put, "PutItem", "ThrottlingException"),
        (error(500, "InternalServerError"), put, "PutItem", "InternalServerError"),
        (error(400, "AccessDeniedException"), put, "PutItem", "AccessDeniedException"),
        ((503, {}), put, "PutItem", "503"),
        (error(400, "<made up> pedro@example.org"), put, "PutItem", "other"),
        (error(400, "ConditionalCheckFailedException"), put, "PutItem", None),
        (cancelled("None", "ConditionalCheckFailed"), transact, "TransactWriteItems", None),
        (
            cancelled("None", "TransactionConflict"),
            transact,
            "TransactWriteItems",
            "TransactionConflict",
        ),
    ],
)
def test_an_answer_and_its_error(
    aws: FakeAws, answer: Answer, call: Callable[[Any], None], operation: str, code: str | None
) -> None:
    """A write that finds another item than it wants is an answer, and no error."""
    aws.answers = [answer]

    with counted(*COUNTED) as changed, suppress(ClientError):
        call(client("dynamodb", aws.url))

    expected = request("dynamodb", operation)
    assert changed == expected | (failure("dynamodb", operation, code) if code else {})


def test_each_repetition_of_botocore_s_is_a_request(aws: FakeAws) -> None:
    aws.answers = [error(500, "InternalServerError")]

    with counted(*COUNTED) as changed:
        put(client("dynamodb", aws.url, attempts=2))

    failed = failure("dynamodb", "PutItem", "InternalServerError")
    assert changed == request("dynamodb", "PutItem", 2) | failed


def test_no_connection_is_an_error() -> None:
    url = f"http://127.0.0.1:{free_port()}"

    with counted(*COUNTED) as changed, pytest.raises(BotoCoreError):
        put(client("dynamodb", url))

    failed = failure("dynamodb", "PutItem", "EndpointConnectionError")
    assert changed == request("dynamodb", "PutItem") | failed


def test_what_cannot_be_signed_is_an_error_and_no_request(
    aws: FakeAws, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    dynamodb = client("dynamodb", aws.url)

    with counted(*COUNTED) as changed, pytest.raises(NoCredentialsError):
        put(dynamodb)

    assert changed == failure("dynamodb", "PutItem", "NoCredentialsError")


ENTRIES = [{"Id": str(number), "ReceiptHandle": "handle"} for number in range(3)]


@pytest.mark.parametrize(
    ("operation", "method", "parameters", "size"),
    [
        ("SendMessage", "send_message", {"MessageBody": "{}"}, 1),
        ("DeleteMessage", "delete_message", {"ReceiptHandle": "handle"}, 1),
        ("DeleteMessageBatch", "delete_message_batch", {"Entries": ENTRIES}, 3),
    ],
)
def test_the_messages_of_a_call_are_counted(
    aws: FakeAws, operation: str, method: str, parameters: dict[str, Any], size: int
) -> None:
    sqs = client("sqs", aws.url)

    with counted(*COUNTED) as changed:
        getattr(sqs, method)(QueueUrl=f"{aws.url}/1/queue", **parameters)

    assert changed == request("sqs", operation) | {
        f"aws_batch_entries_count{{operation={operation}}}": 1,
        f"aws_batch_entries_sum{{operation={operation}}}": size,
    }


def test_the_entries_that_a_batch_failed_are_errors(aws: FakeAws) -> None:
    failed = {"Id": "1", "Code": "InternalError", "SenderFault": False}
    aws.answers = [(200, {"Successful": [{"Id": "0"}, {"Id": "2"}], "Failed": [failed]})]
    sqs = client("sqs", aws.url)

    with counted("aws_errors") as changed:
        sqs.delete_message_batch(QueueUrl=f"{aws.url}/1/queue", Entries=ENTRIES)

    assert changed == failure("sqs", "DeleteMessageBatch", "InternalError")


def test_the_statements_that_dynamodb_does_not_serve_are_errors(aws: FakeAws) -> None:
    answers = [{}, {"Error": {"Code": "ConditionalCheckFailed"}}, {"Error": {"Code": "Throttled"}}]
    aws.answers = [(200, {"Responses": answers})]
    dynamodb = client("dynamodb", aws.url)

    with counted("aws_errors") as changed:
        dynamodb.batch_execute_statement(Statements=[{"Statement": "UPDATE …"}] * 3)

    assert changed == failure("dynamodb", "BatchExecuteStatement", "Throttled")


def test_a_long_poll_is_a_request_that_takes_no_time(aws: FakeAws) -> None:
    sqs = client("sqs", aws.url)

    with counted(*COUNTED) as changed:
        sqs.receive_message(QueueUrl=f"{aws.url}/1/queue", WaitTimeSeconds=20)

    assert changed == {"aws_requests_total{operation=ReceiveMessage,service=sqs}": 1}


@pytest.mark.parametrize("code", ["", "pedro@example.org", "a b", "x" * 200, "999"])
def test_a_code_that_could_be_anything_is_no_label(code: str) -> None:
    with counted() as changed:
        count_error("sqs", "SendMessage", code)

    assert changed == failure("sqs", "SendMessage", "other")
