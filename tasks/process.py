"""What a worker process is made of: assembled once, before the threads of its pool start."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from threading import Lock, Thread
from typing import Any

from celery.signals import worker_init, worker_shutting_down

from mailrelay import assembly, counters
from mailrelay.courier import Courier
from mailrelay.settings import Settings, SettingsError, load
from mailrelay.sweep import Sweeper
from tasks.queue import CeleryQueue


class Sweeps:
    """A thread for each shard that is being swept, and never two for one."""

    def __init__(self) -> None:
        self._running: dict[int, Thread] = {}
        self._lock = Lock()

    def start(self, shard: int, sweep: Callable[[int], None]) -> None:
        with self._lock:
            running = self._running.get(shard)
            if running is None or not running.is_alive():
                # A sweep that is cut off when the process ends leaves nothing half done.
                self._running[shard] = Thread(target=sweep, args=(shard,), daemon=True)
                self._running[shard].start()


@dataclass(frozen=True, slots=True)
class Parts:
    """Shared by all threads."""

    settings: Settings
    queue: CeleryQueue
    courier: Courier
    sweeper: Sweeper
    sweeps: Sweeps


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
        sweeps=Sweeps(),
    )


@worker_init.connect
def _assemble(**_: Any) -> None:
    """A missing credential ends the worker here, with one line."""
    try:
        settings = parts().settings
    except SettingsError as error:
        raise SystemExit(f"mailrelay: {error}") from None
    counters.start(assembly.glance(settings).table)


@worker_shutting_down.connect
def _stop(**_: Any) -> None:
    parts().courier.stop()
