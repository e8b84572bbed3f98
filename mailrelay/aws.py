"""The clients of AWS, one of each for a process.

Nothing here knows whether it talks to AWS or to a local stand-in: `AWS_ENDPOINT_URL` is boto3's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config

from mailrelay import __version__
from mailrelay.clock import follow
from mailrelay.metering import meter
from mailrelay.settings import Settings, SettingsError

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sns import SNSClient
    from mypy_boto3_sqs import SQSClient


FRUGAL: dict[str, Any] = {
    # Up to a third of the CPU of a request that has many items. AWS says as much of a wrong request,
    # and the tests ask a real server.
    "parameter_validation": False,
    # botocore makes its own anew for each request.
    "user_agent": f"mailrelay/{__version__}",
}
"""What of a client's configuration saves CPU with each request."""


def region(settings: Settings) -> str:
    """The region of all clients, as boto3 finds it unless it is given; or `SettingsError`."""
    found = settings.aws_region or boto3.Session().region_name
    if found is None:
        raise SettingsError("AWS_REGION", "is needed, such as eu-west-1")
    return found


def _config(settings: Settings, read_timeout: float = 3) -> Config:
    """Short waits and few retries: a caller of the API is waiting, or a lease is running.

    DynamoDB and SQS answer in milliseconds; an answer that takes seconds will not come. Every
    write is safe to repeat (see `store`), so botocore may.
    """
    return Config(
        connect_timeout=1,
        read_timeout=read_timeout,
        retries={"mode": "standard", "total_max_attempts": 3},
        max_pool_connections=max(16, settings.concurrency),
        **FRUGAL,
    )


_GLANCE = Config(connect_timeout=1, read_timeout=1, retries={"total_max_attempts": 1})
"""For a number that somebody wants now or not at all; over `_config`."""


def dynamodb(settings: Settings, *, glance: bool = False) -> DynamoDBClient:
    """DynamoDB's client; safe to share between threads, as all of boto3's clients are.

    One for a `glance` gives up at once.
    """
    config = _config(settings)
    if glance:
        config = config.merge(_GLANCE)
    return follow(meter(boto3.client("dynamodb", region_name=region(settings), config=config)))


def s3(settings: Settings) -> S3Client:
    """S3's client."""
    return meter(boto3.client("s3", region_name=region(settings), config=_config(settings)))


def sns(settings: Settings) -> SNSClient:
    """SNS's client."""
    return meter(boto3.client("sns", region_name=region(settings), config=_config(settings)))


def sqs(settings: Settings, *, read_timeout: float = 3, glance: bool = False) -> SQSClient:
    """SQS's client, for what Celery does not do: creating queues and asking how deep one is.

    `read_timeout` is in seconds, more than a long poll takes. One for a `glance` gives up at once.
    """
    config = _config(settings, read_timeout)
    if glance:
        config = config.merge(_GLANCE)
    return meter(boto3.client("sqs", region_name=region(settings), config=config))
