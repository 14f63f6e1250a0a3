"""What is answered to HTTP requests before, or instead of, an upgrade."""

from collections.abc import Mapping
from http import HTTPStatus
from urllib.parse import urlsplit

from websockets.datastructures import Headers
from websockets.http11 import Request, Response

RETRY_AFTER_SECONDS = 5
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


def is_own_origin(origin: str | None) -> bool:
    """Tell whether an Origin is none (not a browser) or a page of this machine."""
    if origin is None:
        return True
    try:
        return urlsplit(origin).hostname in _LOOPBACK_NAMES
    except ValueError:
        return False


def response(status: HTTPStatus, text: str, headers: Mapping[str, str] | None = None) -> Response:
    """A line of text, after which the connection is closed."""
    body = text.encode()
    all_headers = Headers(
        [
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("Connection", "close"),
        ]
    )
    if status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS):
        all_headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    for name, value in (headers or {}).items():
        if name in all_headers:
            del all_headers[name]
        all_headers[name] = value
    return Response(status.value, status.phrase, all_headers, body)


def refusal(status: HTTPStatus, reason: str, headers: Mapping[str, str] | None = None) -> Response:
    """Refuse with a fixed reason, as the metrics name it."""
    return response(status, f"{reason.replace('_', ' ')}\n", headers)


def bad_method() -> Response:
    """Answer a method that we don't have."""
    return response(HTTPStatus.METHOD_NOT_ALLOWED, "Method not allowed\n", {"Allow": "GET, HEAD"})


def repeated_header() -> Response:
    """Answer a request that has a header twice which must not be repeated."""
    return response(HTTPStatus.BAD_REQUEST, "Repeated header\n")


def page(request: Request) -> Response:
    """Answer somebody who did not come for a WebSocket."""
    if request.path.partition("?")[0] != "/":  # urlsplit raises on some paths
        return response(HTTPStatus.NOT_FOUND, "Not found\n")
    text = "amsync: an automerge-repo sync server. Connect with a WebSocket.\n"
    found = response(HTTPStatus.OK, text)
    if request.method == "HEAD":
        found.body = b""
    return found


def preflight() -> Response:
    """Let a web page ask `GET /` with its token: it can't read the status of a refused upgrade."""
    headers = {
        "Access-Control-Allow-Methods": "GET",
        "Access-Control-Allow-Headers": "Authorization",
        "Access-Control-Max-Age": "600",
    }
    found = response(HTTPStatus.NO_CONTENT, "", headers)
    del found.headers["Content-Type"]
    del found.headers["Content-Length"]
    return found


def let_read(found: Response, origin: str | None) -> Response:
    """Let the web page of an allowed origin read an answer, and how long to stay away."""
    if origin is not None:
        found.headers["Access-Control-Allow-Origin"] = origin
        found.headers["Access-Control-Expose-Headers"] = "Retry-After"
        found.headers["Vary"] = "Origin"
    return found
