"""A part of the chaos suite dies when it was told to, and only then."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.chaos.launch import POINTS, Point, arm
from tests.support.processes import ROOT


class Door:
    def open(self, *, wide: bool = False) -> str | None:
        return "open" if wide else None


def opened(monkeypatch: pytest.MonkeyPatch, point: Point, count: int) -> list[str]:
    """What happens, in order, when the door is opened three times; every second time wide."""
    happened: list[str] = []
    kept = Door.open

    def noted(self: Door, *, wide: bool = False) -> str | None:
        happened.append("called")
        return kept(self, wide=wide)

    monkeypatch.setattr(Door, "open", noted)
    arm(point, count, lambda: happened.append("dead"))
    for wide in (False, True, False):
        Door().open(wide=wide)
    return happened


DOOR = (f"{__name__}:Door.open",)


def test_it_dies_after_the_call_that_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    happened = opened(monkeypatch, Point(DOOR), 2)
    assert happened == ["called", "called", "dead", "called"]


def test_it_dies_before_the_call_that_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    happened = opened(monkeypatch, Point(DOOR, after=False), 2)
    assert happened == ["called", "dead", "called", "called"]


def test_only_calls_that_count_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    point = Point(DOOR, counts=lambda result, kwargs: result == "open" and bool(kwargs))
    assert opened(monkeypatch, point, 1) == ["called", "called", "dead", "called"]


@pytest.mark.parametrize("name", POINTS)
def test_every_point_is_one_of_the_products_own_methods(name: str) -> None:
    """In a process of its own: it changes the classes of the one that it runs in."""
    script = "import sys; from tests.chaos import launch; launch.arm(launch.POINTS[sys.argv[1]], 1, print)"
    subprocess.run([sys.executable, "-c", script, name], cwd=ROOT, check=True, timeout=60)


def test_a_wrong_clock_is_wrong_for_the_command_it_runs() -> None:
    script = (
        "import subprocess, sys, time; from tests.chaos import launch; launch.shift_clock(30); "
    )
    script += (
        "now = subprocess.check_output(['date', '+%s']); print(round(time.time() - int(now)), "
    )
    script += "round(time.time_ns() / 1e9 - int(now)))"
    found = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, check=True, timeout=60, stdout=subprocess.PIPE
    )
    assert all(29 <= int(seconds) <= 32 for seconds in found.stdout.split())
