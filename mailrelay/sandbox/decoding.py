"""From what stood on the wire to plain text: JSON values, header values, addresses."""

import email.utils
import re
from collections.abc import Iterable
from email.headerregistry import HeaderRegistry
from typing import Any

from mailrelay.sandbox.mail import Address

_LOCAL_PART = (
    r"""(?:"(?:[^"\\\x00-\x1f]|\\.)+"|[^\s@<>()\[\],;:\\".]+(?:\.[^\s@<>()\[\],;:\\".]+)*)"""
)
_LABEL = r"[^\W_](?:[\w-]*[^\W_])?"
_ADDRESS = re.compile(rf"{_LOCAL_PART}@{_LABEL}(?:\.{_LABEL})*")

_parse_header = HeaderRegistry(use_default_map=False)


def text_in(value: object) -> str:
    """The string a JSON value is, else an empty one.

    JSON can spell half of a surrogate pair, which no encoding can write; it becomes `?`.
    """
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else ""


def object_in(value: object) -> dict[str, Any]:
    """The object a JSON value is, else an empty one."""
    return value if isinstance(value, dict) else {}


def list_in(value: object) -> list[Any]:
    """The list a JSON value is, else an empty one."""
    return value if isinstance(value, list) else []


def header_text(value: str) -> str:
    """A header's value with its folding undone and its RFC 2047 words decoded."""
    unfolded = _unfolded(value)
    if "=?" not in unfolded:
        return unfolded
    return str(_parse_header("Subject", unfolded))


def _unfolded(value: str) -> str:
    return re.sub(r"\r?\n(?=[ \t])", "", value).strip()


def parse_address(value: str) -> Address:
    """The one address in a header value such as `Jürgen <j@example.org>`.

    Raises `ValueError` for none, for several, and for what is not an address.
    """
    found = email.utils.getaddresses([_unfolded(value)])
    if len(found) != 1:
        raise ValueError("not one address")
    name, address = found[0]
    return checked_address(address, name)


def checked_address(address: str, name: str) -> Address:
    """The address with its decoded name. Raises `ValueError` for what is not an address."""
    if not _ADDRESS.fullmatch(address):
        raise ValueError("not an address")
    return Address(address, header_text(name) or None)


def own_headers(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The X- and List- headers among these, decoded."""
    return {
        name: header_text(value)
        for name, value in pairs
        if name.lower().startswith(("x-", "list-"))
    }
