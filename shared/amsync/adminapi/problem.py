"""Errors of calls, as RFC 9457 says them."""

from collections.abc import Mapping
from http import HTTPStatus

from aiohttp import web


class Problem(Exception):
    """A call can't be done as it was asked for.

    Attributes:
        status: HTTP status.
        headers: Further ones of the response.
    """

    def __init__(
        self, status: HTTPStatus, detail: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status, self.headers = status, dict(headers or {})

    def response(self) -> web.Response:
        """As it is said."""
        headers = {"Cache-Control": "no-store", **self.headers}
        if self.status is HTTPStatus.UNAUTHORIZED:
            headers["WWW-Authenticate"] = "Bearer"
        if self.status is HTTPStatus.SERVICE_UNAVAILABLE:
            headers["Retry-After"] = "1"
        return web.json_response(
            {
                "type": "about:blank",
                "title": self.status.phrase,
                "status": self.status.value,
                # Names may have characters that are no text; those are not worth a failure.
                "detail": str(self).encode(errors="replace").decode(),
            },
            status=self.status.value,
            content_type="application/problem+json",
            headers=headers,
        )


def bad(detail: str) -> Problem:
    """What was asked can't be meant: 400."""
    return Problem(HTTPStatus.BAD_REQUEST, detail)
