"""Putting the parts together, as the settings say. The only module that knows all of them."""

from __future__ import annotations

from functools import partial

from mailrelay import aws, counters, logs, metrics, providers
from mailrelay.backlog import Backlog, DueIndex, Queues
from mailrelay.breaker import Breaker
from mailrelay.counters import Board, Counters
from mailrelay.courier import Courier
from mailrelay.delivery import Policy
from mailrelay.observation import Observation
from mailrelay.queue import DeliveryQueue
from mailrelay.rates import Rates
from mailrelay.relay import Relay
from mailrelay.settings import DAY, Settings
from mailrelay.shared import Shared
from mailrelay.store import Store
from mailrelay.sweep import Sweeper


def policy(settings: Settings) -> Policy:
    """What the rules depend on, in milliseconds."""
    return Policy(
        message_ttl=settings.message_ttl * 1000,
        lease=round(settings.lease * 1000),
        longest_send=round(settings.longest_send * 1000),
        retry_schedule=tuple(round(delay * 1000) for delay in settings.retry_schedule),
        longest_life=round(settings.longest_life * 1000),
        rate_patience=round(settings.rate_patience * 1000),
        avoid_duplicates=settings.avoid_duplicates,
    )


def store(settings: Settings) -> Store:
    """The store of `MAILRELAY_TABLE` and `MAILRELAY_BUCKET`."""
    return Store(
        aws.dynamodb(settings),
        settings.table,
        retention=settings.retention_days * DAY,
        s3=aws.s3(settings) if settings.bucket else None,
        bucket=settings.bucket,
    )


def observe(what: Observation) -> None:
    """Who is told what happened."""
    logs.observe(what)
    metrics.observe(what)
    counters.observe(what)


def glance(settings: Settings) -> Store:
    """The store for what nobody waits for, by a client that gives up at once."""
    return Store(
        aws.dynamodb(settings, glance=True),
        settings.table,
        retention=settings.retention_days * DAY,
    )


def backlog(settings: Settings) -> Backlog:
    """What the metrics show of AWS, by clients that give up at once."""
    index = glance(settings)
    queues = Queues(aws.sqs(settings, glance=True), settings.queue_prefix)
    circuits = partial(Shared(index.table).circuits, settings.providers)
    return Backlog(queues, DueIndex(index), circuits)


def board(store: Store) -> Board:
    """What the overview shows of the last hour and day."""
    return Board(Counters(store.table))


def relay(settings: Settings, store: Store, queue: DeliveryQueue) -> Relay:
    """What the API needs."""
    retention = settings.retention_days * DAY
    return Relay(store, queue, policy(settings), observe, retention=retention)


def courier(settings: Settings, store: Store) -> Courier:
    """What a worker needs; raises `SettingsError` for a provider without its credentials."""
    shared = Shared(store.table)
    breaker = Breaker(
        shared,
        settings.providers,
        observe,
        first_pause=round(settings.provider_pause * 1000),
        lease=round(settings.lease * 1000),
    )
    return Courier(
        store,
        providers.create(settings),
        breaker,
        Rates(shared, settings.rates, sweep_interval=settings.sweep_interval),
        policy(settings),
        observe,
    )


def sweeper(settings: Settings, store: Store, queue: DeliveryQueue) -> Sweeper:
    """What a sweep needs."""
    # So many messages one worker process takes before they die if every send waits for the
    # provider's answer to the end.
    takes = settings.concurrency * settings.message_ttl / settings.provider_timeout
    limit = max(settings.concurrency, int(takes))
    return Sweeper(store, queue, policy(settings), observe, queue_limit=limit)
