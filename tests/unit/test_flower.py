"""Flower: where it may listen, and what it is told of the queues."""

from __future__ import annotations

import asyncio
import os
import shlex
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from moto import mock_aws

import tasks.flower
from mailrelay import aws, provision
from mailrelay.settings import SettingsError, load
from tasks.fanout import Fanout
from tests.support.processes import Process, free_port

PASSWORD = "rather-secret"
LOGIN = f"operator:{PASSWORD}"


def _guarded(
    address: str = "", basic_auth: list[str] | None = None, auth: str = "", **others: Any
) -> Any:
    """Flower's options once they are guarded; with Flower's defaults, and a port that is free."""
    options = SimpleNamespace(
        **{
            "address": address,
            "basic_auth": basic_auth,
            "auth": auth,
            "unix_socket": "",
            "port": free_port(),
            **others,
        }
    )
    tasks.flower.guard(options)
    return options


def test_it_listens_on_this_machine_alone_unless_told_otherwise() -> None:
    assert _guarded().address == "127.0.0.1"
    assert _guarded(basic_auth=[LOGIN]).address == "127.0.0.1"


@pytest.mark.parametrize("address", ["127.0.0.1", "127.1.2.3", "localhost"])
def test_this_machine_needs_no_password(address: str) -> None:
    assert _guarded(address).address == address


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.0.2.1", "flower.example.com", "127.1"])  # noqa: S104
@pytest.mark.parametrize("basic_auth", [None, [], [""]])
def test_any_other_address_needs_one(address: str, basic_auth: list[str] | None) -> None:
    with pytest.raises(SettingsError, match="user:password") as caught:
        _guarded(address, basic_auth)
    assert caught.value.variable == "FLOWER_BASIC_AUTH"
    assert address in str(caught.value)


def test_a_password_or_oauth_opens_it_to_others() -> None:
    everywhere = "0.0.0.0"  # noqa: S104
    assert _guarded(everywhere, [LOGIN]).address == everywhere
    assert _guarded(everywhere, auth=r".*@example\.com").address == everywhere


@pytest.mark.parametrize("wrong", [PASSWORD, f":{PASSWORD}", "operator:", ":"])
@pytest.mark.parametrize("others", [[], [LOGIN]])
def test_a_password_without_a_user_is_refused(wrong: str, others: list[str]) -> None:
    """And not quoted."""
    with pytest.raises(SettingsError, match="takes user:password") as caught:
        _guarded(basic_auth=[*others, wrong])
    assert caught.value.variable == "FLOWER_BASIC_AUTH"
    assert PASSWORD not in str(caught.value)


def test_a_password_may_hold_a_colon() -> None:
    assert _guarded(basic_auth=["operator:a:b"]).basic_auth == ["operator:a:b"]


def test_a_unix_socket_needs_no_port() -> None:
    assert _guarded(unix_socket="/run/flower.sock").address == ""


# --- The command ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def taken() -> Iterator[int]:
    """A port on which somebody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


CASES = [
    ("celery -A tasks flower --address=0.0.0.0", {}, "FLOWER_BASIC_AUTH"),
    ("celery -A tasks flower", {"FLOWER_ADDRESS": "192.0.2.1"}, "FLOWER_BASIC_AUTH"),
    ("celery -A tasks flower", {"FLOWER_BASIC_AUTH": PASSWORD}, "FLOWER_BASIC_AUTH"),
    ("celery -A tasks flower", {"FLOWER_PORT": "{taken}"}, "FLOWER_PORT"),
    ("celery -A tasks flower", {"FLOWER_PORT": "http"}, "FLOWER_PORT"),
    (
        "celery -A tasks flower",
        {"FLOWER_ADDRESS": "192.0.2.1", "FLOWER_BASIC_AUTH": LOGIN},
        "FLOWER_ADDRESS",
    ),
]


@pytest.fixture(scope="module")
def started(logs: Path, taken: int) -> Iterator[list[Process]]:
    """A process for each of CASES, all of them starting at the same time."""
    processes = []
    for number, (command, variables, _) in enumerate(CASES):
        nowhere = f"http://127.0.0.1:{free_port()}"
        environ = {
            **os.environ,
            "AWS_ENDPOINT_URL": nowhere,
            "FLOWER_PORT": str(free_port()),
            **{name: value.format(taken=taken) for name, value in variables.items()},
        }
        log = logs / f"flower-{number}.log"
        processes.append(Process(shlex.split(command), environ, log))
    yield processes
    for process in processes:
        if process.running:
            process.kill()


@pytest.mark.parametrize("number", range(len(CASES)))
def test_what_cannot_work_ends_it_with_one_line(started: list[Process], number: int) -> None:
    """The line names the variable; there is no traceback, and no password."""
    process, variable = started[number], CASES[number][2]

    assert process.wait() != 0

    (line,) = process.printed().splitlines()
    assert line.startswith(f"mailrelay: {variable}: ")
    assert PASSWORD not in line


# --- The broker page ------------------------------------------------------------------------


def test_it_is_told_how_many_messages_wait_and_are_in_flight(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with mock_aws():
        settings = load({"AWS_REGION": "us-east-1"})
        list(provision.provision(settings))
        monkeypatch.setattr(tasks.flower, "fanout", lambda: Fanout(settings))
        sqs = aws.sqs(settings)
        url = sqs.get_queue_url(QueueName="mailrelay-deliver")["QueueUrl"]
        for delay in (0, 0, 0, 0, 60, 60, 60):
            sqs.send_message(QueueUrl=url, MessageBody="{}", DelaySeconds=delay)
        sqs.receive_message(QueueUrl=url)

        deliver, sweep = asyncio.run(tasks.flower.Broker().queues(["deliver", "sweep"]))

    assert deliver == {
        "name": "mailrelay-deliver",
        "messages": 7,
        "messages_ready": 3,
        "messages_unacknowledged": 1,
    }
    assert (sweep["name"], sweep["messages"]) == ("mailrelay-sweep", 0)
