"""What has just happened, as frozen records for whoever watches: the logs and the metrics.

The core says each thing once, to one observer, and knows neither of them. No record holds
anything of a mail but ids.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mailrelay.circuit import Circuit
from mailrelay.message import Attempt, EmailId, Status


@dataclass(frozen=True, slots=True)
class BatchAccepted:
    """A batch is stored, and its client is about to be told so."""

    batch_id: str
    key_name: str
    emails: int
    enqueued: bool
    """False if the queue could not be reached: the sweep will ask for the deliveries."""


@dataclass(frozen=True, slots=True)
class AttemptEnded:
    """A provider was asked, and what came of it is written down."""

    email_id: EmailId
    attempt: Attempt
    status: Status | None
    """Where the email is now; None if it was no longer ours to change."""
    accepted_ago: int
    """Milliseconds since the email's batch was accepted."""


@dataclass(frozen=True, slots=True)
class EmailPutOff:
    """Its provider's rate was used up: the email comes back later."""

    email_id: EmailId
    provider: str
    wait: int
    """In milliseconds."""


@dataclass(frozen=True, slots=True)
class EmailSwept:
    """The sweep found an email due and changed what is to become of it."""

    email_id: EmailId
    request_id: str | None
    """Of the request that sent it: a sweep is none of its own."""
    was: Status
    status: Status
    next_attempt: int
    abandoned: Attempt | None
    """The attempt that was under way when its worker died, if one was."""


@dataclass(frozen=True, slots=True)
class ShardSwept:
    """One sweep of a shard of the due index, ended or cut short."""

    shard: int
    found: int
    """Emails and batches that were due."""
    most_overdue: int
    """For how many milliseconds the first of them had been due; 0 if nothing was."""
    enqueued: int
    ended: int
    """Emails whose abandoned attempt was their last, or that wait again."""
    withdrawn: int
    """Batches that never got complete."""
    duration_ms: int
    complete: bool
    """False if it was out of time or AWS failed it: the next sweep goes on."""


@dataclass(frozen=True, slots=True)
class CircuitChanged:
    """A provider is left alone from now on, is tried, or is asked again."""

    before: Circuit
    after: Circuit


@dataclass(frozen=True, slots=True)
class EmailResent:
    """A person had an email's chain begin again."""

    email_id: EmailId
    request_id: str | None
    """Of the request that sent it first, as all of its attempts have it."""
    was: Status
    next_attempt: int
    enqueued: bool
    """As of a batch."""


@dataclass(frozen=True, slots=True)
class EmailResolved:
    """A person said how an email ended that was `unknown`."""

    email_id: EmailId
    request_id: str | None
    """Of the request that sent it."""
    status: Status


Observation = (
    BatchAccepted
    | AttemptEnded
    | EmailPutOff
    | EmailSwept
    | ShardSwept
    | CircuitChanged
    | EmailResent
    | EmailResolved
)

Observer = Callable[[Observation], None]
