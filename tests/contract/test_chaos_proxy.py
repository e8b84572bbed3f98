"""The chaos suite's proxy in front of the local AWS, as boto3 meets it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, HTTPClientError

from tests.chaos.aws_faults import AwsFault, Kind
from tests.chaos.proxy import Proxy
from tests.support.processes import unused_name, wait_for

ONCE = Config(read_timeout=2, retries={"total_max_attempts": 1})


@pytest.fixture(scope="module")
def proxy(local_aws: str) -> Iterator[Proxy]:
    with Proxy(local_aws, seed=1) as proxy:
        yield proxy


def client(service: str, proxy: Proxy) -> Any:
    return boto3.client(service, endpoint_url=proxy.url, region_name="us-east-1", config=ONCE)


@pytest.fixture
def sqs(proxy: Proxy) -> Any:
    return client("sqs", proxy)


@pytest.fixture
def queue(sqs: Any) -> str:
    url: str = sqs.create_queue(QueueName=unused_name("chaos"))["QueueUrl"]
    return url


@pytest.fixture(scope="module")
def dynamodb(proxy: Proxy) -> Any:
    return client("dynamodb", proxy)


@pytest.fixture(scope="module")
def table(dynamodb: Any) -> str:
    name = unused_name("chaos")
    dynamodb.create_table(
        TableName=name,
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    return name


def put(dynamodb: Any, table: str, key: str) -> None:
    dynamodb.put_item(TableName=table, Item={"pk": {"S": key}})


def there(dynamodb: Any, table: str, key: str) -> bool:
    return "Item" in dynamodb.get_item(TableName=table, Key={"pk": {"S": key}})


def send(sqs: Any, queue: str, *bodies: str) -> Any:
    entries = [{"Id": f"m{n}", "MessageBody": body} for n, body in enumerate(bodies)]
    return sqs.send_message_batch(QueueUrl=queue, Entries=entries)


def received(sqs: Any, queue: str) -> list[str]:
    answer = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10, WaitTimeSeconds=1)
    return sorted(message["Body"] for message in answer.get("Messages", ()))


def test_a_service_without_a_fault_is_itself(dynamodb: Any, table: str, proxy: Proxy) -> None:
    with proxy.faulty(AwsFault("sqs", Kind.DOWN), AwsFault("sns", Kind.DOWN)):
        put(dynamodb, table, "healthy")
        assert there(dynamodb, table, "healthy")


@pytest.mark.parametrize("kind", [Kind.DOWN, Kind.HANG])
def test_a_request_without_an_effect_and_an_answer(
    dynamodb: Any, table: str, proxy: Proxy, kind: Kind
) -> None:
    with proxy.faulty(AwsFault("dynamodb", kind)), pytest.raises(HTTPClientError):
        put(dynamodb, table, kind)
    assert not there(dynamodb, table, kind)


def test_an_answer_is_lost_after_the_write_took_effect(
    dynamodb: Any, table: str, proxy: Proxy
) -> None:
    with proxy.faulty(AwsFault("dynamodb", Kind.LOST)), pytest.raises(HTTPClientError):
        put(dynamodb, table, "lost")
    assert there(dynamodb, table, "lost")


@pytest.mark.parametrize("service", ["dynamodb", "sqs", "sns"])
def test_a_refusal_has_its_code(proxy: Proxy, service: str) -> None:
    ask = {"dynamodb": "list_tables", "sqs": "list_queues", "sns": "list_topics"}[service]
    fault = AwsFault(service, Kind.ERROR, status=400, code="Throttling")
    with proxy.faulty(fault), pytest.raises(ClientError) as caught:
        getattr(client(service, proxy), ask)()
    assert caught.value.response["Error"]["Code"] == "Throttling"


def test_a_write_conflicts_with_another_transaction(
    dynamodb: Any, table: str, proxy: Proxy
) -> None:
    transaction = [{"Put": {"TableName": table, "Item": {"pk": {"S": "conflict"}}}}]
    with proxy.faulty(AwsFault("dynamodb", Kind.CONFLICT)):
        with pytest.raises(ClientError) as caught:
            dynamodb.transact_write_items(TransactItems=transaction)
        (reason,) = caught.value.response["CancellationReasons"]
        assert reason["Code"] == "TransactionConflict"
        with pytest.raises(ClientError, match="TransactionConflictException"):
            put(dynamodb, table, "conflict")
    assert not there(dynamodb, table, "conflict")


def test_a_batch_is_written_in_part(dynamodb: Any, table: str, proxy: Proxy) -> None:
    keys = [f"part{n}" for n in range(20)]
    puts = [{"PutRequest": {"Item": {"pk": {"S": key}}}} for key in keys]
    with proxy.faulty(AwsFault("dynamodb", Kind.PARTIAL, 0.5)):
        answer = dynamodb.batch_write_item(RequestItems={table: puts})
    left = {put["PutRequest"]["Item"]["pk"]["S"] for put in answer["UnprocessedItems"][table]}
    assert 0 < len(left) < len(keys)
    assert {key for key in keys if not there(dynamodb, table, key)} == left


def test_messages_fail_in_part(sqs: Any, queue: str, proxy: Proxy) -> None:
    bodies = [f"body{n}" for n in range(10)]
    with proxy.faulty(AwsFault("sqs", Kind.PARTIAL, 0.5)):
        answer = send(sqs, queue, *bodies)
    sent = [bodies[int(entry["Id"][1:])] for entry in answer["Successful"]]
    assert 0 < len(sent) < len(bodies)
    assert len(answer["Failed"]) == len(bodies) - len(sent)
    assert received(sqs, queue) == sent


def test_messages_vanish_come_twice_and_late(sqs: Any, queue: str, proxy: Proxy) -> None:
    with proxy.faulty(AwsFault("sqs", Kind.VANISH)):
        assert len(send(sqs, queue, "vanished", "gone")["Successful"]) == 2
    with proxy.faulty(AwsFault("sqs", Kind.TWICE)):
        sqs.send_message(QueueUrl=queue, MessageBody="twice")
    with proxy.faulty(AwsFault("sqs", Kind.LATE, seconds=5)):
        send(sqs, queue, "late")
    assert received(sqs, queue) == ["twice", "twice"]
    assert proxy.sent()[-4:] == ["vanished", "gone", "twice", "late"]


def test_a_slow_service_answers_in_the_end(dynamodb: Any, table: str, proxy: Proxy) -> None:
    before = proxy.met()["dynamodb", "slow"]
    with proxy.faulty(AwsFault("dynamodb", Kind.SLOW, seconds=0.1)):
        put(dynamodb, table, "slow")
    assert there(dynamodb, table, "slow")
    assert proxy.met()["dynamodb", "slow"] == before + 1


def test_a_message_for_a_client_that_left_stays_in_the_queue(
    sqs: Any, queue: str, proxy: Proxy
) -> None:
    """As with AWS: a worker that is killed while it polls takes nothing with it."""
    with pytest.raises(HTTPClientError):
        sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=20)
    send(sqs, queue, "stays")
    wait_for(lambda: received(sqs, queue) == ["stays"], "the message is there", seconds=15)
