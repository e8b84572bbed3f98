"""Logs: one JSON object a line for machines, coloured text on a terminal, nothing of any mail.

structlog over the standard library's logging, so that what Celery, kombu, gunicorn and botocore
say comes out like our own lines.

An exception's text may quote an address, a content or a signed request, and so may what a library
says about it. Of exceptions, only types, AWS's codes and places in the code are ever written; of a
library's text only the first line, since behind it come dumps of messages and tracebacks.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from logging.handlers import WatchedFileHandler
from types import TracebackType
from typing import Any, TextIO

import structlog
from structlog.types import EventDict, Processor

from mailrelay import clock
from mailrelay.circuit import Circuit, State
from mailrelay.message import Outcome
from mailrelay.observation import (
    AttemptEnded,
    BatchAccepted,
    CircuitChanged,
    EmailPutOff,
    EmailResent,
    EmailResolved,
    EmailSwept,
    Observation,
    ShardSwept,
)

log = structlog.get_logger(__name__)

FORMATS = ("auto", "json", "text")

_QUOTING = ("boto3", "botocore", "s3transfer", "urllib3")
"""Libraries that write requests and answers into the log at the level DEBUG."""

_MAX_CHAIN = 10
"""Exceptions that are followed from one to its cause."""

_MAX_FRAMES = 30
"""Places of a traceback that are written: the last ones."""

_CODE = re.compile(r"[A-Za-z0-9_.:-]{1,100}")
"""What a provider's or AWS's code looks like. Anything else may be prose, which may quote."""


def configure(format: str, level: int | str = logging.INFO, logfile: str | None = None) -> None:
    """Write everything from `level` on to standard error, or to `logfile`.

    `format` is one of FORMATS. To be called where a process begins; once more, it replaces what
    was there.
    """
    handler: logging.StreamHandler[Any] = (
        WatchedFileHandler(logfile, encoding="utf-8")
        if logfile
        else logging.StreamHandler(_standard_error())
    )
    handler.setFormatter(formatter(format, handler.stream))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    for name in _QUOTING:
        logging.getLogger(name).setLevel(logging.WARNING)
    # It would print what cannot be formatted, arguments and all.
    logging.raiseExceptions = False
    logging.captureWarnings(True)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    sys.excepthook = _uncaught
    threading.excepthook = sys.unraisablehook = _uncaught_elsewhere


def _standard_error() -> TextIO:
    # Not sys.stderr: Celery puts a logger in its place.
    return sys.__stderr__ or sys.stderr


def is_json(format: str, stream: TextIO | None = None) -> bool:
    """Whether `format` means JSON for `stream`, which is standard error unless given."""
    return format == "json" or (format == "auto" and not (stream or _standard_error()).isatty())


def formatter(format: str, stream: TextIO) -> logging.Formatter:
    """What makes lines of log records, ours and everybody's."""
    renderer: Processor
    if is_json(format, stream):
        renderer = structlog.processors.JSONRenderer()
    else:
        renderer = structlog.dev.ConsoleRenderer(
            colors=_colors(stream),
            sort_keys=False,
            # Tracebacks are text by then; this one leaves them as they are.
            exception_formatter=structlog.dev.plain_traceback,
        )
    return structlog.stdlib.ProcessorFormatter(
        processors=[
            _foreign,
            structlog.contextvars.merge_contextvars,
            _head,
            _traceback,
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            _plain,
            renderer,
        ],
        use_get_message=False,
        pass_foreign_args=True,
    )


def _colors(stream: TextIO) -> bool:
    """As https://no-color.org and https://force-color.org say."""
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or stream.isatty()


# --- What a line is made of -----------------------------------------------------------------


def _foreign(_: Any, __: str, event: EventDict) -> EventDict:
    """What a library says, as one line that quotes no exception."""
    arguments = event.pop("positional_args", ())
    if event["_from_structlog"]:
        return event
    said = event["_record"].msg
    if isinstance(said, BaseException):
        said, arguments = "%s", (said,)
    if isinstance(arguments, Mapping):
        safe: Any = {name: _spoken(value) for name, value in arguments.items()}
        if "exc" in safe:  # Celery's about tasks: a string, made of the exception behind it
            error = _exception(event.get("exc_info"))
            safe["exc"] = words(error) if error else "an exception"
    else:
        safe = tuple(_spoken(value) for value in arguments)
    try:
        text = str(said) % safe if safe else str(said)
    except Exception:  # noqa: BLE001 - a library's mistake must not cost the line
        text = str(said)
    first = next(filter(str.strip, text.splitlines()), "").strip()
    # Not what a terminal obeys, either.
    event["event"] = "".join(char if char.isprintable() else "?" for char in first)
    return event


def _spoken(value: Any) -> Any:
    return words(value) if isinstance(value, BaseException) else value


def _head(_: Any, __: str, event: EventDict) -> EventDict:
    """When, how grave, what and from where: first in each line."""
    record: logging.LogRecord = event["_record"]
    moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    return {
        "timestamp": moment.replace("+00:00", "Z"),
        "level": record.levelname.lower(),
        "event": event.pop("event"),
        "logger": record.name,
        **event,
    }


def _plain(_: Any, __: str, event: EventDict) -> EventDict:
    """Only values that JSON has and that were meant to be read; None says nothing."""
    return {name: _value(value) for name, value in event.items() if value is not None}


def _value(value: Any) -> Any:
    match value:
        case None | bool() | int() | float() | str():
            return value
        case BaseException():
            return words(value)
        case list() | tuple():
            return [_value(each) for each in value]
        case _:
            # Not its repr: a record's would hold all of its fields.
            return f"<{type(value).__name__}>"


# --- Exceptions -----------------------------------------------------------------------------


def words(error: BaseException) -> str:
    """What may be said of an exception: its type, AWS's code, and the same of its causes.

    ``StoreUnavailable from ClientError ThrottlingException``
    """
    return " from ".join(map(_name, _chain(error, lambda each: each.__cause__)))


def _chain(
    error: BaseException, before: Callable[[BaseException], BaseException | None]
) -> Iterator[BaseException]:
    """The exception, what came `before` it, and so on; a chain can be a ring."""
    following: BaseException | None = error
    for _ in range(_MAX_CHAIN):
        if following is None:
            break
        yield following
        following = before(following)


def _before(error: BaseException) -> BaseException | None:
    """What it was raised from, or while what was handled."""
    return error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _name(error: BaseException) -> str:
    """A botocore `ClientError` by its code as well, which says what AWS refused, and why."""
    answer = getattr(error, "response", None)
    details = answer.get("Error") if isinstance(answer, dict) else None
    code = _code(details.get("Code")) if isinstance(details, dict) else None
    return f"{type(error).__name__} {code}" if code else type(error).__name__


def _code(code: object) -> str | None:
    return code if isinstance(code, str) and _CODE.fullmatch(code) else None


def _exception(exc_info: Any) -> BaseException | None:
    """The exception that `exc_info` means, in any of the forms that logging takes."""
    if isinstance(exc_info, BaseException):
        return exc_info
    error = exc_info[1] if isinstance(exc_info, tuple) else exc_info and sys.exc_info()[1]
    return error if isinstance(error, BaseException) else None


def _traceback(_: Any, __: str, event: EventDict) -> EventDict:
    """The exception of a line as one text: places in the code and names, the cause first."""
    exc_info = event.pop("exc_info", None)
    error = _exception(exc_info)
    if error is None:
        return event
    # Celery's is not the exception's own any more.
    given = exc_info[2] if isinstance(exc_info, tuple) else None
    parts = [
        "\n".join(
            [*_places(each.__traceback__ or (given if each is error else None)), _name(each)]
        )
        for each in _chain(error, _before)
    ]
    event["exception"] = "\n\n".join(reversed(parts))
    return event


def _places(traceback: TracebackType | None) -> list[str]:
    """Where it came by, the innermost last; without the values of variables."""
    places = []
    while traceback is not None:
        code = traceback.tb_frame.f_code
        places.append(
            f'  File "{code.co_filename}", line {traceback.tb_lineno}, in {code.co_name}'
        )
        traceback = traceback.tb_next
    return places[-_MAX_FRAMES:]


def _uncaught(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    """In place of Python's own words on standard error, which quote the exception."""
    if issubclass(kind, KeyboardInterrupt):
        return
    log.critical("an exception was not caught", error=error, exc_info=(kind, error, traceback))


def _uncaught_elsewhere(args: threading.ExceptHookArgs | sys.UnraisableHookArgs) -> None:
    """In a thread, or where Python itself can only ignore it."""
    if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):
        _uncaught(args.exc_type, args.exc_value, args.exc_traceback)


# --- What happened --------------------------------------------------------------------------


def observe(what: Observation) -> None:
    """A line for what has just happened.

    Never an attempt's `reason`: it is the provider's prose, and providers quote addresses.
    """
    match what:
        case BatchAccepted():
            log.info(
                "a batch was accepted",
                batch_id=what.batch_id,
                key_name=what.key_name,
                emails=what.emails,
                enqueued=what.enqueued,
            )
        case AttemptEnded():
            _attempt_ended(what)
        case EmailPutOff():
            log.debug(
                "an email waits for its provider's rate",
                email_id=str(what.email_id),
                provider=what.provider,
                wait_ms=what.wait,
            )
        case EmailSwept():
            log.info(
                "an email was swept",
                request_id=what.request_id,
                email_id=str(what.email_id),
                was=what.was,
                status=what.status,
                attempt=what.next_attempt,
            )
        case EmailResent():
            log.info(
                "an email was resent",
                request_id=what.request_id,
                email_id=str(what.email_id),
                was=what.was,
                attempt=what.next_attempt,
                enqueued=what.enqueued,
            )
        case EmailResolved():
            log.info(
                "an email was resolved",
                request_id=what.request_id,
                email_id=str(what.email_id),
                status=what.status,
            )
        case ShardSwept():
            did = what.enqueued or what.ended or what.withdrawn
            (log.info if did else log.debug)("a shard was swept", **asdict(what))
        case CircuitChanged():
            _circuit_changed(what.before, what.after)


def _circuit_changed(before: Circuit, circuit: Circuit) -> None:
    if circuit.state is State.CLOSED:
        log.info("a provider is asked again", provider=circuit.provider)
    elif circuit.state is State.HALF_OPEN:
        log.debug("a provider is tried", provider=circuit.provider)
    elif circuit.openings == before.openings and not circuit.held:
        log.debug("a provider is to be tried again", provider=circuit.provider)
    else:
        log.warning(
            "a provider is left alone",
            provider=circuit.provider,
            outcome=circuit.outcome,
            code=_code(circuit.code),
            until=circuit.until and clock.rfc3339(circuit.until),
        )


def _attempt_ended(ended: AttemptEnded) -> None:
    attempt = ended.attempt
    # A provider that fails is no error of ours, and what follows is known. Somebody should look
    # at these two: credentials and quota do not mend themselves, and silence may be a double.
    look = attempt.outcome in (Outcome.UNAVAILABLE, Outcome.UNKNOWN) and not attempt.passed_over
    (log.warning if look else log.info)(
        "an attempt ended",
        email_id=str(ended.email_id),
        attempt=attempt.number,
        provider=attempt.provider,
        outcome=attempt.outcome,
        code=_code(attempt.code),
        duration_ms=attempt.duration_ms,
        status=ended.status,
        since_accepted_ms=ended.accepted_ago,
    )
