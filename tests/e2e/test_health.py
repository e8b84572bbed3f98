"""`mailrelay healthcheck` on real workers and beats: those that work, hang, are gone, or wait."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import MakeStack
from tests.support.aws import LocalAws
from tests.support.processes import BIN, Process, free_port, wait_for
from tests.support.stack import Stack, procfile

AGE = {"worker": "13", "beat": "3"}
"""Seconds a loop may stand still here. An idle worker's turns once in a poll of 10 s."""


def check(stack: Stack, part: str, age: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BIN / "mailrelay", "healthcheck", part, "--max-age", age],
        env=stack.environ,
        capture_output=True,
        text=True,
        check=False,
    )


def is_well(stack: Stack, part: str, age: str | None = None) -> bool:
    return check(stack, part, age or AGE[part]).returncode == 0


@pytest.mark.parametrize("part", ["worker", "beat"])
def test_one_that_hangs_is_seen_and_so_is_one_that_died(make_stack: MakeStack, part: str) -> None:
    """A process that is there is not always one that works."""
    stack = make_stack()
    assert check(stack, part, AGE[part]).stderr == f"mailrelay: no {part} runs here\n"
    process = stack.start(part)
    wait_for(lambda: is_well(stack, part), "it is well")

    process.signal(signal.SIGSTOP)
    wait_for(lambda: not is_well(stack, part), "it is seen to hang", 60)
    assert "hangs: its loop has not turned for" in check(stack, part, AGE[part]).stderr
    process.signal(signal.SIGCONT)
    wait_for(lambda: is_well(stack, part), "it is well again")
    process.kill()

    assert check(stack, part, AGE[part]).stderr == f"mailrelay: no {part} runs here\n"


def test_one_is_well_while_aws_is_away(make_stack: MakeStack, own_aws: LocalAws) -> None:
    """To start it again would not help."""
    stack = make_stack(AWS_ENDPOINT_URL=own_aws.url)
    worker, beat = stack.start("worker"), stack.start("beat")

    own_aws.stop()
    failures = {worker: "did not answer a poll", beat: "cannot be enqueued|Connection error"}
    for process, said in failures.items():
        wait_for(lambda p=process, s=said: len(re.findall(s, p.printed())) > 2, said, 60)  # type: ignore[misc]

    # Soon, since a busy machine may keep either from turning for a moment.
    for part in ("worker", "beat"):
        wait_for(lambda p=part: is_well(stack, p, "5"), f"the {part} is well")  # type: ignore[misc]
    own_aws.start()


@pytest.mark.parametrize("part", ["worker", "beat"])
def test_one_is_well_while_it_waits_for_its_broker(
    make_stack: MakeStack, logs: Path, part: str
) -> None:
    stack = make_stack()
    nowhere = f"http://127.0.0.1:{free_port()}"
    environ = {**stack.environ, "AWS_ENDPOINT_URL_SQS": nowhere}
    process = Process(procfile()[part], environ, logs / f"waits-{part}-{os.getpid()}.log")
    try:
        # After 2 and 4 seconds more: its first beat is older than that by then.
        said = {"worker": "Cannot connect", "beat": "Connection error"}[part]
        wait_for(lambda: process.printed().count(said) > 2, said, 60)

        wait_for(lambda: is_well(stack, part, "5"), "it is well")
    finally:
        process.stop()
