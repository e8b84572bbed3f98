"""Create what the relay needs in AWS: table, index and TTL, queues, topics, bucket.

Run again, it changes nothing, but that it adds an index which a table of an earlier version lacks.
Where something exists and is not as needed it says so and leaves it alone: a key or a queue under
load is not to be changed behind anybody's back.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from botocore.exceptions import ClientError
from tenacity import Retrying, retry_if_result, wait_exponential

from mailrelay import aws
from mailrelay.items import LIST_PROJECTION
from mailrelay.settings import Settings
from mailrelay.store import DUE_INDEX, LISTED_INDEX

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import (
        AttributeDefinitionTypeDef,
        GlobalSecondaryIndexTypeDef,
        KeySchemaElementTypeDef,
        TableDescriptionTypeDef,
    )
    from mypy_boto3_s3.type_defs import LifecycleRuleTypeDef
    from mypy_boto3_sqs import SQSClient

DELIVER_QUEUE = "deliver"
SWEEP_QUEUE = "sweep"

CONTROL_TOPIC = "control"
EVENTS_TOPIC = "events"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that the relay needs: what it is, how it was found, and what is wrong with it."""

    what: str
    state: Literal["being built", "created", "unchanged", "differs"]
    detail: str = ""


def queue_attributes(settings: Settings) -> dict[str, str]:
    """The attributes of both queues.

    A message lives as long as its visibility timeout, so that SQS never delivers it again on its
    own: recovery has one owner, the sweep.
    """
    # VisibilityTimeout goes to 12 hours only; a message that lives longer is taken by then.
    visibility = min(settings.message_ttl, 43_200)
    return {
        "MessageRetentionPeriod": str(settings.message_ttl),
        "VisibilityTimeout": str(visibility),
        "SqsManagedSseEnabled": "true",
    }


def provision(settings: Settings) -> Iterator[Finding]:
    """Create what is missing, a finding for each thing as it is done.

    Raises botocore's errors where AWS cannot be reached or refuses.
    """
    dynamodb = aws.dynamodb(settings)
    yield from _table(dynamodb, settings.table)
    yield _ttl(dynamodb, settings.table)
    for name in (DELIVER_QUEUE, SWEEP_QUEUE):
        yield _queue(settings, settings.queue_prefix + name)
    for name in (CONTROL_TOPIC, EVENTS_TOPIC):
        yield _topic(settings, settings.queue_prefix + name)
    if settings.bucket:
        yield _bucket(settings, settings.bucket)
        yield _expiry(settings, settings.bucket)


_INDEXES: dict[str, GlobalSecondaryIndexTypeDef] = {
    DUE_INDEX: {
        "IndexName": DUE_INDEX,
        "KeySchema": [
            {"AttributeName": "due_shard", "KeyType": "HASH"},
            {"AttributeName": "due_at", "KeyType": "RANGE"},
        ],
        "Projection": {"ProjectionType": "KEYS_ONLY"},
    },
    LISTED_INDEX: {
        "IndexName": LISTED_INDEX,
        "KeySchema": [
            {"AttributeName": "listed_in", "KeyType": "HASH"},
            {"AttributeName": "pk", "KeyType": "RANGE"},
        ],
        "Projection": {
            "ProjectionType": "INCLUDE",
            "NonKeyAttributes": list(LIST_PROJECTION),
        },
    },
}

_KEY: list[KeySchemaElementTypeDef] = [
    {"AttributeName": "pk", "KeyType": "HASH"},
    {"AttributeName": "sk", "KeyType": "RANGE"},
]

_ATTRIBUTES: list[AttributeDefinitionTypeDef] = [
    {"AttributeName": "pk", "AttributeType": "S"},
    {"AttributeName": "sk", "AttributeType": "S"},
    {"AttributeName": "due_shard", "AttributeType": "N"},
    {"AttributeName": "due_at", "AttributeType": "N"},
    {"AttributeName": "listed_in", "AttributeType": "S"},
]
"""Those that are keys, of the table or of an index."""


def _table(dynamodb: DynamoDBClient, name: str) -> Iterator[Finding]:
    what = f"table {name}"
    try:
        dynamodb.create_table(
            TableName=name,
            BillingMode="PAY_PER_REQUEST",
            KeySchema=_KEY,
            AttributeDefinitions=_ATTRIBUTES,
            GlobalSecondaryIndexes=list(_INDEXES.values()),
        )
    except dynamodb.exceptions.ResourceInUseException:
        dynamodb.get_waiter("table_exists").wait(TableName=name)
    else:
        dynamodb.get_waiter("table_exists").wait(TableName=name)
        yield Finding(what, "created")
        return
    table = dynamodb.describe_table(TableName=name)["Table"]
    problems = list(_table_problems(table))
    yield Finding(what, "differs" if problems else "unchanged", "; ".join(problems))
    if not problems:
        for index in _INDEXES:
            yield from _index(dynamodb, name, index)


def _table_problems(table: TableDescriptionTypeDef) -> Iterator[str]:
    if _keys(table["KeySchema"]) != _keys(_KEY):
        yield "its key is not pk and sk"
    wanted = {kind["AttributeName"]: kind["AttributeType"] for kind in _ATTRIBUTES}
    has = {kind["AttributeName"]: kind["AttributeType"] for kind in table["AttributeDefinitions"]}
    for name, kind in wanted.items():
        if name in has and has[name] != kind:
            yield f"the attribute {name} is of type {has[name]} and not {kind}"
    for index in table.get("GlobalSecondaryIndexes", []):
        wanted_index = _INDEXES.get(index["IndexName"])
        if wanted_index and _keys(index["KeySchema"]) != _keys(wanted_index["KeySchema"]):
            names = " and ".join(key["AttributeName"] for key in wanted_index["KeySchema"])
            yield f"the key of its index {index['IndexName']} is not {names}"


def _keys(schema: Sequence[Any]) -> list[tuple[str, str]]:
    return sorted((key["AttributeName"], key["KeyType"]) for key in schema)


def _index(dynamodb: DynamoDBClient, table: str, name: str) -> Iterator[Finding]:
    """An index that a table of an earlier version lacks; nothing if it has it.

    DynamoDB makes one at a time, and goes through the whole table for it.
    """
    status = index_status(dynamodb, table, name)
    if status == "ACTIVE":
        return
    what = f"index {name} of table {table}"
    if status is None:
        index = _INDEXES[name]
        keys = {key["AttributeName"] for key in index["KeySchema"]}
        # No others: DynamoDB refuses those that no index has yet.
        attributes = [kind for kind in _ATTRIBUTES if kind["AttributeName"] in keys]
        dynamodb.update_table(
            TableName=table,
            AttributeDefinitions=attributes,
            GlobalSecondaryIndexUpdates=[{"Create": index}],
        )
    yield Finding(what, "being built", "waiting for DynamoDB, which reads the whole table for it")
    ready = Retrying(
        retry=retry_if_result(lambda status: status != "ACTIVE"),
        wait=wait_exponential(multiplier=0.1, max=10),
    )
    ready(index_status, dynamodb, table, name)
    yield Finding(what, "created")


def index_status(dynamodb: DynamoDBClient, table: str, name: str) -> str | None:
    """DynamoDB's word for how an index is, ``ACTIVE`` if it can be used; None if there is none."""
    indexes = dynamodb.describe_table(TableName=table)["Table"].get("GlobalSecondaryIndexes", [])
    return next((index["IndexStatus"] for index in indexes if index["IndexName"] == name), None)


def _ttl(dynamodb: DynamoDBClient, name: str) -> Finding:
    what = f"TTL of table {name}"
    ttl = dynamodb.describe_time_to_live(TableName=name)["TimeToLiveDescription"]
    if ttl.get("TimeToLiveStatus") in ("ENABLED", "ENABLING"):
        attribute = ttl.get("AttributeName")
        if attribute == "expires":
            return Finding(what, "unchanged")
        return Finding(what, "differs", f"it is on {attribute} and not on expires")
    dynamodb.update_time_to_live(
        TableName=name, TimeToLiveSpecification={"Enabled": True, "AttributeName": "expires"}
    )
    return Finding(what, "created")


def _queue(settings: Settings, name: str) -> Finding:
    what = f"queue {name}"
    sqs = aws.sqs(settings)
    try:
        url = sqs.get_queue_url(QueueName=name)["QueueUrl"]
    except sqs.exceptions.QueueDoesNotExist:
        attributes: dict[Any, str] = dict(queue_attributes(settings))
        sqs.create_queue(QueueName=name, Attributes=attributes)
        return Finding(what, "created")
    problems = queue_problems(settings, sqs, url)
    return Finding(what, "differs" if problems else "unchanged", "; ".join(problems))


def queue_problems(settings: Settings, sqs: SQSClient, url: str) -> list[str]:
    """What of a queue is not as needed; raises botocore's errors."""
    answer = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
    has: dict[str, str] = {str(name): value for name, value in answer["Attributes"].items()}
    if "KmsMasterKeyId" in has:
        # A key of one's own is encryption too; SQS then has its own switch off.
        has["SqsManagedSseEnabled"] = "true"
    return [
        f"{attribute} is {has.get(attribute, 'not set')} and not {value}"
        for attribute, value in queue_attributes(settings).items()
        if has.get(attribute) != value
    ]


def _topic(settings: Settings, name: str) -> Finding:
    what = f"topic {name}"
    sns = aws.sns(settings)
    pages = sns.get_paginator("list_topics").paginate()
    if any(topic["TopicArn"].endswith(f":{name}") for page in pages for topic in page["Topics"]):
        return Finding(what, "unchanged")
    sns.create_topic(Name=name)
    return Finding(what, "created")


def _bucket(settings: Settings, name: str) -> Finding:
    what = f"bucket {name}"
    s3 = aws.s3(settings)
    try:
        s3.head_bucket(Bucket=name)
    except ClientError as error:
        if error.response["Error"]["Code"] != "404":
            raise
    else:
        return Finding(what, "unchanged")
    region = s3.meta.region_name
    # us-east-1 is the one region that must not be named.
    where: dict[str, Any] = (
        {}
        if region == "us-east-1"
        else {"CreateBucketConfiguration": {"LocationConstraint": region}}
    )
    s3.create_bucket(Bucket=name, **where)
    s3.put_public_access_block(
        Bucket=name,
        PublicAccessBlockConfiguration={
            "BlockPublicAcls": True,
            "IgnorePublicAcls": True,
            "BlockPublicPolicy": True,
            "RestrictPublicBuckets": True,
        },
    )
    return Finding(what, "created")


def _expiry(settings: Settings, name: str) -> Finding:
    """The rule that removes content; a bucket of somebody's own may have another one."""
    what = f"expiry of bucket {name}"
    s3 = aws.s3(settings)
    try:
        rules = s3.get_bucket_lifecycle_configuration(Bucket=name)["Rules"]
    except ClientError as error:
        if error.response["Error"]["Code"] != "NoSuchLifecycleConfiguration":
            raise
    else:
        after = [
            rule["Expiration"].get("Days", 0)
            for rule in rules
            if rule["Status"] == "Enabled" and "Expiration" in rule
        ]
        if not after:
            return Finding(what, "differs", "none of its lifecycle rules removes objects")
        if min(after) < settings.retention_days:
            said = f"a rule removes objects after {min(after)} days, before their emails"
            return Finding(what, "differs", said)
        return Finding(what, "unchanged")
    rule: LifecycleRuleTypeDef = {
        "ID": "retention",
        "Status": "Enabled",
        "Filter": {"Prefix": ""},
        # A day later than DynamoDB's TTL, which may be late itself.
        "Expiration": {"Days": math.ceil(settings.retention_days) + 1},
    }
    s3.put_bucket_lifecycle_configuration(Bucket=name, LifecycleConfiguration={"Rules": [rule]})
    return Finding(what, "created")
