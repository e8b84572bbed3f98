"""What `mailrelay init` creates: the same over moto and over the local AWS."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto import mock_aws

from mailrelay import assembly, aws, provision
from mailrelay.settings import Settings, load
from mailrelay.store import Overdue
from tests.support.processes import unused_name

ALL = [
    *("table {}", "TTL of table {}", "queue {}-deliver", "queue {}-sweep"),
    *("topic {}-control", "topic {}-events"),
    *("bucket {}", "expiry of bucket {}"),
]


@pytest.fixture(params=["moto", "local AWS"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One of the two things that stand in for AWS."""
    if request.param == "moto":
        with mock_aws():
            yield
    else:
        monkeypatch.setenv("AWS_ENDPOINT_URL", request.getfixturevalue("local_aws"))
        yield


@pytest.fixture
def name() -> str:
    """A name that nothing else has."""
    return unused_name("provision")


def _settings(name: str, **variables: str) -> Settings:
    return load(
        {
            "AWS_REGION": "us-east-1",
            "MAILRELAY_TABLE": name,
            "MAILRELAY_QUEUE_PREFIX": f"{name}-",
            "MAILRELAY_BUCKET": name,
            **variables,
        }
    )


def _findings(settings: Settings) -> dict[str, str]:
    """Each thing with the state in which it was found, and what is wrong with it."""
    return {
        finding.what: f"{finding.state}: {finding.detail}" if finding.detail else finding.state
        for finding in provision.provision(settings)
    }


def _all(name: str, state: str) -> dict[str, str]:
    return {what.format(name): state for what in ALL}


def _queue_url(settings: Settings, name: str) -> str:
    return aws.sqs(settings).get_queue_url(QueueName=name)["QueueUrl"]


@pytest.mark.usefixtures("backend")
def test_creates_and_then_leaves_alone(name: str) -> None:
    """The first run creates everything, every further one changes nothing."""
    assert _findings(_settings(name)) == _all(name, "created")
    assert _findings(_settings(name)) == _all(name, "unchanged")
    assert _findings(_settings(name)) == _all(name, "unchanged")


@pytest.mark.usefixtures("backend")
def test_without_bucket(name: str) -> None:
    """Without MAILRELAY_BUCKET there is none, and nothing is said about one."""
    findings = _findings(_settings(name, MAILRELAY_BUCKET=""))
    assert set(findings) == {what.format(name) for what in ALL[:-2]}
    assert name not in {bucket["Name"] for bucket in boto3.client("s3").list_buckets()["Buckets"]}


@pytest.mark.usefixtures("backend")
def test_table(name: str) -> None:
    """The table has pk and sk, on-demand capacity, its indexes with no more than needed, and its TTL."""
    settings = _settings(name)
    _findings(settings)
    dynamodb = aws.dynamodb(settings)
    table = dynamodb.describe_table(TableName=name)["Table"]
    assert table["TableStatus"] == "ACTIVE"
    assert _keys(table) == {"HASH": ("pk", "S"), "RANGE": ("sk", "S")}
    assert table["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
    indexes = {index["IndexName"]: index for index in table["GlobalSecondaryIndexes"]}
    assert {name: _keys({**table, **index}) for name, index in indexes.items()} == {
        "due": {"HASH": ("due_shard", "N"), "RANGE": ("due_at", "N")},
        "listed": {"HASH": ("listed_in", "S"), "RANGE": ("pk", "S")},
    }
    assert indexes["due"]["Projection"]["ProjectionType"] == "KEYS_ONLY"
    # A recipient's address is not among it, nor anything that ever changes.
    assert set(indexes["listed"]["Projection"]["NonKeyAttributes"]) == {
        *("sender", "subject", "total", "created_at")
    }
    ttl = dynamodb.describe_time_to_live(TableName=name)["TimeToLiveDescription"]
    assert ttl["TimeToLiveStatus"] in ("ENABLED", "ENABLING")
    assert ttl["AttributeName"] == "expires"


def _keys(table: Any) -> dict[str, tuple[str, str]]:
    types = {one["AttributeName"]: one["AttributeType"] for one in table["AttributeDefinitions"]}
    return {
        one["KeyType"]: (one["AttributeName"], types[one["AttributeName"]])
        for one in table["KeySchema"]
    }


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize(
    ("ttl", "visibility"), [("60", "60"), ("43200", "43200"), ("1209600", "43200")]
)
def test_queues(name: str, ttl: str, visibility: str) -> None:
    """A message lives MAILRELAY_MESSAGE_TTL, and SQS never delivers it twice in that time."""
    settings = _settings(name, MAILRELAY_MESSAGE_TTL=ttl)
    _findings(settings)
    for queue in ("deliver", "sweep"):
        attributes = aws.sqs(settings).get_queue_attributes(
            QueueUrl=_queue_url(settings, f"{name}-{queue}"), AttributeNames=["All"]
        )["Attributes"]
        assert attributes["MessageRetentionPeriod"] == ttl
        assert attributes["VisibilityTimeout"] == visibility
        assert attributes["SqsManagedSseEnabled"] == "true"
    assert _findings(settings) == _all(name, "unchanged")


@pytest.mark.usefixtures("backend")
def test_topics(name: str) -> None:
    """Each topic is there once, and one whose name only ends alike is not taken for it."""
    settings = _settings(name)
    sns = aws.sns(settings)
    sns.create_topic(Name=f"other-{name}-control")
    assert _findings(settings)[f"topic {name}-control"] == "created"
    topics = [
        topic["TopicArn"].rpartition(":")[2]
        for page in sns.get_paginator("list_topics").paginate()
        for topic in page["Topics"]
    ]
    assert sorted(topic for topic in topics if topic.startswith(name)) == [
        f"{name}-control",
        f"{name}-events",
    ]


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize(("days", "expiration"), [("30", 31), ("1.5", 3)])
def test_bucket(name: str, days: str, expiration: int) -> None:
    """Nobody else sees the bucket, and content leaves it a day after its batch at the latest."""
    settings = _settings(name, MAILRELAY_RETENTION_DAYS=days, MAILRELAY_RETRY_SCHEDULE="60")
    _findings(settings)
    s3 = aws.s3(settings)
    block = s3.get_public_access_block(Bucket=name)["PublicAccessBlockConfiguration"]
    assert len(block) == 4
    assert all(block.values())
    [rule] = s3.get_bucket_lifecycle_configuration(Bucket=name)["Rules"]
    assert (rule["Status"], rule["Expiration"]["Days"]) == ("Enabled", expiration)


@pytest.mark.usefixtures("backend")
def test_bucket_of_another_region(name: str) -> None:
    """Every region but us-east-1 has to be named."""
    settings = _settings(name, AWS_REGION="eu-central-1")
    assert _findings(settings)[f"bucket {name}"] == "created"
    assert _findings(settings)[f"bucket {name}"] == "unchanged"


@pytest.mark.usefixtures("backend")
def test_bucket_without_expiry(name: str) -> None:
    """Content must not stay for ever: a bucket without a rule gets one, another is named."""
    settings = _settings(name)
    s3 = aws.s3(settings)
    s3.create_bucket(Bucket=name)
    assert _findings(settings)[f"expiry of bucket {name}"] == "created"

    rule: Any = {
        "ID": "other",
        "Status": "Enabled",
        "Filter": {"Prefix": ""},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1},
    }
    s3.put_bucket_lifecycle_configuration(Bucket=name, LifecycleConfiguration={"Rules": [rule]})
    said = _findings(settings)[f"expiry of bucket {name}"]
    assert said == "differs: none of its lifecycle rules removes objects"


# What is there and is not as needed


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize(
    ("attribute", "value", "said"),
    [
        ("MessageRetentionPeriod", "345600", "MessageRetentionPeriod is 345600 and not 60"),
        ("VisibilityTimeout", "30", "VisibilityTimeout is 30 and not 60"),
        ("SqsManagedSseEnabled", "false", "SqsManagedSseEnabled is false and not true"),
    ],
)
def test_other_queue(name: str, attribute: str, value: str, said: str) -> None:
    """A queue that is not as needed is named with what is wrong, and left alone."""
    settings = _settings(name)
    _findings(settings)
    url = _queue_url(settings, f"{name}-sweep")
    aws.sqs(settings).set_queue_attributes(QueueUrl=url, Attributes={attribute: value})
    for _ in range(2):
        expected = _all(name, "unchanged") | {f"queue {name}-sweep": f"differs: {said}"}
        assert _findings(settings) == expected


@pytest.mark.usefixtures("backend")
def test_queue_with_a_key_of_its_own(name: str) -> None:
    """A queue that is encrypted with the owner's key is as needed."""
    settings = _settings(name)
    attributes = {
        "MessageRetentionPeriod": "60",
        "VisibilityTimeout": "60",
        "KmsMasterKeyId": "alias/aws/sqs",
    }
    aws.sqs(settings).create_queue(QueueName=f"{name}-deliver", Attributes=attributes)  # type: ignore[arg-type]
    assert _findings(settings)[f"queue {name}-deliver"] == "unchanged"


def _table(name: str, keys: dict[str, str], index: dict[str, str] | None = None) -> dict[str, Any]:
    """The definition of a table; keys by name, each with its type."""

    def schema(names: dict[str, str]) -> list[dict[str, str]]:
        kinds = ("HASH", "RANGE")
        return [
            {"AttributeName": name, "KeyType": kind}
            for name, kind in zip(names, kinds, strict=False)
        ]

    definition: dict[str, Any] = {
        "TableName": name,
        "BillingMode": "PAY_PER_REQUEST",
        "KeySchema": schema(keys),
        "AttributeDefinitions": [
            {"AttributeName": name, "AttributeType": kind}
            for name, kind in (keys | (index or {})).items()
        ],
    }
    if index:
        definition["GlobalSecondaryIndexes"] = [
            {
                "IndexName": "due",
                "KeySchema": schema(index),
                "Projection": {"ProjectionType": "KEYS_ONLY"},
            }
        ]
    return definition


PK_SK = {"pk": "S", "sk": "S"}
DUE = {"due_shard": "N", "due_at": "N"}


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize(
    ("keys", "index", "said"),
    [
        ({"pk": "S"}, DUE, "its key is not pk and sk"),
        ({"id": "S"}, None, "its key is not pk and sk"),
        (PK_SK, {"due_at": "N"}, "the key of its index due is not due_shard and due_at"),
        (PK_SK, {"due_shard": "S", "due_at": "N"}, "due_shard is of type S and not N"),
        ({"pk": "N", "sk": "S"}, DUE, "pk is of type N and not S"),
    ],
)
def test_other_table(
    name: str, keys: dict[str, str], index: dict[str, str] | None, said: str
) -> None:
    """A table or an index with other keys is named with what is wrong, and gets nothing else."""
    settings = _settings(name)
    dynamodb = aws.dynamodb(settings)
    dynamodb.create_table(**_table(name, keys, index))
    for _ in range(2):
        finding = _findings(settings)[f"table {name}"]
        assert finding.startswith("differs: ")
        assert said in finding
    table = dynamodb.describe_table(TableName=name)["Table"]
    assert len(table.get("GlobalSecondaryIndexes", [])) == (index is not None)


@pytest.mark.usefixtures("backend")
def test_other_ttl(name: str) -> None:
    """A table whose TTL is on another attribute would keep mail for ever."""
    settings = _settings(name)
    dynamodb = aws.dynamodb(settings)
    dynamodb.create_table(**_table(name, PK_SK, DUE))
    dynamodb.update_time_to_live(
        TableName=name, TimeToLiveSpecification={"Enabled": True, "AttributeName": "ttl"}
    )
    finding = _findings(settings)[f"TTL of table {name}"]
    assert finding == "differs: it is on ttl and not on expires"


@pytest.mark.usefixtures("backend")
def test_completes_what_is_half_there(name: str) -> None:
    """A run that was interrupted is completed by the next one."""
    settings = _settings(name)
    aws.dynamodb(settings).create_table(**_table(name, PK_SK, DUE))
    listed = {f"index listed of table {name}": "created"}
    assert _findings(settings) == _all(name, "created") | listed | {f"table {name}": "unchanged"}


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("index", [DUE, None], ids=["one", "both"])
def test_a_table_of_an_earlier_version_gets_the_indexes_that_it_lacks(
    name: str, index: dict[str, str] | None
) -> None:
    """Each is said to be built, which may take long, and then to be there."""
    settings = _settings(name)
    aws.dynamodb(settings).create_table(**_table(name, PK_SK, index))
    missing = ["listed"] if index else ["due", "listed"]
    said = [
        (finding.what, finding.state)
        for finding in provision.provision(settings)
        if finding.what.startswith("index")
    ]
    assert said == [
        (f"index {missed} of table {name}", state)
        for missed in missing
        for state in ("being built", "created")
    ]
    assert _findings(settings) == _all(name, "unchanged")
    store = assembly.store(settings)
    assert (store.recent("demo", None, 1), store.overdue(0, 0)) == ([], Overdue(0, None))
