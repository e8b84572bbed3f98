"""The requests to DynamoDB that the store is made of: a few shapes, each with its errors.

Changes of emails, of which a worker makes two an email, share requests with those of other
threads (`mailrelay.gathering`): a request costs the same whatever it carries.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError
from tenacity import Retrying, retry_if_result, stop_after_attempt, wait_random_exponential

from mailrelay.gathering import Gatherer
from mailrelay.items import Item

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

_MAX_BATCH_WRITE = 25
"""Items in one BatchWriteItem."""

_MAX_STATEMENTS = 25
"""Statements in one BatchExecuteStatement."""

_AT_ONCE = 8
"""BatchWriteItems of one call that are under way at the same time. More gain nothing where each takes 10 ms."""

_LINGER = 0.025
"""Seconds that a change waits for others, while there are others: little beside a provider's answer."""


class StoreUnavailable(Exception):
    """DynamoDB or S3 cannot be reached, or will not serve us; says which and why."""


@contextmanager
def available(
    service: str, unavailable: type[StoreUnavailable] = StoreUnavailable
) -> Iterator[None]:
    """Turn AWS's refusals into `StoreUnavailable`, but for those that our own code causes."""
    try:
        yield
    except (BotoCoreError, OSError, RuntimeError) as error:
        # RuntimeError is botocore's for credentials that cannot be refreshed.
        raise unavailable(f"{service}: {error}") from error
    except ClientError as error:
        code = error.response["Error"]["Code"]
        if code in ("ValidationException", "ConditionalCheckFailedException"):
            raise
        raise unavailable(f"{service}: {code}") from error


@dataclass(frozen=True, slots=True)
class Change:
    """A change of one item that is there, on the condition that it is as expected.

    `sets` holds a new random `version`: by that a copy of the change, sent because its answer was
    lost, knows that it has taken effect already.
    """

    key: Item
    sets: Item
    where: Item
    removes: tuple[str, ...] = ()
    reads: bool = False
    """Whether the caller wants the whole item as it is afterwards."""


class Table:
    """One DynamoDB table. Everything here raises `StoreUnavailable` where it does not serve us."""

    def __init__(self, dynamodb: DynamoDBClient, name: str) -> None:
        self._dynamodb = dynamodb
        self._name = name
        self.change: Gatherer[Change, Item | None] = Gatherer(
            self.change_alone,
            self._change_many,
            key=lambda change: _key(change.key),
            limit=_MAX_STATEMENTS,
            linger=_LINGER,
        )
        """Make a `Change`, alone or together with those of other threads.

        None where the item is not as expected; else the item as it is now if it `reads`, and
        some of it if not. Also where a copy of the change had taken effect before.
        """

    def get(self, key: Item, attributes: Iterable[str] | None = None) -> Item | None:
        with available("DynamoDB"):
            answer = self._dynamodb.get_item(
                TableName=self._name, Key=key, ConsistentRead=True, **_projection(attributes)
            )
        return answer.get("Item")

    def get_many(
        self, keys: Sequence[Item], attributes: Iterable[str] | None = None
    ) -> dict[tuple[str, str], Item]:
        """Those of at most 100 items that are there, by `pk` and `sk`; both are to be among the
        `attributes`, if any are named.

        They must not have more than 16 MB together, whatever of them is read.
        """
        if not keys:
            return {}
        wanted: Any = {"Keys": keys, "ConsistentRead": True, **_projection(attributes)}
        with available("DynamoDB"):
            answer = self._dynamodb.batch_get_item(RequestItems={self._name: wanted})
        if answer.get("UnprocessedKeys"):
            raise StoreUnavailable("DynamoDB: ProvisionedThroughputExceededException")
        return {_key(item): item for item in answer["Responses"].get(self._name, [])}

    def query(
        self,
        condition: str,
        values: Item,
        *,
        limit: int | None = None,
        index: str | None = None,
        newest_first: bool = False,
        after: Item | None = None,
    ) -> list[Item]:
        """What is under one partition key, as far as one answer takes it (1 MB); of an index, or of
        the table, but not necessarily with what was written a moment ago.

        `after` is the key, with the index's own, of an item that was found before.
        """
        optional: dict[str, Any] = {
            "IndexName": index,
            "Limit": limit,
            "ExclusiveStartKey": after,
        }
        with available("DynamoDB"):
            answer = self._dynamodb.query(
                TableName=self._name,
                KeyConditionExpression=condition,
                ExpressionAttributeValues=values,
                ScanIndexForward=not newest_first,
                **{name: value for name, value in optional.items() if value is not None},
            )
        return list(answer["Items"])

    def update(
        self, key: Item, update: str, condition: str, values: Item, names: dict[str, str]
    ) -> bool:
        """One conditional update; False where the item is not as expected."""
        try:
            with available("DynamoDB"):
                self._dynamodb.update_item(
                    TableName=self._name,
                    Key=key,
                    UpdateExpression=update,
                    ConditionExpression=condition,
                    ExpressionAttributeValues=values,
                    ExpressionAttributeNames=names,
                )
        except ClientError as error:
            unmet(error)
            return False
        return True

    def add(self, key: Item, numbers: Mapping[str, int], sets: Mapping[str, int]) -> None:
        """Add to some numbers of an item and set others; what is not there yet is 0.

        It is not safe to repeat, and botocore may.
        """
        every = {**numbers, **sets}
        names = {f"#{index}": name for index, name in enumerate(every)}
        values = {f":{index}": {"N": str(value)} for index, value in enumerate(every.values())}
        terms = [f"#{index} :{index}" for index in range(len(numbers))]
        settings = [f"#{index} = :{index}" for index in range(len(numbers), len(every))]
        with available("DynamoDB"):
            self._dynamodb.update_item(
                TableName=self._name,
                Key=key,
                UpdateExpression=f"ADD {', '.join(terms)} SET {', '.join(settings)}",
                ExpressionAttributeNames=names,
                ExpressionAttributeValues=values,
            )

    def exchange(
        self, key: Item, update: str, condition: str, values: Item
    ) -> tuple[bool, Item | None]:
        """One conditional update: whether it was made, and the item as it is now."""
        try:
            with available("DynamoDB"):
                answer = self._dynamodb.update_item(
                    TableName=self._name,
                    Key=key,
                    UpdateExpression=update,
                    ConditionExpression=condition,
                    ExpressionAttributeValues=values,
                    ReturnValues="ALL_NEW",
                    ReturnValuesOnConditionCheckFailure="ALL_OLD",
                )
        except ClientError as error:
            return False, unmet(error)
        return True, dict(answer["Attributes"])

    def put(self, item: Item, before: str) -> bool:
        """Put a whole item in place of the one of version `before`, or of none if that is empty.

        False if there is another one. `item` has a new random `version`, as with `Change`.
        """
        condition: dict[str, Any] = (
            {
                "ConditionExpression": "version = :before",
                "ExpressionAttributeValues": {":before": {"S": before}},
            }
            if before
            else {"ConditionExpression": "attribute_not_exists(pk)"}
        )
        try:
            with available("DynamoDB"):
                self._dynamodb.put_item(
                    TableName=self._name,
                    Item=item,
                    ReturnValuesOnConditionCheckFailure="ALL_OLD",
                    **condition,
                )
        except ClientError as error:
            there = unmet(error)
            return there is not None and there.get("version") == item["version"]
        return True

    def delete(
        self, key: Item, condition: str, values: Item, names: dict[str, str] | None = None
    ) -> None:
        """One conditional delete; nothing happens where the item is another by now, or gone."""
        aliases: dict[str, Any] = {"ExpressionAttributeNames": names} if names else {}
        try:
            with available("DynamoDB"):
                self._dynamodb.delete_item(
                    TableName=self._name,
                    Key=key,
                    ConditionExpression=condition,
                    ExpressionAttributeValues=values,
                    **aliases,
                )
        except ClientError as error:
            unmet(error)

    def batch_write(self, requests: Sequence[Any]) -> None:
        """Any number of puts and deletes, some of which may be done where it raises."""
        chunks = [
            list(requests[start : start + _MAX_BATCH_WRITE])
            for start in range(0, len(requests), _MAX_BATCH_WRITE)
        ]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for written in [pool.submit(self._batch_write_chunk, chunk) for chunk in chunks]:
                written.result()

    def _batch_write_chunk(self, requests: list[Any]) -> None:
        """One BatchWriteItem, again for what DynamoDB left over."""
        remaining = {self._name: requests}

        def write() -> bool:
            nonlocal remaining
            answer = self._dynamodb.batch_write_item(RequestItems=remaining)
            remaining = answer.get("UnprocessedItems") or {}
            return bool(remaining)

        attempts = Retrying(
            retry=retry_if_result(bool),
            wait=wait_random_exponential(multiplier=0.05, max=2),
            stop=stop_after_attempt(8),
            retry_error_callback=lambda _: True,
        )
        with available("DynamoDB"):
            if attempts(write):
                raise StoreUnavailable("DynamoDB: ProvisionedThroughputExceededException")

    # Changes, alone and together

    def change_alone(self, change: Change) -> Item | None:
        """The same as `change` for who must not wait for others."""
        names = {f"#{name}": name for name in (*change.sets, *change.where, *change.removes)}
        values = {f":{name}": value for name, value in change.sets.items()}
        values |= {f":is_{name}": value for name, value in change.where.items()}
        update = "SET " + ", ".join(f"#{name} = :{name}" for name in change.sets)
        if change.removes:
            update += " REMOVE " + ", ".join(f"#{name}" for name in change.removes)
        try:
            with available("DynamoDB"):
                answer = self._dynamodb.update_item(
                    TableName=self._name,
                    Key=change.key,
                    UpdateExpression=update,
                    ConditionExpression=" AND ".join(
                        f"#{name} = :is_{name}" for name in change.where
                    ),
                    ExpressionAttributeNames=names,
                    ExpressionAttributeValues=values,
                    ReturnValues="ALL_NEW" if change.reads else "NONE",
                    ReturnValuesOnConditionCheckFailure="ALL_OLD",
                )
        except ClientError as error:
            return _if_ours(unmet(error), change)
        return answer["Attributes"] if change.reads else change.sets

    def _change_many(self, changes: Sequence[Change]) -> list[Item | Exception | None]:
        results: list[Item | Exception | None] = [None] * len(changes)
        wanted: dict[int, Item] = {}
        found = self.get_many([change.key for change in changes if change.reads])
        for index, change in enumerate(changes):
            if not change.reads:
                wanted[index] = change.sets
            elif (item := found.get(_key(change.key))) is None:
                results[index] = None
            elif all(item.get(name) == value for name, value in change.where.items()):
                kept = {name: item[name] for name in item.keys() - set(change.removes)}
                wanted[index] = kept | change.sets
            else:
                results[index] = _if_ours(item, change)
        if wanted:
            with available("DynamoDB"):
                answer = self._dynamodb.batch_execute_statement(
                    Statements=[self._statement(changes[index]) for index in wanted]
                )
            for (index, item), response in zip(wanted.items(), answer["Responses"], strict=True):
                error: Any = response.get("Error")
                if error is None:
                    results[index] = item
                elif error["Code"] == "ConditionalCheckFailed":
                    results[index] = _if_ours(error.get("Item"), changes[index])
                else:
                    results[index] = StoreUnavailable(f"DynamoDB: {error['Code']}")
        return results

    def _statement(self, change: Change) -> Any:
        sets = "".join(f' SET "{name}"=?' for name in change.sets)
        removes = "".join(f' REMOVE "{name}"' for name in change.removes)
        where = {**change.key, **change.where}
        conditions = " AND ".join(f'"{name}"=?' for name in where)
        return {
            "Statement": f'UPDATE "{self._name}"{sets}{removes} WHERE {conditions}',
            "Parameters": [*change.sets.values(), *where.values()],
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }


def _projection(attributes: Iterable[str] | None) -> dict[str, Any]:
    names = {f"#{name}": name for name in attributes or ()}
    if not names:
        return {}
    return {"ProjectionExpression": ", ".join(names), "ExpressionAttributeNames": names}


def unmet(error: ClientError) -> Item | None:
    """The item that did not meet a write's condition; re-raises any other error."""
    if error.response["Error"]["Code"] != "ConditionalCheckFailedException":
        raise error
    response: dict[str, Any] = dict(error.response)
    return response.get("Item")


def _if_ours(item: Mapping[str, Any] | None, change: Change) -> Item | None:
    """The item, where it does not meet the condition because the change was made already."""
    made = item is not None and item.get("version") == change.sets["version"]
    return dict(item) if item is not None and made else None


def _key(item: Item) -> tuple[str, str]:
    return item["pk"]["S"], item["sk"]["S"]
