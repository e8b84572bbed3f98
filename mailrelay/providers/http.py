"""One request over a pooled connection, and what it means when no answer comes.

The line between `retry` and `unknown` is the moment the request's body has begun to leave: before
it nothing can have been accepted, after it silence may hide a success.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from urllib3 import BaseHTTPResponse, PoolManager, Timeout
from urllib3.exceptions import HTTPError

from mailrelay.message import Outcome
from mailrelay.providers import Answer
from mailrelay.settings import PROVIDER_CONNECT_TIMEOUT, Settings

_MAX_REASON = 500
"""Characters of a provider's words that are kept."""


class NoAnswer(Exception):
    """The request got no answer; `answer` says what that means."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.reason)
        self.answer = answer


class _Body:
    """A request's body that knows whether it has begun to leave."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.begun = False

    def __iter__(self) -> Iterator[bytes]:
        self.begun = True
        yield self._data


class HttpClient:
    """Connections to one provider, kept open between requests and shared by all threads."""

    def __init__(self, settings: Settings) -> None:
        self._pool = PoolManager(
            maxsize=settings.concurrency,
            # No hidden retries and no redirects: one attempt is one request.
            retries=False,
            timeout=Timeout(connect=PROVIDER_CONNECT_TIMEOUT, read=settings.provider_timeout),
        )

    def request(
        self, method: str, url: str, headers: Mapping[str, str], data: bytes = b""
    ) -> BaseHTTPResponse:
        """The provider's answer, whatever its status; raises `NoAnswer`."""
        body = _Body(data)
        length = {"Content-Length": str(len(data))} if data else {}
        try:
            return self._pool.request(
                method, url, headers={**headers, **length}, body=body if data else None
            )
        except HTTPError as error:
            outcome = Outcome.UNKNOWN if body.begun else Outcome.RETRY
            raise NoAnswer(Answer(outcome, type(error).__name__, no_answer(outcome))) from error


def no_answer(outcome: Outcome) -> str:
    """The reason that a person reads where a provider said nothing."""
    if outcome is Outcome.UNKNOWN:
        return "the request went out and no answer came back"
    return "no connection to the provider"


def default_outcome(status: int) -> Outcome:
    """What an HTTP status means that no table has: 5xx passes, all else is between us and them."""
    return Outcome.RETRY if status >= 500 else Outcome.UNAVAILABLE


def json_object(response: BaseHTTPResponse) -> dict[str, Any]:
    """The answer's body; empty where it is no JSON object."""
    try:
        value = json.loads(response.data)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def reason(text: object) -> str:
    """A provider's words on one line of bounded length."""
    return " ".join(str(text).split())[:_MAX_REASON]
