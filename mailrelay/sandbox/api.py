"""The sandbox's own API in JSON: the mailbox, the faults, the counters."""

from typing import Any

from flask import Blueprint, Response, abort, jsonify, request
from werkzeug.datastructures import MultiDict

from mailrelay.sandbox.faults import FaultError, parse_fault
from mailrelay.sandbox.mail import PROVIDERS
from mailrelay.sandbox.mailbox import Mailbox
from mailrelay.sandbox.problems import invalid
from mailrelay.sandbox.switchboard import Switchboard

DEFAULT_LIMIT = 100
MAX_LIMIT = 10_000
_MAX_OFFSET = 2**53


def blueprint(mailbox: Mailbox, switchboard: Switchboard) -> Blueprint:
    """`/messages`, `/faults` and `/requests`."""
    routes = Blueprint("api", __name__)

    @routes.get("/messages")
    def messages() -> Response:
        errors: dict[str, str] = {}
        limit = _whole_number(request.args, "limit", 1, MAX_LIMIT, DEFAULT_LIMIT, errors)
        offset = _whole_number(request.args, "offset", 0, _MAX_OFFSET, 0, errors)
        provider = request.args.get("provider")
        if provider is not None and provider not in PROVIDERS:
            errors["provider"] = "one of " + ", ".join(PROVIDERS) + " is required"
        if errors:
            return invalid(errors)
        total, mails = mailbox.newest(
            to=request.args.get("to"), provider=provider, limit=limit, offset=offset
        )
        return jsonify(total=total, messages=[mail.as_json() for mail in mails])

    @routes.get("/messages/<path:mail_id>")
    def message(mail_id: str) -> Response:
        mail = mailbox.find(mail_id)
        if mail is None:
            abort(404, "No message has this id.")
        return jsonify(mail.as_json())

    @routes.delete("/messages")
    def empty() -> Response:
        mailbox.empty()
        return Response(status=204)

    @routes.get("/faults")
    def faults() -> Response:
        return jsonify(_shown(switchboard))

    @routes.put("/faults/<provider>")
    def turn(provider: str) -> Response:
        if provider not in PROVIDERS:
            abort(404, "No provider has this name.")
        try:
            fault = parse_fault(request.get_json(force=True))
        except FaultError as error:
            return invalid(error.errors)
        switchboard.turn(provider, fault)
        return jsonify(fault.as_json())

    @routes.delete("/faults")
    def heal() -> Response:
        switchboard.heal()
        return Response(status=204)

    @routes.get("/requests")
    def requests() -> Response:
        return jsonify(switchboard.requests())

    @routes.delete("/requests")
    def reset_requests() -> Response:
        switchboard.reset_requests()
        return Response(status=204)

    return routes


def _shown(switchboard: Switchboard) -> dict[str, dict[str, Any]]:
    return {name: fault.as_json() for name, fault in switchboard.faults().items()}


def _whole_number(
    args: MultiDict[str, str],
    name: str,
    least: int,
    most: int,
    default: int,
    errors: dict[str, str],
) -> int:
    """The query's number of this name; what is wrong with it goes into `errors`."""
    given = args.get(name)
    if given is None:
        return default
    if given.isascii() and given.isdigit() and len(given) <= 16 and least <= int(given) <= most:
        return int(given)
    errors[name] = f"a whole number from {least} to {most} is required"
    return default
