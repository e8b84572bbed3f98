"""The console: mail sent, watched and understood in the browser, at `/`.

Pages are made on the server; htmx, of which a copy lies in `static/console`, replaces parts of them.
Who signs in with an API key sees what that key sees. Each kind of page is a module with its routes:

    sign_in.py   the session: its beginning and its end
    overview.py  how the relay does, in pictures by chart.py
    send.py      the form: what is in it, by draft.py, and to whom, by recipients.py
    batches.py   this key's batches, by recent.py; one batch: its counts, its recipients
    emails.py    one email: its way, by timeline.py, and what a person may decide
    search.py    what was sent to an address
    sandbox.py   in `make run` only: the sandbox's switches and its mailbox

What they share: session.py (who is signed in), secret.py (what signs that), pages.py (what a page
looks like, errors too), polling.py (how often one looks again), times.py (times as people say them).
"""

from __future__ import annotations

from flask import Blueprint, Flask

from mailrelay.backlog import Backlog
from mailrelay.counters import Board
from mailrelay.relay import Relay
from mailrelay.settings import Settings
from mailrelay.table import Table
from mailrelay.web.auth import Gate
from mailrelay.web.console import (
    batches,
    emails,
    overview,
    pages,
    sandbox,
    search,
    send,
    session,
    sign_in,
)
from mailrelay.web.console.secret import Secret


def register(
    app: Flask,
    settings: Settings,
    table: Table,
    relay: Relay,
    gate: Gate,
    board: Board,
    backlog: Backlog,
) -> None:
    """Have `app` serve the console, for whom the gate lets in."""
    console = Blueprint("console", __name__, template_folder="templates")
    pages.register(app, console, flower_url=settings.flower_url)
    session.register(app, console, Secret(table), gate)
    sign_in.register(console, gate, local=settings.sandbox_url is not None)
    overview.register(console, settings.providers, board, backlog)
    send.register(console, relay, settings)
    batches.register(console, relay)
    emails.register(console, relay, settings, backlog)
    search.register(console, relay)
    if settings.sandbox_url is not None:
        sandbox.register(console, settings.sandbox_url, settings.providers)
    app.register_blueprint(console)
