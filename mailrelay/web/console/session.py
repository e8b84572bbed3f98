"""Who is signed in: a cookie that holds the name of an API key, and ends."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from flask import Blueprint, Flask, Request, Response, g, redirect, request, session, url_for
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface
from flask_wtf import CSRFProtect
from werkzeug.wrappers import Response as BaseResponse

from mailrelay import clock
from mailrelay.store import StoreUnavailable
from mailrelay.web.auth import Gate

LIFETIME = 8 * 3600
"""Seconds from signing in until it has to be done again: a working day."""

_MAX_FORM = 25_000_000
"""Bytes of a form's fields: as much as the API takes; Werkzeug takes 500 kB unless told."""

_STRANGERS_FORM = 1_000_000
"""Bytes of a request of who is not signed in."""

_FOR_STRANGERS = ("console.sign_in", "console.signed_in")
"""What who is not signed in may ask for."""

_CHECKS_ITSELF = ("console.sent", "console.add_recipients", "console.preview")
"""What calls `let_in` when it has read the form, so as to give it back."""

_csrf = CSRFProtect()


class _Sessions(SecureCookieSessionInterface):
    """Flask's signed cookies, whose secret is first asked for when a request brings one.

    The API brings none, and needs nothing of this.
    """

    digest_method = staticmethod(hashlib.sha256)

    def __init__(self, secret: Callable[[], str]) -> None:
        self._secret = secret

    def get_cookie_secure(self, app: Flask) -> bool:
        return request.is_secure

    def open_session(self, app: Flask, request: Request) -> SecureCookieSession:
        if self.get_cookie_name(app) in request.cookies and not app.secret_key:
            try:
                app.secret_key = self._secret()
            except StoreUnavailable:
                # No place for an error: `_let_in` asks again.
                return self.session_class()
        return super().open_session(app, request) or self.session_class()


def register(app: Flask, console: Blueprint, secret: Callable[[], str], gate: Gate) -> None:
    """Have `app` keep sessions, and `console` ask for one."""
    app.session_interface = _Sessions(secret)
    app.config.update(
        SESSION_COOKIE_NAME="mailrelay_session",
        SESSION_COOKIE_HTTPONLY=True,
        # Lax: a link in a chat leads to the batch and not to the sign-in page.
        SESSION_COOKIE_SAMESITE="Lax",
        PERMANENT_SESSION_LIFETIME=LIFETIME,
        SESSION_REFRESH_EACH_REQUEST=False,
        # The API has no cookies, so nothing to protect.
        WTF_CSRF_CHECK_DEFAULT=False,
        WTF_CSRF_TIME_LIMIT=None,  # the session's own
        # It would take the Referer, which our policy has browsers leave out. The token is enough.
        WTF_CSRF_SSL_STRICT=False,
    )
    _csrf.init_app(app)

    @console.before_request
    def _let_in() -> None:
        if not app.secret_key:
            app.secret_key = secret()
        g.key_name = _signed_in(gate)
        if g.key_name is None:
            # What a stranger sends is not worth much memory.
            request.max_content_length = _STRANGERS_FORM
        else:
            gate.admit(g.key_name)
            request.max_form_memory_size = _MAX_FORM
        if request.endpoint not in _CHECKS_ITSELF:
            let_in(strangers=request.endpoint in _FOR_STRANGERS)

    @console.errorhandler(SignedOut)
    def _signed_out(_: SignedOut) -> BaseResponse:
        return _to_sign_in()


class SignedOut(Exception):
    """Nobody is signed in, or not any more."""


def let_in(*, strangers: bool = False) -> None:
    """Raise `SignedOut`, or `CSRFError` where a form is none of ours; `strangers` need no session."""
    if g.key_name is None and not strangers:
        raise SignedOut
    _csrf.protect()


def begin(name: str, fingerprint: str) -> None:
    """Sign in whoever has the key of that name; see `Gate.fingerprint`."""
    session.clear()
    session.permanent = True
    session.update(name=name, key=fingerprint, until=clock.now() // 1000 + LIFETIME)


def end() -> None:
    session.clear()


def key_name() -> str:
    """The name of the API key that the request under way is signed in with."""
    found: str = g.key_name
    return found


def _signed_in(gate: Gate) -> str | None:
    """Whose session it is, unless it is over: by its time, or since the key is no longer there."""
    name = session.get("name")
    known = gate.fingerprint(name) if name else None
    if known is None or session["until"] <= clock.now() // 1000:
        return None
    return name if hmac.compare_digest(known, session["key"]) else None


def _to_sign_in() -> BaseResponse:
    """There and back again, where the way back is a page."""
    back: dict[str, Any] = {"expired": 1} if session.get("name") else {}
    if "HX-Request" in request.headers:
        shown = urlsplit(request.headers.get("HX-Current-URL", ""))
        back["next"] = shown.path + (shown.query and f"?{shown.query}")
    elif request.method == "GET":
        back["next"] = request.full_path.rstrip("?")
    address = url_for("console.sign_in", **back)
    if "HX-Request" in request.headers:
        # A redirect's page would be put where a part of this one was.
        return Response(status=401, headers={"HX-Redirect": address})
    return redirect(address, 303)
