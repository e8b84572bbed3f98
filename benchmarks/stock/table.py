"""``python -m benchmarks.stock.table``: create the table."""

from __future__ import annotations

import os

import boto3


def main() -> None:
    # https://boto3.amazonaws.com/v1/documentation/api/latest/reference/services/dynamodb/client/create_table.html
    dynamodb = boto3.client("dynamodb", region_name=os.environ["AWS_REGION"])
    table = os.environ["STOCK_TABLE"]
    dynamodb.create_table(
        TableName=table,
        # One item for an attempt.
        KeySchema=[
            {"AttributeName": "email_id", "KeyType": "HASH"},
            {"AttributeName": "provider", "KeyType": "RANGE"},
        ],
        AttributeDefinitions=[
            {"AttributeName": "email_id", "AttributeType": "S"},
            {"AttributeName": "provider", "AttributeType": "S"},
        ],
        BillingMode="PAY_PER_REQUEST",
    )
    dynamodb.get_waiter("table_exists").wait(TableName=table)


if __name__ == "__main__":
    main()
