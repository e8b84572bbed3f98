"""One task: send a mail by the first of the providers, and enqueue itself for the others."""

from __future__ import annotations

import os
import time
from typing import Any

import boto3
from botocore.config import Config
from celery import Celery

from benchmarks.stock.vendors import VENDORS

# https://docs.celeryq.dev/en/stable/getting-started/backends-and-brokers/sqs.html: credentials from
# the environment, a region, a prefix; all else, such as the polling interval of 1 s, as it comes.
app = Celery("stock", broker="sqs://")
app.conf.broker_transport_options = {
    "region": os.environ["AWS_REGION"],
    "queue_name_prefix": os.environ["STOCK_QUEUE_PREFIX"],
}
# https://docs.celeryq.dev/en/stable/userguide/concurrency/index.html: threads wait for the network
# in one process, and mailrelay has as many.
app.conf.worker_pool = "threads"
app.conf.worker_concurrency = int(os.environ["STOCK_CONCURRENCY"])

# Clients are safe between threads, resources are not:
# https://boto3.amazonaws.com/v1/documentation/api/latest/guide/clients.html#multithreading-or-multiprocessing-with-clients
_dynamodb = boto3.client(
    "dynamodb",
    region_name=os.environ["AWS_REGION"],
    config=Config(max_pool_connections=app.conf.worker_concurrency),
)


@app.task
def send_email(email_id: str, mail: dict[str, Any], providers: list[str]) -> None:
    provider, *others = providers
    try:
        message_id, error = VENDORS[provider](mail), None
    except Exception as failure:  # noqa: BLE001 - each vendor raises its own
        message_id, error = None, str(failure)
    # https://boto3.amazonaws.com/v1/documentation/api/latest/reference/services/dynamodb/client/put_item.html
    _dynamodb.put_item(
        TableName=os.environ["STOCK_TABLE"],
        Item={
            "email_id": {"S": email_id},
            "provider": {"S": provider},
            "to": {"S": mail["to"]},
            "status": {"S": "failed" if error else "sent"},
            "message_id": {"S": message_id or ""},
            "error": {"S": error or ""},
            "attempted_at": {"N": str(time.time())},
        },
    )
    if error and others:
        send_email.delay(email_id, mail, others)
