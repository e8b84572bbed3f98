"""Amazon SES, by API version 2: ``SendEmail`` with a message of our own making.

https://docs.aws.amazon.com/ses/latest/APIReference-V2/API_SendEmail.html
"""

from __future__ import annotations

import re
import ssl
from email.header import Header
from email.message import Message
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProxyConnectionError,
    SSLError,
    TokenRetrievalError,
)

from mailrelay.message import Outcome
from mailrelay.providers import Answer, Envelope, headers
from mailrelay.providers.http import default_outcome, no_answer, reason
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

_BY_TEXT = (
    # "Email address is not verified. The following identities failed the check in region …"
    ("MessageRejected", "not verified", Outcome.UNAVAILABLE),
    ("TooManyRequestsException", "Daily message quota exceeded", Outcome.UNAVAILABLE),
    ("ThrottlingException", "Daily message quota exceeded", Outcome.UNAVAILABLE),
)
"""Errors that mean something else with these words in them."""

_NOTHING_SENT = (EndpointConnectionError, ConnectTimeoutError, ProxyConnectionError)

_NO_CREDENTIALS = (
    NoCredentialsError,
    PartialCredentialsError,
    CredentialRetrievalError,
    TokenRetrievalError,
)


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

    def send(self, envelope: Envelope) -> Answer:
        mailboxes = (envelope.sender, envelope.to, envelope.content.reply_to)
        if any(mailbox and not _local_part(mailbox.email).isascii() for mailbox in mailboxes):
            return Answer(Outcome.UNAVAILABLE, "local_part", "SES takes only ASCII local parts")
        try:
            answer = self._client.send_email(
                FromEmailAddress=headers.address(envelope.sender),
                Destination={"ToAddresses": [headers.ascii_domain(envelope.to.email)]},
                Content={"Raw": {"Data": _mime(envelope)}},
            )
        except ClientError as error:
            return _refusal(error)
        except BotoCoreError as error:
            return _silence(error)
        return Answer(Outcome.ACCEPTED, "200", "accepted", answer["MessageId"])

    def check(self) -> Answer:
        try:
            account = self._client.get_account()
        except ClientError as error:
            return _refusal(error)
        except BotoCoreError as error:
            return _silence(error)
        if not account.get("SendingEnabled"):
            return Answer(Outcome.UNAVAILABLE, "200", "sending is paused for this account")
        return Answer(Outcome.ACCEPTED, "200", "the account may send")


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
    message["Subject"] = _header(envelope.subject)
    # SES puts its own in place of it; a relay behind SES may not.
    message["Message-ID"] = envelope.message_id
    if content.reply_to is not None:
        message["Reply-To"] = headers.address(content.reply_to)
    for name, value in content.headers.items():
        message[name] = _header(value)
    return message.as_bytes(policy=message.policy.clone(linesep="\r\n"))


def _header(value: str) -> str | Header:
    encoded = headers.encode(value)
    return value if encoded == value else Header(value, "utf-8")


def _refusal(error: ClientError) -> Answer:
    code, text = error.response["Error"]["Code"], error.response["Error"].get("Message", "")
    status = error.response["ResponseMetadata"]["HTTPStatusCode"]
    outcome = _BY_ERROR.get(code, default_outcome(status))
    for other, words, meaning in _BY_TEXT:
        if code == other and words in text:
            outcome = meaning
    return Answer(outcome, code, reason(text))


def _silence(error: BotoCoreError) -> Answer:
    """What an error of botocore's own means: did the request go out?"""
    if isinstance(error, _NO_CREDENTIALS):
        return Answer(Outcome.UNAVAILABLE, type(error).__name__, "no credentials for SES")
    outcome = Outcome.UNKNOWN
    if isinstance(error, _NOTHING_SENT) or _is_bad_certificate(error):
        outcome = Outcome.RETRY
    return Answer(outcome, type(error).__name__, no_answer(outcome))


def _is_bad_certificate(error: BotoCoreError) -> bool:
    """Whether TLS failed before anything was sent; botocore has one error for before and after."""
    cause = error.kwargs.get("error") if isinstance(error, SSLError) else None
    return any(
        isinstance(part, ssl.SSLCertVerificationError) for part in getattr(cause, "args", ())
    )
