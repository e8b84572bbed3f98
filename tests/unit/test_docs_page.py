"""``/docs``: the description to read and to try, in a browser."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from werkzeug.serving import make_server

from tests.support.chromium import chromium
from tests.unit import test_web_app
from tests.unit.test_web_app import KEY, World

if TYPE_CHECKING:
    from playwright.sync_api import Page

cloud = test_web_app.cloud
shared_world = test_web_app.shared_world
world = test_web_app.world


def test_the_page_allows_scripts_of_its_own_only(world: World) -> None:
    response = world.get("/docs", key=None)

    policy = response.headers["Content-Security-Policy"].split("; ")
    assert response.mimetype == "text/html"
    assert {"default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"} <= set(policy)
    assert "unsafe-eval" not in response.headers["Content-Security-Policy"]
    assert not re.search(r"<script>|\son\w+=|https?://", response.text)


def test_assets_are_there_and_may_be_kept(world: World) -> None:
    """Under an address that changes with them; the licence is beside what it is of."""
    page = world.get("/docs", key=None).text
    found = re.findall(r'(?:src|href)="(/static/[^"]+)"', page)

    assert len(found) == 4
    for path in found:
        response = world.get(path, key=None)
        assert response.status_code == 200
        assert response.cache_control.max_age == 365 * 24 * 3600
        assert "v=" in path
    licence = world.get("/static/docs/swagger-ui/LICENSE", key=None)
    assert "Apache License" in licence.text


@pytest.fixture
def page(world: World, tmp_path: Path) -> Iterator[Page]:
    server = make_server("127.0.0.1", 0, world.app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        with chromium() as browser:
            yield browser.new_page(base_url=f"http://127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_first_call_in_the_browser(world: World, page: Page) -> None:
    """Give a key, send the example, see the 202; the policy stops nothing and nobody else is
    asked."""
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))

    page.goto("/docs")
    page.get_by_role("button", name="Authorize").first.click()
    page.locator("input[type=text], input[type=password]").first.fill(KEY)
    page.locator(".modal-ux").get_by_role("button", name="Apply credentials").click()
    page.locator(".modal-ux").get_by_role("button", name="Close").click()
    page.locator("#operations-Emails-send .opblock-summary-control").click()
    page.get_by_role("button", name="Execute").click()
    page.locator("#operations-Emails-send .live-responses-table .response-col_status").get_by_text(
        "202"
    ).wait_for()

    assert len(world.queue.hints) == 1
    assert said == []
    mine = page.url.partition("/docs")[0]
    assert [url for url in asked if not url.startswith((mine, "data:"))] == []
