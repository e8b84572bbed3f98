"""``/search``: what this key has sent to an address."""

from __future__ import annotations

from flask import Blueprint, Response, request

from mailrelay import addresses
from mailrelay.message import EmailId
from mailrelay.relay import Relay, SentTo
from mailrelay.web.console import session
from mailrelay.web.console.pages import page
from mailrelay.web.console.recipients import parse

PAGE = 25
"""Emails that are shown at once; no more may be asked for."""


def register(console: Blueprint, relay: Relay) -> None:
    @console.get("/search")
    def search() -> Response:
        given = request.args.get("to", "").strip()
        found: SentTo | None = None
        error = None
        if given:
            try:
                people = parse(given)
                address = addresses.normalize(people[0].email if len(people) == 1 else given)
            except ValueError as wrong:
                error = str(wrong)
            else:
                cursor = EmailId.parse(request.args.get("after", ""))
                found = relay.to(session.key_name(), address, cursor, PAGE)
        return page("search.html", given=given, error=error, found=found)
