"""A browser without a screen: pages, forms and their tokens, over Flask's test client."""

from __future__ import annotations

import re
from html import unescape
from html.parser import HTMLParser
from typing import Any

from flask import Flask
from werkzeug.test import TestResponse

HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
"""What browsers say that they take."""


class Browser:
    """Keeps its cookies, and sends with each form the token of the page that it was on."""

    def __init__(self, app: Flask) -> None:
        self.client = app.test_client()
        self.page = ""
        """The last page that was shown."""

    def get(self, path: str, **options: Any) -> TestResponse:
        return self._shown(
            self.client.get(path, headers=HTML | options.pop("headers", {}), **options)
        )

    def post(self, path: str, **fields: Any) -> TestResponse:
        """Press a button of the page; `csrf_token=None` leaves the token out."""
        fields = {"csrf_token": token_of(self.page), **fields}
        data = {name: value for name, value in fields.items() if value is not None}
        return self._shown(
            self.client.post(path, data=data, headers=HTML, content_type="multipart/form-data")
        )

    def sign_in(self, key: str, path: str = "/sign-in") -> TestResponse:
        self.get(path)
        return self.post(path, key=key)

    def _shown(self, response: TestResponse) -> TestResponse:
        if response.status_code not in (302, 303):
            self.page = response.text
        return response


def token_of(page: str) -> str:
    found = re.search(r'name="csrf_token" value="([^"]+)"', page)
    return found[1] if found else ""


def value_of(page: str, name: str) -> str:
    """What the field of that name holds."""
    found = re.search(rf'<input[^>]* name="{name}"[^>]* value="([^"]*)"', page) or re.search(
        rf'<textarea[^>]* name="{name}"[^>]*>(.*?)</textarea>', page, re.DOTALL
    )
    assert found, f"the page has no field {name}"
    return unescape(found[1])


def text_of(page: str) -> str:
    """What a reader sees of it, in one line."""
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", page)).split())


class Inline(HTMLParser):
    """Finds what a strict policy forbids: scripts, styles and handlers that stand in the page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "style" or (tag == "script" and "src" not in given):
            self.found.append(f"<{tag}>")
        for name, value in given.items():
            scheme = (value or "").strip().lower().startswith("javascript:")
            if name == "style" or name.startswith(("on", "hx-on")) or scheme:
                self.found.append(f"<{tag} {name}>")
            address = (value or "") if name in ("src", "href", "action", "formaction") else ""
            if tag in ("script", "link", "img", "iframe") and "//" in address:
                self.found.append(f"<{tag} {name}={address}>")
