"""The chaos suite's short form: a few of its faults, judged as `make chaos` judges."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from tests.chaos import round
from tests.chaos.faults import FAULTS, Fault
from tests.chaos.proxy import Proxy
from tests.chaos.round import Result
from tests.chaos.site import Site
from tests.support.sandbox import Sandbox

SEED = 5


@pytest.fixture(scope="module")
def proxy(local_aws: str) -> Iterator[Proxy]:
    with Proxy(local_aws, SEED) as proxy:
        yield proxy


def judged(
    faults: list[Fault], local_aws: str, proxy: Proxy, sandbox: Sandbox, folder: Path
) -> Result:
    return round.run(faults, SEED, aws=local_aws, proxy=proxy, sandbox=sandbox, folder=folder)


def test_a_mixture_of_faults_loses_nothing_and_writes_to_nobody_twice(
    local_aws: str, proxy: Proxy, sandbox: Sandbox, tmp_path: Path
) -> None:
    """Two workers whose clocks are 30 s apart are deployed anew, and nothing else goes well."""
    names = ("clocks-apart", "worker-terminated", "sqs-twice", "dynamodb-slow", "poison")
    result = judged([FAULTS[name] for name in names], local_aws, proxy, sandbox, tmp_path)

    assert result.verdict.accepted > 0
    assert result.verdict.findings == ()


def _phases(site: Site, rng: Random) -> None:
    """One email or batch for each process that is to die, so that no other waits for its message."""
    site.kill("worker-1")
    site.kill("worker-2")
    for point in ("claimed", "answered"):
        site.start("worker-1", die_at=f"{point}:1")
        site.client.send(1, rng, site.urls)
        assert site.died("worker-1", 30)
    site.kill("web-1")
    site.start("web-1", die_at="storing:3")
    site.client.send(300, rng, site.urls)
    assert site.died("web-1", 30)


def test_processes_that_are_killed_half_way_lose_nothing(
    local_aws: str, proxy: Proxy, sandbox: Sandbox, tmp_path: Path
) -> None:
    """Between claim and request, between answer and record, and while a batch is accepted."""
    phases = Fault(
        *("phases", "", _phases, ""),
        unanswered=True,
        variables={"MAILRELAY_LEASE": "7", "MAILRELAY_PROVIDER_TIMEOUT": "2"},
        exclusive=True,
    )
    result = judged([phases], local_aws, proxy, sandbox, tmp_path)

    assert result.verdict.findings == ()
    assert (result.verdict.accepted, result.verdict.stated) == (2, 1)
