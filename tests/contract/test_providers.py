"""One suite over all providers: the real clients, against the sandbox and against servers that
misbehave in ways for which HTTP has no word.

Every test holds for each of them; where one differs by nature, it is said there.
"""

from __future__ import annotations

import datetime
import json
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from email.utils import format_datetime
from http import HTTPStatus
from pathlib import Path
from threading import Event, Thread
from typing import Any

import boto3
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from mailrelay import circuit, providers
from mailrelay.message import Address, Content, Outcome
from mailrelay.providers import Answer, Envelope, Provider
from mailrelay.settings import load
from tests.support.aws import AWS_CREDENTIALS
from tests.support.processes import free_port
from tests.support.sandbox import Sandbox, sandbox_environ

PROVIDERS = ("mailgun", "ses", "sendgrid")
RECORDED = Path(__file__).parent / "recorded"

each_provider = pytest.mark.parametrize("name", PROVIDERS)

ENVELOPE = Envelope(
    message_id="<01J0000000000000000000000A-0@example.com>",
    sender=Address("facundo@example.com", "Facundo"),
    to=Address("pedro@example.org", "Pedro"),
    subject="test",
    content=Content(plain="test", html="<p>test</p>"),
)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """boto3 would take a developer's HTTP proxy even for this machine."""
    for scheme in ("http", "https", "all"):
        monkeypatch.delenv(f"{scheme}_proxy", raising=False)
        monkeypatch.delenv(f"{scheme.upper()}_PROXY", raising=False)


@pytest.fixture
def own_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """boto3 looks for credentials anew; it keeps the first that it finds for a whole process."""
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)


def make(name: str, environ: dict[str, str], **variables: str) -> Provider:
    """The provider that these variables make."""
    settings = load({**AWS_CREDENTIALS, **environ, **variables, "EMAIL_PROVIDERS": name})
    return providers.create(settings)[name]


def provider_at(name: str, url: str, **variables: str) -> Provider:
    """The provider as a client of whatever serves at `url`."""
    environ = {
        "MAILGUN_API_KEY": "mailgun-secret",
        "MAILGUN_DOMAIN": "mg.example.com",
        "MAILGUN_BASE_URL": url,
        "SENDGRID_API_KEY": "sendgrid-secret",
        "SENDGRID_BASE_URL": url,
        "SES_ENDPOINT_URL": url,
    }
    return make(name, environ, **variables)


def at_once(send: Callable[[str], Answer]) -> dict[str, Answer]:
    """What became of the same send at every provider; for faults that take their time."""
    with ThreadPoolExecutor(len(PROVIDERS)) as pool:
        return dict(zip(PROVIDERS, pool.map(send, PROVIDERS), strict=True))


# --- what arrives ------------------------------------------------------------------------------

LONG_TEXT = "Grüße aus Köln – 日本語, " * 30
CASES: dict[str, Envelope] = {
    "plain and html": ENVELOPE,
    "plain alone": replace(ENVELOPE, content=Content(plain="line one\nline two\n\n.\n..end")),
    "html alone": replace(ENVELOPE, content=Content(html="<p>Zoë &amp; <b>日本語</b></p>")),
    "no names": replace(
        ENVELOPE, sender=Address("facundo@example.com"), to=Address("pedro@example.org")
    ),
    "emoji": replace(
        ENVELOPE, subject="🎉 done 👩‍👩‍👧", content=Content(plain="🎉 " * 500, html="<p>🎉</p>")
    ),
    "non-ASCII names": replace(
        ENVELOPE,
        sender=Address("facundo@example.com", "Jürgen „Jogi“ Müller"),
        to=Address("pedro@example.org", "山田 太郎"),
    ),
    "names with commas and quotes": replace(
        ENVELOPE,
        sender=Address("facundo@example.com", 'Müller, "Jogi" & Söhne; <GmbH>'),
        to=Address("pedro@example.org", 'Doe, "Joe" \\ & Sons; <Ltd> &amp; @ (here)'),
    ),
    "long names": replace(
        ENVELOPE,
        sender=Address("facundo@example.com", "Überlange Firma " * 20 + "Ende"),
        to=Address("pedro@example.org", "very long name, " * 20 + "end"),
    ),
    "a name like an encoded word": replace(
        ENVELOPE, to=Address("pedro@example.org", "=?utf-8?q?x?= and more")
    ),
    "a long non-ASCII subject": replace(ENVELOPE, subject=LONG_TEXT.strip()),
    "a long ASCII subject": replace(ENVELOPE, subject="word " * 199 + "end"),
    "a subject like an encoded word": replace(ENVELOPE, subject="=?utf-8?q?x?="),
    "a subject that only begins like one": replace(ENVELOPE, subject="Zoë =?utf-8?b?eA=?"),
    "texts like headers and boundaries": replace(
        ENVELOPE,
        subject="Bcc: nobody@example.net",
        content=Content(plain="--=====\nTo: nobody@example.net\n\nFrom here\nFrom: there"),
    ),
    "a reply-to with a name": replace(
        ENVELOPE,
        content=Content(plain="test", reply_to=Address("hilfe@example.net", "Hilfe & Rat, Köln")),
    ),
    "a bare reply-to": replace(
        ENVELOPE, content=Content(plain="test", reply_to=Address("help@example.net"))
    ),
    "own headers": replace(
        ENVELOPE,
        content=Content(
            plain="test",
            headers={
                "X-Batch": "b-1",
                "X-Ort": "Köln am Rhein – " * 20 + "Ende",
                "X-Looks-Encoded": "=?utf-8?q?x?=",
                "List-Unsubscribe": f"<https://example.com/{'u' * 878}>",
                "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
                "List-Id": '"News, all of them" <news.example.com>',
            },
        ),
    ),
}


def address_json(address: Address | None) -> dict[str, str | None] | None:
    return address and {"email": address.email, "name": address.name}


@each_provider
@pytest.mark.parametrize("envelope", CASES.values(), ids=CASES)
def test_an_email_arrives_as_it_was_written(
    sandbox: Sandbox, name: str, envelope: Envelope
) -> None:
    """Whoever carries it, the reader sees the same addresses, subject, texts and headers."""
    answer = make(name, sandbox_environ(sandbox)).send(envelope)
    (kept,) = sandbox.messages()
    kept.pop("received_at")
    assert answer.outcome is Outcome.ACCEPTED
    assert answer.code == ("202" if name == "sendgrid" else "200")
    assert kept == {
        "id": answer.message_id,
        "provider": name,
        # SES writes its own Message-ID.
        "message_id": None if name == "ses" else envelope.message_id,
        "from": address_json(envelope.sender),
        "to": address_json(envelope.to),
        "reply_to": address_json(envelope.content.reply_to),
        "subject": envelope.subject,
        "plain": envelope.content.plain,
        "html": envelope.content.html,
        "headers": dict(envelope.content.headers),
    }
    assert sandbox.requests() == {**dict.fromkeys(PROVIDERS, 0), name: 1}


@each_provider
def test_an_international_domain_travels_as_dns_has_it(sandbox: Sandbox, name: str) -> None:
    """Domains outside ASCII go out in IDNA form, in every address."""
    envelope = replace(
        ENVELOPE,
        sender=Address("facundo@müller.example", "Facundo"),
        to=Address("pedro@ü.example"),
        content=Content(plain="test", reply_to=Address("help@Straße.example")),
    )
    assert make(name, sandbox_environ(sandbox)).send(envelope).outcome is Outcome.ACCEPTED
    (kept,) = sandbox.messages()
    assert kept["from"] == {"email": "facundo@xn--mller-kva.example", "name": "Facundo"}
    assert kept["to"] == {"email": "pedro@xn--tda.example", "name": None}
    assert kept["reply_to"] == {"email": "help@xn--strae-oqa.example", "name": None}


@each_provider
def test_an_international_local_part_goes_where_it_can(sandbox: Sandbox, name: str) -> None:
    """SES cannot write to one and says so without a request; the others can."""
    answer = make(name, sandbox_environ(sandbox)).send(
        replace(ENVELOPE, to=Address("zoë@example.org", "Zoë"))
    )
    if name == "ses":
        assert (answer.outcome, answer.code) == (Outcome.UNAVAILABLE, "local_part")
        assert sandbox.requests()[name] == 0
    else:
        assert answer.outcome is Outcome.ACCEPTED
        assert [mail["to"]["email"] for mail in sandbox.messages()] == ["zoë@example.org"]


@each_provider
def test_a_large_email_arrives_whole(sandbox: Sandbox, name: str) -> None:
    """A body is sent in pieces, and they add up."""
    content = Content(plain="Grüße, " * 100_000 + "plain", html="<p>日本語</p>" * 100_000)
    answer = make(name, sandbox_environ(sandbox)).send(replace(ENVELOPE, content=content))
    (kept,) = sandbox.messages()
    assert answer.outcome is Outcome.ACCEPTED
    # Compared first, so that a failure does not print megabytes.
    assert (kept["plain"] == content.plain, kept["html"] == content.html) == (True, True)


@each_provider
def test_many_threads_share_one_provider(sandbox: Sandbox, name: str) -> None:
    """32 threads send 160 emails through one object: each arrives once, as what it is."""
    provider = make(name, sandbox_environ(sandbox), MAILRELAY_CONCURRENCY="32")
    wanted = {f"r{number}@example.org": f"subject {number}" for number in range(160)}

    def send(email: str) -> Answer:
        return provider.send(replace(ENVELOPE, to=Address(email), subject=wanted[email]))

    with ThreadPoolExecutor(32) as pool:
        answers = dict(zip(wanted, pool.map(send, wanted), strict=True))
    assert {answer.outcome for answer in answers.values()} == {Outcome.ACCEPTED}
    kept = sandbox.messages()
    assert len(kept) == len(wanted)
    assert {mail["to"]["email"]: mail["subject"] for mail in kept} == wanted
    assert {mail["to"]["email"]: mail["id"] for mail in kept} == {
        email: answer.message_id for email, answer in answers.items()
    }
    assert sandbox.requests()[name] == len(wanted)


def test_threads_do_not_mix_up_their_answers(sandbox: Sandbox) -> None:
    """Of many sends at once, each learns its own fate, whatever becomes of the others."""
    made = {
        name: make(
            name,
            sandbox_environ(sandbox),
            MAILRELAY_CONCURRENCY="32",
            MAILRELAY_PROVIDER_TIMEOUT="4",
        )
        for name in PROVIDERS
    }
    fates = {
        "429": Outcome.RETRY,
        "refuse": Outcome.REJECTED,
        "lost": Outcome.UNKNOWN,
        "hang": Outcome.UNKNOWN,
        "403": Outcome.UNAVAILABLE,
        "fine": Outcome.ACCEPTED,
    }
    asked = [(name, fate) for name in PROVIDERS for fate in fates for _ in range(5)]

    def send(name: str, fate: str) -> Outcome:
        to = Address(f"{name}-{fate}@example.org")
        return made[name].send(replace(ENVELOPE, to=to)).outcome

    with ThreadPoolExecutor(len(asked)) as pool:
        outcomes = list(pool.map(send, *zip(*asked, strict=True)))
    assert outcomes == [fates[fate] for _, fate in asked]
    assert sandbox.requests() == dict.fromkeys(PROVIDERS, 5 * len(fates))


# --- faults of a provider ----------------------------------------------------------------------

STATUSES: dict[str, dict[int, Outcome]] = {
    "mailgun": {
        **dict.fromkeys((401, 402, 403, 404, 413, 418, 420), Outcome.UNAVAILABLE),
        **dict.fromkeys((429, 500, 503, 507), Outcome.RETRY),
        **dict.fromkeys((502, 504), Outcome.UNKNOWN),
        400: Outcome.REJECTED,
    },
    "ses": {
        **dict.fromkeys((401, 403, 404, 413), Outcome.UNAVAILABLE),
        **dict.fromkeys((429, 500, 502, 503, 504, 507), Outcome.RETRY),
        400: Outcome.REJECTED,
    },
    "sendgrid": {
        **dict.fromkeys((401, 403, 404, 405, 406, 413, 418), Outcome.UNAVAILABLE),
        **dict.fromkeys((429, 500, 503, 507), Outcome.RETRY),
        **dict.fromkeys((502, 504), Outcome.UNKNOWN),
        400: Outcome.REJECTED,
    },
}


@pytest.mark.parametrize(
    ("name", "status"), [(name, status) for name in PROVIDERS for status in STATUSES[name]]
)
def test_a_status_has_its_outcome(sandbox: Sandbox, name: str, status: int) -> None:
    """What PROVIDERS.md says of each status, after one request and with words to read."""
    sandbox.fault(name, "status", status=status)
    answer = make(name, sandbox_environ(sandbox)).send(ENVELOPE)
    assert answer.outcome is STATUSES[name][status]
    assert answer.reason
    assert answer.code
    assert answer.message_id is None
    assert sandbox.requests()[name] == 1
    assert sandbox.messages() == []


@each_provider
def test_a_refused_recipient_is_the_messages_fault(sandbox: Sandbox, name: str) -> None:
    """No other provider would take it: rejected, in the provider's words."""
    sandbox.fault(name, "refuse")
    answer = make(name, sandbox_environ(sandbox)).send(ENVELOPE)
    assert answer.outcome is Outcome.REJECTED
    assert "address" in answer.reason
    assert sandbox.requests()[name] == 1


@each_provider
def test_a_lost_answer_is_unknown(sandbox: Sandbox, name: str) -> None:
    """The provider accepted and nobody heard of it: one request, one email, outcome unknown."""
    sandbox.fault(name, "lost")
    answer = make(name, sandbox_environ(sandbox)).send(ENVELOPE)
    assert answer.outcome is Outcome.UNKNOWN
    assert answer.reason == "the request went out and no answer came back"
    assert len(sandbox.messages()) == 1
    assert sandbox.requests()[name] == 1


@each_provider
def test_a_hanging_provider_is_unknown(sandbox: Sandbox, name: str) -> None:
    """Silence for longer than MAILRELAY_PROVIDER_TIMEOUT ends the attempt, after one request."""
    sandbox.fault(name, "hang")
    provider = make(name, sandbox_environ(sandbox), MAILRELAY_PROVIDER_TIMEOUT="0.3")
    answer = provider.send(ENVELOPE)
    assert (answer.outcome, answer.code) == (Outcome.UNKNOWN, "ReadTimeoutError")
    assert sandbox.requests()[name] == 1


def test_a_provider_recovers(sandbox: Sandbox) -> None:
    """What failed leaves nothing behind in the client: the next send is as good as the first."""
    made = {
        name: make(name, sandbox_environ(sandbox), MAILRELAY_PROVIDER_TIMEOUT="2")
        for name in PROVIDERS
    }
    for kind in ("lost", "hang"):
        for name in PROVIDERS:
            sandbox.fault(name, kind)
        failed = at_once(lambda name: made[name].send(ENVELOPE))
        assert {answer.outcome for answer in failed.values()} == {Outcome.UNKNOWN}
        sandbox.reset()
        answers = at_once(lambda name: made[name].send(ENVELOPE))
        assert {answer.outcome for answer in answers.values()} == {Outcome.ACCEPTED}
        assert sandbox.requests() == dict.fromkeys(PROVIDERS, 1)


@each_provider
@pytest.mark.usefixtures("own_session")
@pytest.mark.parametrize(
    ("key", "expected"), [("good-key", Outcome.ACCEPTED), ("wrong-key", Outcome.UNAVAILABLE)]
)
def test_credentials_decide(
    sandbox: Sandbox, name: str, key: str, expected: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Good ones send and pass the doctor's check, wrong ones make the provider unavailable."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
    provider = make(name, sandbox_environ(sandbox), MAILGUN_API_KEY=key, SENDGRID_API_KEY=key)
    sent, checked = provider.send(ENVELOPE), provider.check()
    assert (sent.outcome, checked.outcome) == (expected, expected)
    assert sandbox.requests()[name] == 1  # a check sends nothing
    for answer in (sent, checked):
        assert key not in repr(answer)
        assert answer.reason


@each_provider
def test_a_check_says_what_is_wrong(sandbox: Sandbox, name: str) -> None:
    """A provider that fails or cannot be reached does not pass the check."""
    provider = make(name, sandbox_environ(sandbox), MAILRELAY_PROVIDER_TIMEOUT="0.3")
    for kind, details in (("status", {"status": 403}), ("lost", {}), ("hang", {})):
        sandbox.fault(name, kind, **details)
        answer = provider.check()
        assert answer.outcome is not Outcome.ACCEPTED
        assert answer.reason


@pytest.mark.usefixtures("own_session")
def test_ses_without_credentials_is_unavailable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """boto3 finds none anywhere: the next provider's turn, and nothing is in doubt."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("HOME", str(tmp_path))
    provider = provider_at("ses", f"http://127.0.0.1:{free_port()}")
    assert [answer.outcome for answer in (provider.send(ENVELOPE), provider.check())] == [
        Outcome.UNAVAILABLE,
        Outcome.UNAVAILABLE,
    ]


# --- before the body leaves, failing over is safe; after it, silence is unknown ------------------


@contextmanager
def peer(
    serve: Callable[[socket.socket], None], *, receive_buffer: int | None = None
) -> Iterator[str]:
    """A server that does with each connection what `serve` says, then closes it; its address."""
    listener = socket.socket()
    if receive_buffer is not None:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    listener.bind(("127.0.0.1", 0))
    listener.listen()

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            Thread(target=handle, args=(connection,), daemon=True).start()

    def handle(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            serve(connection)

    accepting = Thread(target=accept, daemon=True)
    accepting.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        accepting.join()


def read_head(connection: socket.socket) -> tuple[int, bytes]:
    """A request's Content-Length, and what came of its body with the headers."""
    data = b""
    while b"\r\n\r\n" not in data:
        received = connection.recv(65536)
        if not received:
            raise ConnectionError
        data += received
    head, _, rest = data.partition(b"\r\n\r\n")
    lengths = [
        int(line.partition(b":")[2])
        for line in head.split(b"\r\n")
        if line.lower().startswith(b"content-length:")
    ]
    return (lengths[0] if lengths else 0), rest


def read_request(connection: socket.socket) -> bytes:
    """A request's whole body."""
    length, body = read_head(connection)
    while len(body) < length:
        received = connection.recv(65536)
        if not received:
            raise ConnectionError
        body += received
    return body


def reset(connection: socket.socket) -> None:
    """Close with RST in place of FIN."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def after_the_body(then: Callable[[socket.socket], Any]) -> Callable[[socket.socket], None]:
    def serve(connection: socket.socket) -> None:
        read_request(connection)
        then(connection)

    return serve


def in_the_body(connection: socket.socket) -> None:
    """Some of the body is read, the rest refused by a reset."""
    _, body = read_head(connection)
    if not body:
        connection.recv(1)
    reset(connection)


LARGE = replace(ENVELOPE, content=Content(plain="x" * 6_000_000))
SILENT: dict[str, tuple[Callable[[socket.socket], None], Envelope]] = {
    "closed": (after_the_body(lambda connection: None), ENVELOPE),
    "reset": (after_the_body(reset), ENVELOPE),
    "reset while it was sent": (in_the_body, LARGE),
    "closed within the status line": (
        after_the_body(lambda connection: connection.sendall(b"HTTP/1.1 20")),
        ENVELOPE,
    ),
    "closed within the headers": (
        after_the_body(
            lambda connection: connection.sendall(
                b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\nX-Mess"
            )
        ),
        ENVELOPE,
    ),
    "closed within the answer": (
        after_the_body(
            lambda connection: connection.sendall(
                b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"id": "'
            )
        ),
        ENVELOPE,
    ),
    "closed within a chunk": (
        after_the_body(
            lambda connection: connection.sendall(
                b"HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n{"
            )
        ),
        ENVELOPE,
    ),
    "not HTTP": (
        after_the_body(lambda connection: connection.sendall(b"220 mx.example.org ESMTP\r\n")),
        ENVELOPE,
    ),
    "not what it says it is": (
        after_the_body(
            lambda connection: connection.sendall(
                b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}"
            )
        ),
        ENVELOPE,
    ),
}


@each_provider
@pytest.mark.parametrize(("serve", "envelope"), SILENT.values(), ids=SILENT)
def test_no_answer_after_the_body_is_unknown(
    name: str, serve: Callable[[socket.socket], None], envelope: Envelope
) -> None:
    """Once the body leaves, whatever is no answer may hide a success; nothing is sent again."""
    connections = []

    def counted(connection: socket.socket) -> None:
        connections.append(connection)
        serve(connection)

    with peer(counted) as url:
        answer = provider_at(name, url).send(envelope)
    assert answer.outcome is Outcome.UNKNOWN
    assert answer.code
    assert len(connections) == 1


@pytest.mark.parametrize("name", ["mailgun", "sendgrid"])
def test_an_answer_that_trickles_ends_with_the_attempt(name: str) -> None:
    """Each piece comes in time, and all of them never: a lease is running."""

    def trickle(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while True:
            connection.sendall(b" ")
            time.sleep(0.05)

    with peer(after_the_body(trickle)) as url:
        answer = provider_at(name, url, MAILRELAY_PROVIDER_TIMEOUT="0.3").send(ENVELOPE)

    assert answer.outcome is Outcome.UNKNOWN


@pytest.mark.parametrize("name", ["mailgun", "sendgrid"])
def test_no_more_is_read_of_an_answer_than_can_be_one(name: str) -> None:
    sent = Event()

    def flood(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 503 No\r\nContent-Length: 100000000000\r\n\r\n")
        try:
            while True:
                connection.sendall(b"x" * 65536)
        finally:
            sent.set()

    with peer(after_the_body(flood)) as url:
        answer = provider_at(name, url).send(ENVELOPE)
        assert sent.wait(10), "the connection was not closed"

    assert (answer.outcome, answer.code) == (Outcome.RETRY, "503")


@each_provider
def test_an_answer_before_the_whole_body_counts(name: str) -> None:
    """A provider that refuses a large body half-way is heard, not taken for silent."""

    def serve(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        while connection.recv(65536):
            pass

    with peer(serve) as url:
        assert provider_at(name, url).send(LARGE).outcome is Outcome.UNAVAILABLE


@each_provider
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_refused_connection_is_retry(name: str, scheme: str) -> None:
    """Nobody listens: nothing was sent."""
    answer = provider_at(name, f"{scheme}://127.0.0.1:{free_port()}").send(ENVELOPE)
    assert answer.outcome is Outcome.RETRY
    assert answer.reason == "no connection to the provider"


@each_provider
def test_a_name_that_dns_does_not_know_is_retry(name: str) -> None:
    """`.invalid` never resolves (RFC 6761): nothing was sent."""
    assert provider_at(name, "https://api.invalid").send(ENVELOPE).outcome is Outcome.RETRY


def test_a_connect_timeout_is_retry() -> None:
    """A full backlog drops each SYN, so that nobody gets a connection: nothing was sent."""
    with ExitStack() as stack:
        listener = stack.enter_context(closing(socket.create_server(("127.0.0.1", 0), backlog=0)))
        address = listener.getsockname()
        for _ in range(8):  # of these the kernel takes one or two
            filler = stack.enter_context(closing(socket.socket()))
            filler.setblocking(False)
            filler.connect_ex(address)
        url = f"http://127.0.0.1:{address[1]}"
        answers = at_once(lambda name: provider_at(name, url).send(ENVELOPE))
    for answer in answers.values():
        assert (answer.outcome, answer.code) == (Outcome.RETRY, "ConnectTimeoutError")


def self_signed(directory: Path) -> ssl.SSLContext:
    """A server's TLS with a certificate that nobody vouches for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = directory / "self-signed.pem"
    pem.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context


@pytest.mark.parametrize("fault", ["certificate", "plain HTTP", "closed", "silent"])
def test_a_tls_failure_is_retry(fault: str, tmp_path: Path) -> None:
    """Without a handshake nothing was sent, whatever stopped it."""
    context = self_signed(tmp_path)

    def serve(connection: socket.socket) -> None:
        if fault == "certificate":
            context.wrap_socket(connection, server_side=True).recv(1)
        elif fault == "plain HTTP":
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
        elif fault == "closed":
            connection.recv(65536)
        else:
            while connection.recv(65536):
                pass

    with peer(serve) as url:
        secure = url.replace("http://", "https://")
        answers = at_once(lambda name: provider_at(name, secure).send(ENVELOPE))
    assert {name: answer.outcome for name, answer in answers.items()} == dict.fromkeys(
        PROVIDERS, Outcome.RETRY
    )


def test_a_body_may_take_longer_than_connecting() -> None:
    """A large email on a slow line arrives, though it takes more than the connect timeout."""
    envelope = replace(ENVELOPE, content=Content(plain="x" * 16_000_000))
    pieces, seconds = 50, 5.0

    def serve(connection: socket.socket) -> None:
        length, body = read_head(connection)
        received = len(body)
        while received < length:
            time.sleep(seconds / pieces)  # what makes the line slow
            until = min(length, received + length // pieces + 1)
            while received < until:
                received += len(connection.recv(min(65536, until - received)))
        connection.sendall(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")

    def send(name: str) -> Answer:
        with peer(serve, receive_buffer=65536) as url:
            return provider_at(name, url, MAILRELAY_PROVIDER_TIMEOUT="20").send(envelope)

    for answer in at_once(send).values():
        assert (answer.outcome, answer.code) == (Outcome.RETRY, "503")


def test_a_provider_that_stops_reading_is_unknown() -> None:
    """A body that cannot be got rid of ends the attempt, and nobody knows what was read of it."""
    envelope = replace(ENVELOPE, content=Content(plain="x" * 16_000_000))
    given_up = Event()

    def serve(connection: socket.socket) -> None:
        read_head(connection)
        given_up.wait()

    def send(name: str) -> Answer:
        return provider_at(name, url, MAILRELAY_PROVIDER_TIMEOUT="0.5").send(envelope)

    with peer(serve, receive_buffer=65536) as url:
        answers = at_once(send)
        given_up.set()
    for answer in answers.values():
        assert answer.outcome is Outcome.UNKNOWN


# --- recorded answers --------------------------------------------------------------------------


class Recorder:
    """A server that gives one answer to everything and counts the requests."""

    def __init__(self) -> None:
        self.requests = 0
        self._answer = b""
        self._providers: dict[str, Provider] = {}

    def say(self, status: int, headers: dict[str, str], body: bytes) -> None:
        """Answer so from now on, and count from 0."""
        phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else ""
        lines = [f"HTTP/1.1 {status} {phrase}", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self._answer = (
            "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body
        )
        self.requests = 0

    def serve(self, connection: socket.socket) -> None:
        read_request(connection)
        self.requests += 1
        connection.sendall(self._answer)

    def provider(self, name: str) -> Provider:
        """The provider that gets these answers; made once, as boto3 takes its time."""
        return self._providers[name]

    @contextmanager
    def listening(self) -> Iterator[Recorder]:
        with peer(self.serve) as url:
            self._providers = {name: provider_at(name, url) for name in PROVIDERS}
            yield self


@pytest.fixture(scope="module")
def recorder() -> Iterator[Recorder]:
    with Recorder().listening() as recorder:
        yield recorder


@pytest.mark.parametrize("path", sorted(RECORDED.glob("*.json")), ids=lambda path: path.stem)
def test_a_recorded_answer_has_its_outcome(path: Path, recorder: Recorder) -> None:
    """Every file in `recorded/` is an answer of a vendor's, and what it means."""
    recorded = json.loads(path.read_text())
    body = recorded["body"]
    text = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)
    # A byte that is no UTF-8 is written as its surrogate, such as \udce9.
    recorder.say(recorded["status"], recorded["headers"], text.encode("utf-8", "surrogateescape"))
    answer = recorder.provider(recorded["provider"]).send(ENVELOPE)
    assert answer.outcome == recorded["outcome"], recorded["row"]
    for field in ("code", "reason", "message_id"):
        if field in recorded:
            assert getattr(answer, field) == recorded[field]
    assert answer.reason
    assert "secret" not in repr(answer)
    assert recorder.requests == 1


ABOUT_ONE = {
    "mailgun": (
        "400-bad-sender",
        "400-no-sender",
        "400-not-mailguns",
        "403-sandbox-domain",
        "413-too-large",
    ),
    "sendgrid": (
        "400-bad-reply-to",
        "400-bad-request",
        "400-bad-sender",
        "400-sender-and-recipient",
        "403-unverified-sender",
        "413-too-large",
    ),
    "ses": (
        "400-mail-from",
        "400-no-signature",
        "400-sender-not-verified",
        "400-unknown-error",
        "403-denied",
    ),
}
"""Recorded answers that are `unavailable` and about one email, or one sender: others may fare better.

Each for what it says: a field or a word of it names the sender or the recipient, or its status is
about what was sent (RFC 9110, section 15.5.1; 413 for its size).
"""


@pytest.mark.parametrize("path", sorted(RECORDED.glob("*.json")), ids=lambda path: path.stem)
def test_a_recorded_answer_tells_of_its_provider_or_of_one_email(
    path: Path, recorder: Recorder
) -> None:
    """Who refuses everybody is left alone at once; one bad recipient or sender trips nothing."""
    recorded = json.loads(path.read_text())
    name, _, row = path.stem.partition("-")
    body = recorded["body"]
    text = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)
    recorder.say(recorded["status"], recorded["headers"], text.encode("utf-8", "surrogateescape"))

    answer = recorder.provider(name).send(ENVELOPE)

    about_one = row in ABOUT_ONE[name] or answer.outcome is Outcome.REJECTED
    assert circuit.tells(answer) is not about_one
    assert circuit.fails(answer) is not (about_one or answer.outcome is Outcome.ACCEPTED)
    at_once = answer.outcome is Outcome.UNAVAILABLE or bool(answer.retry_after)
    assert circuit.opens(answer, [], 0) is (at_once and not about_one)


def test_what_is_about_one_email_was_recorded() -> None:
    stems = {path.stem for path in RECORDED.glob("*.json")}
    assert {f"{name}-{row}" for name, rows in ABOUT_ONE.items() for row in rows} <= stems


def http_date(seconds: float) -> str:
    return format_datetime(
        datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds), usegmt=True
    )


SAID_BY_ALL: dict[str, tuple[Callable[[], dict[str, str]], float | None]] = {
    "nothing": (dict, None),
    "seconds": (lambda: {"Retry-After": "120"}, 120),
    "a date": (lambda: {"Retry-After": http_date(120)}, 120),
    "a date that is over": (lambda: {"Retry-After": http_date(-120)}, None),
    "now": (lambda: {"Retry-After": "0"}, None),
    "next year": (lambda: {"Retry-After": "31536000"}, 21_600),
    "neither": (lambda: {"Retry-After": "soon"}, None),
    "too many digits": (lambda: {"Retry-After": "9" * 5000}, None),
    "a date that never is": (lambda: {"Retry-After": "Fri, 99 Foo 99999 99:99:99 GMT"}, None),
}
"""What a provider may say in Retry-After, and for how many seconds it then wants to be left alone."""


@each_provider
@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(("headers", "wait"), SAID_BY_ALL.values(), ids=SAID_BY_ALL)
def test_a_provider_says_when_to_come_again(
    name: str,
    status: int,
    headers: Callable[[], dict[str, str]],
    wait: float | None,
    recorder: Recorder,
) -> None:
    """In the words of RFC 9110, section 10.2.3."""
    recorder.say(status, {"Content-Type": "application/json", **headers()}, b"{}")
    answer = recorder.provider(name).send(ENVELOPE)

    assert answer.outcome is Outcome.RETRY
    assert (answer.retry_after or None) == (wait and pytest.approx(wait, abs=30))
    assert circuit.opens(answer, [], 0) is (wait is not None)


SAID_BY_ONE: dict[str, tuple[str, int, dict[str, Any], dict[str, Any], float | None]] = {
    # "try again after N seconds" is all that Mailgun says of it.
    "mailgun in prose": (
        "mailgun",
        429,
        {},
        {"message": "Too many requests, try again after 120 seconds"},
        120,
    ),
    "mailgun, one second": ("mailgun", 429, {}, {"message": "Please try after 1 second."}, 1),
    "mailgun, and a shorter header": (
        "mailgun",
        429,
        {"Retry-After": "5"},
        {"message": "try again after 120 seconds"},
        120,
    ),
    "mailgun, of something else": ("mailgun", 429, {}, {"message": "after 3000 requests"}, None),
    "mailgun, elsewhere": ("mailgun", 503, {}, {"message": "try again after 120 seconds"}, None),
    "sendgrid's reset": ("sendgrid", 429, {"X-RateLimit-Reset": 90}, {}, 90),
    "sendgrid's reset that is over": ("sendgrid", 429, {"X-RateLimit-Reset": -90}, {}, None),
    "sendgrid's reset that is over, and a header": (
        "sendgrid",
        429,
        {"X-RateLimit-Reset": -90, "Retry-After": "60"},
        {},
        60,
    ),
    "sendgrid's reset, and a shorter header": (
        "sendgrid",
        429,
        {"X-RateLimit-Reset": 90, "Retry-After": "1"},
        {},
        90,
    ),
    "sendgrid's strange reset": ("sendgrid", 429, {"X-RateLimit-Reset": "soon"}, {}, None),
    "ses, throttled": (
        "ses",
        429,
        {"x-amzn-ErrorType": "TooManyRequestsException"},
        {"message": "Maximum sending rate exceeded."},
        None,
    ),
    "ses's daily quota": (
        "ses",
        429,
        {"x-amzn-ErrorType": "TooManyRequestsException"},
        {"message": "Daily message quota exceeded."},
        3600,
    ),
}
"""What only one of them says: headers (a reset in seconds from now), body, and the wait."""


@pytest.mark.parametrize(
    ("name", "status", "headers", "body", "wait"), SAID_BY_ONE.values(), ids=SAID_BY_ONE
)
def test_a_provider_says_in_its_own_way_when_to_come_again(
    name: str,
    status: int,
    headers: dict[str, Any],
    body: dict[str, Any],
    wait: float | None,
    recorder: Recorder,
) -> None:
    said = {
        key: str(round(time.time()) + value) if isinstance(value, int) else value
        for key, value in headers.items()
    }
    recorder.say(status, {"Content-Type": "application/json", **said}, json.dumps(body).encode())
    answer = recorder.provider(name).send(ENVELOPE)

    assert (answer.retry_after or None) == (wait and pytest.approx(wait, abs=30 if said else 0))
    assert circuit.opens(answer, [], 0) is (wait is not None)


@each_provider
def test_what_is_never_sent_tells_nothing_of_the_provider(name: str) -> None:
    """An address that SES, and a text that SendGrid's own package, cannot express."""
    strange = {
        "ses": replace(ENVELOPE, to=Address("zoë@example.org")),
        "sendgrid": replace(ENVELOPE, content=Content(plain="SG.anyone.may write that")),
    }
    answer = provider_at(name, "http://127.0.0.1:1").send(strange.get(name, ENVELOPE))

    # Mailgun sends everything, and nobody is there.
    assert circuit.fails(answer) is (name == "mailgun")


STRANGE = {
    "list": b"[]",
    "text": b'"text"',
    "number": b"5",
    "null": b"null",
    "empty object": b"{}",
    "empty": b"",
    "spaces": b"  \n",
    "cut off": b'{"message": "',
    "not UTF-8": b"\xff\xfe\x00",
    "page": b"<html><body>Welcome</body></html>",
    "deep": b"[" * 100_000,
    "errors is a text": b'{"errors": "x"}',
    "errors is a number": b'{"errors": 1}',
    "errors has a number": b'{"errors": [1, null]}',
    "error with odd fields": b'{"errors": [{"message": {"a": 1}, "field": ["from"]}]}',
    "message is an object": b'{"message": {"a": 1}, "id": {"b": 2}, "MessageId": [3]}',
    "message is null": b'{"message": null, "id": null, "MessageId": null, "__type": null}',
    "type is a number": b'{"__type": 5, "message": 6}',
}


@each_provider
@pytest.mark.parametrize("body", STRANGE.values(), ids=STRANGE)
def test_a_strange_body_never_raises(name: str, body: bytes, recorder: Recorder) -> None:
    """The status decides then: a 400 that blames nobody is no reason to give up the email."""
    provider = recorder.provider(name)
    for status, outcome in (
        (400, Outcome.UNAVAILABLE),
        (403, Outcome.UNAVAILABLE),
        (429, Outcome.RETRY),
        (503, Outcome.RETRY),
    ):
        recorder.say(status, {"Content-Type": "application/json"}, body)
        answer = provider.send(ENVELOPE)
        assert (status, answer.outcome) == (status, outcome)
        assert answer.reason
        assert provider.check().outcome is not Outcome.ACCEPTED
        assert recorder.requests == 2


@pytest.mark.parametrize("name", ["mailgun", "ses"])
@pytest.mark.parametrize("body", STRANGE.values(), ids=STRANGE)
def test_a_success_in_strange_words_is_unknown(name: str, body: bytes, recorder: Recorder) -> None:
    """Who says 200 may have accepted: to call it a failure would risk a second email."""
    recorder.say(200, {"Content-Type": "application/json"}, body)
    provider = recorder.provider(name)
    assert provider.send(ENVELOPE).outcome is Outcome.UNKNOWN
    assert provider.check().outcome is not Outcome.ACCEPTED


@pytest.mark.parametrize("body", STRANGE.values(), ids=STRANGE)
def test_sendgrids_success_has_no_words(body: bytes, recorder: Recorder) -> None:
    """202 is a success whatever is in it; 200, sandbox mode's, unless the body speaks against it."""
    provider = recorder.provider("sendgrid")
    recorder.say(202, {}, body)
    assert provider.send(ENVELOPE).outcome is Outcome.ACCEPTED
    recorder.say(200, {}, body)
    fine = not body.strip() or (
        body.startswith(b'{"') and b"errors" not in body and body[-1:] == b"}"
    )
    assert provider.send(ENVELOPE).outcome is (Outcome.ACCEPTED if fine else Outcome.UNKNOWN)
    assert provider.check().outcome is not Outcome.ACCEPTED


@each_provider
def test_words_of_any_kind_can_be_stored(name: str, recorder: Recorder) -> None:
    """Hundreds of kilobytes, line breaks and half characters become one short line."""
    words = json.dumps("half \ud800\r\nand more " * 10_000)
    body = f'{{"message": {words}, "errors": [{{"message": {words}, "field": "subject"}}]}}'
    recorder.say(400, {"x-amzn-ErrorType": "MessageRejected"}, body.encode())
    answer = recorder.provider(name).send(ENVELOPE)
    assert answer.outcome is Outcome.REJECTED
    assert answer.reason.startswith("half ? and more half ? and more")
    assert len(answer.reason) <= 500
