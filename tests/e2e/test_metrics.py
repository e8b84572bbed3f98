"""What Prometheus reads of a running relay."""

from __future__ import annotations

import os
import re
import signal
import socket
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path

import pytest
import urllib3
from prometheus_client.parser import text_string_to_metric_families

from mailrelay.counters import Counters
from mailrelay.message import Status
from mailrelay.overview import PERIODS
from mailrelay.table import Table
from tests.e2e.conftest import MakeStack
from tests.support.processes import Process, free_port, wait_for
from tests.support.sandbox import Sandbox
from tests.support.stack import KEY, Stack, processes_of_the_api

Labels = frozenset[tuple[str, str]]


class Scrape:
    """One answer of a `/metrics`."""

    def __init__(self, url: str) -> None:
        # Prometheus gives up after 10 s.
        response = urllib3.request("GET", f"{url}/metrics", timeout=10, retries=False)
        assert response.status == 200
        assert response.headers["Content-Type"].startswith("text/plain; version=")
        self.text = response.data.decode()
        self._values: Mapping[tuple[str, Labels], float] = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(self.text)
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float | None:
        """A sample's value; None if there is none with exactly these labels."""
        return self._values.get((f"mailrelay_{name}", frozenset(labels.items())))


def worker_url(stack: Stack) -> str:
    return f"http://127.0.0.1:{stack.environ['MAILRELAY_METRICS_PORT']}"


@pytest.fixture(scope="module")
def relay(make_shared_stack: MakeStack, _sandbox: Sandbox) -> Stack:
    """Web and worker, which have sent three emails, one of them by the second provider."""
    _sandbox.reset()
    stack = make_shared_stack(**processes_of_the_api(2))
    stack.start("web")
    stack.start("worker")
    batches = [
        stack.send("pedro@example.org"),
        stack.send("maria@example.org", "mailgun-503@example.org"),
    ]
    for batch in batches:
        stack.wait(batch, "sent")
    return stack


def test_the_web_counts_what_it_accepted_over_both_of_its_processes(relay: Stack) -> None:
    for _ in range(10):  # either process answers
        scrape = Scrape(relay.url)
        assert scrape.value("emails_accepted_total") == 3
        assert scrape.value("batches_accepted_total", enqueued="true") == 2
        sends = {"method": "POST", "route": "/emails/send"}
        assert scrape.value("http_requests_total", status="202", **sends) == 2
        assert scrape.value("http_request_duration_seconds_count", **sends) == 2
        transactions = {"service": "dynamodb", "operation": "TransactWriteItems"}
        assert scrape.value("aws_requests_total", **transactions) == 2
        assert scrape.value("aws_batch_entries_count", operation="SendMessageBatch") == 2
        assert scrape.value("aws_batch_entries_sum", operation="SendMessageBatch") == 3
        # This one alone: those of both processes are summed, and none is left over.
        assert scrape.value("http_requests_in_progress") == 1


def test_what_a_process_of_the_web_counted_outlives_it(relay: Stack) -> None:
    def booted() -> list[str]:
        return re.findall(r"Booting worker with pid: (\d+)", relay.printed())

    before = booted()
    for pid in before:
        os.kill(int(pid), signal.SIGKILL)
    wait_for(lambda: len(booted()) == 2 * len(before), "gunicorn replaces them")

    assert Scrape(relay.url).value("emails_accepted_total") == 3


def test_a_worker_counts_its_attempts(relay: Stack) -> None:
    url = worker_url(relay)
    # An outcome is counted a moment after it is written down.
    wait_for(lambda: Scrape(url).value("time_to_sent_seconds_count") == 3, "all are counted")

    scrape = Scrape(url)

    attempts = {
        (provider, outcome): scrape.value("attempts_total", provider=provider, outcome=outcome)
        for provider in ("mailgun", "ses", "sendgrid")
        for outcome in ("accepted", "rejected", "unavailable", "retry", "unknown")
    }
    assert {name: count for name, count in attempts.items() if count} == {
        ("mailgun", "accepted"): 2,
        ("mailgun", "retry"): 1,
        ("ses", "accepted"): 1,
    }
    assert None not in attempts.values()  # what never happened is 0, and not missing
    requests = "provider_request_duration_seconds_count"
    assert scrape.value(requests, provider="mailgun") == 3
    assert scrape.value("emails_concluded_total", status="sent") == 3
    assert scrape.value("emails_concluded_total", status="failed") == 0


def test_a_worker_counts_what_sqs_gave_it(relay: Stack) -> None:
    """Four messages: the email that failed over had two."""
    url, deliver = worker_url(relay), {"queue": "deliver"}
    deleted = {"operation": "DeleteMessageBatch"}
    wait_for(lambda: Scrape(url).value("aws_batch_entries_sum", **deleted) == 4, "all are deleted")

    scrape = Scrape(url)

    assert scrape.value("queue_messages_received_total", **deliver) == 4
    assert scrape.value("queue_wait_seconds_count", **deliver) == 4
    waited = scrape.value("queue_wait_seconds_sum", **deliver)
    assert waited is not None
    assert 0 < waited < 4 * 60
    assert scrape.value("queue_oldest_message_age_seconds", **deliver) is not None
    polls = scrape.value("queue_polls_total", result="messages", **deliver)
    assert polls is not None
    assert 1 <= polls <= 4
    # A claim and an outcome for each, some of which shared a request. The overview's counts are written
    # by UpdateItem as well: each attempt is in a slice of each width, so that is two for each at most.
    changes = [
        scrape.value("aws_requests_total", service="dynamodb", operation=operation) or 0
        for operation in ("UpdateItem", "BatchExecuteStatement")
    ]
    assert 2 <= sum(changes) <= 8 + 8


def test_sweeps_are_counted(relay: Stack) -> None:
    relay.start("beat")

    def swept() -> bool:
        scrape = Scrape(worker_url(relay))
        return bool(
            scrape.value("sweeps_total", complete="true")
            and scrape.value("sweep_duration_seconds_count")
        )

    wait_for(swept, "a sweep is counted")


def test_nothing_of_a_mail_is_in_the_metrics(relay: Stack) -> None:
    relay.call("GET", "/emails/secret-path@example.org")
    relay.call("GET", "/secret-path@example.org?to=pedro@example.org")

    text = Scrape(relay.url).text + Scrape(worker_url(relay)).text

    for secret in ("pedro", "maria", "facundo", "example.", "secret-path", KEY, "e2e:", "@"):
        assert secret not in text


def test_the_web_shows_what_waits(make_stack: MakeStack) -> None:
    stack = make_stack()
    stack.start("web")
    stack.send("pedro@example.org")

    def waiting() -> Scrape | None:
        scrape = Scrape(stack.url)
        ready = scrape.value("queue_messages", queue="deliver", state="ready")
        return scrape if ready == 1 else None

    scrape = wait_for(waiting, "the message is seen")

    assert scrape.value("queue_messages", queue="sweep", state="ready") == 0
    assert scrape.value("due_emails") == 0
    assert scrape.value("most_overdue_seconds") == 0
    assert scrape.value("backlog_up", source="sqs") == 1
    assert scrape.value("backlog_up", source="dynamodb") == 1


@pytest.fixture
def hanging() -> Iterator[str]:
    """The address of something that takes connections and never answers."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("away", ["refuses", "hangs"])
def test_without_aws_the_rest_of_the_metrics_is_there(
    make_stack: MakeStack, hanging: str, away: str
) -> None:
    stack = make_stack()
    aws = hanging if away == "hangs" else f"http://127.0.0.1:{free_port()}"
    stack.start("web", AWS_ENDPOINT_URL=aws)

    scrape = Scrape(stack.url)

    assert scrape.value("backlog_up", source="sqs") == 0
    assert scrape.value("backlog_up", source="dynamodb") == 0
    assert scrape.value("queue_messages", queue="deliver", state="ready") is None
    assert scrape.value("due_emails") is None
    assert scrape.value("most_overdue_seconds") is None
    assert scrape.value("emails_accepted_total") == 0


def test_the_web_leaves_nothing_behind(make_stack: MakeStack, tmp_path: Path) -> None:
    """What its processes share is there while it runs, and no longer."""
    web = make_stack().start("web", TMPDIR=str(tmp_path))
    assert list(tmp_path.glob("mailrelay-metrics-*"))

    assert web.stop() == 0

    assert not list(tmp_path.glob("mailrelay-metrics-*"))


def test_what_the_overview_is_made_of_is_kept_when_the_processes_end(
    make_stack: MakeStack, sandbox: Sandbox
) -> None:
    """Each writes what it has counted every few seconds, and the rest when it is told to end."""
    stack = make_stack()
    parts = [stack.start("web"), stack.start("worker")]
    stack.wait(stack.send("pedro@example.org", "mailgun-503@example.org"), "sent")

    for part in parts:
        part.signal(signal.SIGTERM)
    assert [part.wait() for part in parts] == [0, 0]

    table = Table(stack.dynamodb, stack.environ["MAILRELAY_TABLE"])
    for period in PERIODS:
        total = Counters(table).read(period).total
        assert (total.accepted, total.became(Status.SENT)) == (2, 2)
        assert total.outcomes() == {
            "mailgun": {"accepted": 1, "retry": 1},
            "ses": {"accepted": 1},
        }


def test_a_worker_whose_port_is_taken_works_all_the_same(
    make_stack: MakeStack, sandbox: Sandbox
) -> None:
    """As a second one of the same machine does. It says what to set."""
    stack = make_stack()
    stack.start("web")
    with socket.create_server(("127.0.0.1", int(stack.environ["MAILRELAY_METRICS_PORT"]))):
        worker = stack.start("worker")

        stack.wait(stack.send("pedro@example.org"), "sent")

    assert "MAILRELAY_METRICS_PORT" in worker.printed()


def test_a_worker_listens_nowhere_if_told_so(make_stack: MakeStack) -> None:
    stack = make_stack(MAILRELAY_METRICS_PORT="0")
    worker = stack.start("worker")
    other = stack.start("worker", MAILRELAY_METRICS_PORT=str(free_port()))
    assert listening(other)

    assert not listening(worker)


def listening(process: Process) -> set[str]:
    """The TCP sockets of a process that listen, as /proc has them."""
    proc = Path(f"/proc/{process._popen.pid}")
    tables = [(proc / "net" / name).read_text() for name in ("tcp", "tcp6")]
    rows = [line.split() for table in tables for line in table.splitlines()[1:]]
    listeners = {f"socket:[{row[9]}]" for row in rows if row[3] == "0A"}
    open_files = set()
    for entry in (proc / "fd").iterdir():
        with suppress(FileNotFoundError):  # closed since it was listed
            open_files.add(os.readlink(entry))
    return listeners & open_files
