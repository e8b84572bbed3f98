"""The client's connection, for the answers that HTTP has no word for: none."""

import contextlib
import socket
from typing import Any

from flask import Response


def client_socket(environ: dict[str, Any]) -> socket.socket:
    """The socket the request came in on.

    Raises `RuntimeError` under a server that does not tell, such as Flask's test client.
    """
    for name in ("gunicorn.socket", "werkzeug.socket"):
        if isinstance(found := environ.get(name), socket.socket):
            return found
    raise RuntimeError("`hang`, `close` and `lost` need gunicorn or Werkzeug as the server")


def client_has_left(client: socket.socket) -> bool:
    """Whether the client closed its side; does not wait."""
    try:
        return not client.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True


def close_unanswered(client: socket.socket) -> Response:
    """Closes the connection; returns the response that the server will fail to deliver.

    Both servers take the failing write for a client that went away, and log nothing of it. An
    exception in its place would be logged with a traceback and answered with a 500.
    """
    with contextlib.suppress(OSError):
        client.shutdown(socket.SHUT_RDWR)
    return Response(status=503, headers={"Connection": "close"})
