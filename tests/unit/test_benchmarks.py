"""What `make bench` makes of its measurements; measuring itself is no matter for a test."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from dataclasses import asdict, replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from benchmarks import cost, events, fairness, machine, result, workers
from benchmarks.__main__ import MEASUREMENTS, main
from benchmarks.aws import OURSELVES, REQUESTS, Region, operation
from benchmarks.bench import in_turns
from benchmarks.events import Told
from benchmarks.load import Run
from benchmarks.processes import Process, Stuck, resident_of_sessions, until
from benchmarks.result import Figure, Result, Target, compared

RUN = Run(
    relay="mailrelay",
    workers=1,
    emails=1000,
    seconds=10,
    cpu_seconds=6,
    cpu_emails=1000,
    requests={},
    others=0,
)
QUIET = Told(events=False, run=RUN, publishes=0, published_bytes=0, largest_publish=0, told=0)
TOLD = Told(
    events=True, run=RUN, publishes=20, published_bytes=120_000, largest_publish=9000, told=3000
)


def of_seconds(on: tuple[float, ...], off: tuple[float, ...]) -> dict[str, Figure]:
    """The figures of runs that took so long with and without events."""
    runs = [
        replace(kind, run=replace(RUN, seconds=seconds))
        for pair in zip(on, off, strict=True)
        for kind, seconds in zip((TOLD, QUIET), pair, strict=True)
    ]
    return {figure.what: figure for figure in events.figures(runs)}


def test_the_ratio_is_of_medians_so_that_one_bad_run_does_not_decide() -> None:
    found = of_seconds(on=(10, 10, 40), off=(10, 10, 10))

    assert found["throughput on : off, medians"].mailrelay == "1.00"
    assert found["the same, each pair"].mailrelay == "1.00 1.00 0.25"


@pytest.mark.parametrize(("seconds", "verdict"), [(10.9, "yes"), (11.5, "missed")])
def test_a_promise_that_is_not_kept_is_said_to_be_missed(seconds: float, verdict: str) -> None:
    found = of_seconds(on=(seconds,), off=(10,))
    assert found["throughput on : off, medians"].verdict == verdict

    shown = StringIO()
    table = result.table([Result("events", tuple(found.values()), {})])
    Console(file=shown, width=140).print(table)
    assert ("missed" in shown.getvalue()) is (verdict == "missed")


def test_what_sns_was_asked_is_told_for_an_email_with_events_alone() -> None:
    found = of_seconds(on=(10, 10), off=(10, 10))

    assert found["SNS requests an email"].mailrelay == "0.020"
    assert found["events an email"].mailrelay == "3.00"
    assert found["bytes an email, in SNS"].mailrelay == "120"


@pytest.mark.parametrize(
    ("more_is_better", "ratio"), [(False, "2.0"), (True, "0.5")], ids=["less", "more"]
)
def test_the_ratio_is_of_pairs_and_says_how_many_times_better_mailrelay_is(
    more_is_better: bool, ratio: str
) -> None:
    """The second pair was measured on a machine three times as slow."""
    pairs = [(1.0, 2.0), (3.0, 6.0), (1.0, 1.9)]

    row = compared("accept", pairs, " s", more_is_better=more_is_better)

    assert (row.mailrelay, row.stock, row.ratio) == ("1.00 s", "2.00 s", ratio)


@pytest.mark.parametrize(
    ("target", "value", "verdict"),
    [
        (Target("", 2, 4), 1.99, "missed"),
        (Target("", 2, 4), 2, "yes"),
        (Target("", 2, 4), 4, "yes, and the aim"),
        (Target("", 30, 15, at_most=True), 31, "missed"),
        (Target("", 30, 15, at_most=True), 30, "yes"),
        (Target("", 30, 15, at_most=True), 15, "yes, and the aim"),
        (Target("", 2), 9, "yes"),
    ],
)
def test_a_number_is_held_against_what_is_promised_and_what_is_aimed_at(
    target: Target, value: float, verdict: str
) -> None:
    assert target.verdict(value) == verdict


def test_two_workers_are_held_against_one_of_the_same_pair() -> None:
    """The second pair was measured on a machine half as fast."""
    one, two = replace(RUN, seconds=10), replace(RUN, workers=2, seconds=5.2)
    slow = replace(one, seconds=20), replace(two, seconds=10.4)

    rates, _ = workers.figures([(one, two), slow, slow])

    assert rates.mailrelay == "96 : 50 = 1.92"
    assert rates.verdict == "yes"


def test_each_of_a_pair_goes_first_every_other_time() -> None:
    assert [in_turns(number, "ab") for number in range(3)] == [["a", "b"], ["b", "a"], ["a", "b"]]


def test_the_table_is_there_for_documents_too() -> None:
    pairs = [(1.0, 2.0)]
    row = compared("accept", pairs, " s", target=Target("3 times", 3))

    text = result.markdown([Result("accept", (row,), {})])

    assert text.splitlines()[2] == "| accept | 2.00 s | 1.00 s | 2.0 | 3 times | missed |"


def test_the_file_holds_the_figures_what_they_are_made_of_and_where(tmp_path: Path) -> None:
    made = Result("events", events.figures([TOLD, QUIET]), {"runs": [asdict(TOLD)]})

    path = result.save(made, machine.describe(), tmp_path / "results")

    kept = json.loads(path.read_text())
    assert path.name == "events.json"
    assert kept["runs"] == [asdict(TOLD)]
    assert kept["figures"][0] == asdict(made.figures[0])
    wanted = {"commit", "changed", "date", "cores", "cpu", "memory_gib", "versions"}
    assert kept["about"].keys() >= wanted


@pytest.mark.parametrize(
    ("headers", "counted"),
    [
        ({b"x-amz-target": b"DynamoDB_20120810.PutItem"}, "dynamodb.PutItem"),
        ({b"x-amz-target": b"AmazonSQS.SendMessage"}, "sqs.SendMessage"),
        ({b"authorization": b"AWS4-HMAC-SHA256 Credential=A/20261101/us/sns/aws4_request"}, "sns"),
        ({b"user-agent": OURSELVES.encode(), b"x-amz-target": b"AmazonSQS.SendMessage"}, None),
        ({}, None),
    ],
    ids=["dynamodb", "sqs", "by its signature", "the benchmark's own", "unsigned"],
)
def test_a_request_counts_as_what_it_asks_for(
    headers: dict[bytes, bytes], counted: str | None
) -> None:
    assert operation(headers) == counted


def test_the_local_aws_tells_what_it_was_asked() -> None:
    """Whoever asks, by whichever library; and it is served as before."""
    sent: list[Any] = []

    async def aws(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def receive() -> Any:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        sent.append(message)

    async def ask() -> None:
        application = Region(aws, seconds=0, takes_all=False)
        target = (b"x-amz-target", b"AmazonSQS.SendMessage")
        for path, headers in (("/", [target]), ("/", [target]), (REQUESTS, [])):
            await application({"type": "http", "path": path, "headers": headers}, receive, send)

    asyncio.run(ask())

    assert [message.get("status") for message in sent[:2]] == [200, 200]
    assert json.loads(sent[-1]["body"]) == {"sqs.SendMessage": 2}


def test_a_long_poll_is_answered_when_a_message_comes() -> None:
    """And not when the local AWS looks for one the next time."""
    queue: list[str] = []
    asked: list[Any] = []

    async def aws(scope: Any, receive: Any, send: Any) -> None:
        if scope["target"] == "SendMessage":
            queue.append("message")
        else:
            asked.append(json.loads((await receive())["body"]))
        answer = {"Messages": queue} if queue else {}
        await send({"type": "http.response.body", "body": json.dumps(answer).encode()})

    async def ask(region: Region, target: str) -> bytes:
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": b'{"QueueUrl": "q", "WaitTimeSeconds": 60}'}

        async def send(message: Any) -> None:
            sent.append(message)

        headers = [(b"x-amz-target", f"AmazonSQS.{target}".encode()), (b"content-length", b"42")]
        scope = {"type": "http", "path": "/", "target": target, "headers": headers}
        await region(scope, receive, send)
        answer: bytes = sent[-1]["body"]
        return answer

    async def poll_then_send() -> bytes:
        region = Region(aws, seconds=0, takes_all=False)
        poll = asyncio.create_task(ask(region, "ReceiveMessage"))
        while not asked:
            await asyncio.sleep(0)
        await ask(region, "SendMessage")
        return await asyncio.wait_for(poll, timeout=30)

    assert json.loads(asyncio.run(poll_then_send())) == {"Messages": ["message"]}
    assert [request["WaitTimeSeconds"] for request in asked] == [0, 0]


@pytest.mark.parametrize(
    ("fair", "longest"), [(False, 7.5), (True, 0.3)], ids=["as it is", "fair"]
)
def test_a_fair_queue_brings_a_small_sender_past_a_big_one(fair: bool, longest: float) -> None:
    """2,000 emails at 250 a second take 8 s; the small sender's first comes half a second later."""
    waits = fairness.simulate(fair=fair, big=2000)

    assert len(waits) == 8
    assert longest / 2 < max(waits) < longest + 0.2


def test_what_dies_in_a_simulated_queue_is_brought_back() -> None:
    """20,000 emails take longer than their messages live: each is sent all the same."""
    waits = fairness.simulate(fair=False, big=20_000)

    assert len(waits) == pytest.approx(20_000 / fairness.RATE, abs=2)


def test_aws_itself_is_not_asked_before_its_cost_is_agreed_to() -> None:
    said = CliRunner().invoke(main, ["--aws", "accept"])

    assert said.exit_code == 2
    assert "at most $0.0" in said.output
    assert "give --yes as well" in said.output


def test_what_a_local_aws_alone_can_tell_is_not_measured_on_aws() -> None:
    said = CliRunner().invoke(main, ["--aws", "--yes", "memory"])

    assert said.exit_code == 2
    assert "memory: on the local AWS alone" in said.output


def test_the_cost_is_of_measurements_that_there_are() -> None:
    assert cost.EMAILS.keys() <= MEASUREMENTS.keys()
    assert cost.dollars(["accept", "idle"]) > cost.dollars(["idle"]) > 0


def test_the_cpu_of_a_process_is_read_while_it_lives(tmp_path: Path) -> None:
    """Not less than it says of itself, but for the ticks that the kernel counts in."""
    spun = tmp_path / "spun"
    spin = (
        "import signal, sys, time\n"
        "while time.process_time() < 0.3: pass\n"
        "open(sys.argv[1], 'x').close()\n"
        "signal.pause()\n"
    )
    process = Process(["python", "-c", spin, str(spun)], os.environ, tmp_path / "log")
    try:
        until(spun.exists, "it has used its CPU")
        assert process.cpu() >= 0.28
    finally:
        process.stop()


def test_the_memory_of_a_process_is_read_with_that_of_its_children(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    hold = (
        "import os, signal, sys\n"
        "os.fork()\n"
        "held = b'x' * 30_000_000\n"
        "open(sys.argv[1], 'a').write('x')\n"
        "signal.pause()\n"
    )
    process = Process(["python", "-c", hold, str(ready)], os.environ, tmp_path / "log")
    try:
        until(lambda: ready.exists() and ready.read_text() == "xx", "both hold their memory")
        assert 60_000_000 < resident_of_sessions({process.session}) < 150_000_000
    finally:
        os.killpg(process.session, signal.SIGTERM)
        process.stop()


def test_a_part_that_ends_too_early_is_shown_with_its_last_words(tmp_path: Path) -> None:
    ending = "import sys; sys.exit('no such table')"
    process = Process(["python", "-c", ending], os.environ, tmp_path / "log")

    with pytest.raises(Stuck, match=r"ended with 1(?s:.)*no such table"):
        process.finish()
