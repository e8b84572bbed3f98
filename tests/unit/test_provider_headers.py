"""Header values as ASCII: what goes out is one line, and reads as what was meant."""

from __future__ import annotations

import re
from email import message_from_string, policy
from email.header import decode_header, make_header
from email.utils import parseaddr

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrelay.message import Address
from mailrelay.providers import headers

TEXTS = st.text(
    # What the API lets through (no controls), without the space that no header keeps at its ends.
    st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")),
    min_size=1,
    max_size=200,
).filter(lambda text: text == text.strip())

ATEXT = st.from_regex(r"[a-z0-9]{1,20}(\.[a-z0-9]{1,20})?", fullmatch=True)


def read(value: str) -> str:
    """The text that a mail client shows for a header with this value."""
    return str(message_from_string(f"Subject: {value}\n\n", policy=policy.default)["Subject"])


@given(TEXTS)
def test_an_encoded_value_reads_as_it_was_written(text: str) -> None:
    """Whatever the characters: ASCII, without a line break, and the same text when decoded."""
    encoded = headers.encode(text)
    assert encoded.isascii()
    assert "\n" not in encoded
    assert read(encoded) == text


@pytest.mark.parametrize("text", ["plain", "<https://example.com/" + "u" * 900 + ">", '"a", b; c'])
def test_ascii_is_left_alone(text: str) -> None:
    """A value that ASCII can hold goes out as it is, however long."""
    assert headers.encode(text) == text


@pytest.mark.parametrize("text", ["=?utf-8?q?x?=", "a =?b", "Zoë =?utf-8?b?eA==?="])
def test_what_looks_encoded_is_encoded(text: str) -> None:
    """Text that a reader would decode is encoded once more, so that decoding gives it back."""
    assert read(headers.encode(text)) == text
    assert headers.literal(text) == headers.encode(text)


@pytest.mark.parametrize("text", ["plain", "Zoë – 日本語 🎉", "a = ? b", "?="])
def test_other_text_is_the_providers_to_encode(text: str) -> None:
    """`literal` touches nothing that a provider encodes by itself."""
    assert headers.literal(text) == text


@given(TEXTS, ATEXT)
def test_an_address_keeps_its_name(name: str, local: str) -> None:
    """Quotes, commas, angle brackets or emoji: the name and the address come apart again."""
    value = headers.address(Address(f"{local}@example.org", name))
    assert value.isascii()
    shown, email = parseaddr(value)
    assert (str(make_header(decode_header(shown))), email) == (name, f"{local}@example.org")


@pytest.mark.parametrize("name", [None, ""])
def test_an_address_without_a_name_is_bare(name: str | None) -> None:
    """No empty quotes, no brackets."""
    assert headers.address(Address("pedro@example.org", name)) == "pedro@example.org"


@pytest.mark.parametrize(
    ("email", "ascii_form"),
    [
        ("pedro@example.org", "pedro@example.org"),
        ("pedro@Example.ORG", "pedro@Example.ORG"),
        ("pedro@ü.example", "pedro@xn--tda.example"),
        ("pedro@Ü.example", "pedro@xn--tda.example"),
        ("pedro@straße.example", "pedro@xn--strae-oqa.example"),
        ("zoë@ü.example", "zoë@xn--tda.example"),
        ('"a@b"@ü.example', '"a@b"@xn--tda.example'),
    ],
)
def test_a_domain_has_its_form_in_dns(email: str, ascii_form: str) -> None:
    """Only the domain changes, and only where it has to."""
    assert headers.ascii_domain(email) == ascii_form


def test_a_long_name_is_split_between_characters() -> None:
    """Each encoded word has at most 75 characters (RFC 2047, section 2)."""
    words = headers.encode("日本語🎉" * 100).split(" ")
    assert len(words) > 10
    assert all(re.fullmatch(r"=\?utf-8\?[bq]\?[^ ?]+\?=", word) for word in words)
    assert max(map(len, words)) <= 75
