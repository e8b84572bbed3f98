"""``mailrelay``: set up, check, send, and follow what was sent."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn
from urllib.parse import quote

import click
import urllib3
from botocore.exceptions import BotoCoreError, ClientError
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

import mailrelay
from mailrelay import assembly, clock, doctor, heartbeat, provision
from mailrelay.circuit import Circuit, closed, held_open
from mailrelay.settings import Settings, SettingsError, load
from mailrelay.shared import Shared
from mailrelay.table import StoreUnavailable
from mailrelay.web.schemas import MAX_DESTINATIONS

_POLL_INTERVAL = 0.5
"""Seconds between two looks at a batch that is being watched."""

_UNFINISHED = ("queued", "sending", "deferred")


def _settings() -> Settings:
    try:
        return load()
    except SettingsError as error:
        _fail(str(error))


def _fail(message: str, status: int = 1) -> NoReturn:
    print(f"mailrelay: {message}", file=sys.stderr)  # noqa: T201
    sys.exit(status)


class _NoAnswer(click.ClickException):
    """The relay does not answer, or cannot for now."""

    def show(self, file: Any = None) -> None:
        print(f"mailrelay: {self.message}", file=file or sys.stderr)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(mailrelay.__version__)
def main() -> None:
    """An email relay that fails over between providers and does not lose mail."""


@main.command()
def init() -> None:
    """Create the table, the queues and the bucket.

    Run again, it changes nothing. What exists and is not as needed is named, and left alone; the
    command then ends with status 1. Where AWS cannot be reached it ends with 75: try again.
    """
    settings = _settings()
    differs = False
    with _aws():
        for finding in provision.provision(settings):
            click.echo(
                f"{finding.state:<10} {finding.what}{finding.detail and ': '}{finding.detail}"
            )
            differs |= finding.state == "differs"
    if differs:
        _fail("what differs has to be changed by hand, or removed and created again")


@main.command(name="doctor")
def doctor_() -> None:
    """Check the environment, AWS and each provider's credentials, a line each.

    Nothing is changed and nothing is sent. Ends with status 0 only if all is well.
    """
    settings = _settings()
    well = True
    for checkup in doctor.examine(settings):
        mark = click.style("ok  ", fg="green") if checkup.ok else click.style("FAIL", fg="red")
        click.echo(f"{mark} {checkup.what}: {checkup.detail}")
        well &= checkup.ok
    if not well:
        sys.exit(1)


@main.command()
@click.argument("part", type=click.Choice(["worker", "beat"]))
@click.option(
    "--max-age",
    type=click.FloatRange(min=0, min_open=True),
    default=heartbeat.MAX_AGE,
    show_default=True,
    metavar="SECONDS",
    help="How long its loop may stand still.",
)
def healthcheck(part: str, max_age: float) -> None:
    """Check that the workers, or beat, of this machine are at work.

    Ends with status 0 if there is one and each one's loop turns, whether AWS answers or not. A
    process that lives and hangs fails, as one that is not there does.
    """
    pulses = list(heartbeat.pulses(part, _settings().queue_prefix))
    if not pulses:
        _fail(f"no {part} runs here")
    oldest = max(pulses, key=lambda pulse: pulse.age)
    if oldest.age > max_age:
        _fail(f"{part} {oldest.pid} hangs: its loop has not turned for {oldest.age:.0f} s")
    click.echo(f"{part} is at work: its loop turned {oldest.age:.0f} s ago")


@main.group(invoke_without_command=True)
@click.pass_context
def providers(context: click.Context) -> None:
    """Show how each provider does, as all workers know it; or override that.

    Takes the relay's own environment and AWS's credentials, as init and doctor do.
    """
    if context.invoked_subcommand is not None:
        return
    settings = _settings()
    now = clock.now()
    rows: list[Sequence[object]] = [("provider", "status", "since", "until", "why", "rate")]
    with _aws():
        circuits = Shared(assembly.store(settings).table).circuits(settings.providers)
    for name, circuit in circuits.items():
        why = "held open by hand" if circuit.held else f"{circuit.outcome} {circuit.code}"
        times = (moment and clock.rfc3339(moment) for moment in (circuit.since, circuit.until))
        rate = settings.rates.get(name)
        rows.append(
            (
                *(name, circuit.state_at(now), *times),
                why if circuit.since else None,
                f"{rate:g}/s" if rate else None,
            )
        )
    _columns(rows)


@providers.command(name="open")
@click.argument("name")
def open_(name: str) -> None:
    """Have nobody ask the provider NAME, until it is closed by hand."""
    _override(name, lambda circuit: held_open(circuit, clock.now()))
    click.echo(f"{name} is left alone until: mailrelay providers close {name}")


@providers.command()
@click.argument("name")
def close(name: str) -> None:
    """Have the provider NAME asked again; its circuit opens as before if it fails."""
    _override(name, closed)
    click.echo(f"{name} is asked again")


def _override(name: str, change: Callable[[Circuit], Circuit]) -> None:
    settings = _settings()
    if name not in settings.providers:
        _fail(f"{name} is none of EMAIL_PROVIDERS, which are {', '.join(settings.providers)}")
    with _aws():
        shared = Shared(assembly.store(settings).table)
        while True:
            circuit = shared.circuits([name])[name]
            if shared.change_circuit(circuit, change(circuit)) is not None:
                return  # else a worker was there first


@contextmanager
def _aws() -> Iterator[None]:
    """End the command where AWS cannot be reached, or refuses."""
    try:
        yield
    except SettingsError as error:
        _fail(str(error))
    except (StoreUnavailable, BotoCoreError, ClientError) as error:
        _fail(f"AWS: {error}", os.EX_TEMPFAIL)


def _address(_context: click.Context, _option: click.Parameter, url: str) -> str:
    if not re.match("https?://[^/]", url):
        raise click.BadParameter("must be an http:// or https:// address")
    return url.rstrip("/")


def _api(command: Callable[..., None]) -> Callable[..., None]:
    """The options of a command that talks to the API."""
    command = click.option(
        "--key",
        envvar="MAILRELAY_API_KEY",
        required=True,
        show_envvar=True,
        help="An API key of the relay.",
    )(command)
    return click.option(
        "--url",
        envvar="MAILRELAY_URL",
        default=lambda: f"http://127.0.0.1:{os.environ.get('PORT') or '8000'}",
        callback=_address,
        show_envvar=True,
        show_default="http://127.0.0.1:8000",
        help="Where the relay is.",
    )(command)


@main.command()
@_api
@click.option("--from", "sender", required=True, metavar="ADDRESS", help="The sender.")
@click.option("--from-name", metavar="NAME", help="The name shown beside the sender.")
@click.option(
    "--to", "recipients", required=True, multiple=True, metavar="ADDRESS", help="Repeatable."
)
@click.option("--subject", required=True)
@click.option("--text", help="The plain text; - reads it from standard input.")
@click.option("--html", help="The HTML; - reads it from standard input.")
@click.option("--reply-to", metavar="ADDRESS")
@click.option("--idempotency-key", metavar="KEY", help="Send only once, however often it is run.")
@click.option("--watch", is_flag=True, help="Stay until every email is sent or has failed.")
def send(
    url: str,
    key: str,
    sender: str,
    from_name: str | None,
    recipients: tuple[str, ...],
    subject: str,
    text: str | None,
    html: str | None,
    reply_to: str | None,
    idempotency_key: str | None,
    watch: bool,
) -> None:
    """Send an email to one or many recipients, and print the batch's id."""
    if text is None and html is None:
        raise click.UsageError("Give --text, --html or both.")
    if text == html == "-":
        raise click.UsageError("Only one of --text and --html can be read from standard input.")
    stdin = _stdin() if "-" in (text, html) else ""
    body = {
        "from": {"email": sender, "name": from_name},
        "destinations": [{"email": recipient} for recipient in recipients],
        "subject": subject,
        "plainContent": stdin if text == "-" else text,
        "htmlContent": stdin if html == "-" else html,
        "replyTo": {"email": reply_to} if reply_to else None,
    }
    headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
    batch = _call("POST", f"{url}/emails/send", key, _without_none(body), headers)
    click.echo(batch["id"])
    if watch:
        _watch(url, key, batch["id"])


def _stdin() -> str:
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError:
        _fail("standard input is not in UTF-8")


@main.command()
@_api
@click.argument("id_", metavar="ID")
@click.option("--watch", is_flag=True, help="Stay until every email is sent or has failed.")
def status(url: str, key: str, id_: str, watch: bool) -> None:
    """Show what happened to a batch, or to one email with each attempt at it.

    With --watch, ends with status 1 unless every email was sent.
    """
    if watch:
        _watch(url, key, id_)
    else:
        _show(_get(url, key, id_))


@main.command()
@_api
@click.argument("id_", metavar="ID")
def resend(url: str, key: str, id_: str) -> None:
    """Have one email sent again that is unknown, failed or deferred.

    The chain of providers begins again at once. Of an unknown email this may be a second one.
    """
    _show(_call("POST", f"{url}/emails/{quote(id_, safe='')}/resend", key))


@main.command()
@_api
@click.argument("id_", metavar="ID")
@click.option(
    "--status",
    type=click.Choice(["sent", "failed"]),
    required=True,
    help="What was found at the provider.",
)
def resolve(url: str, key: str, id_: str, status: str) -> None:
    """Say how one email ended that is unknown.

    Look for it at its provider first. Nothing is sent.
    """
    body = {"status": status}
    _show(_call("POST", f"{url}/emails/{quote(id_, safe='')}/resolve", key, body))


def _watch(url: str, key: str, id_: str) -> None:
    """A progress bar until nothing is open any more, then the whole."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("asking", total=None)
        answer: dict[str, Any] = {}
        while True:
            try:
                answer = _get(url, key, id_, limit=1)
            except _NoAnswer:
                if not answer:
                    raise  # There may be no relay at all.
                progress.update(bar, description="no answer, still trying")
                time.sleep(_POLL_INTERVAL)
                continue
            counts = answer.get("counts") or {answer["status"]: 1}
            unfinished = sum(counts.get(name, 0) for name in _UNFINISHED)
            total = answer.get("total", 1)
            said = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
            progress.update(bar, description=said, completed=total - unfinished, total=total)
            if not unfinished:
                break
            time.sleep(_POLL_INTERVAL)
    _show(_get(url, key, id_))
    if not answer["delivered"]:
        sys.exit(1)


def _show(answer: dict[str, Any]) -> None:
    if answer["object"] == "batch":
        counts = ", ".join(f"{count} {name}" for name, count in answer["counts"].items() if count)
        click.echo(f"batch {answer['id']}: {answer['status']} ({counts})")
        rows: list[Sequence[object]] = [
            ("email", "status", "retries", "provider", "to", "error"),
        ]
        for email in answer["emails"]:
            how = (email["id"], email["status"], email["retries"], email["provider"])
            rows.append((*how, email["to"]["email"], _error(email)))
    else:
        click.echo(f"email {answer['id']}: {answer['status']}")
        if answer["nextAttemptAt"]:
            click.echo(f"next attempt at {answer['nextAttemptAt']}")
        if answer["resolvedAt"]:
            click.echo(f"resolved by a person at {answer['resolvedAt']}")
        rows = [("attempt", "provider", "outcome", "code", "ms", "started", "reason")]
        names = ("number", "provider", "outcome", "code", "durationMs", "startedAt", "reason")
        rows += [[attempt[name] for name in names] for attempt in answer["attempts"]]
    _columns(rows)


def _columns(rows: Sequence[Sequence[object]]) -> None:
    """Aligned, and never cut: what is long is last, and a terminal wraps it."""
    texts = [[_printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for row in texts:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo(line.rstrip())


def _printable(cell: object) -> str:
    """A provider's words could hold what a terminal obeys."""
    text = "-" if cell is None else str(cell)
    return "".join(char if char.isprintable() else "?" for char in text)


def _error(email: dict[str, Any]) -> str:
    error = email["error"]
    return f"{error['provider']} {error['code']}: {error['reason']}" if error else ""


def _get(url: str, key: str, id_: str, limit: int = MAX_DESTINATIONS) -> dict[str, Any]:
    """An email, or a batch with its first `limit` emails."""
    return _call("GET", f"{url}/emails/{quote(id_, safe='')}?limit={limit}", key)


def _call(
    method: str,
    url: str,
    key: str,
    body: dict[str, Any] | None = None,
    headers: dict[str, str] | None = None,
) -> dict[str, Any]:
    """The API's answer; ends the command with the API's own words where it is an error."""
    sent = {"Authorization": f"Bearer {key}", **(headers or {})}
    # In ASCII: what is not UTF-8 on the command line is the API's to refuse, field by field.
    data = None if body is None else json.dumps(body)
    if data is not None:
        sent["Content-Type"] = "application/json"
    try:
        response = urllib3.request(
            method, url, headers=sent, body=data, timeout=60, retries=False, redirect=False
        )
    except urllib3.exceptions.HTTPError:
        raise _NoAnswer(f"no relay answers at {url}") from None
    except ValueError:
        _fail("an API key and an idempotency key are made of visible ASCII characters")
    try:
        answer = json.loads(response.data)
    except ValueError:
        answer = None
    if isinstance(answer, dict) and response.status == 503 and "detail" in answer:
        raise _NoAnswer(answer["detail"])
    if isinstance(answer, dict) and response.status >= 400 and "detail" in answer:
        _fail("\n".join([answer["detail"], *_field_errors(answer)]))
    if not isinstance(answer, dict) or "id" not in answer:
        _fail(f"what answers at {url} is no relay")
    return answer


def _field_errors(problem: dict[str, Any]) -> list[str]:
    return [f"  {name}: {' '.join(said)}" for name, said in problem.get("errors", {}).items()]


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(inner) for key, inner in value.items() if inner is not None}
    return value
