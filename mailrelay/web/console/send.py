"""``/send``: the form, what is wrong in it, and the batch that it becomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from http import HTTPStatus

from flask import Blueprint, Response, redirect, request, url_for
from flask_wtf.csrf import CSRFError
from markupsafe import Markup, escape
from marshmallow import ValidationError
from werkzeug.datastructures import FileStorage
from werkzeug.wrappers import Response as BaseResponse

from mailrelay import senders
from mailrelay.relay import IdempotencyMismatch, Relay, StillAccepting, Submission
from mailrelay.settings import Settings
from mailrelay.store import ContentTooLarge, StoreUnavailable
from mailrelay.web import requests
from mailrelay.web.console import pages, session
from mailrelay.web.console.draft import EXAMPLE, Draft
from mailrelay.web.console.recipients import BadFile, Recipient, from_csv, parse
from mailrelay.web.schemas import MAX_DESTINATIONS, SubmissionSchema, flatten

_Errors = Mapping[str, Sequence[str]]


def register(console: Blueprint, relay: Relay, settings: Settings) -> None:
    schema = SubmissionSchema(settings.providers)

    @console.get("/send")
    def send() -> Response:
        # An example to send at once, where it reaches nobody.
        new = Draft()
        return form(replace(EXAMPLE, key=new.key) if settings.sandbox_url else new)

    @console.post("/send")
    def sent() -> BaseResponse:
        draft = Draft.read(request.form)
        try:
            session.let_in()
        except (session.SignedOut, CSRFError) as reason:
            return not_let_in(draft, reason, "press Send again")
        if files := _files():
            return with_files(draft, files, ask_again=True)
        recipients = parse(draft.recipients)
        body = draft.body(recipients)
        try:
            submission: Submission = schema.load(body)
            check_sender(submission)
            accepted = relay.accept(
                submission,
                session.key_name(),
                draft.idempotency_key(body),
                requests.current_id(),
            )
        except ValidationError as error:
            return form(draft, HTTPStatus.UNPROCESSABLE_ENTITY, flatten(error.messages_dict))
        except ContentTooLarge:
            said = (
                "Over 350 KB compressed, and no bucket is configured for that (MAILRELAY_BUCKET)."
            )
            return form(draft, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, {"htmlContent": [said]})
        except IdempotencyMismatch:
            return form(
                replace(draft, key=Draft().key),
                HTTPStatus.CONFLICT,
                notice="An email was sent from this form before, with other content. Press Send"
                " again to send this one too.",
            )
        except StillAccepting:
            return form(
                draft,
                HTTPStatus.CONFLICT,
                notice="This is being accepted already. Press Send again in a moment to see it:"
                " it is sent once.",
            )
        except StoreUnavailable:
            return form(
                draft,
                HTTPStatus.SERVICE_UNAVAILABLE,
                notice="The store cannot be reached, and nothing was accepted as far as can be"
                " known. Press Send again in a moment: however often you do, it is sent once.",
            )
        if len(accepted.emails) == 1:
            return redirect(
                url_for("console.email", batch_id=accepted.batch_id, index=0), HTTPStatus.SEE_OTHER
            )
        return redirect(url_for("console.batch", batch_id=accepted.batch_id), HTTPStatus.SEE_OTHER)

    @console.post("/send/recipients")
    def add_recipients() -> Response:
        """The form again, with the recipients of a CSV file added to those in it."""
        draft = Draft.read(request.form)
        try:
            session.let_in()
        except (session.SignedOut, CSRFError) as reason:
            return not_let_in(draft, reason, "choose the file again")
        return with_files(draft, _files())

    @console.post("/send/preview")
    def preview() -> Response:
        """What a reader would see, for the frame beside the form."""
        draft = Draft.read(request.form)
        try:
            session.let_in()
        except (session.SignedOut, CSRFError) as reason:
            return pages.mail(_as_html(_NO_PREVIEW), _refused(reason))
        return pages.mail(draft.html or _as_html(draft.plain))

    def check_sender(submission: Submission) -> None:
        """As for the API: a key may send as whom its list says."""
        allowed = settings.senders.get(session.key_name())
        if refusal := senders.refusal(allowed, submission.sender.email):
            raise ValidationError({"from": {"email": [refusal]}})

    def form(
        draft: Draft,
        status: HTTPStatus = HTTPStatus.OK,
        errors: _Errors | None = None,
        notice: str | Markup | None = None,
        tone: str = "bad",
    ) -> Response:
        recipients = parse(draft.recipients)
        return pages.page(
            "send.html",
            status,
            draft=draft,
            count=len(recipients),
            most=MAX_DESTINATIONS,
            errors=errors or {},
            first_wrong=_first_wrong(errors or {}),
            bad_recipients=_bad(recipients, errors or {}),
            notice=notice,
            tone=tone,
        )

    def with_files(
        draft: Draft, files: Sequence[FileStorage], *, ask_again: bool = False
    ) -> Response:
        """The form with the files' recipients added; nothing is sent to who was not seen in it."""
        try:
            added = [each for file in files for each in from_csv(file.read())]
        except BadFile as error:
            return form(draft, HTTPStatus.UNPROCESSABLE_ENTITY, {"csv": [str(error)]})
        before = parse(draft.recipients)
        together = parse("\n".join(map(str, [*before, *added])))
        notice = None
        if ask_again:
            new = len(together) - len(before)
            notice = (
                f"{new:,} recipient{'' if new == 1 else 's'} of the file"
                f" {'was' if new == 1 else 'were'} added, and nothing was sent yet. Press Send again."
            )
        listed = "\n".join(map(str, together))
        return form(replace(draft, recipients=listed), notice=notice, tone="good")

    def not_let_in(draft: Draft, reason: Exception, then: str) -> Response:
        """Nothing of what was typed is lost: the same form again, for once somebody is in."""
        notice = escape(f"This page was opened before you last signed in: {then}.")
        if isinstance(reason, session.SignedOut):
            notice = Markup(
                'Your session has ended, and nothing was sent. <a href="{}" target="_blank">Sign in'
                " in another tab</a>, then come back and {}."
            ).format(url_for("console.sign_in"), then)
        return form(draft, _refused(reason), notice=notice)


_NO_PREVIEW = (
    "There is no preview: your session is over.\n\n"
    "Press Send, which keeps what you typed and says how to go on, or sign in in another tab."
)


def _refused(reason: Exception) -> HTTPStatus:
    signed_out = isinstance(reason, session.SignedOut)
    return HTTPStatus.UNAUTHORIZED if signed_out else HTTPStatus.BAD_REQUEST


def _files() -> list[FileStorage]:
    """Those that were chosen; a browser sends a nameless one where none was."""
    return [file for file in request.files.getlist("csv") if file]


_FIELDS = (
    "from",
    "from.email",
    "from.name",
    "destinations",
    "csv",
    "subject",
    "plainContent",
    "htmlContent",
)
"""As they follow each other in the form."""


def _first_wrong(errors: _Errors) -> str | None:
    """The field that its user has to look at first."""
    wrong = {path if path in _FIELDS else path.split(".")[0] for path in errors}
    return next((field for field in _FIELDS if field in wrong), None)


def _bad(recipients: Sequence[Recipient], errors: _Errors) -> list[tuple[str, str]]:
    """Each recipient that is wrong, as it was written, and why."""
    found = []
    for path, messages in errors.items():
        kind, *where = path.split(".")
        if kind == "destinations" and where and int(where[0]) < len(recipients):
            found.append((str(recipients[int(where[0])]), " ".join(messages)))
    return found


def _as_html(plain: str) -> str:
    return str(
        Markup('<pre style="white-space: pre-wrap; font: 15px sans-serif">{}</pre>').format(plain)
    )
