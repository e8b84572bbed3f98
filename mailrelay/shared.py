"""What all processes know together of the providers, in the same table as the emails.

Two small items a provider: its circuit (`mailrelay.circuit`), and when the next request to it is
allowed (`mailrelay.rates`). Everything here raises `StoreUnavailable`.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import replace

from mailrelay import items
from mailrelay.circuit import Circuit
from mailrelay.table import Table

_TRIES = 3
"""Others may reserve between two looks; that they do so thrice means that there are very many."""


class Shared:
    """The circuits and the rates of all providers."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def circuits(self, providers: Sequence[str]) -> dict[str, Circuit]:
        """The circuit of each of the providers, by name, as it is now."""
        keys = [items.circuit_key(provider) for provider in providers]
        found = map(items.read_circuit, self._table.get_many(keys).values())
        known = {circuit.provider: circuit for circuit in found}
        return {name: known.get(name, Circuit(name)) for name in providers}

    def change_circuit(self, before: Circuit, after: Circuit) -> Circuit | None:
        """`after` as it is stored; None if the circuit is no longer as it was `before`."""
        after = replace(after, version=secrets.token_hex(8))
        return after if self._table.put(items.circuit_item(after), before.version) else None

    def reserve(self, provider: str, now: int, cost: int, horizon: int) -> int | None:
        """Reserve `cost` of the provider's time; when it begins, or None if all is taken.

        Times are in microseconds. The generic cell rate algorithm (ITU-T I.371): the item holds
        the time up to which all is reserved, which may lie ahead of `now` by at most `horizon`.
        """
        key = items.rate_key(provider)
        busy = items.to_item({":cost": cost, ":now": now, ":latest": now + horizon})
        idle = items.to_item({":now": now, ":end": now + cost})
        for _ in range(_TRIES):
            done, item = self._table.exchange(
                key,
                "SET reserved = reserved + :cost",
                "reserved BETWEEN :now AND :latest",
                busy,
            )
            if not done and (item is None or _reserved(item) < now):
                done, item = self._table.exchange(
                    key,
                    "SET reserved = :end",
                    "attribute_not_exists(reserved) OR reserved < :now",
                    idle,
                )
            if item is not None and done:
                return _reserved(item) - cost
            if item is not None and _reserved(item) > now + horizon:
                return None
        return None


def _reserved(item: items.Item) -> int:
    return int(item["reserved"]["N"])
