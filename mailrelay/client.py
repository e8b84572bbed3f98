"""A client of the HTTP API, for programs that send.

    from mailrelay.client import Client

    relay = Client("http://127.0.0.1:8000", "an-api-key")
    batch = relay.send("facundo@example.com", ["pedro@example.org"], "test", plain="test")
    print(relay.wait(batch["id"], timeout=60)["status"])

What the API answers comes back as it is, as dictionaries that `mailrelay.answers` describes.
"""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast
from urllib.parse import quote

import urllib3
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_before_delay,
    wait_random_exponential,
)

import mailrelay
from mailrelay.answers import Accepted, Batch, Email, Mailbox, Provider

__all__ = [
    "Client",
    "MailrelayError",
    "NoAnswer",
    "NoRelay",
    "ProblemError",
    "WaitTimeout",
    "unfinished",
]

_WHOLE_BATCH = 1000
"""Emails that one batch can have, and one answer can show."""

_POLL_INTERVAL = 0.5
"""Seconds between two looks at what is waited for."""

_UNFINISHED = ("queued", "sending", "deferred")

_UNREACHED = (
    urllib3.exceptions.NewConnectionError,
    urllib3.exceptions.ConnectTimeoutError,
    urllib3.exceptions.LocationValueError,
)
"""Why a request has certainly not arrived."""

_backoff = wait_random_exponential(multiplier=0.1, max=5)


class MailrelayError(Exception):
    """What was asked of the relay did not come about, or not as far as is known."""

    passing = False
    """Whether it is worth asking again."""


class NoAnswer(MailrelayError):
    """No relay could be reached, or it did not answer in time; its text says which."""

    passing = True


class NoRelay(MailrelayError):
    """What answers there is something else."""


class WaitTimeout(MailrelayError):
    """Not everything was sent or had failed in time; `answer` is how it was at last."""

    passing = True

    def __init__(self, answer: Email | Batch, timeout: float) -> None:
        super().__init__(f"{answer['id']} after {timeout:g} s: {_on_their_way(answer)}")
        self.answer = answer


class ProblemError(MailrelayError):
    """The relay's answer is an error, as RFC 9457 says."""

    def __init__(
        self,
        status: int,
        detail: str,
        errors: Mapping[str, Sequence[str]],
        retry_after: float | None,
        request_id: str,
    ) -> None:
        lines = [f"  {name}: {' '.join(said)}" for name, said in errors.items()]
        super().__init__("\n".join([detail, *lines]))
        self.status = status
        """The HTTP status: 404, for one."""
        self.detail = detail
        """What is wrong, for a person."""
        self.errors = errors
        """Each bad field with what is wrong: ``{"destinations.3.email": ["…"]}``."""
        self.retry_after = retry_after
        """Seconds until it is worth asking again, where the relay says so."""
        self.request_id = request_id
        """What the request is called in the relay's logs."""
        # A 409 without a time says that it cannot be done to the email as it is.
        self.passing = status in (429, 503) or (status == 409 and retry_after is not None)


class Client:
    """A relay, as one API key sees it. May be shared by threads.

    A call that fails in passing is repeated by itself: no answer, a `503`, a `429`, and a `409` where
    the first request with the same Idempotency-Key is still under way. It goes on for `patience`
    seconds in all, and waits as long as the relay asks for in between; then the last error is raised.
    No email is sent twice by that: each `send` has an Idempotency-Key, and `resend`, which has none,
    is repeated only where it cannot have reached the relay.

    Every method raises `ProblemError`, `NoAnswer` or `NoRelay`; and `ValueError` or `TypeError`, before
    anything is asked, for what can be no id or key.
    """

    def __init__(
        self, url: str, api_key: str, *, timeout: float = 60, patience: float = 30
    ) -> None:
        """`timeout` is how many seconds one request may wait for its answer.

        Raises `ValueError` where `url` or `api_key` cannot be one.
        """
        if not re.match("https?://[^/]", url):
            raise ValueError("a relay's address begins with http:// or https://")
        if not re.fullmatch("[!-~]+", api_key):
            raise ValueError("an API key is made of visible ASCII characters")
        self._url = url.rstrip("/")
        self._headers = {
            "Authorization": f"Bearer {api_key}",
            "User-Agent": f"mailrelay/{mailrelay.__version__}",
        }
        self._timeout = timeout
        self._patience = patience
        self._http = urllib3.PoolManager(retries=False)

    def send(
        self,
        sender: str | Mailbox,
        to: str | Sequence[str | Mailbox | Mapping[str, str]],
        subject: str,
        *,
        plain: str | None = None,
        html: str | None = None,
        reply_to: str | Mailbox | None = None,
        headers: Mapping[str, str] | None = None,
        providers: Sequence[str] | None = None,
        idempotency_key: str | None = None,
    ) -> Accepted:
        """Send an email to each of `to`, 1 to 1,000; once this returns, every recipient is stored.

        An address is a text, or ``{"email": "pedro@example.org", "name": "Pedro"}``. At least one of
        `plain` and `html` is needed. With an `idempotency_key` of your own, 1 to 255 visible ASCII
        characters, you may call again after a crash, too; without one, each call sends.
        """
        key = str(uuid.uuid4()) if idempotency_key is None else idempotency_key
        if not re.fullmatch("[!-~]{1,255}", key):
            raise ValueError("an idempotency key has 1 to 255 visible ASCII characters")
        body = {
            "from": _mailbox(sender),
            "destinations": [_mailbox(each) for each in ([to] if isinstance(to, str) else to)],
            "subject": subject,
            "plainContent": plain,
            "htmlContent": html,
            "replyTo": None if reply_to is None else _mailbox(reply_to),
            "headers": None if headers is None else dict(headers),
            "providers": None if providers is None else list(providers),
        }
        given = {name: value for name, value in body.items() if value is not None}
        sent = self._call("POST", "/emails/send", given, {"Idempotency-Key": key})
        return cast(Accepted, sent)

    def get(
        self, id_: str, *, limit: int = _WHOLE_BATCH, cursor: str | None = None
    ) -> Email | Batch:
        """An email with its attempts; or a batch with `limit` of its emails, from `cursor` on.

        Which of them it is, its `object` tells.
        """
        query = f"?limit={limit}" + ("" if cursor is None else f"&cursor={quote(cursor, safe='')}")
        return cast("Email | Batch", self._call("GET", f"{_path(id_)}{query}"))

    def wait(self, id_: str, timeout: float) -> Email | Batch:
        """The same once nothing of it is on its way any more, `timeout` seconds long at most.

        What is `unknown` waits for a person, and is not waited for. Raises `WaitTimeout` as well.
        """
        end = time.monotonic() + timeout
        while unfinished(answer := self.get(id_, limit=1)):
            if time.monotonic() + _POLL_INTERVAL > end:
                raise WaitTimeout(answer, timeout)
            time.sleep(_POLL_INTERVAL)
        return self.get(id_)

    def resend(self, email_id: str) -> Email:
        """Have one email sent again that is `unknown`, `failed` or `deferred`."""
        again = self._call("POST", f"{_path(email_id)}/resend", repeatable=False)
        return cast(Email, again)

    def resolve(self, email_id: str, status: Literal["sent", "failed"]) -> Email:
        """Say how one email ended that is `unknown`."""
        resolved = self._call("POST", f"{_path(email_id)}/resolve", {"status": status})
        return cast(Email, resolved)

    def providers(self) -> list[Provider]:
        """How each provider does."""
        return cast("list[Provider]", self._call("GET", "/providers")["providers"])

    def _call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        repeatable: bool = True,
    ) -> dict[str, Any]:
        """The answer's JSON. What is not `repeatable` must not be done twice."""
        sent = {**self._headers, **(headers or {})}
        data = None
        if body is not None:
            # In ASCII: halves of characters are the relay's to refuse, field by field.
            data = json.dumps(body).encode()
            sent["Content-Type"] = "application/json"

        def once() -> dict[str, Any]:
            try:
                response = self._http.request(
                    method,
                    self._url + path,
                    headers=sent,
                    body=data,
                    timeout=self._timeout,
                    redirect=False,
                )
            except urllib3.exceptions.HTTPError as error:
                raise self._unanswered(error) from error
            return self._read(response)

        retrying = Retrying(
            retry=retry_if_exception(_passing if repeatable else _not_reached),
            wait=_pause,
            stop=stop_before_delay(self._patience),
            reraise=True,
        )
        return retrying(once)

    def _unanswered(self, error: urllib3.exceptions.HTTPError) -> MailrelayError:
        """Why there is no answer, and so whether it is worth asking again."""
        if isinstance(error, urllib3.exceptions.SSLError):
            return NoRelay(f"no TLS that can be trusted at {self._url}: {error}")
        if isinstance(error, _UNREACHED):
            return NoAnswer(f"no relay answers at {self._url}")
        if isinstance(error, urllib3.exceptions.ReadTimeoutError):
            said = f"no answer from {self._url} within {self._timeout:g} s"
        else:
            said = f"the connection to {self._url} was lost before an answer"
        return NoAnswer(f"{said}; what was asked may have been done")

    def _read(self, response: urllib3.BaseHTTPResponse) -> dict[str, Any]:
        try:
            answer = json.loads(response.data)
        except ValueError:
            answer = None
        problem = isinstance(answer, dict) and response.status >= 400 and "detail" in answer
        # Others answer with problems, too; every answer of a relay has a name.
        if problem and "X-Request-ID" in response.headers:
            wait = response.headers.get("Retry-After", "")
            raise ProblemError(
                response.status,
                answer["detail"],
                answer.get("errors", {}),
                float(wait) if wait.isdecimal() else None,
                response.headers["X-Request-ID"],
            )
        if not isinstance(answer, dict) or not ("id" in answer or "providers" in answer):
            raise NoRelay(f"what answers at {self._url} is no relay")
        return answer


def unfinished(answer: Email | Batch) -> int:
    """How many emails are on their way: `queued`, `sending` or `deferred`."""
    if answer["object"] == "email":
        return int(answer["status"] in _UNFINISHED)
    counts: Mapping[str, Any] = answer["counts"]
    return sum(counts[status] for status in _UNFINISHED)


def _on_their_way(answer: Email | Batch) -> str:
    """How far it is: the status of an email, such as ``2 of 10 are deferred`` of a batch."""
    if answer["object"] == "email":
        return f"it is {answer['status']}"
    counts: Mapping[str, Any] = answer["counts"]
    there = [f"{counts[status]} {status}" for status in _UNFINISHED if counts[status]]
    return f"of {answer['total']}, {', '.join(there)}"


def _mailbox(address: str | Mailbox | Mapping[str, str]) -> Mailbox:
    return {"email": address} if isinstance(address, str) else cast(Mailbox, address)


def _path(id_: str) -> str:
    return f"/emails/{quote(id_, safe='')}"


def _passing(error: BaseException) -> bool:
    return isinstance(error, MailrelayError) and error.passing


def _not_reached(error: BaseException) -> bool:
    """Whether the relay cannot have done what was asked, and may be asked again."""
    if isinstance(error, ProblemError):
        return error.status == 429
    return isinstance(error, NoAnswer) and isinstance(error.__cause__, _UNREACHED)


def _pause(state: RetryCallState) -> float:
    """Seconds until the next try: as the relay asks for, or longer each time."""
    error = state.outcome.exception() if state.outcome else None
    wait = error.retry_after if isinstance(error, ProblemError) else None
    return _backoff(state) if wait is None else wait
