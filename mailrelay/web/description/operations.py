"""Each route of the API: what it takes and what it answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Any

from marshmallow import Schema

from mailrelay import answers
from mailrelay.message import BATCH_ID, EMAIL_ID
from mailrelay.web import problems
from mailrelay.web.description import examples
from mailrelay.web.schemas import (
    IdempotencySchema,
    PageSchema,
    ResendSchema,
    ResolveSchema,
    SubmissionSchema,
)

Operation = dict[str, Any]

HEADERS: dict[str, dict[str, Any]] = {
    "X-Request-ID": {
        "description": "What the request was called, by its own X-Request-ID or by the relay.",
        "required": True,
        "schema": {"type": "string"},
    },
    "Retry-After": {
        "description": "Seconds until it is worth asking again, where that can be said.",
        "schema": {"type": "integer", "minimum": 1},
    },
    "Location": {
        "description": "Where the batch is shown.",
        "required": True,
        "schema": {"type": "string", "pattern": f"^/emails/{BATCH_ID}$"},
    },
    "Idempotency-Replayed": {
        "description": "This is what the first request with the Idempotency-Key was answered.",
        "schema": {"const": "true"},
    },
    "WWW-Authenticate": {
        "description": "How to present an API key.",
        "required": True,
        "schema": {"const": "Bearer"},
    },
}

_ACCEPTED_HEADERS = ("Location", "Idempotency-Replayed")

_REQUEST_ID = {
    "name": "X-Request-ID",
    "in": "header",
    "description": (
        "What to call the request, in its answer and in the relay's logs: 1 to 128 of"
        " `A-Za-z0-9._:/+=-`. Anything else is passed over, and a name made for it."
    ),
    "schema": {"type": "string"},
}

Errors = dict[str, list[str]]
Shown = str | Errors | tuple[str, Errors]
"""A problem's `detail`, its `errors` (which make its `detail`), or both."""

_WHEN = {
    400: "The body is not JSON.",
    401: "No API key, or a wrong one.",
    404: "Nothing is there with this id, for this API key.",
    409: "What was asked cannot be done now.",
    413: "The body, or the content, is over a size limit.",
    415: "The body's type is not JSON.",
    422: "Fields, query or headers are wrong.",
    429: "Too many requests with this API key.",
    500: "A defect of the relay's. Nobody knows what came of the request.",
    503: "DynamoDB cannot be reached, or S3 for large contents; of `/readyz`, DynamoDB or SQS.",
}

_PROBLEM_HEADERS = {
    401: ("WWW-Authenticate",),
    409: ("Retry-After",),
    429: ("Retry-After",),
    503: ("Retry-After",),
}

_OF_A_KEY: dict[int, dict[str, Shown]] = {
    401: {
        "none": "Send an API key: Authorization: Bearer <key>.",
        "unknown": "This API key is not known.",
    },
    429: {"often": "Too many requests with this API key."},
    500: {"unforeseen": "Something is wrong here, not with you."},
    503: {"store": "The store cannot be reached."},
}
"""The problems of every route that takes an API key."""

_OF_A_BODY: dict[int, dict[str, Shown]] = {
    400: {
        "broken": "The body is not JSON: Expecting value at line 1 column 1.",
        "twice": "The body has the field 'subject' twice.",
    },
    413: {"body": "The body may have at most 25 MB."},
    415: {"other": "Send JSON, with Content-Type: application/json."},
}

_OF_AN_EMAIL: dict[int, dict[str, Shown]] = {
    404: {
        "nothing": "There is no email with this id.",
        "batch": f"This is a batch's id; give one of an email, such as {examples.EMAIL_ID}.",
    },
}


def operations(chain: Sequence[str]) -> dict[str, dict[str, Operation]]:
    """Path Item Objects by path, where the providers of `chain` are configured."""
    return {
        "/emails/send": {"post": _send(chain)},
        "/emails/{id}": {"get": _show()},
        "/emails/{id}/resend": {"post": _resend()},
        "/emails/{id}/resolve": {"post": _resolve()},
        "/providers": {"get": _providers()},
        "/healthz": {"get": _healthz()},
        "/readyz": {"get": _readyz()},
        "/metrics": {"get": _metrics()},
        "/openapi.json": {"get": _openapi()},
    }


def _send(chain: Sequence[str]) -> Operation:
    return {
        "operationId": "send",
        "tags": ["Emails"],
        "summary": "Send an email to 1 to 1,000 recipients",
        "description": (
            "`202` means: every recipient is stored. Whatever crashes from now on, each email ends"
            " `sent`, or `failed` with a reason (or `unknown`, where the relay is set up to avoid"
            " doubles)."
        ),
        "parameters": [{"in": "header", "schema": IdempotencySchema}, _REQUEST_ID],
        "requestBody": _body(SubmissionSchema(chain), examples.SUBMISSIONS),
        "responses": {
            "202": {
                **_answer(
                    "Every recipient is stored.",
                    "Accepted",
                    {"one": examples.ACCEPTED},
                    _ACCEPTED_HEADERS,
                ),
                "links": {
                    "batch": _link("show", "$response.body#/id"),
                    "email": _link("show", "$response.body#/emails/0/id"),
                    "resend": _link("resend", "$response.body#/emails/0/id"),
                    "resolve": _link("resolve", "$response.body#/emails/0/id"),
                },
            },
            **_problems(
                _OF_A_KEY,
                _OF_A_BODY,
                {
                    409: {
                        "under way": (
                            "The first request with this Idempotency-Key is still under way."
                        )
                    },
                    413: {
                        "content": (
                            "The content is over 350 KB compressed, and no bucket is configured for"
                            " such content (MAILRELAY_BUCKET)."
                        )
                    },
                    422: {
                        "fields": {
                            "destinations.0.email": ["An email address must have an @-sign."],
                            "plainContent": ["Give plainContent, htmlContent or both."],
                        },
                        "sender": {
                            "from.email": ["This API key may send from @example.com only."]
                        },
                        "key used": (
                            "This Idempotency-Key was used before, with another body.",
                            {"Idempotency-Key": ["This key was used before, with another body."]},
                        ),
                    },
                    503: {
                        "store": (
                            "The store cannot be reached, and nothing was accepted as far as can be"
                            " known. Send it again with an Idempotency-Key, so that it is never sent"
                            " twice."
                        )
                    },
                },
            ),
        },
    }


def _show() -> Operation:
    return {
        "operationId": "show",
        "tags": ["Emails"],
        "summary": "Show a batch, or an email with each attempt at it",
        "description": (
            "A batch shows its emails in pages, without their attempts. What another API key sent is"
            " not there. `limit` and `cursor` are of a batch."
        ),
        "parameters": [
            _id("A batch's or an email's.", rf"{BATCH_ID}(-(0|[1-9][0-9]{{0,3}}))?"),
            {"in": "query", "schema": PageSchema},
            _REQUEST_ID,
        ],
        "responses": {
            "200": _answer(
                "The email, or the batch.",
                {
                    "oneOf": [_ref("Email"), _ref("Batch")],
                    "discriminator": {
                        "propertyName": "object",
                        "mapping": {
                            "email": "#/components/schemas/Email",
                            "batch": "#/components/schemas/Batch",
                        },
                    },
                },
                {"email": examples.EMAIL, "batch": examples.BATCH},
            ),
            **_problems(
                _OF_A_KEY,
                {
                    404: {"nothing": "There is no email and no batch with this id."},
                    422: {
                        "page": {
                            "limit": ["Takes a whole number from 1 to 1000."],
                            "cursor": ["Takes the nextCursor of an earlier answer."],
                        }
                    },
                },
            ),
        },
    }


def _resend() -> Operation:
    return {
        "operationId": "resend",
        "tags": ["Emails"],
        "summary": "Have one email sent again",
        "description": (
            "Of an email that is `unknown`, `failed` or `deferred`: the chain of providers begins"
            " again at once, with the whole retry schedule before it. Of an `unknown` one the"
            " recipient may get a second. It takes no body."
        ),
        "parameters": [_id("An email's.", EMAIL_ID), _REQUEST_ID],
        "requestBody": _body(ResendSchema, {"none": {"value": {}}}, required=False),
        "responses": {
            "202": _answer("The email as it is now.", "Email", {"queued": examples.RESENT}),
            **_problems(
                _OF_A_KEY,
                _OF_A_BODY,
                _OF_AN_EMAIL,
                {
                    409: {
                        "status": (
                            "The email is queued; resend takes one that is unknown, failed or deferred."
                        )
                    },
                    422: {"fields": {"status": ["Unknown field."]}},
                },
            ),
        },
    }


def _resolve() -> Operation:
    return {
        "operationId": "resolve",
        "tags": ["Emails"],
        "summary": "Say how one email ended that is unknown",
        "description": (
            "Look for it at its provider first. Nothing is sent. Of an email that has the status"
            " already, nothing changes."
        ),
        "parameters": [_id("An email's.", EMAIL_ID), _REQUEST_ID],
        "requestBody": _body(ResolveSchema, examples.RESOLUTIONS),
        "responses": {
            "200": _answer("The email as it is now.", "Email", {"sent": examples.RESOLVED}),
            **_problems(
                _OF_A_KEY,
                _OF_A_BODY,
                _OF_AN_EMAIL,
                {
                    409: {"status": "The email is queued; resolve takes one that is unknown."},
                    422: {"fields": {"status": ["Must be sent or failed."]}},
                },
            ),
        },
    }


def _providers() -> Operation:
    return {
        "operationId": "providers",
        "tags": ["Providers"],
        "summary": "Show how each provider does, and how fast it may be asked",
        "parameters": [_REQUEST_ID],
        "responses": {
            "200": _answer(
                "Every provider of the chain.", "Providers", {"one away": examples.PROVIDERS}
            ),
            **_problems(_OF_A_KEY),
        },
    }


def _healthz() -> Operation:
    return _open(
        "healthz",
        "Whether the process lives",
        {"200": _answer("All is well.", "Health", {"alive": {"status": "ok"}})},
    )


def _readyz() -> Operation:
    return _open(
        "readyz",
        "Whether DynamoDB and SQS answer",
        {
            "200": _answer("All is well.", "Health", {"ready": {"status": "ok"}}),
            **_problems({503: {"away": "No answer from SQS."}}),
        },
    )


def _metrics() -> Operation:
    text = {"schema": {"type": "string"}}
    kinds = ("text/plain", "application/openmetrics-text")
    answer = _response("Prometheus's format, or OpenMetrics where Accept asks for it.")
    return _open(
        "metrics", "The metrics", {"200": {**answer, "content": dict.fromkeys(kinds, text)}}
    )


def _openapi() -> Operation:
    content = {
        "application/json": {"schema": {"type": "object", "required": ["openapi", "paths"]}}
    }
    answer = {**_response("OpenAPI 3.1, as JSON."), "content": content}
    return _open("openapi", "This description", {"200": answer})


def _open(name: str, summary: str, responses: dict[str, Any]) -> Operation:
    """A route that takes no API key."""
    return {
        "operationId": name,
        "tags": ["Watching"],
        "summary": summary,
        "security": [],
        "responses": responses,
    }


# What requests are made of


def _body(
    schema: Schema | type[Schema], shown: dict[str, Any], *, required: bool = True
) -> dict[str, Any]:
    content = {"application/json": {"schema": schema, "examples": shown}}
    return {"required": required, "content": content}


def _id(description: str, pattern: str) -> dict[str, Any]:
    return {
        "name": "id",
        "in": "path",
        "required": True,
        "description": description,
        "schema": {"type": "string", "pattern": f"^{pattern}$"},
    }


def _link(operation: str, id_: str) -> dict[str, Any]:
    return {"operationId": operation, "parameters": {"id": id_}}


# What answers are made of


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _response(description: str, headers: Iterable[str] = ()) -> dict[str, Any]:
    """`headers` are of `HEADERS`; each answer has an X-Request-ID."""
    refs = {name: {"$ref": f"#/components/headers/{name}"} for name in ("X-Request-ID", *headers)}
    return {"description": description, "headers": refs}


def _answer(
    description: str,
    schema: str | dict[str, Any],
    shown: dict[str, Any],
    headers: Iterable[str] = (),
) -> dict[str, Any]:
    """A good answer, with its examples by name."""
    content = {
        "schema": _ref(schema) if isinstance(schema, str) else schema,
        "examples": {name: {"value": value} for name, value in shown.items()},
    }
    return {**_response(description, headers), "content": {"application/json": content}}


def _problems(*kinds: dict[int, dict[str, Shown]]) -> dict[str, Any]:
    """The responses by status, with all that is shown of each; what comes later counts."""
    shown: dict[int, dict[str, Shown]] = {}
    for kind in kinds:
        for status, named in kind.items():
            shown[status] = {**shown.get(status, {}), **named}
    return {str(status): _problem(HTTPStatus(status), shown[status]) for status in sorted(shown)}


def _problem(status: HTTPStatus, shown: dict[str, Shown]) -> dict[str, Any]:
    content = {
        "schema": _ref("Problem"),
        "examples": {name: {"value": _problem_body(status, one)} for name, one in shown.items()},
    }
    return {
        **_response(_WHEN[status], _PROBLEM_HEADERS.get(status, ())),
        "content": {"application/problem+json": content},
    }


def _problem_body(status: HTTPStatus, shown: Shown) -> answers.Problem:
    if isinstance(shown, str):
        return problems.body(status, shown)
    detail, errors = shown if isinstance(shown, tuple) else (f"Wrong: {', '.join(shown)}.", shown)
    return problems.body(status, detail, errors)
