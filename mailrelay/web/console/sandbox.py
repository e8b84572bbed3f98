"""``/sandbox``, in `make run` only: the providers' switches, and the mailbox of what they accepted.

The sandbox is a server of its own, which answers to programs on this machine: the console asks it
from here, and a browser never does.
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import urllib3
from flask import Blueprint, Response, flash, redirect, request, url_for
from werkzeug.wrappers import Response as BaseResponse

from mailrelay.web.console import pages

_TIMEOUT = 5.0
"""Seconds for an answer of the sandbox, which is on this machine."""

_PAGE = 25

CHOICES: dict[str, tuple[str, dict[str, Any]]] = {
    "healthy": ("healthy", {"kind": "healthy"}),
    "503": ("answers 503", {"kind": "status", "status": 503}),
    "slow": ("slow, 5 s", {"kind": "slow", "seconds": 5}),
    "hang": ("no answer", {"kind": "hang"}),
    "refuse": ("refuses", {"kind": "refuse"}),
}
"""A switch's positions: what each is called, and the fault that it is to the sandbox."""


class SandboxUnavailable(Exception):
    """It does not answer, or not as it should."""


class _Sandbox:
    """The sandbox's API (docs/sandbox.md). Everything here raises `SandboxUnavailable`."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._http = urllib3.PoolManager(timeout=_TIMEOUT, retries=False)

    def ask(self, method: str, path: str, **kwargs: Any) -> Any:
        """The answer in JSON; None for one without a body, or where there is no such thing."""
        try:
            response = self._http.request(method, self._url + path, **kwargs)
        except urllib3.exceptions.HTTPError as error:
            raise SandboxUnavailable from error
        if response.status == HTTPStatus.NOT_FOUND:
            return None
        if response.status >= HTTPStatus.BAD_REQUEST:
            raise SandboxUnavailable
        return response.json() if response.data else None


def register(console: Blueprint, url: str, chain: Sequence[str]) -> None:
    """`url` is where the sandbox is; its switches come in the order of the chain."""
    there = _Sandbox(url)

    @console.get("/sandbox")
    def sandbox() -> Response:
        page = min(max(request.args.get("page", 1, type=int), 1), 10**6)
        to = request.args.get("to", "").strip()
        fields = {"limit": str(_PAGE), "offset": str((page - 1) * _PAGE)} | (
            {"to": to} if to else {}
        )
        found = there.ask("GET", "/messages", fields=fields)
        faults = there.ask("GET", "/faults")
        return pages.page(
            "sandbox.html",
            switches=[
                (provider, _choice(faults[provider]), faults[provider])
                for provider in chain
                if provider in faults
            ],
            choices={name: said for name, (said, _) in CHOICES.items()},
            mails=found["messages"],
            total=found["total"],
            to=to,
            page=page,
            pages=max(1, -(-found["total"] // _PAGE)),
        )

    @console.post("/sandbox/switches/<provider>")
    def switch(provider: str) -> BaseResponse:
        said, fault = CHOICES.get(request.form.get("choice", ""), (None, None))
        if said is None or provider not in there.ask("GET", "/faults"):
            return pages.not_found("There is no such switch.")
        there.ask("PUT", f"/faults/{provider}", json=fault)
        flash(f"{provider}: {said}, from now on.", "good")
        return redirect(url_for("console.sandbox"), HTTPStatus.SEE_OTHER)

    @console.get("/sandbox/mail/<path:mail_id>")
    def sandbox_mail(mail_id: str) -> Response:
        mail = find(mail_id)
        if mail is None:
            return pages.not_found("There is no such message in the mailbox; it may be emptied.")
        return pages.page("sandbox_mail.html", mail=mail)

    @console.get("/sandbox/html/<path:mail_id>")
    def sandbox_html(mail_id: str) -> Response:
        """The HTML of a message, for a frame."""
        mail = find(mail_id)
        if mail is None or mail["html"] is None:
            return pages.not_found("There is no such message in the mailbox; it may be emptied.")
        return pages.mail(mail["html"])

    def find(mail_id: str) -> Any:
        return there.ask("GET", f"/messages/{quote(mail_id, safe='')}")

    @console.errorhandler(SandboxUnavailable)
    def _unavailable(_: SandboxUnavailable) -> Response:
        return pages.error(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "The sandbox does not answer",
            "make run starts it again by itself if it has died; its terminal says so.",
            retry=True,
        )


def _choice(fault: dict[str, Any]) -> str | None:
    """The position of the switch; None for a fault that the console has none for."""
    return next((name for name, (_, each) in CHOICES.items() if each == fault), None)
