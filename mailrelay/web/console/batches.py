"""``/batches``: find a batch or an email by its id, and watch a batch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus

from flask import Blueprint, Response, redirect, request, url_for
from werkzeug.wrappers import Response as BaseResponse

from mailrelay import clock
from mailrelay.message import BATCH_ID, Email, Status
from mailrelay.relay import BatchView, Relay
from mailrelay.web import representations
from mailrelay.web.console import pages, polling, recent, session
from mailrelay.web.schemas import MAX_DESTINATIONS

PAGE = 50
"""Emails of a batch that are shown at once."""


def register(console: Blueprint, relay: Relay) -> None:
    @console.get("/batches")
    def batches() -> BaseResponse:
        given = request.args.get("id", "").strip()
        address = _address(given)
        if address is not None:
            return redirect(address, HTTPStatus.SEE_OTHER)
        error = "This is no id of a batch or an email. One looks like 01J0Z3NDEKTSV4RRFFQ69G5FAV."
        return pages.page(
            "batches.html",
            given=given,
            error=error if given else None,
            recent=recent.asked_for(relay),
        )

    @console.get("/batches/<batch_id>")
    def batch(batch_id: str) -> Response:
        view = None
        if re.fullmatch(BATCH_ID, batch_id):
            view = relay.batch(batch_id, session.key_name(), 0, MAX_DESTINATIONS)
        if view is None:
            return pages.not_found("There is no batch with this id, or it is another key's.")
        chosen = next((each for each in Status if each == request.args.get("status")), None)
        page = min(max(request.args.get("page", 1, type=int), 1), MAX_DESTINATIONS)
        return pages.page(
            "batch.html",
            batch=view.batch,
            status=status_of(view),
            counts=view.counts,
            shares=shares(view.counts),
            chosen=chosen,
            listing=listing(view.emails, chosen, page),
            poll=polling.seconds(view.counts, _last_change(view), clock.now()),
        )


def _address(text: str) -> str | None:
    """The page of what a pasted id or link names."""
    found = re.search(
        rf"(?<![0-9A-Z])({BATCH_ID})(?:[-/]([0-9]{{1,4}}))?(?![0-9A-Z])", text.upper()
    )
    if found is None:
        return None
    batch_id, index = found.groups()
    if index is None:
        return url_for("console.batch", batch_id=batch_id)
    return url_for("console.email", batch_id=batch_id, index=int(index))


def status_of(view: BatchView) -> str:
    """Of the batch as a whole, as the API says it."""
    status: str = representations.batch(replace(view, emails=()))["status"]
    return status


@dataclass(frozen=True, slots=True)
class Share:
    """A part of the progress bar; `start` and `width` are in emails."""

    status: Status
    start: int
    width: int


_IN_THE_BAR = (
    Status.SENT,
    Status.FAILED,
    Status.UNKNOWN,
    Status.DEFERRED,
    Status.SENDING,
    Status.QUEUED,
)
"""What is over comes first, so that the bar fills from the left."""


def shares(counts: Mapping[Status, int]) -> list[Share]:
    """The bar, from left to right."""
    found, start = [], 0
    for status in _IN_THE_BAR:
        if width := counts.get(status, 0):
            found.append(Share(status, start, width))
            start += width
    return found


@dataclass(frozen=True, slots=True)
class Listing:
    """One page of a batch's emails."""

    emails: Sequence[Email]
    page: int
    pages: int


def listing(emails: Sequence[Email], status: Status | None, page: int) -> Listing:
    """The page of those that have the status, or of all; the last one where there are fewer."""
    chosen = [email for email in emails if status in (None, email.status)]
    pages = max(1, -(-len(chosen) // PAGE))
    page = min(page, pages)
    return Listing(chosen[(page - 1) * PAGE : page * PAGE], page, pages)


def _last_change(view: BatchView) -> int:
    times = [view.batch.created_at]
    times += [email.restarted_at or email.last_attempt_at or 0 for email in view.emails]
    return max(times)
