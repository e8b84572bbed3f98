"""supervisord with the parts of the Procfile, and what it says on the terminal.

It starts again whatever ends (honcho and its like stop everything instead), slower each time if
that does not help, and stops in order. Three things are ours, as callbacks on its events:

* a line of a part is printed behind the part's name, and what happens to a part in plain words.
  supervisord alone copies the output as it comes, or needs a second process for each part;
* the parts of the Procfile start when `setup` is through, and `setup` runs again when the local
  AWS was killed, as it then comes back without what was made since its last clean stop;
* the processes that a killed part leaves behind (gunicorn's, which hold the port) go with it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from supervisor import events, supervisord
from supervisor.medusa.asyncore_25 import ExitNow
from supervisor.options import ServerOptions
from supervisor.states import ProcessStates, SupervisorStates

AWS_STOP_SECONDS = 20
"""The local AWS saves its state when it stops, which takes it up to 8 seconds."""

PART_STOP_SECONDS = 35
"""A worker finishes what it is sending: up to MAILRELAY_LEASE, which is 30 seconds by default."""

LONGEST_PAUSE = 10
"""Seconds until a part that does not stay up is started again: 1, 2, 3, … up to this."""

START_SECONDS = 2
"""A part that has stayed up for so long has started; Celery needs most of it to import."""

COLORS = (36, 33, 32, 35, 34, 31)
"""ANSI foreground colours, by order of the parts."""

SETUP, READY = "setup", "ready"
OWN = "run"
"""The name in front of what the supervisor itself says."""


class ProcfileError(Exception):
    """A Procfile that cannot be read, in one line."""


def read_procfile(path: Path) -> dict[str, str]:
    """The command of each part, by name."""
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise ProcfileError(f"{path}: {error.strerror}") from None
    parts = {}
    for line in lines:
        if not line.strip() or line.startswith("#"):
            continue
        match = re.fullmatch(r"([A-Za-z0-9_-]+):\s*(\S.*)", line)
        if not match:
            raise ProcfileError(f"{path}: takes lines of NAME: COMMAND, not {line!r}")
        parts[match[1]] = match[2]
    return parts


@dataclass(frozen=True, slots=True)
class Programs:
    """What to run: commands for `/bin/sh`, by name."""

    first: Mapping[str, str]
    """Started at once, in this order, and stopped after all others, in the opposite order."""
    setup: str
    """Run to its end before the parts start."""
    parts: Mapping[str, str]
    ready: str
    """Ends when the parts are ready to work."""

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.first, SETUP, *self.parts, READY)


def configuration(programs: Programs, data: Path) -> str:
    """The text of supervisord's configuration file.

    Groups stop one after another, from the highest priority to the lowest, and the processes of a
    group at the same time: first the parts, then what they need.
    """
    sections = [
        _section(
            "supervisord",
            nodaemon="true",
            silent="true",  # on the terminal; we say it in our words
            nocleanup="true",
            logfile=data / "supervisord.log",
            pidfile=data / "supervisord.pid",
        )
    ]
    for priority, (name, command) in enumerate(programs.first.items(), start=1):
        seconds = AWS_STOP_SECONDS if name == "aws" else PART_STOP_SECONDS
        sections.append(_program(name, command, priority=priority, stopwaitsecs=seconds))
    once = {"startsecs": 0, "autorestart": "false", "stopwaitsecs": 5}
    sections.append(_program(SETUP, programs.setup, priority=100, **once))
    sections.append(_program(READY, programs.ready, priority=101, autostart="false", **once))
    for name, command in programs.parts.items():
        sections.append(_program(name, command, autostart="false", stopwaitsecs=PART_STOP_SECONDS))
    sections.append(_section("group:parts", programs=",".join(programs.parts), priority=200))
    return "\n".join(sections)


def _program(name: str, command: str, **options: object) -> str:
    return _section(
        f"program:{name}",
        # The shell makes way for the command, so that signals reach it.
        command=shlex.join(["/bin/sh", "-c", f"exec {command}"]),
        **{
            "autorestart": "true",
            "startsecs": START_SECONDS,
            "startretries": LONGEST_PAUSE * 2,  # never reached, see `_Supervisor`
            "redirect_stderr": "true",
            "stdout_logfile": "NONE",
            "stdout_events_enabled": "true",
            "killasgroup": "true",
        }
        | options,
    )


def _section(title: str, **options: object) -> str:
    # supervisord expands %(…)s in values.
    lines = [f"{name}={str(value).replace('%', '%%')}" for name, value in options.items()]
    return "\n".join([f"[{title}]", *lines, ""])


class Console:
    """The terminal, which all parts share: whole lines, each behind the name of its part."""

    def __init__(self, stream: BinaryIO, names: Sequence[str], *, color: bool) -> None:
        """`stream` takes bytes at once, without a buffer of its own."""
        self._stream = stream
        width = max(map(len, (OWN, *names)))
        self._prefixes = {name: f"{name:<{width}} | ".encode() for name in names}
        self._prefixes[OWN] = f"{OWN:<{width}} | ".encode()
        if color:
            for i, name in enumerate(names):
                code = COLORS[i % len(COLORS)]
                self._prefixes[name] = b"\x1b[%dm%s\x1b[0m" % (code, self._prefixes[name])
            self._prefixes[OWN] = b"\x1b[1m%s\x1b[0m" % self._prefixes[OWN]
        self._unfinished: dict[str, bytes] = {}

    def feed(self, name: str, data: bytes) -> None:
        """Output of a part as it came, in pieces of any size."""
        *lines, rest = (self._unfinished.pop(name, b"") + data).split(b"\n")
        if rest:
            self._unfinished[name] = rest
        self._write(name, lines)

    def finish(self, name: str) -> None:
        """The part has ended: show a last line that it did not end."""
        if rest := self._unfinished.pop(name, b""):
            self._write(name, [rest])

    def say(self, text: str) -> None:
        self._write(OWN, text.encode().splitlines())

    def show(self, text: str) -> None:
        """Without a name in front, so that it can be copied."""
        self._stream.write(text.encode())

    def _write(self, name: str, lines: Sequence[bytes]) -> None:
        self._stream.write(b"".join(self._prefixes[name] + line + b"\n" for line in lines))


class _Options(ServerOptions):  # type: ignore[misc] # supervisor is not typed
    """Remembers how processes ended: supervisord keeps the number but drops the signal."""

    def __init__(self) -> None:
        super().__init__()
        self.endings: dict[int, str] = {}

    def waitpid(self) -> tuple[int | None, int | None]:
        pid, status = super().waitpid()
        if pid:
            code = os.waitstatus_to_exitcode(status)
            self.endings[pid] = (
                f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
            )
        return pid, status


class _Supervisor(supervisord.Supervisor):  # type: ignore[misc] # supervisor is not typed
    def __init__(self, options: _Options, console: Console, on_ready: Callable[[], str]) -> None:
        super().__init__(options)
        self._console = console
        self._on_ready = on_ready
        self._told_dead: set[str] = set()
        self._announced = False
        self._parent = os.getppid()
        self._had_terminal = sys.stdout.isatty()

    def runforever(self) -> None:
        # From here on: what comes before clears the list of subscribers and sets signal handlers.
        for kind, callback in (
            (events.ProcessLogEvent, self._output),
            (events.ProcessStateRunningEvent, self._running),
            (events.ProcessStateBackoffEvent, self._failed),
            (events.ProcessStateExitedEvent, self._exited),
            (events.ProcessStateStoppedEvent, self._stopped),
            (events.SupervisorStoppingEvent, self._stopping),
            (events.Tick5Event, self._still_wanted),
        ):
            events.subscribe(kind, callback)
        # A terminal that is closed means the end; supervisord would reload.
        signal.signal(signal.SIGHUP, self._terminate)
        super().runforever()

    def _terminate(self, *_: object) -> None:
        self.options.signal_receiver.receive(signal.SIGTERM, None)

    def _output(self, event: Any) -> None:
        with self._terminal():
            self._console.feed(event.process.config.name, event.data)

    def _running(self, event: Any) -> None:
        name = event.process.config.name
        if name in self._told_dead:
            self._told_dead.remove(name)
            self._say(f"{name} is running again")
        self._announce()

    def _failed(self, event: Any) -> None:
        """Ended right after its start: supervisord starts it again after `backoff` seconds."""
        process = event.process
        process.backoff = min(process.backoff, LONGEST_PAUSE)
        self._died(process, f"starting it again in {process.backoff} s")

    def _exited(self, event: Any) -> None:
        process, name = event.process, event.process.config.name
        if name not in (SETUP, READY):
            self._died(process, "starting it again")
        elif not event.expected:
            self._say(f"{name} {self._clear_up(process)}, for the reason above")
            self._terminate()
        elif self._is_up():
            self._clear_up(process)
            if name == SETUP:
                self._start_parts()
            self._announce()

    def _stopped(self, event: Any) -> None:
        name, ending = event.process.config.name, self._clear_up(event.process)
        killed = "SIGKILL" in ending
        self._say(f"{name} did not stop in time and was killed" if killed else f"{name} stopped")

    def _stopping(self, _: Any) -> None:
        self._say("stopping everything; what is being sent is finished first")

    def _still_wanted(self, _: Any) -> None:
        """Nobody may be left to say stop: make was killed, or it alone heard of the hang-up."""
        if os.getppid() != self._parent or (self._had_terminal and not sys.stdout.isatty()):
            self._terminate()

    def _start_parts(self) -> None:
        for process in (*self.process_groups["parts"].processes.values(), self._process(READY)):
            if process.get_state() == ProcessStates.STOPPED:  # not when setup ran again
                process.spawn()

    def _announce(self) -> None:
        """Once: when the check has passed and every part has stayed up for a while."""
        parts = self.process_groups["parts"].processes.values()
        if (
            not self._announced
            and self._process(READY).get_state() == ProcessStates.EXITED
            and all(part.get_state() == ProcessStates.RUNNING for part in parts)
        ):
            self._announced = True
            with self._terminal():
                self._console.show(self._on_ready())

    def _died(self, process: Any, what_follows: str) -> None:
        name = process.config.name
        if name == "aws":
            what_follows += "; what it was told since its start is lost"
        self._say(f"{name} {self._clear_up(process)}; {what_follows}")
        self._told_dead.add(name)
        setup = self._process(SETUP)
        if name == "aws" and setup.get_state() == ProcessStates.EXITED and self._is_up():
            setup.spawn()

    def _clear_up(self, process: Any) -> str:
        """After a process has ended; returns how it did."""
        with self._terminal():
            self._console.finish(process.config.name)
        if process.pid:  # 0 if it could not be started
            # The group is the process's own; its id is not given away while somebody is in it.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
        ending: str = self.options.endings.pop(process.pid, "could not be started")
        return ending

    def _process(self, name: str) -> Any:
        return self.process_groups[name].processes[name]

    def _is_up(self) -> bool:
        return bool(self.options.mood == SupervisorStates.RUNNING)

    def _say(self, text: str) -> None:
        with self._terminal():
            self._console.say(text)

    @contextlib.contextmanager
    def _terminal(self) -> Iterator[None]:
        """Writing to a terminal or pipe that is gone (`make run | head`) stops everything."""
        try:
            yield
        except OSError:
            self._terminate()


def supervise(
    programs: Programs, data: Path, console: Console, on_ready: Callable[[], str]
) -> None:
    """Run all of it in the environment and folder of this process, until a signal says stop.

    `on_ready` makes the text to show when `programs.ready` has ended.
    """
    path = data / "supervisord.conf"
    path.write_text(configuration(programs, data))
    options = _Options()
    options.first = True  # as supervisord's own main() does: not a reload
    options.test = False
    options.realize(["-c", str(path)])
    supervisor = _Supervisor(options, console, on_ready)
    with contextlib.suppress(ExitNow):
        supervisor.main()
    options.close_logger()
