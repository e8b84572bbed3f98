"""Who is asking: bearer keys (RFC 6750)."""

from __future__ import annotations

import hashlib
import hmac
import math
from collections.abc import Mapping
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
        self._limiter = settings.request_limit and Limiter(settings.request_limit)

    def __call__(self) -> str:
        """The name of the request's API key; a `401` or `429` problem where it is not let in."""
        name = key_name(self._api_keys)
        structlog.contextvars.bind_contextvars(key_name=name)
        if self._limiter and (wait := self._limiter.take(name)):
            raise Problem(
                HTTPStatus.TOO_MANY_REQUESTS,
                "Too many requests with this API key.",
                headers={"Retry-After": str(math.ceil(wait))},
            )
        return name


def key_name(api_keys: Mapping[str, str]) -> str:
    """The name of the request's API key; a `401` problem if it has none that we know.

    `api_keys` maps the SHA-256 of each key, in hex, to its name.
    """
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    presented = hashlib.sha256(token.strip().encode()).hexdigest()
    found = None
    for digest, name in api_keys.items():
        # All of them, each in constant time: how long it takes says nothing about any key.
        if hmac.compare_digest(digest, presented):
            found = name
    given = scheme.lower() == "bearer" and token.strip()
    if not given or found is None:
        raise Problem(
            HTTPStatus.UNAUTHORIZED,
            "This API key is not known."
            if given
            else "Send an API key: Authorization: Bearer <key>.",
            headers={"WWW-Authenticate": "Bearer"},
        )
    return found
