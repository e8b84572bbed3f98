"""Where, when and of what a figure was measured."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.processes import ROOT, TICKS

_PACKAGES = ("celery", "kombu", "boto3", "urllib3", "requests", "ministack", "uvicorn")


def describe() -> Mapping[str, Any]:
    """Ready for JSON. `changed` says that the checkout was not what the commit holds."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "commit": _git("rev-parse", "--short=12", "HEAD"),
        "changed": bool(_git("status", "--porcelain")),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "cpu": _cpu_model(),
        "memory_gib": round(memory / 2**30, 1),
        # What else the machine was doing, a minute's average.
        "load": round(os.getloadavg()[0], 2),
        "system": platform.platform(terse=True),
        "versions": {"python": platform.python_version()} | {p: version(p) for p in _PACKAGES},
    }


def _cpu_model() -> str | None:
    """As the kernel has it, where it does."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if "model name" in line), None)


def busy() -> float:
    """Seconds of CPU that all processes of the machine have used since it started."""
    # proc_stat(5): user, nice, system, idle, iowait, irq, softirq, steal.
    with Path("/proc/stat").open() as stat:
        times = [int(field) for field in stat.readline().split()[1:9]]
    return (sum(times) - times[3] - times[4]) / TICKS


def _git(*arguments: str) -> str | None:
    """What git says, or None where this is no checkout."""
    try:
        return subprocess.run(  # noqa: S603
            ["git", *arguments],  # noqa: S607 - whichever git made the checkout
            cwd=ROOT,
            capture_output=True,
            check=True,
            text=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
