"""What is in the form, and the API's body that it says. Pure."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mailrelay.relay import IdempotencyKey
from mailrelay.web.console.recipients import Recipient

_KEY = re.compile(r"[A-Za-z0-9_-]{16,64}")


def _new_key() -> str:
    return secrets.token_urlsafe(16)


@dataclass(frozen=True, slots=True)
class Draft:
    """The fields of the form, as they are typed."""

    sender_email: str = ""
    sender_name: str = ""
    recipients: str = ""
    subject: str = ""
    plain: str = ""
    html: str = ""
    key: str = field(default_factory=_new_key)
    """Made with the form: however often the same form is sent, its email is sent once."""

    @classmethod
    def read(cls, form: Mapping[str, str]) -> Draft:
        """What a browser has posted."""
        key = form.get("key", "")
        return cls(
            sender_email=form.get("sender_email", "").strip(),
            sender_name=form.get("sender_name", "").strip(),
            recipients=_lines(form.get("recipients", "")),
            subject=form.get("subject", ""),
            plain=_lines(form.get("plain", "")),
            html=_lines(form.get("html", "")),
            key=key if _KEY.fullmatch(key) else _new_key(),
        )

    def body(self, recipients: Sequence[Recipient]) -> dict[str, Any]:
        """The body of ``POST /emails/send``; what is empty is left out, and so missed by its check."""
        return _given(
            {
                "from": _given({"email": self.sender_email, "name": self.sender_name}),
                "destinations": [
                    _given({"email": each.email, "name": each.name}) for each in recipients
                ],
                "subject": self.subject,
                "plainContent": self.plain,
                "htmlContent": self.html,
            }
        )

    def idempotency_key(self, body: Mapping[str, Any]) -> IdempotencyKey:
        return IdempotencyKey.of(f"console-{self.key}", body)


EXAMPLE = Draft(
    sender_email="facundo@example.com",
    sender_name="Facundo",
    recipients="Pedro <pedro@example.org>",
    subject="Hello from mailrelay",
    plain="Hello Pedro,\n\nthis went through mailrelay.\n",
    html="<h1>Hello Pedro,</h1>\n<p>this went through <strong>mailrelay</strong>.</p>\n",
    key="",
)
"""What the form begins with where nothing leaves this machine."""


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value}


def _lines(text: str) -> str:
    """Browsers post CRLF for each line of a text."""
    return text.replace("\r\n", "\n")
