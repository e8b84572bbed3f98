"""The fan-out over SNS and SQS: who hears what, what is left behind, and what happens then."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from structlog.testing import capture_logs

import tasks.fanout
from mailrelay import logs
from mailrelay.settings import Settings, load
from tasks.fanout import ABANDONED_AFTER, KEPT_TAG, Fanout, Inbox, unpack
from tests.support.aws import AWS_CREDENTIALS, LocalAws
from tests.support.processes import unused_name, wait_for

LONGEST_PREFIX = 50


@pytest.fixture
def settings(local_aws: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """With a prefix that no other test has."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", local_aws)
    return load({**AWS_CREDENTIALS, "MAILRELAY_QUEUE_PREFIX": f"{unused_name('fanout')}-"})


@pytest.fixture
def fanout(settings: Settings) -> Fanout:
    return Fanout(settings)


@pytest.fixture
def make_inbox(fanout: Fanout) -> Iterator[Callable[..., Inbox]]:
    """Inboxes that are open, and closed in the end."""
    made: list[Inbox] = []

    def make(
        kind: str = "events",
        owner: str = "one",
        topic: str | None = "events",
        by: Fanout | None = None,
    ) -> Inbox:
        inbox = Inbox(by or fanout, kind, owner, topic)
        made.append(inbox)
        inbox.open()
        return inbox

    yield make
    for inbox in made:
        inbox.close()


def _queues(fanout: Fanout) -> set[str]:
    """The names of the queues that are there, without their prefix."""
    urls = fanout.sqs.list_queues(QueueNamePrefix=fanout.prefix).get("QueueUrls", [])
    return {url.rpartition("/")[2].removeprefix(fanout.prefix) for url in urls}


def _subscribed(fanout: Fanout, topic: str) -> set[str]:
    """The names of the queues that listen to a topic, without their prefix; each does once."""
    answer = fanout.sns.list_subscriptions_by_topic(TopicArn=fanout.topic(topic))
    endpoints = [subscription["Endpoint"] for subscription in answer["Subscriptions"]]
    names = [endpoint.rpartition(":")[2].removeprefix(fanout.prefix) for endpoint in endpoints]
    assert len(set(names)) == len(names)
    return set(names)


def _url(fanout: Fanout, queue: str) -> str:
    return fanout.sqs.get_queue_url(QueueName=queue)["QueueUrl"]


def _refusal(code: str, operation: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "no"}}, operation)


class Refusing:
    """A client of AWS that refuses one operation, and passes everything else on."""

    def __init__(
        self, client: Any, operation: str, error: Callable[..., Exception | None]
    ) -> None:
        self._client, self._operation, self._error = client, operation, error

    def __getattr__(self, name: str) -> Any:
        if name != self._operation:
            return getattr(self._client, name)

        def refuse(**kwargs: Any) -> Any:
            if error := self._error(**kwargs):
                raise error
            return getattr(self._client, name)(**kwargs)

        return refuse


# --- Who hears what -------------------------------------------------------------------------


def test_an_inbox_hears_its_topic_and_nothing_else(
    fanout: Fanout, make_inbox: Callable[..., Inbox]
) -> None:
    events = make_inbox("events", "one", "events")
    control = make_inbox("control", "one", "control")

    fanout.publish("events", ["an event"])
    fanout.publish("control", {"method": "ping"})

    assert events.receive() == [["an event"]]
    assert control.receive() == [{"method": "ping"}]
    assert (events.receive(0), control.receive(0)) == ([], [])


def test_every_inbox_of_a_topic_hears(fanout: Fanout, make_inbox: Callable[..., Inbox]) -> None:
    inboxes = [make_inbox(owner=owner) for owner in ("one", "other")]

    fanout.publish("events", "heard")

    assert [inbox.receive() for inbox in inboxes] == [["heard"], ["heard"]]


def test_an_inbox_without_a_topic_hears_what_is_sent_to_it(
    fanout: Fanout, make_inbox: Callable[..., Inbox]
) -> None:
    inbox = make_inbox("replies", "one", None)
    other = make_inbox("replies", "other", None)

    fanout.publish("events", "not for it")
    fanout.send(inbox.queue, "for it")

    assert inbox.receive() == ["for it"]
    assert other.receive(0) == []


def test_many_are_heard_in_one_go(fanout: Fanout, make_inbox: Callable[..., Inbox]) -> None:
    inbox = make_inbox()
    for number in range(12):
        fanout.publish("events", number)

    heard = inbox.receive()

    assert len(heard) == 10
    assert sorted(heard + inbox.receive()) == list(range(12))


@pytest.mark.parametrize(
    "rubbish",
    ["plain text", "bm8gemxpYg==", "eJwrSS0uAQAEXQHB"],
    ids=["no base64", "not compressed", "no JSON"],
)
def test_a_message_that_is_not_ours_is_dropped_and_said(
    fanout: Fanout, make_inbox: Callable[..., Inbox], rubbish: str
) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - which one is of no interest
        unpack(rubbish)
    inbox = make_inbox()
    fanout.sqs.send_message(QueueUrl=_url(fanout, inbox.queue), MessageBody=rubbish)
    fanout.publish("events", "ours")
    heard: list[Any] = []

    with capture_logs() as lines:
        wait_for(lambda: heard.extend(inbox.receive(1)) or (heard and lines), "both came")

    assert heard == ["ours"]
    assert [line["log_level"] for line in lines] == ["error"]
    assert rubbish not in str(lines)


# --- Its queue ------------------------------------------------------------------------------


def test_what_nobody_reads_is_gone_after_a_minute(
    fanout: Fanout, make_inbox: Callable[..., Inbox]
) -> None:
    """And nobody can read it at rest. Its tag says when its process was last there."""
    url = make_inbox().open()

    has = fanout.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    kept = float(fanout.sqs.list_queue_tags(QueueUrl=url)["Tags"][KEPT_TAG])

    assert has["MessageRetentionPeriod"] == "60"
    assert has["SqsManagedSseEnabled"] == "true"
    assert abs(time.time() - kept) < ABANDONED_AFTER / 2


def test_only_its_topic_may_send_to_it(fanout: Fanout, make_inbox: Callable[..., Inbox]) -> None:
    url = make_inbox().open()

    has = fanout.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]

    assert fanout.topic("events") in has["Policy"]
    assert has["QueueArn"] in has["Policy"]
    assert "*" not in has["Policy"]


def test_close_leaves_nothing(fanout: Fanout, make_inbox: Callable[..., Inbox]) -> None:
    inbox = make_inbox()
    assert (_queues(fanout), _subscribed(fanout, "events")) == ({"events-one"}, {"events-one"})

    inbox.close()

    assert (_queues(fanout), _subscribed(fanout, "events")) == (set(), set())


def test_an_inbox_that_is_closed_while_it_is_made_leaves_nothing(fanout: Fanout) -> None:
    """A worker that is stopped just after its start."""
    inbox = Inbox(fanout, "control", "one", "control")

    def close_meanwhile(**_: Any) -> None:
        inbox.close()

    slow: Any = Refusing(fanout.sns, "subscribe", close_meanwhile)
    fanout.sns = slow
    inbox.open()

    assert (_queues(fanout), _subscribed(fanout, "control")) == (set(), set())


def test_the_next_process_takes_over_what_a_killed_one_left(
    settings: Settings, fanout: Fanout, make_inbox: Callable[..., Inbox]
) -> None:
    """The queue, but not what lies in it: that was said to its predecessor.

    It is marked as the new one's at once, or whoever starts next would remove it.
    """
    killed = make_inbox()
    url = killed.open()
    tags = {KEPT_TAG: str(int(time.time() - ABANDONED_AFTER - 60))}
    fanout.sqs.tag_queue(QueueUrl=url, Tags=tags)
    fanout.publish("events", "for its predecessor")
    sent = int(time.time())
    # SQS tells the time in whole seconds, and the local one tells it a second late.
    wait_for(lambda: int(time.time()) > sent + 1, "a later second")

    successor = make_inbox(by=Fanout(settings))
    fanout.remove_abandoned()
    fanout.publish("events", "for it")
    heard: list[Any] = []
    wait_for(lambda: heard.extend(successor.receive(1)) or heard, "it hears")

    assert successor.open() == url
    assert heard == ["for it"]
    assert (_queues(fanout), _subscribed(fanout, "events")) == ({"events-one"}, {"events-one"})


def test_twenty_restarts_leave_no_more_than_one_start(
    settings: Settings, make_inbox: Callable[..., Inbox]
) -> None:
    """Of processes that were killed: each finds the queues of the one before it."""
    for _ in range(20):
        fanout = Fanout(settings)
        for kind, topic in (("control", "control"), ("events", "events"), ("replies", None)):
            make_inbox(kind, "one", topic, fanout)

    assert _queues(fanout) == {"control-one", "events-one", "replies-one"}
    assert _subscribed(fanout, "control") == {"control-one"}
    assert _subscribed(fanout, "events") == {"events-one"}
    topics = [
        topic["TopicArn"]
        for page in fanout.sns.get_paginator("list_topics").paginate()
        for topic in page["Topics"]
        if fanout.prefix in topic["TopicArn"]
    ]
    assert len(topics) == 2


def test_a_queue_of_another_version_is_brought_up_to_date(
    fanout: Fanout, make_inbox: Callable[..., Inbox]
) -> None:
    fanout.sqs.create_queue(
        QueueName=f"{fanout.prefix}events-one", Attributes={"MessageRetentionPeriod": "3600"}
    )
    inbox = make_inbox()
    fanout.publish("events", "heard")

    has = fanout.sqs.get_queue_attributes(QueueUrl=inbox.open(), AttributeNames=["All"])
    tags = fanout.sqs.list_queue_tags(QueueUrl=inbox.open()).get("Tags", {})

    assert has["Attributes"]["MessageRetentionPeriod"] == "60"
    assert KEPT_TAG in tags
    assert inbox.receive() == ["heard"]


# --- Its name -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("owner", "queue"),
    [
        ("flower", "events-flower"),
        ("celery@host", "events-celery_host"),
        ("celery@ip-10-0-0-1.ec2.internal", "events-celery_ip-10-0-0-1_ec2_internal"),
        ("wörker 1@höst/2", "events-w_rker_1_h_st_2"),
    ],
)
def test_a_queues_name_tells_whose_it_is(fanout: Fanout, owner: str, queue: str) -> None:
    assert Inbox(fanout, "events", owner).queue == fanout.prefix + queue


@pytest.mark.parametrize("kind", ["control", "events", "replies"])
def test_long_names_are_cut_and_told_apart(local_aws: str, kind: str) -> None:
    """Every name is one that SQS takes, its spare names too."""
    prefix = "p" * LONGEST_PREFIX
    settings = load({**AWS_CREDENTIALS, "MAILRELAY_QUEUE_PREFIX": prefix})
    fanout = Fanout(settings)
    owners = [f"celery@a-very-long-name-of-a-host-{'x' * 80}-{number}" for number in range(9)]

    names = [Inbox(fanout, kind, owner).queue for owner in owners]

    assert len(set(names)) == len(names)
    for name in names:
        assert name.startswith(f"{prefix}{kind}-celery_a")
        assert re.fullmatch(r"[A-Za-z0-9_-]{1,80}", f"{name}--10")


def _deleted_recently(fanout: Fanout, *names: str) -> None:
    """AWS refuses a name for a minute after a deletion; the local AWS does not."""

    def error(**kwargs: Any) -> Exception | None:
        refused = not names or kwargs["QueueName"].removeprefix(fanout.prefix) in names
        code = "AWS.SimpleQueueService.QueueDeletedRecently"
        kind = fanout.sqs.exceptions.QueueDeletedRecently
        return (
            kind({"Error": {"Code": code, "Message": "wait"}}, "CreateQueue") if refused else None
        )

    client: Any = Refusing(fanout.sqs, "create_queue", error)
    fanout.sqs = client


def test_a_name_that_was_given_up_just_now_is_replaced_by_a_spare_one(
    fanout: Fanout, make_inbox: Callable[..., Inbox]
) -> None:
    _deleted_recently(fanout, "events-one", "events-one--2")

    inbox = make_inbox()
    fanout.publish("events", "heard")

    assert inbox.queue == f"{fanout.prefix}events-one--3"
    assert inbox.receive() == ["heard"]
    assert _queues(fanout) == {"events-one--3"}


def test_when_no_spare_name_is_left_the_error_says_so(fanout: Fanout) -> None:
    _deleted_recently(fanout)

    with pytest.raises(fanout.sqs.exceptions.QueueDeletedRecently):
        Inbox(fanout, "events", "one", "events").open()

    assert _queues(fanout) == set()


# --- What somebody else removes -------------------------------------------------------------


def test_an_inbox_that_was_removed_is_made_again(
    fanout: Fanout, make_inbox: Callable[..., Inbox]
) -> None:
    inbox = make_inbox()
    fanout.sqs.delete_queue(QueueUrl=inbox.open())

    assert inbox.receive(0) == []
    inbox.open()
    fanout.publish("events", "heard")

    assert inbox.receive() == ["heard"]


def test_a_subscription_that_was_removed_is_made_again(
    fanout: Fanout, make_inbox: Callable[..., Inbox], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by somebody who did not see the queue yet: it takes AWS a moment to show a new one."""
    inbox = make_inbox()
    answer = fanout.sns.list_subscriptions_by_topic(TopicArn=fanout.topic("events"))
    for subscription in answer["Subscriptions"]:
        fanout.sns.unsubscribe(SubscriptionArn=subscription["SubscriptionArn"])

    monkeypatch.setattr(tasks.fanout, "KEEP_INTERVAL", -1.0)
    inbox.open()
    fanout.publish("events", "heard")

    assert inbox.receive() == ["heard"]


def test_a_topic_that_was_removed_is_made_again(
    settings: Settings, make_inbox: Callable[..., Inbox], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By who publishes, after one that is lost, and by who listens."""
    speaker, inbox = Fanout(settings), make_inbox()
    speaker.publish("events", "first")
    assert inbox.receive() == ["first"]
    speaker.sns.delete_topic(TopicArn=speaker.topic("events"))

    with pytest.raises(speaker.sns.exceptions.NotFoundException):
        speaker.publish("events", "lost")
    speaker.publish("events", "heard by nobody yet")
    monkeypatch.setattr(tasks.fanout, "KEEP_INTERVAL", -1.0)
    inbox.open()
    speaker.publish("events", "second")

    assert inbox.receive() == ["second"]


# --- What others leave behind ---------------------------------------------------------------


def _left_behind(fanout: Fanout, name: str, kept: float | None) -> str:
    """A queue that listens to the events, last kept so many seconds ago; its ARN."""
    tags = {} if kept is None else {KEPT_TAG: str(int(time.time() - kept))}
    url = fanout.sqs.create_queue(QueueName=fanout.prefix + name, tags=tags)["QueueUrl"]
    arn = fanout.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
    return arn["Attributes"]["QueueArn"]


def _subscribe(fanout: Fanout, arn: str) -> None:
    fanout.sns.subscribe(TopicArn=fanout.topic("events"), Protocol="sqs", Endpoint=arn)


def _hear(listening: Iterator[Any], fanout: Fanout, *what: str) -> list[str]:
    """Publish and listen, one after the other."""
    heard = []
    for each in what:
        fanout.publish("events", each)
        heard.append(next(listening))
    return heard


def test_who_starts_removes_what_was_abandoned_and_nothing_else(
    fanout: Fanout, make_inbox: Callable[..., Inbox]
) -> None:
    long_ago, lately = ABANDONED_AFTER + 60, ABANDONED_AFTER - 60
    for kind in tasks.fanout.KINDS:
        _subscribe(fanout, _left_behind(fanout, f"{kind}-abandoned", long_ago))
    kept = {"control-alive", "events-no-inbox", "deliver"}
    _subscribe(fanout, _left_behind(fanout, "control-alive", lately))
    _subscribe(fanout, _left_behind(fanout, "events-no-inbox", None))
    _left_behind(fanout, "deliver", long_ago)  # No kind of inbox, whatever its tag.
    elsewhere = f"arn:aws:sqs:us-east-1:123456789012:{fanout.prefix}theirs"
    _subscribe(fanout, elsewhere)
    gone = _left_behind(fanout, "events-gone", lately)
    _subscribe(fanout, gone)
    fanout.sqs.delete_queue(QueueUrl=_url(fanout, f"{fanout.prefix}events-gone"))

    inbox = make_inbox(owner="new")
    assert _hear(inbox.listen(), fanout, "first", "second") == ["first", "second"]

    assert _queues(fanout) == kept | {"events-new"}
    subscribed = {"control-alive", "events-no-inbox", "theirs", "events-new"}
    assert _subscribed(fanout, "events") == subscribed


def test_a_process_begins_to_publish_while_it_removes_what_was_abandoned(
    fanout: Fanout, make_inbox: Callable[..., Inbox]
) -> None:
    """As a worker's events do, in a thread beside the one that listens."""

    def publish(**_: Any) -> None:
        fanout.topic("control")

    fanout.sns.meta.events.register("before-call.sns.ListSubscriptionsByTopic", publish)
    inbox = make_inbox()
    assert _hear(inbox.listen(), fanout, "first", "second") == ["first", "second"]


@pytest.mark.parametrize("client", ["sqs", "sns"])
def test_who_may_not_remove_anything_listens_all_the_same(
    fanout: Fanout, make_inbox: Callable[..., Inbox], client: str
) -> None:
    """For want of a permission, say."""
    operation = "get_paginator"
    refused = _refusal("AccessDenied", "ListSomething")
    refusing: Any = Refusing(getattr(fanout, client), operation, lambda **_: refused)
    refusing.__dict__[operation] = lambda _: _raise(refused)
    setattr(fanout, client, refusing)
    inbox = make_inbox()

    with capture_logs() as lines:
        heard = _hear(inbox.listen(), fanout, "first", "second")

    assert heard == ["first", "second"]
    assert [logs.words(line["error"]) for line in lines] == ["ClientError AccessDenied"]


def _raise(error: Exception) -> None:
    raise error


# --- While AWS is away ----------------------------------------------------------------------


@pytest.fixture
def own_aws(logs: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalAws]:
    """Not started, and forgetful: each time that it starts it is empty."""
    aws = LocalAws(logs)
    monkeypatch.setenv("AWS_ENDPOINT_URL", aws.url)
    yield aws
    aws.stop()


def test_who_listens_waits_for_an_aws_that_is_away(
    own_aws: LocalAws, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says so once for each outage, hears again, and leaves nothing in the end."""
    monkeypatch.setattr(tasks.fanout, "_PAUSE", 0.05)
    prefix = f"{unused_name('fanout')}-"
    settings = load({**AWS_CREDENTIALS, "MAILRELAY_QUEUE_PREFIX": prefix})
    listener, speaker = Fanout(settings), Fanout(settings)
    inbox = Inbox(listener, "control", "one", "control")
    heard: list[Any] = []

    def hears(word: str) -> bool:
        speaker.topic("control", anew=True)
        speaker.publish("control", word)
        return word in heard

    listening = threading.Thread(target=lambda: heard.extend(inbox.listen()))
    with capture_logs() as lines:
        listening.start()
        for word in ("first", "second"):
            wait_for(lambda: lines, "it says that AWS is away")
            own_aws.start()
            wait_for(lambda word=word: hears(word), "it hears")
            assert [line["event"] for line in lines] == ["cannot listen"]
            lines.clear()
            if word == "first":
                own_aws.stop()
        inbox.close()
        listening.join()

    assert _queues(speaker) == set()
