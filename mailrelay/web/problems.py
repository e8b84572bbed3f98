"""Errors as RFC 9457 says: `application/problem+json`, for whatever goes wrong."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

import structlog
from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from mailrelay import answers
from mailrelay.delivery import NotApplicable
from mailrelay.relay import IdempotencyMismatch, StillAccepting
from mailrelay.store import ContentTooLarge, StoreUnavailable

log = structlog.get_logger(__name__)

_RETRY_AFTER = "5"
"""Seconds until it is worth asking again."""


def body(
    status: HTTPStatus, detail: str, errors: dict[str, list[str]] | None = None
) -> answers.Problem:
    """A problem. `errors` names each bad field: ``{"destinations.3.email": ["…"]}``."""
    problem: answers.Problem = {
        "type": "about:blank",
        "title": status.phrase,
        "status": status.value,
        "detail": detail,
    }
    if errors is not None:
        problem["errors"] = errors
    return problem


def problem(
    status: HTTPStatus,
    detail: str,
    *,
    errors: dict[str, list[str]] | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    """The answer that is the `body`'s problem."""
    # In ASCII: what it quotes of a request may hold halves of characters, which UTF-8 cannot.
    text = json.dumps(body(status, detail, errors))
    return Response(text, status.value, headers, content_type="application/problem+json")


class Problem(Exception):
    """Ends a request with a problem answer."""

    def __init__(self, status: HTTPStatus, detail: str, **kwargs: Any) -> None:
        super().__init__(detail)
        self.response = problem(status, detail, **kwargs)


def register(app: Flask) -> None:
    """Have `app` answer every error with a problem."""

    @app.errorhandler(Problem)
    def _problem(error: Problem) -> Response:
        return error.response

    @app.errorhandler(IdempotencyMismatch)
    def _mismatch(_: IdempotencyMismatch) -> Response:
        said = "was used before, with another body"
        return problem(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            f"This Idempotency-Key {said}.",
            errors={"Idempotency-Key": [f"This key {said}."]},
        )

    @app.errorhandler(StillAccepting)
    def _still_accepting(_: StillAccepting) -> Response:
        return problem(
            HTTPStatus.CONFLICT,
            "The first request with this Idempotency-Key is still under way.",
            headers={"Retry-After": _RETRY_AFTER},
        )

    @app.errorhandler(NotApplicable)
    def _not_applicable(error: NotApplicable) -> Response:
        return problem(HTTPStatus.CONFLICT, str(error))

    @app.errorhandler(ContentTooLarge)
    def _content_too_large(_: ContentTooLarge) -> Response:
        return problem(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            "The content is over 350 KB compressed, and no bucket is configured for such"
            " content (MAILRELAY_BUCKET).",
        )

    @app.errorhandler(StoreUnavailable)
    def _unavailable(error: StoreUnavailable) -> Response:
        log.error("the store cannot be reached", error=error)
        detail = "The store cannot be reached"
        if request.endpoint == "emails.send":
            detail += (
                ", and nothing was accepted as far as can be known. Send it again with an"
                " Idempotency-Key, so that it is never sent twice"
            )
        return problem(
            HTTPStatus.SERVICE_UNAVAILABLE,
            f"{detail}.",
            headers={"Retry-After": _RETRY_AFTER},
        )

    @app.errorhandler(HTTPException)
    def _http(error: HTTPException) -> Response:
        status = HTTPStatus(error.code or HTTPStatus.INTERNAL_SERVER_ERROR)
        detail = error.description or status.description
        if isinstance(error, RequestEntityTooLarge):
            limit = app.config["MAX_CONTENT_LENGTH"] // 1_000_000
            detail = f"The body may have at most {limit} MB."
        # What the answer has to say beside its body, such as Allow.
        kept = {
            name: value for name, value in error.get_headers() if name.lower() != "content-type"
        }
        return problem(status, detail, headers=kept)

    @app.errorhandler(Exception)
    def _unforeseen(error: Exception) -> Response:
        log.error("a request failed", error=error, exc_info=error)
        return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "Something is wrong here, not with you.")
