"""`GET /metrics`, and what it says of the requests to the web process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask import Flask
from flask.testing import FlaskClient
from prometheus_client import openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.parser import text_string_to_metric_families as parse_text

from mailrelay.backlog import Backlog, Due
from mailrelay.web import metrics, problems
from tests.unit.counting import counted


@pytest.fixture
def client() -> Iterator[FlaskClient]:
    """An application with a few routes, and the metrics."""
    app = Flask(__name__)
    problems.register(app)
    backlog = Backlog(lambda: {"deliver": {"ready": 1}}, lambda: Due(2, 3000), dict)
    app.register_blueprint(metrics.blueprint(backlog, ["mailgun"]))

    @app.get("/emails/<id_>")
    def show(id_: str) -> str:
        if id_ == "broken":
            raise ValueError(id_)
        return id_

    with app.test_client() as client:
        yield client


def test_it_is_plain_text_for_whoever_asks(client: FlaskClient) -> None:
    answer = client.get("/metrics")

    assert answer.status_code == 200
    assert answer.mimetype == "text/plain"
    names = {family.name for family in parse_text(answer.text)}
    assert {"mailrelay_emails_accepted", "mailrelay_build_info", "mailrelay_due_emails"} <= names


def test_it_is_openmetrics_for_who_prefers_that(client: FlaskClient) -> None:
    """Prometheus does."""
    wanted = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2"
    answer = client.get("/metrics", headers={"Accept": wanted})

    assert answer.mimetype == "application/openmetrics-text"
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    assert families["mailrelay_due_emails"].samples[0].value == 2
    assert families["mailrelay_most_overdue_seconds"].samples[0].value == 3
    assert openmetrics.exposition.CONTENT_TYPE_LATEST.startswith(answer.mimetype)


@pytest.mark.parametrize(
    ("method", "path", "counted_as"),
    [
        ("GET", "/emails/1?to=pedro@example.org", "method=GET,route=/emails/<id_>,status=200"),
        ("GET", "/emails/pedro@example.org", "method=GET,route=/emails/<id_>,status=200"),
        ("GET", "/emails/broken", "method=GET,route=/emails/<id_>,status=500"),
        ("GET", "/pedro@example.org", "method=GET,route=none,status=404"),
        ("POST", "/emails/1", "method=POST,route=none,status=405"),
        ("PEDRO", "/emails/1", "method=other,route=none,status=405"),
        ("GET", "/metrics", "method=GET,route=/metrics,status=200"),
    ],
)
def test_a_request_is_counted_by_its_route(
    client: FlaskClient, method: str, path: str, counted_as: str
) -> None:
    """Never by its path or by words of the client's: each would be a series of its own."""
    with counted("http_requests", "http_request_duration_seconds_count") as changed:
        client.open(path, method=method)

    timed = counted_as.rpartition(",")[0]
    assert changed == {
        f"http_requests_total{{{counted_as}}}": 1,
        f"http_request_duration_seconds_count{{{timed}}}": 1,
    }


def test_a_request_is_in_progress_until_it_is_answered(client: FlaskClient) -> None:
    for _ in range(2):
        families = parse_text(client.get("/metrics").text)
        (family,) = [each for each in families if each.name.endswith("_in_progress")]
        assert family.samples[0].value == 1
