"""What the three books must say of each other. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from mailrelay.message import Outcome, Status
from tests.chaos.books import Books, Request, StoredEmail, opened

SECRETS = ("@example.", "chaos subject", "chaos content")
"""What stands in every email of the suite's and in no message to SQS."""

REFUSING = "refuse"
"""In the local part of an address that no provider takes."""


class Breach(StrEnum):
    """A promise that was not kept."""

    LOST = "lost"
    DOUBLED = "sent twice"
    UNEXPLAINED = "unanswered without a cause"
    IN_PART = "accepted in part"
    REFUSED_YET_ACCEPTED = "refused, and accepted all the same"
    LEFT_OVER = "left in the due index"
    LEAK = "more than ids in a message"
    ENQUEUED_OFTEN = "enqueued too often"
    WAITED = "left to the sweep"
    SAGGED = "slower and slower"
    TRACEBACK = "a traceback in a log"
    STUCK = "a part that did not do as it was told"


@dataclass(frozen=True, slots=True)
class Finding:
    breach: Breach
    about: str
    """An address, an id, or the name of a log."""
    detail: str

    def __str__(self) -> str:
        return f"{self.breach}: {self.about}: {self.detail}"


@dataclass(frozen=True, slots=True)
class Terms:
    """What a round's faults allow."""

    avoid: bool = False
    """It ran with MAILRELAY_DUPLICATES=avoid."""
    unanswered: bool = False
    """A request to a provider may have gone unanswered, or its worker may have died."""
    misleading: bool = False
    """A 503 may hide a batch that was accepted: DynamoDB lost its answer and cannot be asked."""


@dataclass(frozen=True, slots=True)
class Verdict:
    accepted: int
    """Emails that a 202 promised."""
    stated: int
    """Recipients with more than one copy, each explained by an attempt that went unanswered."""
    findings: tuple[Finding, ...]

    def count(self, breach: Breach) -> int:
        return sum(finding.breach is breach for finding in self.findings)


Held = Mapping[str, Counter[str]]
"""What the mailbox holds of each address: how many from each provider."""


def judge(books: Books, terms: Terms) -> Verdict:
    """Compare the books."""
    held: dict[str, Counter[str]] = {}
    for address, provider in books.mailbox:
        held.setdefault(address, Counter())[provider] += 1
    emails: dict[str, list[StoredEmail]] = {}
    for email in books.emails:
        emails.setdefault(email.address, []).append(email)
    findings: list[Finding] = []
    for request in books.requests:
        findings += _request(request, emails, held, terms)
    for email in books.emails:
        findings += _email(email, held.get(email.address, Counter()), terms)
    asked = {address for request in books.requests for address in request.recipients}
    for address in (held.keys() | emails.keys()) - asked:
        findings.append(Finding(Breach.DOUBLED, address, "nobody asked for it to be sent"))
    findings += [Finding(Breach.LEFT_OVER, id_, "is still due") for id_ in books.due]
    findings += _leaks(books.messages)
    doubled = {address for address, copies in held.items() if copies.total() > 1}
    return Verdict(
        accepted=sum(len(each.recipients) for each in books.requests if each.status == 202),
        stated=sum(email.address in doubled and _unanswered(email) > 0 for email in books.emails),
        findings=tuple(findings),
    )


def _request(
    request: Request, emails: Mapping[str, Sequence[StoredEmail]], held: Held, terms: Terms
) -> Iterator[Finding]:
    """What the client was told, beside what is stored."""
    for address in request.recipients:
        if len(emails.get(address, ())) > 1:
            yield Finding(Breach.DOUBLED, address, "is stored twice")
    there = [address for address in request.recipients if address in emails]
    if request.status == 202:
        for address in request.recipients:
            stored = [email.id for email in emails.get(address, ())]
            told = request.ids.get(address)
            if not stored:
                yield Finding(Breach.LOST, address, f"{told} was accepted and is not stored")
            elif told not in stored:
                yield Finding(Breach.LOST, address, f"told {told}, stored {stored[0]}")
    elif there and request.status is not None and not terms.misleading:
        detail = f"{len(there)} recipients are stored; their client was told {request.status}"
        yield Finding(Breach.REFUSED_YET_ACCEPTED, there[0], detail)
    elif there and len(there) < len(request.recipients):
        detail = f"{len(there)} of {len(request.recipients)} are stored"
        yield Finding(Breach.IN_PART, there[0], detail)
    for address in request.recipients:
        if address in held and address not in emails:
            yield Finding(Breach.DOUBLED, address, "is in the mailbox and not stored")


def _email(email: StoredEmail, held: Counter[str], terms: Terms) -> Iterator[Finding]:
    """How an email ended, beside what the providers took of it."""
    about = f"{email.address} ({email.id})"
    if problem := _wrong_end(email, terms):
        yield Finding(Breach.LOST, about, problem)
    attempts = Counter(email.attempts)
    for provider in {provider for provider, _ in email.attempts} | held.keys():
        accepted = attempts[provider, Outcome.ACCEPTED]
        most = accepted + attempts[provider, Outcome.UNKNOWN]
        if held[provider] < accepted:
            detail = f"{provider} accepted it {accepted} times and has it {held[provider]} times"
            yield Finding(Breach.LOST, about, detail)
        elif held[provider] > most:
            detail = f"{provider} has it {held[provider]} times; attempts tell of {most}"
            yield Finding(Breach.DOUBLED, about, detail)
    if held.total() > 1 and (terms.avoid or not _unanswered(email)):
        yield Finding(Breach.DOUBLED, about, f"{held.total()} copies; attempts: {email.attempts}")
    if not terms.unanswered and _unanswered(email):
        yield Finding(Breach.UNEXPLAINED, about, f"attempts: {email.attempts}")


def _wrong_end(email: StoredEmail, terms: Terms) -> str | None:
    """Why the email did not end as it has to; None if it did."""
    refusing = REFUSING in email.address
    match email.status:
        case Status.SENT if refusing:
            return "sent, though every provider refuses it"
        case Status.SENT:
            accepted = any(outcome is Outcome.ACCEPTED for _, outcome in email.attempts)
            return None if accepted else "sent, and no attempt was accepted"
        case Status.FAILED:
            return None if refusing else f"failed, and nothing was wrong with it: {email.reason}"
        case Status.UNKNOWN:
            return None if terms.avoid else "unknown, and duplicates are allowed"
    return f"is still {email.status}"


def _leaks(messages: Sequence[str]) -> Iterator[Finding]:
    for message in messages:
        text = opened(message)
        for secret in SECRETS:
            if secret in text:
                yield Finding(Breach.LEAK, secret, text[:500])


def _unanswered(email: StoredEmail) -> int:
    return sum(outcome is Outcome.UNKNOWN for _, outcome in email.attempts)
