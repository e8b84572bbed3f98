"""Runs a part's command in a process that kills itself at a chosen moment, or whose clock is wrong.

    python -m tests.chaos.launch [--die-at POINT:COUNT] [--clock SECONDS] -- COMMAND ARGUMENT...

The product has no hooks for tests: this wraps a method of its classes before the command begins.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import os
import runpy
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Point:
    """A moment: before or after the calls of methods, where `counts` says that one counts."""

    methods: tuple[str, ...]
    """Each as ``module:Class.method``."""
    after: bool = True
    counts: Callable[[Any, Mapping[str, Any]], bool] = lambda result, kwargs: True
    """Asked with the call's result, None before it, and its keyword arguments."""


_SENDS = tuple(
    f"mailrelay.providers.{module}:{name}.send"
    for module, name in (("mailgun", "Mailgun"), ("ses", "Ses"), ("sendgrid", "SendGrid"))
)

POINTS: Mapping[str, Point] = {
    # A worker, in the order of an attempt. A claim that finds nothing is none.
    "claimed": Point(("mailrelay.store:Store.claim",), counts=lambda r, _: r is not None),
    "answered": Point(_SENDS),
    "recorded": Point(
        ("mailrelay.store:Store.advance",), counts=lambda _, kwargs: not kwargs.get("alone")
    ),
    "enqueueing": Point(("tasks.queue:CeleryQueue.put",), after=False),
    # The sweep: what it wakes is recorded, and its message not sent yet.
    "swept": Point(("mailrelay.store:Store.advance",), counts=lambda _, kwargs: bool(kwargs)),
    "withdrawing": Point(("mailrelay.table:Table.batch_write",), after=False),
    # The web, in the order in which a batch that is larger than a transaction is accepted.
    "created": Point(("mailrelay.store:Store.create",)),
    "storing": Point(("mailrelay.table:Table._batch_write_chunk",)),
    "finishing": Point(("mailrelay.store:Store.finish",), after=False),
    "finished": Point(("mailrelay.store:Store.finish",)),
}


def arm(point: Point, count: int, die: Callable[[], None]) -> None:
    """Have the process `die` at the `count`-th call, counted from 1, over all of the methods."""
    lock = threading.Lock()
    calls = 0

    def called(result: Any, kwargs: Mapping[str, Any]) -> None:
        nonlocal calls
        if not point.counts(result, kwargs):
            return
        with lock:
            calls += 1
            reached = calls == count
        if reached:
            die()

    def wrap(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if not point.after:
                called(None, kwargs)
            result = method(*args, **kwargs)
            if point.after:
                called(result, kwargs)
            return result

        return wrapped

    for path in point.methods:
        module, _, names = path.partition(":")
        class_name, _, name = names.partition(".")
        owner = getattr(importlib.import_module(module), class_name)
        setattr(owner, name, wrap(getattr(owner, name)))


def shift_clock(seconds: float) -> None:
    """Have this process believe that it is `seconds` later; what measures durations goes on."""
    real, real_ns = time.time, time.time_ns
    time.time = lambda: real() + seconds
    time.time_ns = lambda: real_ns() + round(seconds * 1e9)


def die() -> None:
    """kill -9 of the part: this process and what it started."""
    os.killpg(0, signal.SIGKILL)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--die-at", metavar="POINT:COUNT")
    parser.add_argument("--clock", type=float, default=0.0)
    parser.add_argument("command", nargs="+")
    options = parser.parse_args(arguments)
    if options.clock:
        shift_clock(options.clock)
    command = options.command
    if command[0] == "gunicorn":
        from mailrelay import multiprocess

        multiprocess.begin()  # as gunicorn.conf.py has to, before what `arm` imports
    if options.die_at:
        point, _, count = options.die_at.partition(":")
        arm(POINTS[point], int(count), die)
    sys.argv = command
    runpy.run_path(os.path.join(os.path.dirname(sys.executable), command[0]), run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
