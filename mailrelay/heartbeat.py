"""A sign of life from the loop that does the work, for whoever restarts what hangs.

Each worker and beat keeps a small file in a folder of its user's: the lock on it says that the
process lives, the time of its last change that its loop still turns. A process that hangs keeps
the lock and gets old; one that died has lost the lock, however it died. So the check needs no
network and no broker, and says nothing of either: while AWS is away the loops turn on, and
restarting them would not help.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)

MAX_AGE = 60.0
"""Seconds after which a loop that has not turned hangs.

The slowest healthy one is a worker's while SQS is away: kombu's HTTP client gives up a poll after
20 s, kombu waits up to 30 s between two tries to connect, and boto3 tries for 8 s.
"""

_INTERVAL = 1.0
"""Seconds between two changes of the file; a busy loop turns a thousand times in one."""


class _Heart:
    def __init__(self, directory: Path, name: str) -> None:
        self.path = directory / f"{name}.{os.getpid()}.{secrets.token_hex(4)}"
        # Locked before it has its name: nobody may take it for that of a process that died.
        unnamed = directory / f".{self.path.name}"
        self._file = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        unnamed.rename(self.path)
        self._next = 0.0

    def beat(self, turned: float | None) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _INTERVAL
            os.utime(self._file, None if turned is None else (turned, turned))


@dataclass(frozen=True, slots=True)
class Pulse:
    """A living process, as its file tells."""

    pid: int
    age: float
    """Seconds since its loop turned."""


_heart: _Heart | None = None


def start(kind: str, prefix: str) -> None:
    """From now on this process has a heart: as a `worker` or `beat` on the queues of `prefix`.

    Where there is no place for it, the process works all the same, and no check finds it.
    """
    global _heart
    try:
        _heart = _Heart(_directory(), _name(kind, prefix))
    except OSError as error:
        log.warning("no health check will find this process", folder=_path(), error=error)


def beat(turned: float | None = None) -> None:
    """The loop turned: now, or at `turned` (seconds since the epoch). Cheap; call it each time."""
    if _heart is not None:
        _heart.beat(turned)


def pulses(kind: str, prefix: str) -> Iterator[Pulse]:
    """The living processes of a kind on this machine, of this user; clears up after dead ones."""
    try:
        directory = _directory()
    except OSError:
        return
    for path in sorted(directory.glob(f"{_name(kind, prefix)}.*")):
        try:
            with path.open() as file:
                if _is_dead(file.fileno()):
                    path.unlink(missing_ok=True)
                else:
                    age = time.time() - os.fstat(file.fileno()).st_mtime
                    yield Pulse(int(path.name.split(".")[-2]), max(0.0, age))
        except FileNotFoundError:  # somebody else cleared it up
            continue


def _is_dead(file: int) -> bool:
    """Whether the file's lock is free. A shared one, so that two checks do not meet in it."""
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _name(kind: str, prefix: str) -> str:
    """A prefix of queues has no dot in it (see `settings`)."""
    return f"{prefix}.{kind}"


def _path() -> str:
    return str(Path(tempfile.gettempdir()) / f"mailrelay-{os.getuid()}")


def _directory() -> Path:
    """The folder, which nobody else can write to; raises `OSError`."""
    path = Path(_path())
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise PermissionError(f"{path} is somebody else's")
    return path
