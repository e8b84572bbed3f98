"""SendGrid's front: `POST /v3/mail/send`, and the look at a key's scopes.

Answers after https://www.twilio.com/docs/sendgrid/api-reference/mail-send/errors.
"""

import json
import secrets
import time
from typing import Any

from flask import Blueprint, Response, jsonify, request

from mailrelay.sandbox.decoding import (
    checked_address,
    header_text,
    list_in,
    object_in,
    own_headers,
    text_in,
)
from mailrelay.sandbox.exchange import Exchange
from mailrelay.sandbox.keys import is_good_key
from mailrelay.sandbox.mail import Address, Mail
from mailrelay.sandbox.proxies import phrase, proxy_error

NAME = "sendgrid"

_WAIT = 60
"""Seconds until a limit of requests counts from 0 again, unless told."""

_NO_ADDRESS = "Does not contain a valid address."
_SENDER_UNVERIFIED = (
    "The from address does not match a verified Sender Identity. Mail cannot be sent until this"
    " error is resolved."
)
_ERRORS = {
    400: ("subject", "The subject is required."),
    401: (None, "The provided authorization grant is invalid, expired, or revoked"),
    403: ("from", _SENDER_UNVERIFIED),
    404: (None, "not found"),
    405: (None, "method not allowed"),
    406: (None, "not acceptable"),
    413: (None, "The JSON payload you have included in your request is too large."),
    429: (None, "too many requests"),
    500: (None, "internal server error"),
    503: (None, "The SendGrid v3 Web API is not available."),
}


class _BadField(ValueError):
    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


def blueprint(exchange: Exchange) -> Blueprint:
    """The routes under `/sendgrid`."""
    routes = Blueprint(NAME, __name__, url_prefix=f"/{NAME}")
    answers = _Answers()

    @routes.post("/v3/mail/send")
    def send() -> Response:
        exchange.count_request(NAME)
        if not _is_authorized():
            return answers.error(401)
        try:
            mail = _mail(object_in(json.loads(request.get_data())))
        except _BadField as error:
            return _error(400, error.field, str(error))
        except ValueError:
            return _error(400, None, "Bad Request")
        return exchange.deliver(mail, answers)

    @routes.get("/v3/scopes")
    def scopes() -> Response:
        if not _is_authorized():
            return answers.error(401)
        return exchange.disturb_check(NAME, answers) or jsonify(scopes=["mail.send"])

    return routes


def _is_authorized() -> bool:
    given = request.authorization
    return given is not None and given.type == "bearer" and is_good_key(given.token)


def _mail(body: dict[str, Any]) -> Mail:
    """Raises `_BadField`."""
    personalizations = list_in(body.get("personalizations"))
    if not personalizations:
        raise _BadField(
            "personalizations",
            "The personalizations field is required and must have at least one personalization.",
        )
    personalization = object_in(personalizations[0])
    recipients = [
        recipient
        for field in ("to", "cc", "bcc")
        for recipient in list_in(personalization.get(field))
    ]
    if len(personalizations) > 1 or len(recipients) > 1:
        # SendGrid takes 1,000 of either; one a request is all the sandbox keeps.
        raise _BadField("personalizations", "The sandbox takes one recipient a request.")
    if not recipients:
        raise _BadField(
            "personalizations.0.to",
            "The to array is required for all personalization objects, and must have at least"
            " one email object with a valid email address.",
        )
    plain, html = _content(list_in(body.get("content")))
    subject = text_in(personalization.get("subject")) or text_in(body.get("subject"))
    if not subject:
        raise _BadField("subject", "The subject is required.")
    headers = {
        text_in(name): text_in(value)
        for source in (body, personalization)
        for name, value in object_in(source.get("headers")).items()
    }
    message_id = next(
        (value for name, value in headers.items() if name.lower() == "message-id"), None
    )
    return Mail(
        id=secrets.token_urlsafe(16),
        provider=NAME,
        sender=_address(body.get("from"), "from.email"),
        to=_address(recipients[0], "personalizations.0.to.0.email"),
        reply_to=_address(body["reply_to"], "reply_to.email") if body.get("reply_to") else None,
        subject=header_text(subject),
        plain=plain,
        html=html,
        message_id=message_id,
        headers=own_headers(headers.items()),
    )


def _content(contents: list[Any]) -> tuple[str | None, str | None]:
    """The plain and the HTML content; SendGrid wants at least one, in this order, none empty."""
    if not contents:
        raise _BadField(
            "content",
            "Unless a valid template_id is provided, the content parameter is required. There"
            " must be at least one defined content block.",
        )
    found: dict[str, str] = {}
    for index, content in enumerate(map(object_in, contents)):
        kind, value = text_in(content.get("type")), text_in(content.get("value"))
        if not value:
            raise _BadField(
                f"content.{index}.value",
                "The content value must be a string at least one character in length.",
            )
        if kind == "text/plain" and found:
            raise _BadField(
                "content", "If present, text/plain must be first, followed by text/html."
            )
        found[kind] = value
    return found.get("text/plain"), found.get("text/html")


def _address(value: object, field: str) -> Address:
    given = object_in(value)
    try:
        return checked_address(text_in(given.get("email")), text_in(given.get("name")))
    except ValueError:
        message = f"The from email {_NO_ADDRESS.lower()}" if field == "from.email" else _NO_ADDRESS
        raise _BadField(field, message) from None


class _Answers:
    def accepted(self, mail_id: str) -> Response:
        return Response(status=202, headers={"X-Message-Id": mail_id}, content_type="text/plain")

    def refused(self) -> Response:
        return _error(400, "personalizations.0.to.0.email", _NO_ADDRESS)

    def error(self, status: int, wait: int | None = None) -> Response:
        if status in (502, 504):
            return proxy_error(status)
        field, message = _ERRORS.get(status, (None, phrase(status)))
        response = _error(status, field, message)
        if status == 429:
            response.headers["X-RateLimit-Limit"] = "600"
            response.headers["X-RateLimit-Remaining"] = "0"
            response.headers["X-RateLimit-Reset"] = str(
                int(time.time()) + (_WAIT if wait is None else wait)
            )
        return response


def _error(status: int, field: str | None, message: str) -> Response:
    response = jsonify(errors=[{"message": message, "field": field, "help": None}])
    response.status_code = status
    return response
