"""What is counted, under Prometheus's names, and how the core's observations become counts.

Every process counts for itself; `docs/metrics.md` says which process counts what. No label holds
an address or an id, or anything else that a client or a provider could make up.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics_core import InfoMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector

import mailrelay
from mailrelay.message import PASSED_OVER, Outcome, Status
from mailrelay.multiprocess import DIRECTORY
from mailrelay.observation import (
    AttemptEnded,
    BatchAccepted,
    EmailPutOff,
    EmailResolved,
    EmailSwept,
    Observation,
    ShardSwept,
)

REGISTRY = CollectorRegistry()
"""Ours alone: the library's own is Flower's, which has a `/metrics` too."""

# --- Emails ---------------------------------------------------------------------------------

BATCHES_ACCEPTED = Counter(
    "mailrelay_batches_accepted_total",
    "Batches accepted; enqueued is false where SQS was away and the sweep took over.",
    ["enqueued"],
    registry=REGISTRY,
)
EMAILS_ACCEPTED = Counter("mailrelay_emails_accepted_total", "Emails accepted.", registry=REGISTRY)
ATTEMPTS = Counter(
    "mailrelay_attempts_total",
    "Attempts ended, by provider and outcome; passed_over where it was left alone.",
    ["provider", "outcome"],
    registry=REGISTRY,
)
PROVIDER_REQUEST_DURATION = Histogram(
    "mailrelay_provider_request_duration_seconds",
    "How long a provider took to answer, connecting included.",
    ["provider"],
    # Up to the connect timeout and the default of MAILRELAY_PROVIDER_TIMEOUT, and a little on.
    buckets=(0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5, 8, 10, 13, 20, 30),
    registry=REGISTRY,
)
EMAILS_PUT_OFF = Counter(
    "mailrelay_emails_put_off_total",
    "Emails that came back later, each time, since their provider's rate was used up.",
    ["provider"],
    registry=REGISTRY,
)
EMAILS_CONCLUDED = Counter(
    "mailrelay_emails_concluded_total",
    "Emails that became sent, failed, unknown (for a person), or deferred for a while.",
    ["status"],
    registry=REGISTRY,
)
TIME_TO_SENT = Histogram(
    "mailrelay_time_to_sent_seconds",
    "From an email's acceptance until a provider took it.",
    # From one quick provider to the end of the default MAILRELAY_RETRY_SCHEDULE.
    buckets=(
        *(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600),
        *(1800, 3600, 7200, 21_600, 43_200, 86_400, 172_800),
    ),
    registry=REGISTRY,
)

# --- The sweep ------------------------------------------------------------------------------

SWEEPS = Counter(
    "mailrelay_sweeps_total",
    "Sweeps of one shard; complete is false where one ran out of time, or AWS failed it.",
    ["complete"],
    registry=REGISTRY,
)
SWEEP_FOUND = Counter(
    "mailrelay_sweep_found_total", "Emails and batches that sweeps found due.", registry=REGISTRY
)
SWEEP_RESULTS = Counter(
    "mailrelay_sweep_results_total",
    "What sweeps did: emails enqueued, emails ended or deferred, unfinished batches withdrawn.",
    ["result"],
    registry=REGISTRY,
)
SWEEP_DURATION = Histogram(
    "mailrelay_sweep_duration_seconds",
    "How long a sweep of one shard took, waiting for room in the queue included.",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60),
    registry=REGISTRY,
)

# --- SQS, as workers see it -----------------------------------------------------------------

QUEUE_POLLS = Counter(
    "mailrelay_queue_polls_total",
    "Polls answered, by result: messages, empty or failed.",
    ["queue", "result"],
    registry=REGISTRY,
)
QUEUE_MESSAGES_RECEIVED = Counter(
    "mailrelay_queue_messages_received_total",
    "Messages that polls returned.",
    ["queue"],
    registry=REGISTRY,
)
QUEUE_WAIT = Histogram(
    "mailrelay_queue_wait_seconds",
    "How long a message had been in the queue when a poll returned it.",
    ["queue"],
    # A message lives for MAILRELAY_MESSAGE_TTL, 60 s unless told otherwise.
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 45, 60, 120, 300),
    registry=REGISTRY,
)
QUEUE_OLDEST_MESSAGE_AGE = Gauge(
    "mailrelay_queue_oldest_message_age_seconds",
    "Age of the oldest message that this worker's last answered poll returned; 0 if it was empty.",
    ["queue"],
    registry=REGISTRY,
    multiprocess_mode="max",
)

# --- AWS ------------------------------------------------------------------------------------

AWS_REQUESTS = Counter(
    "mailrelay_aws_requests_total",
    "HTTP requests to AWS, each repetition by itself.",
    ["service", "operation"],
    registry=REGISTRY,
)
AWS_ERRORS = Counter(
    "mailrelay_aws_errors_total",
    "Requests to AWS, or entries of a batch, that failed; unmet conditions are none.",
    ["service", "operation", "code"],
    registry=REGISTRY,
)
AWS_REQUEST_DURATION = Histogram(
    "mailrelay_aws_request_duration_seconds",
    "How long AWS took to answer; the workers' long polls are left out.",
    ["service", "operation"],
    # Up to the read timeout of 3 s.
    buckets=(0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 3),
    registry=REGISTRY,
)
AWS_BATCH_ENTRIES = Histogram(
    "mailrelay_aws_batch_entries",
    "How many messages one call sent, published or deleted.",
    ["operation"],
    buckets=(1, 2, 3, 4, 5, 6, 8, 10),
    registry=REGISTRY,
)

# --- The web process ------------------------------------------------------------------------

HTTP_REQUESTS = Counter(
    "mailrelay_http_requests_total",
    "HTTP requests answered, by method, route and status.",
    ["method", "route", "status"],
    registry=REGISTRY,
)
HTTP_REQUEST_DURATION = Histogram(
    "mailrelay_http_request_duration_seconds",
    "How long it took to answer an HTTP request.",
    ["method", "route"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
    registry=REGISTRY,
)
HTTP_REQUESTS_IN_PROGRESS = Gauge(
    "mailrelay_http_requests_in_progress",
    "HTTP requests that are being answered.",
    registry=REGISTRY,
    multiprocess_mode="livesum",
)


class _Build:
    """Which version counts."""

    def collect(self) -> Iterator[Metric]:
        version = {"version": mailrelay.__version__}
        yield InfoMetricFamily("mailrelay_build", "The version of mailrelay.", value=version)


REGISTRY.register(_Build())


def begin_at_zero(providers: Iterable[str], queues: Iterable[str]) -> None:
    """Show what alerts look for before it first happens: `rate` cannot see a series begin."""
    for flag in ("true", "false"):
        BATCHES_ACCEPTED.labels(flag)
        SWEEPS.labels(flag)
    for status in (Status.SENT, Status.FAILED, Status.UNKNOWN, Status.DEFERRED):
        EMAILS_CONCLUDED.labels(status)
    for result in ("enqueued", "ended", "withdrawn"):
        SWEEP_RESULTS.labels(result)
    for provider in providers:
        for outcome in (*Outcome, PASSED_OVER):
            ATTEMPTS.labels(provider, outcome)
    for queue in queues:
        QUEUE_MESSAGES_RECEIVED.labels(queue)
        for result in ("messages", "empty", "failed"):
            QUEUE_POLLS.labels(queue, result)


def collect() -> Iterator[Metric]:
    """All that this process has counted; under gunicorn, all that its processes have."""
    if DIRECTORY in os.environ:
        yield from MultiProcessCollector(None).collect()
        yield from _Build().collect()
    else:
        yield from REGISTRY.collect()


def observe(what: Observation) -> None:
    """Count what has just happened."""
    match what:
        case BatchAccepted():
            BATCHES_ACCEPTED.labels(_flag(what.enqueued)).inc()
            EMAILS_ACCEPTED.inc(what.emails)
        case AttemptEnded():
            _attempt_ended(what)
        case EmailPutOff():
            EMAILS_PUT_OFF.labels(what.provider).inc()
        case EmailSwept():
            if what.abandoned is not None:
                ATTEMPTS.labels(what.abandoned.provider, what.abandoned.outcome).inc()
                _concluded(what.status)
        case EmailResolved():
            _concluded(what.status)
        case ShardSwept():
            SWEEPS.labels(_flag(what.complete)).inc()
            SWEEP_FOUND.inc(what.found)
            SWEEP_RESULTS.labels("enqueued").inc(what.enqueued)
            SWEEP_RESULTS.labels("ended").inc(what.ended)
            SWEEP_RESULTS.labels("withdrawn").inc(what.withdrawn)
            SWEEP_DURATION.observe(what.duration_ms / 1000)


def _attempt_ended(ended: AttemptEnded) -> None:
    attempt = ended.attempt
    outcome = PASSED_OVER if attempt.passed_over else attempt.outcome
    ATTEMPTS.labels(attempt.provider, outcome).inc()
    if attempt.duration_ms:
        # One that took no time asked nobody: the email was late, or the provider is gone.
        PROVIDER_REQUEST_DURATION.labels(attempt.provider).observe(attempt.duration_ms / 1000)
    _concluded(ended.status)
    if ended.status is Status.SENT:
        # Two clocks: the web's said when it was accepted.
        TIME_TO_SENT.observe(max(0, ended.accepted_ago) / 1000)


def _concluded(status: Status | None) -> None:
    # Still queued: the next provider is asked. None: somebody else has counted it.
    if status not in (None, Status.QUEUED):
        EMAILS_CONCLUDED.labels(status).inc()


def _flag(value: bool) -> str:
    return "true" if value else "false"
