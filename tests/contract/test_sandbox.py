"""The sandbox as its clients meet it: a real server process, the vendors' real clients."""

import contextlib
import email.utils
import http.client
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from email.message import EmailMessage
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import boto3
import botocore.exceptions
import pytest
import sendgrid
import urllib3
from botocore.config import Config
from sendgrid.helpers.mail import Mail as SendGridMail
from sendgrid.helpers.mail import ReplyTo

PROVIDERS = ("mailgun", "ses", "sendgrid")
DOMAIN = "mg.example.com"
TIMEOUT_SECONDS = 10.0

CLOSED = (urllib3.exceptions.ProtocolError, botocore.exceptions.ConnectionClosedError)
TIMED_OUT = (urllib3.exceptions.ReadTimeoutError, botocore.exceptions.ReadTimeoutError)


@dataclass(frozen=True)
class Server:
    """A sandbox process and where it listens."""

    url: str
    log: Path
    process: subprocess.Popen[bytes]

    def call(self, method: str, path: str, **options: Any) -> urllib3.BaseHTTPResponse:
        """One request, one answer; neither redirects nor retries."""
        options.setdefault("timeout", TIMEOUT_SECONDS)
        return _pool().request(method, self.url + path, retries=False, redirect=False, **options)

    def mails(self, query: str = "") -> list[dict[str, Any]]:
        return self.call("GET", f"/messages{query}").json()["messages"]

    def turn(self, provider: str, **fault: Any) -> None:
        assert self.call("PUT", f"/faults/{provider}", json=fault).status == 200

    def stop(self) -> None:
        _pool().clear()  # a stopping gunicorn waits 2 s for what idle connections may yet ask
        self.process.terminate()
        self.process.wait(timeout=20)


@cache
def _pool() -> urllib3.PoolManager:
    return urllib3.PoolManager(maxsize=20)


@contextlib.contextmanager
def serving(directory: Path, mailbox: Path | None = None, threads: int = 50) -> Iterator[Server]:
    """Runs a sandbox under gunicorn.

    It inherits a socket that listens already, so there is no port to lose to another process
    and nothing to wait for: a request sent before the start is over is answered after it.
    """
    log = directory / "sandbox.log"
    environment = {name: value for name, value in os.environ.items() if name != "SANDBOX_MAILBOX"}
    if mailbox is not None:
        environment["SANDBOX_MAILBOX"] = str(mailbox)
    with log.open("ab") as output, socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        # As gunicorn does with a socket of its own; without it each answer takes 40 ms.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        port = listener.getsockname()[1]
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "gunicorn"),
                *("--config", "python:mailrelay.sandbox.serving"),
                *("--bind", f"fd://{listener.fileno()}"),
                *("--threads", str(threads)),
            ],
            pass_fds=[listener.fileno()],
            stdout=output,
            stderr=output,
            env=environment,
            cwd=Path(__file__).parents[2],
        )
    server = Server(f"http://127.0.0.1:{port}", log, process)
    try:
        assert server.call("GET", "/requests", timeout=30).status == 200, log.read_text()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("sandbox")) as server:
        yield server


@pytest.fixture
def sandbox(running: Server) -> Server:
    """The module's one server, healthy, empty and counting from 0."""
    for path in ("/faults", "/messages", "/requests"):
        assert running.call("DELETE", path).status == 204
    return running


# --- sending, the way each vendor's callers do -------------------------------------------------


@dataclass(frozen=True)
class Answer:
    """What a client was told: `id` if accepted, else the vendor's code or text in `error`."""

    status: int
    id: str | None = None
    error: str = ""


def ses_client(server: Server, key: str = "key", timeout: float = TIMEOUT_SECONDS) -> Any:
    return boto3.client(
        "sesv2",
        region_name="eu-west-1",
        endpoint_url=server.url + "/ses",
        aws_access_key_id=key,
        aws_secret_access_key="secret",
        config=Config(retries={"mode": "standard", "total_max_attempts": 1}, read_timeout=timeout),
    )


def mailgun_auth(key: str) -> dict[str, str]:
    return urllib3.make_headers(basic_auth=f"api:{key}")


def send_mailgun(server: Server, to: str, key: str, timeout: float) -> Answer:
    response = server.call(
        "POST",
        f"/mailgun/v3/{DOMAIN}/messages",
        headers=mailgun_auth(key),
        fields={"from": "a@example.com", "to": to, "subject": "s", "text": "t"},
        timeout=timeout,
    )
    if response.status == 200:
        return Answer(200, id=response.json()["id"])
    return Answer(response.status, error=response.data.decode())


def send_ses(server: Server, to: str, key: str, timeout: float) -> Answer:
    try:
        sent = ses_client(server, key, timeout).send_email(
            FromEmailAddress="a@example.com",
            Destination={"ToAddresses": [to]},
            Content={"Simple": {"Subject": {"Data": "s"}, "Body": {"Text": {"Data": "t"}}}},
        )
    except botocore.exceptions.ClientError as error:
        told = error.response
        return Answer(
            told["ResponseMetadata"]["HTTPStatusCode"],
            error=f"{told['Error']['Code']}: {told['Error']['Message']}",
        )
    return Answer(200, id=sent["MessageId"])


def send_sendgrid(server: Server, to: str, key: str, timeout: float) -> Answer:
    response = server.call(
        "POST",
        "/sendgrid/v3/mail/send",
        headers={"Authorization": f"Bearer {key}"},
        json=sendgrid_body(to=to),
        timeout=timeout,
    )
    if response.status == 202:
        assert response.data == b""
        return Answer(202, id=response.headers["X-Message-Id"])
    return Answer(response.status, error=response.data.decode())


def sendgrid_body(to: str = "b@example.org", **changes: Any) -> dict[str, Any]:
    return {
        "from": {"email": "a@example.com"},
        "personalizations": [{"to": [{"email": to}]}],
        "subject": "s",
        "content": [{"type": "text/plain", "value": "t"}],
        **changes,
    }


SEND: dict[str, Callable[[Server, str, str, float], Answer]] = {
    "mailgun": send_mailgun,
    "ses": send_ses,
    "sendgrid": send_sendgrid,
}


def send(
    provider: str,
    server: Server,
    *,
    to: str = "b@example.org",
    key: str = "key",
    timeout: float = TIMEOUT_SECONDS,
) -> Answer:
    return SEND[provider](server, to, key, timeout)


each_provider = pytest.mark.parametrize("provider", PROVIDERS)


# --- what is accepted --------------------------------------------------------------------------

SENDER = ("Jürgen Müller", "juergen@example.com")
TO = ("Zoë, 山田", "zoe@example.org")
REPLY_TO = ("Hilfe & Rat", "hilfe@example.com")
SUBJECT = "Grüße aus Köln – 日本語, " + "ein langer Betreff " * 8 + "Ende"
PLAIN = "Hallo Zoë,\n\n日本語 = ok?\n.\n" + "lang " * 300
HTML = "<p>Hallo <b>Zoë</b> – 日本語</p>"
OWN_HEADERS = {"X-Batch": "b-1", "X-Ort": "Köln", "List-Unsubscribe": "<https://example.com/u>"}


def named(address: tuple[str, str]) -> str:
    """Name and address with the name as it is."""
    return f'"{address[0]}" <{address[1]}>'


def encoded(address: tuple[str, str]) -> str:
    """Name and address with the name in RFC 2047 words."""
    return email.utils.formataddr(address)


def mailgun_fields(**changes: str) -> dict[str, str]:
    return {
        "from": named(SENDER),
        "to": named(TO),
        "subject": SUBJECT,
        "text": PLAIN,
        "html": HTML,
        "h:Reply-To": named(REPLY_TO),
        "h:Message-Id": "<own@example.com>",
        **{f"h:{name}": value for name, value in OWN_HEADERS.items()},
        **changes,
    }


def wire_mailgun_multipart(server: Server) -> str:
    return server.call(
        "POST",
        f"/mailgun/v3/{DOMAIN}/messages",
        headers=mailgun_auth("key"),
        fields=mailgun_fields(),
    ).json()["id"]


def wire_mailgun_urlencoded(server: Server) -> str:
    fields = mailgun_fields(**{"from": encoded(SENDER), "to": encoded(TO)})
    return server.call(
        "POST",
        f"/mailgun/v3/{DOMAIN}/messages",
        headers=mailgun_auth("key"),
        fields=fields,
        encode_multipart=False,
    ).json()["id"]


def wire_ses_simple(server: Server) -> str:
    return ses_client(server).send_email(
        FromEmailAddress=encoded(SENDER),
        Destination={"ToAddresses": [encoded(TO)]},
        ReplyToAddresses=[encoded(REPLY_TO)],
        Content={
            "Simple": {
                "Subject": {"Data": SUBJECT, "Charset": "UTF-8"},
                "Body": {"Text": {"Data": PLAIN}, "Html": {"Data": HTML}},
                "Headers": [{"Name": name, "Value": value} for name, value in OWN_HEADERS.items()],
            }
        },
    )["MessageId"]


def wire_ses_raw(server: Server) -> str:
    message = EmailMessage()
    message["From"] = encoded(SENDER)
    message["To"] = encoded(TO)
    message["Reply-To"] = encoded(REPLY_TO)
    message["Subject"] = SUBJECT
    message["Message-ID"] = "<own@example.com>"
    for name, value in OWN_HEADERS.items():
        message[name] = value
    message.set_content(PLAIN, cte="base64")
    message.add_alternative(HTML, subtype="html", cte="quoted-printable")
    return ses_client(server).send_email(
        Destination={"ToAddresses": [TO[1]]}, Content={"Raw": {"Data": message.as_bytes()}}
    )["MessageId"]


def wire_sendgrid(server: Server) -> str:
    body = {
        "from": {"email": SENDER[1], "name": SENDER[0]},
        "reply_to": {"email": REPLY_TO[1], "name": REPLY_TO[0]},
        "personalizations": [
            {
                "to": [{"email": TO[1], "name": TO[0]}],
                "headers": {**OWN_HEADERS, "Message-ID": "<own@example.com>"},
            }
        ],
        "subject": SUBJECT,
        "content": [
            {"type": "text/plain", "value": PLAIN},
            {"type": "text/html", "value": HTML},
        ],
    }
    return server.call(
        "POST",
        "/sendgrid/v3/mail/send",
        headers={"Authorization": "Bearer key", "Content-Type": "application/json"},
        body=json.dumps(body, ensure_ascii=False).encode(),
    ).headers["X-Message-Id"]


def wire_sendgrid_package(server: Server) -> str:
    mail = SendGridMail((SENDER[1], SENDER[0]), (TO[1], TO[0]), SUBJECT, PLAIN, html_content=HTML)
    mail.reply_to = ReplyTo(REPLY_TO[1], REPLY_TO[0])
    body = mail.get()
    body["headers"] = {**OWN_HEADERS, "Message-ID": "<own@example.com>"}
    client = sendgrid.SendGridAPIClient("key", host=server.url + "/sendgrid")
    return client.send(body).headers["X-Message-Id"]


@pytest.mark.parametrize(
    ("wire", "provider", "message_id", "id_looks_like"),
    [
        (wire_mailgun_multipart, "mailgun", "<own@example.com>", rf"<\d+\.\w+@{DOMAIN}>"),
        (wire_mailgun_urlencoded, "mailgun", "<own@example.com>", rf"<\d+\.\w+@{DOMAIN}>"),
        (wire_ses_simple, "ses", None, r"0100[0-9a-f]{12}(-[0-9a-f]+){5}-000000"),
        (wire_ses_raw, "ses", None, r"0100[0-9a-f]{12}(-[0-9a-f]+){5}-000000"),
        (wire_sendgrid, "sendgrid", "<own@example.com>", r"[\w-]{22}"),
        (wire_sendgrid_package, "sendgrid", "<own@example.com>", r"[\w-]{22}"),
    ],
)
def test_the_same_mail_reads_the_same_whatever_carried_it(
    sandbox: Server,
    wire: Callable[[Server], str],
    provider: str,
    message_id: str | None,
    id_looks_like: str,
) -> None:
    """A mail comes out decoded and complete from each vendor's way of writing it."""
    mail_id = wire(sandbox)
    (kept,) = sandbox.mails()
    assert re.fullmatch(id_looks_like, mail_id)
    received_at = kept.pop("received_at")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", received_at)
    assert abs(datetime.fromisoformat(received_at).timestamp() - time.time()) < 60
    assert kept == {
        "id": mail_id,
        "provider": provider,
        "message_id": message_id,
        "from": {"name": SENDER[0], "email": SENDER[1]},
        "to": {"name": TO[0], "email": TO[1]},
        "reply_to": {"name": REPLY_TO[0], "email": REPLY_TO[1]},
        "subject": SUBJECT,
        "plain": PLAIN,
        "html": HTML,
        "headers": OWN_HEADERS,
    }


@each_provider
def test_what_is_not_given_is_null(sandbox: Server, provider: str) -> None:
    """A mail of address, subject and text has no names, reply address, HTML or headers."""
    send(provider, sandbox)
    (kept,) = sandbox.mails()
    assert (kept["plain"], kept["html"], kept["reply_to"], kept["headers"]) == (
        "t",
        None,
        None,
        {},
    )
    assert kept["to"] == {"email": "b@example.org", "name": None}
    assert kept["message_id"] is None


def test_a_large_mail_is_accepted(sandbox: Server) -> None:
    """Form fields may be as large as the vendor takes them, not just Werkzeug's 500 kB."""
    response = sandbox.call(
        "POST",
        f"/mailgun/v3/{DOMAIN}/messages",
        headers=mailgun_auth("key"),
        fields=mailgun_fields(text="x" * 5_000_000),
    )
    assert response.status == 200
    assert len(sandbox.mails()[0]["plain"]) == 5_000_000


def test_a_body_over_40_mb_is_refused_unread(sandbox: Server) -> None:
    """An announced 41 MiB is answered 413 at once."""
    connection = http.client.HTTPConnection(sandbox.url.removeprefix("http://"))
    with contextlib.closing(connection):
        connection.putrequest("POST", "/sendgrid/v3/mail/send")
        connection.putheader("Authorization", "Bearer key")
        connection.putheader("Content-Length", str(41 * 1024 * 1024))
        connection.endheaders()
        assert connection.getresponse().status == 413


# --- what is refused ---------------------------------------------------------------------------


@each_provider
@pytest.mark.parametrize("to", ["nobody", "a b@example.org", "a@example.org, b@example.org"])
def test_a_bad_recipient_is_refused_in_the_vendors_words(
    sandbox: Server, provider: str, to: str
) -> None:
    """What is not one address gets the answer that PROVIDERS.md calls rejected."""
    answer = send(provider, sandbox, to=to)
    assert answer.status == 400
    if provider == "mailgun":
        message = "to parameter is not a valid address. please check documentation"
        assert json.loads(answer.error) == {"message": message}
    elif provider == "ses":
        assert answer.error.startswith("BadRequestException: ")
    else:
        (error,) = json.loads(answer.error)["errors"]
        assert error["field"] == "personalizations.0.to.0.email"
    assert sandbox.mails() == []


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"from": {"email": "nobody"}}, "from.email"),
        ({"from": None}, "from.email"),
        ({"reply_to": {"email": "nobody"}}, "reply_to.email"),
        ({"personalizations": []}, "personalizations"),
        ({"personalizations": [{}]}, "personalizations.0.to"),
        ({"subject": ""}, "subject"),
        ({"content": []}, "content"),
        ({"content": [{"type": "text/plain", "value": ""}]}, "content.0.value"),
        (
            {
                "content": [
                    {"type": "text/html", "value": "h"},
                    {"type": "text/plain", "value": "p"},
                ]
            },
            "content",
        ),
    ],
)
def test_sendgrid_names_the_bad_field(sandbox: Server, change: dict[str, Any], field: str) -> None:
    """Each fault of the body is a 400 with the field's path."""
    response = sandbox.call(
        "POST",
        "/sendgrid/v3/mail/send",
        headers={"Authorization": "Bearer key"},
        json=sendgrid_body(**change),
    )
    assert response.status == 400
    assert [error["field"] for error in response.json()["errors"]] == [field]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"from": ""}, "from parameter is missing"),
        ({"from": "x"}, "from parameter is not a valid address. please check documentation"),
        ({"to": ""}, "to parameter is missing"),
        ({"text": "", "html": ""}, "Need at least one of 'text', 'html'"),
    ],
)
def test_mailgun_names_the_bad_parameter(
    sandbox: Server, change: dict[str, str], message: str
) -> None:
    """Each fault of the form is a 400 whose message starts with the parameter."""
    response = sandbox.call(
        "POST",
        f"/mailgun/v3/{DOMAIN}/messages",
        headers=mailgun_auth("key"),
        fields=mailgun_fields(**change),
    )
    assert response.status == 400
    assert response.json()["message"].startswith(message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"FromEmailAddress": "nobody"}, "Missing final '@domain'"),
        ({"Destination": {"ToAddresses": ["jürgen@example.org"]}}, "Local address contains"),
        ({"Destination": {"ToAddresses": ["a@b.org", "c@d.org"]}}, "The sandbox takes one"),
        ({"Content": {"Raw": {"Data": b"Subject: s\r\n\r\nt"}}}, ""),
    ],
)
def test_ses_raises_bad_request(sandbox: Server, change: dict[str, Any], message: str) -> None:
    """boto3 raises the exception of that name for each fault of the request."""
    client = ses_client(sandbox)
    request = {
        "FromEmailAddress": "a@example.com",
        "Destination": {"ToAddresses": ["b@example.org"]},
        "Content": {"Simple": {"Subject": {"Data": "s"}, "Body": {"Text": {"Data": "t"}}}},
        **change,
    }
    if "Raw" in request["Content"]:
        del request["FromEmailAddress"]
        message = "Missing required header 'From'."
    with pytest.raises(client.exceptions.BadRequestException, match=re.escape(message)):
        client.send_email(**request)


@pytest.mark.parametrize(
    "path",
    [f"/mailgun/v3/{DOMAIN}/messages", "/ses/v2/email/outbound-emails", "/sendgrid/v3/mail/send"],
)
def test_rubbish_is_answered_with_an_error(sandbox: Server, path: str) -> None:
    """A body that is nothing of what the vendor takes is a 400, not a 500."""
    key = "AWS4-HMAC-SHA256 Credential=key/20260101/eu-west-1/ses/aws4_request"
    headers = {
        "mailgun": mailgun_auth("key"),
        "ses": {"Authorization": key},
        "sendgrid": {"Authorization": "Bearer key"},
    }[path.split("/")[1]]
    for body in (b"", b"\xff\x00", b"[]", b'{"Content": {"Simple": 1}, "from": 2}'):
        response = sandbox.call("POST", path, headers=headers, body=body)
        assert response.status == 400, body


def test_half_a_surrogate_pair_does_not_break_the_mailbox(sandbox: Server) -> None:
    """JSON can spell what no encoding can write; the pages still render."""
    response = sandbox.call(
        "POST",
        "/sendgrid/v3/mail/send",
        headers={"Authorization": "Bearer key"},
        body=json.dumps(sendgrid_body(subject="x\ud800y", headers={"X-\ud800": "\udfff"})),
    )
    assert response.status == 202
    assert sandbox.mails()[0]["subject"] == "x?y"
    assert sandbox.call("GET", "/").status == 200


# --- credentials -------------------------------------------------------------------------------


@each_provider
@pytest.mark.parametrize("key", ["wrong", "wrong-key"])
def test_a_wrong_key_gets_the_vendors_answer(sandbox: Server, provider: str, key: str) -> None:
    """The keys that are made to be wrong are refused, and the request is counted."""
    status, text = {
        "mailgun": (401, "Forbidden"),
        "ses": (403, "UnrecognizedClientException: The security token included"),
        "sendgrid": (401, "The provided authorization grant is invalid, expired, or revoked"),
    }[provider]
    answer = send(provider, sandbox, key=key)
    assert (answer.status, text in answer.error) == (status, True)
    assert sandbox.mails() == []
    assert sandbox.call("GET", "/requests").json()[provider] == 1


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", f"/mailgun/v3/{DOMAIN}/messages", 401),
        ("GET", f"/mailgun/v4/domains/{DOMAIN}", 401),
        ("POST", "/ses/v2/email/outbound-emails", 403),
        ("GET", "/ses/v2/email/account", 403),
        ("POST", "/sendgrid/v3/mail/send", 401),
        ("GET", "/sendgrid/v3/scopes", 401),
    ],
)
def test_no_key_is_refused(sandbox: Server, method: str, path: str, status: int) -> None:
    """No route of a vendor answers a request that names no key."""
    assert sandbox.call(method, path).status == status


def check(provider: str, server: Server) -> int:
    """The status of the provider's look at the credentials."""
    if provider == "ses":
        try:
            account = ses_client(server).get_account()
        except botocore.exceptions.ClientError as error:
            return error.response["ResponseMetadata"]["HTTPStatusCode"]
        assert account["SendingEnabled"] is account["ProductionAccessEnabled"] is True
        assert account["EnforcementStatus"] == "HEALTHY"
        return 200
    path, headers = {
        "mailgun": (f"/mailgun/v4/domains/{DOMAIN}", mailgun_auth("key")),
        "sendgrid": ("/sendgrid/v3/scopes", {"Authorization": "Bearer key"}),
    }[provider]
    response = server.call("GET", path, headers=headers)
    if response.status == 200 and provider == "mailgun":
        assert response.json()["domain"]["state"] == "active"
    if response.status == 200 and provider == "sendgrid":
        assert response.json() == {"scopes": ["mail.send"]}
    return response.status


@each_provider
def test_the_check_of_credentials_follows_the_switch(sandbox: Server, provider: str) -> None:
    """A look at the account succeeds, fails where the provider does, and is no send request."""
    assert check(provider, sandbox) == 200
    sandbox.turn(provider, kind="status", status=403)
    assert check(provider, sandbox) == 403
    assert sandbox.call("GET", "/requests").json() == dict.fromkeys(PROVIDERS, 0)


# --- faults ------------------------------------------------------------------------------------


@each_provider
@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 413, 418, 429, 500, 502, 503, 504])
def test_a_status_is_answered_and_nothing_kept(
    sandbox: Server, provider: str, status: int
) -> None:
    """The switch makes a provider answer any error status."""
    sandbox.turn(provider, kind="status", status=status)
    assert send(provider, sandbox).status == status
    assert sandbox.mails() == []


@pytest.mark.parametrize(
    ("provider", "status", "text"),
    [
        ("mailgun", 401, "Forbidden"),
        ("mailgun", 404, f'{{"message":"Domain not found: {DOMAIN}"}}'),
        ("mailgun", 429, "try again after 120 seconds"),
        ("ses", 400, "MessageRejected: "),
        ("ses", 404, "NotFoundException: "),
        ("ses", 429, "TooManyRequestsException: Maximum sending rate exceeded."),
        ("sendgrid", 401, "authorization grant is invalid"),
        ("sendgrid", 403, '"field":"from"'),
        ("sendgrid", 429, '"message":"too many requests"'),
    ],
)
def test_a_status_comes_in_the_vendors_shape(
    sandbox: Server, provider: str, status: int, text: str
) -> None:
    """The body says what a caller of that vendor looks for."""
    answer = send(provider, sandbox, to=f"{provider}-{status}@example.org")
    assert answer.status == status
    assert text in answer.error


def test_sendgrids_429_says_when_to_come_back(sandbox: Server) -> None:
    """`X-RateLimit-Reset` is a moment within the next minute, in epoch seconds."""
    response = sandbox.call(
        "POST",
        "/sendgrid/v3/mail/send",
        headers={"Authorization": "Bearer key"},
        json=sendgrid_body(to="sendgrid-429@example.org"),
    )
    assert 0 < int(response.headers["X-RateLimit-Reset"]) - time.time() <= 60


def test_mailgun_asks_to_be_left_alone_for_as_long_as_it_is_told(sandbox: Server) -> None:
    """In its text, and by `Retry-After`."""
    sandbox.turn("mailgun", kind="status", status=429, wait=7)
    response = sandbox.call(
        "POST",
        f"/mailgun/v3/{DOMAIN}/messages",
        headers=mailgun_auth("key"),
        fields={"from": "a@example.com", "to": "b@example.org", "subject": "s", "text": "t"},
    )
    assert (response.status, response.headers["Retry-After"]) == (429, "7")
    assert "try again after 7 seconds" in response.json()["message"]


def test_sendgrid_asks_to_be_left_alone_for_as_long_as_it_is_told(sandbox: Server) -> None:
    """By `X-RateLimit-Reset`, and by `Retry-After`."""
    sandbox.turn("sendgrid", kind="status", status=429, wait=7)
    response = sandbox.call(
        "POST",
        "/sendgrid/v3/mail/send",
        headers={"Authorization": "Bearer key"},
        json=sendgrid_body(),
    )
    assert (response.status, response.headers["Retry-After"]) == (429, "7")
    assert 5 <= int(response.headers["X-RateLimit-Reset"]) - time.time() <= 7


@each_provider
def test_a_provider_can_close_the_connection_and_keep_nothing(
    sandbox: Server, provider: str
) -> None:
    """`close` reads the whole request and answers nothing."""
    sandbox.turn(provider, kind="close")
    with pytest.raises(CLOSED):
        send(provider, sandbox)
    assert sandbox.mails() == []


@each_provider
def test_a_slow_provider_accepts_in_the_end(sandbox: Server, provider: str) -> None:
    """`slow` waits for the given seconds, then answers as ever."""
    sandbox.turn(provider, kind="slow", seconds=0.2)
    start = time.monotonic()
    answer = send(provider, sandbox)
    assert time.monotonic() - start >= 0.2
    assert [mail["id"] for mail in sandbox.mails()] == [answer.id]


@each_provider
def test_a_hanging_provider_never_answers(sandbox: Server, provider: str) -> None:
    """The client waits in vain, and the mail is not kept."""
    sandbox.turn(provider, kind="hang")
    with pytest.raises(TIMED_OUT):
        send(provider, sandbox, timeout=0.3)
    assert sandbox.mails() == []
    assert sandbox.call("GET", "/requests").json()[provider] == 1


@each_provider
def test_turning_the_switch_ends_a_hang_without_an_answer(sandbox: Server, provider: str) -> None:
    """What hung is closed; the next request is accepted."""
    sandbox.turn(provider, kind="hang")
    with ThreadPoolExecutor(1) as pool:
        hanging = pool.submit(send, provider, sandbox, to="hung@example.org")
        until(lambda: sandbox.call("GET", "/requests").json()[provider] == 1)
        assert not hanging.done()
        assert sandbox.call("DELETE", "/faults").status == 204
        with pytest.raises(CLOSED):
            hanging.result(timeout=10)
    send(provider, sandbox, to="next@example.org")
    assert [mail["to"]["email"] for mail in sandbox.mails()] == ["next@example.org"]


def test_a_hang_ends_when_its_client_leaves(tmp_path: Path) -> None:
    """Clients that gave up hold no thread: two threads outlast four hanging requests."""
    with serving(tmp_path, threads=2) as server:
        for provider in ("mailgun", "sendgrid", "mailgun", "sendgrid"):
            with pytest.raises(TIMED_OUT):
                send(provider, server, to=f"{provider}-hang@example.org", timeout=0.2)
        assert send("mailgun", server).status == 200


@each_provider
def test_a_lost_answer_leaves_the_mail_accepted(sandbox: Server, provider: str) -> None:
    """The client sees its connection close; the mail is in the mailbox."""
    sandbox.turn(provider, kind="lost")
    with pytest.raises(CLOSED):
        send(provider, sandbox)
    assert [mail["provider"] for mail in sandbox.mails()] == [provider]


@each_provider
def test_a_refused_recipient_gets_the_vendors_answer(sandbox: Server, provider: str) -> None:
    """`refuse` is the answer to a bad recipient, whatever the recipient."""
    sandbox.turn(provider, kind="refuse")
    answer = send(provider, sandbox)
    assert answer.status == 400
    text = {
        "mailgun": "to parameter is not a valid address",
        "ses": "BadRequestException: Illegal address",
        "sendgrid": '"field":"personalizations.0.to.0.email"',
    }[provider]
    assert text in answer.error
    assert sandbox.mails() == []


def test_an_address_says_where_it_fails(sandbox: Server) -> None:
    """The words of the local part are faults for the providers they name, and no others."""
    to = "pedro+Mailgun-503+ses-refuse+ses-slow@example.org"
    assert [send(provider, sandbox, to=to).status for provider in PROVIDERS] == [503, 400, 202]
    assert [mail["provider"] for mail in sandbox.mails()] == ["sendgrid"]
    assert sandbox.call("GET", "/requests").json() == {"mailgun": 1, "ses": 1, "sendgrid": 1}


@each_provider
def test_an_address_can_lose_an_answer(sandbox: Server, provider: str) -> None:
    """`<provider>-lost@…` is accepted and not answered."""
    with pytest.raises(CLOSED):
        send(provider, sandbox, to=f"{provider}-lost@example.org")
    assert sandbox.mails(f"?to={provider}-lost@example.org")[0]["provider"] == provider


def test_an_address_wins_over_the_switch(sandbox: Server) -> None:
    """The recipient's fault applies in place of the provider's."""
    sandbox.turn("mailgun", kind="hang")
    assert send("mailgun", sandbox, to="mailgun-502@example.org").status == 502


# --- the sandbox's own API ---------------------------------------------------------------------


def test_faults_are_shown_as_they_were_set(sandbox: Server) -> None:
    """`GET /faults` shows each provider's kind and what belongs to it."""
    sandbox.turn("mailgun", kind="status", status=503, seconds=2.5)
    sandbox.turn("ses", kind="slow", seconds=2.5)
    assert sandbox.call("GET", "/faults").json() == {
        "mailgun": {"kind": "status", "status": 503},
        "ses": {"kind": "slow", "seconds": 2.5},
        "sendgrid": {"kind": "healthy"},
    }
    sandbox.call("DELETE", "/faults")
    healthy = {"kind": "healthy"}
    assert sandbox.call("GET", "/faults").json() == dict.fromkeys(PROVIDERS, healthy)


@pytest.mark.parametrize(
    ("fault", "field"),
    [
        ({}, "kind"),
        ({"kind": "sick"}, "kind"),
        ({"kind": "status"}, "status"),
        ({"kind": "status", "status": 200}, "status"),
        ({"kind": "slow", "seconds": -1}, "seconds"),
        ({"kind": "hang", "minutes": 1}, "minutes"),
    ],
)
def test_a_bad_fault_is_a_problem_that_names_the_field(
    sandbox: Server, fault: dict[str, Any], field: str
) -> None:
    """422, and the provider stays as it was."""
    response = sandbox.call("PUT", "/faults/ses", json=fault)
    assert response.status == 422
    assert response.headers["Content-Type"] == "application/problem+json"
    assert list(response.json()["errors"]) == [field]
    assert sandbox.call("GET", "/faults").json()["ses"] == {"kind": "healthy"}


def test_what_is_not_there_is_a_problem(sandbox: Server) -> None:
    """Unknown providers, messages and methods, and what is not JSON, have a document too."""
    for method, path, body, status in (
        ("PUT", "/faults/postmark", b'{"kind": "hang"}', 404),
        ("PUT", "/faults/ses", b"{", 400),
        ("GET", "/messages/nothing", None, 404),
        ("PATCH", "/messages", None, 405),
    ):
        response = sandbox.call(method, path, body=body)
        assert (response.status, response.json()["status"]) == (status, status)
        assert response.headers["Content-Type"] == "application/problem+json"


def test_the_mailbox_is_filtered_and_paged(sandbox: Server) -> None:
    """Newest first; `total` counts what matches, not what is shown."""
    for number in range(3):
        send("mailgun", sandbox, to=f"r{number}@example.org")
    last = send("sendgrid", sandbox, to="r1@example.org")
    everyone = [mail["to"]["email"] for mail in sandbox.mails()]
    assert everyone == [f"r{number}@example.org" for number in (1, 2, 1, 0)]
    assert [mail["to"]["email"] for mail in sandbox.mails("?limit=2&offset=1")] == everyone[1:3]
    assert sandbox.call("GET", "/messages?limit=1").json()["total"] == 4
    assert sandbox.call("GET", "/messages?to=r1@example.org").json()["total"] == 2
    assert sandbox.call("GET", "/messages?to=r@example.org").json()["total"] == 0
    assert [mail["id"] for mail in sandbox.mails("?provider=sendgrid")] == [last.id]
    bad = sandbox.call("GET", "/messages?limit=10001&offset=x&provider=y")
    assert bad.status == 422
    assert set(bad.json()["errors"]) == {"limit", "offset", "provider"}


@each_provider
def test_a_message_is_found_by_the_providers_id(sandbox: Server, provider: str) -> None:
    """The id that was answered leads to the mail, until the mailbox is emptied."""
    answer = send(provider, sandbox)
    path = "/messages/" + quote(answer.id or "", safe="")
    assert sandbox.call("GET", path).json() == sandbox.mails()[0]
    sandbox.call("DELETE", "/messages")
    assert sandbox.call("GET", path).status == 404


def test_requests_are_counted_until_reset(sandbox: Server) -> None:
    """Refused or accepted, each request counts once; emptying the mailbox resets nothing."""
    send("ses", sandbox)
    send("ses", sandbox, to="nobody")
    send("sendgrid", sandbox, to="sendgrid-500@example.org")
    sandbox.call("DELETE", "/messages")
    counted = {"mailgun": 0, "ses": 2, "sendgrid": 1}
    assert sandbox.call("GET", "/requests").json() == counted
    sandbox.call("DELETE", "/requests")
    assert sandbox.call("GET", "/requests").json() == dict.fromkeys(PROVIDERS, 0)


def test_the_mailbox_outlives_the_process(tmp_path: Path) -> None:
    """With a path, what was accepted is there after a restart, and grows on."""
    with serving(tmp_path, mailbox=tmp_path / "mailbox.sqlite") as server:
        send("mailgun", server)
        before = server.mails()
    with serving(tmp_path, mailbox=tmp_path / "mailbox.sqlite") as server:
        assert server.mails() == before
        send("ses", server)
        assert [mail["provider"] for mail in server.mails()] == ["ses", "mailgun"]


def test_nothing_about_a_mail_is_logged(tmp_path: Path) -> None:
    """Lost and hung answers leave neither a traceback nor an address in the output."""
    with serving(tmp_path) as server:
        for provider in PROVIDERS:
            send(provider, server, to="private@example.org", key="private-key")
            for fault, errors in (("lost", CLOSED), ("hang", TIMED_OUT)):
                with pytest.raises(errors):
                    send(provider, server, to=f"{provider}-{fault}@example.org", timeout=0.3)
    output = server.log.read_text()
    assert "Booting worker" in output
    for word in ("Traceback", "Error", "private", "example.org", "/messages"):
        assert word not in output


# --- the pages ---------------------------------------------------------------------------------

SCRIPT = "<script>alert(1)</script>"


def test_the_pages_escape_what_a_mail_holds(sandbox: Server) -> None:
    """A script in any part of a mail is text on both pages, and CSP runs none anyway."""
    mail_id = sandbox.call(
        "POST",
        f"/mailgun/v3/{DOMAIN}/messages",
        headers=mailgun_auth("key"),
        fields={
            "from": f'"{SCRIPT}" <a@example.com>',
            "to": f'"{SCRIPT}" <b@example.org>',
            "subject": SCRIPT,
            "text": SCRIPT,
            "html": f'"{SCRIPT}',
            f"h:X-{SCRIPT}": SCRIPT,
        },
    ).json()["id"]
    front = sandbox.call("GET", "/")
    assert f'href="/mail/{quote(mail_id, safe="@")}"' in front.data.decode()
    mail = sandbox.call("GET", "/mail/" + quote(mail_id))
    assert 'srcdoc="&#34;&lt;script&gt;alert(1)&lt;/script&gt;"' in mail.data.decode()
    for page, times in ((front, 2), (mail, 9)):
        assert page.status == 200
        assert page.headers["Content-Type"] == "text/html; charset=utf-8"
        assert "default-src 'none'" in page.headers["Content-Security-Policy"]
        assert page.data.count(b"<script") == 0
        assert page.data.count(b"&lt;script&gt;alert(1)") == times


def test_the_front_page_shows_the_mailbox_in_pages(sandbox: Server) -> None:
    """50 mails a page, newest first, with links to the older ones; or one recipient's."""
    for number in range(51):
        send("mailgun", sandbox, to=f"r{number}@example.org")
    first = sandbox.call("GET", "/").data.decode()
    second = sandbox.call("GET", "/?page=2").data.decode()
    found = sandbox.call("GET", "/?to=r7@example.org").data.decode()
    assert re.findall(r"r\d+@", first) == [f"r{number}@" for number in range(50, 0, -1)]
    assert 'href="/?page=2"' in first
    assert "r0@example.org" in second
    assert found.count('href="/mail/') == 1
    assert sandbox.call("GET", "/?page=-1").data.decode() == first


def test_the_forms_turn_the_switches(sandbox: Server) -> None:
    """What the page posts sets a fault, heals all, empties the mailbox."""
    send("ses", sandbox)
    form = {"kind": "status", "status": "503", "seconds": "2"}
    answer = sandbox.call("POST", "/switches/mailgun", fields=form, encode_multipart=False)
    assert (answer.status, answer.headers["Location"]) == (303, "/")
    assert sandbox.call("GET", "/faults").json()["mailgun"] == {"kind": "status", "status": 503}
    assert "status 503" in sandbox.call("GET", "/").data.decode()

    form["status"] = "banana"
    answer = sandbox.call("POST", "/switches/mailgun", fields=form, encode_multipart=False)
    assert answer.status == 422
    assert "mailgun: status: a whole number from 400 to 599" in answer.data.decode()

    assert sandbox.call("POST", "/switches").status == 303
    assert sandbox.call("GET", "/faults").json()["mailgun"] == {"kind": "healthy"}
    assert len(sandbox.mails()) == 1
    assert sandbox.call("POST", "/empty").status == 303
    assert sandbox.mails() == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
    ],
)
def test_another_sites_form_changes_nothing(sandbox: Server, headers: dict[str, str]) -> None:
    """A browser that says the post comes from elsewhere is refused."""
    send("ses", sandbox)
    for path in ("/empty", "/switches/ses", "/switches"):
        assert sandbox.call("POST", path, headers=headers).status == 403
    assert sandbox.call("DELETE", "/messages", headers=headers).status == 403
    assert len(sandbox.mails()) == 1


def test_the_sandboxs_own_form_is_served(sandbox: Server) -> None:
    """A browser that says the post comes from the sandbox's page is served."""
    for headers in ({"Sec-Fetch-Site": "same-origin", "Origin": "null"}, {"Origin": sandbox.url}):
        assert sandbox.call("POST", "/empty", headers=headers).status == 303


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("evil.example", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1@evil.example", 403),
        ("localhost:8025", 200),
        ("[::1]:8025", 200),
    ],
)
def test_only_local_names_are_served(sandbox: Server, host: str, status: int) -> None:
    """A name that is made to point here does not open the mailbox."""
    for path in ("/", "/messages", "/faults"):
        assert sandbox.call("GET", path, headers={"Host": host}).status == status


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Asks until it holds; fails after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came to hold"
        time.sleep(0.01)
