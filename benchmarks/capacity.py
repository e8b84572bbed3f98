"""DynamoDB's capacity units for an email, step by step, by its own account on the local AWS.

1,000 emails of one batch go through the product's own code in this process: accepted, claimed, and
recorded as sent, many at a time, by a provider that is none. Index and table count together; the
local AWS leaves out the index where a statement of PartiQL writes, and says nothing of BatchGetItem.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from benchmarks.account import Account
from benchmarks.bench import Bench
from benchmarks.result import Figure, Result
from benchmarks.stack import CONCURRENCY, Mailrelay, prepared
from mailrelay import assembly
from mailrelay.breaker import Breaker
from mailrelay.courier import Courier
from mailrelay.message import Address, Content, Hint, Outcome
from mailrelay.providers import Answer, Envelope
from mailrelay.rates import Rates
from mailrelay.relay import Relay, Submission
from mailrelay.settings import load
from mailrelay.shared import Shared
from mailrelay.store import Store

EMAILS = 1000


def measure(bench: Bench) -> Result:
    with prepared(Mailrelay, **bench.how()) as stack:
        dynamodb = stack.client("dynamodb")
        account = Account(dynamodb)
        store = Store(dynamodb, stack.table, retention=86_400)
        settings, queue = load({}), _Kept()
        policy = assembly.policy(settings)
        relay = Relay(store, queue, policy, lambda _: None, retention=86_400)
        submission = Submission(
            sender=Address("facundo@example.com", "Facundo"),
            destinations=tuple(Address(f"pedro{i}@example.org", "Pedro") for i in range(EMAILS)),
            subject="benchmark",
            content=Content("benchmark " * 20, f"<p>{'benchmark ' * 20}</p>"),
            chain=("mailgun", "ses", "sendgrid"),
        )
        relay.accept(submission, "benchmark")
        accepted = dict(account.units)
        account.units.clear()
        shared = Shared(store.table)
        breaker = Breaker(
            shared, settings.providers, lambda _: None, first_pause=10_000, lease=30_000
        )
        courier = Courier(
            store,
            {"mailgun": _Taker()},
            breaker,
            Rates(shared, {}, sweep_interval=10),
            policy,
            lambda _: None,
        )
        with ThreadPoolExecutor(CONCURRENCY) as pool:
            list(pool.map(courier.deliver, queue.hints))
    steps = {"accept": accepted, "send": dict(account.units)}
    rows = [
        Figure(f"capacity units an email: {step}, {operation}", f"{units / EMAILS:.3f}")
        for step, used in steps.items()
        for operation, units in used.items()
    ]
    for row in rows:
        bench.say(f"{row.what}: {row.mailrelay}")
    return Result("capacity", tuple(rows), {"emails": EMAILS, "units": steps})


class _Kept:
    """Keeps all messages."""

    def __init__(self) -> None:
        self.hints: list[Hint] = []

    def put(self, hints: Iterable[Hint]) -> None:
        self.hints += hints

    def depth(self) -> int:
        return len(self.hints)


class _Taker:
    """A provider that takes everything."""

    def send(self, envelope: Envelope) -> Answer:
        message_id = "<20261101120000.0123456789abcdef@sandbox.example>"
        return Answer(Outcome.ACCEPTED, "200", "Queued. Thank you.", message_id)

    def check(self) -> Answer:
        return Answer(Outcome.ACCEPTED)
