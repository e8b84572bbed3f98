"""What can go wrong with one request to AWS. Pure: it changes requests and answers, and sends none.

Each fault is a value; the proxy (`tests.chaos.proxy`) carries it out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import Any
from uuid import UUID

Body = dict[str, Any]
"""A request's or an answer's body, decoded."""


class Kind(StrEnum):
    """What becomes of a request."""

    DOWN = "down"  # the connection is reset before the request has any effect
    HANG = "hang"  # it has no effect and no answer, for as long as the fault lasts
    SLOW = "slow"  # it takes up to `seconds` longer
    ERROR = "error"  # it is refused, with `status` and `code`
    LOST = "lost"  # it takes effect, and the connection is reset in place of the answer
    CONFLICT = "conflict"  # another transaction has the item
    PARTIAL = "partial"  # a batch is carried out in part
    VANISH = "vanish"  # messages are taken and never delivered
    TWICE = "twice"  # messages are delivered twice
    LATE = "late"  # messages are delivered up to `seconds` later, and so out of their order


@dataclass(frozen=True, slots=True)
class AwsFault:
    """A fault of one service: dynamodb, sqs or sns."""

    service: str
    kind: Kind
    probability: float = 1.0
    """Of a request, or of each entry of a batch where the kind is about entries."""
    seconds: float = 0.0
    status: int = 500
    code: str = "InternalServerError"


_TARGETS = {"DynamoDB_20120810": "dynamodb", "AmazonSQS": "sqs"}


def named(target: str | None, body: bytes) -> tuple[str, str]:
    """A request's service and operation, by its X-Amz-Target or the Action of its body.

    ("", "") for one that is none of ours, such as a health check.
    """
    if target is not None:
        prefix, _, operation = target.partition(".")
        return _TARGETS.get(prefix, prefix), operation
    for field in body.split(b"&"):
        if field.startswith(b"Action="):
            return "sns", field.removeprefix(b"Action=").decode()
    return "", ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the proxy answers by itself."""

    status: int
    body: bytes
    content_type: str = "application/x-amz-json-1.0"


def refusal(service: str, status: int, code: str, **more: Any) -> Answer:
    """An error in the service's own shape."""
    if service == "sns":
        text = (
            '<ErrorResponse xmlns="http://sns.amazonaws.com/doc/2010-03-31/"><Error>'
            f"<Type>Receiver</Type><Code>{code}</Code><Message>{code}</Message></Error>"
            f"<RequestId>{UUID(int=0)}</RequestId></ErrorResponse>"
        )
        return Answer(status, text.encode(), "text/xml")
    body = {"__type": f"com.amazonaws.{service}#{code}", "message": code, **more}
    return Answer(status, json.dumps(body).encode())


def conflict(operation: str, body: Body) -> Answer | None:
    """The refusal of a write whose item another transaction has; None for what cannot have one."""
    if operation == "TransactWriteItems":
        others = len(body["TransactItems"]) - 1
        reasons = [{"Code": "TransactionConflict", "Message": "Transaction is ongoing"}]
        reasons += [{"Code": "None"}] * others
        return refusal(
            "dynamodb", 400, "TransactionCanceledException", CancellationReasons=reasons
        )
    if operation in ("PutItem", "UpdateItem", "DeleteItem"):
        return refusal("dynamodb", 400, "TransactionConflictException")
    return None


# Batches, carried out in part

Merge = Callable[[Body], Body]
"""Makes the answer to the whole of the answer to a part."""


@dataclass(frozen=True, slots=True)
class Split:
    """The part of a batch that AWS gets, and how the answer to it becomes that to the whole."""

    part: Body | None
    """None where nothing is left of it; then `merge` gets an empty answer."""
    merge: Merge


def in_part(operation: str, body: Body, chosen: Callable[[], bool]) -> Split | None:
    """Leave out each entry that is `chosen`; None for what is no batch, or loses nothing."""
    split = _IN_PART.get(operation)
    return None if split is None else split(body, chosen)


def _parted(entries: Sequence[Any], chosen: Callable[[], bool]) -> tuple[list[Any], list[Any]]:
    kept: list[Any] = []
    left: list[Any] = []
    for entry in entries:
        (left if chosen() else kept).append(entry)
    return kept, left


def _messages_in_part(body: Body, chosen: Callable[[], bool]) -> Split | None:
    kept, left = _parted(body["Entries"], chosen)
    if not left:
        return None
    failed = [{"Id": entry["Id"], "SenderFault": False, "Code": "InternalError"} for entry in left]

    def merge(answer: Body) -> Body:
        merged = {"Successful": [], **answer}
        return {**merged, "Failed": [*answer.get("Failed", ()), *failed]}

    return Split({**body, "Entries": kept} if kept else None, merge)


def _writes_in_part(body: Body, chosen: Callable[[], bool]) -> Split | None:
    kept: Body = {}
    left: Body = {}
    for table, requests in body["RequestItems"].items():
        kept[table], left[table] = _parted(requests, chosen)
    return _tables_in_part(body, kept, left, "UnprocessedItems", {})


def _reads_in_part(body: Body, chosen: Callable[[], bool]) -> Split | None:
    kept: Body = {}
    left: Body = {}
    for table, wanted in body["RequestItems"].items():
        keys, keys_left = _parted(wanted["Keys"], chosen)
        kept[table] = {**wanted, "Keys": keys} if keys else None
        left[table] = {**wanted, "Keys": keys_left} if keys_left else None
    return _tables_in_part(body, kept, left, "UnprocessedKeys", {"Responses": {}})


def _tables_in_part(body: Body, kept: Body, left: Body, field: str, empty: Body) -> Split | None:
    kept = {table: some for table, some in kept.items() if some}
    left = {table: some for table, some in left.items() if some}
    if not left:
        return None

    def merge(answer: Body) -> Body:
        unprocessed = {**answer.get(field, {})}
        for table, some in left.items():
            unprocessed.setdefault(table, some)
        return {**empty, **answer, field: unprocessed}

    return Split({**body, "RequestItems": kept} if kept else None, merge)


def _statements_in_part(body: Body, chosen: Callable[[], bool]) -> Split | None:
    left = [chosen() for _ in body["Statements"]]
    if not any(left):
        return None
    kept = [one for one, out in zip(body["Statements"], left, strict=True) if not out]
    error = {"Error": {"Code": "TransactionConflict", "Message": "Transaction is ongoing"}}

    def merge(answer: Body) -> Body:
        responses = iter(answer.get("Responses", ()))
        merged = [error if out else next(responses) for out in left]
        return {**answer, "Responses": merged}

    return Split({**body, "Statements": kept} if kept else None, merge)


_IN_PART: dict[str, Callable[[Body, Callable[[], bool]], Split | None]] = {
    "SendMessageBatch": _messages_in_part,
    "DeleteMessageBatch": _messages_in_part,
    "BatchWriteItem": _writes_in_part,
    "BatchGetItem": _reads_in_part,
    "BatchExecuteStatement": _statements_in_part,
}


# Messages on their way


def messages(operation: str, body: Body) -> list[str]:
    """The messages that a request sends, as their bodies."""
    if operation == "SendMessageBatch":
        return [entry["MessageBody"] for entry in body["Entries"]]
    return [body["MessageBody"]] if operation == "SendMessage" else []


def vanished(operation: str, body: Body, chosen: Callable[[], bool]) -> Split | None:
    """Each message that is `chosen` gets nowhere, and the sender is told that it was taken."""
    if operation == "SendMessage":
        return Split(None, lambda _: _taken(body)) if chosen() else None
    if operation != "SendMessageBatch":
        return None
    kept, left = _parted(body["Entries"], chosen)
    if not left:
        return None
    taken = [{"Id": entry["Id"], **_taken(entry)} for entry in left]

    def merge(answer: Body) -> Body:
        return {**answer, "Successful": [*answer.get("Successful", ()), *taken]}

    return Split({**body, "Entries": kept} if kept else None, merge)


def _taken(message: Body) -> Body:
    text = message["MessageBody"].encode()
    digest = hashlib.md5(text, usedforsecurity=False).hexdigest()
    return {"MessageId": str(UUID(bytes=digest[:16].encode())), "MD5OfMessageBody": digest}


def late(operation: str, body: Body, chosen: Callable[[], bool], delay: Callable[[], int]) -> Body:
    """Each message that is `chosen` is delivered after `delay` seconds."""
    if operation == "SendMessage":
        return {**body, "DelaySeconds": delay()} if chosen() else body
    if operation != "SendMessageBatch":
        return body
    entries = [
        {**entry, "DelaySeconds": delay()} if chosen() else entry for entry in body["Entries"]
    ]
    return {**body, "Entries": entries}


def chance(rng: Random, probability: float) -> Callable[[], bool]:
    """Draws, each true with that probability."""
    return lambda: rng.random() < probability
