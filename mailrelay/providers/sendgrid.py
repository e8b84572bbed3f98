"""SendGrid: ``POST /v3/mail/send``.

The `sendgrid` package builds the payload; a pooled connection posts it, since the package's own
client opens a new TLS connection for every email.
https://www.twilio.com/docs/sendgrid/api-reference/mail-send/mail-send
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

from sendgrid.helpers.mail import Content as SendGridContent
from sendgrid.helpers.mail import Email as SendGridAddress
from sendgrid.helpers.mail import Header, Mail, Personalization
from sendgrid.helpers.mail.exceptions import ApiKeyIncludedException

from mailrelay import clock
from mailrelay.message import Address, Outcome
from mailrelay.providers import Answer, Envelope, headers
from mailrelay.providers.http import (
    HttpClient,
    NoAnswer,
    Response,
    default_outcome,
    json_object,
    one_line,
    refusal,
)
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
            said = "the text begins like an API key"
            return Answer(Outcome.UNAVAILABLE, "api_key_included", said, particular=True)
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
        answer = json_object(response)
        if response.status != 200:
            return refusal(response, Outcome.UNAVAILABLE, _words(answer))
        scopes = answer.get("scopes")
        if not isinstance(scopes, list) or "mail.send" not in scopes:
            return Answer(Outcome.UNAVAILABLE, "200", "the key lacks the scope mail.send")
        return Answer(Outcome.ACCEPTED, "200", "the key may send")


def _payload(envelope: Envelope) -> dict[str, Any]:
    content = envelope.content
    mail = Mail()
    mail.from_email = _address(envelope.sender)
    mail.subject = headers.literal(envelope.subject)
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
    address.name = headers.literal(mailbox.name) if mailbox.name else None
    return address


def _read(response: Response) -> Answer:
    answer = json_object(response)
    outcome = _BY_STATUS.get(response.status, default_outcome(response.status))
    if outcome is Outcome.ACCEPTED:
        return _accepted(response, answer)
    if outcome is Outcome.REJECTED and not _blames_message(answer):
        outcome = Outcome.UNAVAILABLE
    refused = refusal(response, outcome, _words(answer))
    if _blames_sender(answer):
        # Also a 403: "The from address does not match a verified Sender Identity."
        return replace(refused, particular=True)
    if response.status == 429:
        wait = max(_until_reset(response), refused.retry_after or 0.0)
        return replace(refused, retry_after=wait or None)
    return refused


def _until_reset(response: Response) -> float:
    """Seconds until the time that X-RateLimit-Reset has, in seconds since the epoch; 0 if that is
    over, or there is none."""
    reset = response.headers.get("X-RateLimit-Reset", "")
    if not re.fullmatch("[0-9]{1,12}", reset):
        return 0.0
    return max(0.0, int(reset) - clock.now() / 1000)


def _accepted(response: Response, answer: dict[str, Any]) -> Answer:
    # SendGrid accepts with an empty body and mostly, not always, with an id. A 200 with a page in
    # it is somebody else's: to believe it would lose the email.
    message_id = response.headers.get("X-Message-Id")
    strange = response.data.strip() and (not answer or "errors" in answer)
    if response.status == 200 and strange and not message_id:
        words = "said to be fine, in words that are not SendGrid's"
        return refusal(response, Outcome.UNKNOWN, words)
    return Answer(
        Outcome.ACCEPTED, str(response.status), "accepted", message_id and one_line(message_id)
    )


def _errors(answer: dict[str, Any]) -> list[dict[str, Any]]:
    errors = answer.get("errors")
    return [error for error in errors if isinstance(error, dict)] if type(errors) is list else []


def _texts(answer: dict[str, Any], key: str) -> list[str]:
    """What the errors have under `key`, where it is a text and not empty."""
    found = (error.get(key) for error in _errors(answer))
    return [text for text in found if isinstance(text, str) and text]


def _blames_message(answer: dict[str, Any]) -> bool:
    """Whether a 400 names a field, and none that is about our sender."""
    return bool(_texts(answer, "field")) and not _blames_sender(answer)


def _blames_sender(answer: dict[str, Any]) -> bool:
    return any(field.startswith(_OURS) for field in _texts(answer, "field"))


def _words(answer: dict[str, Any]) -> str:
    return "; ".join(_texts(answer, "message"))
