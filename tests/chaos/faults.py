"""Every fault that the suite knows: how it is caused, how it is healed, and what it allows."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from random import Random

from tests.chaos import backlog
from tests.chaos.aws_faults import AwsFault, Kind
from tests.chaos.judge import Breach
from tests.chaos.site import PROVIDERS, Site

FAULT_SECONDS = (4.0, 8.0)
"""How long a fault lasts unless it says so: shorter than the lease, so that an outcome that could not
be written down is, before anybody takes its email for abandoned."""

LONGER_THAN_A_MESSAGE = 75.0
"""Seconds; messages live for 60."""


@dataclass(frozen=True)
class Fault:
    """One fault: `cause` causes it, lets it last and heals it."""

    name: str
    tried: str
    cause: Callable[[Site, Random], None]
    family: str
    """A mixture has at most one of a family: two outages of one service may last too long."""
    unanswered: bool = False
    """A request to a provider may go unanswered, or its worker die."""
    misleading: bool = False
    """A 503 may hide a batch that was accepted."""
    punctual: bool = False
    """No message gets lost by it: no email may have to wait until the sweep finds it."""
    clocks: Mapping[str, float] = field(default_factory=dict)
    """By how many seconds the clocks of parts are wrong."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """Settings of its own."""
    mixes: bool = True
    """Whether it is tried together with others, too."""
    exclusive: bool = False
    """It wants the machine for itself, and brings its own load."""


FAULTS: dict[str, Fault] = {}


def _fault(
    name: str, tried: str, family: str, **terms: bool | Mapping[str, float] | Mapping[str, str]
) -> Callable[[Callable[[Site, Random], None]], Callable[[Site, Random], None]]:
    def register(cause: Callable[[Site, Random], None]) -> Callable[[Site, Random], None]:
        FAULTS[name] = Fault(name, tried, cause, family, **terms)  # type: ignore[arg-type]
        return cause

    return register


# Processes that are killed


@_fault("worker-killed", "kill -9 of a worker, twice", "worker", unanswered=True)
def _worker_killed(site: Site, rng: Random) -> None:
    for _ in range(2):
        name = rng.choice(("worker-1", "worker-2"))
        site.kill(name)
        site.hold(rng, 0, 2)
        site.start(name)
        site.hold(rng, 0.5, 2)


@_fault("web-killed", "kill -9 of the web process, twice", "web")
def _web_killed(site: Site, rng: Random) -> None:
    for _ in range(2):
        site.kill("web-1")
        site.hold(rng, 0, 2)
        site.start("web-1")
        site.hold(rng, 0.5, 2)


@_fault("beat-killed", "kill -9 of beat", "beat")
def _beat_killed(site: Site, rng: Random) -> None:
    site.kill("beat-1")
    site.hold(rng, *FAULT_SECONDS)
    site.start("beat-1")


def _dies(site: Site, part: str, point: str, count: int, provoke: Callable[[], None]) -> None:
    """Have a part kill itself at the `count`-th time that it comes to `point`."""
    name = f"{part}-1"
    site.kill(name)
    site.start(name, die_at=f"{point}:{count}")
    provoke()
    if not site.died(name, 30):
        site.found(Breach.STUCK, name, f"never came to {point} for the {count}th time: no fault")
        site.kill(name)
    site.start(name)


def _worker_dies(name: str, tried: str, point: str, *, failing: bool = False) -> None:
    @_fault(name, tried, "worker", unanswered=True)
    def cause(site: Site, rng: Random) -> None:
        with ExitStack() as healed:
            if failing:
                # So that there is a next provider, and not as one that would be left alone.
                site.sandbox.fault("mailgun", "status", status=413)
                healed.callback(site.heal_providers)
            _dies(site, "worker", point, rng.randint(1, 10), lambda: None)


_worker_dies("dies-after-claim", "a worker killed between claim and request", "claimed")
_worker_dies("dies-after-answer", "a worker killed between answer and record", "answered")
_worker_dies("dies-after-record", "a worker killed between record and enqueue", "recorded")
_worker_dies(
    *("dies-before-enqueue", "a worker killed before the next provider's message", "enqueueing"),
    failing=True,
)


@_fault("dies-in-sweep", "a worker killed between a sweep's record and enqueue", "worker",
        unanswered=True)  # fmt: skip
def _dies_in_sweep(site: Site, rng: Random) -> None:
    site.stop("worker-2")  # nobody else sweeps
    for provider in PROVIDERS:
        site.sandbox.fault(provider, "status", status=503)

    def heal_later() -> None:
        site.hold(rng, 3, 5)  # some are deferred, and due soon
        site.heal_providers()

    _dies(site, "worker", "swept", rng.randint(1, 5), heal_later)
    site.start("worker-2")


@_fault("dies-while-accepting", "the web process killed while it accepts 1,000 recipients", "web")
def _dies_while_accepting(site: Site, rng: Random) -> None:
    point, most = rng.choice((("created", 1), ("storing", 30), ("finishing", 1), ("finished", 1)))

    def send() -> None:
        site.client.send(1000, Random(rng.random()), site.urls)

    _dies(site, "web", point, rng.randint(1, most), send)


# Processes that are told to end


@_fault(
    *("worker-terminated", "SIGTERM to both workers under load, one after the other", "worker"),
    punctual=True,
)
def _worker_terminated(site: Site, rng: Random) -> None:
    for name in ("worker-1", "worker-2"):
        site.stop(name)
        site.start(name)
        site.hold(rng, 0, 2)


@_fault("web-terminated", "a rolling deploy of the web process under load", "web", punctual=True)
def _web_terminated(site: Site, rng: Random) -> None:
    site.start("web-2")
    site.stop("web-1")
    site.hold(rng, 1, 3)
    site.start("web-1")
    site.stop("web-2")


# AWS


def _aws(name: str, tried: str, *faults: AwsFault, **terms: bool) -> None:
    @_fault(name, tried, faults[0].service, **terms)
    def cause(site: Site, rng: Random) -> None:
        with site.proxy.faulty(*faults):
            site.hold(rng, *FAULT_SECONDS)


def _errors(service: str, *codes: tuple[int, str], probability: float) -> list[AwsFault]:
    """Refusals with these, each with its part of `probability`."""
    share = probability / len(codes)
    return [AwsFault(service, Kind.ERROR, share, status=s, code=code) for s, code in codes]


_aws("sqs-down", "SQS resets every connection", AwsFault("sqs", Kind.DOWN))
_aws("sqs-hang", "SQS answers nothing", AwsFault("sqs", Kind.HANG))
_aws("sqs-slow", "SQS takes up to 2 s longer", AwsFault("sqs", Kind.SLOW, seconds=2))
_aws(
    *("sqs-errors", "half of SQS's answers are 500, 503 or throttling"),
    *_errors(
        "sqs",
        (500, "InternalFailure"), (503, "ServiceUnavailable"), (403, "RequestThrottled"),
        probability=0.5,
    ),
)  # fmt: skip
_aws("sqs-partial", "half of a batch's messages fail", AwsFault("sqs", Kind.PARTIAL, 0.5))
_aws("sqs-lost", "a third of SQS's answers are lost", AwsFault("sqs", Kind.LOST, 0.33))
_aws("sqs-vanish", "half of the messages vanish", AwsFault("sqs", Kind.VANISH, 0.5))
_aws("sqs-twice", "messages come twice", AwsFault("sqs", Kind.TWICE, 0.7))
_aws(
    *("sqs-late", "messages come up to 8 s late and out of order"),
    AwsFault("sqs", Kind.LATE, 0.7, seconds=8),
)
_aws("dynamodb-down", "DynamoDB resets every connection", AwsFault("dynamodb", Kind.DOWN))
_aws("dynamodb-hang", "DynamoDB answers nothing", AwsFault("dynamodb", Kind.HANG))
_aws(
    "dynamodb-slow", "DynamoDB takes up to 1 s longer", AwsFault("dynamodb", Kind.SLOW, seconds=1)
)
_aws(
    *("dynamodb-throttled", "DynamoDB throttles half of the requests"),
    AwsFault(
        "dynamodb", Kind.ERROR, 0.5, status=400, code="ProvisionedThroughputExceededException"
    ),
)
_aws(
    *("dynamodb-errors", "half of DynamoDB's answers are 500 or 503"),
    *_errors(
        *("dynamodb", (500, "InternalServerError"), (503, "ServiceUnavailable")), probability=0.5
    ),
)
_aws(
    *("dynamodb-lost", "a fifth of DynamoDB's answers are lost after the write took effect"),
    AwsFault("dynamodb", Kind.LOST, 0.2),
    misleading=True,
)
_aws(
    *("dynamodb-conflict", "half of the writes conflict with another transaction"),
    *(AwsFault("dynamodb", Kind.CONFLICT, 0.5), AwsFault("dynamodb", Kind.PARTIAL, 0.3)),
)
_aws(
    *("dynamodb-partial", "DynamoDB leaves out a third of each batch"),
    AwsFault("dynamodb", Kind.PARTIAL, 0.33),
)
_aws("sns-down", "SNS resets every connection", AwsFault("sns", Kind.DOWN))


# Providers


def _provider(
    name: str, tried: str, kind: str, *, unanswered: bool = False, **details: object
) -> None:
    @_fault(name, tried, "provider", unanswered=unanswered)
    def cause(site: Site, rng: Random) -> None:
        failing = rng.sample(PROVIDERS, rng.choice((1, 2)))
        for provider in failing:
            site.note(f"{provider}: {kind} {details}")
            site.sandbox.fault(provider, kind, **details)
        site.hold(rng, *FAULT_SECONDS)
        site.heal_providers()


_provider("provider-down", "one or two providers answer 503", "status", status=503)
_provider(
    *("provider-waits", "one or two providers answer 429 and ask to wait for 5 s", "status"),
    status=429,
    wait=5,
)
_provider("provider-slow", "one or two providers take 3 s", "slow", seconds=3)
_provider("provider-hangs", "one or two providers never answer", "hang", unanswered=True)
_provider(
    *("provider-closes", "one or two providers close the connection after the body", "close"),
    unanswered=True,
)
_provider(
    *("provider-loses", "one or two providers accept and do not answer", "lost"), unanswered=True
)


@_fault("ses-limits", "SES answers 429 and does not say for how long", "provider")
def _ses_limits(site: Site, rng: Random) -> None:
    site.sandbox.fault("ses", "status", status=429)
    site.sandbox.fault("mailgun", "status", status=500)  # so that SES is asked
    site.hold(rng, *FAULT_SECONDS)
    site.heal_providers()


@_fault("providers-flap", "each provider fails and works by turns", "provider")
def _providers_flap(site: Site, rng: Random) -> None:
    for _ in range(12):
        provider = rng.choice(PROVIDERS)
        if rng.random() < 0.6:
            site.sandbox.fault(provider, "status", status=rng.choice((429, 500, 503)), wait=1)
        else:
            site.heal_providers(provider)
        site.hold(rng, 0.2, 1)
    site.heal_providers()


@_fault("providers-down", "all providers answer 503 for longer than a message lives", "provider")
def _providers_down(site: Site, rng: Random) -> None:
    for provider in PROVIDERS:
        site.sandbox.fault(provider, "status", status=503)
    site.hold(rng, LONGER_THAN_A_MESSAGE, LONGER_THAN_A_MESSAGE)
    site.heal_providers()


# Time


@_fault(
    *("clocks-apart", "the clocks of two workers are 30 s apart", "clocks"),
    clocks={"worker-1": 15.0, "worker-2": -15.0},
)
def _clocks_apart(site: Site, rng: Random) -> None:
    """Providers that are slow and fail, so that leases and retries matter."""
    site.sandbox.fault("mailgun", "slow", seconds=4)
    site.sandbox.fault("ses", "status", status=503)
    site.hold(rng, 6, 10)
    site.sandbox.fault("mailgun", "status", status=503)
    site.hold(rng, 2, 4)
    site.heal_providers()


@_fault("two-beats", "two beats at once, and providers that fail", "beat")
def _two_beats(site: Site, rng: Random) -> None:
    site.start("beat-2")
    for provider in PROVIDERS:
        site.sandbox.fault(provider, "status", status=503)
    site.hold(rng, 6, 10)
    site.heal_providers()


@_fault("no-beat", f"no beat for {LONGER_THAN_A_MESSAGE:g} s, and messages vanish", "beat",
        mixes=False)  # fmt: skip
def _no_beat(site: Site, rng: Random) -> None:
    site.kill("beat-1")
    with site.proxy.faulty(AwsFault("sqs", Kind.VANISH, 0.5)):
        site.hold(rng, *FAULT_SECONDS)
    site.hold(rng, LONGER_THAN_A_MESSAGE, LONGER_THAN_A_MESSAGE)
    site.start("beat-1")


# Messages that are not ours


def _task(name: str, *arguments: object) -> str:
    """A message as Celery makes it."""
    headers = {"task": name, "id": "1", "lang": "py", "argsrepr": "", "kwargsrepr": ""}
    return json.dumps(
        {
            "body": json.dumps([arguments, {}, {}]),
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "headers": headers,
            "properties": {"correlation_id": "1", "delivery_tag": "1", "delivery_info": {}},
        }
    )


POISON = (
    "not JSON",
    "[]",
    "{}",
    '{"properties": 1}',
    '{"properties": {"delivery_info": 1}, "body": "x"}',
    _task("tasks.nothing"),
    _task("tasks.deliver", "01M86CPHWVMXAYHCK7BA5TAEQD-0", 0, 1),
    _task("tasks.deliver", "x", 0, 1),
    _task("tasks.deliver"),
    _task("tasks.sweep", "x"),
)


@_fault("poison", "messages that are not ours, not JSON, of unknown tasks and ids", "poison")
def _poison(site: Site, rng: Random) -> None:
    for body in rng.sample(POISON, len(POISON)) * 2:
        queue = rng.choice(("deliver", "sweep"))
        site.aws.sqs.send_message(QueueUrl=site.aws.queue_url(queue), MessageBody=body)
        site.hold(rng, 0, 0.5)


# Much at once

FAULTS["backlog"] = Fault(
    *("backlog", "20,000 emails at once, four times a message's life long", backlog.cause),
    family="backlog",
    variables={"MAILRELAY_CONCURRENCY": "64", "MAILRELAY_SWEEP_INTERVAL": "10"},
    mixes=False,
    exclusive=True,
)
