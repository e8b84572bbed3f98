"""What waits is shown as it is, or not at all, and reading it is cheap and never waits for long."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

from mailrelay import assembly, aws, clock, kept, provision
from mailrelay.backlog import Backlog, Depths, Due
from mailrelay.circuit import Circuit, State
from mailrelay.settings import Settings
from mailrelay.store import Store, StoreUnavailable
from tests.support.processes import wait_for
from tests.support.records import CONTENT, a_batch, an_email

DEPTHS = {"deliver": {"ready": 2, "in_flight": 1}, "sweep": {"ready": 0, "in_flight": 0}}
DUE = Due(emails=3, most_overdue=4500)

QUEUES = {
    "queue_messages{queue=deliver,state=ready}": 2,
    "queue_messages{queue=deliver,state=in_flight}": 1,
    "queue_messages{queue=sweep,state=ready}": 0,
    "queue_messages{queue=sweep,state=in_flight}": 0,
}
DUE_GAUGES = {"due_emails{}": 3, "most_overdue_seconds{}": 4.5}


def up(sqs: int, dynamodb: int) -> dict[str, float]:
    return {"backlog_up{source=sqs}": sqs, "backlog_up{source=dynamodb}": dynamodb}


def shown(what: Backlog) -> dict[str, float]:
    return {
        f"{sample.name.removeprefix('mailrelay_')}"
        f"{{{','.join(f'{name}={value}' for name, value in sample.labels.items())}}}": sample.value
        for family in what.collect()
        for sample in family.samples
    }


class Source:
    """Answers what it is told to, and counts how often it is asked."""

    def __init__(self, answer: Depths | Due | Exception) -> None:
        self.answer = answer
        self.asked = 0

    def __call__(self) -> Depths | Due:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Hangs:
    """Does not answer until it is let go."""

    def __init__(self) -> None:
        self.asked = 0
        self.go = threading.Event()

    def __call__(self) -> Due:
        self.asked += 1
        self.go.wait()
        return DUE


@pytest.fixture
def hangs() -> Iterator[Hangs]:
    source = Hangs()
    yield source
    source.go.set()


DOWN = StoreUnavailable("DynamoDB: down")
REFUSED = ClientError({"Error": {"Code": "AccessDenied"}}, "GetQueueAttributes")


@pytest.mark.parametrize(
    ("queues", "due", "gauges"),
    [
        pytest.param(DEPTHS, DUE, QUEUES | DUE_GAUGES | up(1, 1), id="both"),
        pytest.param(REFUSED, DUE, DUE_GAUGES | up(0, 1), id="without SQS"),
        pytest.param(DEPTHS, DOWN, QUEUES | up(1, 0), id="without DynamoDB"),
        pytest.param(REFUSED, DOWN, up(0, 0), id="without AWS"),
    ],
)
def test_what_is_not_known_is_not_shown(
    queues: Depths | Exception, due: Due | Exception, gauges: dict[str, float]
) -> None:
    assert shown(Backlog(Source(queues), Source(due), dict)) == gauges


def test_who_hangs_is_not_waited_for_and_hides_nobody_else(
    hangs: Hangs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "PATIENCE", 0.05)
    what = Backlog(Source(DEPTHS), hangs, dict)

    assert shown(what) == shown(what) == QUEUES | up(1, 0)
    assert hangs.asked == 1  # and not once more for each reader

    hangs.go.set()
    late = wait_for(lambda: "due_emails{}" in shown(what) and shown(what), "its late answer")
    assert late == QUEUES | DUE_GAUGES | up(1, 1)


@pytest.mark.parametrize("answer", [DUE, DOWN], ids=["an answer", "a failure"])
@pytest.mark.parametrize(("seconds", "asked"), [(3600.0, 1), (-1.0, 3)], ids=["good", "too old"])
def test_several_readers_cost_no_more_than_one(
    answer: Due | Exception, seconds: float, asked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "KEPT", seconds)
    queues, due = Source(DEPTHS), Source(answer)
    what = Backlog(queues, due, dict)

    for _ in range(3):
        shown(what)

    assert (queues.asked, due.asked) == (asked, asked)


def test_an_answer_replaces_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "KEPT", -1.0)
    due = Source(DUE)
    what = Backlog(Source(DEPTHS), due, dict)
    shown(what)

    due.answer = DOWN
    assert shown(what) == QUEUES | up(1, 0)
    due.answer = Due(0, 0)
    assert shown(what) == QUEUES | {"due_emails{}": 0, "most_overdue_seconds{}": 0} | up(1, 1)


@pytest.fixture
def due_since(store: Store) -> Callable[..., None]:
    """Stores an email that is due since some milliseconds ago."""

    def make(*ago: int) -> None:
        batch = a_batch(total=len(ago))
        now = clock.now()
        emails = [an_email(batch, number, due_at=now - one) for number, one in enumerate(ago)]
        store.create(batch, CONTENT, emails, withdraw_at=None)

    return make


def test_the_due_index_is_read_as_a_whole(
    settings: Settings, due_since: Callable[..., None]
) -> None:
    due_since(5000, *[1000] * 20, -60_000)

    gauges = shown(assembly.backlog(settings))

    assert gauges["due_emails{}"] == 21
    assert gauges["most_overdue_seconds{}"] >= 5


def test_the_queues_are_read_by_state(settings: Settings) -> None:
    with mock_aws():
        list(provision.provision(settings))
        sqs = aws.sqs(settings)
        url = sqs.get_queue_url(QueueName="mailrelay-deliver")["QueueUrl"]
        for delay in (0, 0, 0, 60):
            sqs.send_message(QueueUrl=url, MessageBody="{}", DelaySeconds=delay)
        sqs.receive_message(QueueUrl=url)

        gauges = shown(assembly.backlog(settings))

    assert {name: value for name, value in gauges.items() if name.startswith("queue")} == {
        "queue_messages{queue=deliver,state=ready}": 2,
        "queue_messages{queue=deliver,state=in_flight}": 1,
        "queue_messages{queue=deliver,state=delayed}": 1,
        "queue_messages{queue=sweep,state=ready}": 0,
        "queue_messages{queue=sweep,state=in_flight}": 0,
        "queue_messages{queue=sweep,state=delayed}": 0,
    }


def test_a_provider_that_is_left_alone_shows_as_an_open_circuit() -> None:
    known = {
        "mailgun": Circuit("mailgun", State.OPEN, until=clock.now() + 60_000),
        "ses": Circuit("ses", State.OPEN, until=clock.now() - 1),  # no email has come since
        "sendgrid": Circuit("sendgrid"),
    }

    gauges = shown(Backlog(Source({}), Source(DUE), lambda: known))

    assert {name: value for name, value in gauges.items() if "circuit" in name} == {
        "provider_circuit_open{provider=mailgun}": 1,
        "provider_circuit_open{provider=ses}": 0,
        "provider_circuit_open{provider=sendgrid}": 0,
    }
