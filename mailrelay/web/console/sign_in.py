"""Signing in with an API key, and out."""

from __future__ import annotations

from http import HTTPStatus

from flask import Blueprint, Response, redirect, request
from werkzeug.wrappers import Response as BaseResponse

from mailrelay.web.auth import Gate
from mailrelay.web.console import session
from mailrelay.web.console.pages import home, page

_WRONG_KEYS = ""
"""Whose limit attempts with wrong keys count for: no key can have that name."""


def register(console: Blueprint, gate: Gate, *, local: bool) -> None:
    """`local` is whether `make run` has made the key, and so says where it is."""

    @console.get("/sign-in")
    def sign_in() -> Response:
        return form()

    def form(status: HTTPStatus = HTTPStatus.OK, error: str | None = None) -> Response:
        return page(
            "sign_in.html",
            status,
            error=error,
            expired="expired" in request.args,
            next=request.args.get("next", ""),
            local=local,
        )

    @console.post("/sign-in")
    def signed_in() -> BaseResponse:
        key = request.form.get("key", "").strip()
        name = gate.name_of(key)
        gate.admit(_WRONG_KEYS if name is None else name)
        if name is None:
            said = "This API key is not known." if key else "Give an API key."
            return form(HTTPStatus.UNAUTHORIZED, said)
        session.begin(name, gate.fingerprint(name) or "")
        return redirect(_within(request.args.get("next", "")) or home(), 303)

    @console.post("/sign-out")
    def sign_out() -> BaseResponse:
        session.end()
        return redirect(home(), 303)


def _within(address: str) -> str | None:
    """The address if it is a path of ours: a link to the sign-in page must lead nobody elsewhere."""
    ours = address.startswith("/") and address[1:2] not in ("/", "\\") and address.isprintable()
    return address if ours else None
