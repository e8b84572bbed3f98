"""The answers that come from a proxy in front of a vendor, and so in no vendor's shape."""

from http import HTTPStatus

from flask import Response


def phrase(status: int) -> str:
    """The status's name; `Error 599` for one that has none."""
    return HTTPStatus(status).phrase if status in set(HTTPStatus) else f"Error {status}"


def proxy_error(status: int) -> Response:
    """The bare HTML page of a proxy that got no answer (502) or none in time (504)."""
    title = f"{status} {phrase(status)}"
    return Response(
        f"<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}</h1>"
        "</center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n",
        status,
        content_type="text/html",
    )
