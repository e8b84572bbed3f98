"""What a request may hold, field by field: its body, its query, its headers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

from marshmallow import (
    EXCLUDE,
    RAISE,
    Schema,
    ValidationError,
    fields,
    post_load,
    validates_schema,
)
from marshmallow.validate import Length, OneOf, Range, Validator

from mailrelay import addresses
from mailrelay.message import Address, Content, Status
from mailrelay.relay import Submission

MAX_DESTINATIONS = 1000

MAX_LINE = 998
"""Characters of a header's line (RFC 5322, section 2.1.1), and so of any value in one."""

DEFAULT_PAGE = 100

TEXTS = ("plainContent", "htmlContent")
"""A submission has at least one of them."""


class _Pattern(Validator):
    """A pattern for the whole text: with `re.match`, a `$` lets a line break stand at the end."""

    def __init__(self, pattern: str, *, error: str) -> None:
        self.regex = re.compile(pattern)
        self._said = error

    def __call__(self, value: str) -> str:
        if not self.regex.fullmatch(value):
            raise ValidationError(self._said)
        return value


# The patterns are read by JavaScript as well, from the API's description.
_HEADER_NAME = _Pattern(
    r"^([Xx]|[Ll][Ii][Ss][Tt])-[!#$%&'*+\-.^_`|~0-9A-Za-z]+$",
    error="Only headers whose names begin with X- or List- may be given.",
)

_NO_CONTROL = _Pattern(
    r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*$",
    error="May not hold a line break or another control character.",
)
"""None of Unicode's categories Cc, Zl and Zp: whoever smuggles one in writes headers of his own."""


def _encodable(value: str) -> None:
    """JSON can hold halves of characters, which no mail can."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValidationError("Has half of a surrogate pair, which is no character.") from None


def _email(value: str) -> str:
    """The address in its normal form, or a `ValidationError`."""
    if len(value) > MAX_LINE:  # Far over the real limit, and reading all of it costs time.
        raise ValidationError("The email address is too long.")
    _encodable(value)
    _NO_CONTROL(value)
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

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> list[Any]:
        if isinstance(value, list):
            self._validate(value)
        return super()._deserialize(value, *args, **kwargs)


def _header_value(**kwargs: Any) -> fields.String:
    return fields.String(
        validate=[Length(min=1, max=MAX_LINE), _encodable, _NO_CONTROL],
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

    email = _Email(
        required=True,
        metadata={
            "format": "idn-email",
            "description": "At most 254 characters; checked by its syntax, without asking DNS.",
        },
    )
    name = _header_value(metadata={"description": "Shown beside the address."})

    @post_load
    def _build(self, data: dict[str, Any], **_: Any) -> Address:
        return Address(**data)


def _header_lines(headers: Mapping[str, str]) -> None:
    errors: dict[str, list[str]] = {}
    seen: set[str] = set()
    for name, value in headers.items():
        if name.lower() in seen:
            errors[name] = ["Is given twice."]
        elif len(name) + len(": ") + len(value) > MAX_LINE:
            errors[name] = [f"Name and value are longer than {MAX_LINE} characters."]
        seen.add(name.lower())
    if errors:
        raise ValidationError(errors)


class _Headers(fields.Dict):
    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        headers = super()._deserialize(value, *args, **kwargs)  # type: ignore[no-untyped-call]
        _header_lines(headers)  # As `validate` it could not say which name is wrong.
        return headers


class SubmissionSchema(Schema):
    """The body of ``POST /emails/send``.

    `configured` is the chain of providers, from which a batch may choose.
    """

    class Meta:
        unknown = RAISE

    sender = fields.Nested(AddressSchema, required=True, data_key="from")
    destinations = _Destinations(
        fields.Nested(AddressSchema),
        required=True,
        validate=Length(min=1, max=MAX_DESTINATIONS),
        metadata={"description": "Each gets an email of its own and sees nobody else."},
    )
    subject = _header_value(required=True)
    plain = _text("plainContent")
    html = _text("htmlContent")
    reply_to = fields.Nested(AddressSchema, data_key="replyTo")
    headers = _Headers(
        keys=fields.String(validate=_HEADER_NAME),
        values=_header_value(),
        load_default=dict,
        metadata={
            "description": (
                "Extra headers; names begin with X- or List-, and come once, whatever their case. Name"
                f" and value together have at most {MAX_LINE - len(': ')} characters."
            )
        },
    )
    chain = fields.List(
        fields.String(),
        data_key="providers",
        validate=Length(min=1),
        metadata={
            "uniqueItems": True,
            "description": "A chain for this batch: names that are configured, in the order to try.",
        },
    )

    def __init__(self, configured: Sequence[str]) -> None:
        super().__init__()
        self._configured = tuple(configured)
        chain = cast("fields.List[str]", self.fields["chain"])
        chain.inner.metadata = {"enum": list(configured)}

    @validates_schema(pass_original=True, skip_on_field_errors=False)
    def _has_text(self, _data: object, original: Mapping[str, Any], **_: Any) -> None:
        if not any(name in original for name in TEXTS):
            raise ValidationError("Give plainContent, htmlContent or both.", "plainContent")

    @validates_schema
    def _known_chain(self, data: dict[str, Any], **_: Any) -> None:
        chain = data.get("chain", [])
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
            chain=tuple(data.get("chain", self._configured)),
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


class _WholeNumber(fields.Integer):
    """In a query. `int` takes more than a client may mean: signs, blanks, any script's digits."""

    def _validated(self, value: Any) -> int:
        if not (isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value)):
            raise self.make_error("invalid", input=value)
        return super()._validated(value)


class PageSchema(Schema):
    """The query of ``GET /emails/{id}``: which emails of a batch. What else it says is ignored."""

    class Meta:
        unknown = EXCLUDE

    _LIMIT = f"Takes a whole number from 1 to {MAX_DESTINATIONS}."

    limit = _WholeNumber(
        validate=Range(min=1, max=MAX_DESTINATIONS, error=_LIMIT),
        error_messages={"invalid": _LIMIT},
        load_default=DEFAULT_PAGE,
        metadata={"description": "How many emails of a batch to show."},
    )
    cursor = fields.String(
        validate=_Pattern(
            rf"^([0-9]{{1,3}}|{MAX_DESTINATIONS})$",
            error="Takes the nextCursor of an earlier answer.",
        ),
        load_default="0",
        metadata={"description": "The `nextCursor` of the page before."},
    )

    @post_load
    def _build(self, data: dict[str, Any], **_: Any) -> tuple[int, int]:
        """(first index, number of emails)"""
        return int(data["cursor"]), data["limit"]


class IdempotencySchema(Schema):
    """The headers of ``POST /emails/send``."""

    key = fields.String(
        data_key="Idempotency-Key",
        validate=_Pattern(r"^[!-~]{1,255}$", error="Takes 1 to 255 visible ASCII characters."),
        metadata={
            "description": (
                "A text of your own, say an order's number: repeat a request with it until you have"
                " an answer, and it is accepted once. Kept for 24 hours, for each API key by itself."
            )
        },
    )


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
