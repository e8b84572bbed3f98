"""The HTTP API and the console, as a Flask application."""

from __future__ import annotations

from flask import Flask

from mailrelay import assembly, providers
from mailrelay.queue import DeliveryQueue
from mailrelay.settings import Settings
from mailrelay.shared import Shared
from mailrelay.web import (
    assets,
    circuits,
    console,
    description,
    emails,
    headers,
    health,
    metrics,
    problems,
    requests,
)
from mailrelay.web.auth import Gate

MAX_BODY = 25_000_000
"""Bytes of a request's body."""


def create_app(settings: Settings, queue: DeliveryQueue) -> Flask:
    """The application for `settings`, delivering by `queue`.

    Raises `SettingsError` where the chain names a provider that is not installed.
    """
    providers.check(settings)
    store = assembly.store(settings)
    relay = assembly.relay(settings, store, queue)
    app = Flask(__name__, static_folder="static")
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    app.json.sort_keys = app.json.ensure_ascii = False  # type: ignore[attr-defined]
    # No redirects: a client that sends mail does not follow them.
    app.url_map.strict_slashes = app.url_map.merge_slashes = False
    requests.register(app)
    assets.register(app)
    headers.register(app)
    problems.register(app)
    backlog = assembly.backlog(settings)
    app.register_blueprint(metrics.blueprint(backlog, settings.providers))
    gate = Gate(settings)
    app.register_blueprint(emails.blueprint(relay, gate, settings.providers, settings.senders))
    app.register_blueprint(circuits.blueprint(Shared(store.table), settings, gate))
    app.register_blueprint(health.blueprint({"DynamoDB": store.ping, "SQS": queue.depth}))
    console.register(app, settings, store.table, relay, gate, assembly.board(store), backlog)
    app.register_blueprint(description.blueprint(settings.providers))
    return app
