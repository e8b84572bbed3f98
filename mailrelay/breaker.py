"""Who may be asked: the circuit of each provider, as all workers know it, kept in step by each.

A worker counts failures for itself and tells all others what it concludes. What others concluded it
learns within `_STALE_SECONDS`, by one read for all of its threads. Where the table cannot be
reached it goes on with what it knows: a circuit saves requests, and no promise rests on it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence

import structlog

from mailrelay import circuit as rules
from mailrelay import clock
from mailrelay.circuit import Circuit, Ended, State
from mailrelay.observation import CircuitChanged, Observer
from mailrelay.providers import Answer
from mailrelay.shared import Shared
from mailrelay.table import StoreUnavailable

log = structlog.get_logger(__name__)

_FRESH_SECONDS = 1.0
"""From this age on one thread reads again what is known."""

_STALE_SECONDS = 2.0
"""From this age on, as after an idle time, no other thread goes by it meanwhile."""

_HELD_PAUSE = 60_000
"""Milliseconds until it is worth looking again whether a person has closed a circuit."""


class Breaker:
    """The circuits of some providers, for all threads of a process."""

    def __init__(
        self,
        shared: Shared,
        providers: Sequence[str],
        observe: Observer,
        *,
        first_pause: int,
        lease: int,
    ) -> None:
        """`first_pause` and `lease` are in milliseconds."""
        self._shared = shared
        self._observe = observe
        self._first_pause = first_pause
        self._lease = lease
        self._circuits = {name: Circuit(name) for name in providers}
        self._ended = {name: deque[Ended](maxlen=rules.WINDOW_SIZE) for name in providers}
        self._lock = threading.Lock()
        self._reading = threading.Lock()
        self._read_at = float("-inf")

    def passes(self, provider: str) -> bool:
        """Whether `provider` may be asked as far as is known; the probe is still to be taken."""
        self._refresh()
        circuit = self._circuits.get(provider)
        return circuit is None or circuit.passes(clock.now())

    def enter(self, provider: str) -> Circuit | None:
        """Ask `provider` from now on: its circuit, for `leave`; None if it may not be asked.

        Of all who want to ask one whose circuit is open for long enough, one gets through.
        """
        circuit, now = self._circuits.get(provider, Circuit(provider)), clock.now()
        if circuit.state is State.CLOSED:
            return circuit
        if not circuit.passes(now):
            return None
        return self._change(circuit, rules.probing(circuit, now, self._lease))

    def leave(self, entered: Circuit, answer: Answer) -> None:
        """What came of asking it."""
        provider, now = entered.provider, clock.now()
        if provider not in self._circuits:
            return
        ended = self._ended[provider]
        with self._lock:
            if rules.tells(answer):
                ended.append(Ended(now, rules.fails(answer)))
            lately, circuit = tuple(ended), self._circuits[provider]
        if entered.state is State.HALF_OPEN:
            self._tell(entered, rules.probed(entered, answer, now, self._first_pause))
        elif circuit.state is State.CLOSED and rules.opens(answer, lately, now):
            self._change(circuit, rules.opened(circuit, answer, now, self._first_pause))

    def again_at(self, chain: Sequence[str]) -> int:
        """When the first of the chain may be asked again, in milliseconds since the epoch."""
        now = clock.now()
        return min(self._again_at(self._circuits.get(name), now) for name in chain)

    def _again_at(self, circuit: Circuit | None, now: int) -> int:
        if circuit is None or circuit.state is State.CLOSED:
            return now
        if circuit.until is None:
            return now + _HELD_PAUSE
        # A probe that is under way takes no longer than a moment, unless its worker dies.
        return circuit.until if circuit.state is State.OPEN else now + self._first_pause

    def undecided(self, chain: Sequence[str]) -> bool:
        """Whether one of the chain is being tried right now."""
        circuits = (self._circuits.get(name) for name in chain)
        return any(circuit and circuit.state is State.HALF_OPEN for circuit in circuits)

    def why(self, provider: str) -> str:
        """Why it is left alone; nothing that a provider said, which may name a recipient."""
        circuit = self._circuits[provider]
        if circuit.state is State.CLOSED:
            return "left alone until a moment ago"
        if circuit.until is None:
            return "left alone until its circuit is closed by hand"
        because = " ".join(filter(None, (circuit.outcome, circuit.code)))
        if circuit.state is State.HALF_OPEN:
            return f"left alone until another email's request is answered: {because}"
        return f"left alone until {clock.rfc3339(circuit.until)}: {because}"

    def _refresh(self) -> None:
        age = time.monotonic() - self._read_at
        if age < _FRESH_SECONDS or not self._reading.acquire(blocking=age >= _STALE_SECONDS):
            return
        try:
            if time.monotonic() - self._read_at >= _FRESH_SECONDS:
                self._read()
                # Also where the table is away: the threads must not try it one after the other.
                self._read_at = time.monotonic()
        finally:
            self._reading.release()

    def _read(self) -> None:
        with self._lock:
            known = dict(self._circuits)
        try:
            found = self._shared.circuits(list(known))
        except StoreUnavailable as error:
            log.warning("the providers' circuits cannot be read", error=error)
            return
        with self._lock:
            for name, circuit in found.items():
                # What changed here meanwhile is newer than what was read; and what has not changed
                # stays the same object, which who is about to change it compares with.
                if self._circuits[name] is known[name] != circuit:
                    self._know(circuit)

    def _know(self, circuit: Circuit) -> None:
        """From now on this is its provider's circuit; the caller has the lock."""
        self._circuits[circuit.provider] = circuit
        if circuit.state is State.CLOSED:
            # What failed before it closed, be it by another worker's probe, is over.
            self._ended[circuit.provider].clear()

    def _change(self, before: Circuit, after: Circuit) -> Circuit | None:
        """Change a circuit, in one of all the threads that want to; None in the others."""
        with self._lock:
            if self._circuits[before.provider] is not before:
                return None
            self._circuits[before.provider] = after
        return self._tell(before, after)

    def _tell(self, before: Circuit, after: Circuit) -> Circuit | None:
        """Tell all workers; None if another was there first, or nobody can be told."""
        try:
            changed = self._shared.change_circuit(before, after)
        except StoreUnavailable as error:
            log.warning("a circuit cannot be changed", provider=before.provider, error=error)
            changed = None
        with self._lock:
            if changed is not None:
                self._know(changed)
            else:
                if self._circuits[before.provider] is after:
                    self._circuits[before.provider] = before
                self._read_at = float("-inf")
        if changed is not None:
            self._observe(CircuitChanged(before, changed))
        return changed
