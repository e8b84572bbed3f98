"""Count what our clients of AWS do, by botocore's events.

They come for every attempt at a request, so that the counts are what AWS sees and bills, botocore's
own repetitions included. Nothing here may raise: it would end the call.
"""

from __future__ import annotations

import re
import time
from functools import cache
from typing import Any, TypeVar

from prometheus_client import Counter, Histogram

from mailrelay.metrics import (
    AWS_BATCH_ENTRIES,
    AWS_ERRORS,
    AWS_REQUEST_DURATION,
    AWS_REQUESTS,
)

Client = TypeVar("Client")

_STARTED = "mailrelay_started"
"""Where a request's context says when it was last sent; a context is botocore's, one a call."""

_ENTRIES = {
    "SendMessage": None,
    "SendMessageBatch": "Entries",
    "DeleteMessage": None,
    "DeleteMessageBatch": "Entries",
    "Publish": None,
    "PublishBatch": "PublishBatchRequestEntries",
}
"""The operations that carry messages, and the parameter that lists them where there are many."""

_UNMET = (None, "None", "ConditionalCheckFailed")
"""What a transaction says of items that did not make it fail on AWS's side."""

_CODE = re.compile(r"[A-Za-z][A-Za-z0-9_.]{0,99}|[1-5][0-9]{2}")
"""What can be the name of an error of AWS's, or an HTTP status."""


def meter(client: Client) -> Client:
    """Count the requests of `client` from now on; returns it."""
    meta: Any = client.meta  # type: ignore[attr-defined] # each client's, but of no common class
    service = meta.service_model.service_id.hyphenize()
    for operation in _ENTRIES:
        meta.events.register(f"before-parameter-build.{service}.{operation}", _count_entries)
        meta.events.register(f"after-call.{service}.{operation}", _count_failed_entries)
    meta.events.register("after-call.dynamodb.BatchExecuteStatement", _count_failed_statements)
    # Last: the request is signed by then.
    meta.events.register_last(f"request-created.{service}", _begin)
    meta.events.register(f"response-received.{service}", _end)
    meta.events.register(f"after-call-error.{service}", _never_sent)
    return client


def count_error(service: str, operation: str, code: str) -> None:
    """Count a failure; a code that could be anything is counted as `other`."""
    known = code if _CODE.fullmatch(code) else "other"
    AWS_ERRORS.labels(service, operation, known).inc()


def _which(event_name: str) -> tuple[str, str]:
    """The service and the operation that an event is about: ``after-call.sqs.SendMessage``."""
    _, service, operation = event_name.split(".")
    return service, operation


def _count_entries(params: Any, event_name: str, **_: Any) -> None:
    operation = _which(event_name)[1]
    entries = _ENTRIES[operation]
    size = 1 if entries is None else len(params.get(entries, ()))
    AWS_BATCH_ENTRIES.labels(operation).observe(size)


def _begin(request: Any, **_: Any) -> None:
    request.context[_STARTED] = time.perf_counter()


@cache
def _counts(event_name: str) -> tuple[Counter, Histogram | None]:
    """Where an operation's requests and their durations are counted; a long poll's are not."""
    service, operation = _which(event_name)
    requests = AWS_REQUESTS.labels(service, operation)
    if operation == "ReceiveMessage":
        return requests, None
    return requests, AWS_REQUEST_DURATION.labels(service, operation)


def _end(event_name: str, context: Any, parsed_response: Any, exception: Any, **_: Any) -> None:
    requests, durations = _counts(event_name)
    requests.inc()
    if durations is not None and _STARTED in context:
        durations.observe(time.perf_counter() - context[_STARTED])
    code = type(exception).__name__ if exception else _error_code(parsed_response)
    if code is not None:
        count_error(*_which(event_name), code)


def _error_code(response: Any) -> str | None:
    """What is AWS's error, or None: that an item is not as a write wants it is an answer."""
    if "Error" not in response:
        return None
    code = str(response["Error"].get("Code") or "other")
    if code == "ConditionalCheckFailedException":
        return None
    if code == "TransactionCanceledException":
        reasons = (reason.get("Code") for reason in response.get("CancellationReasons", ()))
        return next((reason for reason in reasons if reason not in _UNMET), None)
    return code


def _never_sent(event_name: str, context: Any, exception: Exception, **_: Any) -> None:
    """Such as one that cannot be signed. What was sent has been counted, whatever came of it."""
    if _STARTED not in context:
        count_error(*_which(event_name), type(exception).__name__)


def _count_failed_statements(event_name: str, parsed: Any, **_: Any) -> None:
    """As with entries; that an item is not as a statement wants it is an answer."""
    for response in parsed.get("Responses", ()):
        code = response.get("Error", {}).get("Code")
        if code not in _UNMET:
            count_error(*_which(event_name), str(code))


def _count_failed_entries(event_name: str, parsed: Any, **_: Any) -> None:
    """A batch is answered with 200 even if entries of it failed."""
    for entry in parsed.get("Failed", ()):
        count_error(*_which(event_name), str(entry.get("Code")))
