"""The `mailrelay` command, as a person at a terminal meets it."""

from __future__ import annotations

import http.server
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import boto3
import click
import pytest
from click.testing import CliRunner, Result
from structlog.testing import capture_logs
from ulid import ULID
from werkzeug.serving import make_server

import mailrelay
from mailrelay import cli
from mailrelay.message import Outcome
from mailrelay.providers import Answer
from tests.support.processes import BIN, free_port
from tests.support.sandbox import Sandbox, sandbox_environ
from tests.unit import test_web_app
from tests.unit.test_web_app import KEY, OTHER_KEY, World
from tests.unit.test_web_show import ACCEPTED, REJECTED, RETRY, UNANSWERED

cloud = test_web_app.cloud
make_world = test_web_app.make_world
shared_world = test_web_app.shared_world
world = test_web_app.world

Run = Callable[..., Result]
Serve = Callable[[World], str]


@pytest.fixture(autouse=True)
def _lines_of_the_relay() -> Iterator[None]:
    """The relay runs in this process, where its lines would stand in the command's output."""
    with capture_logs():
        yield


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long a relay is asked again is the client's, and tested there."""
    monkeypatch.setattr(cli, "_PATIENCE", 0)


SEND = ["send", "--from", "facundo@example.com", "--subject", "test"]
ONE = [*SEND, "--to", "pedro@example.org", "--text", "test"]


def run(*arguments: str, stdin: str | bytes | None = None, **environ: str | None) -> Result:
    """`mailrelay …` in this process; no output but its own, and never a traceback."""
    result = CliRunner().invoke(cli.main, arguments, input=stdin, env=environ)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result


# Help


def _commands() -> list[str]:
    assert isinstance(cli.main, click.Group)
    return ["", *cli.main.commands]


def test_has_the_commands_of_the_contract() -> None:
    assert {"init", "doctor", "send", "status", "resend", "resolve"} <= set(_commands())


@pytest.mark.parametrize("command", _commands())
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help(command: str, flag: str) -> None:
    """Each command says what it does, and each option too."""
    result = run(*filter(None, [command, flag]))
    assert result.exit_code == 0
    assert result.output.startswith("Usage: ")
    named = cli.main.commands[command] if command else cli.main  # type: ignore[attr-defined]
    assert named.help
    assert named.help.splitlines()[0] in result.output


def test_the_installed_script() -> None:
    """`mailrelay` is installed, and says its version."""
    done = subprocess.run(
        [BIN / "mailrelay", "--version"], check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert mailrelay.__version__ in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        *(["nonsense"], ["status"], ["status", "a", "b"], SEND, [*SEND, "--to", "a@example.org"]),
        [*ONE, "--html", "-", "--text", "-"],
        [*ONE, "--nonsense"],
    ],
)
def test_wrong_usage(arguments: list[str]) -> None:
    """A mistake in the command line is explained, with status 2."""
    result = run(*arguments, MAILRELAY_API_KEY=KEY)
    assert result.exit_code == 2
    assert "Error: " in result.output


@pytest.mark.parametrize("command", [["init"], ["doctor"]])
def test_wrong_variable(command: list[str]) -> None:
    """A variable that cannot work is named in one line."""
    result = run(*command, MAILRELAY_LEASE="1")
    assert result.exit_code == 1
    assert result.stderr.startswith("mailrelay: MAILRELAY_LEASE: ")
    assert result.stderr.count("\n") == 1


# init and doctor, on the local AWS


@pytest.fixture
def aws_environ(local_aws: str) -> dict[str, str]:
    """An empty corner of the local AWS."""
    name = f"cli-{ULID()}".lower()
    return {
        "AWS_ENDPOINT_URL": local_aws,
        "MAILRELAY_TABLE": name,
        "MAILRELAY_QUEUE_PREFIX": f"{name}-",
        "MAILRELAY_BUCKET": name,
        "MAILRELAY_API_KEYS": "shop:a-secret-key-of-the-tests",
    }


@pytest.fixture
def well(aws_environ: dict[str, str], sandbox: Sandbox) -> dict[str, str]:
    """All is there: AWS as `mailrelay init` left it, and the three providers."""
    assert run("init", **aws_environ).exit_code == 0
    return aws_environ | sandbox_environ(sandbox)


def test_init_twice(aws_environ: dict[str, str]) -> None:
    """The first run creates each thing, the second changes nothing; both end well."""
    for state in ("created", "unchanged"):
        result = run("init", **aws_environ)
        assert (result.exit_code, result.stderr) == (0, "")
        lines = result.stdout.splitlines()
        assert len(lines) == 8
        assert {line.split()[0] for line in lines} == {state}


def test_init_names_what_differs(aws_environ: dict[str, str]) -> None:
    """A queue and a table that are not as needed are named, and the status is 1."""
    name = aws_environ["MAILRELAY_TABLE"]
    options = {"endpoint_url": aws_environ["AWS_ENDPOINT_URL"], "region_name": "us-east-1"}
    boto3.client("sqs", **options).create_queue(
        QueueName=f"{name}-deliver", Attributes={"MessageRetentionPeriod": "345600"}
    )
    boto3.client("dynamodb", **options).create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
    )
    for _ in range(2):
        result = run("init", **aws_environ)
        assert result.exit_code == 1
        differs = [line for line in result.stdout.splitlines() if line.startswith("differs ")]
        assert len(differs) == 2
        assert f"table {name}: its key is not pk and sk" in differs[0]
        assert "MessageRetentionPeriod is 345600 and not 60" in differs[1]
        assert "by hand" in result.stderr


def test_init_without_aws() -> None:
    """An AWS that cannot be reached is one line."""
    result = run("init", AWS_ENDPOINT_URL=f"http://127.0.0.1:{free_port()}")
    assert result.exit_code == 75
    assert result.stderr.startswith("mailrelay: AWS: ")
    assert result.stderr.count("\n") == 1


def _failures(result: Result) -> dict[str, str]:
    """What doctor found wrong, each with what it said about it."""
    lines = result.stdout.splitlines()
    assert all(line.startswith(("ok   ", "FAIL ")) for line in lines), result.stdout
    failed = [line.removeprefix("FAIL ") for line in lines if line.startswith("FAIL ")]
    assert result.exit_code == (1 if failed else 0)
    return dict(line.split(": ", 1) for line in failed)


def test_doctor_finds_all_well(well: dict[str, str]) -> None:
    """With all in place there is a line for each thing, and the status is 0."""
    result = run("doctor", **well)
    assert _failures(result) == {}
    for what in (
        *("environment", "API keys", "DynamoDB table", "-deliver", "-sweep", "S3 bucket"),
        *("provider mailgun", "provider ses", "provider sendgrid"),
    ):
        assert what in result.stdout
    assert "secret-key" not in result.output
    assert "sandbox-key" not in result.output


def test_doctor_says_as_whom_a_key_may_send(well: dict[str, str]) -> None:
    senders = "shop:news@example.org,shop:@example.com"
    result = run("doctor", **well | {"MAILRELAY_SENDERS": senders})
    assert "API keys: shop (from @example.com, news@example.org)\n" in result.stdout


@pytest.mark.parametrize(
    ("variables", "what", "said"),
    [
        ({"MAILRELAY_API_KEYS": ""}, "API keys", "MAILRELAY_API_KEYS is not set"),
        (
            {"MAILRELAY_API_KEYS": "shop:exactly-20-character,blog:nineteen-character"},
            *("API keys", "fewer than 20 characters: blog"),
        ),
        ({"MAILRELAY_TABLE": "nowhere"}, "DynamoDB table nowhere", "run mailrelay init"),
        ({"MAILRELAY_BUCKET": "nowhere"}, "S3 bucket nowhere", "run mailrelay init"),
        ({"MAILGUN_API_KEY": ""}, "provider mailgun", "MAILGUN_API_KEY: is needed"),
        ({"MAILGUN_DOMAIN": ""}, "provider mailgun", "MAILGUN_DOMAIN: is needed"),
        ({"SENDGRID_API_KEY": ""}, "provider sendgrid", "SENDGRID_API_KEY: is needed"),
        ({"EMAIL_PROVIDERS": "ses,pigeon"}, "provider pigeon", "'pigeon' is no provider"),
        ({"MAILRELAY_RATE_PIGEON": "1/s"}, "environment", "MAILRELAY_RATE_PIGEON: 'pigeon'"),
        ({"MAILGUN_BASE_URL": "http://127.0.0.1:9"}, "provider mailgun", ""),
        ({"SENDGRID_BASE_URL": "http://127.0.0.1:9"}, "provider sendgrid", ""),
        ({"SES_ENDPOINT_URL": "http://127.0.0.1:9"}, "provider ses", ""),
    ],
)
def test_doctor_finds_what_is_broken(
    well: dict[str, str], variables: dict[str, str], what: str, said: str
) -> None:
    """One broken thing is one line that fails and says what to do; all else is still looked at."""
    failures = _failures(run("doctor", **well | variables))
    assert list(failures) == [what]
    assert said in failures[what]
    assert failures[what].strip()


def test_doctor_without_queues(well: dict[str, str]) -> None:
    failures = _failures(run("doctor", **well | {"MAILRELAY_QUEUE_PREFIX": "nowhere-"}))
    assert set(failures) == {"SQS queue nowhere-deliver", "SQS queue nowhere-sweep"}
    assert set(failures.values()) == {"does not exist: run mailrelay init"}


def test_doctor_with_another_table(well: dict[str, str]) -> None:
    """A table that is not ours is a finding, too."""
    name = f"other-{ULID()}"
    boto3.client(
        "dynamodb", endpoint_url=well["AWS_ENDPOINT_URL"], region_name="us-east-1"
    ).create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
    )
    failures = _failures(run("doctor", **well | {"MAILRELAY_TABLE": name}))
    assert list(failures) == [f"DynamoDB table {name}"]


def test_doctor_with_a_table_without_its_indexes(well: dict[str, str]) -> None:
    """Without them nothing that is lost is ever found, and no list shown: `init` makes them."""
    name = f"other-{ULID()}"
    key = {"pk": "HASH", "sk": "RANGE"}
    boto3.client(
        "dynamodb", endpoint_url=well["AWS_ENDPOINT_URL"], region_name="us-east-1"
    ).create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": part, "KeyType": kind} for part, kind in key.items()],
        AttributeDefinitions=[{"AttributeName": part, "AttributeType": "S"} for part in key],
    )
    failures = _failures(run("doctor", **well | {"MAILRELAY_TABLE": name}))
    assert list(failures) == [f"DynamoDB table {name}"]
    assert "index" in failures[f"DynamoDB table {name}"]
    assert "run mailrelay init" in failures[f"DynamoDB table {name}"]
    assert run("init", **well | {"MAILRELAY_TABLE": name}).exit_code == 0
    assert _failures(run("doctor", **well | {"MAILRELAY_TABLE": name})) == {}


def test_doctor_with_queues_that_differ(well: dict[str, str]) -> None:
    """As after another MAILRELAY_MESSAGE_TTL: it is the queues' until somebody sets it there."""
    failures = _failures(run("doctor", **well | {"MAILRELAY_MESSAGE_TTL": "120"}))
    assert [what.rpartition("-")[2] for what in failures] == ["deliver", "sweep"]
    assert all("MessageRetentionPeriod is 60 and not 120" in said for said in failures.values())


@pytest.mark.parametrize("provider", ["mailgun", "ses", "sendgrid"])
def test_doctor_with_a_provider_that_refuses(
    well: dict[str, str], sandbox: Sandbox, provider: str
) -> None:
    """Credentials that a provider refuses are that provider's line."""
    sandbox.fault(provider, "status", status=401)
    failures = _failures(run("doctor", **well))
    assert list(failures) == [f"provider {provider}"]


def test_doctor_without_aws(well: dict[str, str]) -> None:
    """Without AWS each of its parts fails, and the providers are looked at all the same."""
    gone = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}", "MAILRELAY_BUCKET": ""}
    failures = _failures(run("doctor", **well | gone))
    assert [what.split()[0] for what in failures] == ["DynamoDB", "SQS", "SQS"]


# send and status, against the real application


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Has an application on a real server; says its address."""
    with ExitStack() as stack:

        def begin(world: World) -> str:
            server = make_server("127.0.0.1", 0, world.app, threaded=True)
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            for end in (server.server_close, thread.join, server.shutdown):
                stack.callback(end)
            return f"http://127.0.0.1:{server.server_port}"

        yield begin


@pytest.fixture
def served(world: World, serve: Serve) -> str:
    """The address of the application on a real server."""
    return serve(world)


@pytest.fixture
def api(served: str) -> Run:
    """`mailrelay` with the address and a key in its environment."""

    def run_(*arguments: str, **options: Any) -> Result:
        environ = {"MAILRELAY_URL": served, "MAILRELAY_API_KEY": KEY, "COLUMNS": "200"}
        return run(*arguments, **{**environ, **options})

    return run_


def test_send(world: World, api: Run) -> None:
    """Everything that is given arrives, and the batch's id is all that is printed."""
    result = api(
        *SEND,
        *("--from-name", "Facundo", "--to", "pedro@example.org", "--to", "ana@example.org"),
        *("--text", "Grüße", "--html", "<p>Grüße</p>", "--reply-to", "answers@example.com"),
    )
    assert (result.exit_code, result.stderr) == (0, "")
    batch, content = world.store.batch_with_content(result.stdout.strip()) or pytest.fail(
        "not stored"
    )
    assert (batch.sender.email, batch.sender.name) == ("facundo@example.com", "Facundo")
    assert (batch.subject, batch.total) == ("test", 2)
    assert content is not None
    assert (content.plain, content.html) == ("Grüße", "<p>Grüße</p>")
    assert content.reply_to is not None
    assert content.reply_to.email == "answers@example.com"


@pytest.mark.parametrize("option", ["--text", "--html"])
def test_send_from_standard_input(world: World, api: Run, option: str) -> None:
    result = api(*SEND, "--to", "pedro@example.org", option, "-", stdin="Grüße\nund mehr\n")
    _, content = world.store.batch_with_content(result.stdout.strip()) or pytest.fail("not stored")
    assert content is not None
    assert "Grüße\nund mehr\n" in (content.plain, content.html)


def test_send_something_else_than_text(api: Run) -> None:
    """What is not UTF-8 is refused here, in a line."""
    result = api(*SEND, "--to", "pedro@example.org", "--text", "-", stdin=b"\xff\xfe")
    assert result.exit_code == 1
    assert result.stderr == "mailrelay: standard input is not in UTF-8\n"


def test_send_once(world: World, api: Run) -> None:
    """With an idempotency key the command can be run again and prints the same id."""
    results = [api(*ONE, "--idempotency-key", "once") for _ in range(2)]
    assert results[0].stdout == results[1].stdout
    assert len(world.queue.hints) == 1


def test_send_shows_what_is_wrong(api: Run) -> None:
    """The API's errors are shown with the names of the fields."""
    result = api(*ONE, "--to", "nobody", "--reply-to", "x")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("mailrelay: ")
    assert "\n  destinations.1.email: " in result.stderr
    assert "\n  replyTo.email: " in result.stderr


def test_send_what_is_not_utf_8(api: Run) -> None:
    """An argument that is not UTF-8, as the shell hands it over, is an error of its field."""
    result = api(*ONE, "--from-name", "\udcff")
    assert result.exit_code == 1
    assert "  from.name: " in result.stderr


@pytest.mark.parametrize("command", [ONE, ["status", "x"], ["status", "x", "--watch"]])
@pytest.mark.parametrize("key", ["wrong", "schlüssel", "a\nb: c", "日本"])
def test_wrong_key(api: Run, command: list[str], key: str) -> None:
    """A key that the relay does not know, or that cannot even be sent, is said in a line."""
    result = api(*command, "--key", key)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "API key" in result.stderr


def test_key_is_needed(served: str) -> None:
    result = run("status", "x", MAILRELAY_URL=served, MAILRELAY_API_KEY=None)
    assert result.exit_code == 2
    assert "--key" in result.output


@pytest.mark.parametrize("command", [ONE, ["status", "x"], ["status", "x", "--watch"]])
@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}", "http://[", "http://a b"])
def test_no_relay_there(api: Run, command: list[str], url: str) -> None:
    url = url.format(port=free_port())
    result = api(*command, MAILRELAY_URL=url)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "mailrelay: no relay answers at " in result.stderr
    assert url in result.stderr


@pytest.mark.parametrize("url", ["nonsense", "127.0.0.1:8000", "ftp://127.0.0.1", "http://", "/"])
def test_no_address(url: str) -> None:
    result = run(*ONE, MAILRELAY_URL=url, MAILRELAY_API_KEY=KEY)
    assert result.exit_code == 2
    assert "must be an http:// or https:// address" in result.stderr


def test_port_of_make_run(served: str) -> None:
    """Without an address it is where `make run` listens; a trailing slash does no harm."""
    port = served.rpartition(":")[2]
    environ = {"MAILRELAY_API_KEY": KEY, "MAILRELAY_URL": None}
    assert run(*ONE, PORT=port, **environ).exit_code == 0
    assert run(*ONE, "--url", f"{served}/", PORT="1", **environ).exit_code == 0


@pytest.mark.parametrize(
    ("body", "status", "content_type"),
    [
        ("<h1>It works!</h1>", 200, "text/html"),
        ("<h1>Bad Gateway</h1>", 502, "text/html"),
        ("[]", 200, "application/json"),
        ("{}", 200, "application/json"),
        ("null", 404, "application/json"),
        ('"no"', 200, "application/json"),
        ("{}", 500, "application/problem+json"),
        ("\xff", 200, "application/json"),
        ("", 302, "text/html"),
    ],
)
@pytest.mark.parametrize("command", [ONE, ["status", "x"]])
def test_something_else_there(
    command: list[str], body: str, status: int, content_type: str
) -> None:
    """A server that is no relay is said to be none, whatever it answers."""
    with http.server.HTTPServer(
        ("127.0.0.1", 0), _answering(body, status, content_type)
    ) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        result = run(*command, MAILRELAY_URL=url, MAILRELAY_API_KEY=KEY)
        thread.join()
    assert (result.exit_code, result.stdout) == (1, "")
    assert "is no relay" in result.stderr


def _answering(
    body: str, status: int, content_type: str
) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            data = body.encode("latin-1")
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_GET

        def log_message(self, *_: Any) -> None:
            """No output but the command's."""

    return Handler


def test_status_of_a_batch(world: World, api: Run) -> None:
    """Each email with its state, its provider and what went wrong."""
    answer = world.accepted(destinations=[{"email": f"a{i}@example.org"} for i in range(3)])
    ids = [email["id"] for email in answer["emails"]]
    world.deliver(ids[0], RETRY, ACCEPTED)
    world.deliver(ids[1], REJECTED)
    result = api("status", answer["id"])
    assert (result.exit_code, result.stderr) == (0, "")
    assert f"batch {answer['id']}: queued (1 queued, 1 sent, 1 failed)" in result.stdout
    lines = {id_: line for line in result.stdout.splitlines() for id_ in ids if id_ in line}
    assert len(lines) == 3
    assert all(word in lines[ids[0]] for word in ("a0@example.org", "sent", "ses", "1"))
    assert "mailgun 400: not a valid address" in lines[ids[1]]


def test_status_of_an_email(world: World, api: Run) -> None:
    """An email with each attempt at it, and when the next one is."""
    email_id = world.accepted()["emails"][0]["id"]
    world.deliver(email_id, RETRY, RETRY, RETRY)
    result = api("status", email_id)
    assert f"email {email_id}: deferred" in result.stdout
    assert "next attempt at 20" in result.stdout
    for provider in ("mailgun", "ses", "sendgrid"):
        [line] = [line for line in result.stdout.splitlines() if f" {provider} " in line]
        assert "503" in line
        assert "Service Unavailable" in line


@pytest.mark.parametrize("columns", ["40", "80", "200"])
def test_status_shows_text_as_it_is(world: World, api: Run, columns: str) -> None:
    """Brackets and colons in a reason are no markup, and ids are never broken in two."""
    email_id = world.accepted()["emails"][0]["id"]
    reason = "[/red] :smile: [bold]"
    world.deliver(email_id, *[Answer(RETRY.outcome, "[x]", reason)] * 3)
    batch = api("status", email_id.partition("-")[0], COLUMNS=columns)
    assert email_id in batch.stdout
    if columns == "200":
        assert reason in batch.stdout
        assert reason in api("status", email_id, COLUMNS=columns).stdout


def test_status_of_a_long_batch(world: World, api: Run) -> None:
    """All of its emails are shown, also those that the API has on a second page."""
    batch_id = world.accepted(destinations=[{"email": "a@example.org"}] * 103)["id"]
    assert f"{batch_id}-102" in api("status", batch_id).stdout


@pytest.mark.parametrize(
    "id_", ["x", "..", "../healthz", "../readyz", "?", "#", "a b", "%2e", "é"]
)
def test_status_of_nothing(api: Run, id_: str) -> None:
    """An id is an id: nothing in it leads anywhere else."""
    result = api("status", id_)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("mailrelay: ")
    assert result.stderr.count("\n") == 1


def test_resend_and_resolve(world: World, api: Run) -> None:
    """Each shows the email as it is then, and the API's words where it does not apply."""
    email_id = world.accepted()["emails"][0]["id"]
    world.deliver(email_id, REJECTED)
    resent = api("resend", email_id)
    assert (resent.exit_code, resent.stderr) == (0, "")
    assert resent.stdout.startswith(f"email {email_id}: queued\n")
    again = api("resend", email_id)
    assert (again.exit_code, again.stdout) == (1, "")
    assert again.stderr.startswith("mailrelay: The email is queued; resend takes ")


def test_resolve(make_world: Callable[..., World], serve: Serve) -> None:
    world = make_world(MAILRELAY_DUPLICATES="avoid")
    email_id = world.accepted()["emails"][0]["id"]
    world.deliver(email_id, UNANSWERED)
    environ = {"MAILRELAY_API_KEY": KEY, "MAILRELAY_URL": serve(world)}
    assert run("resolve", email_id, **environ).exit_code == 2
    assert run("resolve", email_id, "--status", "deferred", **environ).exit_code == 2
    resolved = run("resolve", email_id, "--status", "sent", **environ)
    assert (resolved.exit_code, resolved.stderr) == (0, "")
    assert f"email {email_id}: sent" in resolved.stdout
    assert "resolved by a person at 20" in resolved.stdout
    refused = run("resolve", email_id, "--status", "failed", **environ)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "The email is sent; " in refused.stderr


def test_status_of_another_key(world: World, api: Run) -> None:
    batch_id = world.accepted()["id"]
    assert api("status", batch_id, "--key", OTHER_KEY).exit_code == 1


@pytest.mark.parametrize(
    ("answer", "status", "said"), [(ACCEPTED, 0, "sent"), (REJECTED, 1, "failed")]
)
@pytest.mark.parametrize("of", ["batch", "email"])
def test_watch(
    world: World,
    api: Run,
    monkeypatch: pytest.MonkeyPatch,
    answer: Any,
    status: int,
    said: str,
    of: str,
) -> None:
    """--watch stays while anything is open, shows the end, and fails if an email failed."""
    accepted = world.accepted()
    email_id = accepted["emails"][0]["id"]
    looks = []

    def look(seconds: float) -> None:
        # What happens between two looks at the batch: at the first one nothing, then the end.
        looks.append(seconds)
        if len(looks) == 2:
            world.deliver(email_id, answer)

    monkeypatch.setattr(cli.time, "sleep", look)
    result = api("status", accepted["id"] if of == "batch" else email_id, "--watch")
    assert result.exit_code == status
    assert len(looks) == 2
    assert f": {said}" in result.stdout


def test_send_and_watch(world: World, api: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """send --watch prints the id at once, and the end when it is there."""

    def deliver(_: float) -> None:
        for hint in world.queue.hints:
            world.deliver(str(hint.email_id), ACCEPTED)

    monkeypatch.setattr(cli.time, "sleep", deliver)
    result = api(*ONE, "--watch")
    batch_id = result.stdout.splitlines()[0]
    assert result.exit_code == 0
    assert f"batch {batch_id}: sent (1 sent)" in result.stdout


def test_watch_an_unknown(world: World, api: Run) -> None:
    """An email that awaits a person is not waited for."""
    world_avoiding = World(MAILRELAY_DUPLICATES="avoid")
    email_id = world.accepted()["emails"][0]["id"]
    world_avoiding.deliver(email_id, Answer(Outcome.UNKNOWN, "x", "no answer"))
    result = api("status", email_id, "--watch")
    assert result.exit_code == 1
    assert f"email {email_id}: unknown" in result.stdout


def test_the_installed_script_sends(world: World, served: str) -> None:
    """The real command, without a terminal: the id on standard output, nothing else."""
    environ = {**os.environ, "MAILRELAY_URL": served, "MAILRELAY_API_KEY": KEY}
    done = subprocess.run(
        [BIN / "mailrelay", *ONE],
        env=environ,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    shown = subprocess.run(
        [BIN / "mailrelay", "status", done.stdout.strip()],
        env=environ,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert shown.returncode == 0
    assert f"{done.stdout.strip()}-0" in shown.stdout
    assert "queued" in shown.stdout
