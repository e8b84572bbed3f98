"""Who is asking: bearer keys (RFC 6750)."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from http import HTTPStatus

from flask import request

from mailrelay.web.problems import Problem


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
