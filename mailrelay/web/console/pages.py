"""What a page is: its template, its headers, and the pages that say what went wrong."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

import structlog
from flask import Blueprint, Flask, Response, g, render_template, request, url_for
from flask_wtf.csrf import CSRFError
from markupsafe import Markup
from werkzeug.exceptions import HTTPException, NotFound

from mailrelay import clock, delivery
from mailrelay.store import IndexMissing, StoreUnavailable
from mailrelay.web.console import timeline, times
from mailrelay.web.problems import Problem, problem

log = structlog.get_logger(__name__)

_HEADERS = {
    # Everything from here, nothing inline: whatever text gets into a page, it does not run.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
        " connect-src 'self'; frame-src 'self'; form-action 'self'; base-uri 'none';"
        " frame-ancestors 'none'"
    )
}

_MAIL_HEADERS = {
    # A mail in a frame of ours: its own styles and the images that it carries. No script, no form,
    # and nothing from elsewhere, which would tell its sender that it was looked at.
    "Content-Security-Policy": (
        "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none';"
        " form-action 'none'; frame-ancestors 'self'"
    ),
    "X-Frame-Options": "SAMEORIGIN",
}


def page(template: str, code: HTTPStatus = HTTPStatus.OK, /, **values: Any) -> Response:
    """A template of `console/` as an answer, the same for a whole page and for a part of one."""
    text = render_template(f"console/{template}", **values)
    return Response(text, code, dict(_HEADERS), content_type="text/html; charset=utf-8")


def mail(html: str, code: HTTPStatus = HTTPStatus.OK) -> Response:
    """The HTML of a mail, or why there is none, to be shown in a sandboxed frame of a page."""
    return Response(
        html, code, headers=dict(_MAIL_HEADERS), content_type="text/html; charset=utf-8"
    )


def register(app: Flask, console: Blueprint, flower_url: str | None) -> None:
    """Give the templates what they share, and `console` its errors as pages.

    An address that nobody has is a page for a browser, and a problem for other clients.
    """

    @console.app_context_processor
    def _shared() -> dict[str, Any]:
        return {
            "ago": _ago,
            "ago_rfc": lambda written: _ago(times.parsed(written)),
            "acceptance": delivery.acceptance,
            "last_error": delivery.last_error,
            "reason": timeline.reason,
            "retries": delivery.retries,
            "key_name": g.get("key_name"),
            "console_has": lambda name: f"console.{name}" in app.view_functions,
            "flower_url": flower_url,
        }

    app.jinja_env.filters.update(exact=times.exact, duration=times.duration)

    @console.errorhandler(StoreUnavailable)
    def _unavailable(unavailable: StoreUnavailable) -> Response:
        log.error("the store cannot be reached", error=unavailable)
        answer = error(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "The store cannot be reached",
            "Nothing was changed as far as can be known, and nothing that was accepted is lost. It is"
            " most likely a matter of moments: try again. If it lasts, mailrelay doctor says what is"
            " wrong, and /readyz whether it is over.",
            retry=True,
        )
        answer.headers["Retry-After"] = "5"
        return answer

    @console.errorhandler(IndexMissing)
    def _outdated(missing: IndexMissing) -> Response:
        log.error("the table lacks an index: run mailrelay init", error=missing)
        return error(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "The table lacks an index",
            "It was made by an earlier version of mailrelay, or its index is still being built. Have"
            " an operator run mailrelay init, which adds the index and waits for it. Mail is sent as"
            " ever meanwhile.",
            retry=True,
        )

    @console.errorhandler(CSRFError)
    def _forged(_: CSRFError) -> Response:
        return error(
            HTTPStatus.BAD_REQUEST,
            "This page is out of date",
            "It was opened before you last signed in, so nothing was done. Open it again and repeat"
            " what you did.",
        )

    @console.errorhandler(Problem)
    def _problem(refused: Problem) -> Response:
        said = json.loads(refused.response.get_data())
        answer = error(HTTPStatus(said["status"]), said["title"], said["detail"])
        if wait := refused.response.headers.get("Retry-After"):
            answer.headers["Retry-After"] = wait
        return answer

    @console.errorhandler(HTTPException)
    def _http(refused: HTTPException) -> Response:
        status = HTTPStatus(refused.code or HTTPStatus.INTERNAL_SERVER_ERROR)
        return error(status, status.phrase, refused.description or status.description)

    @console.errorhandler(Exception)
    def _unforeseen(unforeseen: Exception) -> Response:
        log.error("a request failed", error=unforeseen, exc_info=unforeseen)
        return error(
            HTTPStatus.INTERNAL_SERVER_ERROR,
            "Something is wrong here, not with you",
            "The log says more, under the name of this request.",
        )

    @app.errorhandler(HTTPStatus.NOT_FOUND)
    def _nowhere(nowhere: NotFound) -> Response:
        # A browser says so itself; a client that takes anything does not want a page.
        if "text/html" in request.headers.get("Accept", ""):
            return not_found("There is nothing at this address.")
        return problem(HTTPStatus.NOT_FOUND, nowhere.description or "")


def not_found(detail: str) -> Response:
    """What is not there, or not for this key."""
    return error(HTTPStatus.NOT_FOUND, "Not found", detail)


def error(status: HTTPStatus, title: str, detail: str, *, retry: bool = False) -> Response:
    """A page that says what went wrong; with `retry`, that trying again may help."""
    return page("error.html", status, title=title, detail=detail, code=status.value, retry=retry)


def _ago(ms: int) -> Markup:
    return times.tag(ms, clock.now())


def home() -> str:
    """Where a session begins."""
    return url_for("console.overview")
