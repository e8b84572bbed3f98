"""The normal form of an address, however it is come by."""

from __future__ import annotations

from email_validator import EmailNotValidError, validate_email
from hypothesis import example, given
from hypothesis import strategies as st

from mailrelay.addresses import normalize

parts = st.text("aZ9.-_+'\"@ \\éß例\u0301", max_size=8)
local_parts = parts | st.sampled_from(
    ["x" * 64, "x" * 65, "Postmaster", "INFO", "o'brien", "a.b", "a..b", ".a", '"a b"', "jürgen"]
)
domains = parts | st.sampled_from(
    [
        "example.org",
        "EXAMPLE.Org",
        "bücher.example",
        "xn--bcher-kva.example",
        "[127.0.0.1]",
        "localhost",
        "example.org.",
        f"{'x' * 63}.{'y' * 63}.{'z' * 63}.example.org",
        "faß.example",
    ]
)


def by_the_library(text: str) -> str:
    try:
        return validate_email(
            text, check_deliverability=False, allow_quoted_local=True, strict=True
        ).normalized
    except EmailNotValidError as error:
        return f"refused: {error}"


def by_us(text: str) -> str:
    try:
        return normalize(text)
    except ValueError as error:
        return f"refused: {error}"


@given(local_parts, domains)
@example("x" * 64, f"{'x' * 63}.{'y' * 63}.{'z' * 58}.org")
def test_the_short_way_leads_to_the_same_place(local_part: str, domain: str) -> None:
    """Most addresses are not looked at by the library as a whole; it would say the same of them."""
    text = f"{local_part}@{domain}"
    assert by_us(text) == by_the_library(text)
