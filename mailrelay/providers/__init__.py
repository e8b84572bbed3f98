"""Email providers: the protocol that each one speaks, and how one is found by its name.

A provider makes exactly one request for each attempt, never retries by itself, and turns every
answer into one of five outcomes. What happens next is not its business (see `delivery`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Protocol

from mailrelay.message import Address, Content, Outcome
from mailrelay.settings import Settings, SettingsError
from mailrelay.variables import RATE_PREFIX

ENTRY_POINT_GROUP = "mailrelay.providers"
"""Where a package says which providers it has: ``name = package.module:factory``.

The built-in ones are named there too, in this project's ``setup.cfg``.
"""


@dataclass(frozen=True, slots=True)
class Envelope:
    """One email for one recipient, as it is handed to a provider."""

    message_id: str
    """The Message-ID header, angle brackets included: the same on every attempt, for providers
    that let us set it. SES does not."""
    sender: Address
    to: Address
    subject: str
    content: Content


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one request."""

    outcome: Outcome
    code: str | None = None
    """The provider's own code: an HTTP status or an error's name."""
    reason: str = ""
    """In the provider's words where it has any; it may name the recipient, so never log it."""
    message_id: str | None = None
    """What the provider calls the email, if it accepted it."""
    retry_after: float | None = None
    """Seconds for which the provider wants to be left alone, where it says so."""
    particular: bool = False
    """Whether it is about this email or its sender alone, and tells nothing of how the provider
    would answer any other."""


class Provider(Protocol):
    """One way to send an email. Used by many threads at once."""

    def send(self, envelope: Envelope) -> Answer:
        """Make one request and say how it ended. Raises nothing that it can foresee."""

    def check(self) -> Answer:
        """Ask something harmless that needs the credentials; ``ACCEPTED`` if they work."""


ProviderFactory = Callable[[Settings], Provider]


def installed() -> dict[str, Callable[[], ProviderFactory]]:
    """Every provider that an installed package offers, by name, with what loads its factory."""
    return {entry.name: entry.load for entry in entry_points(group=ENTRY_POINT_GROUP)}


def check_names(names: Iterable[str], variable: str) -> None:
    """Raise `SettingsError` for `variable` if a name is no installed provider's."""
    known = installed()
    for name in names:
        if name not in known:
            raise SettingsError(
                variable, f"{name!r} is no provider; there are {', '.join(sorted(known))}"
            )


def check(settings: Settings) -> None:
    """Raise `SettingsError` where the settings name a provider that is not installed."""
    check_names(settings.providers, "EMAIL_PROVIDERS")
    check_rates(settings)


def check_rates(settings: Settings) -> None:
    """Raise `SettingsError` for the rate of a provider that is not installed."""
    for name in settings.rates:
        check_names([name], RATE_PREFIX + name.upper())


def create_one(settings: Settings, name: str) -> Provider:
    """One provider, ready to send; raises `SettingsError`."""
    check_names([name], "EMAIL_PROVIDERS")
    try:
        factory = installed()[name]()
    except (ImportError, AttributeError) as error:
        raise SettingsError("EMAIL_PROVIDERS", f"{name} cannot be loaded: {error}") from error
    return factory(settings)


def create(settings: Settings) -> dict[str, Provider]:
    """The providers of the configured chain, by name, ready to send.

    Raises `SettingsError` for an unknown name or a missing credential.
    """
    check(settings)
    return {name: create_one(settings, name) for name in settings.providers}
