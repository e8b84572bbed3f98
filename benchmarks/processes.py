"""One real process of the virtual environment: started, waited for, stopped, and its CPU counted."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import urllib3

ROOT = Path(__file__).parents[1]

# Not resolved: in a virtual environment the interpreter is a link, and its programs lie here.
BIN = Path(sys.executable).parent

TICKS = os.sysconf("SC_CLK_TCK")
"""Of a second, in which the kernel counts CPU."""

_PATIENCE = 120.0
"""Seconds after which something is not slow but stuck."""

_LOOK_INTERVAL = 0.05
"""Seconds between two looks: short enough to place a moment, long enough to cost no CPU."""


class Stuck(Exception):
    """Something did not happen."""


def until(look: Callable[[], object], what: str) -> None:
    """Wait until `look` returns something true; raises `Stuck` with `what` if it never does."""
    deadline = time.monotonic() + _PATIENCE
    while not look():
        if time.monotonic() > deadline:
            raise Stuck(f"{what}: not within {_PATIENCE:g} s")
        time.sleep(_LOOK_INTERVAL)


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _cpu(stat: str) -> float:
    """Seconds of CPU, user and system, in what /proc/<pid>/stat holds."""
    # proc_pid_stat(5); the name in parentheses, which may hold anything, is the second field.
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _stats(sessions: Collection[int]) -> Iterator[str]:
    """What /proc/<pid>/stat holds of all processes that live in these sessions."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # ended since
            stat = path.read_text()
            if int(stat.rpartition(")")[2].split()[3]) in sessions:
                yield stat


def cpu_of_sessions(sessions: Collection[int]) -> float:
    """Seconds of CPU so far of all processes that live in these sessions."""
    return sum(map(_cpu, _stats(sessions)))


def resident_of_sessions(sessions: Collection[int]) -> int:
    """Bytes of memory that these processes have; what two share counts twice."""
    pages = sum(int(stat.rpartition(")")[2].split()[21]) for stat in _stats(sessions))
    return pages * os.sysconf("SC_PAGE_SIZE")


class Process:
    """What it prints is kept in `log`."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str], log: Path) -> None:
        self._command, self._log = command, log
        with log.open("ab") as output:
            self._popen = subprocess.Popen(  # noqa: S603 - the benchmark's own commands
                [str(BIN / command[0]), *command[1:]],
                env=dict(environ),
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Ctrl-C is for the benchmark, which stops its processes in their order.
                start_new_session=True,
            )

    @property
    def session(self) -> int:
        """The id of the session that it and its children are in."""
        return self._popen.pid

    def answers(self, url: str) -> bool:
        """Whether it answers there with 200; raises `Stuck` if it has ended."""
        if self._popen.poll() is not None:
            raise Stuck(self._ended())
        try:
            return urllib3.request("GET", url, timeout=2, retries=False).status == 200
        except urllib3.exceptions.HTTPError:
            return False

    def cpu(self) -> float:
        """Seconds of CPU so far, user and system, of all its threads but not of its children."""
        return _cpu(Path(f"/proc/{self._popen.pid}/stat").read_text())

    def finish(self) -> None:
        """Wait for one that ends by itself; raises `Stuck` unless that is with 0."""
        if self._popen.wait(_PATIENCE) != 0:
            raise Stuck(self._ended())

    def stop(self) -> None:
        """SIGTERM, and no more patience than a supervisor has."""
        if self._popen.poll() is None:
            self._popen.terminate()
        try:
            self._popen.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self._popen.pid, signal.SIGKILL)
            self._popen.wait()

    def _ended(self) -> str:
        last = self._log.read_text(errors="replace")[-2000:]
        return f"{self._command[0]} ended with {self._popen.returncode}:\n{last}"
