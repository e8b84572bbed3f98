"""The local AWS, as a test or the chaos suite starts it."""

from __future__ import annotations

import os
from pathlib import Path

from tests.support.processes import Process, answers, free_port, wait_for

AWS_CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


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


def forget_the_real_cloud() -> None:
    """Nothing of the developer's own accounts reaches a test, or a process that it starts."""
    prefixes = ("AWS_", "MAILRELAY_", "MAILGUN_", "SENDGRID_", "SES_", "EMAIL_", "FLOWER_")
    for name in [name for name in os.environ if name.startswith(prefixes)]:
        del os.environ[name]
    os.environ.update(AWS_CREDENTIALS)
