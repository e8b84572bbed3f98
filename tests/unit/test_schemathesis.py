"""Schemathesis: whatever the description allows is taken, whatever it does not is refused, and each
answer is as described.

The same requests for everybody; for others and for more, ``SCHEMATHESIS_EXAMPLES=1000``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test
from schemathesis.specs.openapi.checks import allow_header_conformance, positive_data_acceptance

from mailrelay.web.schemas import MAX_LINE
from tests.support.description import document
from tests.unit import test_web_app
from tests.unit.test_web_app import KEY, World, clear

cloud = test_web_app.cloud
shared_world = test_web_app.shared_world
world = test_web_app.world

MORE = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "0"))

INDESCRIBABLE = {
    "Is given twice.",
    f"Name and value are longer than {MAX_LINE} characters.",
    "This key was used before, with another body.",
}
"""What JSON Schema cannot say; it stands in the description's texts."""

# What an address is, no pattern tells; some that are right, so that what is beside them is tried.
schemathesis.openapi.format(
    "idn-email",
    st.sampled_from(["pedro@example.org", "o'brien+tag@example.com", "用户@例え.jp"]),
)

bounded = settings(
    max_examples=MORE or 10,
    derandomize=not MORE,
    database=None,
    deadline=None,
    # One world serves all requests: an answer depends on no other's.
    suppress_health_check=list(HealthCheck),
)


class Application:
    """That of the test under way, which is not there yet when the tests are collected."""

    world: World

    def __call__(self, *call: Any) -> Any:
        return self.world.app(*call)


API = schemathesis.openapi.from_dict(deepcopy(document()))  # It writes into it.
API.app = Application()


@API.auth()
class Key:
    """The requests' API key, whatever else they say."""

    def get(self, case: schemathesis.Case, context: schemathesis.AuthContext) -> str:
        return KEY

    def set(self, case: schemathesis.Case, data: str, context: schemathesis.AuthContext) -> None:
        case.headers["Authorization"] = f"Bearer {data}"


@pytest.fixture(autouse=True)
def _application(world: World) -> None:
    Application.world = world


def _validate(case: schemathesis.Case, response: schemathesis.Response, **options: Any) -> None:
    excluded = []
    if case.operation.path == "/emails/send":
        # To OPTIONS Flask names the methods of each route that fits, and /emails/{id} fits as well.
        excluded.append(allow_header_conformance)
    if response.status_code == 422 and set(_said(response)) <= INDESCRIBABLE:
        excluded.append(positive_data_acceptance)
    case.validate_response(response, excluded_checks=excluded, **options)


def _said(response: schemathesis.Response) -> Iterator[str]:
    """What is wrong, of all fields."""
    for texts in response.json()["errors"].values():
        yield from texts


@API.parametrize()
@bounded
def test_each_operation(case: schemathesis.Case) -> None:
    _validate(case, case.call())
    if case.operation.label == "POST /emails/send":
        clear(Application.world.dynamodb)  # What a transaction takes here grows with the table.


def test_operations_one_after_another() -> None:
    """What one answers, the others take: the links of the description."""

    class Walk(API.as_state_machine()):  # type: ignore[misc]
        def validate_response(
            self, response: schemathesis.Response, case: schemathesis.Case, **_: Any
        ) -> None:
            _validate(case, response, recorder=self.recorder)

    run_state_machine_as_test(Walk, settings=settings(bounded, stateful_step_count=4))
