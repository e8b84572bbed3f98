"""gunicorn, where it serves the web process or the sandbox."""

from __future__ import annotations

import logging
from typing import Any

from gunicorn import glogging  # type: ignore[import-untyped]


class Logger(glogging.Logger):  # type: ignore[misc]
    """gunicorn's own lines, by way of `mailrelay.logs`.

    Requests have their line from the application, which knows what may be said of them.
    """

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        # What --log-level says is meant for the application, too.
        logging.getLogger().setLevel(self.loglevel)

    def _set_handler(self, log: logging.Logger, output: str | None, *args: Any, **kw: Any) -> None:
        """A file that the operator names is written by gunicorn itself."""
        super()._set_handler(log, None if output == "-" else output, *args, **kw)
        log.propagate = output == "-"

    def warning(self, msg: Any, *args: Any, **kwargs: Any) -> None:
        """Without what was wrong with a request that never got to the application.

        "Invalid request from ip=192.0.2.1: Invalid HTTP header name: 'To: pedro@…'" quotes it.
        """
        if isinstance(msg, str) and msg.startswith("Invalid request from "):
            msg = msg.partition(":")[0]
        super().warning(msg, *args, **kwargs)

    def exception(self, msg: Any, *args: Any, **kwargs: Any) -> None:
        """Without the address of the request, where the application could not answer it."""
        if isinstance(msg, str) and msg.startswith("Error handling request"):
            msg, args = "a request could not be answered", ()
        super().exception(msg, *args, **kwargs)
