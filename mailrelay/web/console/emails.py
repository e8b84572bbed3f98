"""One email: its way, what comes next, and what a person may decide."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from flask import Blueprint, Response, abort, flash, redirect, request, url_for
from werkzeug.wrappers import Response as BaseResponse

from mailrelay import clock, delivery
from mailrelay.backlog import Backlog
from mailrelay.circuit import Circuit
from mailrelay.delivery import NotApplicable
from mailrelay.message import Email, EmailId, Status
from mailrelay.relay import Relay
from mailrelay.settings import Settings
from mailrelay.web.console import pages, polling, session, timeline


def register(console: Blueprint, relay: Relay, settings: Settings, backlog: Backlog) -> None:
    rounds = len(settings.retry_schedule) + 1

    @console.get("/batches/<batch_id>/<int:index>")
    def email(batch_id: str, index: int) -> Response:
        found, key_name = _id(batch_id, index), session.key_name()
        email = relay.email(found, key_name) if found else None
        batch = relay.accepted_batch(batch_id, key_name) if email else None
        if email is None or batch is None:
            return pages.not_found("There is no email with this id, or it is another key's.")
        now = clock.now()
        resendable = email.status in delivery.RESENDABLE
        circuits = backlog.waiting().circuits if resendable else None
        return pages.page(
            "email.html",
            email=email,
            batch=batch,
            steps=timeline.steps(email, rounds),
            acceptance=delivery.acceptance(email),
            retries=delivery.retries(email),
            resendable=resendable,
            left_alone=all_left_alone(email.chain, circuits or {}, now),
            resolvable=email.status is Status.UNKNOWN,
            in_mailbox=settings.sandbox_url is not None,
            poll=polling.seconds([email.status], _last_change(email), now),
        )

    @console.post("/batches/<batch_id>/<int:index>/resend")
    def resend(batch_id: str, index: int) -> BaseResponse:
        return decided(
            batch_id,
            index,
            lambda found: relay.resend(found, session.key_name()),
            "It is sent again: the chain begins anew.",
        )

    @console.post("/batches/<batch_id>/<int:index>/resolve")
    def resolve(batch_id: str, index: int) -> BaseResponse:
        if (given := request.form.get("status")) not in (Status.SENT, Status.FAILED):
            abort(HTTPStatus.BAD_REQUEST, "An email is found sent or failed.")
        return decided(
            batch_id,
            index,
            lambda found: relay.resolve(found, session.key_name(), Status(given)),
            f"Noted: it is {given}.",
        )

    def decided(
        batch_id: str, index: int, decide: Callable[[EmailId], Email | None], said: str
    ) -> BaseResponse:
        """Back to the email, with what came of it."""
        found = _id(batch_id, index)
        try:
            if found is None or decide(found) is None:
                return pages.not_found("There is no email with this id, or it is another key's.")
            flash(said, "good")
        except NotApplicable as error:
            # It has changed since the page was made.
            flash(str(error), "bad")
        address = url_for("console.email", batch_id=batch_id, index=index)
        return redirect(address, HTTPStatus.SEE_OTHER)


@dataclass(frozen=True, slots=True)
class LeftAlone:
    """That nobody of a chain is asked for now."""

    until: int | None
    """When the first is asked again, in milliseconds; None where none is before a person says so."""


def all_left_alone(
    chain: Sequence[str], circuits: Mapping[str, Circuit], now: int
) -> LeftAlone | None:
    """None where somebody would be asked, or where it is not known."""
    known = [circuits[name] for name in chain if name in circuits]
    if len(known) < len(chain) or any(circuit.passes(now) for circuit in known):
        return None
    return LeftAlone(
        min((circuit.until for circuit in known if circuit.until is not None), default=None)
    )


def _id(batch_id: str, index: int) -> EmailId | None:
    return EmailId.parse(f"{batch_id}-{index}")


def _last_change(email: Email) -> int:
    return max(email.last_attempt_at or 0, email.started_at)
