"""What a test has counted: the difference, since all tests of a process count in one place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from mailrelay import metrics


def _samples() -> dict[str, float]:
    return {
        f"{sample.name.removeprefix('mailrelay_')}{_labels(sample.labels)}": sample.value
        for family in metrics.collect()
        for sample in family.samples
        if not sample.name.endswith(("_bucket", "_created"))
    }


def _labels(labels: dict[str, str]) -> str:
    return "{" + ",".join(f"{name}={labels[name]}" for name in sorted(labels)) + "}"


@contextmanager
def counted(*prefixes: str) -> Iterator[dict[str, float]]:
    """Every sample that changes meanwhile, and by how much: ``{"attempts_total{outcome=…}": 1}``.

    Only those that begin with one of `prefixes`, if any are given.
    """
    before, changes = _samples(), dict[str, float]()
    yield changes
    for name, value in _samples().items():
        if value != before.get(name, 0) and name.startswith(prefixes or ""):
            changes[name] = pytest.approx(value - before.get(name, 0))
