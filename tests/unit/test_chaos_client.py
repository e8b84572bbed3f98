"""The chaos suite's client writes down what it was told, and asks again only where that is safe."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random

import pytest

from tests.chaos.client import Client

Web = Callable[..., str]


@pytest.fixture
def web() -> Iterator[Web]:
    """Makes a web process that answers with each status in turn; None closes the connection."""
    servers: list[ThreadingHTTPServer] = []

    def make(*statuses: int | None) -> str:
        left = list(statuses)

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if (status := left.pop(0)) is None:
                    self.close_connection = True
                    return
                emails = [
                    {"id": f"id-{each['email']}", "email": each["email"]}
                    for each in body["destinations"]
                ]
                answer = json.dumps({"emails": emails}).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield make
    for server in servers:
        server.shutdown()
        server.server_close()


class Draws(Random):
    """Always the same draw: below a half, a request has a key."""

    def __init__(self, draw: float) -> None:
        super().__init__(1)
        self._draw = draw

    def random(self) -> float:
        return self._draw

    def uniform(self, a: float, b: float) -> float:
        return 0.0


WITH_KEY, WITHOUT = Draws(0.4), Draws(0.9)


@pytest.mark.parametrize(
    ("rng", "statuses", "told"),
    [
        pytest.param(WITHOUT, [202], 202, id="accepted"),
        pytest.param(WITHOUT, [503, 202], 503, id="refused once, and for all without a key"),
        pytest.param(WITHOUT, [None, 202], None, id="unanswered"),
        pytest.param(WITHOUT, [429, 202], 202, id="over a limit, and sent later"),
        pytest.param(WITH_KEY, [503, None, 409, 202], 202, id="asked again with a key"),
        pytest.param(WITH_KEY, [422, 202], 422, id="wrong, with a key"),
        pytest.param(WITH_KEY, [None, 422], None, id="wrong after no answer"),
    ],
)
def test_what_is_told_is_written_down(
    web: Web, rng: Random, statuses: list[int | None], told: int | None
) -> None:
    url = web(*statuses)
    client = Client(lambda: [url], seed=1, rate=1)

    request = client.send(2, rng, lambda: [url])

    assert request.status == told
    assert (request.key is not None) is (rng is WITH_KEY)
    assert client.stop() == (request,)
    expected = {address: f"id-{address}" for address in request.recipients} if told == 202 else {}
    assert request.ids == expected
    assert len(set(request.recipients)) == 2
