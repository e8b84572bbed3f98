"""``mailrelay``: set up, check, send, and follow what was sent."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any, Literal, NoReturn

import click
from botocore.exceptions import BotoCoreError, ClientError
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

import mailrelay
from mailrelay import assembly, clock, doctor, heartbeat, provision
from mailrelay.answers import Batch, Email, EmailSummary
from mailrelay.circuit import Circuit, closed, held_open
from mailrelay.client import Client, MailrelayError, unfinished
from mailrelay.settings import Settings, SettingsError, load
from mailrelay.shared import Shared
from mailrelay.table import StoreUnavailable

_POLL_INTERVAL = 0.5
"""Seconds between two looks at a batch that is being watched."""

_PATIENCE = 2.0
"""Seconds to go on asking a relay that does not answer: a person waits, and can ask again."""


def _settings() -> Settings:
    try:
        return load()
    except SettingsError as error:
        _fail(str(error))


def _fail(message: str, status: int = 1) -> NoReturn:
    print(f"mailrelay: {message}", file=sys.stderr)  # noqa: T201
    sys.exit(status)


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
    return url


def _api(command: Callable[..., None]) -> Callable[..., None]:
    """The options of a command that talks to the API; it gets a `relay` in their place.

    What the relay refuses, or where there is none, ends the command with the API's own words.
    """

    @wraps(command)
    def with_relay(url: str, key: str, **options: Any) -> None:
        try:
            command(relay=Client(url, key, patience=_PATIENCE), **options)
        except (MailrelayError, ValueError) as error:
            _fail(str(error))

    key = click.option(
        "--key",
        envvar="MAILRELAY_API_KEY",
        required=True,
        show_envvar=True,
        help="An API key of the relay.",
    )
    url = click.option(
        "--url",
        envvar="MAILRELAY_URL",
        default=lambda: f"http://127.0.0.1:{os.environ.get('PORT') or '8000'}",
        callback=_address,
        show_envvar=True,
        show_default="http://127.0.0.1:8000",
        help="Where the relay is.",
    )
    return url(key(with_relay))


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
    relay: Client,
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
    accepted = relay.send(
        {"email": sender, "name": from_name} if from_name else sender,
        recipients,
        subject,
        plain=stdin if text == "-" else text,
        html=stdin if html == "-" else html,
        reply_to=reply_to or None,
        idempotency_key=idempotency_key or None,
    )
    click.echo(accepted["id"])
    if watch:
        _watch(relay, accepted["id"])


def _stdin() -> str:
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError:
        _fail("standard input is not in UTF-8")


@main.command()
@_api
@click.argument("id_", metavar="ID")
@click.option("--watch", is_flag=True, help="Stay until every email is sent or has failed.")
def status(relay: Client, id_: str, watch: bool) -> None:
    """Show what happened to a batch, or to one email with each attempt at it.

    With --watch, ends with status 1 unless every email was sent.
    """
    if watch:
        _watch(relay, id_)
    else:
        _show(relay.get(id_))


@main.command()
@_api
@click.argument("id_", metavar="ID")
def resend(relay: Client, id_: str) -> None:
    """Have one email sent again that is unknown, failed or deferred.

    The chain of providers begins again at once. Of an unknown email this may be a second one.
    """
    _show(relay.resend(id_))


@main.command()
@_api
@click.argument("id_", metavar="ID")
@click.option(
    "--status",
    type=click.Choice(["sent", "failed"]),
    required=True,
    help="What was found at the provider.",
)
def resolve(relay: Client, id_: str, status: Literal["sent", "failed"]) -> None:
    """Say how one email ended that is unknown.

    Look for it at its provider first. Nothing is sent.
    """
    _show(relay.resolve(id_, status))


def _watch(relay: Client, id_: str) -> None:
    """A progress bar until nothing is open any more, then the whole."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("asking", total=None)
        answer = relay.get(id_, limit=1)  # There may be no relay at all.
        left = _progress(progress, bar, answer)
        while left:
            time.sleep(_POLL_INTERVAL)
            try:
                answer = relay.get(id_, limit=1)
            except MailrelayError as error:
                if not error.passing:
                    raise
                progress.update(bar, description="no answer, still trying")
            else:
                left = _progress(progress, bar, answer)
    _show(relay.get(id_))
    if not answer["delivered"]:
        sys.exit(1)


def _progress(progress: Progress, bar: TaskID, answer: Email | Batch) -> int:
    """Show how far it is; how many emails are on their way."""
    counts: Mapping[str, Any] = {answer["status"]: 1}
    total = 1
    if answer["object"] == "batch":
        counts, total = answer["counts"], answer["total"]
    said = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    left = unfinished(answer)
    progress.update(bar, description=said, completed=total - left, total=total)
    return left


def _show(answer: Email | Batch) -> None:
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
        for attempt in answer["attempts"]:
            what = (attempt["number"], attempt["provider"], attempt["outcome"], attempt["code"])
            rows.append((*what, attempt["durationMs"], attempt["startedAt"], attempt["reason"]))
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


def _error(email: EmailSummary) -> str:
    error = email["error"]
    return f"{error['provider']} {error['code']}: {error['reason']}" if error else ""
