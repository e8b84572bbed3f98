"""`python -m tests.chaos`: rounds of faults until the time is over, and a table of what came of it."""

from __future__ import annotations

import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from itertools import chain, islice
from pathlib import Path
from random import Random, SystemRandom

import click
from rich.console import Console

from tests.chaos import report, round
from tests.chaos.faults import FAULTS, Fault
from tests.chaos.proxy import Proxy
from tests.chaos.round import Result
from tests.chaos.site import Interrupted
from tests.support.aws import LocalAws, forget_the_real_cloud
from tests.support.processes import ROOT
from tests.support.sandbox import serving

KEPT = ROOT / ".data" / "chaos"

Numbered = tuple[int, tuple[Fault, ...]]
"""A round: its number, counted from 0, and its faults."""

LANES = 3
"""Rounds at the same time: most of a round is waiting."""

LONG = 20.0
"""Minutes from which on a run begins with what wants the machine for itself for some of them."""


def plan(rng: Random, faults: Sequence[Fault]) -> Iterator[tuple[Fault, ...]]:
    """Each fault alone, in a random order, and after each of them a random mixture; for ever."""
    alone = [fault for fault in faults if not fault.exclusive]
    mixed = mixtures(rng, [fault for fault in alone if fault.mixes])
    while True:
        for fault in rng.sample(alone, len(alone)):
            yield (fault,)
            yield next(mixed)


def mixtures(rng: Random, faults: Sequence[Fault]) -> Iterator[tuple[Fault, ...]]:
    """Two or three faults of different families each; all come up equally often."""
    deck: list[Fault] = []
    while True:
        size = rng.choice((2, 3))
        chosen: dict[str, Fault] = {}
        while len(chosen) < size:
            fault = next((fault for fault in deck if fault.family not in chosen), None)
            if fault is None:
                deck += rng.sample(faults, len(faults))
            else:
                deck.remove(fault)
                chosen[fault.family] = fault
        yield tuple(chosen.values())


def named(text: str) -> tuple[Fault, ...]:
    """The faults of ``NAME`` or ``NAME+NAME``; raises `click.BadParameter`."""
    try:
        return tuple(FAULTS[name] for name in text.split("+"))
    except KeyError as error:
        raise click.BadParameter(f"there is no fault {error}; --list shows them") from None


@click.command()
@click.option("--minutes", default=30.0, show_default=True, help="no round begins after it")
@click.option("--seed", type=int, help="of the choices and the moments; a random one unless given")
@click.option("--only", help="a fault, or a mixture NAME+NAME, again and again")
@click.option("--list", "listing", is_flag=True, help="show the faults")
def main(minutes: float, seed: int | None, only: str | None, listing: bool) -> None:
    """Cause faults in a real relay, and compare what clients, DynamoDB and the mailbox say.

    Ends with 1 if anything was lost, or sent twice beyond the stated case.
    """
    console = Console(highlight=False, soft_wrap=True)
    if listing:
        for fault in FAULTS.values():
            console.print(f"{fault.name:22} {fault.tried}")
        return
    seed = SystemRandom().randrange(1_000_000) if seed is None else seed
    exclusive: list[tuple[Fault, ...]] = []
    if only:
        always = named(only)
        rounds = iter(lambda: always, ())
        if any(fault.exclusive for fault in always):
            exclusive, rounds = [always], iter(())
    else:
        rounds = plan(Random(seed), list(FAULTS.values()))
        if minutes >= LONG:
            exclusive = [(fault,) for fault in FAULTS.values() if fault.exclusive]
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as on Ctrl-C
    forget_the_real_cloud()
    folder = KEPT / datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    folder.mkdir(parents=True)
    console.print(f"seed {seed}, {minutes:g} minutes, {LANES} rounds at a time; all in {folder}")
    run = Run(seed, time.monotonic() + minutes * 60, folder, console)
    results = run.go(exclusive, rounds)
    about = {"seed": seed, "minutes": minutes, "finished": datetime.now(UTC).isoformat()}
    report.save(results, about, folder)
    console.print(report.table(report.rows(results)))
    failed = [result for result in results if result.failed]
    for result in failed:
        console.print(f"failed, repeat with: {repeat(result)}")
    console.print(f"the table as Markdown and JSON: {folder}")
    sys.exit(bool(failed))


def repeat(result: Result) -> str:
    """The command that has the same round again."""
    faults = "+".join(result.faults)
    return f'make chaos ARGS="--seed {result.seed} --only {faults} --minutes 0.1"'


class Run:
    """Rounds by as many threads as there are lanes, until the deadline."""

    def __init__(self, seed: int, deadline: float, folder: Path, console: Console) -> None:
        self._seed = seed
        self._deadline = deadline
        self._folder = folder
        self._console = console
        self._results: list[Result] = []
        self._lock = threading.Lock()
        self._interrupt = threading.Event()

    def go(
        self, exclusive: Sequence[tuple[Fault, ...]], rounds: Iterator[tuple[Fault, ...]]
    ) -> list[Result]:
        """First those that want the machine for themselves, then `rounds` side by side.

        What came of the rounds that ended, also when it is interrupted.
        """
        numbered = enumerate(chain(exclusive, rounds))
        with ExitStack() as stopping:
            aws = LocalAws(self._folder)
            aws.start()
            stopping.callback(aws.stop)
            pool = stopping.enter_context(ThreadPoolExecutor(LANES))
            stopping.callback(self._interrupt.set)
            try:
                first = islice(numbered, len(exclusive))
                pool.submit(self._lane, aws.url, "exclusive", first).result()
                shared = self._until_deadline(numbered)
                names = [f"lane-{number}" for number in range(LANES)]
                for lane in [pool.submit(self._lane, aws.url, name, shared) for name in names]:
                    lane.result()
            except KeyboardInterrupt:
                self._console.print("interrupted; stopping what is under way")
        return self._results

    def _until_deadline(self, numbered: Iterator[Numbered]) -> Iterator[Numbered]:
        """The rounds that are left, for many threads."""

        def take() -> Numbered | None:
            with self._lock:
                return next(numbered, None) if time.monotonic() < self._deadline else None

        return iter(take, None)

    def _lane(self, aws: str, name: str, rounds: Iterator[Numbered]) -> None:
        """One round after the other, with providers and a proxy that no other lane has."""
        folder = self._folder / name
        folder.mkdir()
        with serving(folder) as sandbox, Proxy(aws, self._seed) as proxy:
            for index, faults in rounds:
                own = self._folder / f"round-{self._seed + index}"
                try:
                    result = round.run(
                        *(faults, self._seed + index),
                        aws=aws,
                        proxy=proxy,
                        sandbox=sandbox,
                        folder=own,
                        interrupt=self._interrupt,
                    )
                except Interrupted:
                    return
                except Exception as error:  # noqa: BLE001 - the other rounds go on
                    result = Result.broken(faults, self._seed + index, error)
                self._tell(index, result, own)

    def _tell(self, index: int, result: Result, folder: Path) -> None:
        verdict = result.verdict
        with self._lock:
            self._results.append(result)
            self._console.print(
                f"{datetime.now(UTC):%H:%M:%S} {index + 1:3} seed {result.seed}"
                f" {' + '.join(result.faults)}: {verdict.accepted} emails, {verdict.stated} twice"
                f" as stated, final {result.recovery:.0f} s after it was healed,"
                f" {result.seconds:.0f} s in all" + (" FAILED" if result.failed else "")
            )
            for finding in verdict.findings[:5]:
                self._console.print(f"    {str(finding)[:300]}", markup=False)
        if result.failed:
            self._console.print(f"    {len(verdict.findings)} findings; all of it in {folder}")
        else:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
