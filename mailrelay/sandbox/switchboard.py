"""What the sandbox is told and has counted: each provider's fault, each provider's requests."""

from threading import Lock

from mailrelay.sandbox.faults import HEALTHY, Fault
from mailrelay.sandbox.mail import PROVIDERS


class Switchboard:
    """Every method may be called from any thread. Nothing of it outlives the process."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._faults = dict.fromkeys(PROVIDERS, HEALTHY)
        self._turns = dict.fromkeys(PROVIDERS, 0)
        self._requests = dict.fromkeys(PROVIDERS, 0)

    def fault(self, provider: str) -> tuple[Fault, int]:
        """The provider's present fault, and how often its switch was turned until then."""
        with self._lock:
            return self._faults[provider], self._turns[provider]

    def faults(self) -> dict[str, Fault]:
        """Every provider's present fault."""
        with self._lock:
            return dict(self._faults)

    def turn(self, provider: str, fault: Fault) -> None:
        """Gives the provider another fault, or the same again; either ends what hangs there."""
        with self._lock:
            self._faults[provider] = fault
            self._turns[provider] += 1

    def heal(self) -> None:
        """Makes every provider healthy."""
        for provider in PROVIDERS:
            self.turn(provider, HEALTHY)

    def turns(self, provider: str) -> int:
        """How often the provider's switch was turned; a change of it is what a hang waits for."""
        with self._lock:
            return self._turns[provider]

    def count_request(self, provider: str) -> tuple[Fault, int]:
        """Notes one request to the provider's send endpoint, whatever becomes of it.

        What it meets, as `fault` says: who sees the count and then turns the switch is too late.
        """
        with self._lock:
            self._requests[provider] += 1
            return self._faults[provider], self._turns[provider]

    def requests(self) -> dict[str, int]:
        """How many requests each provider's send endpoint has had since the last reset."""
        with self._lock:
            return dict(self._requests)

    def reset_requests(self) -> None:
        """Counts from 0 again."""
        with self._lock:
            self._requests = dict.fromkeys(PROVIDERS, 0)
