"""What a request's body may hold, field by field."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from marshmallow import (
    RAISE,
    Schema,
    ValidationError,
    fields,
    post_load,
    validates_schema,
)
from marshmallow.validate import Length, OneOf

from mailrelay import addresses
from mailrelay.message import Address, Content, Status
from mailrelay.relay import Submission

MAX_DESTINATIONS = 1000

MAX_LINE = 998
"""Characters of a header's line (RFC 5322, section 2.1.1), and so of any value in one."""

# ASCII, or "ſ" would match "s" where case does not count.
_HEADER_NAME = re.compile(r"(X|List)-[!#$%&'*+\-.^_`|~0-9A-Z]+\Z", re.IGNORECASE | re.ASCII)

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
"""Unicode's categories Cc, Zl and Zp."""


def _encodable(value: str) -> None:
    """JSON can hold halves of characters, which no mail can."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValidationError("Has half of a surrogate pair, which is no character.") from None


def _one_line(value: str) -> None:
    """No CR, LF or other control character: whoever smuggles one in writes headers of his own."""
    _encodable(value)
    if _CONTROL.search(value):
        raise ValidationError("May not hold a line break or another control character.")


def _email(value: str) -> str:
    """The address in its normal form, or a `ValidationError`."""
    if len(value) > MAX_LINE:  # Far over the real limit, and reading all of it costs time.
        raise ValidationError("The email address is too long.")
    _one_line(value)
    try:
        return addresses.normalize(value)
    except ValueError as error:
        raise ValidationError(str(error)) from None


class _Email(fields.String):
    """An address, checked by its syntax and lengths, without asking DNS."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> str:
        return _email(super()._deserialize(value, *args, **kwargs))


class _Destinations(fields.List[Any]):
    """Counted before they are looked at: a body can hold a million of them."""

    _count = Length(min=1, max=MAX_DESTINATIONS)

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> list[Any]:
        if isinstance(value, list):
            self._count(value)
        return super()._deserialize(value, *args, **kwargs)


def _header_value(**kwargs: Any) -> fields.String:
    return fields.String(
        validate=[Length(min=1, max=MAX_LINE), _one_line],
        error_messages={"null": "May not be null; leave it out."},
        **kwargs,
    )


def _text(name: str) -> fields.String:
    return fields.String(data_key=name, validate=[Length(min=1), _encodable])


class AddressSchema(Schema):
    """``{"email": "pedro@example.org", "name": "Pedro"}``"""

    class Meta:
        unknown = RAISE

    error_messages = {"type": "Must be an object with email and name."}  # noqa: RUF012

    email = _Email(required=True)
    name = _header_value()

    @post_load
    def _build(self, data: dict[str, Any], **_: Any) -> Address:
        return Address(**data)


def _header_names(headers: Mapping[str, str]) -> None:
    errors: dict[str, list[str]] = {}
    seen: set[str] = set()
    for name, value in headers.items():
        if not _HEADER_NAME.match(name):
            errors[name] = ["Only headers whose names begin with X- or List- may be given."]
        elif name.lower() in seen:
            errors[name] = ["Is given twice."]
        elif len(name) + len(": ") + len(value) > MAX_LINE:
            errors[name] = [f"Name and value are longer than {MAX_LINE} characters."]
        seen.add(name.lower())
    if errors:
        raise ValidationError(errors)


class _Headers(fields.Dict):
    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        headers = super()._deserialize(value, *args, **kwargs)  # type: ignore[no-untyped-call]
        _header_names(headers)  # As `validate` it could not say which name is wrong.
        return headers


class SubmissionSchema(Schema):
    """The body of ``POST /emails/send``.

    `configured` is the chain of providers, from which a batch may choose.
    """

    class Meta:
        unknown = RAISE

    sender = fields.Nested(AddressSchema, required=True, data_key="from")
    destinations = _Destinations(fields.Nested(AddressSchema), required=True)
    subject = _header_value(required=True)
    plain = _text("plainContent")
    html = _text("htmlContent")
    reply_to = fields.Nested(AddressSchema, data_key="replyTo")
    headers = _Headers(keys=fields.String(), values=_header_value(), load_default=dict)
    chain = fields.List(
        fields.String(),
        data_key="providers",
        validate=Length(min=1),
        load_default=None,
        allow_none=False,
    )

    def __init__(self, configured: Sequence[str]) -> None:
        super().__init__()
        self._configured = tuple(configured)

    @validates_schema(pass_original=True, skip_on_field_errors=False)
    def _has_text(self, _data: object, original: Mapping[str, Any], **_: Any) -> None:
        if "plainContent" not in original and "htmlContent" not in original:
            raise ValidationError("Give plainContent, htmlContent or both.", "plainContent")

    @validates_schema
    def _known_chain(self, data: dict[str, Any], **_: Any) -> None:
        chain = data["chain"] or []
        unknown = [name for name in chain if name not in self._configured]
        if unknown:
            there = ", ".join(self._configured)
            raise ValidationError(
                f"Not configured: {', '.join(unknown)}; there are {there}.", "providers"
            )
        if len(set(chain)) < len(chain):
            raise ValidationError("Names a provider twice.", "providers")

    @post_load
    def _build(self, data: dict[str, Any], **_: Any) -> Submission:
        return Submission(
            sender=data["sender"],
            destinations=tuple(data["destinations"]),
            subject=data["subject"],
            content=Content(
                plain=data.get("plain"),
                html=data.get("html"),
                reply_to=data.get("reply_to"),
                headers=data["headers"],
            ),
            chain=tuple(data["chain"] or self._configured),
        )


class ResendSchema(Schema):
    """The body of ``POST /emails/{id}/resend``, which needs none."""

    class Meta:
        unknown = RAISE


class ResolveSchema(Schema):
    """The body of ``POST /emails/{id}/resolve``: ``{"status": "sent"}``, or ``"failed"``."""

    class Meta:
        unknown = RAISE

    status = fields.String(
        required=True,
        validate=OneOf((Status.SENT, Status.FAILED), error="Must be sent or failed."),
    )

    @post_load
    def _build(self, data: dict[str, Any], **_: Any) -> Status:
        return Status(data["status"])


def flatten(messages: Mapping[Any, Any]) -> dict[str, list[str]]:
    """marshmallow's nested messages by dotted path: ``{"destinations.3.email": ["…"]}``."""
    flat: dict[str, list[str]] = {}

    def walk(value: Any, path: tuple[str, ...]) -> None:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                # "_schema" and a dict's "key"/"value" are marshmallow's words, not the client's.
                own = key == "_schema" or (key in ("key", "value") and path[:-1] == ("headers",))
                walk(inner, path if own else (*path, str(key)))
        else:
            flat.setdefault(".".join(path) if path else "body", []).extend(map(str, value))

    walk(messages, ())
    return flat
