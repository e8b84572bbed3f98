"""One request over a pooled connection, and what it means when no answer comes.

The line between `retry` and `unknown` is the moment the request's body has begun to leave: before
it nothing can have been accepted, after it silence may hide a success.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from urllib3 import BaseHTTPResponse, PoolManager, Retry, Timeout
from urllib3.exceptions import HTTPError, InvalidHeader

from mailrelay.message import Outcome
from mailrelay.providers import Answer
from mailrelay.settings import PROVIDER_CONNECT_TIMEOUT, Settings

_MAX_LINE = 500
"""Characters of a provider's words that are kept."""

_LONGEST_ANSWER = 1024 * 1024
"""Bytes of an answer that are read; providers say what they have to in a few hundred."""

_PIECE_BYTES = 64 * 1024
"""How much of a body is sent at once.

Until the answer is awaited, urllib3 lets each write take the connect timeout at most: all of a
large body in one would fail on any line that needs longer for it.
"""


OF_THE_EMAIL = (400, 413, 422)
"""Statuses that are about what was sent: the next email may fare better (RFC 9110, RFC 4918)."""


class NoAnswer(Exception):
    """The request got no answer; `answer` says what that means."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.reason)
        self.answer = answer


class Body:
    """A request's body that knows whether it has begun to leave, and takes `seconds` at most.

    It does not begin at all later than the connect timeout after it was made: looking up names,
    and trying one address after the other, is bounded by nothing else.
    """

    def __init__(self, data: bytes, seconds: float) -> None:
        self._data = memoryview(data)
        self._seconds = seconds
        self._begin_by = time.monotonic() + PROVIDER_CONNECT_TIMEOUT
        self.begun = False

    def __iter__(self) -> Iterator[bytes]:
        if time.monotonic() > self._begin_by:
            raise TimeoutError
        self.begun = True
        deadline = time.monotonic() + self._seconds
        for start in range(0, len(self._data), _PIECE_BYTES):
            if time.monotonic() > deadline:
                raise TimeoutError
            yield self._data[start : start + _PIECE_BYTES].tobytes()


@dataclass(frozen=True, slots=True)
class Response:
    """A provider's answer."""

    status: int
    reason: str
    headers: Mapping[str, str]
    data: bytes
    """Its beginning, if it is too long to be an answer."""


class HttpClient:
    """Connections to one provider, kept open between requests and shared by all threads."""

    def __init__(self, settings: Settings) -> None:
        self._seconds = body_seconds(settings)
        self._longest_send = settings.longest_send
        self._pool = PoolManager(
            maxsize=settings.concurrency,
            # No hidden retries and no redirects: one attempt is one request.
            retries=False,
            timeout=Timeout(
                connect=PROVIDER_CONNECT_TIMEOUT,
                read=settings.provider_timeout,
                # The time that the body took counts: a lease is running (see `settings`).
                total=PROVIDER_CONNECT_TIMEOUT + settings.provider_timeout,
            ),
        )

    def request(
        self, method: str, url: str, headers: Mapping[str, str], data: bytes = b""
    ) -> Response:
        """The provider's answer, whatever its status; raises `NoAnswer`."""
        deadline = time.monotonic() + self._longest_send
        body = Body(data, self._seconds)
        length = {"Content-Length": str(len(data))} if data else {}
        try:
            response = self._pool.request(
                method,
                url,
                headers={**headers, **length},
                body=body if data else None,
                preload_content=False,
            )
            return Response(
                response.status, response.reason or "", response.headers, _read(response, deadline)
            )
        except (HTTPError, TimeoutError) as error:
            raise NoAnswer(silence(error, begun=body.begun)) from error


def _read(response: BaseHTTPResponse, deadline: float) -> bytes:
    """An answer's body, in bounded time and memory: urllib3's timeout is one for each piece.

    Raises `TimeoutError`, and what urllib3 raises.
    """
    read = b""
    try:
        while piece := response.read1(_PIECE_BYTES, decode_content=False):
            read += piece
            if len(read) > _LONGEST_ANSWER:
                break
            if time.monotonic() > deadline:
                raise TimeoutError
        else:
            response.release_conn()
    finally:
        response.close()
    return read


def body_seconds(settings: Settings) -> float:
    """How long a body may take to leave: at least as long is then left to wait for an answer."""
    return settings.provider_timeout / 2


def silence(error: Exception, *, begun: bool) -> Answer:
    """What it means that `error` came in place of an answer: has the body `begun` to leave?"""
    if begun:
        reason = "the request went out and no answer came back"
        return Answer(Outcome.UNKNOWN, type(error).__name__, reason)
    return Answer(Outcome.RETRY, type(error).__name__, "no connection to the provider")


def default_outcome(status: int) -> Outcome:
    """What an HTTP status means that no table has.

    5xx and 429 pass, and the rest is between us and the provider; but whoever says 2xx in words
    that we do not know may well have accepted the email.
    """
    if status < 300:
        return Outcome.UNKNOWN
    return Outcome.RETRY if status >= 500 or status == 429 else Outcome.UNAVAILABLE


def refusal(response: Response, outcome: Outcome, words: object) -> Answer:
    """The answer that is no success, with HTTP's own words where the provider has none."""
    status = str(response.status)
    said = one_line(words) if isinstance(words, str) else ""
    return Answer(
        outcome,
        status,
        said or one_line(response.reason) or f"HTTP {status}",
        retry_after=retry_after(response.headers.get("Retry-After")),
        particular=response.status in OF_THE_EMAIL,
    )


def retry_after(header: str | None) -> float | None:
    """The seconds of a Retry-After header, which has them or a date; None where it has neither."""
    if header is None:
        return None
    try:
        return Retry().parse_retry_after(header)
    except (InvalidHeader, ValueError, OverflowError):
        return None


def json_object(response: Response) -> dict[str, Any]:
    """The answer's body; empty where it is no JSON object."""
    try:
        value = json.loads(response.data)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def one_line(text: str) -> str:
    """A provider's words on one line of bounded length, and such that they can be stored.

    JSON can spell half of a surrogate pair, which no encoding can write: it becomes ``?``.
    """
    return " ".join(text.split())[:_MAX_LINE].encode("utf-8", "replace").decode()
