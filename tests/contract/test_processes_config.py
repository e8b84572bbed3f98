"""The processes and their configuration: each ends by itself where a variable cannot work."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailrelay import provision
from tests.support.processes import BIN, ROOT, Process, free_port

GUNICORN = "gunicorn wsgi:app"
WORKER = "celery -A tasks worker"
BEAT = "celery -A tasks beat"
DOCTOR = "mailrelay doctor"
INIT = "mailrelay init"

CASES = [
    (GUNICORN, {"MAILRELAY_LEASE": "1"}, "MAILRELAY_LEASE"),
    (GUNICORN, {"EMAIL_PROVIDERS": "pigeon"}, "EMAIL_PROVIDERS"),
    (WORKER, {"MAILRELAY_DUPLICATES": "yes"}, "MAILRELAY_DUPLICATES"),
    (WORKER, {"EMAIL_PROVIDERS": "pigeon"}, "EMAIL_PROVIDERS"),
    (WORKER, {"MAILGUN_API_KEY": ""}, "MAILGUN_API_KEY"),
    (BEAT, {"MAILRELAY_SWEEP_INTERVAL": "1e300"}, "MAILRELAY_SWEEP_INTERVAL"),
    (DOCTOR, {"MAILRELAY_MESSAGE_TTL": "59"}, "MAILRELAY_MESSAGE_TTL"),
    *((command, {"AWS_REGION": ""}, "AWS_REGION") for command in (GUNICORN, WORKER, BEAT, INIT)),
]


@pytest.fixture(scope="module")
def started(logs: Path) -> Iterator[list[Process]]:
    """A process for each of CASES, all of them starting at the same time."""
    processes = []
    for number, (command, variables, _) in enumerate(CASES):
        environ = {
            **os.environ,
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}",
            "PORT": str(free_port()),
            "MAILGUN_API_KEY": "key",
            "MAILGUN_DOMAIN": "mg.example.com",
            "SENDGRID_API_KEY": "key",
            **variables,
        }
        log = logs / f"config-{number}.log"
        processes.append(Process(shlex.split(command), environ, log))
    yield processes
    for process in processes:
        if process.running:
            process.kill()


@pytest.mark.parametrize(
    "number", range(len(CASES)), ids=[f"{command}: {name}" for command, _, name in CASES]
)
def test_wrong_variable(started: list[Process], number: int) -> None:
    """It ends, with an exit status, one line that names the variable, and no traceback."""
    process, variable = started[number], CASES[number][2]
    assert process.wait() != 0
    said = re.findall(rf"^mailrelay: {variable}: .+$", process.printed(), re.MULTILINE)
    assert len(said) == 1, process.printed()
    assert "Traceback" not in process.printed()


def _commands(procfile: str) -> dict[str, list[str]]:
    """The words of each process's command, without the variables in front of it."""
    commands = {}
    for line in (ROOT / procfile).read_text().splitlines():
        name, _, command = line.partition(":")
        words = shlex.split(command)
        while words[0] == "env" or "=" in words[0]:
            words.pop(0)
        commands[name] = words
    return commands


@pytest.mark.parametrize("procfile", ["Procfile", "Procfile.local"])
def test_programs_exist(procfile: str) -> None:
    """Every command of a Procfile begins with a program that is installed."""
    commands = _commands(procfile)
    assert commands
    for name, words in commands.items():
        assert shutil.which(words[0], path=f"{BIN}:{os.environ['PATH']}"), name


def test_procfile_has_every_part() -> None:
    """The parts start as the contract says, with nothing but options behind that."""
    commands = _commands("Procfile")
    assert " ".join(commands["web"]).startswith(GUNICORN)
    assert " ".join(commands["worker"]).startswith(WORKER)
    assert " ".join(commands["beat"]).startswith(BEAT)


def test_every_queue_is_consumed() -> None:
    """No task is routed to a queue that no worker reads, or that `mailrelay init` leaves out."""
    from tasks.app import app  # here: it reads the environment

    app.loader.import_default_modules()
    tasks = [name for name in app.tasks if name.startswith("tasks.")]
    scheduled = [entry["task"] for entry in app.conf.beat_schedule.values()]
    assert set(scheduled) <= set(tasks)
    routed = {app.amqp.router.route({}, name)["queue"].name for name in tasks}
    consumed = {queue.name for queue in app.conf.task_queues}
    assert routed == consumed == {provision.DELIVER_QUEUE, provision.SWEEP_QUEUE}
    # A worker that was told to read some queues only would leave the others to nobody.
    worker = _commands("Procfile")["worker"]
    assert not {"-Q", "--queues", "-X", "--exclude-queues"} & {
        word.split("=")[0] for word in worker
    }


def test_beat_sweeps_every_shard() -> None:
    """Each shard of the due index has its entry, which expires when its message is gone.

    Not earlier: beat's clock says when, and the worker's whether.
    """
    from mailrelay.items import DUE_SHARDS
    from tasks.app import app

    entries = app.conf.beat_schedule.values()
    assert sorted(entry["args"][0] for entry in entries) == list(range(DUE_SHARDS))
    for entry in entries:
        assert entry["schedule"].total_seconds() == 10
        assert entry["options"]["expires"] == 60
