"""The local AWS as a region answers: later by `BENCHMARK_AWS_SECONDS`, and with an account of it.

An ASGI application around ministack's: ``uvicorn benchmarks.aws:app``. What it counts is what AWS
would bill, whoever asks by whichever library: ``GET /_benchmark/requests`` answers how many
requests there were of each operation, ``{"sqs.SendMessage": 3}``.

With `BENCHMARK_AWS_TAKES_ALL` it answers writes without looking at them, and keeps nothing of them: the
local AWS takes ten times as long for one as AWS does, and one after the other. That is for measuring
what only writes.

SQS answers a long poll as soon as a message comes. ministack 1.5 looks for one each 100 ms, which
would be most of the time that an email takes through an idle relay; so polls wait here.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextlib import suppress
from typing import Any
from uuid import uuid4

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

REQUESTS = "/_benchmark/requests"

OURSELVES = "benchmark"
"""How the user agent begins of the benchmark's own clients, whose requests do not count."""

_TAKEN: Mapping[str, Callable[[Any], Any]] = {
    "sqs.SendMessage": lambda asked: _taken(asked["MessageBody"]),
    "sqs.SendMessageBatch": lambda asked: {
        "Successful": [{"Id": e["Id"]} | _taken(e["MessageBody"]) for e in asked["Entries"]]
    },
    "dynamodb.BatchWriteItem": lambda _: {"UnprocessedItems": {}},
    "dynamodb.TransactWriteItems": lambda _: {},
    "dynamodb.UpdateItem": lambda _: {},
}
"""What answers a write that is not looked at."""

_PUTS = ("sqs.SendMessage", "sqs.SendMessageBatch", "sns")
"""What may put a message into a queue."""

_LOOK_SECONDS = 1.0

_SERVICES = {"DynamoDB_20120810": "dynamodb", "AmazonSQS": "sqs"}

_SCOPE = re.compile(rb"Credential=[^/]*/[^/]*/[^/]*/([^/]*)/")
"""Where a signature (version 4) names the service that it is for."""


class Region:
    """`application`, each of whose answers comes `seconds` later."""

    def __init__(self, application: Application, seconds: float, *, takes_all: bool) -> None:
        self._application, self._seconds = application, seconds
        self._taken = _TAKEN if takes_all else {}
        self._requests: Counter[str] = Counter()
        self._sent = asyncio.Event()
        """Set, and replaced, whenever there may be a new message in some queue."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._application(scope, receive, send)
        elif scope["path"] == REQUESTS:
            await answer(send, json.dumps(self._requests).encode())
        else:
            await self._serve(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = operation(dict(scope["headers"]))
        if name is not None:
            self._requests[name] += 1

        async def send_later(message: Message) -> None:
            if self._seconds and message["type"] == "http.response.start":
                await asyncio.sleep(self._seconds)
            await send(message)

        if take := self._taken.get(name or ""):
            await answer(send_later, json.dumps(take(json.loads(await body(receive)))).encode())
            return
        if name == "sqs.ReceiveMessage":
            await self._poll(scope, receive, send_later)
            return
        await self._application(scope, receive, send_later)
        if name in _PUTS:
            self._sent.set()
            self._sent = asyncio.Event()

    async def _poll(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Ask again, without waiting, until there are messages or the poll's time is over."""
        asked = json.loads(await body(receive))
        until = time.monotonic() + asked.get("WaitTimeSeconds", 0)
        request = json.dumps(asked | {"WaitTimeSeconds": 0}).encode()
        length = [(b"content-length", b"%d" % len(request))]
        headers = [pair for pair in scope["headers"] if pair[0] != b"content-length"] + length
        while True:
            sent, answer = self._sent, list[Message]()

            async def replay() -> Message:
                return {"type": "http.request", "body": request}

            async def keep(message: Message, answer: list[Message] = answer) -> None:
                answer.append(message)

            await self._application({**scope, "headers": headers}, replay, keep)
            left = until - time.monotonic()
            if left <= 0 or b'"Messages"' in b"".join(part.get("body", b"") for part in answer):
                break
            # A message can also come back by itself, when its time at a worker is over.
            with suppress(TimeoutError):
                await asyncio.wait_for(sent.wait(), min(left, _LOOK_SECONDS))
        for message in answer:
            await send(message)


def operation(headers: Mapping[bytes, bytes]) -> str | None:
    """What a request asks for: ``dynamodb.PutItem``; its service alone where a header says no more.

    None for one that is none of the relay's: not signed, or the benchmark's own.
    """
    if headers.get(b"user-agent", b"").startswith(OURSELVES.encode()):
        return None
    if target := headers.get(b"x-amz-target", b"").decode():
        service, _, name = target.partition(".")
        return f"{_SERVICES.get(service, service)}.{name}"
    signed = _SCOPE.search(headers.get(b"authorization", b""))
    return signed[1].decode() if signed else None


def _taken(text: str) -> dict[str, str]:
    """What SQS says of a message that it took."""
    digest = hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
    return {"MessageId": str(uuid4()), "MD5OfMessageBody": digest}


async def body(receive: Receive) -> bytes:
    """All of a request's body."""
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


async def answer(send: Send, text: bytes) -> None:
    """Answer with 200 and this JSON."""
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(text))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": text})


def __getattr__(name: str) -> Any:
    """`app`, made when uvicorn asks for it: ministack reads the environment when imported."""
    if name != "app":
        raise AttributeError(name)
    from ministack.app import app  # type: ignore[import-untyped]

    return Region(
        app,
        float(os.environ.get("BENCHMARK_AWS_SECONDS", "0")),
        takes_all=os.environ.get("BENCHMARK_AWS_TAKES_ALL") == "1",
    )
