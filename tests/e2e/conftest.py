"""The whole relay, as the Procfile starts it, on the local AWS and the sandbox."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.aws import LocalAws
from tests.support.sandbox import Sandbox
from tests.support.stack import Stack, create, procfile

MakeStack = Callable[..., Stack]


@contextmanager
def _stacks(local_aws: str, sandbox: Sandbox, logs: Path) -> Iterator[MakeStack]:
    stacks: list[Stack] = []

    def make(**variables: str) -> Stack:
        stack = create(local_aws, sandbox, logs, **variables)
        stacks.append(stack)
        return stack

    try:
        yield make
    finally:
        with ThreadPoolExecutor() as pool:
            list(pool.map(Stack.stop, stacks))


@pytest.fixture
def make_stack(local_aws: str, _sandbox: Sandbox, logs: Path) -> Iterator[MakeStack]:
    """A stack with variables of its own, on a table and queues of its own; nothing started.

    It is stopped with its test: one that goes on sweeping takes a tenth of a core.
    """
    with _stacks(local_aws, _sandbox, logs) as make:
        yield make


@pytest.fixture(scope="module")
def make_shared_stack(local_aws: str, _sandbox: Sandbox, logs: Path) -> Iterator[MakeStack]:
    """The same for a stack that all tests of a module share."""
    with _stacks(local_aws, _sandbox, logs) as make:
        yield make


@pytest.fixture
def own_aws(logs: Path, tmp_path: Path) -> Iterator[LocalAws]:
    """A local AWS that a test may stop and start."""
    aws = LocalAws(logs, tmp_path / "state")
    aws.start()
    yield aws
    aws.stop()


def _whole(make_stack: MakeStack) -> Stack:
    stack = make_stack()
    for part in procfile():
        if part != "flower":
            stack.start(part)
    return stack


@pytest.fixture(scope="module")
def stack(make_shared_stack: MakeStack) -> Stack:
    """A whole relay, running; without Flower, which only those need who look at it.

    All tests of a module share it, and five failures within 30 s have it leave a provider alone.
    """
    return _whole(make_shared_stack)


@pytest.fixture
def own_stack(make_stack: MakeStack) -> Stack:
    """The same for one test, in which providers fail several times."""
    return _whole(make_stack)
