"""The web process: ``gunicorn wsgi:app``."""

from mailrelay import assembly, counters, logs
from mailrelay.settings import SettingsError, load
from mailrelay.web import create_app
from tasks.queue import CeleryQueue

try:
    _settings = load()
    logs.configure(_settings.log_format)
    app = create_app(_settings, CeleryQueue(_settings))
    # gunicorn imports this in each process that it forked.
    counters.start(assembly.glance(_settings).table)
except SettingsError as error:
    raise SystemExit(f"mailrelay: {error}") from None
