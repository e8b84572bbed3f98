"""What all tests share: the real servers on loopback, each started once when first needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mailrelay.settings import Settings, load
from tests.support.aws import AWS_CREDENTIALS, LocalAws, forget_the_real_cloud
from tests.support.sandbox import Sandbox, serving


@pytest.fixture(scope="session", autouse=True)
def _no_real_cloud() -> None:
    forget_the_real_cloud()


@pytest.fixture(scope="session")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the processes' output is kept."""
    return tmp_path_factory.mktemp("logs")


@pytest.fixture(scope="session")
def local_aws(logs: Path) -> Iterator[str]:
    """The address of a local AWS."""
    aws = LocalAws(logs)
    aws.start()
    yield aws.url
    aws.stop()


@pytest.fixture(scope="session")
def _sandbox(logs: Path) -> Iterator[Sandbox]:
    with serving(logs) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(_sandbox: Sandbox) -> Sandbox:
    """The provider sandbox, healthy and empty."""
    _sandbox.reset()
    return _sandbox


@pytest.fixture
def make_settings(request: pytest.FixtureRequest) -> Callable[..., Settings]:
    """Settings from variables, such as ``make_settings(MAILRELAY_LEASE="20")``."""

    def make(**variables: str) -> Settings:
        return load({**AWS_CREDENTIALS, **variables})

    return make
