"""A heart beats while its loop turns, and is found by whoever asks."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from structlog.testing import capture_logs

from mailrelay import cli, heartbeat
from tests.support.processes import wait_for

PREFIX = "test-"

BEATING = f"""
import sys, time
from mailrelay import heartbeat
heartbeat.start(sys.argv[1], {PREFIX!r})
heartbeat.beat(float(sys.argv[2]))
print(flush=True)
time.sleep(600)
"""
"""A process whose loop turned at a given time, and that lives on."""

Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the hearts of these tests are."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path / f"mailrelay-{os.getuid()}"


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a process with a heart that beat so many seconds ago."""
    processes = []

    def start(ago: float = 0, kind: str = "worker") -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-c", BEATING, kind, str(time.time() - ago)], stdout=subprocess.PIPE
        )
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def check(*arguments: str) -> Result:
    environ = {"MAILRELAY_QUEUE_PREFIX": PREFIX}
    return CliRunner().invoke(cli.main, ["healthcheck", *arguments], env=environ)


def test_a_process_whose_loop_turns_is_well(start: Start) -> None:
    start(ago=10)

    result = check("worker")

    assert (result.exit_code, result.stderr) == (0, "")
    assert re.fullmatch(r"worker is at work: its loop turned [1-5]\d s ago\n", result.stdout)


def test_one_whose_loop_stands_still_is_named(start: Start) -> None:
    """However well the others are."""
    start()
    hung = start(ago=1000)

    result = check("worker")

    assert (result.exit_code, result.stdout) == (1, "")
    said = rf"mailrelay: worker {hung.pid} hangs: its loop has not turned for 1\d\d\d s\n"
    assert re.fullmatch(said, result.stderr)
    assert check("worker", "--max-age", "2000").exit_code == 0


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_one_that_has_died_is_not_there(start: Start, folder: Path, end: int) -> None:
    """Whichever way; and nothing is left of it."""
    process = start()
    process.send_signal(end)
    process.wait()

    result = check("worker")

    assert (result.exit_code, result.stderr) == (1, "mailrelay: no worker runs here\n")
    assert list(folder.iterdir()) == []


def test_one_that_died_is_no_fault_of_those_that_live(start: Start) -> None:
    """As after a restart."""
    dead = start(ago=1000)
    dead.kill()
    dead.wait()
    start()

    assert check("worker").exit_code == 0


def test_only_what_was_asked_for_counts(start: Start) -> None:
    """Not the other part, nor one on other queues."""
    start(kind="beat")

    assert check("worker").exit_code == 1
    assert check("beat").exit_code == 0
    assert list(heartbeat.pulses("beat", "other-")) == []
    assert list(heartbeat.pulses("beat", "")) == []


def test_nothing_has_ever_run_here() -> None:
    assert check("beat").stderr == "mailrelay: no beat runs here\n"


def test_a_check_that_is_under_way_does_not_disturb_another(start: Start) -> None:
    """Two that look at once find the same: nobody."""
    process = start()
    process.kill()
    process.wait()
    looking = heartbeat.pulses("worker", PREFIX)

    assert list(heartbeat.pulses("worker", PREFIX)) == list(looking) == []


def test_a_beating_heart_stays_young(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "_heart", None)
    monkeypatch.setattr(heartbeat, "_INTERVAL", 0)
    heartbeat.start("worker", PREFIX)
    heartbeat.beat(time.time() - 100)
    (before,) = heartbeat.pulses("worker", PREFIX)

    heartbeat.beat()

    (after,) = heartbeat.pulses("worker", PREFIX)
    assert before.age == pytest.approx(100, abs=30)
    assert after.age < 30
    assert (before.pid, after.pid) == (os.getpid(), os.getpid())


def test_a_busy_loop_writes_seldom(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "_heart", None)
    monkeypatch.setattr(heartbeat, "_INTERVAL", 1000)
    heartbeat.start("worker", PREFIX)
    heartbeat.beat(1000.0)

    heartbeat.beat(2000.0)

    (path,) = folder.iterdir()
    assert path.stat().st_mtime == 1000


def test_what_has_no_heart_beats_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as the web process, which uses the same transport."""
    monkeypatch.setattr(heartbeat, "_heart", None)

    heartbeat.beat()

    assert not folder.exists()


@pytest.mark.parametrize("spoil", ["file", "open to all", "link"])
def test_a_folder_that_others_can_write_to_is_not_used(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: str
) -> None:
    """The process works all the same, and says that no check will find it."""
    monkeypatch.setattr(heartbeat, "_heart", None)
    if spoil == "file":
        folder.touch()
    elif spoil == "link":
        (tmp_path / "elsewhere").mkdir()
        folder.symlink_to(tmp_path / "elsewhere")
    else:
        folder.mkdir()
        folder.chmod(0o777)

    with capture_logs() as lines:
        heartbeat.start("worker", PREFIX)
        heartbeat.beat()

    (line,) = lines
    assert line["log_level"] == "warning"
    assert list(heartbeat.pulses("worker", PREFIX)) == []
    assert check("worker").exit_code == 1


def test_a_heart_is_never_without_its_lock(start: Start, folder: Path) -> None:
    """A check that comes just when it begins must not take it for that of the dead."""
    found: list[bool] = []

    def look() -> bool:
        found.extend(pulse.age < 30 for pulse in heartbeat.pulses("worker", PREFIX))
        return bool(found)

    process = subprocess.Popen([sys.executable, "-c", BEATING, "worker", str(time.time())])
    try:
        wait_for(look, "its heart is found")
        assert list(heartbeat.pulses("worker", PREFIX))
    finally:
        process.kill()
        process.wait()
