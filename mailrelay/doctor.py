"""Is everything in place? One finding for each thing that has to work."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from botocore.exceptions import BotoCoreError, ClientError

from mailrelay import assembly, aws, clock, providers, provision
from mailrelay.message import Outcome
from mailrelay.provision import DELIVER_QUEUE, SWEEP_QUEUE
from mailrelay.settings import Settings, SettingsError
from mailrelay.store import StoreUnavailable
from mailrelay.values import SHORTEST_API_KEY


@dataclass(frozen=True, slots=True)
class Checkup:
    """What was looked at, whether it works, and what was seen or is to be done."""

    what: str
    ok: bool
    detail: str


def examine(settings: Settings) -> Iterator[Checkup]:
    """Look at the environment, AWS and each provider, one after the other."""
    try:
        providers.check_rates(settings)
    except SettingsError as error:
        yield Checkup("environment", ok=False, detail=str(error))
    else:
        yield Checkup("environment", ok=True, detail="every variable can work")
    yield _api_keys(settings)
    try:
        yield Checkup("AWS region", ok=True, detail=aws.region(settings))
    except SettingsError as error:
        yield Checkup("AWS region", ok=False, detail=str(error))
    else:
        yield from _aws(settings)
    for name in settings.providers:
        yield _provider(settings, name)


def _api_keys(settings: Settings) -> Checkup:
    what = "API keys"
    if not settings.api_keys:
        return Checkup(what, ok=False, detail="MAILRELAY_API_KEYS is not set: nobody can send")
    if settings.short_api_keys:
        short = ", ".join(settings.short_api_keys)
        advice = f"can be guessed, having fewer than {SHORTEST_API_KEY} characters: {short}"
        return Checkup(what, ok=False, detail=advice)
    senders = {
        name: f" (from {', '.join(sorted(allowed))})" for name, allowed in settings.senders.items()
    }
    names = sorted(settings.api_keys.values())
    return Checkup(what, ok=True, detail=", ".join(name + senders.get(name, "") for name in names))


def _aws(settings: Settings) -> Iterator[Checkup]:
    yield _dynamodb(settings)
    for name in (DELIVER_QUEUE, SWEEP_QUEUE):
        yield _queue(settings, settings.queue_prefix + name)
    if settings.bucket:
        yield _bucket(settings, settings.bucket)


def _dynamodb(settings: Settings) -> Checkup:
    what = f"DynamoDB table {settings.table}"
    try:
        store = assembly.store(settings)
        store.ping()
        # Both indexes: without the due one nothing lost is ever found, without the other no list.
        store.overdue(0, clock.now())
        store.recent("", None, 1)
    except StoreUnavailable as error:
        return Checkup(what, ok=False, detail=_advice(error.__cause__ or error))
    except (BotoCoreError, ClientError) as error:
        return Checkup(what, ok=False, detail=_advice(error))
    return Checkup(what, ok=True, detail="answers")


def _queue(settings: Settings, name: str) -> Checkup:
    what = f"SQS queue {name}"
    try:
        sqs = aws.sqs(settings)
        url = sqs.get_queue_url(QueueName=name)["QueueUrl"]
        problems = provision.queue_problems(settings, sqs, url)
    except (BotoCoreError, ClientError) as error:
        return Checkup(what, ok=False, detail=_advice(error))
    return Checkup(what, ok=not problems, detail="; ".join(problems) or url)


def _bucket(settings: Settings, name: str) -> Checkup:
    what = f"S3 bucket {name}"
    try:
        aws.s3(settings).head_bucket(Bucket=name)
    except (BotoCoreError, ClientError) as error:
        return Checkup(what, ok=False, detail=_advice(error))
    return Checkup(what, ok=True, detail="answers")


def _provider(settings: Settings, name: str) -> Checkup:
    what = f"provider {name}"
    try:
        answer = providers.create_one(settings, name).check()
    except SettingsError as error:
        return Checkup(what, ok=False, detail=str(error))
    ok = answer.outcome is Outcome.ACCEPTED
    detail = answer.reason if ok else f"{answer.code}: {answer.reason}"
    return Checkup(what, ok=ok, detail=detail)


_MISSING = {"ResourceNotFoundException", "AWS.SimpleQueueService.NonExistentQueue", "404"}


def _advice(error: BaseException) -> str:
    if not isinstance(error, ClientError):
        return str(error)
    said = error.response["Error"]
    if said["Code"] in _MISSING:
        return "does not exist: run mailrelay init"
    if said["Code"] == "ValidationException":
        return f"{said['Message']}: run mailrelay init"
    return str(error)
