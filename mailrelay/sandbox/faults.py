"""Faults as values: what they are, how they are written, and which one applies.

Nothing in here waits, answers or closes anything; `exchange` does.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from mailrelay.sandbox.mail import PROVIDERS

MIN_STATUS = 400
MAX_STATUS = 599
# No client waits longer for a mail provider, and each waiting request holds a thread.
MAX_SECONDS = 60.0
# A day: SES's daily quota is the longest wait that a vendor asks for.
MAX_WAIT = 86_400


class Kind(StrEnum):
    """What a provider does with a request that is otherwise fine."""

    HEALTHY = "healthy"  # accepts it
    STATUS = "status"  # answers an HTTP status in the vendor's shape, keeps nothing
    SLOW = "slow"  # waits, then accepts it
    HANG = "hang"  # keeps nothing, never answers
    CLOSE = "close"  # reads it all, keeps nothing, closes the connection without an answer
    LOST = "lost"  # accepts it, then closes the connection without an answer
    REFUSE = "refuse"  # answers that the recipient is bad, keeps nothing


@dataclass(frozen=True)
class Fault:
    """A kind and what it needs: `status` (400 to 599) for STATUS, `seconds` (0 to 60) for SLOW.

    `wait` is for STATUS: how many whole seconds (0 to a day) the provider asks to be left alone
    for, in the vendor's way; None leaves it at what the vendor's own texts say.
    """

    kind: Kind
    status: int = 503
    seconds: float = 2.0
    wait: int | None = None

    def as_json(self) -> dict[str, Any]:
        """`{"kind": …}`, with `status`, `wait` or `seconds` where the kind has one."""
        shown: dict[str, Any] = {"kind": self.kind.value}
        if self.kind is Kind.STATUS:
            shown["status"] = self.status
            if self.wait is not None:
                shown["wait"] = self.wait
        if self.kind is Kind.SLOW:
            shown["seconds"] = self.seconds
        return shown


HEALTHY = Fault(Kind.HEALTHY)


class FaultError(ValueError):
    """A fault that cannot be; `errors` maps each bad field to what it takes."""

    def __init__(self, errors: dict[str, str]) -> None:
        super().__init__("; ".join(f"{name}: {message}" for name, message in errors.items()))
        self.errors = errors


def parse_fault(value: object) -> Fault:
    """The fault in a JSON object `{"kind", "status", "seconds", "wait"}`.

    `status` is required for the kind `status`; `seconds` is 2 unless told. A field that the kind
    has no use for is ignored, so that a form may send all of them. Raises `FaultError`.
    """
    if not isinstance(value, Mapping):
        raise FaultError({"": "a JSON object is required"})
    known = {"kind", "status", "seconds", "wait"}
    errors = {str(name): "unknown field" for name in value if name not in known}
    fault = HEALTHY
    match value.get("kind"):
        case Kind.STATUS:
            status, wait = value.get("status"), value.get("wait")
            if type(status) is not int or not MIN_STATUS <= status <= MAX_STATUS:
                errors["status"] = f"a whole number from {MIN_STATUS} to {MAX_STATUS} is required"
            elif wait is not None and (type(wait) is not int or not 0 <= wait <= MAX_WAIT):
                errors["wait"] = f"a whole number from 0 to {MAX_WAIT} is required"
            else:
                fault = Fault(Kind.STATUS, status=status, wait=wait)
        case Kind.SLOW:
            seconds = value.get("seconds", HEALTHY.seconds)
            if (
                type(seconds) in (int, float)
                and math.isfinite(seconds)
                and 0 <= seconds <= MAX_SECONDS
            ):
                fault = Fault(Kind.SLOW, seconds=float(seconds))
            else:
                errors["seconds"] = f"a number from 0 to {MAX_SECONDS:g} is required"
        case Kind.HEALTHY | Kind.HANG | Kind.CLOSE | Kind.LOST | Kind.REFUSE as kind:
            fault = Fault(Kind(kind))
        case _:
            errors["kind"] = "one of " + ", ".join(Kind) + " is required"
    if errors:
        raise FaultError(errors)
    return fault


def recipient_faults(email: str) -> dict[str, Fault]:
    """What an address asks of each provider, by the words of its local part.

    The words are joined by `+`; each is `<provider>-<what>`, where what is a status (400 to 599),
    `slow` (2 s), `hang`, `close`, `lost` or `refuse`: `mailgun-503+ses-slow@example.org`. Of two
    words for one provider the first counts; a word that says nothing of this kind is ignored.
    """
    found: dict[str, Fault] = {}
    for word in email.rpartition("@")[0].lower().split("+"):
        provider, _, what = word.partition("-")
        fault = _worded(what)
        if provider in PROVIDERS and fault is not None:
            found.setdefault(provider, fault)
    return found


def _worded(what: str) -> Fault | None:
    if what in (Kind.SLOW, Kind.HANG, Kind.CLOSE, Kind.LOST, Kind.REFUSE):
        return Fault(Kind(what))
    if len(what) == 3 and what.isascii() and what.isdigit():
        status = int(what)
        return Fault(Kind.STATUS, status=status) if MIN_STATUS <= status <= MAX_STATUS else None
    return None


def applying(provider: str, recipient: str, switched: Fault) -> Fault:
    """The fault that meets one message: its recipient's for this provider, else the switch's.

    The recipient wins even over a worse switch, because it is the more particular wish and what
    a test sees then does not depend on who turned a switch before it.
    """
    return recipient_faults(recipient).get(provider, switched)
