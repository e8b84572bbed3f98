"""Couriers for tests: complete, with only what a test is about said by the test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mailrelay import assembly
from mailrelay.breaker import Breaker
from mailrelay.courier import Courier
from mailrelay.delivery import Policy
from mailrelay.observation import Observer
from mailrelay.providers import Provider
from mailrelay.rates import Rates
from mailrelay.settings import Settings
from mailrelay.store import Store
from tests.support.fakes import FakeShared, unobserved


def a_breaker(
    settings: Settings, shared: Any = None, observe: Observer = unobserved, **changes: int
) -> Breaker:
    """The breaker of a worker; workers with the same `shared` know of each other."""
    times = {"first_pause": round(settings.provider_pause * 1000), "lease": 30_000, **changes}
    return Breaker(shared or FakeShared(), settings.providers, observe, **times)


def a_courier(
    store: Store,
    providers: Mapping[str, Provider],
    settings: Settings,
    *,
    policy: Policy | None = None,
    breaker: Breaker | None = None,
    rates: Rates | None = None,
    observe: Observer = unobserved,
) -> Courier:
    """A worker's courier that shares its knowledge of the providers with nobody."""
    return Courier(
        store,
        providers,
        breaker or a_breaker(settings),
        rates or Rates(FakeShared(), {}, sweep_interval=10),
        policy or assembly.policy(settings),
        observe,
    )
