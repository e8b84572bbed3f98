"""gunicorn as mailrelay has it: as many processes and threads."""

import os

bind = f"127.0.0.1:{os.environ['PORT']}"
worker_class = "gthread"
workers = 2
threads = 16
timeout = 60
keepalive = 75
control_socket_disable = True
