"""Mailgun's front: `POST /v3/<domain>/messages`, and the look at a domain.

Answers after https://documentation.mailgun.com/docs/mailgun/api-reference/send/mailgun.
"""

import secrets
import time
from dataclasses import dataclass

from flask import Blueprint, Response, jsonify, request
from werkzeug.datastructures import MultiDict

from mailrelay.sandbox.decoding import header_text, own_headers, parse_address
from mailrelay.sandbox.exchange import Exchange
from mailrelay.sandbox.keys import is_good_key
from mailrelay.sandbox.mail import Address, Mail
from mailrelay.sandbox.proxies import phrase, proxy_error

NAME = "mailgun"

_WAIT = 120
"""Seconds that its texts ask a client to wait, unless told."""


def blueprint(exchange: Exchange) -> Blueprint:
    """The routes under `/mailgun`."""
    routes = Blueprint(NAME, __name__, url_prefix=f"/{NAME}")

    @routes.post("/v3/<domain>/messages")
    def send(domain: str) -> Response:
        exchange.count_request(NAME)
        answers = _Answers(domain)
        if not _is_authorized():
            return answers.error(401)
        try:
            mail = _mail(request.form, domain)
        except ValueError as error:
            return _message(400, str(error))
        return exchange.deliver(mail, answers)

    @routes.get("/v4/domains/<domain>")
    def show_domain(domain: str) -> Response:
        answers = _Answers(domain)
        if not _is_authorized():
            return answers.error(401)
        return exchange.disturb_check(NAME, answers) or jsonify(
            domain={"name": domain, "state": "active", "type": "custom", "is_disabled": False},
            receiving_dns_records=[],
            sending_dns_records=[],
        )

    return routes


def _is_authorized() -> bool:
    given = request.authorization
    return (
        given is not None
        and given.type == "basic"
        and given.username == "api"
        and is_good_key(given.password)
    )


def _mail(form: MultiDict[str, str], domain: str) -> Mail:
    """Raises `ValueError` with Mailgun's own wording."""
    # Mailgun takes up to 1,000 recipients and copies; one a request is all the sandbox keeps.
    if form.get("cc") or form.get("bcc"):
        raise ValueError("the sandbox takes one recipient a request, without cc and bcc")
    sender = _address(form, "from")
    to = _address(form, "to")
    plain, html = form.get("text") or None, form.get("html") or None
    if plain is None and html is None:
        raise ValueError(
            "Need at least one of 'text', 'html', 'amp-html' or 'template' parameters specified"
        )
    headers = {
        name[2:].lower(): (name[2:], value)
        for name, value in form.items()
        if name.lower().startswith("h:")
    }
    _, reply_to = headers.get("reply-to", ("", None))
    _, message_id = headers.get("message-id", ("", None))
    return Mail(
        id=f"<{time.strftime('%Y%m%d%H%M%S', time.gmtime())}.{secrets.token_hex(8)}@{domain}>",
        provider=NAME,
        sender=sender,
        to=to,
        reply_to=_parsed(reply_to, "h:Reply-To") if reply_to else None,
        subject=header_text(form.get("subject", "")),
        plain=plain,
        html=html,
        message_id=message_id,
        headers=own_headers(headers.values()),
    )


def _address(form: MultiDict[str, str], field: str) -> Address:
    values = form.getlist(field)
    if not any(values):
        raise ValueError(f"{field} parameter is missing")
    return _parsed(", ".join(values), field)


def _parsed(value: str, field: str) -> Address:
    try:
        return parse_address(value)
    except ValueError:
        raise ValueError(
            f"{field} parameter is not a valid address. please check documentation"
        ) from None


@dataclass(frozen=True)
class _Answers:
    domain: str

    def accepted(self, mail_id: str) -> Response:
        return jsonify(id=mail_id, message="Queued. Thank you.")

    def refused(self) -> Response:
        return _message(400, "to parameter is not a valid address. please check documentation")

    def error(self, status: int, wait: int | None = None) -> Response:
        seconds = _WAIT if wait is None else wait
        if status in (502, 504):
            return proxy_error(status)
        if status == 401:
            # The one answer that is not JSON.
            return Response(
                "Forbidden",
                401,
                {"WWW-Authenticate": 'Basic realm="MG API"'},
                content_type="text/plain",
            )
        known = {
            400: "to parameter is not a valid address. please check documentation",
            402: "Account disabled: payment required",
            403: f"Domain {self.domain} is not allowed to send: The domain is unverified and"
            " requires DNS configuration. Log in to your control panel to view required DNS"
            " records.",
            404: f"Domain not found: {self.domain}",
            413: "Request Entity Too Large",
            # Seen in place of 429: https://github.com/mailgun/mailgun-java/issues/50
            420: f"Domain {self.domain} is not allowed to send: recipient limit exceeded, try"
            f" again after {time.strftime('%a, %d %b %Y %H:%M:%S UTC', time.gmtime(time.time() + seconds))}",
            429: f"Too many requests, try again after {seconds} seconds",
            500: "Internal Server Error",
            503: "Service Unavailable",
        }
        return _message(status, known.get(status) or phrase(status))


def _message(status: int, text: str) -> Response:
    response = jsonify(message=text)
    response.status_code = status
    return response
