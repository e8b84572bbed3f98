"""The provider sandbox, as a test sees it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import urllib3

from tests.support.processes import Process, answers, free_port, wait_for


class Sandbox:
    """A running sandbox: its mailbox, its faults and its counters."""

    def __init__(self, url: str) -> None:
        self.url = url

    def messages(self, **query: Any) -> list[dict[str, Any]]:
        """What was accepted, newest first; `to` and `provider` choose."""
        fields = {"limit": "10000", **{name: str(value) for name, value in query.items()}}
        answer = self._call("GET", "/messages", fields=fields)
        found: list[dict[str, Any]] = answer["messages"]
        return found

    def count(self) -> int:
        """How many messages there are."""
        total: int = self._call("GET", "/messages", fields={"limit": "1"})["total"]
        return total

    def fault(self, provider: str, kind: str, **details: Any) -> None:
        """Have `provider` fail from now on: status, slow, hang, lost or refuse."""
        self._call("PUT", f"/faults/{provider}", json={"kind": kind, **details})

    def heal(self) -> None:
        self._call("DELETE", "/faults")

    def requests(self) -> dict[str, int]:
        """How many send requests each provider got."""
        counts: dict[str, int] = self._call("GET", "/requests")
        return counts

    def reset(self) -> None:
        """Heal all, empty the mailbox, count from 0."""
        self.heal()
        self._call("DELETE", "/messages")
        self._call("DELETE", "/requests")

    def _call(self, method: str, path: str, **kwargs: Any) -> Any:
        response = urllib3.request(method, self.url + path, timeout=10, retries=False, **kwargs)
        assert response.status < 300, response.data
        return response.json() if response.data else None


@contextmanager
def serving(logs: Path) -> Iterator[Sandbox]:
    """A sandbox of one's own, with its output in a file of `logs`."""
    port = free_port()
    command = ["gunicorn", "--config", "python:mailrelay.sandbox.serving"]
    process = Process(
        [*command, "--bind", f"127.0.0.1:{port}", "mailrelay.sandbox:create_app()"],
        os.environ,
        logs / f"sandbox-{port}.log",
    )
    sandbox = Sandbox(f"http://127.0.0.1:{port}")
    try:
        wait_for(lambda: answers(f"{sandbox.url}/faults"), "the sandbox answers")
        yield sandbox
    finally:
        process.stop()


def sandbox_environ(sandbox: Sandbox) -> dict[str, str]:
    """The variables that make all three providers the sandbox's."""
    return {
        "MAILGUN_API_KEY": "sandbox-key",
        "MAILGUN_DOMAIN": "sandbox.example",
        "MAILGUN_BASE_URL": f"{sandbox.url}/mailgun",
        "SENDGRID_API_KEY": "sandbox-key",
        "SENDGRID_BASE_URL": f"{sandbox.url}/sendgrid",
        "SES_ENDPOINT_URL": f"{sandbox.url}/ses",
    }
