"""``/healthz`` and ``/readyz``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus

from flask import Blueprint, Response, jsonify

from mailrelay.queue import QueueUnavailable
from mailrelay.store import StoreUnavailable
from mailrelay.web.problems import problem


def blueprint(dependencies: Mapping[str, Callable[[], object]]) -> Blueprint:
    """The routes; each of `dependencies`, by name, raises where it does not answer."""
    health = Blueprint("health", __name__)

    @health.get("/healthz")
    def healthz() -> Response:
        return jsonify(status="ok")

    @health.get("/readyz")
    def readyz() -> Response:
        down = []
        for name, ask in dependencies.items():
            try:
                ask()
            except (StoreUnavailable, QueueUnavailable):
                down.append(name)
        if down:
            return problem(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"No answer from {' and '.join(down)}.",
                headers={"Retry-After": "5"},
            )
        return jsonify(status="ok")

    return health
