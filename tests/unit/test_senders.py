"""As whom a key may send."""

from __future__ import annotations

import pytest

from mailrelay import senders

ALLOWED = frozenset(map(senders.read, ["@example.com", "offers@example.org", "@bücher.example"]))


@pytest.mark.parametrize(
    "address",
    ["shop@example.com", "a@EXAMPLE.COM", "offers@example.org", "x@xn--bcher-kva.example"],
)
def test_allowed(address: str) -> None:
    """Any address of a domain, in any case and any form of it, and an address by itself."""
    assert senders.allow(ALLOWED, senders.read(address))


@pytest.mark.parametrize(
    "address",
    [
        *("other@example.org", "a@mail.example.com", "a@notexample.com", "a@example.com.example"),
        *("Offers@example.org", '"a@example.com"@example.net', "a@bucher.example"),
    ],
)
def test_not_allowed(address: str) -> None:
    """A subdomain is another domain, and what looks alike is another address."""
    assert not senders.allow(ALLOWED, senders.read(address))
