"""What the processes know together of the providers, on a local AWS with real races."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from mailrelay import assembly, aws, provision
from mailrelay import circuit as rules
from mailrelay.circuit import Circuit, State
from mailrelay.message import Outcome
from mailrelay.providers import Answer
from mailrelay.settings import Settings, load
from mailrelay.shared import Shared
from mailrelay.table import StoreUnavailable, Table
from tests.support.aws import AWS_CREDENTIALS
from tests.support.processes import unused_name
from tests.support.threads import at_once

NOW = 1_800_000_000_000_000
SECOND = 1_000_000
STEP = SECOND // 100
HORIZON = 2 * SECOND
FAILED = Answer(Outcome.UNAVAILABLE, "401")


@pytest.fixture(scope="module")
def settings(local_aws: str) -> Iterator[Settings]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", local_aws)
        name = unused_name("table")
        variables = {"MAILRELAY_TABLE": name, "MAILRELAY_QUEUE_PREFIX": name}
        settings = load({**AWS_CREDENTIALS, **variables})
        list(provision.provision(settings))
        yield settings


@pytest.fixture(scope="module")
def processes(settings: Settings) -> list[Shared]:
    """One for each of some processes: each has a client of its own."""
    return [Shared(assembly.store(settings).table) for _ in range(4)]


@pytest.fixture
def shared(processes: list[Shared]) -> Shared:
    return processes[0]


@pytest.fixture
def provider() -> str:
    """One that no other test has."""
    return unused_name("provider")


def test_a_provider_that_nothing_is_known_of_is_closed(shared: Shared, provider: str) -> None:
    assert shared.circuits([provider]) == {provider: Circuit(provider)}


def test_a_circuit_is_read_as_it_was_written(shared: Shared, provider: str) -> None:
    opened = rules.opened(Circuit(provider), FAILED, NOW, 10_000)
    states = [opened, rules.probing(opened, NOW, 30_000), rules.closed(opened)]
    states.append(rules.held_open(opened, NOW))
    known = Circuit(provider)
    for state in states:
        written = shared.change_circuit(known, state)
        assert written is not None
        assert written.version not in ("", known.version)
        assert written == replace(state, version=written.version)
        assert shared.circuits(["another", provider])[provider] == written
        known = written


@pytest.mark.parametrize("first", [True, False])
def test_of_many_that_change_a_circuit_at_once_one_does(
    processes: list[Shared], provider: str, first: bool
) -> None:
    """Whether there is one yet, or not."""
    before: Circuit | None = Circuit(provider)
    if not first:
        before = processes[0].change_circuit(Circuit(provider), Circuit(provider))
    assert before is not None

    def change(number: int) -> Circuit | None:
        after = rules.opened(before, replace(FAILED, code=str(number)), NOW, 10_000)
        return processes[number % len(processes)].change_circuit(before, after)

    changed = [each for each in at_once(change, range(24)) if each is not None]

    assert changed == [processes[0].circuits([provider])[provider]]


def test_who_knows_an_older_circuit_changes_nothing(shared: Shared, provider: str) -> None:
    older = shared.change_circuit(Circuit(provider), Circuit(provider))
    assert older is not None
    newer = shared.change_circuit(older, rules.held_open(older, NOW))

    for stale in (Circuit(provider), older):
        assert shared.change_circuit(stale, rules.closed(stale)) is None
    assert shared.circuits([provider])[provider] == newer


def test_a_change_whose_answer_was_lost_is_found_again(settings: Settings, provider: str) -> None:
    """botocore sends it once more, and it meets itself."""
    client = aws.dynamodb(settings)
    shared = Shared(Table(client, settings.table))
    put = client.put_item

    def twice(**kwargs: Any) -> Any:
        put(**kwargs)
        return put(**kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client, "put_item", twice)
        first = shared.change_circuit(Circuit(provider), Circuit(provider))
        assert first is not None
        second = shared.change_circuit(first, rules.held_open(first, NOW))

    assert second is not None
    assert second.state is State.OPEN
    assert shared.circuits([provider])[provider] == second


def test_a_table_that_cannot_be_reached_is_said(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    shared = Shared(Table(aws.dynamodb(settings, glance=True), settings.table))

    for call in (
        lambda: shared.circuits(["mailgun"]),
        lambda: shared.change_circuit(Circuit("mailgun"), Circuit("mailgun")),
        lambda: shared.reserve("mailgun", NOW, STEP, HORIZON),
    ):
        with pytest.raises(StoreUnavailable, match="DynamoDB"):
            call()


def most_in(starts: list[int], window: int) -> int:
    """How many of the places lie in the fullest window of that length."""
    starts = sorted(starts)
    return max(sum(first <= start < first + window for start in starts) for first in starts)


def test_places_follow_each_other(shared: Shared, provider: str) -> None:
    """The first at once, however long nobody has asked: an idle time makes no burst."""
    starts = [shared.reserve(provider, NOW, cost * STEP, HORIZON) for cost in (1, 3, 2)]
    assert starts == [NOW, NOW + STEP, NOW + 4 * STEP]

    later = NOW + 3600 * SECOND
    again = [shared.reserve(provider, later, STEP, HORIZON) for _ in range(2)]
    assert again == [later, later + STEP]


def test_places_are_given_away_up_to_the_horizon(shared: Shared, provider: str) -> None:
    cost = SECOND
    starts = [shared.reserve(provider, NOW, cost, HORIZON) for _ in range(5)]
    assert starts == [NOW, NOW + SECOND, NOW + 2 * SECOND, None, None]

    # As time goes on there are more; and a refusal took none.
    assert shared.reserve(provider, NOW + SECOND - 1, cost, HORIZON) is None
    assert shared.reserve(provider, NOW + SECOND, cost, HORIZON) == NOW + 3 * SECOND


def test_a_rate_of_less_than_one_in_a_horizon_is_kept(shared: Shared, provider: str) -> None:
    hour = 3600 * SECOND
    assert shared.reserve(provider, NOW, hour, HORIZON) == NOW
    assert shared.reserve(provider, NOW + hour - HORIZON - 1, hour, HORIZON) is None
    assert shared.reserve(provider, NOW + hour - HORIZON, hour, HORIZON) == NOW + hour


@pytest.mark.parametrize("apart", [0, 30 * SECOND], ids=["same clock", "clocks 30 s apart"])
def test_many_processes_together_keep_to_the_rate(
    processes: list[Shared], provider: str, apart: int
) -> None:
    """All places are distinct, and no window has more of them than the rate allows."""

    def reserve(number: int) -> list[int]:
        process = number % len(processes)
        now = NOW + apart * (process % 2)
        found = []
        for _ in range(8):
            count = random.randint(1, 5)
            start = processes[process].reserve(provider, now, count * STEP, HORIZON)
            if start is not None:
                assert now <= start <= now + HORIZON
                found += [start + STEP * place for place in range(count)]
        return found

    with ThreadPoolExecutor(16) as pool:
        starts = [start for found in pool.map(reserve, range(16)) for start in found]

    assert len(starts) > 50
    assert len(set(starts)) == len(starts)
    for window in (STEP, 10 * STEP, SECOND, 10 * SECOND):
        assert most_in(starts, window) <= window // STEP


def test_of_many_that_ask_at_once_for_the_last_place_one_gets_it(
    processes: list[Shared], provider: str
) -> None:
    assert processes[0].reserve(provider, NOW, HORIZON, HORIZON) == NOW

    def reserve(number: int) -> int | None:
        return processes[number % len(processes)].reserve(provider, NOW, STEP, HORIZON)

    got = [start for start in at_once(reserve, range(20)) if start is not None]

    assert got == [NOW + HORIZON]


def test_of_many_that_find_a_provider_idle_each_has_a_place_of_its_own(
    processes: list[Shared], provider: str
) -> None:
    """They may come too often between each other's looks; nobody gets another's place for that."""

    def reserve(number: int) -> int | None:
        return processes[number % len(processes)].reserve(provider, NOW, STEP, HORIZON)

    got = [start for start in at_once(reserve, range(20)) if start is not None]

    assert sorted(got) == [NOW + STEP * place for place in range(len(got))]
    assert len(got) >= 3
