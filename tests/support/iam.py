"""A local AWS behind IAM: an address for each part, where its own policy decides.

The local AWS lets everybody do everything. Here a request is read as far as IAM would, for its action
and its resource, and only what a policy of deploy/iam/ allows is passed on.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from string import Template
from typing import Any
from urllib.parse import parse_qs, urlsplit

import urllib3

from tests.support.processes import ROOT

POLICIES = ROOT / "deploy" / "iam"

Wanted = tuple[str, str]
"""An action and the ARN that it is for."""

CHECKED_AS = {
    "dynamodb:BatchExecuteStatement": ["dynamodb:PartiQLUpdate"],
    "s3:HeadBucket": ["s3:ListBucket"],
    "s3:GetBucketLifecycleConfiguration": ["s3:GetLifecycleConfiguration"],
    "s3:PutBucketLifecycleConfiguration": ["s3:PutLifecycleConfiguration"],
    "s3:PutPublicAccessBlock": ["s3:PutBucketPublicAccessBlock"],
    "sqs:SendMessageBatch": ["sqs:SendMessage"],
    "sqs:DeleteMessageBatch": ["sqs:DeleteMessage"],
    # SES API v2, with content of our own making.
    "ses:SendEmail": ["ses:SendEmail", "ses:SendRawEmail"],
    # What a transaction is made of: of ours, puts alone.
    "dynamodb:TransactWriteItems": ["dynamodb:PutItem"],
}
"""The operations that IAM knows by other names, as the Service Authorization Reference has them.
All others are actions of the same name."""

FOR_ALL = {"sqs:ListQueues", "sns:ListTopics", "sns:Unsubscribe", "ses:GetAccount"}
"""Actions that cannot be allowed for one resource (the same reference)."""

_REGION, _ACCOUNT = "us-east-1", "000000000000"


def actions(operation: str) -> list[str]:
    """What an operation, such as ``sqs:SendMessageBatch``, has to be allowed."""
    return CHECKED_AS.get(operation, [operation])


class Policy:
    """One file of deploy/iam/, with the names filled in."""

    def __init__(self, part: str, *, table: str, prefix: str, bucket: str) -> None:
        names = {"REGION": _REGION, "SES_REGION": _REGION, "ACCOUNT": _ACCOUNT}
        text = (POLICIES / f"{part}.json").read_text()
        self._statements = json.loads(
            Template(text).substitute(names, TABLE=table, PREFIX=prefix, BUCKET=bucket)
        )["Statement"]

    def allows(self, wanted: Wanted) -> bool:
        action, resource = wanted
        return any(
            action in statement["Action"]
            and any(fnmatchcase(resource, pattern) for pattern in _list(statement["Resource"]))
            for statement in self._statements
        )


def _list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def wanted(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Iterable[Wanted]:
    """What IAM would look for."""
    if target := headers.get("X-Amz-Target"):
        service, _, operation = target.partition(".")
        values = json.loads(body or b"{}")
        if service.startswith("DynamoDB"):
            return _each(f"dynamodb:{operation}", _tables(operation, values))
        return _each(f"sqs:{operation}", [_queue(values)])
    if headers.get("Content-Type", "").startswith("application/x-www-form-urlencoded"):
        form = {name: value[0] for name, value in parse_qs(body.decode()).items()}
        if "Version=2012-11-05" in body.decode():
            return _each(f"sqs:{form['Action']}", [_queue(form, path)])
        return _each(f"sns:{form['Action']}", [_topic(form)])
    if method == "GET" and "Action=" in path:  # kombu's polls
        form = {name: value[0] for name, value in parse_qs(urlsplit(path).query).items()}
        return _each(f"sqs:{form['Action']}", [_queue(form, path)])
    return _each(*_s3(method, path))


def _each(operation: str, resources: Iterable[str]) -> list[Wanted]:
    return [
        (action, "*" if action in FOR_ALL else resource)
        for resource in resources
        for action in actions(operation)
    ]


def _tables(operation: str, values: Any) -> set[str]:
    arn = f"arn:aws:dynamodb:{_REGION}:{_ACCOUNT}:table/"
    if "RequestItems" in values:
        return {arn + name for name in values["RequestItems"]}
    if "TransactItems" in values:
        return {arn + put["Put"]["TableName"] for put in values["TransactItems"]}
    if "Statements" in values:
        said = (re.match(r'UPDATE "([^"]+)"', one["Statement"]) for one in values["Statements"])
        return {arn + found[1] for found in said if found}
    index = f"/index/{values['IndexName']}" if "IndexName" in values else ""
    return {f"{arn}{values['TableName']}{index}"}


def _queue(values: Mapping[str, Any], path: str = "") -> str:
    url = values.get("QueueUrl") or urlsplit(path).path
    name = values.get("QueueName") or url.rpartition("/")[2]
    return f"arn:aws:sqs:{_REGION}:{_ACCOUNT}:{name}"


def _topic(form: Mapping[str, str]) -> str:
    return form.get("TopicArn") or f"arn:aws:sns:{_REGION}:{_ACCOUNT}:{form.get('Name')}"


def _s3(method: str, path: str) -> tuple[str, list[str]]:
    parts = urlsplit(path)
    bucket, _, key = parts.path.lstrip("/").partition("/")
    query = {name for name in ("publicAccessBlock", "lifecycle") if name in parts.query}
    match method, key, query:
        case "PUT", "", names if "lifecycle" in names:
            operation = "PutBucketLifecycleConfiguration"
        case "PUT", "", names if names:
            operation = "PutPublicAccessBlock"
        case "PUT", "", _:
            operation = "CreateBucket"
        case "GET", "", names if "lifecycle" in names:
            operation = "GetBucketLifecycleConfiguration"
        case "HEAD", "", _:
            operation = "HeadBucket"
        case _:
            operation = f"{method.capitalize()}Object"
    return f"s3:{operation}", [f"arn:aws:s3:::{bucket}" + (f"/{key}" if key else "")]


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: Any) -> None:
        """A client that is gone before its answer is there, as the end of a long poll."""


class Iam:
    """The address of AWS for one part; keeps what was wanted and what of it was refused."""

    def __init__(self, upstream: str, policy: Policy) -> None:
        self._policy = policy
        self._upstream = upstream
        self._pool = urllib3.PoolManager(maxsize=32)
        self.wanted: set[Wanted] = set()
        self.refused: set[Wanted] = set()
        self._server = _Server(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _allow(self, all_wanted: Iterable[Wanted]) -> bool:
        refused = {one for one in all_wanted if not self._policy.allows(one)}
        self.wanted |= set(all_wanted)
        self.refused |= refused
        return not refused

    def _answer(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        if not self._allow(wanted(method, path, headers, body)):
            refusal = {"__type": "AccessDeniedException", "message": "no policy allows it"}
            return (
                403,
                {"Content-Type": "application/x-amz-json-1.0"},
                json.dumps(refusal).encode(),
            )
        passed = {name: value for name, value in headers.items() if name != "Host"}
        response = self._pool.request(
            method, self._upstream + path, headers=passed, body=body, timeout=30, retries=False
        )
        kept = {
            name: value
            for name, value in response.headers.items()
            if name.lower() not in ("content-length", "transfer-encoding", "connection")
        }
        # The addresses of queues are to lead here, too.
        here, there = (urlsplit(url).netloc.encode() for url in (self.url, self._upstream))
        return response.status, kept, response.data.replace(there, here)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        answer = self._answer

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                self.raw_requestline = self.rfile.readline(65_537)
                if not self.raw_requestline or not self.parse_request():
                    self.close_connection = True
                    return
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = dict(self.headers.items())
                status, answered, data = answer(self.command, self.path, headers, body)
                self.send_response(status)
                for name, value in answered.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                """Nothing."""

        return Handler
