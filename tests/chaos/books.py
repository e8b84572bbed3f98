"""The three books: what clients were told, what DynamoDB says, what the mailbox holds."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mailrelay import items
from mailrelay.message import BATCH_ID, EmailId, Outcome, Status
from tests.support.sandbox import Sandbox

PAGE = 5000
"""Messages that the sandbox is asked for at once."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request to send, and what its client was told at last."""

    recipients: tuple[str, ...]
    status: int | None
    """None where no answer came; with a key, after the last of several tries."""
    ids: Mapping[str, str] = field(default_factory=dict)
    """The email's id for each recipient, as a 202 said."""
    key: str | None = None
    """Its Idempotency-Key."""


@dataclass(frozen=True, slots=True)
class StoredEmail:
    """An email as it lies in DynamoDB."""

    id: str
    address: str
    status: Status
    attempts: tuple[tuple[str, Outcome], ...]
    """The provider and the outcome of each."""
    reason: str | None = None
    """Of the last attempt."""


@dataclass(frozen=True, slots=True)
class Books:
    """What is known once a round is over."""

    requests: tuple[Request, ...]
    emails: tuple[StoredEmail, ...]
    mailbox: tuple[tuple[str, str], ...]
    """The address and the provider of each message that a provider took."""
    due: tuple[str, ...] = ()
    """What is still in the due index: ids of emails and of batches."""
    messages: tuple[str, ...] = ()
    """The bodies of all messages that went to SQS."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """DynamoDB's book."""

    emails: tuple[StoredEmail, ...]
    due: tuple[str, ...]


def read_table(dynamodb: Any, table: str) -> Ledger:
    """All of the table, as it is now."""
    pages = dynamodb.get_paginator("scan").paginate(TableName=table, ConsistentRead=True)
    found = [item for page in pages for item in page["Items"] if item["pk"]["S"].startswith("B#")]
    return Ledger(
        emails=tuple(_stored(item) for item in found if item["sk"]["S"].startswith("E#")),
        due=tuple(str(items.id_of_key(item)) for item in found if "due_at" in item),
    )


def _stored(item: Any) -> StoredEmail:
    email = items.read_email(item)
    return StoredEmail(
        id=str(email.id),
        address=email.to.email,
        status=email.status,
        attempts=tuple((attempt.provider, attempt.outcome) for attempt in email.attempts),
        reason=email.attempts[-1].reason if email.attempts else None,
    )


def read_mailbox(sandbox: Sandbox) -> tuple[tuple[str, str], ...]:
    """All that the providers took."""
    found: list[tuple[str, str]] = []
    while True:
        page = sandbox.messages(limit=PAGE, offset=len(found))
        found += [(message["to"]["email"], message["provider"]) for message in page]
        if len(page) < PAGE:
            return tuple(found)


def opened(message: str) -> str:
    """The text of a message's body, with what Celery wrapped in base64 unwrapped."""
    try:
        envelope = json.loads(message)
        inner = base64.b64decode(envelope["body"]).decode()
    except (ValueError, KeyError, TypeError, binascii.Error):
        return message
    return f"{message} {inner}"


def times_enqueued(messages: Iterable[str]) -> Counter[str]:
    """How many messages there were for each email, by its id."""
    return Counter(
        found[1]
        for message in messages
        if (found := re.search(rf'"({BATCH_ID}-\d+)"', opened(message))) is not None
    )


def batch_of(email_id: str) -> str:
    parsed = EmailId.parse(email_id)
    return parsed.batch_id if parsed else email_id
