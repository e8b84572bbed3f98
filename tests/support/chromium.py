"""Debian's Chromium, as a person would use it but without a screen."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

CHROMIUM = Path("/usr/bin/chromium")

_ARGUMENTS = (
    "--no-sandbox",
    "--no-first-run",
    *(
        f"--disable-{name}"
        for name in ("background-networking", "component-update", "sync", "gpu", "quic")
    ),
)


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser; where it is not installed the test is skipped, and fails in CI."""
    if not CHROMIUM.exists():
        message = f"{CHROMIUM} is missing: apt-get install chromium"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(message)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=list(_ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()
