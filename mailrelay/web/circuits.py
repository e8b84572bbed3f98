"""``/providers``: how each one does, as all workers know it."""

from __future__ import annotations

from collections.abc import Callable

from flask import Blueprint, Response, jsonify

from mailrelay import clock
from mailrelay.settings import Settings
from mailrelay.shared import Shared
from mailrelay.web import representations


def blueprint(shared: Shared, settings: Settings, authenticate: Callable[[], str]) -> Blueprint:
    """The route, for any API key that `authenticate` knows."""
    providers = Blueprint("providers", __name__)

    @providers.get("/providers")
    def show() -> Response:
        authenticate()
        found, now = shared.circuits(settings.providers), clock.now()
        return jsonify(
            providers=[
                representations.provider(circuit, settings.rates.get(name), now)
                for name, circuit in found.items()
            ]
        )

    return providers
