"""mailrelay on this machine: a local AWS, the sandbox, and the parts as the Procfile starts them."""

from __future__ import annotations

import os
import shlex
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import urllib3

from benchmarks import machine
from benchmarks.processes import ROOT, Process, cpu_of_sessions, free_port, until
from mailrelay.local.aws import ministack_environment
from mailrelay.local.supervisor import read_procfile
from mailrelay.settings import DAY
from mailrelay.store import Store

if TYPE_CHECKING:
    from mypy_boto3_sns import SNSClient
    from mypy_boto3_sqs import SQSClient

_KEY = "benchmark-key"

_CALLERS_OWN = ("AWS_", "MAILRELAY_", "MAILGUN_", "SENDGRID_", "SES_", "EMAIL_", "PROMETHEUS_")
"""Variables of the caller's that stay outside: a benchmark reaches no account of anybody's."""

_CLIENT: dict[str, Any] = {
    "region_name": "us-east-1",
    "aws_access_key_id": "benchmark",
    "aws_secret_access_key": "benchmark",
}

PROVIDER = "mailgun"
"""The one provider of the chain."""

PREFIX = "mailrelay-"
"""In front of the queues and topics."""


class Stack:
    """A relay whose provider takes `provider_seconds` for each email; no worker runs yet."""

    def __init__(self, folder: Path, provider_seconds: float, stopping: ExitStack) -> None:
        """Whatever is started is stopped by `stopping`, last come first."""
        self._folder, self._stopping = folder, stopping
        self._sessions: set[int] = set()
        self._procfile = read_procfile(ROOT / "Procfile") | read_procfile(ROOT / "Procfile.local")
        aws, sandbox, web = (f"http://127.0.0.1:{free_port()}" for _ in range(3))
        self._aws, self._sandbox, self._web = aws, sandbox, web
        self._environ = {
            **{k: v for k, v in os.environ.items() if not k.startswith(_CALLERS_OWN)},
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
            "AWS_ENDPOINT_URL": aws,
            "AWS_REGION": _CLIENT["region_name"],
            "AWS_ACCESS_KEY_ID": _CLIENT["aws_access_key_id"],
            "AWS_SECRET_ACCESS_KEY": _CLIENT["aws_secret_access_key"],
            "AWS_EC2_METADATA_DISABLED": "true",
            "PORT": _port(web),
            "SANDBOX_PORT": _port(sandbox),
            "EMAIL_PROVIDERS": PROVIDER,
            "MAILGUN_API_KEY": "sandbox-key",
            "MAILGUN_DOMAIN": "sandbox.example",
            "MAILGUN_BASE_URL": f"{sandbox}/mailgun",
            "MAILRELAY_API_KEYS": f"benchmark:{_KEY}",
            "MAILRELAY_QUEUE_PREFIX": PREFIX,
            "MAILRELAY_METRICS_PORT": str(free_port()),
        }
        self._start_aws()
        server = self.start("sandbox")
        until(lambda: server.answers(f"{sandbox}/faults"), "the sandbox answers")
        slow = {"kind": "slow", "seconds": provider_seconds}
        self._call("PUT", f"{sandbox}/faults/{PROVIDER}", json=slow)
        self._process("init", "mailrelay init").finish()
        gunicorn = self.start("web")
        until(lambda: gunicorn.answers(f"{web}/readyz"), "the web process answers")
        dynamodb = boto3.client("dynamodb", endpoint_url=aws, **_CLIENT)
        self.store = Store(dynamodb, "mailrelay", retention=30 * DAY)
        self.sqs: SQSClient = boto3.client("sqs", endpoint_url=aws, **_CLIENT)
        self.sns: SNSClient = boto3.client("sns", endpoint_url=aws, **_CLIENT)

    def start(self, part: str, **variables: str) -> Process:
        """Start a part of the Procfile, with these variables beside the stack's own."""
        process = self._process(part, self._procfile[part], **variables)
        self._stopping.callback(process.stop)
        return process

    def send(self, emails: int) -> str:
        """Have one batch accepted, with all its messages in the queue; its id."""
        body = {
            "from": {"email": "facundo@example.com", "name": "Facundo"},
            "destinations": [{"email": f"pedro{i}@example.org"} for i in range(emails)],
            "subject": "benchmark",
            "plainContent": "benchmark " * 20,
            "htmlContent": f"<p>{'benchmark ' * 20}</p>",
        }
        authorization = {"Authorization": f"Bearer {_KEY}"}
        url = f"{self._web}/emails/send"
        batch_id: str = self._call("POST", url, json=body, headers=authorization)["id"]
        return batch_id

    def provider_requests(self) -> int:
        """How many emails the provider was sent, those it is still at included."""
        counts: dict[str, int] = self._call("GET", f"{self._sandbox}/requests")
        return counts[PROVIDER]

    def watch_others(self) -> Callable[[], float]:
        """From now on; what it returns tells the part of the machine's CPU that others took since.

        From 0 to 1. Others are all processes but the stack's and this one: what they take, they
        take from the measurement.
        """

        def of_others() -> float:
            return machine.busy() - cpu_of_sessions(self._sessions) - time.process_time()

        started, before = time.monotonic(), of_others()

        def share() -> float:
            cpu = (time.monotonic() - started) * (os.cpu_count() or 1)
            return max(0.0, of_others() - before) / cpu

        return share

    def _start_aws(self) -> None:
        port = _port(self._aws)
        environ = ministack_environment(int(port), self._folder / "aws") | {"PERSIST_STATE": "0"}
        # As `mailrelay.local.aws` does, but for the state, whose writing would take CPU.
        command = "uvicorn ministack.app:app --host 127.0.0.1 --log-level warning"
        process = self._process(
            "aws", f"{command} --port {port} --timeout-graceful-shutdown 1", **environ
        )
        self._stopping.callback(process.stop)
        until(lambda: process.answers(f"{self._aws}/_ministack/health"), "the local AWS answers")

    def _process(self, name: str, command: str, **variables: str) -> Process:
        environ = self._environ | variables
        process = Process(shlex.split(command), environ, self._folder / f"{name}.log")
        self._sessions.add(process.session)
        return process

    @staticmethod
    def _call(method: str, url: str, **kwargs: Any) -> Any:
        response = urllib3.request(method, url, timeout=60, retries=False, **kwargs)
        if response.status >= 300:
            raise RuntimeError(f"{method} {url}: {response.status} {response.data!r}")
        return response.json() if response.data else None


@contextmanager
def running(*, provider_seconds: float) -> Iterator[Stack]:
    """A stack of its own, gone with all its state at the end."""
    with tempfile.TemporaryDirectory(prefix="mailrelay-bench-") as folder, ExitStack() as stopping:
        yield Stack(Path(folder), provider_seconds, stopping)


def _port(url: str) -> str:
    return url.rpartition(":")[2]
