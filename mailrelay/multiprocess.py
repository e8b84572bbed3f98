"""Where the web's processes keep what they count, so that each of them can show the sum.

gunicorn's master makes the directory before anything imports `prometheus_client`, which looks for
it then: this module must not import it, or what does.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
"""The variable that tells `prometheus_client` of it."""


def begin() -> None:
    """Make the directory, empty, for as long as this process lives.

    Done again in the same process (gunicorn reads its configuration again on SIGHUP), it keeps the
    one that the processes have. One of the environment is never used: it would be there for other
    processes as well, and ours would show what those count.
    """
    mark = f"mailrelay-metrics-{os.getpid()}-"
    if Path(os.environ.get(DIRECTORY, "")).name.startswith(mark):
        return
    made = os.environ[DIRECTORY] = tempfile.mkdtemp(prefix=mark)
    atexit.register(_remove, made, os.getpid())


def _remove(directory: str, owner: int) -> None:
    # A process that was forked off ends with the same things to do.
    if os.getpid() == owner:
        shutil.rmtree(directory, ignore_errors=True)


def forget(pid: int) -> None:
    """A process has ended: what it counted stays, what it was just doing does not."""
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(pid)
