"""What the chaos suite's proxy makes of requests to AWS, and of their answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.chaos import aws_faults
from tests.chaos.aws_faults import conflict, in_part, late, messages, named, refusal, vanished


def only(*indexes: int) -> Callable[[], bool]:
    """Chooses the entries at these places."""
    places = iter(range(1000))
    return lambda: next(places) in indexes


SENDING = {
    "QueueUrl": "https://sqs/1/deliver",
    "Entries": [{"Id": str(index), "MessageBody": f"body {index}"} for index in range(3)],
}


@pytest.mark.parametrize(
    ("target", "body", "expected"),
    [
        ("DynamoDB_20120810.PutItem", b"{}", ("dynamodb", "PutItem")),
        ("AmazonSQS.ReceiveMessage", b"{}", ("sqs", "ReceiveMessage")),
        (None, b"Action=Publish&Message=x", ("sns", "Publish")),
        (None, b"", ("", "")),
    ],
)
def test_a_request_is_known_by_its_target_or_its_action(
    target: str | None, body: bytes, expected: tuple[str, str]
) -> None:
    assert named(target, body) == expected


def test_messages_that_fail_are_not_sent_and_reported() -> None:
    split = in_part("SendMessageBatch", SENDING, only(1))
    assert split is not None
    assert split.part is not None
    assert [entry["Id"] for entry in split.part["Entries"]] == ["0", "2"]
    answer = split.merge({"Successful": [{"Id": "0"}, {"Id": "2"}]})
    assert [entry["Id"] for entry in answer["Successful"]] == ["0", "2"]
    assert [entry["Id"] for entry in answer["Failed"]] == ["1"]


def test_messages_that_vanish_are_reported_as_taken() -> None:
    split = vanished("SendMessageBatch", SENDING, only(0, 1, 2))
    assert split is not None
    assert split.part is None
    answer = split.merge({})
    assert [entry["Id"] for entry in answer["Successful"]] == ["0", "1", "2"]
    assert "Failed" not in answer


def test_messages_that_come_late_are_delayed_and_the_others_are_not() -> None:
    delayed = late("SendMessageBatch", SENDING, only(2), lambda: 5)
    assert [entry.get("DelaySeconds") for entry in delayed["Entries"]] == [None, None, 5]
    single = {"QueueUrl": "q", "MessageBody": "x"}
    assert late("SendMessage", single, only(0), lambda: 5)["DelaySeconds"] == 5
    assert late("ReceiveMessage", {}, only(0), lambda: 5) == {}


def test_writes_that_are_left_out_are_unprocessed() -> None:
    writes = [{"PutRequest": {"Item": {"pk": {"S": str(index)}}}} for index in range(3)]
    split = in_part("BatchWriteItem", {"RequestItems": {"table": writes}}, only(0, 2))
    assert split is not None
    assert split.part == {"RequestItems": {"table": [writes[1]]}}
    merged = split.merge({"UnprocessedItems": {}})
    assert merged["UnprocessedItems"] == {"table": [writes[0], writes[2]]}


def test_keys_that_are_left_out_are_unprocessed() -> None:
    keys = [{"pk": {"S": str(index)}} for index in range(2)]
    request = {"RequestItems": {"table": {"Keys": keys, "ConsistentRead": True}}}
    split = in_part("BatchGetItem", request, only(1))
    assert split is not None
    assert split.part == {"RequestItems": {"table": {"Keys": keys[:1], "ConsistentRead": True}}}
    merged = split.merge({"Responses": {"table": []}, "UnprocessedKeys": {}})
    assert merged["UnprocessedKeys"] == {"table": {"Keys": keys[1:], "ConsistentRead": True}}


def test_statements_that_are_left_out_have_an_error_at_their_place() -> None:
    split = in_part("BatchExecuteStatement", {"Statements": ["a", "b", "c"]}, only(1))
    assert split is not None
    assert split.part == {"Statements": ["a", "c"]}
    first, second, third = split.merge({"Responses": [{"Item": 1}, {"Item": 3}]})["Responses"]
    assert (first, third) == ({"Item": 1}, {"Item": 3})
    assert second["Error"]["Code"] == "TransactionConflict"


@pytest.mark.parametrize("operation", ["SendMessageBatch", "BatchExecuteStatement"])
def test_a_batch_of_which_nothing_is_chosen_passes(operation: str) -> None:
    assert in_part(operation, {**SENDING, "Statements": ["a"]}, only()) is None
    assert in_part("GetItem", {}, only(0)) is None


def test_a_conflict_is_told_as_dynamodb_tells_it() -> None:
    answer = conflict("TransactWriteItems", {"TransactItems": [{}, {}]})
    assert answer is not None
    body: dict[str, Any] = json.loads(answer.body)
    assert body["__type"].endswith("#TransactionCanceledException")
    assert [reason["Code"] for reason in body["CancellationReasons"]] == [
        "TransactionConflict",
        "None",
    ]
    assert conflict("GetItem", {}) is None


def test_every_message_is_seen() -> None:
    assert messages("SendMessageBatch", SENDING) == ["body 0", "body 1", "body 2"]
    assert messages("SendMessage", {"MessageBody": "x"}) == ["x"]
    assert messages("ReceiveMessage", {}) == []


def test_sns_refuses_in_xml() -> None:
    assert b"<Code>Throttling</Code>" in refusal("sns", 400, "Throttling").body
    assert aws_faults.refusal("sns", 400, "Throttling").content_type == "text/xml"
