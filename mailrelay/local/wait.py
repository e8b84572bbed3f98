"""Wait until addresses answer, then run a command until it works.

    python -m mailrelay.local.wait URL... [-- COMMAND ARGUMENT...]

An answer below 500 will do. It ends with 0, however long that takes; it says what is missing when
`PATIENCE` is over. It needs the standard library alone, so that it starts at once.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

PATIENCE = 60.0
"""Seconds until it says what is missing."""

PAUSE = 0.1
"""Seconds between two looks at an address."""

LONGEST_PAUSE = 30.0
"""Seconds between two runs of a command that fails: the pause doubles from 1 up to this."""


def main(arguments: Sequence[str]) -> None:
    urls, command = list(arguments), []
    if "--" in urls:
        at = urls.index("--")
        urls, command = urls[:at], urls[at + 1 :]
    for url in urls:
        wait_for(url)
    if command:
        run_until_it_works(command)


def wait_for(url: str, *, patience: float = PATIENCE, pause: float = PAUSE) -> None:
    patient_until = time.monotonic() + patience
    while missing := missing_at(url):
        if time.monotonic() > patient_until:
            say(f"still not ready: {url} {missing}; waiting on")
            patient_until = time.monotonic() + patience
        time.sleep(pause)


def missing_at(url: str) -> str | None:
    """What is wrong at `url`, or `None` if it answers.

    It asks directly: a proxy of the environment (urllib would use it) does not lead to this host.
    """
    parts = urlsplit(url)
    connection = HTTPConnection(parts.netloc, timeout=5)
    try:
        connection.request("GET", parts.path or "/")
        answer = connection.getresponse()
        if answer.status < 500:
            return None
        return f"answers {answer.status} {answer.read(1000).decode(errors='replace')}".strip()
    except (OSError, HTTPException) as error:
        return f"does not answer ({error})"
    finally:
        connection.close()


def run_until_it_works(command: Sequence[str], *, pause: float = 1.0) -> None:
    """Run it until it ends with 0. What it says is passed on.

    Ends this program with the command's status where another try cannot work: any but
    `EX_TEMPFAIL` (sysexits.h).
    """
    while (status := subprocess.run(command, check=False).returncode) != 0:  # noqa: S603
        if status != os.EX_TEMPFAIL:
            sys.exit(status)
        say(f"`{' '.join(command)}` ended with {status}; once more in {pause:g} s")
        time.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE)


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - the log of this program is its standard output


if __name__ == "__main__":
    main(sys.argv[1:])
