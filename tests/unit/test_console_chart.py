"""Pictures of numbers: whatever the numbers, all of it is within the picture and in proportion."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrelay.web.console import chart

amounts = st.floats(0, 1e9).map(lambda value: round(value, 3))


@given(st.lists(st.tuples(amounts, amounts, amounts), min_size=1, max_size=100))
def test_columns_are_in_proportion_and_within_the_picture(rows: list[tuple[float, ...]]) -> None:
    sent, failed, accepted = (list(values) for values in zip(*rows, strict=True))

    drawn = chart.columns([("sent", sent), ("failed", failed)], [("came", accepted)])

    assert 1 <= len(drawn.marks) <= 5
    assert drawn.marks[-1].y == pytest.approx(0, abs=0.01)
    top = float(drawn.marks[-1].text.replace(",", ""))
    assert top >= max(*accepted, *(map(sum, zip(sent, failed, strict=True)))) * 0.9999
    for block in drawn.blocks:
        assert 0 <= block.x < block.x + block.width <= 100.01
        assert -0.01 <= block.y <= block.y + block.height <= 100.01
    heights = sum(block.height for block in drawn.blocks)
    assert heights == pytest.approx(sum(sent + failed) / top * 100, rel=0.01, abs=0.02 * len(rows))
    assert all(0 <= y <= 100.01 for y in ys(drawn.lines[0].path))


def ys(path: str) -> list[float]:
    return [float(y) for y in re.findall(r"[ML][\d.]+ (-?[\d.]+)", path)]


@given(st.lists(st.none() | st.integers(0, 10**9), min_size=1, max_size=100))
def test_times_that_are_longer_are_higher_and_within_the_picture(values: list[int | None]) -> None:
    [line] = chart.times([("p50", values)]).lines

    known = [value for value in values if value is not None]
    places = ys(line.path)
    assert len(places) == len(known)
    assert all(-0.01 <= y <= 100.01 for y in places)
    by_time = [y for _, y in sorted(zip(known, places, strict=True), key=lambda one: one[0])]
    assert by_time == sorted(by_time, reverse=True)


def test_a_gap_is_no_line_and_a_value_alone_a_dot() -> None:
    [line] = chart.times([("p50", [100, None, 100, 100])]).lines
    assert len(re.findall("M", line.path)) == 2
    assert re.findall("h0", line.path) == ["h0", "h0"]
    assert len(re.findall("L", line.path)) == 1


def test_what_is_even_smaller_than_the_axis_has_lines_for_is_shown() -> None:
    """A relay on which nothing happens, or very little."""
    empty = chart.columns([("sent", [0, 0]), ("failed", [0, 0])], [("came", [0, 0])])
    assert empty.blocks == []
    assert [mark.text for mark in empty.marks] == ["0.5", "1"]
    assert chart.times([("p50", [None, None])]).lines[0].path == ""
    assert [mark.text for mark in chart.times([("p50", [1, 12])]).marks] == ["10 ms", "100 ms"]


@pytest.mark.parametrize(
    ("ms", "said"),
    [
        (None, "–"),
        (0, "0 ms"),
        (41, "41 ms"),
        (999, "999 ms"),
        (1200, "1.2 s"),
        (60_000, "1 min"),
        (90_000, "1.5 min"),
        (10_800_000, "3 h"),
    ],
)
def test_times_are_said_in_the_unit_that_fits(ms: int | None, said: str) -> None:
    assert chart.span(ms) == said
