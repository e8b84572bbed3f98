"""What a line in the log looks like, and what never gets into one."""

from __future__ import annotations

import contextvars
import io
import json
import logging
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import structlog
from botocore.exceptions import ClientError
from structlog.testing import capture_logs

from mailrelay import logs
from mailrelay.message import EmailId, Outcome, Status
from mailrelay.observation import (
    AttemptEnded,
    BatchAccepted,
    EmailResent,
    EmailResolved,
    ShardSwept,
)
from mailrelay.store import StoreUnavailable
from tests.support.records import a_batch, an_attempt, an_email

SECRET = "pedro@example.org"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def written(format: str, say: Callable[[Any], None], name: str = "mailrelay.test") -> str:
    """What is written of what `say` says to the logger that it is given."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.formatter(format, stream))
    logger = logging.Logger(name)  # noqa: LOG001 - one that is nobody else's
    logger.addHandler(handler)
    say(logger)
    return stream.getvalue()


def ours(logger: logging.Logger) -> Any:
    """As `structlog.get_logger` returns them once `logs.configure` was called."""
    return structlog.wrap_logger(
        logger,
        processors=[structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
    )


def line(say: Callable[[Any], None], name: str = "mailrelay.test") -> dict[str, Any]:
    """The one line that `say` makes in JSON."""
    text = written("json", say, name)
    assert text.count("\n") == 1
    found: dict[str, Any] = json.loads(text)
    return found


def test_a_line_says_when_how_grave_what_and_from_where() -> None:
    found = line(lambda logger: ours(logger).info("an attempt ended", email_id="x-0"))

    moment = found.pop("timestamp")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", moment)
    assert found == {
        "level": "info",
        "event": "an attempt ended",
        "logger": "mailrelay.test",
        "email_id": "x-0",
    }


def test_a_library_s_line_looks_the_same() -> None:
    found = line(lambda logger: logger.warning("%s of %d", "one", 2), "kombu")

    assert (found["level"], found["event"], found["logger"]) == ("warning", "one of 2", "kombu")


@pytest.mark.parametrize("say", [lambda log: ours(log).info("x"), lambda log: log.info("x")])
def test_what_is_bound_is_in_each_line(say: Callable[[Any], None]) -> None:
    """In ours and in those of the libraries."""

    def bound() -> dict[str, Any]:
        structlog.contextvars.bind_contextvars(request_id="order-1")
        return line(say)

    assert contextvars.Context().run(bound)["request_id"] == "order-1"


def test_what_a_line_says_itself_stands_above_what_is_bound() -> None:
    """A sweep speaks of many emails, and each was sent by a request of its own."""

    def bound() -> dict[str, Any]:
        structlog.contextvars.bind_contextvars(request_id="order-1")
        return line(lambda log: ours(log).info("x", request_id="order-2"))

    assert contextvars.Context().run(bound)["request_id"] == "order-2"


def test_what_is_not_known_is_left_out() -> None:
    assert "code" not in line(lambda log: ours(log).info("x", code=None))


def raise_(error: BaseException, cause: BaseException | None = None) -> Any:
    """An `exc_info` whose frames hold an address, too."""
    address = SECRET  # noqa: F841
    try:
        raise error from cause
    except type(error):
        return sys.exc_info()


def _celery_s(log: Any) -> None:
    context = {"name": "tasks.deliver", "id": "1", "exc": repr(ValueError(SECRET)), "args": SECRET}
    template = "Task %(name)s[%(id)s] raised unexpected: %(exc)s"
    log.error(template, context, exc_info=raise_(ValueError(SECRET)), extra={"data": context})


QUOTING = {
    "value": lambda log: ours(log).error("x", error=ValueError(SECRET)),
    "list": lambda log: ours(log).error("x", errors=[ValueError(SECRET)]),
    "traceback": lambda log: ours(log).error("x", exc_info=raise_(ValueError(SECRET))),
    "cause": lambda log: ours(log).error("x", exc_info=raise_(KeyError("1"), ValueError(SECRET))),
    "exception": lambda log: ours(log).error("x", exc_info=ValueError(SECRET)),
    "record": lambda log: ours(log).error("x", email=an_email(a_batch())),
    "argument": lambda log: log.error("failed: %s %r", ValueError(SECRET), ValueError(SECRET)),
    "message": lambda log: log.error(ValueError(SECRET)),
    "their traceback": lambda log: log.error("x", exc_info=raise_(ValueError(SECRET))),
    "dump": lambda log: log.error("Received invalid task message\nThe body was: %s", SECRET),
    "printed traceback": lambda log: log.error(f"\nTraceback (most recent …):\n  {SECRET}"),
    "wrong arguments": lambda log: log.error("%d of %d", SECRET),  # noqa: PLE1206
    "celery's": _celery_s,
}


@pytest.mark.parametrize("format", ["json", "text"])
@pytest.mark.parametrize("say", QUOTING.values(), ids=QUOTING)
def test_nothing_is_quoted(say: Callable[[Any], None], format: str) -> None:
    """Neither the text of an exception nor the value of a variable, whoever logs it."""
    text = written(format, say)

    assert text.count("mailrelay.test") == 1
    assert "pedro" not in text


def test_a_traceback_says_where_and_what_it_came_from() -> None:
    info = raise_(StoreUnavailable(SECRET), ValueError(SECRET))
    found = line(lambda log: ours(log).error("x", error=info[1], exc_info=info))

    assert found["error"] == "StoreUnavailable from ValueError"
    assert found["exception"].startswith("ValueError\n\n")
    assert re.search(
        rf'File "{__file__}", line \d+, in raise_\nStoreUnavailable$', found["exception"]
    )


def test_a_task_that_raises_is_named_with_its_error() -> None:
    found = line(_celery_s, "celery.app.trace")

    assert found["event"] == "Task tasks.deliver[1] raised unexpected: ValueError"
    assert "in raise_" in found["exception"]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("ThrottlingException", "ClientError ThrottlingException"),
        (f"to {SECRET}", "ClientError"),
        (None, "ClientError"),
    ],
)
def test_aws_s_errors_are_named_by_their_code(code: Any, said: str) -> None:
    error = ClientError({"Error": {"Code": code, "Message": SECRET}}, "Query")

    assert logs.words(error) == said


def test_an_exception_that_is_its_own_cause_has_an_end() -> None:
    one, other = ValueError(), KeyError()
    one.__cause__, other.__cause__ = other, one

    assert logs.words(one).startswith("ValueError from KeyError")


def test_nothing_that_a_terminal_obeys_is_written() -> None:
    assert "\x1b" not in written("text", lambda log: log.info("\x1b]0;title\x07"))


@pytest.mark.parametrize(
    ("format", "stream", "is_json"),
    [
        ("auto", io.StringIO(), True),
        ("auto", Terminal(), False),
        ("json", Terminal(), True),
        ("text", io.StringIO(), False),
    ],
)
def test_a_terminal_gets_text_and_everything_else_json(
    format: str, stream: io.StringIO, is_json: bool
) -> None:
    assert logs.is_json(format, stream) is is_json
    record = logging.makeLogRecord({"msg": "x"})
    assert logs.formatter(format, stream).format(record).startswith("{") is is_json


@pytest.mark.parametrize(
    ("variables", "stream", "coloured"),
    [
        ({}, Terminal(), True),
        ({"NO_COLOR": "1"}, Terminal(), False),
        ({}, io.StringIO(), False),
        ({"FORCE_COLOR": "1"}, io.StringIO(), True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, Terminal(), False),
    ],
)
def test_text_is_coloured_where_colours_are_seen(
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    stream: io.StringIO,
    coloured: bool,
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    line = logs.formatter("text", stream).format(logging.makeLogRecord({"msg": "x"}))

    assert ("\x1b[" in line) is coloured


# What was observed

EMAIL = EmailId("01M86CPHWVMXAYHCK7BA5TAEQD", 0)


def ended(outcome: Outcome, status: Status | None = Status.QUEUED, **changes: Any) -> AttemptEnded:
    attempt = an_attempt(an_email(a_batch()), outcome, reason=f"no such user: {SECRET}", **changes)
    return AttemptEnded(EMAIL, attempt, status, accepted_ago=1200)


def observed(what: Any) -> Any:
    with capture_logs() as lines:
        logs.observe(what)
    (found,) = lines
    return found


def test_an_attempt_is_one_line_without_the_provider_s_prose() -> None:
    assert observed(ended(Outcome.RETRY)) == {
        "log_level": "info",
        "event": "an attempt ended",
        "email_id": str(EMAIL),
        "attempt": 1,
        "provider": "mailgun",
        "outcome": "retry",
        "code": "503",
        "duration_ms": 12,
        "status": "queued",
        "since_accepted_ms": 1200,
    }


@pytest.mark.parametrize(
    ("outcome", "level"),
    [
        (Outcome.ACCEPTED, "info"),
        (Outcome.REJECTED, "info"),
        (Outcome.RETRY, "info"),
        (Outcome.UNAVAILABLE, "warning"),
        (Outcome.UNKNOWN, "warning"),
    ],
)
def test_what_somebody_should_look_at_is_a_warning(outcome: Outcome, level: str) -> None:
    assert observed(ended(outcome))["log_level"] == level


def test_a_code_that_may_be_prose_is_left_out() -> None:
    assert observed(ended(Outcome.RETRY, code=f"550 no such user {SECRET}"))["code"] is None


def test_an_accepted_batch_is_one_line() -> None:
    assert observed(BatchAccepted("B", "shop", emails=3, enqueued=True)) == {
        "log_level": "info",
        "event": "a batch was accepted",
        "batch_id": "B",
        "key_name": "shop",
        "emails": 3,
        "enqueued": True,
    }


def test_what_a_person_decides_is_one_line_of_the_email_s_way() -> None:
    assert observed(EmailResent(EMAIL, "order-1", Status.UNKNOWN, 2, enqueued=True)) == {
        "log_level": "info",
        "event": "an email was resent",
        "request_id": "order-1",
        "email_id": str(EMAIL),
        "was": "unknown",
        "attempt": 2,
        "enqueued": True,
    }
    assert observed(EmailResolved(EMAIL, "order-1", Status.SENT)) == {
        "log_level": "info",
        "event": "an email was resolved",
        "request_id": "order-1",
        "email_id": str(EMAIL),
        "status": "sent",
    }


@pytest.mark.parametrize(
    ("did", "level"),
    [({}, "debug"), ({"enqueued": 1}, "info"), ({"ended": 1}, "info"), ({"withdrawn": 1}, "info")],
)
def test_a_sweep_that_did_nothing_says_nothing_to_most(did: dict[str, int], level: str) -> None:
    """Eight sweeps every ten seconds would bury the rest."""
    idle = ShardSwept(
        shard=0,
        found=1,
        most_overdue=1,
        enqueued=0,
        ended=0,
        withdrawn=0,
        duration_ms=3,
        complete=True,
    )

    assert observed(replace(idle, **did))["log_level"] == level


# The process

PROGRAM = """
import logging, sys, threading, warnings
from mailrelay import logs

logs.configure("json", "INFO")
secret = "pedro@example.org"

def fail():
    raise ValueError(secret)

class Unraisable:
    def __del__(self):
        fail()

{}
"""


@pytest.mark.parametrize(
    "code",
    [
        "fail()",
        "thread = threading.Thread(target=fail); thread.start(); thread.join()",
        "Unraisable()",
        "warnings.warn('old\\n' + secret)",
        "logging.getLogger().error('%s', object(), exc_info=ValueError(secret))",
        "logging.getLogger('botocore').debug('{}', secret); logging.info('x')",
    ],
)
def test_whatever_a_process_says_is_json_and_quotes_nothing(code: str) -> None:
    """Also what Python itself would print."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.replace("{}", code, 1)],
        capture_output=True,
        text=True,
        check=False,
    )

    (said,) = map(json.loads, done.stderr.splitlines())
    assert said["event"]
    assert done.stdout == ""
    assert "pedro" not in done.stderr


def test_a_file_in_place_of_standard_error(tmp_path: Any) -> None:
    """As `celery --logfile` asks."""
    file = tmp_path / "worker.log"
    code = f"from mailrelay import logs; logs.configure('auto', 'INFO', {str(file)!r});"
    done = subprocess.run(
        [sys.executable, "-c", f"{code} logs.log.info('x')"],
        capture_output=True,
        check=True,
    )

    assert done.stderr == b""
    assert json.loads(file.read_text())["event"] == "x"
