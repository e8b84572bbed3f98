"""What the API answers, field by field.

The web process builds these, ``/openapi.json`` describes them, and `mailrelay.client` returns them.
Times are RFC 3339 in UTC, to the millisecond.
"""

# No `from __future__ import annotations`: with it NotRequired is not seen at run time.
from typing import Annotated, Literal, NotRequired, TypedDict

from msgspec import Meta

EmailStatus = Literal["queued", "sending", "sent", "deferred", "unknown", "failed"]
BatchStatus = Literal["queued", "sent", "partial", "failed"]
AttemptOutcome = Literal["accepted", "rejected", "unavailable", "retry", "unknown"]

Time = Annotated[
    str, Meta(extra_json_schema={"format": "date-time"}, examples=["2026-11-24T09:02:58.459Z"])
]

_STATUS = Meta(
    description=(
        "`queued`: waits for a worker. `sending`: a worker is talking to a provider. `sent`: a provider"
        " accepted it. `deferred`: every provider failed, and the chain starts again at"
        " `nextAttemptAt`. `unknown`: a provider may or may not have accepted it, and a person"
        " decides. `failed`: refused as a message, or the retry schedule is used up; `error` says why."
    )
)


class Mailbox(TypedDict):
    """An address, and the name shown beside it if it has one."""

    email: str
    name: NotRequired[str]


class AcceptedEmail(TypedDict):
    """One recipient of a batch that was accepted."""

    id: Annotated[str, Meta(description="The batch's id and the recipient's place in it, from 0.")]
    email: str
    status: Literal["queued"]


class Accepted(TypedDict):
    """A batch of which every recipient is stored."""

    id: Annotated[str, Meta(description="The batch's.")]
    status: Literal["queued"]
    emails: Annotated[
        list[AcceptedEmail], Meta(description="In the order of the request's `destinations`.")
    ]


class Attempt(TypedDict):
    """One request to one provider, ended; or that none was made, since it is left alone."""

    number: Annotated[int, Meta(description="From 1; it only grows.")]
    provider: str
    outcome: Annotated[
        AttemptOutcome,
        Meta(
            description=(
                "`accepted`: the provider took it. `rejected`: the message itself is at fault, and no"
                " other provider is asked. `unavailable`: the provider will not work for us for now;"
                " with the code `passed_over` nobody was asked. `retry`: a passing fault. `unknown`:"
                " the request went out and no answer came back."
            )
        ),
    ]
    code: Annotated[str | None, Meta(description="An HTTP status, or the name of an error.")]
    reason: Annotated[str, Meta(description="In the provider's words.")]
    startedAt: Time
    durationMs: Annotated[
        int | None,
        Meta(description="Null where the worker died during the attempt, or nobody was asked."),
    ]


class Error(TypedDict):
    """What ended or last delayed an email."""

    code: str | None
    reason: str
    provider: str


class EmailSummary(TypedDict):
    """One recipient's email, as a batch lists it."""

    object: Literal["email"]
    id: str
    batchId: str
    to: Mailbox
    status: Annotated[EmailStatus, _STATUS]
    delivered: Annotated[bool, Meta(description="Whether a provider has accepted it.")]
    retries: Annotated[int, Meta(description="How many attempts failed.")]
    provider: Annotated[str | None, Meta(description="Who accepted it; null until then.")]
    providerMessageId: Annotated[
        str | None, Meta(description="What that provider calls it; null until then.")
    ]
    createdAt: Time
    lastAttemptAt: Time | None
    nextAttemptAt: Annotated[Time | None, Meta(description="Of a `deferred` email.")]
    resolvedAt: Annotated[
        Time | None, Meta(description="When a person said how it ended, if one did.")
    ]
    error: Annotated[
        Error | None,
        Meta(description="What ended or last delayed it; null while nothing has, and once sent."),
    ]


class Email(EmailSummary):
    """One recipient's email, with each attempt at it."""

    attempts: list[Attempt]


class Counts(TypedDict):
    """How many emails of a batch have each status."""

    queued: int
    sending: int
    sent: int
    deferred: int
    unknown: int
    failed: int


# A class could have no field called `from`.
Batch = TypedDict(
    "Batch",
    {
        "object": Literal["batch"],
        "id": str,
        "createdAt": Time,
        "from": Mailbox,
        "subject": str,
        "status": Annotated[
            BatchStatus,
            Meta(
                description=(
                    "`queued` while an email is `queued`, `sending`, `deferred` or `unknown`; then"
                    " `sent` if all were, `failed` if none was, `partial` otherwise."
                )
            ),
        ],
        "delivered": Annotated[bool, Meta(description="Whether all of it was sent.")],
        "total": int,
        "counts": Annotated[Counts, Meta(description="Of the whole batch.")],
        "emails": Annotated[list[EmailSummary], Meta(description="One page of them.")],
        "nextCursor": Annotated[
            str | None, Meta(description="The `cursor` of the next page; null on the last.")
        ],
    },
)
Batch.__doc__ = "One request to send: counts over all of its emails, and one page of these."


class Provider(TypedDict):
    """How one provider does, as all workers know it."""

    name: str
    status: Annotated[
        Literal["closed", "open", "half_open"],
        Meta(
            description=(
                "`closed`: it is asked. `open`: it is left alone. `half_open`: one email at a time"
                " tries whether it works again."
            )
        ),
    ]
    since: Time | None
    until: Annotated[Time | None, Meta(description="When it is tried again.")]
    outcome: Annotated[
        AttemptOutcome | None, Meta(description="Of the attempt that last had it left alone.")
    ]
    code: str | None
    held: Annotated[bool, Meta(description="Whether a person has it left alone.")]
    rate: Annotated[float | None, Meta(description="Emails a second, where a limit is set.")]


class Providers(TypedDict):
    """Every provider of the chain, in its order."""

    providers: list[Provider]


class Health(TypedDict):
    """All is well."""

    status: Literal["ok"]


class Problem(TypedDict):
    """An error, as RFC 9457 says."""

    type: Literal["about:blank"]
    title: Annotated[str, Meta(description="The status in words.")]
    status: Annotated[int, Meta(description="The HTTP status again.")]
    detail: Annotated[str, Meta(description="What is wrong, for a person.")]
    errors: NotRequired[
        Annotated[
            dict[str, list[str]],
            Meta(description="With a 422: each bad field by its path, as `destinations.3.email`."),
        ]
    ]
