"""Records as DynamoDB items, and back. Pure.

One table. `pk` and `sk` tell the kinds apart:

    batch        B#<batch>                   #          what the recipients have in common, content
    email        B#<batch>                   E#<index>  one recipient
    idempotency  I#<key name>#<sha256>       #          which batch an Idempotency-Key made
    circuit      P#<provider>                circuit    whether a provider is left alone
    rate         P#<provider>                rate       until when its rate is used up
    counters     C#<width>                   <start>    what happened within that time (`mailrelay.counters`)

`due_shard` and `due_at` are the keys of the due index; only items that somebody has to look at
again carry them, so the index holds the open work and not the history.

`listed_in` and `pk` are those of the listed index, in which what a key has sent is found again. It
says which list an item is in: a complete batch in its key's, an email in that of its key and
recipient. It is set once and never changes, and neither does what the index projects, so that an
item pays for its entry once.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from mailrelay.addresses import comparable
from mailrelay.circuit import Circuit, State
from mailrelay.message import (
    Address,
    Attempt,
    Batch,
    BatchSummary,
    Content,
    Email,
    EmailId,
    Outcome,
    Status,
)

DUE_SHARDS = 8
"""Partitions of the due index: each is swept by itself. The number is baked into the items."""

LIST_SHARDS = 4
"""Lists that a key's batches are spread over, since one takes 1,000 of them a second."""

LIST_PROJECTION = ("sender", "subject", "total", "created_at")
"""What the listed index holds beside the keys: of a batch all that a list shows of it, of an email
when it was accepted."""

Item = dict[str, Any]
"""An item in DynamoDB's own notation, ``{"status": {"S": "queued"}, …}``."""


def to_item(values: Mapping[str, Any]) -> Item:
    """`values` in DynamoDB's notation, without those that are None.

    They are of the types that JSON has, but for floats, or bytes.
    """
    return {name: _write(value) for name, value in values.items() if value is not None}


def from_item(item: Mapping[str, Any]) -> dict[str, Any]:
    """An item as plain values."""
    return {name: _read(value) for name, value in item.items()}


# boto3's TypeSerializer and TypeDeserializer know sets and decimals, which are not here, and take
# two to four times the CPU: a twelfth of what accepting an email took.


def _write(value: Any) -> dict[str, Any]:
    match value:
        case str():
            return {"S": value}
        case bool():
            return {"BOOL": value}
        case int():
            return {"N": str(value)}
        case list():
            return {"L": [_write(element) for element in value]}
        case dict():
            return {"M": {name: _write(element) for name, element in value.items()}}
        case bytes():
            return {"B": value}
        case None:
            return {"NULL": True}
    raise TypeError(f"items do not hold {type(value).__name__}")


def _read(written: Mapping[str, Any]) -> Any:
    [(kind, value)] = written.items()
    match kind:
        case "S" | "BOOL" | "B":
            return value
        case "N":
            return int(value)
        case "L":
            return [_read(element) for element in value]
        case "M":
            return {name: _read(element) for name, element in value.items()}
        case "NULL":
            return None
    raise TypeError(f"items do not hold {kind}")


def batch_key(batch_id: str) -> Item:
    return to_item({"pk": f"B#{batch_id}", "sk": "#"})


def email_key(email_id: EmailId) -> Item:
    # Four digits, so that a query returns a batch's emails in their order.
    return to_item({"pk": f"B#{email_id.batch_id}", "sk": f"E#{email_id.index:04d}"})


def id_of_key(item: Mapping[str, Any]) -> EmailId | str:
    """Whose key it is: an email's id, or a batch's."""
    batch_id = item["pk"]["S"].removeprefix("B#")
    kind, _, index = item["sk"]["S"].partition("#")
    return EmailId(batch_id, int(index)) if kind == "E" else batch_id


def due_shard(email_id: EmailId | str) -> int:
    """The shard of an email or a batch: any spread will do, as long as it never changes."""
    return zlib.crc32(str(email_id).encode()) % DUE_SHARDS


def batch_lists(key_name: str) -> list[str]:
    """The lists that hold a key's batches."""
    return [f"K#{key_name}#{shard}" for shard in range(LIST_SHARDS)]


def batch_list(batch: Batch) -> str:
    """Which of them a batch is in, once it is complete."""
    return batch_lists(batch.key_name)[zlib.crc32(batch.id.encode()) % LIST_SHARDS]


def recipient_list(key_name: str, address: str) -> str:
    """The list of what a key has sent to an address.

    Hashed, so that an index's key shows nobody's address. 128 bits: two that meet by chance are
    not to be expected.
    """
    wanted = f"{key_name}\0{comparable(address)}".encode()
    return f"R#{hashlib.sha256(wanted).hexdigest()[:32]}"


def batch_item(batch: Batch, content: bytes | None, *, due_at: int | None, expires: int) -> Item:
    """A batch with its packed content; None where that lies in S3."""
    return batch_key(batch.id) | to_item(
        {
            "key_name": batch.key_name,
            "sender": _address_value(batch.sender),
            "subject": batch.subject,
            "chain": list(batch.chain),
            "total": batch.total,
            "created_at": batch.created_at,
            "ready": batch.ready,
            "listed_in": batch_list(batch) if batch.ready else None,
            "content": content,
            "due_shard": None if due_at is None else due_shard(batch.id),
            "due_at": due_at,
            "expires": expires,
        }
    )


BATCH_PROJECTION = ("pk", "key_name", "sender", "subject", "chain", "total", "created_at", "ready")
"""A batch without its content."""


def read_batch(item: Item) -> Batch:
    values = from_item({name: item[name] for name in BATCH_PROJECTION})
    return Batch(
        id=values["pk"].removeprefix("B#"),
        key_name=values["key_name"],
        sender=Address(**values["sender"]),
        subject=values["subject"],
        chain=tuple(values["chain"]),
        total=values["total"],
        created_at=values["created_at"],
        ready=values["ready"],
    )


def read_summary(entry: Item) -> BatchSummary:
    """A batch as the listed index has it."""
    values = from_item(entry)
    return BatchSummary(
        id=values["pk"].removeprefix("B#"),
        sender=Address(**values["sender"]),
        subject=values["subject"],
        total=values["total"],
        created_at=values["created_at"],
    )


def email_item(email: Email, *, expires: int) -> Item:
    return (
        email_key(email.id)
        | to_item(
            {
                "key_name": email.key_name,
                "to": _address_value(email.to),
                "listed_in": recipient_list(email.key_name, email.to.email),
                "chain": list(email.chain),
                "created_at": email.created_at,
                "last_attempt_at": email.last_attempt_at,
                "request_id": email.request_id,
                "version": email.version,
                "expires": expires,
            }
        )
        | progress(email)
    )


def progress(email: Email) -> Item:
    """What of an email changes when an attempt ends, the sweep wakes it or a person decides."""
    return to_item(
        {
            "status": email.status,
            "attempt": email.attempt,
            "provider_index": email.provider_index,
            "cycle": email.cycle,
            "attempts": [_attempt_value(attempt) for attempt in email.attempts],
            "due_shard": None if email.due_at is None else due_shard(email.id),
            "due_at": email.due_at,
            "restarted_at": email.restarted_at,
            "resolved_at": email.resolved_at,
        }
    )


def read_email(item: Item) -> Email:
    email_id = id_of_key(item)
    if not isinstance(email_id, EmailId):
        raise TypeError(f"{email_id} is no email's key")
    values = from_item(item)
    return Email(
        id=email_id,
        key_name=values["key_name"],
        to=Address(**values["to"]),
        chain=tuple(values["chain"]),
        status=Status(values["status"]),
        attempt=values["attempt"],
        provider_index=values["provider_index"],
        cycle=values["cycle"],
        due_at=values.get("due_at"),
        created_at=values["created_at"],
        last_attempt_at=values.get("last_attempt_at"),
        attempts=tuple(_read_attempt(value) for value in values["attempts"]),
        request_id=values.get("request_id"),
        restarted_at=values.get("restarted_at"),
        resolved_at=values.get("resolved_at"),
        version=values["version"],
    )


def circuit_key(provider: str) -> Item:
    return to_item({"pk": f"P#{provider}", "sk": "circuit"})


def rate_key(provider: str) -> Item:
    return to_item({"pk": f"P#{provider}", "sk": "rate"})


def circuit_item(circuit: Circuit) -> Item:
    values = asdict(circuit)
    return circuit_key(values.pop("provider")) | to_item(values)


def read_circuit(item: Item) -> Circuit:
    values = from_item(item)
    outcome = values.get("outcome")
    return Circuit(
        provider=values["pk"].removeprefix("P#"),
        state=State(values["state"]),
        until=values.get("until"),
        since=values.get("since"),
        openings=values["openings"],
        outcome=outcome and Outcome(outcome),
        code=values.get("code"),
        version=values["version"],
    )


def counters_key(start: int, width: int) -> Item:
    """Of what happened in a slice of time; both in milliseconds."""
    # Ten digits, so that a query returns the slices in their order.
    return to_item({"pk": f"C#{width // 1000}", "sk": f"{start // 1000:010d}"})


def read_counters(item: Item) -> tuple[int, dict[str, int]]:
    """When the slice began, and its counts by name."""
    values = {name: int(value["N"]) for name, value in item.items() if "N" in value}
    del values["expires"]
    return int(item["sk"]["S"]) * 1000, values


def pack(content: Content) -> bytes:
    """A content, compressed; the same for all recipients of a batch, so kept once."""
    return zlib.compress(json.dumps(asdict(content), ensure_ascii=False).encode())


def unpack(packed: bytes) -> Content:
    values = json.loads(zlib.decompress(packed))
    reply_to = values.pop("reply_to")
    return Content(**values, reply_to=reply_to and Address(**reply_to))


def _address_value(address: Address) -> dict[str, str]:
    return {"email": address.email} | ({} if address.name is None else {"name": address.name})


def _attempt_value(attempt: Attempt) -> dict[str, Any]:
    return {name: value for name, value in asdict(attempt).items() if value is not None}


def _read_attempt(value: Mapping[str, Any]) -> Attempt:
    return Attempt(
        number=value["number"],
        provider=value["provider"],
        outcome=Outcome(value["outcome"]),
        code=value.get("code"),
        reason=value["reason"],
        started_at=value["started_at"],
        duration_ms=value.get("duration_ms"),
        message_id=value.get("message_id"),
    )
