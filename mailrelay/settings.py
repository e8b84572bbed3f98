"""The environment, read and checked once, as one frozen object.

Each variable for itself is in variables.py; what they must not be together is here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from marshmallow import ValidationError

from mailrelay.delivery import LONGEST_WAIT
from mailrelay.message import MAX_ATTEMPTS
from mailrelay.values import ApiKey, RequestLimit
from mailrelay.variables import Environment

PROVIDER_CONNECT_TIMEOUT = 3.0
"""Seconds to wait for a connection to a provider: part of the contract, not a setting."""

DAY = 86_400.0

_CLAIM = 1.0
"""Seconds that claiming an email may take before it is sent, both within the lease."""


class SettingsError(Exception):
    """A variable that cannot work: which one, and what it takes."""

    def __init__(self, variable: str, problem: str) -> None:
        super().__init__(f"{variable}: {problem}")
        self.variable = variable


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


def load(environ: Mapping[str, str] = os.environ) -> Settings:
    """The settings in `environ`; raises `SettingsError` for the first value that cannot work."""
    try:
        read: dict[str, Any] = Environment().load(environ)
    except ValidationError as error:
        raise _refusal(error.messages_dict) from None
    settings = _settings(**read)
    _check_together(settings)
    return settings


def _refusal(problems: Mapping[str, Any]) -> SettingsError:
    """The first of marshmallow's problems by variable, which may be grouped."""
    variable, found = next(iter(problems.items()))
    return _refusal(found) if isinstance(found, dict) else SettingsError(variable, found[0])


def _settings(
    *,
    api_keys: tuple[ApiKey, ...],
    senders: tuple[tuple[str, str], ...],
    duplicates: str,
    events: str,
    **others: Any,
) -> Settings:
    """The settings of what the variables were read as."""
    allowed: dict[str, frozenset[str]] = {}
    for name, sender in senders:
        allowed[name] = allowed.get(name, frozenset()) | {sender}
    return Settings(
        api_keys={key.digest: key.name for key in api_keys},
        short_api_keys=tuple(key.name for key in api_keys if key.short),
        senders=allowed,
        avoid_duplicates=duplicates == "avoid",
        events=events == "on",
        **others,
    )


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
