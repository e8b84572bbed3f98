"""The truth: DynamoDB, and S3 for content that is too large for it.

Each change of state is one conditional write. A write may be made twice (its answer was lost and
botocore sends it again): every write carries a new random `version`, so that a failed condition
which returns our own version is a success.

Everything here raises `StoreUnavailable` where AWS cannot be reached or will not serve us.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError
from tenacity import (
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)

from mailrelay import items
from mailrelay.items import Item
from mailrelay.message import Batch, BatchSummary, Content, Email, EmailId, Hint, Status
from mailrelay.table import Change, Table, available, unmet
from mailrelay.table import StoreUnavailable as StoreUnavailable  # noqa: PLC0414 - ours to raise

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_s3 import S3Client

DUE_INDEX = "due"
"""The index of the open work: `due_shard` and `due_at`, keys only."""

LISTED_INDEX = "listed"
"""The index of what each key has sent: `listed_in` and `pk`, with what lists show."""

MAX_INLINE_CONTENT = 350_000
"""Bytes of packed content that fit an item beside its other attributes (items: 400 KB)."""

MAX_TRANSACTION = 100
"""Items in one TransactWriteItems; a batch's first one holds two others beside emails."""

MAX_FIRST_EMAILS = MAX_TRANSACTION - 2

_DUE_PAGE = 100
"""Keys in one BatchGetItem, and so in one page of due items."""


class IndexMissing(StoreUnavailable):
    """The table lacks an index, or is still building it: it was made by an earlier version.

    Unlike the rest, this does not pass by itself: `mailrelay init` adds the index and waits for it.
    """

    def __init__(self, index: str) -> None:
        super().__init__(f"DynamoDB: no index {index} yet: run mailrelay init")


class BucketUnavailable(StoreUnavailable):
    """It is S3 that cannot be reached."""


class _TransactionConflict(StoreUnavailable):
    """Another transaction has one of our items: in a moment it is either used or free."""


class ContentTooLarge(Exception):
    """The content needs a bucket, and none is configured."""


@dataclass(frozen=True, slots=True)
class Idempotency:
    """That an Idempotency-Key was used, and for what."""

    key_name: str
    key_hash: str
    """SHA-256 of the Idempotency-Key, in hex."""
    fingerprint: str
    """SHA-256 of the request's body, in hex."""
    batch_id: str
    expires: int
    """Seconds since the epoch."""

    @property
    def key(self) -> Item:
        return items.to_item({"pk": f"I#{self.key_name}#{self.key_hash}", "sk": "#"})


@dataclass(frozen=True, slots=True)
class Overdue:
    """What is due in a shard: emails, and batches that never got complete."""

    count: int
    since: int | None
    """When the most overdue of it became due; None if nothing is due."""


class IdempotencyTaken(Exception):
    """The Idempotency-Key was used before; `record` says for what."""

    def __init__(self, record: Idempotency) -> None:
        super().__init__()
        self.record = record


class Store:
    """One method for each thing that the relay reads or changes.

    `retention` is in seconds: after it, DynamoDB's TTL removes a batch and its emails.
    """

    def __init__(
        self,
        dynamodb: DynamoDBClient,
        table: str,
        *,
        retention: float,
        s3: S3Client | None = None,
        bucket: str | None = None,
    ) -> None:
        self._dynamodb = dynamodb
        self._name = table
        self.table = Table(dynamodb, table)
        """Also for what else the processes keep there (`mailrelay.shared`): one client a process."""
        self._retention = math.ceil(retention)
        self._s3 = s3
        self._bucket = bucket

    # Accepting

    def create(
        self,
        batch: Batch,
        content: Content,
        emails: Sequence[Email],
        *,
        withdraw_at: int | None,
        idempotency: Idempotency | None = None,
    ) -> None:
        """Store a batch and its first emails (at most 98), all or nothing.

        A batch that is not `ready` is due at `withdraw_at`. Raises `IdempotencyTaken`, and
        `ContentTooLarge`.
        """
        packed = items.pack(content)
        inline = len(packed) <= MAX_INLINE_CONTENT
        if not inline:
            self._put_object(batch.id, packed)
        expires = self._expires(batch.created_at)
        item = items.batch_item(
            batch, packed if inline else None, due_at=withdraw_at, expires=expires
        )
        puts = [self._put(item)]
        if idempotency is not None:
            item["idempotency_pk"] = idempotency.key["pk"]
            puts.append(self._put_idempotency(idempotency, batch.created_at))
        puts += [self._put(items.email_item(email, expires=expires)) for email in emails]
        conflicts = Retrying(
            retry=retry_if_exception_type(_TransactionConflict),
            wait=wait_random_exponential(multiplier=0.05, max=0.5),
            stop=stop_after_attempt(5),
            reraise=True,
        )
        conflicts(self._transact, puts, batch.id)

    def _transact(self, puts: list[Any], batch_id: str) -> None:
        try:
            with available("DynamoDB"):
                self._dynamodb.transact_write_items(TransactItems=puts)
        except StoreUnavailable as unavailable:
            error = unavailable.__cause__
            if not isinstance(error, ClientError):
                raise
            reasons: list[Any] = list(error.response.get("CancellationReasons", []))
            if any(reason.get("Code") == "TransactionConflict" for reason in reasons):
                raise _TransactionConflict(str(unavailable)) from error
            for existing in (reason["Item"] for reason in reasons if reason.get("Item")):
                if existing["pk"]["S"] == items.batch_key(batch_id)["pk"]["S"]:
                    if "withdrawn" in existing:
                        raise
                    return  # Our own write, whose answer was lost.
                raise IdempotencyTaken(_read_idempotency(existing)) from None
            raise

    def forestall(self, batch_id: str, now: int) -> bool:
        """After a `create` of unknown end: have it fail should it still be under way.

        False if it has taken effect.
        """
        tombstone = items.batch_key(batch_id) | items.to_item(
            {"ready": False, "withdrawn": True, "expires": self._expires(now)}
        )
        try:
            with available("DynamoDB"):
                self._dynamodb.put_item(
                    TableName=self._name,
                    Item=tombstone,
                    ConditionExpression="attribute_not_exists(pk)",
                    ReturnValuesOnConditionCheckFailure="ALL_OLD",
                )
        except ClientError as error:
            existing = unmet(error) or {}
            # A copy of our own, whose answer was lost, is no batch.
            return "total" not in existing
        return True

    def add_emails(self, emails: Sequence[Email], created_at: int) -> None:
        """Store more emails of a batch that is not ready. What fails half-way is withdrawn."""
        expires = self._expires(created_at)
        puts = [
            {"PutRequest": {"Item": items.email_item(email, expires=expires)}} for email in emails
        ]
        self.table.batch_write(puts)

    def finish(self, batch: Batch) -> bool:
        """The batch is complete: from now on it is sent. False if it was withdrawn meanwhile."""
        values = items.to_item({":yes": True, ":no": False, ":list": items.batch_list(batch)})
        return self.table.update(
            items.batch_key(batch.id),
            "SET #ready = :yes, listed_in = :list REMOVE due_shard, due_at",
            # Repeating it is harmless; a withdrawn batch is gone or marked.
            "attribute_exists(pk) AND attribute_not_exists(withdrawn) AND #ready IN (:yes, :no)",
            values,
            {"#ready": "ready"},
        )

    def withdraw(self, batch_id: str) -> bool:
        """Remove a batch that never got ready, and all of it; False if it is ready.

        First it is marked, so that it cannot get ready any more; it goes last, so that whoever
        is interrupted here can begin again.
        """
        key = items.batch_key(batch_id)
        flags = items.to_item({":yes": True, ":no": False})
        unready = "#ready = :no"
        names = {"#ready": "ready"}
        if not self.table.update(key, "SET withdrawn = :yes", unready, flags, names):
            batch = self.batch(batch_id)
            if batch is not None and batch.ready:
                return False
        keys = [items.email_key(email.id) for email in self.emails(batch_id)]
        self.table.batch_write([{"DeleteRequest": {"Key": key}} for key in keys])
        if (item := self.table.get(key, ["idempotency_pk"])) and "idempotency_pk" in item:
            self.table.delete(
                {"pk": item["idempotency_pk"], "sk": {"S": "#"}},
                "batch_id = :batch",
                items.to_item({":batch": batch_id}),
            )
        self.table.delete(key, unready, {":no": flags[":no"]}, names)
        return True

    # Reading

    def batch(self, batch_id: str) -> Batch | None:
        """A batch without its content."""
        item = self.table.get(items.batch_key(batch_id), items.BATCH_PROJECTION)
        return None if item is None else items.read_batch(item)

    def batch_with_content(self, batch_id: str) -> tuple[Batch, Content | None] | None:
        """A batch with its content, from S3 if it lies there; no content if it is gone there."""
        item = self.table.get(items.batch_key(batch_id))
        if item is None:
            return None
        packed = item["content"]["B"] if "content" in item else self._get_object(batch_id)
        return items.read_batch(item), None if packed is None else items.unpack(packed)

    def batches(self, batch_ids: Collection[str]) -> dict[str, Batch]:
        """Those of at most 25 batches that are there, without their contents."""
        # Their contents count: 25 items of 400 KB are 10 MB.
        keys = [items.batch_key(batch_id) for batch_id in batch_ids]
        found = self.table.get_many(keys, (*items.BATCH_PROJECTION, "sk")).values()
        # One of which only the mark of `forestall` is there is none.
        batches = (items.read_batch(item) for item in found if "total" in item)
        return {batch.id: batch for batch in batches}

    def recent(self, key_name: str, before: str | None, limit: int) -> list[BatchSummary]:
        """The last `limit` batches of a key that got complete, newest first; with `before`, of
        those that are older than that one.

        A batch is found a moment after it was accepted.
        """
        condition = "listed_in = :list"
        values: Item = {}
        if before is not None:
            condition, values = f"{condition} AND pk < :pk", {":pk": items.batch_key(before)["pk"]}
        found = [
            items.read_summary(entry)
            for each in items.batch_lists(key_name)
            for entry in self._listed(condition, {":list": {"S": each}, **values}, limit)
        ]
        return sorted(found, key=lambda batch: batch.id, reverse=True)[:limit]

    def emails_to(
        self, key_name: str, address: str, before: EmailId | None, limit: int
    ) -> list[EmailId]:
        """The last `limit` emails of a key to an address, newest first; with `before`, of those
        that come after that one. Also such as are not accepted yet, or never will be.
        """
        wanted = items.to_item({"listed_in": items.recipient_list(key_name, address)})
        found = self._listed(
            "listed_in = :list",
            {":list": wanted["listed_in"]},
            limit,
            after=None if before is None else items.email_key(before) | wanted,
        )
        ids = map(items.id_of_key, found)
        return [email_id for email_id in ids if isinstance(email_id, EmailId)]

    def _listed(
        self, condition: str, values: Item, limit: int, after: Item | None = None
    ) -> list[Item]:
        try:
            return self.table.query(
                condition, values, index=LISTED_INDEX, limit=limit, newest_first=True, after=after
            )
        except ClientError as error:
            # DynamoDB names it in both cases: it is missing, or being built.
            if LISTED_INDEX not in error.response["Error"]["Message"]:
                raise
            raise IndexMissing(LISTED_INDEX) from error

    def email(self, email_id: EmailId) -> Email | None:
        item = self.table.get(items.email_key(email_id))
        return None if item is None else items.read_email(item)

    def some_emails(self, email_ids: Sequence[EmailId]) -> list[Email]:
        """Those of at most 100 emails that are there, in their order."""
        keys = [items.email_key(email_id) for email_id in email_ids]
        found = map(items.read_email, self.table.get_many(keys).values())
        emails = {email.id: email for email in found}
        return [emails[email_id] for email_id in email_ids if email_id in emails]

    def expiry(self, email_id: EmailId) -> int | None:
        """When TTL may remove an email: seconds since the epoch, as TTL has it."""
        item = self.table.get(items.email_key(email_id), ["expires"])
        return None if item is None else int(item["expires"]["N"])

    def emails(self, batch_id: str) -> list[Email]:
        """All emails of a batch, in their order."""
        found: list[Email] = []
        pages = self._dynamodb.get_paginator("query").paginate(
            TableName=self._name,
            ConsistentRead=True,
            KeyConditionExpression="pk = :pk AND begins_with(sk, :emails)",
            ExpressionAttributeValues=items.to_item(
                {":pk": items.batch_key(batch_id)["pk"]["S"], ":emails": "E#"}
            ),
        )
        with available("DynamoDB"):
            for page in pages:
                found += [items.read_email(item) for item in page["Items"]]
        return found

    def idempotency(self, key_name: str, key_hash: str, now: int) -> Idempotency | None:
        """The record of an Idempotency-Key that is still kept."""
        wanted = Idempotency(key_name, key_hash, "", "", 0)
        item = self.table.get(wanted.key)
        record = None if item is None else _read_idempotency(item)
        # TTL removes items late: what has expired is no longer there.
        return record if record and record.expires > now // 1000 else None

    def ping(self) -> None:
        """Raise `StoreUnavailable` unless the table answers, and has our key."""
        try:
            self.table.get(items.batch_key("ping"))
        except ClientError as error:
            raise StoreUnavailable(f"DynamoDB: {error}") from error

    # Sending

    def claim(self, hint: Hint, now: int, due_at: int) -> Email | None:
        """Take a queued email for the attempt that `hint` names, and hold it until `due_at`.

        None where the hint is void: the email is gone, held, further on, or over.
        """
        # The same for both tries, so that the second knows the first one's success.
        version = _new_version()
        try:
            return self._claim(hint, now, due_at, version)
        except StoreUnavailable:
            return self._claim(hint, now, due_at, version)

    def _claim(self, hint: Hint, now: int, due_at: int, version: str) -> Email | None:
        claim = Change(
            key=items.email_key(hint.email_id),
            sets=items.to_item(
                {
                    "status": Status.SENDING,
                    "due_at": due_at,
                    "last_attempt_at": now,
                    "version": version,
                }
            ),
            where=_as_hinted(hint),
            reads=True,
        )
        item = self.table.change(claim)
        return None if item is None else items.read_email(item)

    def put_off(self, hint: Hint, due_at: int) -> None:
        """Have the sweep ask for the attempt that `hint` names at `due_at`, if it is not void."""
        self.table.change(
            Change(
                key=items.email_key(hint.email_id),
                sets=items.to_item({"due_at": due_at, "version": _new_version()}),
                where=_as_hinted(hint),
            )
        )

    def advance(self, before: Email, after: Email, *, alone: bool = False) -> Email | None:
        """Record what the rules made of an email; None if it has changed since `before`.

        It may wait a little for what other threads record, unless it is to go `alone`.
        """
        after = replace(after, version=_new_version())
        removes: tuple[str, ...] = () if after.due_at is not None else ("due_shard", "due_at")
        if before.resolved_at is not None and after.resolved_at is None:
            removes += ("resolved_at",)
        change = Change(
            key=items.email_key(after.id),
            sets=items.progress(after) | items.to_item({"version": after.version}),
            where=items.to_item({"version": before.version}),
            removes=removes,
        )
        change_it = self.table.change_alone if alone else self.table.change
        return None if change_it(change) is None else after

    def discard(self, email: Email) -> None:
        """Remove an email whose batch was withdrawn while it was being written."""
        self.table.delete(
            items.email_key(email.id),
            "version = :version",
            items.to_item({":version": email.version}),
        )

    # Recovering

    def due(self, shard: int, now: int) -> Iterator[list[Email | str]]:
        """What is due in a shard, the most overdue first, in pages of at most 100.

        An email as it is now, or the id of a batch that never got ready.
        """
        pages = self._dynamodb.get_paginator("query").paginate(
            **self._due_query(shard, now), PaginationConfig={"PageSize": _DUE_PAGE}
        )
        with available("DynamoDB"):
            for page in pages:
                if page["Items"]:
                    yield self._still_due(page["Items"], now)

    def overdue(self, shard: int, now: int) -> Overdue:
        """How much is due in a shard, and since when.

        An idle shard takes one query, half a read unit, and one with something due a second. The
        count ends where a page of the index does, which is 1 MB or some 15,000 entries.
        """
        query = self._due_query(shard, now)
        with available("DynamoDB"):
            first = self._dynamodb.query(**query, Limit=1)["Items"]
            if not first:
                return Overdue(0, None)
            count = self._dynamodb.query(**query, Select="COUNT")["Count"]
        return Overdue(max(1, count), int(first[0]["due_at"]["N"]))

    def _due_query(self, shard: int, now: int) -> dict[str, Any]:
        return {
            "TableName": self._name,
            "IndexName": DUE_INDEX,
            "KeyConditionExpression": "due_shard = :shard AND due_at <= :now",
            "ExpressionAttributeValues": items.to_item({":shard": shard, ":now": now}),
        }

    def _still_due(self, entries: Sequence[Any], now: int) -> list[Email | str]:
        """The index is a little behind: look at the emails themselves."""
        ids = [items.id_of_key(entry) for entry in entries]
        keys = [items.email_key(id_) for id_ in ids if isinstance(id_, EmailId)]
        found: list[Item] = []
        if keys:
            answer = self._dynamodb.batch_get_item(
                RequestItems={self._name: {"Keys": keys, "ConsistentRead": True}}
            )
            # What it left out for its size stays due, and is found by the next sweep.
            found = list(answer["Responses"].get(self._name, []))
        emails = map(items.read_email, found)
        due = [email for email in emails if email.due_at is not None and email.due_at <= now]
        return [*(id_ for id_ in ids if isinstance(id_, str)), *due]

    # The few shapes of request that the above is made of

    def _put(self, item: Item) -> dict[str, Any]:
        return {
            "Put": {
                "TableName": self._name,
                "Item": item,
                "ConditionExpression": "attribute_not_exists(pk)",
                "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
            }
        }

    def _put_idempotency(self, record: Idempotency, now: int) -> dict[str, Any]:
        put = self._put(
            record.key
            | items.to_item(
                {
                    "batch_id": record.batch_id,
                    "fingerprint": record.fingerprint,
                    "expires": record.expires,
                }
            )
        )
        put["Put"]["ConditionExpression"] = "attribute_not_exists(pk) OR expires <= :now"
        put["Put"]["ExpressionAttributeValues"] = items.to_item({":now": now // 1000})
        return put

    def _put_object(self, batch_id: str, packed: bytes) -> None:
        if self._s3 is None or self._bucket is None:
            raise ContentTooLarge
        with available("S3", BucketUnavailable):
            self._s3.put_object(Bucket=self._bucket, Key=batch_id, Body=packed)

    def _get_object(self, batch_id: str) -> bytes | None:
        if self._s3 is None or self._bucket is None:
            raise BucketUnavailable("S3: MAILRELAY_BUCKET is not set, and a content lies there")
        try:
            with available("S3", BucketUnavailable):
                return self._s3.get_object(Bucket=self._bucket, Key=batch_id)["Body"].read()
        except StoreUnavailable as unavailable:
            error = unavailable.__cause__
            if isinstance(error, ClientError) and error.response["Error"]["Code"] == "NoSuchKey":
                return None
            raise

    def _expires(self, created_at: int) -> int:
        """When TTL removes what was created then: seconds since the epoch, as TTL has it."""
        return created_at // 1000 + self._retention


def _as_hinted(hint: Hint) -> Item:
    """What of an email tells that its next attempt is the one that `hint` asks for."""
    return items.to_item(
        {
            "status": Status.QUEUED,
            "attempt": hint.attempt,
            "provider_index": hint.provider_index,
        }
    )


def _new_version() -> str:
    return secrets.token_hex(8)


def _read_idempotency(item: Item) -> Idempotency:
    values = items.from_item(item)
    _, key_name, key_hash = values["pk"].split("#")
    return Idempotency(
        key_name=key_name,
        key_hash=key_hash,
        fingerprint=values["fingerprint"],
        batch_id=values["batch_id"],
        expires=values["expires"],
    )
