"""The sandbox: one local server that stands in for Mailgun, Amazon SES and SendGrid.

It speaks the three HTTP APIs under `/mailgun`, `/ses` and `/sendgrid`, keeps what it accepted in
a mailbox (JSON under `/messages`, pages under `/`) and fails on request, by a switch per provider
(`/faults`) or by recipient (`mailgun-503+ses-hang@example.org`).

    gunicorn --config python:mailrelay.sandbox.serving

serves it on 127.0.0.1, at the port in `SANDBOX_PORT` or 8025.
"""

from mailrelay.sandbox.app import create_app

__all__ = ["create_app"]
