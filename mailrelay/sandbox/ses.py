"""Amazon SES's front, API v2: `SendEmail` and `GetAccount`.

Answers after https://docs.aws.amazon.com/ses/latest/APIReference-V2/API_SendEmail.html. The
signature is not verified: the sandbox has no secret to do it with.
"""

import base64
import json
import re
import time
import uuid
from typing import Any

from flask import Blueprint, Response, request

from mailrelay.sandbox import mime
from mailrelay.sandbox.decoding import (
    header_text,
    list_in,
    object_in,
    own_headers,
    parse_address,
    text_in,
)
from mailrelay.sandbox.exchange import Exchange
from mailrelay.sandbox.keys import is_good_key
from mailrelay.sandbox.mail import Address, Mail
from mailrelay.sandbox.proxies import phrase, proxy_error

NAME = "ses"

_CREDENTIAL = re.compile(r"AWS4-HMAC-SHA256 .*?Credential=([^/,\s]+)/")

# Of one status, the error that boto3's caller most likely meets; 4xx left out here answer
# BadRequestException.
_ERRORS = {
    400: ("MessageRejected", "Transaction failed: the message could not be parsed."),
    401: ("UnrecognizedClientException", "The security token included in the request is invalid."),
    403: ("AccessDeniedException", "User is not authorized to perform `ses:SendEmail'"),
    404: ("NotFoundException", "Configuration set <sandbox> does not exist."),
    413: ("RequestEntityTooLargeException", "The message is too large."),
    429: ("TooManyRequestsException", "Maximum sending rate exceeded."),
    500: ("InternalFailure", "An internal error occurred."),
    503: ("ServiceUnavailable", "The service is temporarily unavailable."),
}


def blueprint(exchange: Exchange) -> Blueprint:
    """The routes under `/ses`."""
    routes = Blueprint(NAME, __name__, url_prefix=f"/{NAME}")
    answers = _Answers()

    @routes.post("/v2/email/outbound-emails")
    def send_email() -> Response:
        exchange.count_request(NAME)
        unauthorized = _unauthorized()
        if unauthorized is not None:
            return unauthorized
        try:
            mail = _mail(object_in(json.loads(request.get_data())))
        except (json.JSONDecodeError, UnicodeDecodeError):
            return _error(400, "SerializationException", "The body is not JSON.")
        except ValueError as error:
            return _error(400, "BadRequestException", str(error))
        return exchange.deliver(mail, answers)

    @routes.get("/v2/email/account")
    def get_account() -> Response:
        return (
            _unauthorized()
            or exchange.disturb_check(NAME, answers)
            or _answer(
                200,
                {
                    "DedicatedIpAutoWarmupEnabled": False,
                    "EnforcementStatus": "HEALTHY",
                    "ProductionAccessEnabled": True,
                    "SendingEnabled": True,
                    "SendQuota": {
                        "Max24HourSend": 50_000.0,
                        "MaxSendRate": 14.0,
                        "SentLast24Hours": 0.0,
                    },
                },
            )
        )

    return routes


def _unauthorized() -> Response | None:
    found = _CREDENTIAL.match(request.headers.get("Authorization", ""))
    if found is None:
        return _error(403, "MissingAuthenticationTokenException", "Missing Authentication Token")
    if not is_good_key(found[1]):
        return _error(
            403,
            "UnrecognizedClientException",
            "The security token included in the request is invalid.",
        )
    return None


def _mail(body: dict[str, Any]) -> Mail:
    """Raises `ValueError` with SES's own wording."""
    content = object_in(body.get("Content"))
    if content.get("Raw") is not None:
        return _raw(body, object_in(content["Raw"]))
    if content.get("Simple") is not None:
        return _simple(body, object_in(content["Simple"]))
    raise ValueError("The sandbox takes Content.Simple and Content.Raw.")


def _simple(body: dict[str, Any], simple: dict[str, Any]) -> Mail:
    def data(value: object) -> str | None:
        return text_in(object_in(value).get("Data")) or None

    parts = object_in(simple.get("Body"))
    plain, html = data(parts.get("Text")), data(parts.get("Html"))
    if plain is None and html is None:
        raise ValueError("Message body is required.")
    if simple.get("Subject") is None:
        raise ValueError("Subject is required.")
    reply_to = _reply_to(body)
    return Mail(
        id=_new_id(),
        provider=NAME,
        sender=_address(text_in(body.get("FromEmailAddress"))),
        to=_address(_recipient(body) or ""),
        reply_to=_address(reply_to) if reply_to else None,
        subject=header_text(data(simple["Subject"]) or ""),
        plain=plain,
        html=html,
        headers=own_headers(
            (text_in(header.get("Name")), text_in(header.get("Value")))
            for header in map(object_in, list_in(simple.get("Headers")))
        ),
    )


def _raw(body: dict[str, Any], raw: dict[str, Any]) -> Mail:
    """The request's own addresses come before the message's, as with SES."""
    try:
        message = mime.take_apart(base64.b64decode(text_in(raw.get("Data")), validate=True))
    except ValueError:
        raise ValueError("Content.Raw.Data is not base64.") from None
    sender = text_in(body.get("FromEmailAddress")) or message.header("From")
    if not sender:
        raise ValueError("Missing required header 'From'.")
    shown_to = message.header("To") or ""
    to = _address(_recipient(body) or shown_to)
    if to.name is None and shown_to and _address(shown_to).email == to.email:
        to = _address(shown_to)  # the envelope has the bare address, the header the name
    reply_to = _reply_to(body) or message.header("Reply-To")
    return Mail(
        id=_new_id(),
        provider=NAME,
        sender=_address(sender),
        to=to,
        reply_to=_address(reply_to) if reply_to else None,
        subject=header_text(message.header("Subject") or ""),
        plain=message.plain,
        html=message.html,
        headers=own_headers(message.headers),
    )


def _recipient(body: dict[str, Any]) -> str | None:
    """The one recipient of the request; `None` where the message is to name it."""
    destination = object_in(body.get("Destination"))
    everyone = [
        text_in(address)
        for field in ("ToAddresses", "CcAddresses", "BccAddresses")
        for address in list_in(destination.get(field))
    ]
    if len(everyone) > 1:
        # SES takes 50; one a request is all the sandbox keeps.
        raise ValueError("The sandbox takes one recipient a request.")
    return everyone[0] if everyone else None


def _reply_to(body: dict[str, Any]) -> str | None:
    addresses = list_in(body.get("ReplyToAddresses"))
    return text_in(addresses[0]) if addresses else None


def _address(value: str) -> Address:
    try:
        address = parse_address(value)
    except ValueError:
        raise ValueError(
            "Illegal address" if "@" in value else "Missing final '@domain'"
        ) from None
    if not address.email.isascii():
        # SES has no SMTPUTF8; a domain outside ASCII has to come in punycode.
        raise ValueError("Local address contains control or whitespace")
    return address


def _new_id() -> str:
    return f"0100{time.time_ns() // 1_000_000:012x}-{uuid.uuid4()}-000000"


class _Answers:
    def accepted(self, mail_id: str) -> Response:
        return _answer(200, {"MessageId": mail_id})

    def refused(self) -> Response:
        return _error(400, "BadRequestException", "Illegal address")

    def error(self, status: int, wait: int | None = None) -> Response:
        if status in (502, 504):
            return proxy_error(status)
        code, message = _ERRORS.get(
            status, ("BadRequestException" if status < 500 else "InternalFailure", phrase(status))
        )
        return _error(status, code, message)


def _error(status: int, code: str, message: str) -> Response:
    """The form in which botocore finds the code: a header beside the JSON."""
    response = _answer(status, {"message": message})
    response.headers["x-amzn-ErrorType"] = code
    return response


def _answer(status: int, body: dict[str, Any]) -> Response:
    return Response(
        json.dumps(body),
        status,
        {"x-amzn-RequestId": str(uuid.uuid4())},
        content_type="application/json",
    )
