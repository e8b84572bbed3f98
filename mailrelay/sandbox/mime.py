"""A whole MIME message, as SES takes it in `Content.Raw`, taken apart."""

import email
import email.policy
from collections.abc import Sequence
from dataclasses import dataclass
from email.message import MIMEPart


@dataclass(frozen=True)
class Parts:
    """What a reader would be shown. `headers` are raw, in order; a part that is not there is
    `None`."""

    headers: Sequence[tuple[str, str]]
    plain: str | None
    html: str | None

    def header(self, name: str) -> str | None:
        """The raw value of the first header of this name."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


def take_apart(raw: bytes) -> Parts:
    """Reads the message; what is malformed in it comes out as well as it can be read."""
    message = email.message_from_bytes(raw, policy=email.policy.default)
    return Parts(
        headers=[
            # Bytes over 127 arrive as surrogates; a header written in plain UTF-8 gets them back.
            (name, str(value).encode("utf-8", "surrogateescape").decode("utf-8", "replace"))
            for name, value in message.raw_items()
        ],
        plain=_content(message.get_body(("plain",))),
        html=_content(message.get_body(("html",))),
    )


def _content(part: MIMEPart | None) -> str | None:
    """The text of a part, with `\\n` line ends and without the one that closes its last line.

    Builders add that one (Python's `set_content` does), so that it is no part of the content.
    """
    if part is None:
        return None
    payload = part.get_payload(decode=True)
    encoded = payload if isinstance(payload, bytes) else b""
    try:
        text = encoded.decode(part.get_content_charset("utf-8"), "replace")
    except (LookupError, ValueError):  # an unknown charset, or a name that cannot be one
        text = encoded.decode("utf-8", "replace")
    return text.replace("\r\n", "\n").removesuffix("\n")
