"""Who is asking, and how often they may: API keys, as bearer tokens (RFC 6750) for the API."""

from __future__ import annotations

import hashlib
import hmac
import math
from http import HTTPStatus

import structlog
from flask import request

from mailrelay.settings import Settings
from mailrelay.web.limit import Limiter
from mailrelay.web.problems import Problem


class Gate:
    """Lets in who has an API key, as often as `MAILRELAY_REQUEST_LIMIT` allows.

    To be called before a request's body is looked at: what a stranger sends is not read.
    """

    def __init__(self, settings: Settings) -> None:
        self._api_keys = settings.api_keys
        """SHA-256 of each key, in hex, to its name."""
        self._limiter = settings.request_limit and Limiter(settings.request_limit)

    def __call__(self) -> str:
        """The name of the request's API key; a `401` or `429` problem where it is not let in."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        given = scheme.lower() == "bearer" and token.strip()
        name = self.name_of(token.strip()) if given else None
        if name is None:
            raise Problem(
                HTTPStatus.UNAUTHORIZED,
                "This API key is not known."
                if given
                else "Send an API key: Authorization: Bearer <key>.",
                headers={"WWW-Authenticate": "Bearer"},
            )
        self.admit(name)
        return name

    def name_of(self, key: str) -> str | None:
        """The name of an API key; None if it is none that we know."""
        presented = hashlib.sha256(key.encode()).hexdigest()
        found = None
        for digest, name in self._api_keys.items():
            # All of them, each in constant time: how long it takes says nothing about any key.
            if hmac.compare_digest(digest, presented):
                found = name
        return found

    def admit(self, name: str) -> None:
        """Count a request of the key of that name; a `429` problem where it comes too often."""
        structlog.contextvars.bind_contextvars(key_name=name)
        if self._limiter and (wait := self._limiter.take(name)):
            raise Problem(
                HTTPStatus.TOO_MANY_REQUESTS,
                "Too many requests with this API key.",
                headers={"Retry-After": str(math.ceil(wait))},
            )

    def fingerprint(self, name: str) -> str | None:
        """What tells a key from another of the same name, without giving its hash away; None where
        no key has the name."""
        digests = [digest for digest, each in self._api_keys.items() if each == name]
        return hashlib.sha256(digests[0].encode()).hexdigest() if digests else None
