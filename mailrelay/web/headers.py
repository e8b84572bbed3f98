"""What each answer says to browsers, and to whatever keeps copies on the way."""

from __future__ import annotations

from flask import Flask, Response

HEADERS = {
    # Answers hold addresses and subjects: neither a proxy nor a browser keeps them.
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # JSON and text: nothing in them is to run, load or be shown inside of another page.
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
}


def register(app: Flask) -> None:
    """Have `app` send them with every answer; a page that needs another policy sets its own."""

    @app.after_request
    def _add(response: Response) -> Response:
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        return response
