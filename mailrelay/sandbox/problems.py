"""Errors of the sandbox's own API: RFC 9457, `application/problem+json`."""

import json
import sys
from traceback import extract_tb
from typing import Any

from flask import Flask, Response
from werkzeug.exceptions import HTTPException


def problem(status: int, title: str, **more: Any) -> Response:
    """A problem document; `more` are further members, such as `detail` and `errors`."""
    return Response(
        json.dumps({"type": "about:blank", "title": title, "status": status, **more}),
        status,
        content_type="application/problem+json",
    )


def invalid(errors: dict[str, str]) -> Response:
    """`422`, with each bad field's name and what it takes."""
    detail = "; ".join(f"{name}: {message}" for name, message in errors.items())
    return problem(422, "Unprocessable Content", detail=detail, errors=errors)


def install(app: Flask) -> None:
    """Turns every exception that leaves a view into a problem document."""
    app.register_error_handler(HTTPException, _http_problem)
    app.register_error_handler(Exception, _unforeseen)


def _http_problem(error: HTTPException) -> Response:
    response = problem(error.code or 500, error.name, detail=error.description)
    # `Allow` of a 405 and the like.
    for name, value in error.get_headers():
        response.headers.setdefault(name, value)
    return response


def _unforeseen(error: Exception) -> Response:
    """Says where it happened, and not what: the text may hold an address or a key."""
    *_, frame = extract_tb(error.__traceback__)
    place = f"{frame.filename}:{frame.lineno}"
    sys.stderr.write(f"sandbox: {type(error).__name__} at {place}\n")
    return problem(500, "Internal Server Error")
