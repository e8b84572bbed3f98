"""Static files: browsers keep them for a year, at addresses that change when the files do."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

from flask import Flask


def register(app: Flask) -> None:
    """Have `url_for("static", …)` say which version of a file it means."""
    app.config["SEND_FILE_MAX_AGE_DEFAULT"] = timedelta(days=365)
    folder = Path(str(app.static_folder))

    @cache
    def version(name: str) -> str:
        return hashlib.sha256((folder / name).read_bytes()).hexdigest()[:16]

    @app.url_defaults
    def _add(endpoint: str, values: dict[str, Any]) -> None:
        if endpoint == "static":
            values["v"] = version(values["filename"])
