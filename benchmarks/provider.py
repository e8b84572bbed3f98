"""A provider that is never the limit: Mailgun's answer, `BENCHMARK_PROVIDER_SECONDS` after asked.

An ASGI application, ``uvicorn benchmarks.provider:app``. It notes when each request arrives, by the
machine's monotonic clock, which all processes share: ``GET /arrivals`` is the list, in seconds, ``GET /count`` its length.
The sandbox would do as well but for its CPU, which the measured processes want.
"""

from __future__ import annotations

import asyncio
import json
import os
import time

from benchmarks.aws import Receive, Scope, Send, answer, body

_SECONDS = float(os.environ.get("BENCHMARK_PROVIDER_SECONDS", "0"))

_ACCEPTED = json.dumps({"id": "<1@sandbox.example>", "message": "Queued. Thank you."}).encode()
"""As in https://documentation.mailgun.com/docs/mailgun/api-reference/send/mailgun."""

_arrivals: list[float] = []


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        return
    if scope["method"] == "GET":
        asked = len(_arrivals) if scope["path"] == "/count" else _arrivals
        await answer(send, json.dumps(asked).encode())
        return
    _arrivals.append(time.monotonic())
    await body(receive)
    await asyncio.sleep(_SECONDS)
    await answer(send, _ACCEPTED)
