"""Puts the parts of the sandbox together."""

import os

from flask import Flask

from mailrelay.sandbox import api, guard, mailgun, pages, problems, sendgrid, ses
from mailrelay.sandbox.exchange import Exchange
from mailrelay.sandbox.mailbox import Mailbox
from mailrelay.sandbox.switchboard import Switchboard

# The largest request a vendor takes: SES allows 40 MB a message, Mailgun and SendGrid less.
MAX_REQUEST_BYTES = 40 * 1024 * 1024


def create_app(mailbox_path: str | None = None) -> Flask:
    """The sandbox as a WSGI application.

    `mailbox_path` names the SQLite file that keeps the mailbox over a restart; without one the
    environment variable `SANDBOX_MAILBOX` does, and without that the mailbox lives in memory.
    Raises `sqlite3.Error` where the file cannot be opened or is something else.
    """
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_REQUEST_BYTES
    # Werkzeug takes 500 kB of form fields unless told; Mailgun gets whole messages as fields.
    app.config["MAX_FORM_MEMORY_SIZE"] = MAX_REQUEST_BYTES

    mailbox = Mailbox(mailbox_path or os.environ.get("SANDBOX_MAILBOX") or ":memory:")
    switchboard = Switchboard()
    exchange = Exchange(mailbox, switchboard)

    guard.install(app)
    problems.install(app)
    for vendor in (mailgun, ses, sendgrid):
        app.register_blueprint(vendor.blueprint(exchange))
    app.register_blueprint(api.blueprint(mailbox, switchboard))
    app.register_blueprint(pages.blueprint(mailbox, switchboard))
    return app
