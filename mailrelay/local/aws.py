"""The local AWS, ministack, on `AWS_PORT`; its state lies in `.data/aws`.

It writes the state of SQS and DynamoDB when it is stopped, and only then. Its application runs
under uvicorn, which takes a third of the CPU that its own server takes for a request.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
from pathlib import Path

from mailrelay import settings

_LONGEST_FAREWELL = 2
"""Seconds that a stop waits for requests. A long poll outlives its client, here for up to 10 s."""


LOCK = "aws.lock"
"""In `.data`, held while a local AWS has its state there: two would overwrite each other's."""


def take(path: Path) -> int | None:
    """The descriptor that locks `path` for as long as this process has it open, or None."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def ministack_environment(port: int, state: Path) -> dict[str, str]:
    """What ministack reads when it is imported; see "Configuration" in its README."""
    return {
        "GATEWAY_PORT": str(port),
        "MINISTACK_HOST": "127.0.0.1",  # in the addresses of queues
        "SERVICES": "sqs,sns,dynamodb,sts,s3",
        "PERSIST_STATE": "1",
        "STATE_DIR": str(state),
        "S3_PERSIST": "1",  # what is in a bucket does not belong to the state
        "S3_DATA_DIR": str(state / "s3"),
        "LOG_LEVEL": "WARNING",
        # It would listen on these ports on every interface.
        "BIND_HOST": "127.0.0.1",
        "IOT_MTLS_ENABLED": "0",
        "SFTP_ENABLED": "0",
        # It would look for containers that a ministack left behind, and remove them.
        "DOCKER_HOST": "unix:///nonexistent",
    }


def main() -> None:
    port, data = settings.load().aws_port, Path.cwd() / ".data"
    if take(data / LOCK) is None:
        raise SystemExit(f"another local AWS has its state in {data}")
    os.environ.update(ministack_environment(port, data / "aws"))
    import uvicorn  # not installed in production, where nothing imports this module

    config = uvicorn.Config(
        "ministack.app:app",
        host="127.0.0.1",
        port=port,
        log_level="warning",
        timeout_graceful_shutdown=_LONGEST_FAREWELL,
    )
    logging.getLogger("uvicorn.error").addFilter(_is_news)
    uvicorn.Server(config).run()


def _is_news(record: logging.LogRecord) -> bool:
    """Not that a stop ended the long polls: uvicorn reports that, with a traceback for each."""
    error = record.exc_info and record.exc_info[1]
    return not (isinstance(error, asyncio.CancelledError) or "graceful shutdown" in record.msg)


if __name__ == "__main__":
    main()
