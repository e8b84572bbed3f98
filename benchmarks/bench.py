"""What every measurement is told, and the few rules that all of them follow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

REGION_SECONDS = 0.005
"""What a region adds to each answer of AWS, of which the local one knows nothing."""

PROVIDER_SECONDS = 0.1
"""How long a provider takes for an email, unless said otherwise."""

Some = TypeVar("Some")


@dataclass(frozen=True, slots=True)
class Bench:
    say: Callable[[str], None]
    """Tells whoever waits how far it is."""
    real_aws: bool = False
    """Whether AWS itself is measured with, at the caller's expense."""

    def how(self, *, aws_seconds: float | None = 0, **stack: Any) -> Mapping[str, Any]:
        """How a `Stack` is to be made; AWS itself has delays of its own."""
        if self.real_aws:
            return {"real_aws": True, **stack}
        return {"aws_seconds": aws_seconds, **stack}

    def aws(self, seconds: float | None) -> str:
        """What a row says of the AWS that it was measured with."""
        if self.real_aws:
            return ", on AWS"
        return f", {seconds * 1000:g} ms added to AWS" if seconds else ""


def in_turns(number: int, names: Iterable[Some]) -> list[Some]:
    """The names in the order in which pair `number` takes them: the first goes first every other
    time, so that what else the machine does harms all alike."""
    ordered = list(names)
    return ordered if number % 2 == 0 else ordered[::-1]
