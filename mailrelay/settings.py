"""The environment, read and checked once, as one frozen object.

Every variable is a field of `_Environment` with its default, its check and its description. A
variable that is set to nothing counts as not set, as in a compose file or a unit file.
"""

from __future__ import annotations

import hashlib
import ipaddress
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from marshmallow import EXCLUDE, Schema, ValidationError, fields, post_load, pre_load
from marshmallow.validate import Length, Range, Regexp

from mailrelay import senders
from mailrelay.delivery import LONGEST_WAIT
from mailrelay.message import MAX_ATTEMPTS

PROVIDER_CONNECT_TIMEOUT = 3.0
"""Seconds to wait for a connection to a provider: part of the contract, not a setting."""

DAY = 86_400.0

SHORTEST_API_KEY = 20
"""Characters of a key that nobody guesses, even from its hash: 80 bits in hex, 120 in base64."""
_CLAIM = 1.0
"""Seconds that claiming an email may take before it is sent, both within the lease."""


class SettingsError(Exception):
    """A variable that cannot work: which one, and what it takes."""

    def __init__(self, variable: str, problem: str) -> None:
        super().__init__(f"{variable}: {problem}")
        self.variable = variable


@dataclass(frozen=True, slots=True)
class RequestLimit:
    """So many requests in so many seconds: as many at once, and as many again by and by."""

    requests: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Settings:
    """All that the environment says. Times are in seconds."""

    providers: tuple[str, ...]
    api_keys: Mapping[str, str] = field(repr=False)
    """SHA-256 of a key, in hex, to the name of the key."""
    short_api_keys: tuple[str, ...]
    """Names of the keys that are too short to be safe. Of a key's hash nobody can tell."""
    senders: Mapping[str, frozenset[str]] = field(repr=False)
    """Name of a key to the addresses and ``@domains`` it may send as; without one, as anybody."""
    request_limit: RequestLimit | None
    """For each key and web process."""
    mailgun_api_key: str | None = field(repr=False)
    mailgun_domain: str | None
    mailgun_base_url: str
    sendgrid_api_key: str | None = field(repr=False)
    sendgrid_base_url: str
    ses_region: str | None
    ses_endpoint_url: str | None
    aws_region: str | None
    aws_endpoint_url: str | None
    table: str
    bucket: str | None
    queue_prefix: str
    message_ttl: int
    lease: float
    sweep_interval: float
    retry_schedule: tuple[float, ...]
    avoid_duplicates: bool
    provider_timeout: float
    provider_pause: float
    rates: Mapping[str, float]
    """Emails a second that a provider may be sent, by its name."""
    concurrency: int
    events: bool
    metrics_address: str
    metrics_port: int
    retention_days: float
    log_format: str
    port: int
    flower_port: int
    sandbox_port: int
    aws_port: int
    sandbox_url: str | None
    flower_url: str | None

    @property
    def longest_send(self) -> float:
        """How long one request to a provider may take, connecting included."""
        return PROVIDER_CONNECT_TIMEOUT + self.provider_timeout

    @property
    def attempts(self) -> int:
        """How many attempts an email may take: each provider in each pass of the chain."""
        return (len(self.retry_schedule) + 1) * len(self.providers)

    @property
    def longest_life(self) -> float:
        """How long an email may be open.

        One of its attempts may lose its message and its worker; that all of them do, nobody
        waits for.
        """
        # Each of the waits ends with the first sweep after it.
        waits = sum(delay + self.sweep_interval for delay in self.retry_schedule)
        lost = self.message_ttl + self.lease + 2 * self.sweep_interval
        # It may once have to wait for a provider that is left alone, when the schedule is over.
        return self.attempts * self.longest_send + waits + lost + LONGEST_WAIT / 1000

    @property
    def rate_patience(self) -> float:
        """How long an email may wait for its provider's rate: it must be over when it is removed."""
        return min(DAY, self.retention_days * DAY - self.longest_life)


class _List(fields.Field[Any]):
    """A comma-separated list, each part read by `read`."""

    def __init__(self, read: Callable[[str], Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._read = read

    def _deserialize(self, value: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        return tuple(self._read(part.strip()) for part in value.split(","))


def _provider_name(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9_]+", text):
        raise ValidationError(
            "takes names of providers, comma-separated, such as mailgun,ses,sendgrid"
        )
    return text


def _retry_delay(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds > 0):
        raise ValidationError("takes seconds, comma-separated, each above 0, such as 60,300,1800")
    return seconds


_TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*")
"""What can stand behind ``Bearer`` (RFC 6750, section 2.1)."""

_NAME = re.compile(r"[A-Za-z0-9_.\-]{1,64}")

_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


@dataclass(frozen=True, slots=True)
class _ApiKey:
    name: str
    digest: str
    """SHA-256, in hex."""
    short: bool = False

    @classmethod
    def of(cls, key: str, name: str | None = None) -> _ApiKey:
        digest = hashlib.sha256(key.encode()).hexdigest()
        return cls(name or f"key-{digest[:8]}", digest, len(key) < SHORTEST_API_KEY)


def _api_key(text: str) -> _ApiKey:
    """One entry of MAILRELAY_API_KEYS."""
    match text.split(":"):
        case [key] if _TOKEN.fullmatch(key):
            return _ApiKey.of(key)
        # Not a key named sha256: who writes that has a hash and forgot its name.
        case [name, key] if _NAME.fullmatch(name) and _TOKEN.fullmatch(key) and name != "sha256":
            return _ApiKey.of(key, name)
        case [name, "sha256", digest] if _NAME.fullmatch(name) and _SHA256.fullmatch(digest):
            return _ApiKey(name, digest.lower())
    raise ValidationError(
        "takes keys, comma-separated, each one KEY, NAME:KEY or NAME:sha256:HEX; a key is"
        " made of letters, digits and -._~+/, a name of letters, digits and -._"
    )


def _chain(names: tuple[str, ...]) -> None:
    if len(set(names)) < len(names):
        raise ValidationError("names a provider twice")


def _distinct_keys(keys: tuple[_ApiKey, ...]) -> None:
    names, digests = {key.name for key in keys}, {key.digest for key in keys}
    if len(names) < len(keys) or len(digests) < len(keys):
        raise ValidationError("has the same name or the same key twice")


def _sender(text: str) -> tuple[str, str]:
    """One entry of MAILRELAY_SENDERS as (name of a key, address or ``@domain``)."""
    name, _, sender = text.partition(":")
    try:
        return name, senders.read(sender)
    except ValueError:
        raise ValidationError(
            "takes NAME:@DOMAIN and NAME:ADDRESS, comma-separated, a key's name as often as it"
            " has senders, such as shop:@example.com,shop:news@example.org"
        ) from None


_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": DAY}


class _RequestLimit(fields.Field[Any]):
    """``100/s``"""

    def _deserialize(self, value: str, *args: Any, **kwargs: Any) -> RequestLimit:
        found = re.fullmatch(r"([1-9][0-9]{0,6})/([smhd])", value)
        if found is None:
            raise ValidationError(
                "takes a whole number of requests a second, minute, hour or day, such as 100/s"
            )
        return RequestLimit(int(found[1]), _UNITS[found[2]])


def _url(text: str) -> None:
    try:
        parts = urlsplit(text)
        works = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        works = False
    # A user and a password would be ignored, and then shown wherever the address is.
    if not works or re.search(r"[\s?#@]", text):
        raise ValidationError("must be an http:// or https:// address")


_SECRET = Regexp(r"[!-~]+\Z", error="must be made of visible ASCII characters")
_REGION = Regexp(r"[a-z0-9\-]{1,63}\Z", error="must be the name of a region, such as eu-west-1")


def _text(variable: str, description: str, **kwargs: Any) -> fields.String:
    kwargs.setdefault("load_default", None)
    return fields.String(data_key=variable, metadata={"description": description}, **kwargs)


def _whole(variable: str, default: int, least: int, most: int, description: str) -> fields.Integer:
    takes = f"must be a whole number from {least} to {most}"
    return fields.Integer(
        data_key=variable,
        load_default=default,
        validate=Range(min=least, max=most, error=takes),
        error_messages={"invalid": takes, "too_large": takes},
        metadata={"description": description},
    )


def _ip_address(text: str) -> None:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        raise ValidationError("must be an IP address, such as 127.0.0.1 or 0.0.0.0") from None


def _port(variable: str, default: int, part: str) -> fields.Integer:
    return _whole(variable, default, 1, 65_535, f"where `make run` has the {part} listen")


def _above_zero(variable: str, default: float, most: int, description: str) -> fields.Float:
    takes = f"must be a number above 0, up to {most}"
    return fields.Float(
        data_key=variable,
        load_default=default,
        validate=Range(min=0, min_inclusive=False, max=most, error=takes),
        error_messages={"invalid": takes, "special": takes, "too_large": takes},
        metadata={"description": description},
    )


class _Environment(Schema):
    class Meta:
        unknown = EXCLUDE

    providers = _List(
        _provider_name,
        data_key="EMAIL_PROVIDERS",
        load_default=("mailgun", "ses", "sendgrid"),
        validate=_chain,
        metadata={"description": "the chain, in order"},
    )
    api_keys = _List(
        _api_key,
        data_key="MAILRELAY_API_KEYS",
        load_default=(),
        validate=_distinct_keys,
        metadata={"description": "bearer keys: KEY, NAME:KEY or NAME:sha256:HEX"},
    )
    senders = _List(
        _sender,
        data_key="MAILRELAY_SENDERS",
        load_default=(),
        metadata={"description": "as whom a key may send: NAME:@DOMAIN or NAME:ADDRESS"},
    )
    request_limit = _RequestLimit(
        data_key="MAILRELAY_REQUEST_LIMIT",
        load_default=None,
        metadata={"description": "requests of one key to one web process, such as 100/s"},
    )
    mailgun_api_key = _text("MAILGUN_API_KEY", "Mailgun's API key", validate=_SECRET)
    mailgun_domain = _text(
        "MAILGUN_DOMAIN",
        "the sending domain at Mailgun",
        validate=Regexp(r"[A-Za-z0-9.\-]+\Z", error="must be a domain name"),
    )
    mailgun_base_url = _text(
        "MAILGUN_BASE_URL",
        "Mailgun's address; https://api.eu.mailgun.net in the EU",
        load_default="https://api.mailgun.net",
        validate=_url,
    )
    sendgrid_api_key = _text("SENDGRID_API_KEY", "SendGrid's API key", validate=_SECRET)
    sendgrid_base_url = _text(
        "SENDGRID_BASE_URL",
        "SendGrid's address",
        load_default="https://api.sendgrid.com",
        validate=_url,
    )
    ses_region = _text(
        "SES_REGION", "the region of SES; the AWS region unless given", validate=_REGION
    )
    ses_endpoint_url = _text("SES_ENDPOINT_URL", "another address for SES", validate=_url)
    aws_region = _text("AWS_REGION", "the AWS region; boto3's own unless given", validate=_REGION)
    aws_endpoint_url = _text(
        "AWS_ENDPOINT_URL", "another address for all of AWS, read by boto3 itself", validate=_url
    )
    table = _text(
        "MAILRELAY_TABLE",
        "the DynamoDB table",
        load_default="mailrelay",
        validate=Regexp(
            r"[A-Za-z0-9_.\-]{3,255}\Z",
            error="must have 3 to 255 letters, digits, dots, dashes and underscores",
        ),
    )
    bucket = _text(
        "MAILRELAY_BUCKET",
        "the S3 bucket for content over 350 KB compressed; refused with 413 without one",
        validate=Regexp(
            r"[a-z0-9][a-z0-9.\-]{1,61}[a-z0-9]\Z", error="must be the name of an S3 bucket"
        ),
    )
    queue_prefix = _text(
        "MAILRELAY_QUEUE_PREFIX",
        "in front of the name of each SQS queue",
        load_default="mailrelay-",
        # SQS allows 80 characters; the longest name behind it takes less than 30.
        validate=Regexp(
            r"[A-Za-z0-9_\-]{1,50}\Z",
            error="must have 1 to 50 letters, digits, dashes and underscores",
        ),
    )
    message_ttl = _whole(
        # MessageRetentionPeriod's range in the SQS API reference.
        *("MAILRELAY_MESSAGE_TTL", 60, 60, 1_209_600),
        "seconds that a message lives in SQS",
    )
    lease = _above_zero(*("MAILRELAY_LEASE", 30.0, 86_400), "seconds a worker may hold an email")
    sweep_interval = _above_zero(
        *("MAILRELAY_SWEEP_INTERVAL", 10.0, 86_400), "seconds between two sweeps"
    )
    retry_schedule = _List(
        _retry_delay,
        data_key="MAILRELAY_RETRY_SCHEDULE",
        load_default=(60.0, 300.0, 1800.0, 7200.0, 28800.0, 86400.0),
        # Every attempt stands in the email's item (see also `_check_together`).
        validate=Length(max=100, error="takes at most 100 delays"),
        metadata={"description": "seconds from each exhausted chain to its next start"},
    )
    duplicates = _text(
        "MAILRELAY_DUPLICATES",
        "after an unanswered request: allow tries the next provider, avoid stops as unknown",
        load_default="allow",
        validate=Regexp(r"(allow|avoid)\Z", error="must be allow or avoid"),
    )
    provider_timeout = _above_zero(
        *("MAILRELAY_PROVIDER_TIMEOUT", 10.0, 86_400), "seconds to wait for a provider's answer"
    )
    provider_pause = _above_zero(
        *("MAILRELAY_PROVIDER_PAUSE", 10.0, 3600),
        "seconds for which a provider that fails is left alone at first",
    )
    concurrency = _whole(
        *("MAILRELAY_CONCURRENCY", 64, 1, 1000),
        "emails that one worker process sends at the same time",
    )
    events = _text(
        "MAILRELAY_EVENTS",
        "whether workers send events, which Flower shows: on or off",
        load_default="on",
        validate=Regexp(r"(on|off)\Z", error="must be on or off"),
    )
    metrics_address = _text(
        "MAILRELAY_METRICS_ADDRESS",
        "where a worker serves its metrics",
        load_default="127.0.0.1",
        validate=_ip_address,
    )
    metrics_port = _whole(
        *("MAILRELAY_METRICS_PORT", 8001, 0, 65_535),
        "the port of a worker's metrics; 0 for none",
    )
    retention_days = _above_zero(
        *("MAILRELAY_RETENTION_DAYS", 30.0, 36_500),
        "days until a batch and its content are removed",
    )
    log_format = _text(
        "MAILRELAY_LOG_FORMAT",
        "auto is text on a terminal and JSON elsewhere; or json, or text",
        load_default="auto",
        validate=Regexp(r"(auto|json|text)\Z", error="must be auto, json or text"),
    )
    port = _port("PORT", 8000, "web process")
    flower_port = _port("FLOWER_PORT", 5555, "Flower")
    sandbox_port = _port("SANDBOX_PORT", 8025, "provider sandbox")
    aws_port = _port("AWS_PORT", 4566, "local AWS")
    sandbox_url = _text(
        "MAILRELAY_SANDBOX_URL",
        "where the console finds the sandbox, for its switches and mailbox; `make run` sets it",
        validate=_url,
    )
    flower_url = _text(
        "MAILRELAY_FLOWER_URL",
        "where the console's link to Flower leads; `make run` sets it",
        validate=_url,
    )

    @pre_load
    def _drop_empty(self, data: Mapping[str, str], **_: Any) -> dict[str, str]:
        return {name: value.strip() for name, value in data.items() if value.strip()}

    @post_load
    def _build(self, data: dict[str, Any], **_: Any) -> Settings:
        avoid = data.pop("duplicates") == "avoid"
        data["events"] = data["events"] == "on"
        keys: tuple[_ApiKey, ...] = data.pop("api_keys")
        allowed: dict[str, frozenset[str]] = {}
        for name, sender in data.pop("senders"):
            allowed[name] = allowed.get(name, frozenset()) | {sender}
        return Settings(
            **data,
            api_keys={key.digest: key.name for key in keys},
            short_api_keys=tuple(key.name for key in keys if key.short),
            senders=allowed,
            avoid_duplicates=avoid,
            rates={},
        )


def load(environ: Mapping[str, str] = os.environ) -> Settings:
    """The settings in `environ`; raises `SettingsError` for the first value that cannot work."""
    try:
        settings: Settings = _Environment().load(environ)
    except ValidationError as error:
        variable, problems = next(iter(error.messages_dict.items()))
        raise SettingsError(variable, str(problems[0]).rstrip(".")) from None
    settings = replace(settings, rates=_rates(environ))
    _check_together(settings)
    return settings


RATE_PREFIX = "MAILRELAY_RATE_"
"""What the variable of a provider's rate is called, before the provider's name."""

_RATE = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)/([smhd])")


def _rates(environ: Mapping[str, str]) -> dict[str, float]:
    """The rates by provider, whose names the variables have: there may be any providers."""
    variables = {name: value.strip() for name, value in environ.items() if value.strip()}
    return {
        variable.removeprefix(RATE_PREFIX).lower(): _rate(variable, value)
        for variable, value in variables.items()
        if variable.startswith(RATE_PREFIX)
    }


def _rate(variable: str, text: str) -> float:
    match = _RATE.fullmatch(text)
    rate = float(match[1]) / _UNITS[match[2]] if match else 0.0
    # Each place in time is a whole number of microseconds, and a year of them is no rate.
    if not 1e-6 <= rate <= 100_000:
        raise SettingsError(
            variable, "takes emails a second, minute, hour or day, such as 200/s or 50000/d"
        )
    return rate


def _check_together(settings: Settings) -> None:
    """Refuse values that are fine alone and break a promise together."""
    names = set(settings.api_keys.values())
    if not settings.senders.keys() <= names:
        # Without the one that it has: perhaps that is a key.
        raise SettingsError(
            "MAILRELAY_SENDERS",
            "has a name that no key of MAILRELAY_API_KEYS has; there are"
            f" {', '.join(sorted(names)) or 'none'}",
        )
    longest = _CLAIM + settings.longest_send
    if settings.lease < longest:
        raise SettingsError(
            "MAILRELAY_LEASE",
            f"{settings.lease:g} seconds are not enough: with MAILRELAY_PROVIDER_TIMEOUT="
            f"{settings.provider_timeout:g} claiming and sending an email may take {longest:g}"
            " seconds, and it must not count as abandoned while it is being sent",
        )
    if settings.attempts > MAX_ATTEMPTS:
        raise SettingsError(
            "MAILRELAY_RETRY_SCHEDULE",
            f"{len(settings.retry_schedule)} delays are too many: with the"
            f" {len(settings.providers)} providers of EMAIL_PROVIDERS an email may take"
            f" {settings.attempts} attempts, and it can hold {MAX_ATTEMPTS}",
        )
    if settings.retention_days * DAY <= settings.longest_life:
        raise SettingsError(
            "MAILRELAY_RETENTION_DAYS",
            f"{settings.retention_days:g} days are not enough: with MAILRELAY_RETRY_SCHEDULE,"
            f" MAILRELAY_PROVIDER_TIMEOUT={settings.provider_timeout:g},"
            f" MAILRELAY_SWEEP_INTERVAL={settings.sweep_interval:g} and"
            f" MAILRELAY_MESSAGE_TTL={settings.message_ttl} an email may be open for {settings.longest_life / DAY:.2f}"
            " days, and must not be removed before it is over",
        )
