"""Our SQS transport polls on, whatever SQS answers. kombu's own falls silent for ever."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from botocore.exceptions import NoCredentialsError
from kombu import Connection, Consumer, Queue
from kombu.asynchronous import Hub, set_event_loop
from kombu.asynchronous.aws.sqs.connection import AsyncSQSConnection

import tasks.transport
from tasks import app

PREFETCH = 3
"""Messages that may be unacknowledged: one that is never given back would be missed."""

Respond = Callable[[BaseHTTPRequestHandler], None]


def answer(status: int, body: bytes) -> Respond:
    def respond(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Type", "application/x-amz-json-1.0")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return respond


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True


def error(status: int, name: str) -> Respond:
    body = {"__type": f"com.amazonaws.sqs#{name}", "message": "no"}
    return answer(status, json.dumps(body).encode())


def messages(*bodies: str) -> Respond:
    found = [
        {"MessageId": str(index), "ReceiptHandle": f"r{index}", "Body": body}
        for index, body in enumerate(bodies)
    ]
    return answer(200, json.dumps({"Messages": found}).encode())


def task(body: str) -> str:
    properties = {"delivery_tag": body, "delivery_info": {}, "body_encoding": "base64"}
    return json.dumps(
        {
            "body": base64.b64encode(body.encode()).decode(),
            "content-type": "text/plain",
            "content-encoding": "utf-8",
            "headers": {},
            "properties": properties,
        }
    )


class FakeSqs:
    """An SQS that answers each ReceiveMessage as the test says."""

    def __init__(self) -> None:
        self.receives: list[Respond] = []
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                fake.respond(self, self.headers["X-Amz-Target"].partition(".")[2])

            def log_message(self, *_: Any) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def respond(self, handler: BaseHTTPRequestHandler, operation: str) -> None:
        if operation == "ListQueues":
            body = {"QueueUrls": [f"{self.url}/1/mailrelay-deliver"]}
            answer(200, json.dumps(body).encode())(handler)
        elif operation == "GetQueueAttributes":
            size = {"Attributes": {"ApproximateNumberOfMessages": "0"}}
            answer(200, json.dumps(size).encode())(handler)
        elif operation == "ReceiveMessage" and self.receives:
            self.receives.pop(0)(handler)
        else:
            answer(200, b"{}")(handler)

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def sqs(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSqs]:
    fake = FakeSqs()
    monkeypatch.setenv("AWS_ENDPOINT_URL", fake.url)
    monkeypatch.setattr(tasks.transport, "_PAUSE", 0.01)
    yield fake
    fake.close()


def received(last: str) -> list[str]:
    """What is consumed, by kombu's own event loop, until `last` has been."""
    handled: list[str] = []
    hub = Hub()
    set_event_loop(hub)
    options = {**app.conf.broker_transport_options, "wait_time_seconds": 0}
    with Connection("mailrelay-sqs://", transport_options=options) as connection:
        channel = connection.channel()
        queue = Queue("deliver", routing_key="deliver")

        def handle(body: Any, message: Any) -> None:
            if body == "breaks":
                raise ValueError(body)
            handled.append(body)
            message.ack()

        channel.basic_qos(0, PREFETCH, False)
        with Consumer(channel, [queue], callbacks=[handle], accept=["text/plain"]):
            connection.register_with_event_loop(hub)
            for _ in hub.create_loop():
                if last in handled:
                    break
        hub.close()
    set_event_loop(None)
    return handled


@pytest.mark.parametrize(
    "trouble",
    [
        pytest.param(error(500, "InternalFailure"), id="server error"),
        pytest.param(error(503, "ServiceUnavailable"), id="unavailable"),
        pytest.param(error(400, "RequestThrottled"), id="throttled"),
        pytest.param(error(403, "ExpiredToken"), id="expired credentials"),
        pytest.param(answer(200, b"<html>"), id="no JSON"),
        pytest.param(hang_up, id="no answer"),
    ],
)
def test_the_next_poll_comes_after_any_answer(sqs: FakeSqs, trouble: Respond) -> None:
    sqs.receives = [messages(task("first")), trouble, trouble, messages(task("second"))]

    assert received("second") == ["first", "second"]


def test_a_poll_that_is_never_answered_is_given_up(
    sqs: FakeSqs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQS takes it and hangs, or its answer is lost on the way."""
    monkeypatch.setattr(tasks.transport, "_POLL_SECONDS", 0.2)
    over = threading.Event()

    def hang(_: BaseHTTPRequestHandler) -> None:
        over.wait(60)

    sqs.receives = [messages(task("first")), hang, hang, messages(task("second"))]
    try:
        assert received("second") == ["first", "second"]
    finally:
        over.set()


@pytest.mark.parametrize("error", [RuntimeError, ConnectionError, NoCredentialsError])
def test_the_next_poll_comes_after_one_that_could_not_be_sent(
    sqs: FakeSqs, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    """As when credentials cannot be refreshed for a moment, while a poll is signed."""
    send = AsyncSQSConnection.receive_message
    failures = [error(), error()]

    def receive_message(*args: Any, **kwargs: Any) -> Any:
        if failures:
            raise failures.pop()
        return send(*args, **kwargs)

    monkeypatch.setattr(AsyncSQSConnection, "receive_message", receive_message)
    sqs.receives = [messages(task("first"))]

    assert received("first") == ["first"]
    assert failures == []


@pytest.mark.parametrize(
    "broken",
    ["{", "[]", "1", '{"properties": 1}', '{"properties": {"delivery_info": 1}}', task("breaks")],
)
def test_a_broken_message_harms_no_other(sqs: FakeSqs, broken: str) -> None:
    sqs.receives = [
        messages(task("first"), *[broken] * PREFETCH, task("second")),
        messages(task("third")),
    ]

    handled = received("third")

    ours = ("first", "second", "third")
    assert [body for body in handled if body in ours] == list(ours)
