"""Which rounds the chaos suite plays, and what it shows of them."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from random import Random

import click
import pytest

from tests.chaos import report
from tests.chaos.__main__ import mixtures, named, plan, repeat
from tests.chaos.backlog import sags
from tests.chaos.faults import FAULTS
from tests.chaos.judge import Breach, Finding, Terms, Verdict
from tests.chaos.round import Result, found_by_the_sweep, tracebacks

ALL = list(FAULTS.values())


def result(*faults: str, findings: tuple[Finding, ...] = (), recovery: float = 1.0) -> Result:
    verdict = Verdict(accepted=10, stated=2, findings=findings)
    return Result(7, faults, Terms(), verdict, 3, recovery, seconds=30, met={}, figures={})


def test_a_seed_repeats_the_choices() -> None:
    first, again, other = (
        [tuple(fault.name for fault in faults) for faults in islice(plan(Random(seed), ALL), 50)]
        for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_every_fault_is_tried_alone_before_any_is_again() -> None:
    shared = [fault for fault in ALL if not fault.exclusive]
    rounds = list(islice(plan(Random(1), ALL), 2 * len(shared)))
    alone = [faults[0].name for faults in rounds[::2]]
    assert sorted(alone) == sorted(fault.name for fault in shared)
    assert all(len(faults) > 1 for faults in rounds[1::2])


def test_a_mixture_has_faults_of_different_families() -> None:
    for mixture in islice(mixtures(Random(1), ALL), 100):
        families = [fault.family for fault in mixture]
        assert len(families) == len(set(families))
        assert len(families) in (2, 3)


def test_all_faults_come_up_in_mixtures() -> None:
    first = islice(mixtures(Random(1), ALL), len(ALL))
    assert {fault.name for mixture in first for fault in mixture} == set(FAULTS)


def test_faults_are_found_by_their_names() -> None:
    chosen = named("worker-killed+sqs-late")
    assert [fault.name for fault in chosen] == ["worker-killed", "sqs-late"]
    with pytest.raises(click.BadParameter, match="no fault 'sqs-lat'"):
        named("sqs-lat")


def test_a_failed_round_says_how_to_repeat_it() -> None:
    assert "--seed 7 --only web-killed+sqs-late " in repeat(result("web-killed", "sqs-late"))


def test_a_mixture_counts_for_each_of_its_faults_and_once_in_all() -> None:
    findings = (
        Finding(Breach.LOST, "a", ""),
        Finding(Breach.DOUBLED, "b", ""),
        Finding(Breach.TRACEBACK, "c", ""),
    )
    rounds = [
        result("worker-killed", recovery=60),
        result("worker-killed", "sqs-late", findings=findings, recovery=3),
    ]
    killed, late, total = report.rows(rounds)

    assert killed == report.Row("worker-killed", 1, 1, 20, 1, 4, 1, 1, 6, 60)
    assert late == report.Row("sqs-late", 0, 1, 10, 1, 2, 1, 1, 3, 3)
    assert total == report.Row("all rounds", 1, 1, 20, 1, 4, 1, 1, 6, 60)


def test_the_table_is_written_as_markdown_and_json(tmp_path: Path) -> None:
    report.save([result("worker-killed", recovery=60)], {"seed": 7}, tmp_path)

    lines = (tmp_path / "table.md").read_text().splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert lines[2].startswith("| `worker-killed`: kill -9 of a worker")
    assert lines[2].endswith("| 1 | 0 | 10 | 0 | 2 | 0 | 0 | 3 | 60 s |")
    raw = json.loads((tmp_path / "results.json").read_text())
    assert raw["about"] == {"seed": 7}
    assert raw["rounds"][0]["faults"] == ["worker-killed"]


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ([], False),
        ([40, 80, 80, 78, 82, 80, 10], False),
        ([80, 80, 0, 80, 80, 80, 80], False),
        ([80, 80, 80, 80, 20, 10, 10, 10], True),
        ([80, 80, 10, 20, 10, 80, 80, 80, 80, 80], True),
    ],
)
def test_a_throughput_that_sags_is_told_from_one_that_begins_and_ends(
    rates: list[float], expected: bool
) -> None:
    assert sags(rates) is expected


def test_a_traceback_in_any_log_is_found(tmp_path: Path) -> None:
    (tmp_path / "good.log").write_text('{"event": "all is well"}\n')
    assert tracebacks(tmp_path) == []
    (tmp_path / "bad.log").write_text("before\nTraceback (most recent call last):\n  File x\n")
    (finding,) = tracebacks(tmp_path)
    assert (finding.breach, finding.about) == (Breach.TRACEBACK, "bad.log")


def test_emails_that_the_sweep_found_are_told_by_the_workers_logs(tmp_path: Path) -> None:
    lines = [
        {"event": "an email was swept", "email_id": email_id, "was": was}
        for email_id, was in (
            ("a", "queued"),
            ("b", "sending"),
            ("c", "deferred"),
            ("a", "queued"),
        )
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "worker-1.log").write_text(f"not JSON\n{text}")
    assert found_by_the_sweep(tmp_path) == {"a", "b"}
