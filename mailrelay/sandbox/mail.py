"""What the sandbox knows about one accepted message, the same for every provider."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

PROVIDERS = ("mailgun", "ses", "sendgrid")


@dataclass(frozen=True)
class Address:
    """A mailbox and the display name beside it, both decoded; no name is `None`."""

    email: str
    name: str | None = None

    def as_json(self) -> dict[str, str | None]:
        return {"email": self.email, "name": self.name}


@dataclass(frozen=True)
class Mail:
    """One message to one recipient, as its reader would see it.

    `id` is the message id the provider answered; `message_id` the Message-ID header, `None` where
    the vendor makes its own (SES always does). `headers` holds the X- and List- headers, name to
    value. `received_at` is RFC 3339 in UTC, to the millisecond.
    """

    id: str
    provider: str
    sender: Address
    to: Address
    subject: str
    plain: str | None
    html: str | None
    reply_to: Address | None = None
    message_id: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    received_at: str = field(
        default_factory=lambda: (
            datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        )
    )

    def as_json(self) -> dict[str, Any]:
        """The shape `/messages` shows, and the mailbox stores."""
        return {
            "id": self.id,
            "provider": self.provider,
            "received_at": self.received_at,
            "message_id": self.message_id,
            "from": self.sender.as_json(),
            "to": self.to.as_json(),
            "reply_to": self.reply_to and self.reply_to.as_json(),
            "subject": self.subject,
            "plain": self.plain,
            "html": self.html,
            "headers": dict(self.headers),
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "Mail":
        """The inverse of `as_json`."""
        return cls(
            id=stored["id"],
            provider=stored["provider"],
            received_at=stored["received_at"],
            message_id=stored["message_id"],
            sender=Address(**stored["from"]),
            to=Address(**stored["to"]),
            reply_to=stored["reply_to"] and Address(**stored["reply_to"]),
            subject=stored["subject"],
            plain=stored["plain"],
            html=stored["html"],
            headers=stored["headers"],
        )
