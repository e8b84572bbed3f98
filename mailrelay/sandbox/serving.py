"""How gunicorn serves the sandbox: `gunicorn --config python:mailrelay.sandbox.serving`.

Named on the command line, it also keeps gunicorn from reading the `gunicorn.conf.py` of the
directory it is started in, which is the web process's.
"""

import os

from mailrelay import logs

logs.configure(os.environ.get("MAILRELAY_LOG_FORMAT") or "auto")
logger_class = "mailrelay.serving.Logger"
wsgi_app = "mailrelay.sandbox:create_app()"
bind = f"127.0.0.1:{os.environ.get('SANDBOX_PORT', '8025')}"
# Faults and counters live in the process: a second one would know nothing of the first's.
workers = 1
worker_class = "gthread"
# Each request that hangs or is slow holds a thread.
threads = 200
# Longer than any client pauses between two requests. gunicorn's own 2 s close a connection just
# when a client sends on it again, which looks like an answer that got lost.
keepalive = 75
# What hangs at the end of `make run` would hang for a minute.
graceful_timeout = 2
# Its default path is one for all gunicorns of a user.
control_socket_disable = True
