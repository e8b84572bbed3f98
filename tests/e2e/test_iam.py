"""Each part does its work with what deploy/iam/ allows it, and nothing else."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
import urllib3

from tests.e2e.conftest import MakeStack
from tests.support.aws import AWS_CREDENTIALS
from tests.support.iam import Iam, Policy
from tests.support.processes import Process, unused_name, wait_for
from tests.support.sandbox import Sandbox, sandbox_environ
from tests.support.stack import FLOWER_LOGIN, KEY, Stack

PARTS = ("web", "worker", "beat", "flower")


@pytest.fixture(scope="module")
def gates(local_aws: str) -> Iterator[Callable[..., Iam]]:
    made: list[Iam] = []

    def make(part: str, table: str, prefix: str, bucket: str) -> Iam:
        policy = Policy(part, table=table, prefix=prefix, bucket=bucket)
        made.append(Iam(local_aws, policy))
        return made[-1]

    yield make
    for gate in made:
        gate.close()


@pytest.fixture(scope="module")
def relay(make_shared_stack: MakeStack) -> Stack:
    return make_shared_stack(
        MAILRELAY_BUCKET=unused_name("iam"),
        MAILRELAY_RATE_SES="100/s",
        # Answers come through a gate each, on a machine that does much else: not within a second.
        FLOWER_INSPECT_TIMEOUT="5000",
    )


@pytest.fixture(scope="module")
def guarded(relay: Stack, gates: Callable[..., Iam]) -> dict[str, Iam]:
    """All parts have run, each behind its own policy, and were stopped."""
    names = [relay.environ[f"MAILRELAY_{name}"] for name in ("TABLE", "QUEUE_PREFIX", "BUCKET")]
    parts = {part: gates(part, *names) for part in PARTS}
    processes = [relay.start(part, AWS_ENDPOINT_URL=gate.url) for part, gate in parts.items()]
    _use(relay)
    for process in processes:
        process.stop()
    return parts


def _use(relay: Stack) -> None:
    """Send what fits and what does not fit into an item, at once and later; look; control."""
    large = random.Random(1).randbytes(450_000).hex()
    batches = [
        relay.send("pedro@example.org", headers={"Idempotency-Key": "once"}),
        relay.send("pedro@example.org", headers={"Idempotency-Key": "once"}),
        # So many that mailgun is left alone.
        relay.send(*(f"mailgun-503+{number}@example.org" for number in range(30))),
        relay.send(*(f"r{number}@example.org" for number in range(150))),
        # Deferred, so that the sweep has something to bring back.
        relay.send("mailgun-503+ses-503+sendgrid-503@example.org"),
    ]
    body = {
        "from": {"email": "facundo@example.com"},
        "destinations": [{"email": "pedro@example.org"}],
        "subject": "large",
        "plainContent": large,
    }
    response = relay.call("POST", "/emails/send", json=body)
    assert response.status == 202, response.data
    batches.append(response.json()["id"])
    for batch in batches:
        relay.wait(batch, seconds=120)
    for path in ("/metrics", "/readyz", "/providers"):
        assert relay.call("GET", path).status == 200
    _use_the_console(relay)
    login = urllib3.make_headers(basic_auth=FLOWER_LOGIN)

    def flower(method: str, path: str) -> urllib3.BaseHTTPResponse:
        return urllib3.request(
            method, relay.flower + path, headers=login, timeout=30, retries=False
        )

    workers = wait_for(
        lambda: flower("GET", "/api/workers?refresh=1").json(), "a worker answers", 120
    )
    assert flower("GET", "/broker").status == 200
    assert flower("POST", f"/api/worker/pool/grow/{next(iter(workers))}?n=1").status == 200
    assert wait_for(
        lambda: len(flower("GET", "/api/tasks?taskname=tasks.deliver").json()) > 150,
        "Flower hears of the tasks",
        120,
    )


def _use_the_console(relay: Stack) -> None:
    with requests.Session() as browser:
        page = browser.get(f"{relay.url}/sign-in", timeout=60).text
        [token] = set(re.findall(r'name="csrf_token" value="([^"]+)"', page))
        form = {"csrf_token": token, "key": KEY}
        browser.post(f"{relay.url}/sign-in", data=form, timeout=60)
        for path in ("/", "/?over=day", "/batches", "/search?to=pedro@example.org"):
            shown = browser.get(relay.url + path, timeout=60, allow_redirects=False)
            assert shown.status_code == 200, path


@pytest.mark.parametrize("part", PARTS)
def test_a_part_needs_no_more_than_its_policy(guarded: dict[str, Iam], part: str) -> None:
    assert guarded[part].wanted
    assert guarded[part].refused == set()


def test_nothing_was_missing(guarded: dict[str, Iam], relay: Stack) -> None:
    """Nor does a log speak of something that AWS refused."""
    assert guarded
    assert "AccessDenied" not in relay.printed()


def test_setting_up_needs_no_more_than_its_policy(
    gates: Callable[..., Iam], sandbox: Sandbox, logs: Path
) -> None:
    """`mailrelay init`, twice, `doctor`, and `providers` with its two ways to change something."""
    name = unused_name("iam")
    gate = gates("operator", name, f"{name}-", name)
    environ = {
        **os.environ,
        **AWS_CREDENTIALS,
        **sandbox_environ(sandbox),
        "AWS_ENDPOINT_URL": gate.url,
        "MAILRELAY_API_KEYS": KEY,
        "MAILRELAY_TABLE": name,
        "MAILRELAY_QUEUE_PREFIX": f"{name}-",
        "MAILRELAY_BUCKET": name,
    }
    commands = ("init", "init", "doctor", "providers", "providers open ses", "providers close ses")
    for command in commands:
        process = Process(["mailrelay", *command.split()], environ, logs / f"{name}.log")
        assert process.wait() == 0, process.printed()
    assert gate.refused == set()
