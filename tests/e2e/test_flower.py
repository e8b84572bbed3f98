"""Flower and Celery's remote control on SQS, as an operator uses them."""

from __future__ import annotations

import json
import os
import re
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import boto3
import pytest
import urllib3
from flower.urls import handlers

from mailrelay.provision import CONTROL_TOPIC, EVENTS_TOPIC
from mailrelay.settings import load
from tasks.fanout import Fanout, Inbox
from tests.e2e.conftest import MakeStack
from tests.support.aws import LocalAws
from tests.support.chromium import chromium
from tests.support.processes import Process, free_port, wait_for
from tests.support.sandbox import Sandbox
from tests.support.stack import FLOWER_LOGIN, KEY, Stack, procfile

SECRETS = {
    "MAILGUN_API_KEY": "telling-mailgun-key",
    "SENDGRID_API_KEY": "telling-sendgrid-key",
    "AWS_SECRET_ACCESS_KEY": "telling-aws-secret",
}

TELLING = {
    "from": {"email": "telling-sender@example.com", "name": "telling-sender-name"},
    "destinations": [
        {"email": "telling-recipient-1@example.org", "name": "telling-name-1"},
        {"email": "mailgun-500+telling-recipient-2@example.org", "name": "telling-name-2"},
        {"email": "mailgun-refuse+telling-recipient-3@example.org"},
    ],
    "subject": "telling-subject",
    "plainContent": "telling-text",
    "htmlContent": "<p>telling-html</p>",
    "replyTo": {"email": "telling-reply@example.com"},
    "headers": {"X-Telling": "telling-header"},
}


class Ear:
    """All that is said on a topic, from when it is made."""

    def __init__(self, stack: Stack, topic: str) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AWS_ENDPOINT_URL", stack.aws)
            fanout = Fanout(load(stack.environ))
        self._inbox = Inbox(fanout, "events", f"test-{topic}", topic)
        self._inbox.open()
        self.heard: list[Any] = []
        threading.Thread(
            target=lambda: self.heard.extend(self._inbox.listen()), daemon=True
        ).start()

    def close(self) -> None:
        self._inbox.close()


def _run(stack: Stack, logs: Path, command: str) -> str:
    """What ``celery -A tasks …`` prints; it has to succeed."""
    name = re.sub(r"\W+", "-", command)
    log = logs / f"celery-{stack.environ['PORT']}-{name}.log"
    log.unlink(missing_ok=True)
    process = Process(["celery", "-A", "tasks", *command.split()], stack.environ, log)
    assert process.wait() == 0, process.printed()
    assert "Traceback" not in process.printed()
    return process.printed()


class Flower:
    """Flower's pages and API."""

    def __init__(self, stack: Stack) -> None:
        self.url = stack.flower
        self._headers = urllib3.make_headers(basic_auth=FLOWER_LOGIN)

    def call(self, method: str, path: str, **fields: str) -> urllib3.BaseHTTPResponse:
        return urllib3.request(
            method,
            self.url + path,
            fields=fields,
            headers=self._headers,
            retries=False,
            redirect=False,
            timeout=30,
        )

    def get(self, path: str, **fields: str) -> str:
        response = self.call("GET", path, **fields)
        assert response.status == 200, (path, response.data)
        return response.data.decode()

    def json(self, path: str, **fields: str) -> Any:
        return json.loads(self.get(path, **fields))

    def post(self, path: str, **fields: str) -> Any:
        response = self.call("POST", path, **fields)
        assert response.status == 200, (path, response.data)
        return response.json()

    @cached_property
    def worker(self) -> str:
        """The name of the one worker."""
        (name,) = wait_for(lambda: self.json("/api/workers", refresh="1"), "a worker answers")
        return name

    def inspect(self) -> Any:
        """All that the worker answers now."""
        return self.json("/api/workers", refresh="1", workername=self.worker)[self.worker]

    def concurrency(self) -> int:
        limit: int = self.inspect()["stats"]["pool"]["max-concurrency"]
        return limit

    def deliveries(self, batch: str) -> list[dict[str, Any]]:
        tasks = self.json("/api/tasks", taskname="tasks.deliver").values()
        return [task for task in tasks if batch in task["args"]]

    def broker(self) -> dict[str, list[str]]:
        """The rows of the broker page: messages, in flight and ready, by queue."""
        rows = re.findall(r"<tr id=[^>]*>(.*?)</tr>", self.get("/broker"), re.DOTALL)
        cells = [re.findall(r"<td[^>]*>\s*(.*?)\s*</td>", row, re.DOTALL) for row in rows]
        return {name: numbers[:3] for name, *numbers in cells}


@pytest.fixture(scope="module")
def watched(make_shared_stack: MakeStack) -> Stack:
    """A relay with things in it that must not be seen."""
    return make_shared_stack(**SECRETS, MAILRELAY_CONCURRENCY="4", FLOWER_DEBUG="")


@pytest.fixture(scope="module")
def running(watched: Stack) -> dict[str, Process]:
    """All of its parts, Flower too."""
    return {part: watched.start(part) for part in procfile()}


@pytest.fixture(scope="module")
def flower(watched: Stack, running: dict[str, Process]) -> Flower:
    """Of the running relay."""
    assert running["flower"].running
    return Flower(watched)


@pytest.fixture(scope="module")
def ears(watched: Stack) -> Iterator[list[Ear]]:
    ears = [Ear(watched, topic) for topic in (EVENTS_TOPIC, CONTROL_TOPIC)]
    yield ears
    for ear in ears:
        ear.close()


@pytest.fixture(scope="module")
def batch(watched: Stack, flower: Flower, ears: list[Ear]) -> str:
    """Three emails of which one fails over; all of it is over."""
    assert flower.worker
    assert ears
    headers = {"Idempotency-Key": "telling-idempotency-key"}
    response = watched.call("POST", "/emails/send", json=TELLING, headers=headers)
    assert response.status == 202, response.data
    batch: str = response.json()["id"]
    assert watched.wait(batch)["status"] == "partial"
    return batch


# --- What Flower shows ----------------------------------------------------------------------


def test_every_attempt_is_a_task(flower: Flower, watched: Stack, batch: str) -> None:
    """The one that fails over is seen twice, with the number of its attempt."""
    wait_for(
        lambda: [task["state"] for task in flower.deliveries(batch)] == ["SUCCESS"] * 4,
        "Flower shows them",
    )

    ids = [email["id"] for email in watched.show(batch)["emails"]]
    shown = sorted(task["args"] for task in flower.deliveries(batch))
    expected = [(ids[0], 0, 1), (ids[1], 0, 1), (ids[1], 1, 2), (ids[2], 0, 1)]
    assert shown == sorted(repr(arguments) for arguments in expected)


def test_sweeps_are_seen_apart_from_deliveries(flower: Flower) -> None:
    """Those that beat starts, under a name of their own."""

    def sweeps() -> list[Any]:
        return list(flower.json("/api/tasks", taskname="tasks.sweep", state="SUCCESS").values())

    wait_for(lambda: len(sweeps()) >= 8, "a sweep of each shard is shown")
    assert {task["name"] for task in sweeps()} == {"tasks.sweep"}
    assert {"tasks.sweep", "tasks.deliver"} <= set(flower.json("/api/task/types")["task-types"])


def test_a_worker_can_be_looked_at(flower: Flower) -> None:
    name = flower.worker
    shown = flower.inspect()

    assert {queue["name"] for queue in shown["active_queues"]} == {"deliver", "sweep"}
    assert {"tasks.deliver", "tasks.sweep"} <= set(shown["registered"])
    assert shown["stats"]["pool"]["implementation"] == "tasks.pool:TaskPool"
    wait_for(lambda: flower.json("/api/workers", status="1") == {name: True}, "it is online")
    assert name in flower.get(f"/worker/{name}")
    assert name in flower.get("/workers")


def test_flower_wants_its_password(flower: Flower) -> None:
    for path in ("/workers", "/api/workers", "/api/tasks"):
        assert urllib3.request("GET", flower.url + path, retries=False).status == 401


@pytest.mark.parametrize("path", ["/", "/workers", "/broker", "/api/workers", "/nowhere"])
def test_flower_is_shown_in_no_frame(flower: Flower, path: str) -> None:
    """Nor is it taken for what it is not, or told to whoever is linked to."""
    headers = flower.call("GET", path).headers
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "same-origin"
    assert "Access-Control-Allow-Origin" not in headers


@pytest.mark.usefixtures("batch")
def test_flower_in_a_browser(flower: Flower, tmp_path: Path) -> None:
    """Its pages show the worker online, the tasks as rows and the queues."""
    shots = Path(os.environ.get("SCREENSHOTS", tmp_path))
    user, _, password = FLOWER_LOGIN.partition(":")
    with chromium() as browser:
        context = browser.new_context(http_credentials={"username": user, "password": password})
        page = context.new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))

        page.goto(f"{flower.url}/workers")
        row = page.locator("#workers-table tbody tr", has_text=flower.worker)
        row.get_by_text("Online").wait_for()
        page.screenshot(path=shots / "flower-workers.png")
        page.goto(f"{flower.url}/tasks")
        page.locator("#tasks-table tbody tr", has_text="tasks.sweep").first.wait_for()
        page.get_by_role("searchbox").fill("tasks.deliver")
        page.locator("#tasks-table tbody tr", has_text="tasks.deliver").first.wait_for()
        page.screenshot(path=shots / "flower-tasks.png")
        page.goto(f"{flower.url}/broker")
        page.locator("#queue-table tbody tr", has_text="sweep").wait_for()
        page.screenshot(path=shots / "flower-broker.png")
    assert errors == []


# --- What Flower and Celery's commands do ---------------------------------------------------


def test_the_pool_grows_and_shrinks_from_flower(flower: Flower) -> None:
    name, before = flower.worker, flower.concurrency()

    flower.post(f"/api/worker/pool/grow/{name}", n="3")
    assert flower.concurrency() == before + 3
    flower.post(f"/api/worker/pool/shrink/{name}", n="3")
    assert flower.concurrency() == before
    refused = flower.call("POST", f"/api/worker/pool/shrink/{name}", n=str(before))

    assert refused.status == 403
    assert "one has to stay" in refused.data.decode()
    assert flower.concurrency() == before


def test_a_queue_that_the_relay_does_not_have_is_not_made(flower: Flower, watched: Stack) -> None:
    before = _litter(watched)["queues"]

    refused = flower.call(
        "POST", f"/api/worker/queue/add-consumer/{flower.worker}", queue="nosuchqueue"
    )

    assert refused.status == 403
    assert "there is no queue nosuchqueue" in refused.data.decode()
    assert _litter(watched)["queues"] == before


def test_a_queue_that_is_no_longer_read_fills_and_is_read_again(
    flower: Flower, watched: Stack
) -> None:
    """The broker page says how many messages wait in it."""
    name = flower.worker
    deliver = watched.environ["MAILRELAY_QUEUE_PREFIX"] + "deliver"
    assert flower.broker()[deliver] == ["0", "0", "0"]

    flower.post(f"/api/worker/queue/cancel-consumer/{name}", queue="deliver")
    batches = [watched.send("first@example.org")]

    def waits() -> bool:
        # The worker obeys in its next turn, and gives back what a poll that was under way brings.
        if watched.show(batches[-1])["status"] == "sent":
            batches.append(watched.send("another@example.org"))
        return flower.broker()[deliver] == ["1", "0", "1"]

    wait_for(waits, "an email waits in the queue")
    lengths = flower.json("/api/queues/length")["active_queues"]
    assert [row["messages"] > 0 for row in lengths if row["name"] == deliver] == [True]
    assert watched.show(batches[-1])["status"] == "queued"
    flower.post(f"/api/worker/queue/add-consumer/{name}", queue="deliver")

    for batch in batches:
        watched.wait(batch, "sent")
    wait_for(lambda: flower.broker()[deliver] == ["0", "0", "0"], "the queue is empty")


def test_the_commands_of_celery(watched: Stack, flower: Flower, logs: Path) -> None:
    commands = [
        "inspect ping",
        "inspect stats",
        "inspect active_queues",
        "control rate_limit tasks.deliver 1000/s",
    ]
    with ThreadPoolExecutor() as pool:
        said = dict(
            zip(commands, pool.map(lambda each: _run(watched, logs, each), commands), strict=True)
        )
    registered = _run(watched, logs, "inspect registered")

    name = flower.worker
    for printed in (*said.values(), registered):
        assert f"{name}: OK" in printed
    assert "pong" in said["inspect ping"]
    assert "tasks.pool:TaskPool" in said["inspect stats"]
    assert "sweep" in said["inspect active_queues"]
    assert "tasks.deliver [rate_limit=1000/s]" in registered


def _paths(names: list[str], tasks: list[str]) -> Iterator[str]:
    """Every address that Flower has, by its own list; each with all that can be put in it."""
    for handler in handlers:
        pattern = handler[0] if isinstance(handler, tuple) else handler.regex.pattern.rstrip("$")
        path, group, rest = re.fullmatch(r"([\w/-]*)(\(\.[+*]\))?(.*)", pattern).groups()
        assert rest in ("", "?") or pattern == ".*", pattern
        if not group:
            yield path or "/no-such-page"
        elif "worker" in path:
            yield from (path + name for name in names)
        else:
            yield from (path + each for each in (*tasks, "tasks.deliver", "no-such-task"))


@pytest.mark.usefixtures("batch")
def test_nothing_of_any_mail_is_anywhere_in_flower(
    flower: Flower, watched: Stack, ears: list[Ear]
) -> None:
    """Nor in what workers say, and what they are asked: after all of the tests above."""
    tasks = list(flower.json("/api/tasks"))
    deliveries = list(flower.json("/api/tasks", taskname="tasks.deliver"))
    seen = {
        path: flower.call("GET", path).data.decode()
        for path in _paths([flower.worker], [*deliveries, *tasks[:5]])
        if not path.startswith("/static")
    }
    for column in ("name", "uuid", "args", "result"):
        fields = {
            "draw": "1",
            "start": "0",
            "length": "1000",
            "search[value]": "",
            "order[0][column]": "0",
            "order[0][dir]": "asc",
            "columns[0][data]": column,
        }
        seen[f"datatable by {column}"] = flower.get("/tasks/datatable", **fields)
    for fields in ({"refresh": "1"}, {"refresh": "1", "workername": flower.worker}):
        seen[f"workers {fields}"] = flower.get("/api/workers", **fields)
    seen["workers as JSON"] = flower.get("/workers", json="1")
    for ear in ears:
        seen[f"topic {ears.index(ear)}"] = json.dumps(ear.heard)

    assert any("tasks.deliver" in body for path, body in seen.items() if path.startswith("/task/"))
    assert "tasks.deliver" in seen["/metrics"]
    assert "task-succeeded" in seen["topic 0"]
    assert "pool_grow" in seen["topic 1"]
    assert "tasks.sweep" in seen["datatable by name"]
    words = ("telling-", "example.org", "example.com", KEY, FLOWER_LOGIN.partition(":")[2])
    found = [(path, word) for path, body in seen.items() for word in words if word in body]
    assert found == []
    # Neither in what Flower says, by the way.
    assert "telling-" not in watched.printed()


def test_a_worker_is_shut_down_from_flower(flower: Flower, running: dict[str, Process]) -> None:
    """It ends as by SIGTERM, and is not shown online any more."""
    name = flower.worker

    flower.post(f"/api/worker/shutdown/{name}")

    assert running["worker"].wait() == 0
    assert "Traceback" not in running["worker"].printed()
    wait_for(lambda: flower.json("/api/workers", status="1") == {name: False}, "it is offline")


# --- Events that nobody wants ---------------------------------------------------------------


def test_no_event_leaves_when_they_are_off(
    make_stack: MakeStack, sandbox: Sandbox, logs: Path
) -> None:
    """Remote control works all the same."""
    stack = make_stack(MAILRELAY_EVENTS="off")
    ear = Ear(stack, EVENTS_TOPIC)
    try:
        stack.start("web")
        worker = stack.start("worker")
        stack.wait(stack.send("mailgun-503@example.org"), "sent")
        assert "pong" in _run(stack, logs, "inspect ping")
        assert worker.stop() == 0

        ear._inbox._fanout.publish(EVENTS_TOPIC, "the end")
        wait_for(lambda: ear.heard, "the end is heard")
        assert ear.heard == ["the end"]
    finally:
        ear.close()
    assert len(sandbox.messages()) == 1


# --- Trouble --------------------------------------------------------------------------------


@pytest.fixture
def hanging() -> Iterator[str]:
    """The address of a server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_a_dead_sns_costs_events_and_nothing_else(
    make_stack: MakeStack, sandbox: Sandbox, hanging: str
) -> None:
    """One that refuses connections, and one that hangs: all is sent, the worker ends, and says
    that events are lost."""
    refusing = f"http://127.0.0.1:{free_port()}"
    stacks = [make_stack(), make_stack()]

    def work(stack: Stack, sns: str) -> None:
        stack.start("web")
        worker = stack.start("worker", AWS_ENDPOINT_URL_SNS=sns)
        recipients = [f"reader{number}@example.org" for number in range(20)]
        stack.wait(stack.send(*recipients), "sent")
        wait_for(lambda: "events cannot be sent and are lost" in worker.printed(), "it says so")
        stack.wait(stack.send("last@example.org"), "sent")
        assert worker.stop() == 0
        assert "Traceback" not in worker.printed()

    with ThreadPoolExecutor() as pool:
        list(pool.map(work, stacks, (refusing, hanging)))
    assert len(sandbox.messages()) == 2 * 21


def test_a_worker_that_starts_before_aws_can_be_asked_later(
    make_stack: MakeStack, logs: Path, tmp_path: Path
) -> None:
    aws = LocalAws(logs, tmp_path / "state")
    aws.start()
    stack = make_stack(AWS_ENDPOINT_URL=aws.url)
    aws.stop()
    worker = Process(procfile()["worker"], stack.environ, logs / "early-worker.log")
    try:
        wait_for(lambda: "Cannot connect" in worker.printed(), "it waits for AWS")
        aws.start()
        wait_for(lambda: " ready." in worker.printed(), "it is at work")
        wait_for(lambda: "pong" in _ping(stack, logs), "it answers")
        assert worker.stop() == 0
        assert "Traceback" not in worker.printed()
    finally:
        if worker.running:
            worker.kill()
        aws.stop()


def _ping(stack: Stack, logs: Path) -> str:
    """What ``celery inspect ping`` says, whether or not anybody answers."""
    log = logs / f"ping-{stack.environ['PORT']}.log"
    process = Process(["celery", "-A", "tasks", "inspect", "ping"], stack.environ, log)
    process.wait()
    return process.printed()


# --- Litter ---------------------------------------------------------------------------------


def _litter(stack: Stack) -> dict[str, Counter[str]]:
    """The queues, topics and subscriptions of a stack."""
    prefix = stack.environ["MAILRELAY_QUEUE_PREFIX"]
    sns = boto3.client("sns", endpoint_url=stack.aws, region_name="us-east-1")
    topics = [
        topic["TopicArn"]
        for page in sns.get_paginator("list_topics").paginate()
        for topic in page["Topics"]
        if topic["TopicArn"].rpartition(":")[2].startswith(prefix)
    ]
    urls = stack.sqs.list_queues(QueueNamePrefix=prefix).get("QueueUrls", [])
    subscriptions = [
        subscription["Endpoint"]
        for topic in topics
        for subscription in sns.list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"]
    ]
    return {
        "queues": Counter(url.rpartition("/")[2].removeprefix(prefix) for url in urls),
        "topics": Counter(topic.rpartition(":")[2].removeprefix(prefix) for topic in topics),
        "subscriptions": Counter(
            each.rpartition(":")[2].removeprefix(prefix) for each in subscriptions
        ),
    }


def test_restarts_leave_no_litter(make_stack: MakeStack, logs: Path) -> None:
    """However Flower, a worker and ``celery inspect`` end; a few times, as each takes seconds.

    (That twenty leave no more than two is tested with inboxes alone.)
    """
    stack = make_stack()
    nothing = _litter(stack)
    host = re.sub(r"[^A-Za-z0-9_-]", "_", socket.gethostname())
    inboxes = {f"control-celery_{host}", "events-flower", "replies-flower"}

    def all_listen() -> bool:
        found = _litter(stack)
        subscribed = inboxes - {"replies-flower"} <= set(found["subscriptions"])
        return subscribed and inboxes <= set(found["queues"])

    def start() -> list[Process]:
        with ThreadPoolExecutor() as pool:
            started = list(pool.map(stack.start, ("worker", "flower")))
        wait_for(all_listen, "all listen")
        # A worker that is ready hears control commands a moment later.
        assert "pong" in _run(stack, logs, f"inspect ping -t 30 -d celery@{socket.gethostname()}")
        return started

    processes = start()
    once = _litter(stack)
    assert set(once["queues"]) == {"deliver", "sweep"} | inboxes
    assert set(once["subscriptions"]) == inboxes - {"replies-flower"}

    for end in (Process.kill, Process.kill, Process.stop):
        for process in processes:
            end(process)
        processes = start()
        assert _litter(stack) == once
    with ThreadPoolExecutor() as pool:
        assert list(pool.map(Process.stop, processes)) == [0, 0]

    assert _litter(stack) == nothing
    assert set(nothing["queues"]) == {"deliver", "sweep"}
    assert set(nothing["topics"]) == {CONTROL_TOPIC, EVENTS_TOPIC}
