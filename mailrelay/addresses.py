"""Email addresses: checked by their syntax and lengths, without asking DNS, and brought into one form."""

from __future__ import annotations

import idna
from email_validator import EmailNotValidError, validate_email


def normalize(text: str) -> str:
    """The address in its normal form: its domain in lower case and in Unicode.

    The local part stays as it is, but for names that are the same everywhere, such as postmaster: only
    its own server knows what it means. Raises `ValueError`, which says what is wrong.
    """
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
