"""A relay on this machine: a local AWS, a provider, and the parts as a Procfile starts them."""

from __future__ import annotations

import os
import secrets
import shlex
import tempfile
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import boto3
import urllib3
from botocore.config import Config

from benchmarks import machine
from benchmarks.aws import OURSELVES, REQUESTS
from benchmarks.processes import ROOT, Process, cpu_of_sessions, free_port, until
from mailrelay.local.aws import ministack_environment
from mailrelay.local.supervisor import read_procfile
from mailrelay.message import Status
from mailrelay.settings import DAY, load
from mailrelay.store import Store

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_sns import SNSClient
    from mypy_boto3_sqs import SQSClient

CONCURRENCY = load({}).concurrency
"""Emails that a worker sends at the same time: mailrelay's default, and what stock is given."""

_KEY = "benchmark-key"

_CALLERS_OWN = ("AWS_", "MAILRELAY_", "MAILGUN_", "SENDGRID_", "SES_", "EMAIL_", "PROMETHEUS_")
"""Variables of the caller's that stay outside: a benchmark reaches no account of anybody's."""

_LOCAL = {
    "AWS_REGION": "us-east-1",
    "AWS_ACCESS_KEY_ID": "benchmark",
    "AWS_SECRET_ACCESS_KEY": "benchmark",
    "AWS_EC2_METADATA_DISABLED": "true",
}


class Stack(ABC):
    """A relay of one kind; of its parts, none runs yet."""

    name: str
    procfiles: Sequence[str]

    def __init__(
        self,
        folder: Path,
        stopping: ExitStack,
        *,
        provider_seconds: float = 0,
        aws_seconds: float = 0,
        aws_takes_all: bool = False,
        real_aws: bool = False,
    ) -> None:
        """Whatever is started is stopped by `stopping`, last come first.

        The provider answers after `provider_seconds`, the local AWS `aws_seconds` later than it
        could, and writes without looking at them where it `aws_takes_all`; AWS itself as it does,
        with the caller's credentials.
        """
        self.folder, self._stopping = folder, stopping
        self.prefix = f"{self.name}-bench-{secrets.token_hex(4)}-"
        """In front of the names of queues and topics; the table's name."""
        self.parts: dict[str, str] = {}
        """Their commands, by name."""
        for path in self.procfiles:
            self.parts |= read_procfile(ROOT / path)
        self._sessions: set[int] = set()
        provider, web = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        self._provider, self._web = provider, web
        self._aws = None if real_aws else f"http://127.0.0.1:{free_port()}"
        theirs = tuple(name for name in _CALLERS_OWN if not (real_aws and name == "AWS_"))
        self._environ = {
            **{k: v for k, v in os.environ.items() if not k.startswith(theirs)},
            # Programs of the virtual environment import this checkout, whichever is installed.
            "PYTHONPATH": str(ROOT),
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
            "PORT": _port(web),
            "EMAIL_PROVIDERS": "mailgun",
            "MAILGUN_API_KEY": "benchmark",
            "MAILGUN_DOMAIN": "sandbox.example",
            "MAILGUN_BASE_URL": provider,
            "BENCHMARK_AWS_SECONDS": str(aws_seconds),
            "BENCHMARK_AWS_TAKES_ALL": "1" if aws_takes_all else "0",
            "BENCHMARK_PROVIDER_SECONDS": str(provider_seconds),
        }
        if self._aws is None:
            self._environ.setdefault("AWS_REGION", boto3.Session().region_name or "us-east-1")
        else:
            self._environ |= _LOCAL | {"AWS_ENDPOINT_URL": self._aws}
            self._start_aws(self._aws)
        self._environ |= self.variables()
        self.dynamodb: DynamoDBClient = self.client("dynamodb")
        self.sqs: SQSClient = self.client("sqs")
        self.sns: SNSClient = self.client("sns")
        self._stopping.callback(self._clean_up)
        self.prepare()

    @abstractmethod
    def variables(self) -> Mapping[str, str]:
        """The environment of its parts, beside what all stacks have."""

    @abstractmethod
    def prepare(self) -> None:
        """Create what it needs in AWS."""

    @abstractmethod
    def recorded(self) -> int:
        """How many of its emails are written down as sent."""

    @property
    def table(self) -> str:
        return self.prefix.removesuffix("-")

    # Its parts

    def serve(self) -> None:
        """Start the provider and the API, and wait until they answer."""
        provider = self._uvicorn("provider", "benchmarks.provider:app", self._provider)
        until(lambda: provider.answers(f"{self._provider}/count"), "the provider answers")
        gunicorn = self.start("web")
        until(lambda: gunicorn.answers(f"{self._web}/readyz"), "the web process answers")
        self.web = gunicorn

    def start(self, part: str, *, name: str | None = None, **variables: str) -> Process:
        """Start a part of the Procfile, with these variables beside the stack's own."""
        return self.run(self.parts[part], name or part, **variables)

    def run(self, command: str, name: str, **variables: str) -> Process:
        """Start a command, which `name` tells from the others."""
        process = self._process(name, command, **variables)
        self._stopping.callback(process.stop)
        return process

    def finish(self, command: str) -> None:
        """Run a command to its end."""
        self._process("finished", command).finish()

    # What happens to it

    def send(self, emails: int) -> tuple[Any, float]:
        """Have one batch accepted: what the API answers, and after how many seconds."""
        body = {
            "from": {"email": "facundo@example.com", "name": "Facundo"},
            "destinations": [{"email": f"pedro{i}@example.org"} for i in range(emails)],
            "subject": "benchmark",
            "plainContent": "benchmark " * 20,
            "htmlContent": f"<p>{'benchmark ' * 20}</p>",
        }
        headers = {"Authorization": f"Bearer {_KEY}"}
        started = time.perf_counter()
        answer = _call("POST", f"{self._web}/emails/send", json=body, headers=headers)
        return answer, time.perf_counter() - started

    def asked(self) -> int:
        """How many requests have reached the provider."""
        count: int = _call("GET", f"{self._provider}/count")
        return count

    def arrivals(self) -> list[float]:
        """When each request reached the provider, by `time.monotonic`."""
        times: list[float] = _call("GET", f"{self._provider}/arrivals")
        return times

    def requests(self) -> Counter[str]:
        """How many requests the relay has made to AWS, by operation; none where that is not local."""
        if self._aws is None:
            return Counter()
        return Counter(_call("GET", self._aws + REQUESTS))

    def queued(self) -> int:
        """How many messages wait, or are at a worker and not deleted yet."""
        names: Any = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        return sum(
            int(count)
            for url in self._queues()
            for count in self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)[
                "Attributes"
            ].values()
        )

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

    # How

    def _start_aws(self, url: str) -> None:
        state = ministack_environment(int(_port(url)), self.folder / "aws")
        # As `mailrelay.local.aws` does, but for the state, whose writing would take CPU.
        self._environ |= state | {"PERSIST_STATE": "0"}
        process = self._uvicorn("aws", "benchmarks.aws:app", url)
        until(lambda: process.answers(f"{url}/_ministack/health"), "the local AWS answers")

    def _uvicorn(self, name: str, app: str, url: str) -> Process:
        return self.run(
            f"uvicorn {app} --host 127.0.0.1 --port {_port(url)} --log-level warning"
            " --no-access-log --timeout-keep-alive 75 --timeout-graceful-shutdown 1",
            name,
        )

    def _process(self, name: str, command: str, **variables: str) -> Process:
        environ = self._environ | variables
        process = Process(shlex.split(command), environ, self.folder / f"{name}.log")
        self._sessions.add(process.session)
        return process

    def client(self, service: Any) -> Any:
        """A client of the benchmark's own, whose requests are not the relay's."""
        local: dict[str, str] = {}
        if self._aws is not None:
            local = {
                "endpoint_url": self._aws,
                "aws_access_key_id": _LOCAL["AWS_ACCESS_KEY_ID"],
                "aws_secret_access_key": _LOCAL["AWS_SECRET_ACCESS_KEY"],
            }
        client: Any = boto3.client
        return client(
            service,
            region_name=self._environ["AWS_REGION"],
            config=Config(user_agent=OURSELVES),
            **local,
        )

    def _queues(self) -> list[str]:
        return self.sqs.list_queues(QueueNamePrefix=self.prefix).get("QueueUrls", [])

    def _clean_up(self) -> None:
        """Leave nothing in an account; a local AWS goes with all it has."""
        if self._aws is not None:
            return
        self.dynamodb.delete_table(TableName=self.table)
        for url in self._queues():
            self.sqs.delete_queue(QueueUrl=url)
        for page in self.sns.get_paginator("list_topics").paginate():
            for topic in page["Topics"]:
                if topic["TopicArn"].rpartition(":")[2].startswith(self.prefix):
                    self.sns.delete_topic(TopicArn=topic["TopicArn"])


class Mailrelay(Stack):
    """As the Procfile starts it."""

    name = "mailrelay"
    procfiles = ("Procfile",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.store = Store(self.dynamodb, self.table, retention=30 * DAY)
        self._open: set[str] = set()
        self._sent = 0

    def variables(self) -> Mapping[str, str]:
        return {
            "MAILRELAY_API_KEYS": f"benchmark:{_KEY}",
            "MAILRELAY_TABLE": self.table,
            "MAILRELAY_QUEUE_PREFIX": self.prefix,
            "MAILRELAY_METRICS_PORT": str(free_port()),
        }

    def prepare(self) -> None:
        self.finish("mailrelay init")

    def send(self, emails: int) -> tuple[Any, float]:
        answer, seconds = super().send(emails)
        self._open.add(answer["id"])
        return answer, seconds

    def recorded(self) -> int:
        sent = self._sent
        for batch_id in list(self._open):
            emails = self.store.emails(batch_id)
            of_batch = sum(email.status is Status.SENT for email in emails)
            sent += of_batch
            if of_batch == len(emails):
                self._open.remove(batch_id)
                self._sent += of_batch
        return sent


class Stock(Stack):
    """The one that the documentation would have one write: `benchmarks.stock`."""

    name = "stock"
    procfiles = ("benchmarks/stock/Procfile",)

    def variables(self) -> Mapping[str, str]:
        return {
            "STOCK_TABLE": self.table,
            "STOCK_QUEUE_PREFIX": self.prefix,
            "STOCK_CONCURRENCY": str(CONCURRENCY),
        }

    def prepare(self) -> None:
        self.finish("python -m benchmarks.stock.table")

    def recorded(self) -> int:
        pages = self.dynamodb.get_paginator("scan").paginate(
            TableName=self.table,
            Select="COUNT",
            FilterExpression="#status = :sent",
            ExpressionAttributeNames={"#status": "status"},
            ExpressionAttributeValues={":sent": {"S": "sent"}},
        )
        return sum(page["Count"] for page in pages)


Relay = TypeVar("Relay", bound=Stack)


BOTH: Sequence[type[Stack]] = (Mailrelay, Stock)


@contextmanager
def prepared(kind: type[Relay], **how: Any) -> Iterator[Relay]:
    """A stack of its own, of whose parts none runs; gone with all its state at the end."""
    with tempfile.TemporaryDirectory(prefix="mailrelay-bench-") as folder, ExitStack() as stopping:
        yield kind(Path(folder), stopping, **how)


@contextmanager
def running(kind: type[Relay], **how: Any) -> Iterator[Relay]:
    """The same, with a provider and an API that answer; no worker runs yet."""
    with prepared(kind, **how) as stack:
        stack.serve()
        yield stack


def _call(method: str, url: str, **kwargs: Any) -> Any:
    response = urllib3.request(method, url, timeout=120, retries=False, **kwargs)
    if response.status >= 300:
        raise RuntimeError(f"{method} {url}: {response.status} {response.data!r}")
    return response.json() if response.data else None


def _port(url: str) -> str:
    return url.rpartition(":")[2]
