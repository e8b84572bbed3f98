"""Amazon SES, by API version 2: ``SendEmail`` with a message of our own making.

https://docs.aws.amazon.com/ses/latest/APIReference-V2/API_SendEmail.html
"""

from __future__ import annotations

import re
from contextvars import ContextVar
from dataclasses import dataclass
from email.message import Message
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import (
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    SSOError,
    TokenRetrievalError,
)

from mailrelay.message import Outcome
from mailrelay.providers import Answer, Envelope, headers
from mailrelay.providers.http import (
    OF_THE_EMAIL,
    Body,
    body_seconds,
    default_outcome,
    one_line,
    retry_after,
    silence,
)
from mailrelay.settings import PROVIDER_CONNECT_TIMEOUT, Settings, SettingsError

_BY_ERROR = {
    "MessageRejected": Outcome.REJECTED,
    "BadRequestException": Outcome.REJECTED,
    "InvalidParameterValue": Outcome.REJECTED,
    "AccountSuspendedException": Outcome.UNAVAILABLE,
    "SendingPausedException": Outcome.UNAVAILABLE,
    "MailFromDomainNotVerifiedException": Outcome.UNAVAILABLE,
    "LimitExceededException": Outcome.UNAVAILABLE,
    "NotFoundException": Outcome.UNAVAILABLE,
    "TooManyRequestsException": Outcome.RETRY,
    "ThrottlingException": Outcome.RETRY,
}

_THROTTLED = ("TooManyRequestsException", "ThrottlingException")

_NOT_VERIFIED = "not verified"
"""In a MessageRejected: "Email address is not verified. The following identities failed the check
in region …": the sender's fault, or while the account is in SES's sandbox the recipient's."""

_DAILY_QUOTA = "Daily message quota exceeded"

_QUOTA_WAIT = 3600.0
"""Seconds to leave SES alone once the day's quota is used up. It counts the last 24 hours at each
moment, so that a part of it comes back all the time."""

_OF_THE_SENDER = ("MailFromDomainNotVerifiedException",)
"""Errors that only emails of the same sender meet."""

_DENIED = re.compile(r"not authorized .* on resource .*:identity/", re.IGNORECASE)
"""In an AccessDeniedException: "User … is not authorized to perform `ses:SendEmail' on resource
`arn:aws:ses:eu-west-1:123456789012:identity/example.com'". The identity is the sender's, and a policy
may well allow others: who may send as nobody is only asked once too often for each email."""

_NO_CREDENTIALS = (
    NoCredentialsError,
    PartialCredentialsError,
    CredentialRetrievalError,
    TokenRetrievalError,
    SSOError,
)


@dataclass(slots=True)
class _Call:
    """How far one call has come; botocore's errors alone do not tell."""

    body: Body | None = None
    """None until there is a connection to be looked for."""
    status: int | None = None
    """The answer's, once there is one."""

    @property
    def begun(self) -> bool:
        return self.body is not None and self.body.begun


_call: ContextVar[_Call] = ContextVar("_call")
"""The call under way in this thread: botocore's events do not say which one they belong to."""


class Ses:
    """Sends through SES in one region, with credentials as boto3 finds them."""

    def __init__(self, settings: Settings) -> None:
        """Raises `SettingsError` where no region is known."""
        try:
            self._client = boto3.client(
                "sesv2",
                region_name=settings.ses_region or settings.aws_region,
                endpoint_url=settings.ses_endpoint_url,
                config=Config(
                    connect_timeout=PROVIDER_CONNECT_TIMEOUT,
                    read_timeout=settings.provider_timeout,
                    # botocore would send again by itself, and each time may be a second email.
                    retries={"mode": "standard", "total_max_attempts": 1},
                    max_pool_connections=settings.concurrency,
                ),
            )
        except NoRegionError:
            raise SettingsError(
                "SES_REGION", "or AWS_REGION is needed: EMAIL_PROVIDERS has ses"
            ) from None
        except PartialCredentialsError as error:
            raise SettingsError(
                error.kwargs["cred_var"], "is needed beside its other half"
            ) from None
        self._seconds = body_seconds(settings)
        events = self._client.meta.events
        events.register("before-send.sesv2.SendEmail", self._before_send)
        events.register("before-parse.sesv2", _before_parse)

    def send(self, envelope: Envelope) -> Answer:
        mailboxes = (envelope.sender, envelope.to, envelope.content.reply_to)
        if any(mailbox and not _local_part(mailbox.email).isascii() for mailbox in mailboxes):
            said = "SES takes only ASCII local parts"
            return Answer(Outcome.UNAVAILABLE, "local_part", said, particular=True)
        message = _mime(envelope)
        call = _Call()
        _call.set(call)
        try:
            answer = self._client.send_email(
                Destination={"ToAddresses": [headers.ascii_domain(envelope.to.email)]},
                Content={"Raw": {"Data": message}},
            )
            return Answer(Outcome.ACCEPTED, "200", "accepted", one_line(answer["MessageId"]))
        except ClientError as error:
            return _refusal(error)
        except Exception as error:  # noqa: BLE001 - its parser raises anything at strange answers
            return _failure(error, call)

    def check(self) -> Answer:
        call = _Call()
        _call.set(call)
        try:
            account = self._client.get_account()
        except ClientError as error:
            return _refusal(error)
        except Exception as error:  # noqa: BLE001 - as above
            return _failure(error, call)
        if not account.get("SendingEnabled"):
            return Answer(Outcome.UNAVAILABLE, "200", "sending is paused for this account")
        return Answer(Outcome.ACCEPTED, "200", "the account may send")

    def _before_send(self, request: Any, **_: Any) -> None:
        """Have botocore send the same bytes from where they can be seen to leave."""
        request.body = _call.get().body = Body(request.body, self._seconds)


def _before_parse(response_dict: dict[str, Any], **_: Any) -> None:
    _call.get().status = response_dict["status_code"]


def _local_part(email: str) -> str:
    return email.rpartition("@")[0]


def _mime(envelope: Envelope) -> bytes:
    """The whole message (RFC 5322), ready to be sent."""
    content = envelope.content
    parts = [
        MIMEText(re.sub(r"\r\n?|\n", "\r\n", text), subtype, "utf-8")
        for text, subtype in ((content.plain, "plain"), (content.html, "html"))
        if text is not None
    ]
    message: Message[str, Any] = (
        parts[0] if len(parts) == 1 else MIMEMultipart("alternative", None, parts)
    )
    message["From"] = headers.address(envelope.sender)
    message["To"] = headers.address(envelope.to)
    message["Subject"] = headers.encode(envelope.subject)
    # SES puts its own in place of it; a relay behind SES may not.
    message["Message-ID"] = envelope.message_id
    if content.reply_to is not None:
        message["Reply-To"] = headers.address(content.reply_to)
    for name, value in content.headers.items():
        message[name] = headers.encode(value)
    return message.as_bytes(policy=message.policy.clone(linesep="\r\n"))


def _refusal(error: ClientError) -> Answer:
    metadata = error.response["ResponseMetadata"]
    status = metadata["HTTPStatusCode"]
    told = error.response.get("Error", {})
    code = one_line(str(told.get("Code") or status))
    text = one_line(str(told.get("Message") or "")) or f"HTTP {status}"
    if code == "MessageRejected" and _NOT_VERIFIED in text:
        return Answer(Outcome.UNAVAILABLE, code, text, particular=True)
    if code in _THROTTLED and _DAILY_QUOTA in text:
        return Answer(Outcome.UNAVAILABLE, code, text, retry_after=_QUOTA_WAIT)
    return Answer(
        _BY_ERROR.get(code, default_outcome(status)),
        code,
        text,
        retry_after=retry_after(metadata.get("HTTPHeaders", {}).get("retry-after")),
        particular=code in _OF_THE_SENDER
        or bool(_DENIED.search(text))
        or (code not in _BY_ERROR and status in OF_THE_EMAIL),
    )


def _failure(error: Exception, call: _Call) -> Answer:
    """What any other error means: did the request go out, and was it answered?"""
    if isinstance(error, _NO_CREDENTIALS):
        return Answer(Outcome.UNAVAILABLE, type(error).__name__, "no credentials for SES")
    if call.status is not None:
        outcome = default_outcome(call.status)
        return Answer(outcome, str(call.status), "an answer in words that are not SES's")
    return silence(error, begun=call.begun)
