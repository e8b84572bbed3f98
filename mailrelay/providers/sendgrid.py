"""SendGrid: ``POST /v3/mail/send``.

The `sendgrid` package builds the payload; a pooled connection posts it, since the package's own
client opens a new TLS connection for every email.
https://www.twilio.com/docs/sendgrid/api-reference/mail-send/mail-send
"""

from __future__ import annotations

import json
from typing import Any

from sendgrid.helpers.mail import Content as SendGridContent
from sendgrid.helpers.mail import Email as SendGridAddress
from sendgrid.helpers.mail import Header, Mail, Personalization
from sendgrid.helpers.mail.exceptions import ApiKeyIncludedException
from urllib3 import BaseHTTPResponse

from mailrelay.message import Address, Outcome
from mailrelay.providers import Answer, Envelope, headers
from mailrelay.providers.http import HttpClient, NoAnswer, default_outcome, json_object, reason
from mailrelay.settings import Settings, SettingsError

_BY_STATUS = {
    200: Outcome.ACCEPTED,  # sandbox mode
    202: Outcome.ACCEPTED,
    400: Outcome.REJECTED,
    401: Outcome.UNAVAILABLE,  # wrong key, and "Maximum credits exceeded"
    403: Outcome.UNAVAILABLE,  # unverified sender, "temporary block"
    404: Outcome.UNAVAILABLE,
    405: Outcome.UNAVAILABLE,
    406: Outcome.UNAVAILABLE,
    413: Outcome.UNAVAILABLE,
    429: Outcome.RETRY,
    500: Outcome.RETRY,
    502: Outcome.UNKNOWN,
    503: Outcome.RETRY,
    504: Outcome.UNKNOWN,
}

_OURS = ("from", "reply_to")
"""Beginnings of the fields whose fault is our sender's and not the message's."""


class SendGrid:
    """Sends through SendGrid's v3 API."""

    def __init__(self, settings: Settings) -> None:
        """Raises `SettingsError` where the key is missing."""
        if not settings.sendgrid_api_key:
            raise SettingsError("SENDGRID_API_KEY", "is needed: EMAIL_PROVIDERS has sendgrid")
        base = settings.sendgrid_base_url.rstrip("/")
        self._send_url = f"{base}/v3/mail/send"
        self._scopes_url = f"{base}/v3/scopes"
        self._authorization = {"Authorization": f"Bearer {settings.sendgrid_api_key}"}
        self._http = HttpClient(settings)

    def send(self, envelope: Envelope) -> Answer:
        try:
            payload = _payload(envelope)
        except ApiKeyIncludedException:
            # The package refuses a text that begins like a SendGrid key; other providers do not.
            return Answer(
                Outcome.UNAVAILABLE, "api_key_included", "the text begins like an API key"
            )
        sent = {**self._authorization, "Content-Type": "application/json"}
        try:
            response = self._http.request(
                "POST", self._send_url, sent, json.dumps(payload).encode()
            )
        except NoAnswer as none:
            return none.answer
        return _read(response)

    def check(self) -> Answer:
        try:
            response = self._http.request("GET", self._scopes_url, self._authorization)
        except NoAnswer as none:
            return none.answer
        code = str(response.status)
        if response.status != 200:
            return Answer(Outcome.UNAVAILABLE, code, _message(json_object(response)))
        if "mail.send" not in json_object(response).get("scopes", []):
            return Answer(Outcome.UNAVAILABLE, code, "the key lacks the scope mail.send")
        return Answer(Outcome.ACCEPTED, code, "the key may send")


def _payload(envelope: Envelope) -> dict[str, Any]:
    content = envelope.content
    mail = Mail()
    mail.from_email = _address(envelope.sender)
    mail.subject = envelope.subject
    recipient = Personalization()
    recipient.add_to(_address(envelope.to))
    mail.add_personalization(recipient)
    # The order is SendGrid's rule: plain before HTML.
    if content.plain is not None:
        mail.add_content(SendGridContent("text/plain", content.plain))
    if content.html is not None:
        mail.add_content(SendGridContent("text/html", content.html))
    if content.reply_to is not None:
        mail.reply_to = _address(content.reply_to)
    mail.add_header(Header("Message-ID", envelope.message_id))
    for name, value in content.headers.items():
        mail.add_header(Header(name, headers.encode(value)))
    payload: dict[str, Any] = mail.get()
    return payload


def _address(mailbox: Address) -> SendGridAddress:
    # Set one by one: given an address alone, the constructor parses it as "name <address>".
    address = SendGridAddress()
    address.email = headers.ascii_domain(mailbox.email)
    address.name = mailbox.name
    return address


def _read(response: BaseHTTPResponse) -> Answer:
    code = str(response.status)
    outcome = _BY_STATUS.get(response.status, default_outcome(response.status))
    if outcome is Outcome.ACCEPTED:
        return Answer(outcome, code, "accepted", response.headers.get("X-Message-Id"))
    answer = json_object(response)
    if outcome is Outcome.REJECTED and not _blames_message(answer):
        outcome = Outcome.UNAVAILABLE
    return Answer(outcome, code, _message(answer))


def _errors(answer: dict[str, Any]) -> list[dict[str, Any]]:
    errors = answer.get("errors")
    return [error for error in errors if isinstance(error, dict)] if errors else []


def _blames_message(answer: dict[str, Any]) -> bool:
    """Whether a 400 names a field, and none that is about our sender."""
    fields = [error["field"] for error in _errors(answer) if error.get("field")]
    return bool(fields) and not any(field.startswith(_OURS) for field in fields)


def _message(answer: dict[str, Any]) -> str:
    return reason("; ".join(str(error.get("message")) for error in _errors(answer)))
