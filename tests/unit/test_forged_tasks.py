"""What somebody may put into the queues who is none of ours."""

from __future__ import annotations

from typing import Any

import pytest
from structlog.testing import capture_logs

import tasks.deliver
import tasks.sweep
from tasks import app


def _no_parts() -> Any:
    raise AssertionError("it was looked at")


@pytest.mark.parametrize("shard", [-1, 8, 10**12, "0", "shard", None, [0], 0.5, {}])
def test_a_sweep_of_no_shard(monkeypatch: pytest.MonkeyPatch, shard: Any) -> None:
    """It is dropped: each one would have had a thread of its own."""
    monkeypatch.setattr(tasks.sweep, "parts", _no_parts)
    with capture_logs() as lines:
        tasks.sweep.sweep(shard)
    said = "a task for something that is no shard was dropped"
    assert [line["event"] for line in lines] == [said]


@pytest.mark.parametrize(
    "email_id", ["", "x", "../01ARZ3NDEKTSV4RRFFQ69G5FAV-0", "B#x", "a@example.org"]
)
def test_a_delivery_of_no_email(monkeypatch: pytest.MonkeyPatch, email_id: str) -> None:
    """It is dropped, and what it was is not repeated."""
    monkeypatch.setattr(tasks.deliver, "parts", _no_parts)
    with capture_logs() as lines:
        tasks.deliver.deliver(email_id, 0, 1)
    said = "a task for something that is no email's id was dropped"
    assert [(line["event"], len(line)) for line in lines] == [(said, 2)]


def test_there_is_nothing_else_to_run() -> None:
    """Messages are JSON and name a task: one of ours, or one of Celery's that only combine tasks."""
    assert list(app.conf.accept_content) == ["json"]
    ours = {name for name in app.tasks if not name.startswith("celery.")}
    assert ours == {"tasks.deliver", "tasks.sweep"}
    assert app.conf.result_backend is None
