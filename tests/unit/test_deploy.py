"""What lies in deploy/ asks for metrics that exist, and alerts when it should."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest
from prometheus_client.metrics_core import Metric

from mailrelay import metrics
from mailrelay.backlog import Backlog, Due
from mailrelay.circuit import Circuit
from tests.support.processes import ROOT

PROMETHEUS = ROOT / "deploy" / "prometheus"
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "mailrelay.json").read_text())
ALERTS = (PROMETHEUS / "alerts.yml").read_text()

FROM_PROMETHEUS = {"job", "instance", "alertname", "severity"}
"""Labels that Prometheus adds."""


def samples() -> dict[str, set[str]]:
    """The labels of each sample that a `/metrics` of ours can show."""
    found: dict[str, set[str]] = {}
    for metric in list(metrics.REGISTRY._collector_to_names):
        labels = set(getattr(metric, "_labelnames", ()))
        for family in metric.collect():
            if family.type == "histogram":
                found |= {f"{family.name}_{part}": labels for part in ("sum", "count")}
                found[f"{family.name}_bucket"] = labels | {"le"}
            elif family.type == "info":
                found[f"{family.name}_info"] = set(family.samples[0].labels)
            else:
                found[family.name + ("_total" if family.type == "counter" else "")] = labels
    for family in Backlog(
        lambda: {"deliver": {"ready": 1}}, lambda: Due(1, 1), lambda: {"ses": Circuit("ses")}
    ).collect():
        found[family.name] = set(family.samples[0].labels)
    return found


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = DASHBOARD["panels"]
    return found


def queries() -> Iterator[tuple[str, str]]:
    """Each query of the dashboard with its legend."""
    for panel in panels():
        for target in panel.get("targets", ()):
            yield target["expr"], target.get("legendFormat", "")


def expressions() -> list[str]:
    """The alerts' expressions: YAML has them on a line of their own, or folded below one."""
    found = re.findall(
        r"^        expr: (?:>-\n((?:          .*\n)+)|(.*)\n)", ALERTS, re.MULTILINE
    )
    return [" ".join((folded or plain).split()) for folded, plain in found]


EVERY = [*expressions(), *(expression for expression, _ in queries())]


@pytest.mark.parametrize("expression", EVERY)
def test_every_metric_and_label_that_is_asked_for_exists(expression: str) -> None:
    existing = samples()
    used = re.findall(r"\bmailrelay_\w+", re.sub(r'"[^"]*"', "", expression))

    assert used or expression.startswith("up{")
    for name in used:
        assert name in existing
    asked = {
        label
        for part in re.findall(r"\{([^}]*)\}|\bby \(([^)]*)\)", expression)
        for label in re.findall(
            r"\b([a-z_]+)\b(?=\s*(?:=|!=|,|$))", re.sub('"[^"]*"', "", "".join(part))
        )
    }
    assert asked <= set().union(FROM_PROMETHEUS, *(existing[name] for name in used))


def test_every_metric_is_on_the_dashboard() -> None:
    shown = " ".join(expression for expression, _ in queries())
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in samples()}

    assert {name for name in families if name not in shown} == set()


def test_a_legend_names_what_its_query_leaves() -> None:
    for expression, legend in queries():
        for label in re.findall(r"\{\{(\w+)\}\}", legend):
            assert re.search(rf"by \([^)]*\b{label}\b", expression), (legend, expression)


def test_the_dashboard_s_panels_have_a_place_each() -> None:
    """Within Grafana's 24 columns, none over another, each with a number of its own."""
    places = [panel["gridPos"] for panel in panels()]

    assert len({panel["id"] for panel in panels()}) == len(places) > 20
    for place in places:
        assert place["x"] + place["w"] <= 24
    for a, b in combinations(places, 2):
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        below = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert beside or below, (a, b)


def test_the_dashboard_asks_the_source_that_is_chosen() -> None:
    (variable,) = DASHBOARD["templating"]["list"]
    assert (variable["type"], variable["query"]) == ("datasource", "prometheus")
    chosen = {"type": "prometheus", "uid": f"${{{variable['name']}}}"}
    for panel in panels():
        for part in (panel, *panel.get("targets", ())):
            assert part.get("datasource", chosen) == chosen


def test_every_alert_says_what_to_do() -> None:
    """Its section in docs/operating.md is where its link leads."""
    text = (ROOT / "docs" / "operating.md").read_text()
    anchors = {heading.lower() for heading in re.findall(r"^#+ (\w+)$", text, re.MULTILINE)}
    names = re.findall(r"- alert: (\w+)", ALERTS)

    assert len(names) == len(set(names)) == len(expressions()) > 10
    links = re.findall(r"runbook_url: docs/operating\.md#(\w+)", ALERTS)
    assert links == [name.lower() for name in names]
    assert set(links) <= anchors
    for name in names:
        [section] = re.findall(rf"^### {name}$(.*?)^##", text, re.MULTILINE | re.DOTALL)
        assert "**Means**: " in section
        assert "**Do**" in section
    for word in ("summary:", "description:", "severity:"):
        assert ALERTS.count(word) == len(names)


def test_every_alert_has_a_test() -> None:
    tests = (PROMETHEUS / "alerts_test.yml").read_text()
    fired = set(re.findall(r'alertname="(\w+)"', tests))

    assert fired == set(re.findall(r"- alert: (\w+)", ALERTS))


@pytest.fixture(scope="module")
def promtool() -> str:
    fetched = ROOT / ".cache" / "tools" / "usr" / "bin"  # by .ci/run
    found = shutil.which("promtool", path=f"{os.environ['PATH']}:{fetched}")
    if found is None:
        missing = "promtool is missing: it comes with Prometheus, and .ci/run can fetch it"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    return found


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", "prometheus.yml"),
        ("check", "rules", "alerts.yml"),
        ("test", "rules", "alerts_test.yml"),
    ],
    ids=" ".join,
)
def test_prometheus_understands_it(promtool: str, arguments: tuple[str, ...]) -> None:
    check(promtool, *arguments, cwd=PROMETHEUS)


def test_prometheus_understands_the_dashboard_s_queries(promtool: str, tmp_path: Path) -> None:
    rules = [
        {"record": f"query:{number}", "expr": expression.replace("$__rate_interval", "1m")}
        for number, (expression, _) in enumerate(queries())
    ]
    # JSON is YAML.
    path = tmp_path / "queries.yml"
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))

    check(promtool, "check", "rules", str(path), cwd=tmp_path)


def test_prometheus_finds_no_fault_with_the_metrics(promtool: str, tmp_path: Path) -> None:
    """Its linter knows the conventions for names, types and units."""
    metrics.begin_at_zero(["mailgun"], ["deliver"])
    backlog = Backlog(
        lambda: {"deliver": {"ready": 1}}, lambda: Due(1, 1), lambda: {"ses": Circuit("ses")}
    )

    shown = _Collected([*metrics.collect(), *backlog.collect()])
    check(promtool, "check", "metrics", cwd=tmp_path, stdin=generate_latest(shown))


class _Collected:
    """A collector of what was collected, but for the library's own `_created`."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        for family in self._families:
            family.samples = [s for s in family.samples if not s.name.endswith("_created")]
        return self._families


def check(promtool: str, *arguments: str, cwd: Path, stdin: bytes = b"") -> None:
    done = subprocess.run(
        [promtool, *arguments],
        cwd=cwd,
        input=stdin.decode(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
