"""Real processes for tests: started on free ports, waited for, and always stopped."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import urllib3
from ulid import ULID

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def unused_name(prefix: str) -> str:
    """A name for a table, a queue or a bucket that no other test has; ports come again."""
    return f"{prefix}-{ULID()}".lower()


def wait_for(look: Callable[[], Any], what: str, seconds: float = 30) -> Any:
    """What `look` returns once that is true; fails with `what` when it takes too long."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds:g} s")
        time.sleep(0.1)  # between two looks, never in place of one
    return found


def answers(url: str) -> bool:
    """Whether an HTTP server answers there with 200."""
    try:
        return urllib3.request("GET", url, timeout=2, retries=False).status == 200
    except urllib3.exceptions.HTTPError:
        return False


class Process:
    """One command of the virtual environment, in a process group of its own.

    What it prints is kept in `log`.
    """

    def __init__(
        self, command: Sequence[str], environ: Mapping[str, str], log: Path, **kwargs: Any
    ) -> None:
        self.log = log
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                [str(BIN / command[0]), *command[1:]],
                env=dict(environ),
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **kwargs,
            )

    def printed(self) -> str:
        return self.log.read_text(errors="replace")

    def signal(self, number: int) -> None:
        """Signal all of the process's group."""
        os.killpg(self._popen.pid, number)

    def kill(self) -> None:
        """kill -9, as the kernel or an operator in a hurry does."""
        self.signal(signal.SIGKILL)
        self._popen.wait()

    def stop(self, seconds: float = 30) -> int:
        """SIGTERM, as a deploy does; the exit status."""
        if self._popen.poll() is None:
            self._popen.terminate()
        return self.wait(seconds)

    def wait(self, seconds: float = 30) -> int:
        try:
            return self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"did not end within {seconds:g} s:\n{self.printed()}") from None

    @property
    def running(self) -> bool:
        return self._popen.poll() is None
