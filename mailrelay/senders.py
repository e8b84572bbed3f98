"""Who may send as whom: the addresses and domains that an API key may write from."""

from __future__ import annotations

from collections.abc import Collection

from mailrelay import addresses


def read(text: str) -> str:
    """An address, or a domain written as ``@example.com``, in its normal form.

    Raises `ValueError` for what is neither.
    """
    if text.startswith("@"):
        return addresses.normalize(f"anybody{text}").removeprefix("anybody")
    return addresses.normalize(text)


def allow(allowed: Collection[str], address: str) -> bool:
    """Whether `address` is one of `allowed`, or of a domain there; a subdomain is another domain.

    All are in their normal form.
    """
    return address in allowed or f"@{address.rpartition('@')[2]}" in allowed


def refusal(allowed: Collection[str] | None, address: str) -> str | None:
    """Why a key may not send as `address`, for its client; None where it may, as without a list."""
    if allowed is None or allow(allowed, address):
        return None
    return f"This API key may send from {', '.join(sorted(allowed))} only."
