"""What the relay talks about: frozen records, and the words for their states.

Times are integers, milliseconds since the Unix epoch in UTC: DynamoDB sorts them as they are,
and the API shows milliseconds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple


class Status(StrEnum):
    """Where one email is. Only ``SENT`` and ``FAILED`` are final; ``UNKNOWN`` awaits a person."""

    QUEUED = "queued"
    SENDING = "sending"
    SENT = "sent"
    DEFERRED = "deferred"
    UNKNOWN = "unknown"
    FAILED = "failed"


class Outcome(StrEnum):
    """How one attempt at one provider ended, and so what follows (see `delivery.conclude`)."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    UNAVAILABLE = "unavailable"
    RETRY = "retry"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Address:
    """A mailbox: an address, and the name shown beside it."""

    email: str
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Content:
    """What is written to every recipient of a batch. At least one of the two texts is there."""

    plain: str | None = None
    html: str | None = None
    reply_to: Address | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


BATCH_ID = r"[0-9A-HJKMNP-TV-Z]{26}"
"""A batch's id: a ULID, which sorts by time (https://github.com/ulid/spec)."""

EMAIL_ID = rf"{BATCH_ID}-(0|[1-9][0-9]{{0,3}})"
"""An email's: its batch's, and its place in it."""


@dataclass(frozen=True, slots=True)
class EmailId:
    """An email's id: its batch's id and its place in the batch, counted from 0.

    Written ``<batch id>-<index>``, so that whoever has it can read the email with one GetItem.
    """

    batch_id: str
    index: int

    def __str__(self) -> str:
        return f"{self.batch_id}-{self.index}"

    @classmethod
    def parse(cls, text: str) -> EmailId | None:
        """The id that `text` writes, or None where it writes none."""
        if not re.fullmatch(EMAIL_ID, text):
            return None
        batch_id, _, index = text.partition("-")
        return cls(batch_id, int(index))


class Hint(NamedTuple):
    """What a task's message says: somebody should look at this email now.

    It may be lost, late or doubled; `attempt` is the fencing token that makes all but one
    of its copies void.
    """

    email_id: EmailId
    provider_index: int
    attempt: int
    request_id: str | None = None
    """What the request is called that sent the email, for whoever reads the logs; no part of it
    decides anything."""
    key_name: str | None = None
    """The API key's that sent the email: the queue is fair between keys. It is no part of the
    message, and not known to whoever received it."""


PASSED_OVER = "passed_over"
"""The code of an attempt that was not made, since its provider is left alone for now."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request to one provider, ended; or that none was made, since it is left alone."""

    number: int
    provider: str
    outcome: Outcome
    code: str | None
    """The provider's own code: an HTTP status or an error's name."""
    reason: str
    started_at: int
    duration_ms: int | None
    """None where nobody measured it: the worker died, or nobody was asked."""
    message_id: str | None = None
    """What the provider calls the email, if it accepted it."""

    @property
    def passed_over(self) -> bool:
        """Whether nobody was asked."""
        return self.code == PASSED_OVER


MAX_ATTEMPTS = 500
"""Attempts that one email can hold. DynamoDB's items have 400 KB, and an attempt with all that is
kept of a provider's words (500 characters) takes some 700 bytes."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One request to send: what its recipients have in common, but for the content."""

    id: str
    key_name: str
    """The name of the API key that sent it; nobody else sees it."""
    sender: Address
    subject: str
    chain: tuple[str, ...]
    """Names of providers, in the order in which they are tried."""
    total: int
    """How many recipients it has."""
    created_at: int
    ready: bool
    """Whether all of its recipients are stored; nothing of it is sent before that."""


@dataclass(frozen=True, slots=True)
class BatchSummary:
    """A batch as a list shows it."""

    id: str
    sender: Address
    subject: str
    total: int
    created_at: int


@dataclass(frozen=True, slots=True)
class Email:
    """One recipient of a batch, and all that has happened to it."""

    id: EmailId
    key_name: str
    to: Address
    chain: tuple[str, ...]
    status: Status
    attempt: int
    """The number of the attempt that is next or under way. It only grows."""
    provider_index: int
    """Which provider of the chain that attempt is for."""
    cycle: int
    """How many times the chain has been used up."""
    due_at: int | None
    """When somebody must look at it again, whatever has happened; None once that is over."""
    created_at: int
    last_attempt_at: int | None = None
    attempts: tuple[Attempt, ...] = ()
    request_id: str | None = None
    """What the request is called that sent it, in the logs."""
    restarted_at: int | None = None
    """When a person last had it sent anew; None if nobody has."""
    resolved_at: int | None = None
    """When a person said how it ended, after an attempt that ended `unknown`."""
    version: str = ""
    """The store's own: random, new with every change, what a conditional write compares."""

    @property
    def started_at(self) -> int:
        """When its retry schedule began."""
        return self.restarted_at or self.created_at

    @property
    def provider(self) -> str:
        """The provider that the next attempt, or the one under way, is for."""
        return self.chain[self.provider_index]

    @property
    def hint(self) -> Hint:
        """The message that asks a worker for the next attempt."""
        return Hint(self.id, self.provider_index, self.attempt, self.request_id, self.key_name)
