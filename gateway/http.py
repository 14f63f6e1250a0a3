"""What is answered to HTTP requests before, or instead of, an upgrade."""

import ipaddress
from http import HTTPStatus
from urllib.parse import urlsplit

from websockets.datastructures import Headers
from websockets.http11 import Request, Response

RETRY_AFTER_SECONDS = 5
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


def is_loopback(host: str) -> bool:
    """Tell whether a host name or address can only be reached from this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_own_origin(origin: str | None) -> bool:
    """Tell whether an Origin is none (not a browser) or a page of this machine."""
    if origin is None:
        return True
    try:
        return urlsplit(origin).hostname in _LOOPBACK_NAMES
    except ValueError:
        return False


def response(status: HTTPStatus, text: str) -> Response:
    """A line of text, after which the connection is closed."""
    body = text.encode()
    headers = Headers(
        [
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("Connection", "close"),
        ]
    )
    if status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS):
        headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return Response(status.value, status.phrase, headers, body)


def refuse_request(request: Request) -> Response:
    """Answer a method that we don't have, or a header that must not be repeated."""
    if request.method in ("GET", "HEAD"):
        return response(HTTPStatus.BAD_REQUEST, "Repeated header\n")
    refused = response(HTTPStatus.METHOD_NOT_ALLOWED, "Method not allowed\n")
    refused.headers["Allow"] = "GET, HEAD"
    return refused


def page(request: Request) -> Response:
    """Answer somebody who did not come for a WebSocket."""
    if request.path.partition("?")[0] != "/":  # urlsplit raises on some paths
        return response(HTTPStatus.NOT_FOUND, "Not found\n")
    text = "amsync: an automerge-repo sync server. Connect with a WebSocket.\n"
    found = response(HTTPStatus.OK, text)
    if request.method == "HEAD":
        found.body = b""
    return found
