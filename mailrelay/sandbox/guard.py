"""Keeps other web sites out of a server that asks nobody for a password.

The sandbox is meant for this machine's own programs and for its user's browser. A page from
elsewhere that runs in that browser could reach it in two ways, and is refused in both: with a
name of its own that it makes point to 127.0.0.1 (so only local names are served), and by posting
a form (so a browser must say that a change comes from the sandbox's own page).
"""

import re

from flask import Flask, Response, abort, request

_LOCAL_HOST = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?", re.IGNORECASE)

_HEADERS = {
    # Mails are shown in frames, which inherit this: no script, no remote image, no form.
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:;"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    # Not `no-referrer`: with that, browsers give the origin of our own forms as `null`.
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def install(app: Flask) -> None:
    """Checks every request of the app, and adds the headers to every answer."""
    app.before_request(_refuse_foreign)
    app.after_request(_add_headers)


def _refuse_foreign() -> None:
    if not _LOCAL_HOST.fullmatch(request.headers.get("Host", "")):
        abort(403, "The sandbox answers to localhost, 127.0.0.1 and [::1] only.")
    if request.method in ("GET", "HEAD", "OPTIONS"):
        return
    # Programs send neither header; browsers send one of them with every change.
    site = request.headers.get("Sec-Fetch-Site")
    origin = request.headers.get("Origin")
    own = f"{request.scheme}://{request.headers['Host']}"
    if site not in (None, "same-origin", "none") or (site is None and origin not in (None, own)):
        abort(403, "Another site's page must not change anything here.")


def _add_headers(response: Response) -> Response:
    response.headers.update(_HEADERS)
    return response
