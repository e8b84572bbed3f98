"""``/metrics``, and what it says about the requests themselves."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from flask import Blueprint, Response, request
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric

from mailrelay import metrics
from mailrelay.backlog import Backlog
from mailrelay.provision import DELIVER_QUEUE, SWEEP_QUEUE

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
"""Whatever else a client calls its method is counted as `other`."""


_STARTED = "mailrelay.started"
"""Where a request's WSGI environment says since when it is being answered."""


class _Everything:
    """What the web's processes have counted, and what waits in AWS."""

    def __init__(self, backlog: Backlog) -> None:
        self._backlog = backlog

    def collect(self) -> Iterator[Metric]:
        yield from metrics.collect()
        yield from self._backlog.collect()


def blueprint(backlog: Backlog, providers: Iterable[str]) -> Blueprint:
    """The route, and a count of every request to the application."""
    # Of workers too: where there is none left, somebody must say that nobody polls.
    metrics.begin_at_zero(providers, (DELIVER_QUEUE, SWEEP_QUEUE))
    blueprint = Blueprint("metrics", __name__)
    everything = _Everything(backlog)

    @blueprint.get("/metrics")
    def show() -> Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return Response(encode(everything), content_type=content_type)

    @blueprint.before_app_request
    def _begin() -> None:
        metrics.HTTP_REQUESTS_IN_PROGRESS.inc()
        request.environ[_STARTED] = time.perf_counter()

    @blueprint.after_app_request
    def _count(response: Response) -> Response:
        method = request.method if request.method in _METHODS else "other"
        # The route and never the path: ids, and whatever else somebody asks for, stay out.
        route = request.url_rule.rule if request.url_rule else "none"
        metrics.HTTP_REQUESTS.labels(method, route, response.status_code).inc()
        if _STARTED in request.environ:
            duration = time.perf_counter() - request.environ[_STARTED]
            metrics.HTTP_REQUEST_DURATION.labels(method, route).observe(duration)
        return response

    @blueprint.teardown_app_request
    def _end(_: BaseException | None) -> None:
        if request.environ.pop(_STARTED, None) is not None:
            metrics.HTTP_REQUESTS_IN_PROGRESS.dec()

    return blueprint
