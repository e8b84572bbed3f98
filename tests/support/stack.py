"""The whole relay, as the Procfile starts it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import boto3
import urllib3

from mailrelay.provision import provision
from mailrelay.settings import load
from tests.support.aws import AWS_CREDENTIALS
from tests.support.processes import ROOT, Process, answers, free_port, unused_name, wait_for
from tests.support.sandbox import Sandbox, sandbox_environ

KEY = "e2e-key-of-the-tests"
FLOWER_LOGIN = "operator:flower-password-of-the-tests"
START_SECONDS = 90.0
"""What a part may take until it is at work, on a machine that does much else."""

FINAL = ("sent", "failed", "partial")


def procfile() -> dict[str, list[str]]:
    """The commands of the Procfile, by part."""
    lines = (ROOT / "Procfile").read_text().splitlines()
    parts = (line.split(":", 1) for line in lines if line)
    return {name: command.split() for name, command in parts}


class Stack:
    """Web, worker, beat and Flower, each of which a test may start, stop and kill."""

    def __init__(self, environ: dict[str, str], logs: Path, aws: str) -> None:
        self.environ = environ
        self.aws = aws
        self.url = f"http://127.0.0.1:{environ['PORT']}"
        self.flower = f"http://127.0.0.1:{environ['FLOWER_PORT']}"
        self._logs = logs
        self._processes: list[Process] = []
        self._numbers = itertools.count()

    def start(
        self,
        part: str,
        *,
        under: Sequence[str] = (),
        options: Sequence[str] = (),
        **variables: str,
    ) -> Process:
        """Start a part and wait until it is at work.

        `under` is a command that runs the part's, and `options` are added to it. Many threads may
        start parts at once.
        """
        number = next(self._numbers)
        log = self._logs / f"{part}-{self.environ['PORT']}-{number}.log"
        environ = {**self.environ, **variables}
        process = Process([*under, *procfile()[part], *options], environ, log)
        self._processes.append(process)
        if part == "web":
            wait_for(
                lambda: answers(f"http://127.0.0.1:{environ['PORT']}/healthz"),
                "the web",
                START_SECONDS,
            )
        elif part == "flower":
            wait_for(lambda: answers(f"{self.flower}/healthcheck"), "Flower", START_SECONDS)
        else:
            line = {"worker": " ready.", "beat": "beat: Starting"}[part]
            wait_for(lambda: line in process.printed(), f"the {part} is at work", START_SECONDS)
        return process

    def stop(self) -> None:
        """End all that runs, at once: how a part ends when it is told to is a test of its own."""
        for process in self._processes:
            if process.running:
                process.kill()

    def printed(self) -> str:
        """All that the parts have printed."""
        return "".join(process.printed() for process in self._processes)

    def call(self, method: str, path: str, **kwargs: Any) -> urllib3.BaseHTTPResponse:
        headers = {"Authorization": f"Bearer {KEY}", **kwargs.pop("headers", {})}
        url = kwargs.pop("url", self.url)
        return urllib3.request(
            method, url + path, headers=headers, timeout=60, retries=False, **kwargs
        )

    def send(self, *recipients: str, **kwargs: Any) -> str:
        """Send to the recipients; the batch's id."""
        body = {
            "from": {"email": "facundo@example.com", "name": "Facundo"},
            "destinations": [{"email": recipient} for recipient in recipients],
            "subject": "test",
            "plainContent": "test",
        }
        response = self.call("POST", "/emails/send", json=body, **kwargs)
        assert response.status == 202, response.data
        batch_id: str = response.json()["id"]
        return batch_id

    def show(self, id_: str, limit: int = 1000) -> dict[str, Any]:
        response = self.call("GET", f"/emails/{id_}?limit={limit}")
        assert response.status == 200, response.data
        shown: dict[str, Any] = response.json()
        return shown

    def wait(self, id_: str, *statuses: str, seconds: float = 30) -> dict[str, Any]:
        """The batch or email once it has one of the statuses; any final one unless given."""
        wanted = statuses or FINAL

        def there() -> dict[str, Any] | None:
            shown = self.show(id_, limit=1)
            return shown if shown["status"] in wanted else None

        found: dict[str, Any] = wait_for(there, f"{id_} is {' or '.join(wanted)}", seconds)
        return found if found["object"] == "email" else self.show(id_)

    def queue_url(self, name: str) -> str:
        prefix = self.environ["MAILRELAY_QUEUE_PREFIX"]
        return f"{self.aws}/000000000000/{prefix}{name}"

    @property
    def sqs(self) -> Any:
        return boto3.client("sqs", endpoint_url=self.aws, region_name="us-east-1")

    @property
    def dynamodb(self) -> Any:
        return boto3.client("dynamodb", endpoint_url=self.aws, region_name="us-east-1")


def processes_of_the_api(number: int) -> dict[str, str]:
    """The variable by which gunicorn starts so many, whatever gunicorn.conf.py says."""
    return {"GUNICORN_CMD_ARGS": f"--workers {number}"}


def create(aws: str, sandbox: Sandbox, logs: Path, **variables: str) -> Stack:
    """A stack with variables of its own, on a table and queues of its own; nothing started."""
    port = str(free_port())
    environ = {
        **os.environ,
        **AWS_CREDENTIALS,
        **sandbox_environ(sandbox),
        "AWS_ENDPOINT_URL": aws,
        "PORT": port,
        "FLOWER_PORT": str(free_port()),
        "FLOWER_BASIC_AUTH": FLOWER_LOGIN,
        "MAILRELAY_API_KEYS": f"e2e:{KEY}",
        "MAILRELAY_TABLE": unused_name("e2e"),
        "MAILRELAY_QUEUE_PREFIX": unused_name("e2e") + "-",
        "MAILRELAY_METRICS_PORT": str(free_port()),
        **processes_of_the_api(1),  # A second one would double what its start costs.
        "MAILRELAY_SWEEP_INTERVAL": "2",
        "MAILRELAY_RETRY_SCHEDULE": "1,1,1",
        "MAILRELAY_PROVIDER_TIMEOUT": "1",
        "MAILRELAY_LEASE": "5",
        **variables,
    }
    # As `mailrelay init` does, without the second that a process takes to start.
    with patch.dict(os.environ, environ):
        assert all(finding.state != "differs" for finding in provision(load()))
    return Stack(environ, logs, aws)
