"""One round: load, faults, healing, waiting until all is final, and the judgement."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

from mailrelay.message import Status
from tests.chaos.books import Books, Ledger, read_mailbox, read_table
from tests.chaos.client import Client
from tests.chaos.faults import Fault
from tests.chaos.judge import Breach, Finding, Terms, Verdict, judge
from tests.chaos.proxy import Proxy
from tests.chaos.site import Site
from tests.support.sandbox import Sandbox

RATE = 40.0
"""Emails a second that clients send: some hundreds a round."""

RECOVERY_SECONDS = 240.0
"""How long a round waits for its emails; what is not final then counts as lost. An email may lose its
message twice, each of which lives for 60 s, and its worker."""

PARTS = ("web-1", "worker-1", "worker-2", "beat-1")


@dataclass(frozen=True, slots=True)
class Result:
    """How one round ended."""

    seed: int
    faults: tuple[str, ...]
    terms: Terms
    verdict: Verdict
    swept: int
    """Emails that waited until the sweep found them: their message was lost, or their worker."""
    recovery: float
    """Seconds from the last fault's end until the last email was final."""
    seconds: float
    """How long the round took."""
    met: dict[str, int]
    """How many requests to AWS met each fault."""
    figures: dict[str, Any]
    """What else a fault measured."""

    @classmethod
    def broken(cls, faults: Sequence[Fault], seed: int, error: Exception) -> Result:
        """Of a round that could not be played to its end."""
        finding = Finding(Breach.STUCK, "the round", repr(error))
        names = tuple(fault.name for fault in faults)
        return cls(seed, names, Terms(), Verdict(0, 0, (finding,)), 0, 0.0, 0.0, {}, {})

    @property
    def failed(self) -> bool:
        return bool(self.verdict.findings)


def run(
    faults: Sequence[Fault],
    seed: int,
    *,
    aws: str,
    proxy: Proxy,
    sandbox: Sandbox,
    folder: Path,
    interrupt: threading.Event | None = None,
) -> Result:
    """Run one round in `folder`, which then holds the logs, a diary and the books.

    Raises `Interrupted` soon after `interrupt` is set.
    """
    began = time.monotonic()
    rng = Random(seed)
    terms = Terms(
        avoid=rng.random() < 0.25 and any(fault.unanswered for fault in faults),
        unanswered=any(fault.unanswered for fault in faults),
        misleading=any(fault.misleading for fault in faults),
    )
    folder.mkdir(parents=True, exist_ok=True)
    sandbox.reset()
    already_met, already_sent = proxy.met(), len(proxy.sent())
    variables = {"MAILRELAY_DUPLICATES": "avoid" if terms.avoid else "allow"}
    for fault in faults:
        variables |= fault.variables
    site = Site(aws, proxy, sandbox, folder, variables, interrupt or threading.Event())
    try:
        for fault in faults:
            for name, seconds in fault.clocks.items():
                site.clock(name, seconds)
        site.heal_providers()
        site.client = Client(site.urls, seed, RATE)
        site.start(*PARTS)
        if not any(fault.exclusive for fault in faults):
            site.client.start()
        _cause_all(faults, site, rng)
        site.restore()
        site.note("all is healed")
        healed = time.monotonic()
        site.hold(rng, 1, 2)
        requests = site.client.stop()
        ledger = _wait_until_final(site, terms)
        recovery = time.monotonic() - healed
        _wait_until_empty(site)
        books = Books(
            requests=requests,
            emails=ledger.emails,
            mailbox=read_mailbox(sandbox),
            due=ledger.due,
            messages=tuple(proxy.sent()[already_sent:]),
        )
    finally:
        site.end()
    verdict = judge(books, terms)
    swept = found_by_the_sweep(folder)
    findings = [*verdict.findings, *site.findings, *tracebacks(folder)]
    if all(fault.punctual for fault in faults):
        findings += [Finding(Breach.WAITED, id_, "its message was lost") for id_ in swept]
    result = Result(
        seed=seed,
        faults=tuple(fault.name for fault in faults),
        terms=terms,
        verdict=replace(verdict, findings=tuple(findings)),
        swept=len(swept),
        recovery=recovery,
        seconds=time.monotonic() - began,
        met={" ".join(k): n for k, n in (proxy.met() - already_met).items()},
        figures=site.figures,
    )
    (folder / "books.json").write_text(json.dumps(asdict(books), indent=1))
    (folder / "result.json").write_text(json.dumps(asdict(result), indent=1))
    return result


def _cause_all(faults: Sequence[Fault], site: Site, rng: Random) -> None:
    """All faults at about the same time, each by a thread of its own."""

    def cause(fault: Fault, own: Random) -> None:
        if not fault.exclusive:
            site.hold(own, 2, 4)  # so that there is something under way
        site.note(f"{fault.name} begins")
        try:
            fault.cause(site, own)
        except Exception as error:  # noqa: BLE001 - the others go on, and the round fails
            site.found(Breach.STUCK, fault.name, repr(error))
        site.note(f"{fault.name} is over")

    threads = [
        threading.Thread(target=cause, args=(fault, Random(rng.random()))) for fault in faults
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _wait_until_final(site: Site, terms: Terms) -> Ledger:
    final = {Status.SENT, Status.FAILED} | ({Status.UNKNOWN} if terms.avoid else set())
    deadline = time.monotonic() + RECOVERY_SECONDS
    while True:
        table = site.stack.environ["MAILRELAY_TABLE"]
        ledger = read_table(site.aws.dynamodb, table)
        if not ledger.due and all(email.status in final for email in ledger.emails):
            site.note("all is final")
            return ledger
        if time.monotonic() > deadline:
            site.note(f"given up after {RECOVERY_SECONDS:g} s")
            return ledger
        site.wait(0.5)


def _wait_until_empty(site: Site) -> None:
    """Whatever messages are left are void: have them taken, so that it shows if one is not."""
    deadline = time.monotonic() + 30
    url = site.aws.queue_url("deliver")
    waiting = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesDelayed"]
    while time.monotonic() < deadline:
        answer = site.aws.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=waiting)
        if all(answer["Attributes"][name] == "0" for name in waiting):
            return
        site.wait(0.2)


def tracebacks(folder: Path) -> list[Finding]:
    """Each log of a part with a traceback in it, with the first one's lines."""
    found = []
    for log in sorted(folder.glob("*.log")):
        text = log.read_text(errors="replace")
        if (at := text.find("Traceback")) >= 0:
            found.append(Finding(Breach.TRACEBACK, log.name, text[max(0, at - 300) : at + 1500]))
    return found


def found_by_the_sweep(folder: Path) -> set[str]:
    """The ids of emails that the workers' logs say were found without a message or a worker."""
    lines = (line for log in folder.glob("worker-*.log") for line in log.open(errors="replace"))
    swept = (json.loads(line) for line in lines if '"an email was swept"' in line)
    return {told["email_id"] for told in swept if told["was"] in (Status.QUEUED, Status.SENDING)}
