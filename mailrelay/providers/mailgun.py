"""Mailgun: ``POST /v3/{domain}/messages``.

https://documentation.mailgun.com/docs/mailgun/api-reference/send/mailgun/messages
"""

from __future__ import annotations

import re
from dataclasses import replace

from urllib3.filepost import encode_multipart_formdata
from urllib3.util import make_headers

from mailrelay.message import Outcome
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
    200: Outcome.ACCEPTED,
    400: Outcome.REJECTED,  # "to parameter is not a valid address. please check documentation"
    401: Outcome.UNAVAILABLE,  # wrong key
    402: Outcome.UNAVAILABLE,  # unpaid
    403: Outcome.UNAVAILABLE,
    404: Outcome.UNAVAILABLE,  # domain not found, often the wrong region
    413: Outcome.UNAVAILABLE,  # too large here; another may take it
    429: Outcome.RETRY,  # "try again after 120 seconds"
    500: Outcome.RETRY,
    502: Outcome.UNKNOWN,
    503: Outcome.RETRY,
    504: Outcome.UNKNOWN,
}

_WRONG_PATH = b"Mailgun Magnificent API"
"""With this text and a 200 Mailgun answers to a path that it does not have."""

_SENDER = re.compile(r"\bfrom\b", re.IGNORECASE)
_DOMAIN = re.compile(r"is not allowed to send", re.IGNORECASE)
"""A 400 about the sender, or about our domain: the message would be fine elsewhere."""

_RECIPIENT = re.compile(r"authorized recipients", re.IGNORECASE)
"""A domain for tests takes some recipients and not others: "Sandbox subdomains are for test purposes
only. Please add your own domain or add the address to authorized recipients"."""

_WAIT = re.compile(r"\bafter ([0-9]{1,6}) seconds?\b")
"""How long to wait after a 429, which Mailgun says in prose: "try again after 120 seconds"."""


class Mailgun:
    """Sends through one domain at Mailgun."""

    def __init__(self, settings: Settings) -> None:
        """Raises `SettingsError` where the key or the domain is missing."""
        key, domain = settings.mailgun_api_key, settings.mailgun_domain
        if not key:
            raise SettingsError("MAILGUN_API_KEY", "is needed: EMAIL_PROVIDERS has mailgun")
        if not domain:
            raise SettingsError("MAILGUN_DOMAIN", "is needed: EMAIL_PROVIDERS has mailgun")
        base = settings.mailgun_base_url.rstrip("/")
        self._messages_url = f"{base}/v3/{domain}/messages"
        self._domain_url = f"{base}/v4/domains/{domain}"
        self._authorization = make_headers(basic_auth=f"api:{key}")
        self._http = HttpClient(settings)

    def send(self, envelope: Envelope) -> Answer:
        body, content_type = encode_multipart_formdata(_fields(envelope))
        sent = {**self._authorization, "Content-Type": content_type}
        try:
            response = self._http.request("POST", self._messages_url, sent, body)
        except NoAnswer as none:
            return none.answer
        return _read(response)

    def check(self) -> Answer:
        try:
            response = self._http.request("GET", self._domain_url, self._authorization)
        except NoAnswer as none:
            return none.answer
        answer = json_object(response)
        if response.status != 200:
            return refusal(response, Outcome.UNAVAILABLE, answer.get("message"))
        domain = answer.get("domain")
        if not isinstance(domain, dict):
            return Answer(Outcome.UNAVAILABLE, "200", "no answer of Mailgun's: a wrong URL?")
        state = str(domain.get("state"))
        outcome = Outcome.ACCEPTED if state == "active" else Outcome.UNAVAILABLE
        return Answer(outcome, "200", one_line(f"the domain is {state}"))


def _fields(envelope: Envelope) -> list[tuple[str, str]]:
    content = envelope.content
    fields = [
        ("from", headers.address(envelope.sender)),
        ("to", headers.address(envelope.to)),
        ("subject", headers.literal(envelope.subject)),
        ("h:Message-Id", envelope.message_id),
    ]
    if content.plain is not None:
        fields.append(("text", content.plain))
    if content.html is not None:
        fields.append(("html", content.html))
    if content.reply_to is not None:
        fields.append(("h:Reply-To", headers.address(content.reply_to)))
    fields += [(f"h:{name}", headers.encode(value)) for name, value in content.headers.items()]
    return fields


def _read(response: Response) -> Answer:
    body = json_object(response)
    message = body.get("message")
    outcome = _BY_STATUS.get(response.status, default_outcome(response.status))
    if outcome is Outcome.ACCEPTED:
        return _accepted(response, body.get("id"), message)
    if outcome is Outcome.REJECTED and not _blames_message(message):
        outcome = Outcome.UNAVAILABLE
    answer = refusal(response, outcome, message)
    if _RECIPIENT.search(answer.reason):
        return replace(answer, particular=True)
    if _DOMAIN.search(answer.reason):
        return replace(answer, particular=False)
    if response.status == 429 and (wait := _WAIT.search(answer.reason)):
        return replace(answer, retry_after=float(wait[1]))
    return answer


def _accepted(response: Response, message_id: object, message: object) -> Answer:
    if isinstance(message_id, str) and message_id:
        words = one_line(message) if isinstance(message, str) else ""
        return Answer(Outcome.ACCEPTED, str(response.status), words, one_line(message_id))
    if _WRONG_PATH in response.data:
        return refusal(response, Outcome.UNAVAILABLE, "no answer of Mailgun's: a wrong URL?")
    return refusal(response, Outcome.UNKNOWN, "said to be fine, in words that are not Mailgun's")


def _blames_message(message: object) -> bool:
    """Whether a 400 is Mailgun's own, and about nothing of ours."""
    if not (isinstance(message, str) and message):
        return False
    return not (_SENDER.search(message) or _DOMAIN.search(message))
