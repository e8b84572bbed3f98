"""The sandbox's web pages: the switches, the mailbox, one mail as a reader would show it."""

import math
from typing import Any

from flask import Blueprint, abort, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from mailrelay.sandbox.faults import (
    MAX_SECONDS,
    MAX_STATUS,
    MIN_STATUS,
    FaultError,
    Kind,
    parse_fault,
)
from mailrelay.sandbox.mail import PROVIDERS
from mailrelay.sandbox.mailbox import Mailbox
from mailrelay.sandbox.switchboard import Switchboard

MAILS_A_PAGE = 50
_MAX_PAGE = 10**9


def blueprint(mailbox: Mailbox, switchboard: Switchboard) -> Blueprint:
    """`/` and `/mail/<id>` to look at; the forms post to `/switches/…` and `/empty`."""
    routes = Blueprint("pages", __name__, template_folder="templates")

    @routes.get("/")
    def front() -> str:
        return front_page()

    def front_page(error: str | None = None) -> str:
        to = request.args.get("to", "").strip()
        page = min(max(request.args.get("page", 1, type=int), 1), _MAX_PAGE)
        total, mails = mailbox.newest(
            to=to or None, limit=MAILS_A_PAGE, offset=(page - 1) * MAILS_A_PAGE
        )
        return render_template(
            "front.html",
            error=error,
            faults=switchboard.faults(),
            requests=switchboard.requests(),
            kept=mailbox.counts(),
            kinds=list(Kind),
            limits={"status": (MIN_STATUS, MAX_STATUS), "seconds": (0, MAX_SECONDS)},
            mails=mails,
            total=total,
            to=to,
            page=page,
            pages=max(1, math.ceil(total / MAILS_A_PAGE)),
        )

    @routes.get("/mail/<path:mail_id>")
    def mail(mail_id: str) -> str:
        found = mailbox.find(mail_id)
        if found is None:
            abort(404, "No message has this id.")
        return render_template("mail.html", mail=found)

    @routes.post("/switches/<provider>")
    def turn(provider: str) -> Response | tuple[str, int]:
        if provider not in PROVIDERS:
            abort(404, "No provider has this name.")
        try:
            fault = parse_fault(_fault_fields())
        except FaultError as error:
            return front_page(f"{provider}: {error}"), 422
        switchboard.turn(provider, fault)
        return redirect(url_for("pages.front"), 303)

    @routes.post("/switches")
    def heal() -> Response:
        switchboard.heal()
        return redirect(url_for("pages.front"), 303)

    @routes.post("/empty")
    def empty() -> Response:
        mailbox.empty()
        return redirect(url_for("pages.front"), 303)

    return routes


def _fault_fields() -> dict[str, Any]:
    """The posted form with its numbers as numbers; what is none is left to `parse_fault`."""
    return {
        "kind": request.form.get("kind"),
        "status": request.form.get("status", type=int),
        "seconds": request.form.get("seconds", type=float),
    }
