"""``/``: how the relay does."""

from __future__ import annotations

from flask import Blueprint, Response

from mailrelay.web.console.pages import page


def register(console: Blueprint) -> None:
    @console.get("/")
    def overview() -> Response:
        return page("overview.html")
