"""Email addresses: checked by their syntax and lengths, without asking DNS, and brought into one form."""

from __future__ import annotations

from functools import lru_cache

import idna
from email_validator import EmailNotValidError, validate_email
from email_validator.rfc_constants import (
    CASE_INSENSITIVE_MAILBOX_NAMES,
    DOT_ATOM_TEXT,
    EMAIL_MAX_LENGTH,
    LOCAL_PART_MAX_LENGTH,
)


def normalize(text: str) -> str:
    """The address in its normal form: its domain in lower case and in Unicode.

    The local part stays as it is, but for names that are the same everywhere, such as postmaster: only
    its own server knows what it means. Raises `ValueError`, which says what is wrong.
    """
    local_part, _, domain = text.rpartition("@")
    if _is_plain(local_part) and (normal := _normal_domain(domain)) is not None:
        address = f"{local_part}@{normal}"
        if address.isascii() and len(address) <= EMAIL_MAX_LENGTH:
            return address
    return _normalize(text)


def _is_plain(local_part: str) -> bool:
    """Whether it is one of those that nearly all are: valid whatever the domain, and left as it is."""
    return (
        len(local_part) <= LOCAL_PART_MAX_LENGTH
        and local_part.lower() not in CASE_INSENSITIVE_MAILBOX_NAMES
        and DOT_ATOM_TEXT.match(local_part) is not None
    )


@lru_cache(maxsize=1024)
def _normal_domain(domain: str) -> str | None:
    """The domain in its normal form; None for one that cannot be.

    Kept, since the addresses of a batch have few domains, and checking one costs more than all the
    rest of an address.
    """
    try:
        return _normalize(f"x@{domain}").removeprefix("x@")
    except ValueError:
        return None


def _normalize(text: str) -> str:
    try:
        checked = validate_email(
            text, check_deliverability=False, allow_quoted_local=True, strict=True
        )
        idna.encode(checked.ascii_domain)
    except EmailNotValidError as error:
        raise ValueError(str(error)) from None
    except UnicodeError:  # and idna's own, which is one
        raise ValueError("The domain is not one that DNS can hold.") from None
    return checked.normalized


def comparable(address: str) -> str:
    """What two addresses in their normal form have in common if a person takes them for one.

    Its own server may tell `Pedro` from `pedro`; hardly any does, and who looks for one means both.
    """
    local, _, domain = address.rpartition("@")
    return f"{local.casefold()}@{domain}"
