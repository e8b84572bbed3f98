"""Each vendor's documented way to send one mail; what it calls the mail, or an exception."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import boto3
import requests
from botocore.config import Config
from sendgrid import SendGridAPIClient
from sendgrid.helpers.mail import Mail

_SECONDS = 10
"""To wait for an answer, as mailrelay does."""


def mailgun(mail: Mapping[str, str]) -> str:
    # https://documentation.mailgun.com/docs/mailgun/user-manual/sending-messages/send-http
    base, domain = os.environ["MAILGUN_BASE_URL"], os.environ["MAILGUN_DOMAIN"]
    response = requests.post(
        f"{base}/v3/{domain}/messages",
        auth=("api", os.environ["MAILGUN_API_KEY"]),
        data={
            "from": mail["from"],
            "to": mail["to"],
            "subject": mail["subject"],
            "text": mail["text"],
            "html": mail["html"],
        },
        timeout=_SECONDS,
    )
    response.raise_for_status()
    return str(response.json()["id"])


@cache
def _sesv2() -> Any:
    connections = int(os.environ["STOCK_CONCURRENCY"])
    return boto3.client(
        "sesv2",
        region_name=os.environ["AWS_REGION"],
        config=Config(max_pool_connections=connections),
    )


def ses(mail: Mapping[str, str]) -> str:
    # https://boto3.amazonaws.com/v1/documentation/api/latest/reference/services/sesv2/client/send_email.html
    answer = _sesv2().send_email(
        FromEmailAddress=mail["from"],
        Destination={"ToAddresses": [mail["to"]]},
        Content={
            "Simple": {
                "Subject": {"Data": mail["subject"]},
                "Body": {"Text": {"Data": mail["text"]}, "Html": {"Data": mail["html"]}},
            }
        },
    )
    return str(answer["MessageId"])


def sendgrid(mail: Mapping[str, str]) -> str:
    # https://github.com/sendgrid/sendgrid-python#with-mail-helper-class
    message = Mail(
        from_email=mail["from"],
        to_emails=mail["to"],
        subject=mail["subject"],
        plain_text_content=mail["text"],
        html_content=mail["html"],
    )
    response = SendGridAPIClient(os.environ["SENDGRID_API_KEY"]).send(message)
    return str(response.headers["X-Message-Id"])


VENDORS: Mapping[str, Callable[[Mapping[str, str]], str]] = {
    "mailgun": mailgun,
    "ses": ses,
    "sendgrid": sendgrid,
}
