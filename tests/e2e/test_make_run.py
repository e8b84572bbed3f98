"""What `make run` promises: all of it starts, restarts, stops, and remembers."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3

from tests.support.processes import ROOT, answers, free_port, wait_for

SECONDS_TO_READY = 120
"""It is ready within 30 s on a machine that does nothing else; this one runs tests."""

PORTS = ("PORT", "SANDBOX_PORT", "AWS_PORT", "FLOWER_PORT", "MAILRELAY_METRICS_PORT")

ANSWER_SECONDS = 30
"""The API waits for an AWS that comes back, and tries again: urllib3's 3 s are less than that."""


class Run:
    """What `make run` runs, in a session of its own, with a copy of the checkout as its folder."""

    def __init__(self, checkout: Path, log: Path) -> None:
        self.ports = {name: free_port() for name in PORTS}
        self._checkout = checkout
        self._log = log
        self._popen: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._log.write_bytes(b"")
        with self._log.open("ab") as output:
            self._popen = subprocess.Popen(
                [sys.executable, "-m", "mailrelay.local"],
                cwd=self._checkout,
                env={**os.environ, **{name: str(port) for name, port in self.ports.items()}},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.wait_for_line("mailrelay is ready after", SECONDS_TO_READY)

    def printed(self) -> str:
        return self._log.read_text(errors="replace")

    def wait_for_line(self, text: str, seconds: float = 30) -> None:
        def look() -> bool:
            assert self.running, f"it ended:\n{self.printed()}"
            return text in self.printed()

        try:
            wait_for(look, text, seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.printed()}") from None

    @property
    def running(self) -> bool:
        return self._popen is not None and self._popen.poll() is None

    def processes(self) -> dict[int, str]:
        """Every process of the session, by id, and its command."""
        assert self._popen is not None
        listed = subprocess.run(
            ["ps", "-A", "-ww", "-o", "pid=,stat=,args="],  # noqa: S607
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        found = {}
        for line in listed.splitlines():
            pid, state, command = line.split(maxsplit=2)
            try:
                if os.getsid(int(pid)) == self._popen.pid and not state.startswith("Z"):
                    found[int(pid)] = command
            except ProcessLookupError:  # `ps` itself
                continue
        return found

    def kill(self, part: str) -> None:
        """kill -9 of the process that has `part` in its command (of several, the first)."""
        os.kill(min(pid for pid, args in self.processes().items() if part in args), signal.SIGKILL)

    def interrupt(self) -> None:
        """Ctrl-C: the terminal signals the group in the foreground."""
        assert self._popen is not None
        os.killpg(self._popen.pid, signal.SIGINT)
        assert self._popen.wait(60) == 0

    def clean_up(self) -> None:
        if self._popen is not None:
            for pid in self.processes():
                os.kill(pid, signal.SIGKILL)
            self._popen.wait()

    def send(self) -> tuple[str, dict[str, str]]:
        """Do what the printed curl does; the email's address and the headers to ask for it."""
        command = re.search(r"^curl .*?^\}'$", self.printed(), re.MULTILINE | re.DOTALL)
        assert command is not None
        words = shlex.split(command[0])
        headers = dict(
            re.split(r": ", words[i + 1], maxsplit=1)
            for i, word in enumerate(words)
            if word == "-H"
        )
        url = next(word for word in words if word.startswith("http://"))
        response = urllib3.request(
            "POST", url, headers=headers, body=words[-1], timeout=ANSWER_SECONDS, retries=False
        )
        assert response.status == 202, response.data
        (email,) = response.json()["emails"]
        return f"{self.url}/emails/{email['id']}", headers

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports['PORT']}"


def show(url: str, headers: dict[str, str]) -> dict[str, Any]:
    response = urllib3.request("GET", url, headers=headers, timeout=ANSWER_SECONDS, retries=False)
    assert response.status == 200, response.data
    shown: dict[str, Any] = json.loads(response.data)
    return shown


def send_until_one_arrives(run: Run) -> None:
    """Until then, the local AWS may hand messages to the open poll of a worker that is no more.

    Those emails come with the sweep, a minute later (see test_recovery).
    """
    sent = []

    def look() -> bool:
        sent.append(run.send())
        return any(show(*email)["status"] == "sent" for email in sent)

    wait_for(look, "an email is sent")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the checkout, without what lies hidden in it: no `.data` of a person's own."""
    copy = tmp_path_factory.mktemp("make-run") / "checkout"
    hidden = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "tests", "docs")
    shutil.copytree(ROOT, copy, ignore=hidden)
    return copy


@pytest.fixture(scope="module")
def run(checkout: Path, logs: Path) -> Iterator[Run]:
    """It runs; the tests of this module leave it running for the next one."""
    run = Run(checkout, logs / "make-run.log")
    run.start()
    yield run
    run.clean_up()


def test_the_printed_curl_sends_an_email(run: Run) -> None:
    url, headers = run.send()
    wait_for(lambda: show(url, headers)["status"] == "sent", "the email is sent")


@pytest.mark.parametrize(
    ("part", "command"),
    [("web", "gunicorn wsgi:app"), ("worker", "tasks worker"), ("beat", "tasks beat")],
)
def test_a_part_that_dies_is_started_again_and_said_so(run: Run, part: str, command: str) -> None:
    before = set(run.processes())

    run.kill(command)

    run.wait_for_line(f"{part} was killed by SIGKILL; starting it again")
    run.wait_for_line(f"{part} is running again")
    assert any(command in args for pid, args in run.processes().items() if pid not in before)
    wait_for(lambda: answers(f"{run.url}/readyz"), "it is ready again")
    send_until_one_arrives(run)


def test_a_second_run_says_that_it_runs_already(run: Run, checkout: Path) -> None:
    second = subprocess.run(
        [sys.executable, "-m", "mailrelay.local"],
        cwd=checkout,
        env={**os.environ, "PORT": str(run.ports["PORT"])},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert (second.returncode, second.stdout) == (1, "")
    assert second.stderr == (
        f"mailrelay: it runs already with its state in {checkout / '.data'}; stop it first, or use"
        " another checkout\n"
    )


def test_ctrl_c_leaves_no_process_and_the_next_start_remembers(run: Run) -> None:
    url, headers = run.send()
    wait_for(lambda: show(url, headers)["status"] == "sent", "the email is sent", 100)
    before = show(url, headers)
    assert len(run.processes()) > 5

    run.interrupt()

    assert run.processes() == {}
    assert "Traceback" not in run.printed()

    run.start()
    assert show(url, headers) == before


def test_a_local_aws_that_dies_is_set_up_again(run: Run) -> None:
    """It loses what came after its last clean stop, and works again by itself."""
    run.kill("mailrelay.local.aws")

    run.wait_for_line("aws is running again")

    wait_for(lambda: answers(f"{run.url}/readyz"), "it is ready again")
    send_until_one_arrives(run)
