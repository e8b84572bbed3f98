"""The store of accepted messages: SQLite, in a file or in memory."""

import json
import sqlite3
from threading import Lock

from mailrelay.sandbox.mail import Mail

# Room for a benchmark that counts every message, and an end to it: whichever comes first, the
# oldest go. The bytes are those of the stored JSON.
MAX_MESSAGES = 100_000
MAX_BYTES = 512 * 1024 * 1024

_SCHEMA = """
CREATE TABLE IF NOT EXISTS mail (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    provider TEXT NOT NULL,
    recipient TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    document TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS mail_recipient ON mail (recipient);
"""


class Mailbox:
    """Keeps the newest messages; every method may be called from any thread.

    One connection behind one lock: a write takes some 50 µs, so it is never what a sender waits
    for, and an in-memory database would be a different one on each connection.
    """

    def __init__(
        self, path: str, *, max_messages: int = MAX_MESSAGES, max_bytes: int = MAX_BYTES
    ) -> None:
        """`path` is a file, made if need be, or `:memory:`. Raises `sqlite3.Error`."""
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._lock = Lock()
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        # A killed process loses nothing; only a power cut may, which is fine for a sandbox.
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.executescript(_SCHEMA)
        self._count, self._bytes = self._db.execute(
            "SELECT count(*), coalesce(sum(bytes), 0) FROM mail"
        ).fetchone()

    def keep(self, mail: Mail) -> None:
        """Stores the mail, and drops the oldest ones over the limits."""
        document = json.dumps(mail.as_json())
        with self._lock:
            self._db.execute(
                "INSERT INTO mail (id, provider, recipient, bytes, document)"
                " VALUES (?, ?, ?, ?, ?)",
                (mail.id, mail.provider, mail.to.email, len(document), document),
            )
            self._count += 1
            self._bytes += len(document)
            while self._count > self._max_messages or (
                self._bytes > self._max_bytes and self._count > 1
            ):
                self._drop_oldest()

    def _drop_oldest(self) -> None:
        number, size = self._db.execute(
            "SELECT number, bytes FROM mail ORDER BY number LIMIT 1"
        ).fetchone()
        self._db.execute("DELETE FROM mail WHERE number = ?", (number,))
        self._count -= 1
        self._bytes -= size

    def newest(
        self, *, to: str | None = None, provider: str | None = None, limit: int, offset: int = 0
    ) -> tuple[int, list[Mail]]:
        """How many match (`to` is an exact address), and one page of them, newest first."""
        matching = (
            " FROM mail WHERE (:to IS NULL OR recipient = :to)"
            " AND (:provider IS NULL OR provider = :provider)"
        )
        values = {"to": to, "provider": provider, "limit": limit, "offset": offset}
        with self._lock:
            (total,) = self._db.execute("SELECT count(*)" + matching, values).fetchone()
            rows = self._db.execute(
                "SELECT document" + matching + " ORDER BY number DESC LIMIT :limit OFFSET :offset",
                values,
            ).fetchall()
        return total, [Mail.from_json(json.loads(document)) for (document,) in rows]

    def find(self, mail_id: str) -> Mail | None:
        """The mail with this provider message id."""
        with self._lock:
            row = self._db.execute("SELECT document FROM mail WHERE id = ?", (mail_id,)).fetchone()
        return Mail.from_json(json.loads(row[0])) if row else None

    def counts(self) -> dict[str, int]:
        """How many messages each provider has in here; a provider with none is left out."""
        with self._lock:
            rows = self._db.execute("SELECT provider, count(*) FROM mail GROUP BY provider")
            return dict(rows.fetchall())

    def empty(self) -> None:
        """Drops every message."""
        with self._lock:
            self._db.execute("DELETE FROM mail")
            self._count = self._bytes = 0
