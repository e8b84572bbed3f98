"""What the queue puts into SQS, on the local AWS."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from typing import Any

import boto3
import pytest

from tests.support.processes import ROOT, unused_name

PUT = """
from mailrelay.message import EmailId, Hint
from mailrelay.settings import load
from tasks.app import app
from tasks.queue import CeleryQueue

batch = "01K9ZZZZZZZZZZZZZZZZZZZZZZ"
headers = {"request_id": "request"}
for index in range(2):
    args = f"{batch}-{index}", 1, 2
    app.send_task("tasks.deliver", args, headers=headers, ignore_result=True)
names = ["someone@example.com", "someone@example.com", "other", None, *(["demo"] * 8)]
CeleryQueue(load()).put(
    Hint(EmailId(batch, index), 1, 2, "request", name) for index, name in enumerate(names)
)
"""


@pytest.fixture(scope="module")
def put(local_aws: str) -> list[Any]:
    """All messages that a process of its own has put, Celery's own first; each decoded."""
    prefix = unused_name("queue") + "-"
    sqs: Any = boto3.client("sqs", endpoint_url=local_aws, region_name="us-east-1")
    url = sqs.create_queue(QueueName=f"{prefix}deliver")["QueueUrl"]
    environ = {"AWS_ENDPOINT_URL": local_aws, "MAILRELAY_QUEUE_PREFIX": prefix}
    subprocess.run(
        [sys.executable, "-c", PUT],
        env={**os.environ, **environ},
        cwd=ROOT,
        check=True,
        timeout=60,
    )
    found: list[Any] = []
    while len(found) < 14:
        answer = sqs.receive_message(
            QueueUrl=url, MaxNumberOfMessages=10, MessageSystemAttributeNames=["All"]
        )
        assert answer.get("Messages"), f"{len(found)} of 14 are there"
        found += answer["Messages"]
    return found


def decoded(message: Any) -> dict[str, Any]:
    """A message as Celery makes it, its body decoded as well, without what is random."""
    made: dict[str, Any] = json.loads(message["Body"])
    made["body"] = json.loads(base64.b64decode(made["body"]))
    for part, names in (
        ("headers", ("id", "root_id", "origin")),
        ("properties", ("correlation_id", "delivery_tag", "reply_to", "MessageGroupId")),
    ):
        for name in names:
            made[part].pop(name, None)
    return made


@pytest.mark.parametrize("index", [0, 1])
def test_a_message_is_the_one_that_celery_would_send(put: list[Any], index: int) -> None:
    """But for the address of replies, of which there are none, and for its group.

    The first as well as those that are made after it.
    """
    ends = f"Z-{index}"
    one, other = [made for made in map(decoded, put) if made["body"][0][0].endswith(ends)]

    assert one == other


def test_a_message_names_its_task_by_one_id(put: list[Any]) -> None:
    for made in (json.loads(message["Body"]) for message in put):
        headers, properties = made["headers"], made["properties"]
        assert headers["id"] == headers["root_id"] == properties["correlation_id"]
        assert properties["delivery_tag"] != headers["id"]


def test_each_hint_has_a_message_with_an_id_of_its_own(put: list[Any]) -> None:
    arguments = sorted(decoded(message)["body"][0] for message in put)
    ids = {json.loads(message["Body"])["headers"]["id"] for message in put}

    assert len(ids) == 14
    wanted = [f"01K9ZZZZZZZZZZZZZZZZZZZZZZ-{index}" for index in (0, 1, *range(12))]
    assert arguments == sorted([email_id, 1, 2] for email_id in wanted)


def test_messages_of_one_key_are_one_group_and_those_of_another_a_second(put: list[Any]) -> None:
    """SQS is fair between groups; that it takes them for a standard queue is seen here, too."""
    groups = {
        decoded(message)["body"][0][0].partition("-")[2]: message["Attributes"]["MessageGroupId"]
        for message in put
        if "MessageGroupId" in message["Attributes"]
    }

    assert len(groups) == 12
    assert groups["0"] == groups["1"]
    assert len(set(groups.values())) == 4


def test_a_group_does_not_say_whose_it_is(put: list[Any]) -> None:
    assert "someone" not in json.dumps(put)
