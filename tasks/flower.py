"""Flower, prepared for this broker when ``celery -A tasks flower`` starts.

Flower has no plug-in point for any of it, but it asks the application for its modules before it
opens its port, and that is when this is done. Flower 2.2 is meant. No other process loads Flower
or Tornado.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import os
import sys
from collections.abc import Iterable
from typing import Any

import click
from celery.signals import import_modules

from mailrelay import logs
from mailrelay.backlog import messages
from mailrelay.settings import SettingsError, load
from tasks.fanout import fanout

_OF_THE_PORT = (errno.EADDRINUSE, errno.EACCES)
"""Why a port cannot be listened on; anything else is due to the address."""

_HEADERS = {
    # A page of somebody else's that shows Flower in a frame could have its reader stop a worker.
    "Content-Security-Policy": "frame-ancestors 'none'; base-uri 'none'; object-src 'none'",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
}
"""What each answer says to browsers, beside what Flower says itself. It has scripts within its
pages, so that a policy cannot say where they may come from."""


def _check_environment() -> None:
    """Flower reads its variables before it calls us, and what it cannot read is a traceback."""
    for name in [name for name in os.environ if name.startswith("FLOWER_")]:
        if not os.environ[name].strip():
            del os.environ[name]
    try:
        load()
    except SettingsError as error:
        raise SystemExit(f"mailrelay: {error}") from None


if "flower" in sys.argv[1:]:
    _check_environment()


@import_modules.connect
def _prepare(**_: Any) -> None:
    context = click.get_current_context(silent=True)
    if context is None or context.info_name != "flower":
        return
    # Here, since Flower has tornado's logging and asks Celery for none.
    logs.configure(load().log_format)
    from flower import events, views
    from tornado.options import options

    from tasks.events import Receiver

    try:
        guard(options)
        # Stable, so that a restart takes over the queue of the one before it.
        fanout().listener = "flower"
    except SettingsError as error:
        raise SystemExit(f"mailrelay: {error}") from None
    # Flower makes kombu's receiver itself and does not ask the application for one.
    events.EventReceiver = Receiver
    # Its broker page knows RabbitMQ and Redis; what it calls is this class.
    views.Broker = Broker
    _add_headers(views.BaseHandler)
    # It says of each question that no worker answered it, at a start for instance; its pages do so
    # as well.
    logging.getLogger("flower.inspector").setLevel(logging.ERROR)
    # Workers send events unless they are turned off; Flower would ask for them every 5 s.
    options.enable_events = False


def _add_headers(handler: Any) -> None:
    flowers_own = handler.set_default_headers

    def set_default_headers(self: Any) -> None:
        flowers_own(self)
        for name, value in _HEADERS.items():
            self.set_header(name, value)

    handler.set_default_headers = set_default_headers


def guard(options: Any) -> None:
    """Listen on 127.0.0.1 unless told otherwise, and elsewhere only behind a password.

    Flower listens everywhere by itself, and anybody who reaches it can shut workers down. Raises
    `SettingsError`.
    """
    # Flower takes a variable that is set to nothing for a password.
    options.basic_auth = [pair for pair in options.basic_auth or () if pair]
    if not all(all(pair.partition(":")[::2]) for pair in options.basic_auth):
        raise SettingsError("FLOWER_BASIC_AUTH", "takes user:password")
    if options.unix_socket:
        return
    if not options.address:
        options.address = "127.0.0.1"
    if not (options.basic_auth or options.auth or _is_loopback(options.address)):
        raise SettingsError(
            "FLOWER_BASIC_AUTH",
            f"is needed (user:password) for Flower to listen on {options.address}:"
            " who reaches it can stop the workers",
        )
    from tornado.netutil import bind_sockets

    try:
        for listener in bind_sockets(options.port, options.address):
            listener.close()
    except OSError as error:
        variable = "FLOWER_PORT" if error.errno in _OF_THE_PORT else "FLOWER_ADDRESS"
        where = f"{options.address}:{options.port}"
        raise SettingsError(variable, f"cannot listen on {where}: {error.strerror}") from None


def _is_loopback(address: str) -> bool:
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


class Broker:
    """What Flower's broker page asks: the queues and how many messages they hold, by SQS."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self._prefix = load().queue_prefix

    async def queues(self, names: Iterable[str]) -> list[dict[str, Any]]:
        """A row for each queue, under the names that Flower's page shows.

        Raises botocore's errors; Flower shows an empty table then and logs them.
        """
        return await asyncio.to_thread(lambda: [self._queue(name) for name in names])

    def _queue(self, name: str) -> dict[str, Any]:
        sqs = fanout().sqs
        url = sqs.get_queue_url(QueueName=self._prefix + name)["QueueUrl"]
        states = messages(sqs, url)
        return {
            "name": self._prefix + name,
            "messages": sum(states.values()),
            "messages_ready": states["ready"],
            "messages_unacknowledged": states["in_flight"],
        }
