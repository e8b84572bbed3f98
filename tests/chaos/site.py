"""A relay at work that faults can be caused in: its parts, its AWS behind a proxy, its providers."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

from tests.chaos.client import Client
from tests.chaos.judge import Breach, Finding
from tests.chaos.proxy import Proxy
from tests.support.processes import Process, free_port, wait_for
from tests.support.sandbox import Sandbox
from tests.support.stack import Stack, create

PROVIDERS = ("mailgun", "ses", "sendgrid")

LEASE = 30.0
PROVIDER_TIMEOUT = 5.0
STOP_SECONDS = LEASE + 10
"""What a part that is told to end may take; the machine is busy, hence the ten."""

SETTINGS = {
    "MAILRELAY_LEASE": f"{LEASE:g}",
    "MAILRELAY_PROVIDER_TIMEOUT": f"{PROVIDER_TIMEOUT:g}",
    "MAILRELAY_SWEEP_INTERVAL": "2",
    # So long that no outage of a round uses it up: no healthy address may fail.
    "MAILRELAY_RETRY_SCHEDULE": ",".join(["5"] * 100),
    "MAILRELAY_PROVIDER_PAUSE": "3",
    "MAILRELAY_CONCURRENCY": "16",
    # Several workers on one machine cannot have one port.
    "MAILRELAY_METRICS_PORT": "0",
}


PROVIDER_SECONDS = 0.2
"""What a healthy provider takes, so that there is always something under way."""


class Interrupted(Exception):
    """Somebody wants the run to end."""


class Site:
    """One round's relay. Its methods may be called from many threads."""

    def __init__(
        self,
        aws: str,
        proxy: Proxy,
        sandbox: Sandbox,
        logs: Path,
        variables: dict[str, str],
        interrupt: threading.Event,
    ) -> None:
        """`interrupt` ends every wait in here."""
        self.proxy = proxy
        self.sandbox = sandbox
        self.logs = logs
        self.stack = create(proxy.url, sandbox, logs, **{**SETTINGS, **variables})
        self.aws = Stack(self.stack.environ, logs, aws)
        """The same relay's table and queues, past the proxy."""
        self.findings: list[Finding] = []
        self.figures: dict[str, Any] = {}
        """What else a round is to show."""
        self._provider_seconds = PROVIDER_SECONDS
        self.client: Client
        self._lock = threading.Lock()
        self._parts: dict[str, Process] = {}
        self._urls: dict[str, str] = {}
        self._launch: dict[str, Sequence[str]] = {}
        self._interrupt = interrupt
        self._diary = (logs / "diary.log").open("w", buffering=1)

    # The parts, by names such as web-1, worker-2 and beat-1

    def clock(self, name: str, seconds: float) -> None:
        """Have a part's clock go wrong by `seconds` whenever it is started from now on."""
        self._launch[name] = _launch("--clock", f"{seconds:g}")

    def start(self, *names: str, die_at: str | None = None) -> None:
        """Start parts at once, and wait until they are at work."""
        with ThreadPoolExecutor(len(names)) as pool:
            list(pool.map(lambda name: self._start(name, die_at), names))

    def _start(self, name: str, die_at: str | None) -> None:
        part = name.partition("-")[0]
        variables, options = {}, []
        if part == "web":
            variables = {"PORT": str(free_port())}
        if part == "worker":
            options = ["-n", f"{name}@%h"]
        under = _launch("--die-at", die_at) if die_at else self._launch.get(name, ())
        process = self.stack.start(part, under=under, options=options, **variables)
        with self._lock:
            self._parts[name] = process
            if part == "web":
                self._urls[name] = f"http://127.0.0.1:{variables['PORT']}"
        self.note(f"{name} is at work" + (f", to die at {die_at}" if die_at else ""))

    def kill(self, name: str) -> None:
        """kill -9."""
        self._parts[name].kill()
        self.note(f"{name} was killed")

    def stop(self, name: str) -> None:
        """SIGTERM; whoever takes too long, or ends badly, is a finding."""
        with self._lock:
            process = self._parts.pop(name)
            self._urls.pop(name, None)
        started = time.monotonic()
        try:
            status = process.stop(STOP_SECONDS)
        except AssertionError:
            self.found(Breach.STUCK, name, f"was told to end and did not in {STOP_SECONDS:g} s")
        else:
            self.note(f"{name} ended with {status} after {time.monotonic() - started:.1f} s")
            if status != 0:
                self.found(Breach.STUCK, name, f"was told to end and ended with {status}")

    def died(self, name: str, seconds: float) -> bool:
        """Wait until a part that was to die has."""
        try:
            wait_for(lambda: not self._parts[name].running, f"{name} dies", seconds)
        except AssertionError:
            return False
        self.note(f"{name} died")
        return True

    def restore(self) -> None:
        """Start again what does not run."""
        missing = [name for name, process in self._parts.items() if not process.running]
        if missing:
            self.start(*missing)

    def end(self) -> None:
        """Stop everything."""
        with ThreadPoolExecutor() as pool:
            list(pool.map(self.stop, [n for n, p in self._parts.items() if p.running]))
        self.stack.stop()  # what never got to work, too
        self._diary.close()

    def urls(self) -> list[str]:
        """Where the web processes listen, also those that were killed: a client does not know."""
        with self._lock:
            return list(self._urls.values())

    # The providers

    def providers_take(self, seconds: float) -> None:
        """Have each provider take so long from now on when it is healthy."""
        self._provider_seconds = seconds
        self.heal_providers()

    def heal_providers(self, *names: str) -> None:
        """All of them unless some are named."""
        for name in names or PROVIDERS:
            self.sandbox.fault(name, "slow", seconds=self._provider_seconds)

    # Time, and what is to be remembered

    def hold(self, rng: Random, least: float, most: float) -> None:
        """Let time pass, a random span in seconds; raises `Interrupted`."""
        self.wait(rng.uniform(least, most))

    def wait(self, seconds: float) -> None:
        if self._interrupt.wait(seconds):
            raise Interrupted

    def note(self, text: str) -> None:
        """Write it into the round's diary."""
        if not self._diary.closed:
            self._diary.write(f"{time.strftime('%H:%M:%S')} {text}\n")

    def found(self, breach: Breach, about: str, detail: str) -> None:
        with self._lock:
            self.findings.append(Finding(breach, about, detail))
        self.note(str(self.findings[-1]))


def _launch(*options: str) -> list[str]:
    # The interpreter's own name: commands are looked for beside it.
    python = Path(sys.executable).name
    return [python, "-m", "tests.chaos.launch", *options, "--"]
