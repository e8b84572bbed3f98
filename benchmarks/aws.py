"""The local AWS as a region answers: later by `BENCHMARK_AWS_SECONDS`, and with an account of it.

An ASGI application around ministack's: ``uvicorn benchmarks.aws:app``. What it counts is what AWS
would bill, whoever asks by whichever library: ``GET /_benchmark/requests`` answers how many
requests there were of each operation, ``{"sqs.SendMessage": 3}``.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

REQUESTS = "/_benchmark/requests"

OURSELVES = "benchmark"
"""How the user agent begins of the benchmark's own clients, whose requests do not count."""

_SERVICES = {"DynamoDB_20120810": "dynamodb", "AmazonSQS": "sqs"}

_SCOPE = re.compile(rb"Credential=[^/]*/[^/]*/[^/]*/([^/]*)/")
"""Where a signature (version 4) names the service that it is for."""


class Counted:
    """`application`, each of whose answers comes `seconds` later."""

    def __init__(self, application: Application, seconds: float) -> None:
        self._application, self._seconds = application, seconds
        self._requests: Counter[str] = Counter()

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

        await self._application(scope, receive, send_later)


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


async def answer(send: Send, body: bytes) -> None:
    """Answer with 200 and this JSON."""
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def __getattr__(name: str) -> Any:
    """`app`, made when uvicorn asks for it: ministack reads the environment when imported."""
    if name != "app":
        raise AttributeError(name)
    from ministack.app import app  # type: ignore[import-untyped]

    return Counted(app, float(os.environ.get("BENCHMARK_AWS_SECONDS", "0")))
