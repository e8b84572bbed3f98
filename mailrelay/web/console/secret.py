"""What signs the sessions: one secret for all web processes, which nobody has to configure.

The first process that needs it makes it up and puts it into the table, where the others find it.
Nothing in anybody's environment says anything about it. Without its item (`pk` and `sk` below) and
after a restart of the web processes there is a new one, and nobody is signed in any more.
"""

from __future__ import annotations

import secrets

from mailrelay import items
from mailrelay.table import Table

_KEY = items.to_item({"pk": "S#console", "sk": "secret"})


class Secret:
    """The secret, read from the table when it is first asked for. Raises `StoreUnavailable`."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._known: str | None = None

    def __call__(self) -> str:
        while self._known is None:
            self._known = self._read() or self._make()
        return self._known

    def _read(self) -> str | None:
        item = self._table.get(_KEY, ["secret"])
        return None if item is None else str(item["secret"]["S"])

    def _make(self) -> str | None:
        """None where another process was first."""
        values = {"secret": secrets.token_urlsafe(32), "version": secrets.token_hex(8)}
        return values["secret"] if self._table.put(_KEY | items.to_item(values), "") else None
