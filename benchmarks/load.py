"""A backlog, worked off by workers that start when all of it waits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.processes import cpu_of_sessions, until
from benchmarks.stack import Stack


@dataclass(frozen=True, slots=True)
class Run:
    """One backlog, worked off."""

    relay: str
    workers: int
    emails: int
    seconds: float
    """From the first request to the provider to the last."""
    cpu_seconds: float
    """Of the workers, for `cpu_emails` of the emails: their start is left out."""
    cpu_emails: int
    requests: Mapping[str, int]
    """To AWS, by operation, from before the first POST until the last message was deleted."""
    others: float
    """The part of the machine's CPU that processes of others took, from 0 to 1."""

    @property
    def rate(self) -> float:
        """Emails a second."""
        return self.emails / self.seconds

    @property
    def cpu_ms(self) -> float:
        """Milliseconds of the workers' CPU for an email."""
        return 1000 * self.cpu_seconds / self.cpu_emails

    @property
    def requests_an_email(self) -> float:
        return sum(self.requests.values()) / self.emails

    def __str__(self) -> str:
        asked = f"{self.requests_an_email:.2f} AWS requests, " if self.requests else ""
        return (
            f"{self.relay}: {self.rate:.0f} emails/s, {asked}{self.cpu_ms:.2f} ms CPU an email"
            f" (others took {self.others:.0%})"
        )


def work_off(
    stack: Stack,
    batches: Sequence[int],
    *,
    workers: int = 1,
    parts: Sequence[str] = (),
    **variables: str,
) -> Run:
    """Send `batches` of so many emails, start workers with these variables, and see them all sent.

    `parts` of the Procfile run from the beginning on.
    """
    emails = sum(batches)
    for part in parts:
        stack.start(part)
    asked = stack.requests()
    for batch in batches:
        stack.send(batch)
    started = [
        stack.start("worker", name=f"worker-{number}", **variables) for number in range(workers)
    ]
    sessions = {worker.session for worker in started}
    until(lambda: stack.asked() >= workers, "the workers send")
    cpu, before = cpu_of_sessions(sessions), stack.asked()
    others = stack.watch_others()
    until(lambda: stack.asked() >= emails, "the provider has been asked for all")
    until(lambda: stack.recorded() >= emails, "all are recorded as sent")
    cpu, taken = cpu_of_sessions(sessions) - cpu, others()
    until(lambda: stack.queued() == 0, "all messages are deleted")
    asked = stack.requests() - asked
    for worker in started:
        worker.stop()
    arrivals = stack.arrivals()
    if len(arrivals) != emails:
        raise RuntimeError("emails were sent twice, or tried again: this run says nothing")
    return Run(
        relay=stack.name,
        workers=workers,
        emails=emails,
        seconds=arrivals[-1] - arrivals[0],
        cpu_seconds=cpu,
        cpu_emails=emails - before,
        requests=dict(asked),
        others=taken,
    )
