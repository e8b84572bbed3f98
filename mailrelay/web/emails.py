"""``/emails``: send, show what happened, and decide what no provider could say."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from http import HTTPStatus
from itertools import islice
from typing import Any

from flask import Blueprint, Response, jsonify, request, url_for
from marshmallow import Schema, ValidationError
from werkzeug.exceptions import MethodNotAllowed, RequestEntityTooLarge

from mailrelay import senders
from mailrelay.message import BATCH_ID, Email, EmailId
from mailrelay.relay import IdempotencyKey, Relay
from mailrelay.web import representations, requests
from mailrelay.web.auth import Gate
from mailrelay.web.problems import Problem
from mailrelay.web.schemas import (
    IdempotencySchema,
    PageSchema,
    ResendSchema,
    ResolveSchema,
    SubmissionSchema,
    flatten,
)

_IDEMPOTENCY, _PAGE = IdempotencySchema(), PageSchema()

_NAMED_ERRORS = 10
"""How many of the bad fields a problem's text names; its `errors` has them all."""


def blueprint(
    relay: Relay,
    authenticated: Gate,
    chain: Sequence[str],
    allowed_senders: Mapping[str, Collection[str]],
) -> Blueprint:
    """The routes, for whom the gate lets in, with the configured chain.

    `allowed_senders` is by the name of a key; one that has none may send as anybody.
    """
    emails = Blueprint("emails", __name__, url_prefix="/emails")
    schema = SubmissionSchema(chain)

    @emails.post("/send")
    def send() -> Response:
        key_name = authenticated()
        body = _json_body()
        idempotency_key = _idempotency_key(body)
        submission = _load(schema, body)
        allowed = allowed_senders.get(key_name)
        if refusal := senders.refusal(allowed, submission.sender.email):
            raise _unprocessable({"from.email": [refusal]})
        accepted = relay.accept(submission, key_name, idempotency_key, requests.current_id())
        answer = jsonify(representations.accepted(accepted))
        answer.status_code = HTTPStatus.ACCEPTED
        answer.location = url_for("emails.show", id_=accepted.batch_id)
        answer.autocorrect_location_header = False
        if accepted.replayed:
            answer.headers["Idempotency-Replayed"] = "true"
        return answer

    @emails.get("/<id_>")
    def show(id_: str) -> Response:
        if id_ == "send":  # No id, but the route above with another method.
            raise MethodNotAllowed(["POST", "OPTIONS"])
        key_name = authenticated()
        if (email_id := EmailId.parse(id_)) is not None:
            email = relay.email(email_id, key_name)
            if email is not None:
                return jsonify(representations.email(email))
        elif re.fullmatch(BATCH_ID, id_):
            view = relay.batch(id_, key_name, *_load(_PAGE, request.args.to_dict()))
            if view is not None:
                return jsonify(representations.batch(view))
        raise Problem(HTTPStatus.NOT_FOUND, "There is no email and no batch with this id.")

    @emails.post("/<id_>/resend")
    def resend(id_: str) -> tuple[Response, HTTPStatus]:
        key_name = authenticated()
        if request.get_data():
            _load(ResendSchema(), _json_body())
        email = relay.resend(_email_id(id_), key_name)
        return _decided(email), HTTPStatus.ACCEPTED

    @emails.post("/<id_>/resolve")
    def resolve(id_: str) -> Response:
        key_name = authenticated()
        status = _load(ResolveSchema(), _json_body())
        return _decided(relay.resolve(_email_id(id_), key_name, status))

    return emails


def _email_id(id_: str) -> EmailId:
    email_id = EmailId.parse(id_)
    if email_id is None and re.fullmatch(BATCH_ID, id_):
        raise Problem(
            HTTPStatus.NOT_FOUND,
            f"This is a batch's id; give one of an email, such as {id_}-0.",
        )
    if email_id is None:
        raise _no_email()
    return email_id


def _decided(email: Email | None) -> Response:
    """The email after what a person decided."""
    if email is None:
        raise _no_email()
    return jsonify(representations.email(email))


def _no_email() -> Problem:
    return Problem(HTTPStatus.NOT_FOUND, "There is no email with this id.")


def _load(schema: Schema, given: dict[str, Any]) -> Any:
    """What a part of a request says; a problem that names each bad field otherwise."""
    try:
        return schema.load(given)
    except ValidationError as error:
        raise _unprocessable(flatten(error.messages_dict)) from None


def _json_body() -> dict[str, Any]:
    """The request's JSON object; a problem that says what is wrong with it otherwise."""
    if not request.is_json:
        raise Problem(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Send JSON, with Content-Type: application/json."
        )
    data = request.get_data()
    if request.content_length is None and len(data) == request.max_content_length:
        # Of a body that comes in chunks Werkzeug drops what is over the limit, without a word.
        raise RequestEntityTooLarge
    try:
        body = json.loads(
            data.decode("utf-8-sig"),
            parse_constant=_no_constant,
            object_pairs_hook=_distinct,
        )
    except UnicodeDecodeError:
        raise Problem(HTTPStatus.BAD_REQUEST, "The body is not in UTF-8.") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise Problem(
            HTTPStatus.BAD_REQUEST, f"The body is not JSON: {error.msg} at {where}."
        ) from None
    except (ValueError, RecursionError):
        raise Problem(
            HTTPStatus.BAD_REQUEST, "The body is not JSON that can be read here."
        ) from None
    if not isinstance(body, dict):
        raise _unprocessable({"body": ["Must be an object."]})
    return body


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object's fields. Of two with one name, `json` would silently drop the first."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        [(twice, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise Problem(HTTPStatus.BAD_REQUEST, f"The body has the field {twice!r} twice.")
    return fields


def _idempotency_key(body: dict[str, Any]) -> IdempotencyKey | None:
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return None
    _load(_IDEMPOTENCY, {"Idempotency-Key": key})
    return IdempotencyKey.of(key, body)


def _unprocessable(errors: dict[str, list[str]]) -> Problem:
    named, more = ", ".join(islice(errors, _NAMED_ERRORS)), len(errors) - _NAMED_ERRORS
    return Problem(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        f"Wrong: {named}{f' and {more} more' if more > 0 else ''}.",
        errors=errors,
    )
