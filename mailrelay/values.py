"""The kinds of values that variables have: what each takes, and how it is read.

What a kind takes is written once: the refusal of a wrong value and docs/configuration.md both say it.
"""

from __future__ import annotations

import hashlib
import ipaddress
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from mailrelay import senders

SHORTEST_API_KEY = 20
"""Characters of a key that nobody guesses, even from its hash: 80 bits in hex, 120 in base64."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of value."""

    takes: str
    """For people, in Markdown, as in "MAILRELAY_LEASE: takes a number above 0"."""
    read: Callable[[str], Any]
    """The value of a text, and None for a text that is none."""


@dataclass(frozen=True, slots=True)
class RequestLimit:
    """So many requests in so many seconds: as many at once, and as many again by and by."""

    requests: int
    seconds: float


@dataclass(frozen=True, slots=True)
class ApiKey:
    name: str
    digest: str
    """SHA-256, in hex."""
    short: bool = False

    @classmethod
    def of(cls, key: str, name: str | None = None) -> ApiKey:
        digest = hashlib.sha256(key.encode()).hexdigest()
        return cls(name or f"key-{digest[:8]}", digest, len(key) < SHORTEST_API_KEY)


def matching(pattern: str, takes: str) -> Kind:
    """A text of which the whole matches the regular expression."""
    return Kind(takes, lambda text: text if re.fullmatch(pattern, text) else None)


def choice(*words: str) -> Kind:
    """One of the words."""
    *first, last = (f"`{word}`" for word in words)
    takes = f"{', '.join(first)} or {last}"
    return Kind(takes, lambda text: text if text in words else None)


def whole(least: int, most: int) -> Kind:
    """A whole number in a range, which includes both ends."""

    def read(text: str) -> int | None:
        # So few digits that Python reads them all.
        number = int(text) if re.fullmatch(r"[0-9]{1,18}", text) else -1
        return number if least <= number <= most else None

    return Kind(f"a whole number from {least} to {most}", read)


def above_zero(most: int) -> Kind:
    """A number, fractions included."""

    def read(text: str) -> float | None:
        number = _number(text)
        return number if 0 < number <= most else None

    return Kind(f"a number above 0, up to {most}", read)


def _number(text: str) -> float:
    """Not a number where it is none: every comparison with that is false."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _delay(text: str) -> float | None:
    seconds = _number(text)
    return seconds if 0 < seconds < math.inf else None


_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def _frequency(text: str) -> tuple[str, float] | None:
    """``100/s`` as the number that was written and the seconds of its unit."""
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)/([smhd])", text)
    return (match[1], _UNITS[match[2]]) if match else None


def _request_limit(text: str) -> RequestLimit | None:
    number, seconds = _frequency(text) or ("", 0.0)
    return RequestLimit(int(number), seconds) if re.fullmatch(r"[1-9][0-9]{0,6}", number) else None


def _rate(text: str) -> float | None:
    number, seconds = _frequency(text) or ("0", 1.0)
    rate = float(number) / seconds
    # Each place in time is a whole number of microseconds, and a year of them is no rate.
    return rate if 1e-6 <= rate <= 100_000 else None


def _url(text: str) -> str | None:
    try:
        parts = urlsplit(text)
        works = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        works = False
    # A user and a password would be ignored, and then shown wherever the address is.
    return text if works and not re.search(r"[\s?#@]", text) else None


def _ip_address(text: str) -> str | None:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return None
    return text


_TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*")
"""What can stand behind ``Bearer`` (RFC 6750, section 2.1)."""

_NAME = re.compile(r"[A-Za-z0-9_.\-]{1,64}")

_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


def _api_key(text: str) -> ApiKey | None:
    match text.split(":"):
        case [key] if _TOKEN.fullmatch(key):
            return ApiKey.of(key)
        # Not a key named sha256: who writes that has a hash and forgot its name.
        case [name, key] if _NAME.fullmatch(name) and _TOKEN.fullmatch(key) and name != "sha256":
            return ApiKey.of(key, name)
        case [name, "sha256", digest] if _NAME.fullmatch(name) and _SHA256.fullmatch(digest):
            return ApiKey(name, digest.lower())
    return None


def _sender(text: str) -> tuple[str, str] | None:
    """As (name of a key, address or ``@domain``)."""
    name, _, sender = text.partition(":")
    try:
        return name, senders.read(sender)
    except ValueError:
        return None


ADDRESS = Kind("an IP address, such as `127.0.0.1` or `0.0.0.0`", _ip_address)
API_KEYS = Kind(
    "keys, comma-separated, each one `KEY`, `NAME:KEY` or `NAME:sha256:HEX`; a key is made of"
    " letters, digits and `-._~+/`, a name of letters, digits and `-._`",
    _api_key,
)
BUCKET = matching(r"[a-z0-9][a-z0-9.\-]{1,61}[a-z0-9]", "the name of an S3 bucket")
DELAYS = Kind("seconds, comma-separated, each above 0, such as `60,300,1800`", _delay)
DOMAIN = matching(r"[A-Za-z0-9.\-]+", "a domain name")
PORT = whole(1, 65_535)
PROVIDERS = matching(
    r"[a-z0-9_]+", "names of providers, comma-separated, such as `mailgun,ses,sendgrid`"
)
RATE = Kind("emails a second, minute, hour or day, such as `200/s` or `50000/d`", _rate)
REGION = matching(r"[a-z0-9\-]{1,63}", "the name of a region, such as `eu-west-1`")
REQUESTS = Kind(
    "a whole number of requests a second, minute, hour or day, such as `100/s` or `6000/m`",
    _request_limit,
)
SECRET = matching(r"[!-~]+", "visible ASCII characters")
SENDERS = Kind(
    "`NAME:@DOMAIN` and `NAME:ADDRESS`, comma-separated, a key's name as often as it has senders,"
    " such as `shop:@example.com,shop:news@example.org`",
    _sender,
)
URL = Kind("an `http://` or `https://` address", _url)
