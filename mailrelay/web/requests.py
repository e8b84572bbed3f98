"""What each request is called, and its one line in the log."""

from __future__ import annotations

import logging
import re
import time

import structlog
from flask import Flask, Response, g, request
from ulid import ULID

from mailrelay.message import BATCH_ID

log = structlog.get_logger(__name__)

HEADER = "X-Request-ID"

_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
"""What is taken for an id. It goes into logs and messages: no @, so that nobody's address does."""

_WATCHED = ("/healthz", "/readyz", "/metrics")

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT")

_EMAIL_OR_BATCH = re.compile(rf"{BATCH_ID}(-[0-9]{{1,4}})?")


def register(app: Flask) -> None:
    """Have each request of `app` named, in all of its lines and in its answer."""

    @app.before_request
    def _begin() -> None:
        # Whatever thread this is, it has served others.
        structlog.contextvars.clear_contextvars()
        given = request.headers.get(HEADER, "")
        g.request_id = given if _ID.fullmatch(given) else str(ULID())
        g.started = time.perf_counter()
        structlog.contextvars.bind_contextvars(request_id=g.request_id)

    @app.after_request
    def _end(response: Response) -> Response:
        response.headers[HEADER] = g.request_id
        log.log(
            _level(response.status_code),
            "a request was answered",
            method=request.method if request.method in _METHODS else "other",
            path=_path(),
            status=response.status_code,
            duration_ms=round((time.perf_counter() - g.started) * 1000),
            bytes=response.calculate_content_length(),
        )
        return response

    @app.teardown_request
    def _forget(_: BaseException | None) -> None:
        structlog.contextvars.clear_contextvars()


def current_id() -> str:
    """What the request under way is called."""
    found: str = g.request_id
    return found


def _level(status: int) -> int:
    if status >= 500:
        return logging.ERROR
    return logging.DEBUG if _asked_all_the_time() else logging.INFO


def _asked_all_the_time() -> bool:
    """By what watches the relay, and by a page of the console that looks again by itself."""
    page_looks_again = (
        request.method == "GET"
        and request.blueprint == "console"
        and "HX-Request" in request.headers
    )
    return page_looks_again or request.endpoint == "static" or request.path in _WATCHED


def _path() -> str | None:
    """The route, with an id in its place; None where there is no route.

    Clients write addresses into paths and queries; what is none of ours is not repeated.
    """
    if request.url_rule is None:
        return None
    path = request.url_rule.rule
    for name, value in (request.view_args or {}).items():
        if _EMAIL_OR_BATCH.fullmatch(str(value)):
            path = path.replace(f"<{name}>", str(value))
    return path
