"""``GET /providers`` and ``mailrelay providers``: what all workers know, and a person's word."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result
from moto import mock_aws

from mailrelay import circuit, cli, clock, provision
from mailrelay.circuit import State
from mailrelay.message import Outcome
from mailrelay.providers import Answer
from mailrelay.shared import Shared
from tests.support.aws import AWS_CREDENTIALS
from tests.unit.test_web_app import World

VARIABLES = {**AWS_CREDENTIALS, "MAILRELAY_RATE_MAILGUN": "30/m"}
CLOSED = {
    "status": "closed",
    "since": None,
    "until": None,
    "outcome": None,
    "code": None,
    "held": False,
    "rate": None,
}


@pytest.fixture
def world() -> Iterator[World]:
    with mock_aws():
        world = World(MAILRELAY_RATE_MAILGUN="30/m")
        list(provision.provision(world.settings))
        yield world


@pytest.fixture
def shared(world: World) -> Shared:
    return Shared(world.store.table)


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(cli.main, ["providers", *arguments], env=VARIABLES)
    assert "Traceback" not in result.output
    return result


def shown(world: World) -> dict[str, dict[str, Any]]:
    response = world.get("/providers")
    assert response.status_code == 200
    return {one.pop("name"): one for one in response.json["providers"]}


def fail(shared: Shared, name: str, answer: Answer, at: int) -> None:
    before = shared.circuits([name])[name]
    after = circuit.opened(before, answer, at, 10_000)
    assert shared.change_circuit(before, after) is not None


def test_providers_are_shown_in_the_order_of_the_chain_with_their_rates(world: World) -> None:
    found = shown(world)

    assert list(found) == ["mailgun", "ses", "sendgrid"]
    assert found == {
        "mailgun": {**CLOSED, "rate": 0.5},
        "ses": CLOSED,
        "sendgrid": CLOSED,
    }


def test_one_that_fails_is_shown_with_why_and_until_when(world: World, shared: Shared) -> None:
    """Not in its own words, which may name a recipient."""
    now = clock.now()
    fail(shared, "ses", Answer(Outcome.UNAVAILABLE, "401", "pedro@example.org"), now)

    response = world.get("/providers")

    assert shown(world)["ses"] == {
        **CLOSED,
        "status": "open",
        "since": clock.rfc3339(now),
        "until": clock.rfc3339(now + 10_000),
        "outcome": "unavailable",
        "code": "401",
    }
    assert "pedro" not in response.text
    assert "unavailable 401" in run().output


def test_one_whose_time_is_over_is_half_open(world: World, shared: Shared) -> None:
    fail(shared, "ses", Answer(Outcome.RETRY, "503"), clock.now() - 20_000)

    assert shown(world)["ses"]["status"] == "half_open"


@pytest.mark.parametrize("key", [None, "wrong"])
def test_providers_are_shown_to_no_stranger(world: World, key: str | None) -> None:
    assert world.get("/providers", key=key).status_code == 401


def test_a_person_opens_and_closes_a_circuit(world: World, shared: Shared) -> None:
    assert run("open", "mailgun").exit_code == 0
    held = shown(world)["mailgun"]
    assert (held["status"], held["held"], held["until"]) == ("open", True, None)
    assert "held open by hand" in run().output

    assert run("close", "mailgun").exit_code == 0
    assert shared.circuits(["mailgun"])["mailgun"].state is State.CLOSED
    assert shown(world)["mailgun"] == {**CLOSED, "rate": 0.5}


def test_a_provider_that_is_not_in_the_chain_is_named(world: World) -> None:
    result = run("open", "pigeon")

    assert result.exit_code == 1
    assert result.output == (
        "mailrelay: pigeon is none of EMAIL_PROVIDERS, which are mailgun, ses, sendgrid\n"
    )


def test_a_table_that_is_not_there_ends_the_command_with_one_line() -> None:
    with mock_aws():
        result = run()

    assert result.exit_code == 75
    assert result.output == "mailrelay: AWS: DynamoDB: ResourceNotFoundException\n"


def test_a_table_that_cannot_be_reached_is_a_503(world: World) -> None:
    world.dynamodb.delete_table(TableName=world.settings.table)

    assert world.get("/providers").status_code == 503
