"""All processes go by one clock, DynamoDB's, where a machine's own is off."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import boto3
import pytest
from structlog.testing import capture_logs

from mailrelay import clock


class Answers(BaseHTTPRequestHandler):
    """DynamoDB's answer to anything, at a time that a test sets."""

    protocol_version = "HTTP/1.1"
    date: str | None = None

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response_only(200)
        if self.date is not None:
            self.send_header("Date", self.date)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")


@pytest.fixture
def server() -> Iterator[type[Answers]]:
    class Handler(Answers):
        pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        Thread(target=http.serve_forever).start()
        Handler.port = http.server_port  # type: ignore[attr-defined]
        yield Handler
        http.shutdown()


@pytest.fixture
def ask(server: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Ask it once, so late that its answer counts."""
    monkeypatch.setattr(clock, "_ahead", 0)
    monkeypatch.setattr(clock, "_samples", deque(maxlen=2))
    client = clock.follow(
        boto3.client(
            "dynamodb", endpoint_url=f"http://127.0.0.1:{server.port}", region_name="us-east-1"
        )
    )

    def ask(date: str | None) -> int:
        """By how many seconds `clock` is ahead of this machine then."""
        server.date = date
        monkeypatch.setattr(clock, "_next_sample", 0.0)
        client.list_tables()
        return round((clock.now() - time.time() * 1000) / 1000)

    return ask


def at(seconds: float) -> str:
    return formatdate(time.time() + seconds, usegmt=True)


@pytest.mark.parametrize("ahead", [-86_400, -30, 30, 86_400])
def test_a_machine_that_is_off_goes_by_dynamodbs_clock(ask: Any, ahead: int) -> None:
    with capture_logs() as lines:
        for _ in range(2):
            assert abs(ask(at(ahead)) - ahead) <= 1
        for _ in range(2):
            right = ask(at(0))
        assert right == 0

    assert [line["log_level"] for line in lines] == ["warning", "info"]


def test_an_answer_that_a_busy_server_dated_late_changes_nothing(ask: Any) -> None:
    ask(at(0))

    assert ask(at(-6)) == 0


@pytest.mark.parametrize("date", [None, "", "soon", "Tue, 24 Nov 99999 10:00:00 GMT"])
def test_an_answer_without_a_date_changes_nothing(ask: Any, date: str | None) -> None:
    assert ask(date) == 0


def test_a_machine_that_is_right_within_the_second_goes_by_its_own(ask: Any) -> None:
    for off in (-1.0, 0.0, 1.0):
        before = time.time_ns() // 1_000_000
        ask(at(off))
        assert before <= clock.now() <= time.time_ns() // 1_000_000


def test_times_are_written_as_rfc_3339_says() -> None:
    assert clock.rfc3339(1_764_000_000_123) == "2025-11-24T16:00:00.123Z"
