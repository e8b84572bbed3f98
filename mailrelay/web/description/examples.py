"""Requests and answers as the description shows them. Tests send the requests to the real thing."""

from __future__ import annotations

from typing import Any

from mailrelay import answers

BATCH_ID = "01M86CPHWVMXAYHCK7BA5TAEQD"
EMAIL_ID = f"{BATCH_ID}-0"

SUBMISSIONS: dict[str, dict[str, Any]] = {
    "one": {
        "summary": "One recipient",
        "value": {
            "from": {"email": "facundo@example.com", "name": "Facundo"},
            "destinations": [{"email": "pedro@example.org", "name": "Pedro"}],
            "subject": "test",
            "plainContent": "test",
            "htmlContent": "<p>test</p>",
        },
    },
    "many": {
        "summary": "Several recipients, and all that is optional",
        "value": {
            "from": {"email": "facundo@example.com", "name": "Facundo"},
            "destinations": [
                {"email": "pedro@example.org", "name": "Pedro"},
                {"email": "ana@example.org"},
                {"email": "用户@例え.jp", "name": "用户"},
            ],
            "subject": "Grüße",
            "plainContent": "Grüße an alle",
            "htmlContent": "<p>Grüße an alle</p>",
            "replyTo": {"email": "answers@example.com", "name": "Answers"},
            "headers": {"X-Campaign": "autumn", "List-Id": "<news.example.com>"},
        },
    },
}

RESOLUTIONS: dict[str, dict[str, Any]] = {
    "sent": {"summary": "Its provider has sent it", "value": {"status": "sent"}},
    "failed": {"summary": "Its provider knows nothing of it", "value": {"status": "failed"}},
}

ACCEPTED: answers.Accepted = {
    "id": BATCH_ID,
    "status": "queued",
    "emails": [{"id": EMAIL_ID, "email": "pedro@example.org", "status": "queued"}],
}

_SENT: answers.EmailSummary = {
    "object": "email",
    "id": EMAIL_ID,
    "batchId": BATCH_ID,
    "to": {"email": "pedro@example.org", "name": "Pedro"},
    "status": "sent",
    "delivered": True,
    "retries": 1,
    "provider": "ses",
    "providerMessageId": "0100018f-8f2b-000000",
    "createdAt": "2026-11-24T09:02:58.459Z",
    "lastAttemptAt": "2026-11-24T09:02:58.952Z",
    "nextAttemptAt": None,
    "resolvedAt": None,
    "error": None,
}

EMAIL: answers.Email = {
    **_SENT,
    "attempts": [
        {
            "number": 1,
            "provider": "mailgun",
            "outcome": "retry",
            "code": "503",
            "reason": "Service Unavailable",
            "startedAt": "2026-11-24T09:02:58.643Z",
            "durationMs": 5,
        },
        {
            "number": 2,
            "provider": "ses",
            "outcome": "accepted",
            "code": "200",
            "reason": "accepted",
            "startedAt": "2026-11-24T09:02:58.957Z",
            "durationMs": 9,
        },
    ],
}

BATCH: answers.Batch = {
    "object": "batch",
    "id": BATCH_ID,
    "createdAt": "2026-11-24T09:02:58.459Z",
    "from": {"email": "facundo@example.com", "name": "Facundo"},
    "subject": "test",
    "status": "sent",
    "delivered": True,
    "total": 1,
    "counts": {"queued": 0, "sending": 0, "sent": 1, "deferred": 0, "unknown": 0, "failed": 0},
    "emails": [_SENT],
    "nextCursor": None,
}

RESENT: answers.Email = {
    **EMAIL,
    "status": "queued",
    "delivered": False,
    "retries": 1,
    "provider": None,
    "providerMessageId": None,
    "error": {
        "code": "400",
        "reason": "'to' parameter is not a valid address",
        "provider": "mailgun",
    },
    "attempts": [
        {
            "number": 1,
            "provider": "mailgun",
            "outcome": "rejected",
            "code": "400",
            "reason": "'to' parameter is not a valid address",
            "startedAt": "2026-11-24T09:02:58.643Z",
            "durationMs": 5,
        }
    ],
}

RESOLVED: answers.Email = {
    **EMAIL,
    "retries": 1,
    "provider": "mailgun",
    "providerMessageId": None,
    "resolvedAt": "2026-11-24T10:15:00.000Z",
    "attempts": [
        {
            "number": 1,
            "provider": "mailgun",
            "outcome": "unknown",
            "code": "ReadTimeoutError",
            "reason": "no answer within 10 s",
            "startedAt": "2026-11-24T09:02:58.643Z",
            "durationMs": 10003,
        }
    ],
}

PROVIDERS: answers.Providers = {
    "providers": [
        {
            "name": "mailgun",
            "status": "open",
            "since": "2026-11-24T09:02:58.648Z",
            "until": "2026-11-24T09:03:28.648Z",
            "outcome": "unavailable",
            "code": "401",
            "held": False,
            "rate": None,
        },
        {
            "name": "ses",
            "status": "closed",
            "since": None,
            "until": None,
            "outcome": None,
            "code": None,
            "held": False,
            "rate": 14.0,
        },
    ]
}
