"""What all tests share: the real servers on loopback, each started once when first needed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mailrelay.settings import Settings, load
from tests.support.processes import Process, answers, free_port, wait_for
from tests.support.sandbox import Sandbox

AWS_CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@pytest.fixture(scope="session", autouse=True)
def _no_real_cloud() -> None:
    """Nothing of the developer's own accounts reaches a test, or a process that it starts."""
    prefixes = ("AWS_", "MAILRELAY_", "MAILGUN_", "SENDGRID_", "SES_", "EMAIL_", "FLOWER_")
    for name in [name for name in os.environ if name.startswith(prefixes)]:
        del os.environ[name]
    os.environ.update(AWS_CREDENTIALS)


@pytest.fixture(scope="session")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the processes' output is kept."""
    return tmp_path_factory.mktemp("logs")


class LocalAws:
    """A local AWS (ministack under uvicorn) that can be stopped and started again.

    With a `state` folder it comes back as it was.
    """

    def __init__(self, logs: Path, state: Path | None = None) -> None:
        self._port = free_port()
        self._log = logs / f"aws-{self._port}.log"
        self._environ = {
            **os.environ,
            "BIND_HOST": "127.0.0.1",
            "MINISTACK_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(self._port),
            "SERVICES": "sqs,sns,dynamodb,sts,s3",
            "IOT_MTLS_ENABLED": "0",
            "SFTP_ENABLED": "0",
            **({"PERSIST_STATE": "1", "STATE_DIR": str(state)} if state else {}),
        }
        self.url = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        command = ["uvicorn", "ministack.app:app", "--host", "127.0.0.1"]
        self._process = Process(
            # It would wait for the long polls of clients that are gone.
            [*command, "--port", str(self._port), "--timeout-graceful-shutdown", "1"],
            self._environ,
            self._log,
        )
        wait_for(lambda: answers(f"{self.url}/_ministack/health"), "the local AWS answers")

    def stop(self) -> None:
        self._process.stop()


@pytest.fixture(scope="session")
def local_aws(logs: Path) -> Iterator[str]:
    """The address of a local AWS."""
    aws = LocalAws(logs)
    aws.start()
    yield aws.url
    aws.stop()


@pytest.fixture(scope="session")
def _sandbox(logs: Path) -> Iterator[Sandbox]:
    port = free_port()
    command = ["gunicorn", "--config", "python:mailrelay.sandbox.serving"]
    process = Process(
        [*command, "--bind", f"127.0.0.1:{port}", "mailrelay.sandbox:create_app()"],
        os.environ,
        logs / "sandbox.log",
    )
    sandbox = Sandbox(f"http://127.0.0.1:{port}")
    try:
        wait_for(lambda: answers(f"{sandbox.url}/faults"), "the sandbox answers")
        yield sandbox
    finally:
        process.stop()


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


def sandbox_environ(sandbox: Sandbox) -> dict[str, str]:
    """The variables that make all three providers the sandbox's."""
    return {
        "MAILGUN_API_KEY": "sandbox-key",
        "MAILGUN_DOMAIN": "sandbox.example",
        "MAILGUN_BASE_URL": f"{sandbox.url}/mailgun",
        "SENDGRID_API_KEY": "sandbox-key",
        "SENDGRID_BASE_URL": f"{sandbox.url}/sendgrid",
        "SES_ENDPOINT_URL": f"{sandbox.url}/ses",
    }
