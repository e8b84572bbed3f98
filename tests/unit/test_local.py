"""`make run`: which environment its parts get, how they are supervised, what it says."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from supervisor.options import ServerOptions

from mailrelay.local import __main__ as local
from mailrelay.local import aws, supervisor, wait
from mailrelay.local.banner import banner, curl
from mailrelay.local.environment import Plan, plan
from mailrelay.local.supervisor import Console, ProcfileError, Programs, read_procfile
from mailrelay.settings import SettingsError, load
from tests.support.processes import ROOT, free_port

REAL_KEY_ID = "AKIAIOSFODNN7EXAMPLE"  # the example of AWS's documentation


def planned(**given: str) -> Plan:
    return plan(given, data=Path("/data"), bin_dir=Path("/venv/bin"), demo_key="demo-secret")


# --- The environment ------------------------------------------------------------------------


def test_without_anything_given_all_is_local() -> None:
    result = planned()

    assert (result.local_aws, result.sandbox, result.demo_key) == (True, True, "demo-secret")
    assert result.environ == {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:4566",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_EC2_METADATA_DISABLED": "true",
        "MAILRELAY_BUCKET": "mailrelay-content",
        "MAILRELAY_API_KEYS": "demo:demo-secret",
        "FLOWER_BASIC_AUTH": "demo:demo-secret",
        "MAILGUN_BASE_URL": "http://127.0.0.1:8025/mailgun",
        "MAILGUN_DOMAIN": "sandbox.example",
        "MAILGUN_API_KEY": "sandbox-key",
        "SENDGRID_BASE_URL": "http://127.0.0.1:8025/sendgrid",
        "SENDGRID_API_KEY": "sandbox-key",
        "SES_ENDPOINT_URL": "http://127.0.0.1:8025/ses",
        "SANDBOX_MAILBOX": "/data/sandbox.sqlite",
        "MAILRELAY_SANDBOX_URL": "http://127.0.0.1:8025",
        "MAILRELAY_FLOWER_URL": "http://127.0.0.1:5555",
        "PATH": "/venv/bin",
        "PYTHONUNBUFFERED": "1",
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }


def test_what_is_not_ours_is_passed_on_and_the_caller_keeps_their_environment() -> None:
    given = {"HOME": "/home/me", "PATH": "/usr/bin", "no_proxy": "intranet", "AWS_PROFILE": " "}
    before = dict(given)

    environ = planned(**given).environ

    assert given == before
    assert environ["HOME"] == "/home/me"
    assert environ["PATH"] == "/venv/bin:/usr/bin"
    assert environ["no_proxy"] == "intranet,127.0.0.1,localhost"
    assert "AWS_PROFILE" not in environ  # boto3 would look for the profile named " "


def test_the_ports_are_the_callers() -> None:
    environ = planned(SANDBOX_PORT="18025", AWS_PORT="14566").environ

    assert environ["AWS_ENDPOINT_URL"] == "http://127.0.0.1:14566"
    assert environ["SES_ENDPOINT_URL"] == "http://127.0.0.1:18025/ses"


@pytest.mark.parametrize(
    ("variable", "provider"),
    [
        ("MAILGUN_BASE_URL", "mailgun"),
        ("SENDGRID_BASE_URL", "sendgrid"),
        ("SES_ENDPOINT_URL", "ses"),
    ],
)
def test_a_given_address_of_a_provider_is_used_and_the_others_stay(
    variable: str, provider: str
) -> None:
    result = planned(**{variable: "http://127.0.0.1:9999/there"})

    assert result.environ[variable] == "http://127.0.0.1:9999/there"
    assert result.providers[provider] == "http://127.0.0.1:9999/there"
    others = [where for name, where in result.providers.items() if name != provider]
    assert all(where.startswith("http://127.0.0.1:8025/") for where in others)
    assert result.sandbox


def test_a_providers_credentials_mean_the_real_provider() -> None:
    result = planned(MAILGUN_API_KEY="key", MAILGUN_DOMAIN="example.com", SENDGRID_API_KEY="SG.x")

    assert result.providers["mailgun"] == "https://api.mailgun.net"
    assert result.providers["sendgrid"] == "https://api.sendgrid.com"
    assert result.environ["MAILGUN_DOMAIN"] == "example.com"
    assert not {"MAILGUN_BASE_URL", "SENDGRID_BASE_URL"} & set(result.environ)
    assert result.sandbox  # for SES
    # The console's pages for it say that nothing leaves this machine.
    assert "MAILRELAY_SANDBOX_URL" not in result.environ


def test_without_a_provider_in_the_sandbox_there_is_none() -> None:
    assert not planned(SENDGRID_API_KEY="SG.x", EMAIL_PROVIDERS="sendgrid").sandbox
    assert not planned(EMAIL_PROVIDERS="my_own").sandbox


@pytest.mark.parametrize(
    "given",
    [
        {"AWS_ACCESS_KEY_ID": REAL_KEY_ID, "AWS_SECRET_ACCESS_KEY": "x"},
        {"AWS_PROFILE": "work"},
        {"AWS_DEFAULT_PROFILE": "work"},
        {"AWS_WEB_IDENTITY_TOKEN_FILE": "/token", "AWS_ROLE_ARN": "arn:aws:iam::1:role/x"},
        {"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/x"},
        {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://169.254.170.2/x"},
    ],
    ids=lambda given: next(iter(given)),
)
def test_aws_credentials_without_an_endpoint_mean_the_real_aws(given: dict[str, str]) -> None:
    result = planned(**given)

    assert not result.local_aws
    assert next(iter(given)) in result.aws
    assert result.providers["ses"] == "Amazon SES"
    made_up = {"AWS_ENDPOINT_URL", "SES_ENDPOINT_URL", "MAILRELAY_BUCKET", "AWS_REGION"}
    assert not made_up & set(result.environ)
    assert {name: result.environ[name] for name in given} == given


def test_a_made_up_access_key_means_the_local_aws() -> None:
    assert planned(AWS_ACCESS_KEY_ID="test", AWS_SECRET_ACCESS_KEY="test").local_aws


def test_a_given_aws_endpoint_is_used_with_credentials_for_an_imitation() -> None:
    result = planned(AWS_ENDPOINT_URL="http://127.0.0.1:9000", AWS_DEFAULT_REGION="eu-west-1")

    assert (result.local_aws, result.aws) == (False, "http://127.0.0.1:9000")
    assert result.environ["AWS_ENDPOINT_URL"] == "http://127.0.0.1:9000"
    assert result.environ["AWS_REGION"] == "eu-west-1"
    assert result.environ["AWS_ACCESS_KEY_ID"] == "local"
    assert result.environ["SES_ENDPOINT_URL"] == "http://127.0.0.1:8025/ses"


def test_a_given_endpoint_keeps_the_given_credentials() -> None:
    environ = planned(
        AWS_ENDPOINT_URL="http://127.0.0.1:9000",
        AWS_ACCESS_KEY_ID=REAL_KEY_ID,
        AWS_SECRET_ACCESS_KEY="x",
    ).environ

    assert environ["AWS_ACCESS_KEY_ID"] == REAL_KEY_ID
    assert environ["SES_ENDPOINT_URL"] == "http://127.0.0.1:8025/ses"


def test_an_endpoint_of_aws_itself_is_the_real_aws() -> None:
    result = planned(AWS_ENDPOINT_URL="https://vpce-1.sqs.eu-west-1.vpce.amazonaws.com")

    assert "AWS_ACCESS_KEY_ID" not in result.environ
    assert result.providers["ses"] == "Amazon SES"


def test_given_keys_are_used_and_shown_nowhere() -> None:
    result = planned(
        MAILRELAY_API_KEYS="me:my-secret",
        FLOWER_BASIC_AUTH="me:flower-secret",
        MAILGUN_API_KEY="mg-secret",
    )

    assert result.environ["MAILRELAY_API_KEYS"] == "me:my-secret"
    assert result.environ["FLOWER_BASIC_AUTH"] == "me:flower-secret"
    assert result.demo_key is None
    assert "secret" not in banner(load(result.environ), result, 3) + repr(result)


def test_a_variable_that_cannot_work_is_named() -> None:
    with pytest.raises(SettingsError, match="AWS_PORT: must be"):
        planned(AWS_PORT="many")


# --- The banner -----------------------------------------------------------------------------


def test_the_curl_can_be_pasted_into_a_shell() -> None:
    words = shlex.split(curl(load({"PORT": "8100"}), "the-key"))

    assert words[:4] == ["curl", "-X", "POST", "http://127.0.0.1:8100/emails/send"]
    assert "Authorization: Bearer the-key" in words
    assert json.loads(words[-1])["destinations"] == [
        {"email": "pedro@example.org", "name": "Pedro"}
    ]


def test_the_banner_names_every_address_and_the_demo_key() -> None:
    result = planned()
    text = banner(load(result.environ), result, 3.4)

    assert "ready after 3 s: open http://127.0.0.1:8000/\n" in text
    for address in ("http://127.0.0.1:8000", "http://127.0.0.1:8025", "http://127.0.0.1:4566"):
        assert re.search(rf"{address}\b", text)
    assert "Bearer demo-secret" in text


# --- Procfiles and supervisord --------------------------------------------------------------


def test_the_projects_procfiles_can_be_read() -> None:
    assert list(read_procfile(ROOT / "Procfile"))[:3] == ["web", "worker", "beat"]
    assert list(read_procfile(ROOT / "Procfile.local")) == ["aws", "sandbox"]


def test_a_procfile_may_hold_comments_and_empty_lines(tmp_path: Path) -> None:
    path = tmp_path / "Procfile"
    path.write_text("# parts\n\nweb:  serve --port $PORT\n")

    assert read_procfile(path) == {"web": "serve --port $PORT"}


@pytest.mark.parametrize("line", ["web", "web:", "we b: serve"])
def test_a_line_of_a_procfile_that_says_nothing_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "Procfile"
    path.write_text(f"{line}\n")

    with pytest.raises(ProcfileError, match=re.escape(repr(line))):
        read_procfile(path)


def test_a_missing_procfile_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProcfileError, match="Procfile: No such file"):
        read_procfile(tmp_path / "Procfile")


def test_supervisord_reads_its_configuration_as_meant(tmp_path: Path) -> None:
    """What must stop last has the lowest priority; commands arrive as they are in the Procfile."""
    programs = Programs(
        first={"aws": "serve-aws", "sandbox": "serve-sandbox"},
        setup="set-up",
        parts={"web": """date '+%H %%' "$PORT" """.strip(), "worker": "work"},
        ready="wait",
    )
    path = tmp_path / "supervisord.conf"
    path.write_text(supervisor.configuration(programs, tmp_path))
    options = ServerOptions()
    options.realize(["-c", str(path)])

    groups = sorted(options.process_group_configs, key=lambda group: group.priority)
    assert [group.name for group in groups] == ["aws", "sandbox", "setup", "ready", "parts"]
    processes = {p.name: p for group in groups for p in group.process_configs}
    assert set(processes) == set(programs.names)
    assert shlex.split(processes["web"].command) == [
        *("/bin/sh", "-c"),
        """exec date '+%H %%' "$PORT\"""",
    ]
    assert {name for name, p in processes.items() if p.autostart} == {"aws", "sandbox", "setup"}
    assert {name for name, p in processes.items() if p.autorestart} == {
        *("aws", "sandbox", "web", "worker")
    }
    assert processes["aws"].stopwaitsecs == supervisor.AWS_STOP_SECONDS
    assert processes["worker"].stopwaitsecs == supervisor.PART_STOP_SECONDS
    assert all(p.killasgroup and p.redirect_stderr for p in processes.values())


# --- The console ----------------------------------------------------------------------------


def console(*, color: bool = False) -> tuple[Console, io.BytesIO]:
    stream = io.BytesIO()
    return Console(stream, ["web", "worker"], color=color), stream


def test_each_line_stands_whole_behind_its_parts_name() -> None:
    terminal, stream = console()

    terminal.feed("web", b"one\ntw")
    terminal.feed("worker", b"\xff busy\n")
    terminal.feed("web", b"o\n")
    terminal.say("said")

    assert stream.getvalue().splitlines() == [
        b"web    | one",
        b"worker | \xff busy",
        b"web    | two",
        b"run    | said",
    ]


def test_the_last_line_of_a_part_is_shown_even_if_it_has_no_end() -> None:
    terminal, stream = console()

    terminal.feed("web", b"cut off")
    assert stream.getvalue() == b""
    terminal.finish("web")
    terminal.finish("web")

    assert stream.getvalue() == b"web    | cut off\n"


def test_what_is_to_be_copied_has_nothing_in_front() -> None:
    terminal, stream = console()
    terminal.show("curl\n")
    assert stream.getvalue() == b"curl\n"


def test_the_parts_have_different_colors_on_a_terminal() -> None:
    terminal, stream = console(color=True)
    terminal.feed("web", b"one\n")
    terminal.feed("worker", b"one\n")

    web, worker = stream.getvalue().splitlines()
    assert web == b"\x1b[36mweb    | \x1b[0mone"
    assert worker == b"\x1b[33mworker | \x1b[0mone"


# --- Waiting --------------------------------------------------------------------------------


class _Answer(BaseHTTPRequestHandler):
    statuses: ClassVar[list[int]]

    def do_GET(self) -> None:
        body = b"dynamodb does not answer"
        self.send_response(self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0])
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    """A server that answers with `_Answer.statuses` in turn, and then with the last of them."""
    with HTTPServer(("127.0.0.1", 0), _Answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/readyz"
        server.shutdown()
        thread.join()


def test_it_waits_until_the_address_answers_and_says_what_is_missing(
    url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # nobody listens there
    _Answer.statuses = [503, 503, 404]

    wait.wait_for(url, patience=0, pause=0)

    assert f"{url} answers 503 dynamodb does not answer" in capsys.readouterr().out
    assert _Answer.statuses == [404]


def test_an_address_where_nobody_listens_is_missing() -> None:
    missing = wait.missing_at(f"http://127.0.0.1:{free_port()}/")
    assert missing is not None
    assert "does not answer" in missing


def test_a_command_is_run_until_it_works(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    script = "import pathlib, sys; p = pathlib.Path(sys.argv[1])\n"
    script += "if not p.exists(): p.touch(); print('not yet', file=sys.stderr); sys.exit(75)"

    wait.run_until_it_works([sys.executable, "-c", script, str(tmp_path / "ran")], pause=0)

    captured = capfd.readouterr()
    assert captured.err == "not yet\n"
    assert "ended with 75; once more" in captured.out


def test_a_command_that_cannot_work_is_not_run_again(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        wait.run_until_it_works([sys.executable, "-c", "import sys; sys.exit(1)"], pause=0)
    assert ended.value.code == 1


def test_the_addresses_come_before_the_command(
    url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    _Answer.statuses = [200]
    wait.main([url, "--", sys.executable, "-c", "print('set up')"])
    assert capfd.readouterr().out == "set up\n"


# --- Starting -------------------------------------------------------------------------------


def test_the_demo_key_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    key = local.demo_key(tmp_path)

    assert local.demo_key(tmp_path) == key
    assert len(key) >= 32
    assert (tmp_path / "demo-key").stat().st_mode & 0o777 == 0o600
    load({"MAILRELAY_API_KEYS": f"demo:{key}"})


def test_a_port_that_is_taken_is_named() -> None:
    with HTTPServer(("127.0.0.1", 0), _Answer) as server:
        expected = f"AWS_PORT={server.server_port} is taken on 127.0.0.1; set AWS_PORT to another"
        with pytest.raises(local.StartError, match=expected):
            local.check_ports({"PORT": free_port(), "AWS_PORT": server.server_port})


def test_a_port_that_is_wanted_twice_is_named() -> None:
    port = free_port()
    with pytest.raises(local.StartError, match=f"SANDBOX_PORT and PORT are both {port}"):
        local.check_ports({"PORT": port, "SANDBOX_PORT": port})


def test_only_the_ports_that_are_needed_have_to_be_free() -> None:
    result = planned(AWS_PROFILE="work", SENDGRID_API_KEY="x", EMAIL_PROVIDERS="sendgrid,ses")
    assert local.ports(load(result.environ), result) == {"PORT": 8000, "FLOWER_PORT": 5555}


def test_a_local_aws_that_lives_on_keeps_its_state_to_itself(tmp_path: Path) -> None:
    """As after `make run` was killed: a second one would overwrite the first one's state."""
    held = aws.take(tmp_path / aws.LOCK)
    assert held is not None
    with pytest.raises(local.StartError, match="an earlier run was killed"):
        local.lock(tmp_path)
    os.close(held)


def test_the_environment_can_be_read_by_a_shell(tmp_path: Path) -> None:
    """For `mailrelay doctor` in another terminal: what was added to the caller's, and what they
    gave themselves but secrets."""
    given = {"HOME": "/home/pedro", "MAILGUN_API_KEY": "a-key-of-the-callers", "PORT": "8100"}
    planned = {**given, "AWS_REGION": "us-east-1", "MAILRELAY_API_KEYS": "demo:it's a key"}

    local.keep_environment(tmp_path, given, planned)

    path = tmp_path / "environment"
    assert path.stat().st_mode & 0o077 == 0
    assert "callers" not in path.read_text()
    assert "HOME" not in path.read_text()
    shown = subprocess.run(
        ["/bin/sh", "-c", f'. {path}; echo "$AWS_REGION $PORT $MAILRELAY_API_KEYS"'],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout == "us-east-1 8100 demo:it's a key\n"


def test_one_folder_has_one_run(tmp_path: Path) -> None:
    local.lock(tmp_path)
    with pytest.raises(local.StartError, match="runs already"):
        local.lock(tmp_path)


def test_only_what_is_local_is_started_and_waited_for() -> None:
    commands = {"aws": "serve-aws", "sandbox": "serve-sandbox"}
    result = planned(AWS_ENDPOINT_URL="http://127.0.0.1:9000")

    programs = local.what_to_run({"web": "serve"}, commands, load(result.environ), result)

    assert programs.first == {"sandbox": "serve-sandbox"}
    assert programs.setup.endswith("wait http://127.0.0.1:8025/ -- mailrelay init")
    assert programs.ready.endswith(
        "wait http://127.0.0.1:8000/readyz http://127.0.0.1:5555/healthcheck"
    )


# --- The local AWS --------------------------------------------------------------------------


def test_the_local_aws_keeps_its_state_and_listens_on_loopback_alone() -> None:
    environ = aws.ministack_environment(4566, Path("/data/aws"))

    assert environ["BIND_HOST"] == environ["MINISTACK_HOST"] == "127.0.0.1"
    assert environ["IOT_MTLS_ENABLED"] == environ["SFTP_ENABLED"] == "0"
    assert environ["PERSIST_STATE"] == environ["S3_PERSIST"] == "1"
    assert environ["STATE_DIR"] == "/data/aws"


@pytest.mark.parametrize(
    ("message", "error", "news"),
    [
        ("Exception in ASGI application\n", asyncio.CancelledError(), False),
        ("Cancel %s running task(s), timeout graceful shutdown exceeded", None, False),
        ("Exception in ASGI application\n", ValueError(), True),
        ("Application startup failed. Exiting.", None, True),
    ],
)
def test_a_long_poll_that_a_stop_ends_is_no_error(
    message: str, error: BaseException | None, news: bool
) -> None:
    info = (type(error), error, None) if error else None
    record = logging.LogRecord("uvicorn.error", logging.ERROR, "", 0, message, None, info)
    assert aws._is_news(record) is news
