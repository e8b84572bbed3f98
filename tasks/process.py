"""What a worker process is made of: assembled once, before the threads of its pool start."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from celery.signals import worker_init, worker_shutting_down

from mailrelay import assembly
from mailrelay.courier import Courier
from mailrelay.settings import Settings, SettingsError, load
from mailrelay.sweep import Sweeper
from tasks.queue import CeleryQueue


@dataclass(frozen=True, slots=True)
class Parts:
    """Shared by all threads."""

    settings: Settings
    queue: CeleryQueue
    courier: Courier
    sweeper: Sweeper


@cache
def parts() -> Parts:
    """The process's parts; raises `SettingsError` for a provider without its credentials."""
    settings = load()
    queue, store = CeleryQueue(settings), assembly.store(settings)
    return Parts(
        settings=settings,
        queue=queue,
        courier=assembly.courier(settings, store),
        sweeper=assembly.sweeper(settings, store, queue),
    )


@worker_init.connect
def _assemble(**_: Any) -> None:
    """A missing credential ends the worker here, with one line."""
    try:
        parts()
    except SettingsError as error:
        raise SystemExit(f"mailrelay: {error}") from None


@worker_shutting_down.connect
def _stop(**_: Any) -> None:
    parts().courier.stop()
