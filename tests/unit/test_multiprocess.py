"""The directory that gunicorn's processes share lives as long as the one that made it."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest


def run(program: str, tmp_path: Path, **environ: str) -> list[str]:
    """The words that a Python program printed; what it makes for a while lies in `tmp_path`."""
    script = "import os; from mailrelay import multiprocess\n" + textwrap.dedent(program)
    return subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "TMPDIR": str(tmp_path), **environ},
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()


WHERE = 'os.environ["PROMETHEUS_MULTIPROC_DIR"]'


def test_it_is_there_until_the_process_ends(tmp_path: Path) -> None:
    program = f"multiprocess.begin(); print({WHERE}, os.listdir({WHERE}))"

    where, content = run(program, tmp_path)

    assert Path(where).parent == tmp_path
    assert content == "[]"
    assert list(tmp_path.iterdir()) == []


def test_it_outlives_a_process_that_was_forked_off(tmp_path: Path) -> None:
    program = f"""
        import sys
        multiprocess.begin()
        pid = os.fork()
        if pid == 0:
            sys.exit()
        os.waitpid(pid, 0)
        print(os.path.isdir({WHERE}))
    """
    assert run(program, tmp_path) == ["True"]


def test_it_is_kept_when_the_configuration_is_read_again(tmp_path: Path) -> None:
    """As gunicorn does on SIGHUP: the processes that count there go on."""
    program = f"""
        multiprocess.begin(); print({WHERE})
        multiprocess.begin(); print({WHERE}, os.path.isdir({WHERE}))
    """
    first, second, there = run(program, tmp_path)

    assert first == second
    assert there == "True"


@pytest.mark.parametrize("name", ["shared", "mailrelay-metrics-1-abc"])
def test_one_of_somebody_else_is_not_used(tmp_path: Path, name: str) -> None:
    """Not that of the environment, and not that of the gunicorn which this one follows."""
    other = tmp_path / name
    other.mkdir()
    program = f"multiprocess.begin(); print({WHERE})"

    (where,) = run(program, tmp_path, PROMETHEUS_MULTIPROC_DIR=str(other))

    assert Path(where) != other
    assert other.is_dir()


def test_what_processes_count_is_summed(tmp_path: Path) -> None:
    """And what one was doing when it ended is forgotten, unlike what it had done."""
    program = """
        multiprocess.begin()
        from mailrelay import metrics
        for done in (2, 3):
            pid = os.fork()
            if pid == 0:
                metrics.EMAILS_ACCEPTED.inc(done)
                metrics.HTTP_REQUESTS_IN_PROGRESS.inc()
                os._exit(0)
            os.waitpid(pid, 0)
        def show():
            values = {s.name: s.value for family in metrics.collect() for s in family.samples}
            print(values["mailrelay_emails_accepted_total"])
            print(values["mailrelay_http_requests_in_progress"])
            print(float(values["mailrelay_build_info"]))
        show()
        multiprocess.forget(pid)
        show()
    """
    assert run(program, tmp_path) == ["5.0", "2.0", "1.0", "5.0", "1.0", "1.0"]
