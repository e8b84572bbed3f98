"""A client that keeps sending, and writes down what it was told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from random import Random
from typing import Any

import urllib3

from tests.chaos.books import Request
from tests.support.stack import KEY

_PATIENCE = 20.0
"""Seconds that a client waits for an answer."""

_GIVE_UP = 90.0
"""Seconds after which a client stops asking again, key or no key."""

_THREADS = 6

_MANY = 400
"""Emails after which a client takes its time: a fault that takes long needs no more than some."""

_ASK_AGAIN = (409, 429, 500, 503)
"""What somebody with an Idempotency-Key asks again after. Nothing was accepted, or it is not known."""

_REFUSED_BY_ALL = "+".join(f"{name}-refuse" for name in ("mailgun", "ses", "sendgrid"))


class Client:
    """Sends batches of many sizes to whichever web process there is, from several threads.

    Half of the requests carry an Idempotency-Key, and are sent again until they are answered: each
    of these recipients is to be written to once. The others are sent once, whatever comes back.
    """

    def __init__(self, urls: Callable[[], Sequence[str]], seed: int, rate: float) -> None:
        """`rate` is in emails a second."""
        self._urls = urls
        self._rng = Random(seed)
        self._rate = rate
        self._numbers = count()
        self._stopping = threading.Event()
        self._requests: list[Request] = []
        self._pool = urllib3.PoolManager(maxsize=_THREADS, retries=False)
        self._threads = [
            threading.Thread(target=self._run, args=(Random(seed + 1 + index),), daemon=True)
            for index in range(_THREADS)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> tuple[Request, ...]:
        """What was told, once the last answers are there."""
        self._stopping.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()
        return tuple(self._requests)

    def _run(self, rng: Random) -> None:
        for size in _sizes(rng):
            self.send(size, rng, self._urls)
            rate = self._rate if next(self._numbers) < _MANY else self._rate / 10
            if self._stopping.wait(size / rate * len(self._threads)):
                return

    def send(self, size: int, rng: Random, urls: Callable[[], Sequence[str]]) -> Request:
        """Send one batch to one of `urls`, as it may take several requests."""
        recipients = tuple(self._recipient(rng) for _ in range(size))
        key = f"chaos-{next(self._numbers)}" if rng.random() < 0.5 else None
        told = self._ask(recipients, key, rng, urls)
        self._requests.append(told)
        return told

    def _recipient(self, rng: Random) -> str:
        local = f"reader{next(self._numbers)}"
        if rng.random() < 0.03:
            local = f"{local}+{_REFUSED_BY_ALL}"
        return f"{local}@example.org"

    def _ask(
        self,
        recipients: tuple[str, ...],
        key: str | None,
        rng: Random,
        urls: Callable[[], Sequence[str]],
    ) -> Request:
        deadline = time.monotonic() + _GIVE_UP
        unsure = False
        while True:
            status, answer = self._post(rng.choice(urls()), recipients, key)
            unsure |= status is None
            if status == 202:
                ids = {email["email"]: email["id"] for email in answer["emails"]}
                return Request(recipients, status, ids, key)
            again = key is not None and (status is None or status in _ASK_AGAIN)
            # Nothing was accepted by a limit of requests, so that anybody may ask again.
            if not (again or status == 429) or time.monotonic() > deadline:
                return Request(recipients, None if unsure else status, {}, key)
            time.sleep(rng.uniform(0.5, 1.5))  # as clients do

    def _post(
        self, url: str, recipients: Sequence[str], key: str | None
    ) -> tuple[int | None, Any]:
        headers = {"Authorization": f"Bearer {KEY}"}
        if key is not None:
            headers["Idempotency-Key"] = key
        body = {
            "from": {"email": "facundo@example.com"},
            "destinations": [{"email": recipient} for recipient in recipients],
            "subject": "chaos subject",
            "plainContent": "chaos content",
        }
        try:
            response = self._pool.request(
                *("POST", f"{url}/emails/send"), json=body, headers=headers, timeout=_PATIENCE
            )
        except urllib3.exceptions.HTTPError:
            return None, None
        return response.status, response.json() if response.status == 202 else None


def _sizes(rng: Random) -> Iterator[int]:
    """Sizes of batches: most are small, some are one transaction large, and a few are larger."""
    while True:
        draw = rng.random()
        if draw < 0.85:
            yield rng.randint(1, 5)
        elif draw < 0.97:
            yield rng.randint(20, 98)
        else:
            yield rng.randint(99, 200)
