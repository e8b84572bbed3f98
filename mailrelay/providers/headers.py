"""Header values as ASCII, by RFC 2047, for providers that put them into the message as they come.

The older `email.header` is used on purpose: `email.policy` rewrites a long unbreakable ASCII value
(a List-Unsubscribe address) as encoded words, and this never touches what is ASCII already.
"""

from __future__ import annotations

from email.header import Header
from email.utils import quote

import idna

from mailrelay.message import Address

_ENCODED_WORD = "=?"
"""Plain text that holds this would be read as an encoded word, so it has to become one."""

_MAX_ENCODED_WORD = 75
"""Characters (RFC 2047, section 2). `Header` would make them a line's length, which is 76."""


def encode(value: str) -> str:
    """`value` as one line of ASCII."""
    if value.isascii() and _ENCODED_WORD not in value:
        return value
    return Header(value, "utf-8").encode(linesep="", maxlinelen=_MAX_ENCODED_WORD)


def literal(text: str) -> str:
    """`text` for a provider that encodes by itself, but would let an encoded word pass."""
    return encode(text) if _ENCODED_WORD in text else text


def address(mailbox: Address) -> str:
    """``name <address>`` as one line of ASCII, if the local part is."""
    if not mailbox.name:
        return ascii_domain(mailbox.email)
    encoded = encode(mailbox.name)
    name = f'"{quote(encoded)}"' if encoded == mailbox.name else encoded
    return f"{name} <{ascii_domain(mailbox.email)}>"


def ascii_domain(email: str) -> str:
    """The address with its domain in the form that DNS has (RFC 5891)."""
    local, _, domain = email.rpartition("@")
    return email if domain.isascii() else f"{local}@{idna.encode(domain, uts46=True).decode()}"
