"""The logs of workers and beat."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

import click
import structlog
from celery import Task
from celery.signals import celeryd_init, setup_logging, task_postrun, task_prerun

from mailrelay import logs
from mailrelay.settings import load
from tasks.app import app
from tasks.queue import request_id

_CHATTY = (
    "celery.app.trace",  # "Task … succeeded in …": the courier and the sweep say what they did
    "celery.worker.strategy",  # "Task … received"
    "kombu.transport.virtual",  # "Restoring … unacknowledged messages"
)
"""Only warnings of these: they would say two lines for each email and eight a sweep."""


@setup_logging.connect
def _configure(loglevel: int = logging.INFO, logfile: str | None = None, **_: Any) -> None:
    """In place of Celery's own configuration, and of its handling of standard output."""
    logs.configure(load().log_format, loglevel, logfile)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    if app.conf.worker_redirect_stdouts:
        app.log.redirect_stdouts(app.conf.worker_redirect_stdouts_level)


@celeryd_init.connect
def _before_worker(instance: Any, **_: Any) -> None:
    """The first that Celery lets a worker hear of, even before a warning that it runs as root."""
    from celery.apps import worker  # here: the web process imports this module, too

    format = load().log_format
    logs.configure(format)
    # As with --quiet: Celery's banner goes to standard output, past logging, in many lines.
    instance.quiet |= logs.is_json(format)
    worker.safe_say = _say  # type: ignore[attr-defined]


@app.on_after_configure.connect
def _before_beat(**_: Any) -> None:
    """The same for beat, which has no such signal before its banner in Celery 5.7.

    This comes earlier, while the options of the command are read; what it finds there is what
    ``celery --quiet`` sets.
    """
    context = click.get_current_context(silent=True)
    if context and context.info_name == "beat":
        # Also for this: a SIGTERM while Celery imports it, later, ends beat with a traceback.
        from tasks import scheduler  # noqa: F401

        context.obj.quiet |= logs.is_json(load().log_format)


def _say(text: str, *_: Any) -> None:
    """What a worker says from within the handler of a signal, as Celery says it: by `os.write`.

    Celery 5.7 knows no other way to say it in another form than to put a function in its place.
    """
    record = logging.makeLogRecord(
        {
            "name": "celery.apps.worker",
            "levelno": logging.INFO,
            "levelname": "INFO",
            "msg": "%s",
            "args": (text,),
        }
    )
    line = logging.getLogger().handlers[0].format(record)
    if sys.__stderr__ is not None:
        os.write(sys.__stderr__.fileno(), f"{line}\n".encode())


@task_prerun.connect
def _name_request(task: Task, **_: Any) -> None:  # type: ignore[type-arg]
    """From here on, all that is said of the task says which request it is for."""
    structlog.contextvars.bind_contextvars(request_id=request_id(task))


@task_postrun.connect
def _forget_request(**_: Any) -> None:
    structlog.contextvars.clear_contextvars()
