"""What a sweep costs with 100 emails due, in a table that holds nothing else and in a large one.

The sweep runs in this process, on the local AWS; its requests and what they read are taken from
DynamoDB's own answers. It sends no messages, so that it waits for nobody.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from ulid import ULID

from benchmarks.account import Account
from benchmarks.bench import Bench
from benchmarks.result import Figure, Result
from benchmarks.stack import Mailrelay, prepared
from mailrelay import assembly, clock
from mailrelay.items import DUE_SHARDS
from mailrelay.message import Address, Attempt, Email, EmailId, Hint, Outcome, Status
from mailrelay.settings import load
from mailrelay.store import Store
from mailrelay.sweep import Sweeper

DUE = 100
HISTORY = 200_000

_BATCH = 1000


def measure(bench: Bench) -> Result:
    with prepared(Mailrelay) as stack:
        alone = _sweep(stack, _fill(stack.store, DUE, due=True))
        bench.say(f"{DUE} due of {DUE}: {_said(alone)}")
        emails = DUE
        while emails + DUE < HISTORY:
            emails += _fill(stack.store, min(_BATCH, HISTORY - DUE - emails), due=False)
            if emails % 40_000 < _BATCH:
                bench.say(f"{emails:,} emails stored")
        among = _sweep(stack, _fill(stack.store, DUE, due=True))
        bench.say(f"{DUE} due of {HISTORY:,}: {_said(among)}")
    what = f"sweep of {DUE} due among {DUE} and among {HISTORY:,} emails"
    rows = tuple(
        Figure(
            f"{what}, {name}",
            f"{few:g} and {many:g}",
            target="the same",
            verdict="yes" if few == many else "missed",
        )
        for name, few, many in (
            ("requests to DynamoDB", *(sum(each.requests.values()) for each in (alone, among))),
            ("items read", alone.items_read, among.items_read),
            ("capacity units", *(sum(each.units.values()) for each in (alone, among))),
        )
    )
    return Result("sweep", rows, {"alone": _raw(alone), "among": _raw(among)})


class _NoQueue:
    """Takes all messages, and has room for more."""

    def put(self, hints: Iterable[Hint]) -> None:
        list(hints)

    def depth(self) -> int:
        return 0


def _sweep(stack: Mailrelay, due: int) -> Account:
    """Sweep all shards once; what that took."""
    # What was swept once is not due again while the history is written.
    settings = load({"MAILRELAY_MESSAGE_TTL": "86400"})
    dynamodb = stack.client("dynamodb")
    account = Account(dynamodb)
    store = Store(dynamodb, stack.table, retention=1)
    policy = assembly.policy(settings)
    sweeper = Sweeper(store, _NoQueue(), policy, lambda _: None, queue_limit=DUE * DUE_SHARDS)
    swept = [sweeper.sweep(shard, 60) for shard in range(DUE_SHARDS)]
    if sum(one.enqueued for one in swept) != due:
        raise RuntimeError("not all that is due was swept: this run says nothing")
    return account


def _fill(store: Store, count: int, *, due: bool) -> int:
    """Store so many emails of one batch, which are due or sent; returns how many."""
    now = clock.now()
    batch_id = str(ULID.from_timestamp(now))
    email = Email(
        id=EmailId(batch_id, 0),
        key_name="benchmark",
        to=Address("pedro@example.org"),
        chain=("mailgun",),
        status=Status.QUEUED,
        attempt=1,
        provider_index=0,
        cycle=0,
        due_at=now - 1,
        created_at=now,
    )
    if not due:
        attempt = Attempt(1, "mailgun", Outcome.ACCEPTED, "200", "Queued. Thank you.", now, 100)
        email = replace(email, status=Status.SENT, due_at=None, attempts=(attempt,))
    store.add_emails(
        [replace(email, id=EmailId(batch_id, index)) for index in range(count)], created_at=now
    )
    return count


def _said(account: Account) -> str:
    return f"{sum(account.requests.values())} requests, {account.items_read} items read"


def _raw(account: Account) -> dict[str, Any]:
    return {
        "requests": account.requests,
        "items_read": account.items_read,
        "capacity_units": account.units,
    }
