"""What a measurement on AWS itself costs, before it is begun."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks import accept, capacity, idle, sending, throughput

PRICES = "us-east-1, November 2026"

_SQS = 0.40 / 1e6
"""Dollars a request to a standard queue (https://aws.amazon.com/sqs/pricing/)."""

_SNS = 0.50 / 1e6
"""Dollars a request (https://aws.amazon.com/sns/pricing/)."""

_WRITE = 0.625 / 1e6
"""Dollars a write request unit, on demand (https://aws.amazon.com/dynamodb/pricing/on-demand/)."""

_READ = 0.125 / 1e6
"""Dollars a read request unit."""

_PAIR = (
    # mailrelay: SQS in tens, transactions for the first 98, units as in docs/scaling.md, rounded up
    (1 * _SQS + 0.1 * _SNS + 10 * _WRITE + 2 * _READ)
    # stock: sent, received in tens, deleted; one item
    + (3 * _SQS + 1 * _WRITE)
)
"""Dollars for an email through each of the two relays."""

EMAILS = {
    "accept": accept.EMAILS * accept.PAIRS,
    "sending": sending.EMAILS * sending.PAIRS,
    "throughput": sum(throughput.BATCHES) * throughput.PAIRS,
    "idle": idle.EMAILS,
    "capacity": capacity.EMAILS,
}
"""How many emails each of the two relays is given, by measurement that AWS itself allows."""


def dollars(names: Sequence[str]) -> float:
    """The most that these measurements should cost, at the list prices named above."""
    return sum(EMAILS[name] for name in names) * _PAIR
