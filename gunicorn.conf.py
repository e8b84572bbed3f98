"""How gunicorn serves the web process; `gunicorn wsgi:app` reads this file by itself."""

import os

from mailrelay import multiprocess

# Before the next lines, which import prometheus_client.
multiprocess.begin()

from mailrelay import aws, logs, providers
from mailrelay.settings import SettingsError, load

try:
    _settings = load(os.environ)
    # Here too, since gunicorn starts a worker that fails at these again and again.
    aws.region(_settings)
    providers.check(_settings)
except SettingsError as error:
    raise SystemExit(f"mailrelay: {error}") from None

logs.configure(_settings.log_format)
logger_class = "mailrelay.serving.Logger"

bind = f"127.0.0.1:{_settings.port}"
# A request waits for DynamoDB and SQS nearly all of its time: threads, in a process for each of
# two cores.
worker_class = "gthread"
workers = 2
threads = 16
# Seconds without a sign of life from a process until it is replaced. It does not end a request.
timeout = 60
graceful_timeout = 30
# A TCP load balancer or a client's pool keeps connections open; ours must not be the first to close.
keepalive = 75
# Its default path is one for all gunicorns of a user.
control_socket_disable = True


def child_exit(_, worker):
    """A process has ended, whatever the reason."""
    multiprocess.forget(worker.pid)
