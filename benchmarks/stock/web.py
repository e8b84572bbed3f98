"""The API: one task for each recipient, with the mail in it."""

from __future__ import annotations

import os
from email.utils import formataddr
from typing import Any
from uuid import uuid4

from flask import Flask, request

from benchmarks.stock.app import send_email

app = Flask(__name__)


@app.get("/readyz")
def ready() -> str:
    return "ready"


@app.post("/emails/send")
def send() -> tuple[dict[str, Any], int]:
    body = request.get_json()
    batch_id = str(uuid4())
    mail = {
        "from": formataddr((body["from"].get("name", ""), body["from"]["email"])),
        "subject": body["subject"],
        "text": body["plainContent"],
        "html": body["htmlContent"],
    }
    providers = os.environ["EMAIL_PROVIDERS"].split(",")
    emails = []
    for index, to in enumerate(body["destinations"]):
        email_id = f"{batch_id}-{index}"
        # https://docs.celeryq.dev/en/stable/userguide/calling.html#basics
        send_email.apply_async(args=(email_id, mail | {"to": to["email"]}, providers))
        emails.append({"id": email_id, "email": to["email"], "status": "queued"})
    return {"id": batch_id, "status": "queued", "emails": emails}, 202
